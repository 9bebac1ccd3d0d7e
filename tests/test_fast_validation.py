"""The quick check and the thorough one are one check: what the quick one takes, the thorough one takes alike."""

import io
import json
import string
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.factories import record

from myhealth.intake.fast_validation import usual_record
from myhealth.intake.formats.detect import read_dump
from myhealth.intake.parsed_record import ParsedRecord
from myhealth.intake.validation import latest_moment, validate_record


def reading(raw: str) -> ParsedRecord:
    """As it comes out of a list: with a further record in sight, the way read_complete_records ones are read many at a time."""
    data = f'[{raw}, {{"record_id": "2"}}]'
    return next(read_dump(io.BytesIO(data.encode("utf-8", "surrogatepass")), machine="").records)


def same(raw: str, machine: str | None = None) -> bool:
    """Whether the quick check took it; what it makes of it must be what the thorough one makes of it."""
    found = reading(raw)
    if found.faults:
        return False
    quick = usual_record(found, machine, latest_moment())
    thorough, faults = validate_record(found.decoded(), machine)
    if quick is None:
        return False
    assert thorough is not None, faults
    for name in ("checkup_for", "machine", "record_id", "checkup_type", "checkup_report", "disease", "taken_by",
                 "taken_at", "warnings"):  # fmt: skip
        assert getattr(quick, name) == getattr(thorough, name), name
    kept = [json.loads(text, parse_float=str, parse_int=str) for text in (quick.results, thorough.results)]
    assert plain(kept[0]) == plain(kept[1])
    return True


def plain(results: list) -> list:
    """Numbers by their value and digits, however the exponent is written."""
    from decimal import Decimal

    def number(value: Any) -> Any:
        try:
            return str(Decimal(value))
        except ArithmeticError:
            return value

    return [
        {k: number(v) if k in ("value", "low", "high") and v is not None else v for k, v in r.items()} for r in results
    ]


def test_the_usual_record_is_taken_by_the_quick_check() -> None:
    assert same(json.dumps(record(1)))
    assert same(json.dumps(record(None, machine="HC-1")), "HC-1")
    assert same(json.dumps(record(1, checkup_report="नमस्ते \u0041"), ensure_ascii=True))


@pytest.mark.parametrize("value", ["130", " 130 ", "<85", ">= 370", "≤ 5"])
def test_text_that_measures_something_is_left_to_the_catalogue(value: str) -> None:
    sent = {"code": "8480-6", "name": "x", "value": value, "unit": "mm[Hg]", "low": None, "high": None, "flag": None}
    assert not same(json.dumps(record(1, results=[sent])))
    assert same(json.dumps(record(1, results=[{**sent, "value": "not taken"}])))


NUMBERS = st.sampled_from(["1", "-1", "0", "0.0", "-0.0", "5.10", "5.1", "1e5", "1E-7", "1e-999", "1e999", "NaN", "9" * 18, "9" * 19,
                           "9223372036854775807", "9223372036854775808", "0." + "1" * 30, "0." + "1" * 40, "37", "370",
                           "36.100000000000000000000001", "true", "null", '"text"', '"a\\u0000b"', '"\\ud800"', '"\\ud83e\\ude7a"',
                           "[]", "{}"])  # fmt: skip
TEXTS = st.sampled_from(['""', '" "', '"x"', '"\\u0000"', '"\\ud800"', '"\\ud83e\\ude7a"', '"a\\":b"', '"a/b"', "5", "null", "true",
                         '"' + "x" * 501 + '"', '"2026-11-20T09:14:03+05:30"', '"2026-11-20T09:14:03"', '"1899-01-01T00:00:00Z"',
                         '"2026-11-20 09:14:03Z"', '"HC-1"', "[]", "1.5", '"\\n"', '"N"', '"mm[Hg]"', '"8480-6"', '"8310-5"', '"Cel"'])  # fmt: skip


@settings(max_examples=1500)
@given(st.data())
def test_whatever_stands_in_it_both_say_the_same(data: st.DataObject) -> None:
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
    same("{" + ",".join(outer) + "}", data.draw(st.sampled_from([None, "HC-1", "HC-2"])))


@given(st.text(alphabet=string.printable + "é🩺", max_size=40))
@example('"checkup_for": "x"')
@example("\\")
def test_any_text_is_the_same_to_both(text: str) -> None:
    for name in ("checkup_for", "checkup_report", "disease", "taken_by", "record_id", "machine", "checkup_type"):
        same(json.dumps(record(1, **{name: text}) if name != "record_id" else {**record(1), "record_id": text}))


@pytest.mark.parametrize("value", ["5.10", "1e-22", "36.70"])
def test_digits_are_stored_as_they_were_sent(value: str) -> None:
    raw = json.dumps(record(1)).replace("128,", f"{value},").replace("8480-6", "1-8")
    found = usual_record(reading(raw), None, latest_moment())
    assert found is not None
    assert f'"value": {value}' in found.results
