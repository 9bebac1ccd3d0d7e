"""What the Structs accept from text or from a decoded record, and what is explained, are one rule."""

import json
import string

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.factories import record

from myhealth.intake.parsed_record import DECODER, ParsedRecord
from myhealth.intake.validation import accept_text, explain, latest_moment, validate_record


def is_accepted(raw: str, machine: str | None = None) -> bool:
    """Return whether a record's text is accepted. Both ways to accept it and the explanation must agree."""
    try:
        decoded = DECODER.decode(raw)
    except ValueError:
        assert accept_text(ParsedRecord(0, 1, raw), machine, latest_moment()) is None
        return False
    found = explain(decoded, machine)
    checked, faults = validate_record(decoded, machine)
    assert (checked is None) == bool(found)
    assert faults == found
    at_once = accept_text(ParsedRecord(0, 1, raw), machine, latest_moment())
    if at_once is not None:
        assert checked is not None
        at_once.results_as_sent = checked.results_as_sent = at_once.results_text = ""
        assert at_once == checked, "the same fields, warnings and bytes of results"
    return checked is not None


def is_accepted_at_once(raw: str, machine: str | None = None) -> bool:
    assert is_accepted(raw, machine)
    return accept_text(ParsedRecord(0, 1, raw), machine, latest_moment()) is not None


def test_an_ordinary_record_needs_no_second_look() -> None:
    assert is_accepted_at_once(json.dumps(record(1)))
    assert is_accepted_at_once(json.dumps(record(None, machine="HC-1")), "HC-1")
    assert is_accepted_at_once(json.dumps(record(1, checkup_report='नमस्ते \n "A"', taken_by=None), ensure_ascii=True))
    plain = [{"name": "x", "value": 1.50}, {"code": None, "name": "x", "value": "high", "range_text": "low"}]
    assert is_accepted_at_once(json.dumps(record(1, results=plain)))


@pytest.mark.parametrize("value", ["130", "<85", ">= 370", 370, 1000])
def test_the_catalogue_says_the_same_of_text_and_of_a_decoded_record(value: object) -> None:
    sent = {"code": "8480-6", "name": "x", "value": value, "unit": "mm[Hg]"}
    assert is_accepted_at_once(json.dumps(record(1, results=[sent, {**sent, "range_text": "see report"}])))


@pytest.mark.parametrize("field", ["disease", "results"])
def test_a_repeated_key_is_never_accepted(field: str) -> None:
    text = json.dumps(record(1))
    assert not is_accepted(f'{text[:-1]}, "{field}": {json.dumps(record()[field])}}}')
    assert not is_accepted(text.replace('"unit":', '"unit": null, "unit":'))
    for report in ('"', "\\", '\\"', "\\\\u0000"):
        quoted = json.dumps(record(1, checkup_report=report))
        assert is_accepted_at_once(quoted)
        assert not is_accepted(f'{quoted[:-1]}, "{field}": {json.dumps(record()[field])}}}')


NUMBERS = st.sampled_from(["1", "-1", "0", "0.0", "-0.0", "5.10", "5.1", "1e5", "1E-7", "1e-999", "1e999", "NaN", "9" * 18, "9" * 19,
                           "9223372036854775807", "9223372036854775808", "0." + "1" * 30, "0." + "1" * 40, "37", "370",
                           "36.100000000000000000000001", "true", "null", '"text"', '"a\\u0000b"', '"\\ud800"', '"\\ud83e\\ude7a"',
                           "[]", "{}"])  # fmt: skip
TEXTS = st.sampled_from(['""', '" "', '"x"', '"\\u0000"', '"\\ud800"', '"\\ud83e\\ude7a"', '"a\\":b"', '"a/b"', "5", "null", "true",
                         '"' + "x" * 501 + '"', '"2026-11-20T09:14:03+05:30"', '"2026-11-20T09:14:03"', '"1899-01-01T00:00:00Z"',
                         '"2026-11-20 09:14:03Z"', '"HC-1"', "[]", "1.5", '"\\n"', '"N"', '"mm[Hg]"', '"8480-6"', '"8310-5"', '"Cel"'])  # fmt: skip


@settings(max_examples=3000)
@given(st.data())
def test_all_agree_on_a_damaged_record(data: st.DataObject) -> None:
    """A good record in which a few values, anywhere, are replaced, left out or written twice."""
    names = {name: json.dumps(value) for name, value in record(1, machine="HC-1").items() if name != "results"}
    result = {name: json.dumps(value) for name, value in record()["results"][0].items()}
    for target, values in ((names, TEXTS), (result, NUMBERS | TEXTS)):
        for name in data.draw(st.sets(st.sampled_from([*target, "junk"]), max_size=2)):
            changed = data.draw(st.none() | values)
            if changed is None:
                target.pop(name, None)
            else:
                target[name] = changed
    parts = [f'"{name}": {text}' for name, text in result.items()]
    if data.draw(st.booleans()) and parts:
        parts.append(data.draw(st.sampled_from(parts)))
    space = data.draw(st.sampled_from(["", " ", "\n"]))
    inner = "{" + ",".join(parts) + "}"
    outer = [f'"{name}"{space}: {text}' for name, text in names.items()] + [f'"results": [{inner}]']
    if data.draw(st.booleans()):
        outer.append(data.draw(st.sampled_from(outer)))
    is_accepted("{" + ",".join(outer) + "}", data.draw(st.sampled_from([None, "HC-1", "HC-2"])))


@given(st.text(alphabet=string.printable + "é🩺", max_size=40))
@example('"checkup_for": "x"')
@example("\\")
@example("\0")
def test_all_agree_on_any_text(text: str) -> None:
    for name in ("checkup_for", "checkup_report", "disease", "taken_by", "record_id", "machine", "checkup_type"):
        is_accepted(json.dumps({**record(1), name: text}))


@pytest.mark.parametrize(
    ("changes", "as_sent"),
    [({}, True), ({"value": 95.5}, True), ({"value": 95.5, "low": 0}, False), ({"low": None, "high": None}, False),
     ({"range_text": "see report"}, False), ({"low": ...}, False), ({"name": "🩺"}, False), ({"value": "high"}, True)],
)  # fmt: skip
def test_the_former_number_of_a_record_without_one_is_known(changes: dict, as_sent: bool) -> None:
    """From the text of its results if nothing changes them, else from what is stored: another rule would store a dump
    that an earlier release imported again."""
    made = {name: value for name, value in {**record()["results"][0], **changes}.items() if value is not ...}
    raw = json.dumps(record(None, results=[made]))
    found = accept_text(ParsedRecord(0, 1, raw), None, latest_moment())
    assert found is not None
    expected = json.dumps([made]) if as_sent else found.results.replace(',"flag_source":"source"', "")
    assert json.loads(found.former_identity())[-1] == expected


@pytest.mark.parametrize("value", ["5.10", "1e-22", "36.70"])
def test_digits_are_stored_as_they_were_sent(value: str) -> None:
    raw = json.dumps(record(1)).replace("128,", f"{value},").replace("8480-6", "1-8")
    found = accept_text(ParsedRecord(0, 1, raw), None, latest_moment())
    assert found is not None
    stored = json.loads(found.results, parse_float=str)[0]["value"]
    assert stored.lower() == value
