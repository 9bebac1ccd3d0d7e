"""Validation of records: every error has its position, and no value is changed."""

import json
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.factories import record

from myhealth.intake.formats.json_reader import DECODER
from myhealth.intake.parsed_record import decode_exactly
from myhealth.intake.validation import validate_record


def faults(value: object, machine: str | None = None) -> dict[str, str]:
    """Field -> message, of a record written as JSON and read as a dump is."""
    text = value if isinstance(value, str) else json.dumps(value)
    checked, found = validate_record(DECODER.decode(text), machine)
    assert (checked is None) == bool(found)
    return dict(found)


def one_result(**changes: object) -> dict:
    good = {"code": "8310-5", "name": "Body temperature", "value": 36.7, "unit": "Cel", **changes}
    return record(results=[{name: value for name, value in good.items() if value is not ...}])


NUMBERS = ["0", "-0", "0.0", "-0.0", "5.1", "5.10", "1E2", "1e999", "1e-400", "NaN", "-Infinity", "0." + 40 * "1"]
NUMBERS += [str(sign * (2**bits) + more) for bits in (63, 64) for sign in (1, -1) for more in (-1, 0, 1)]
TEXTS = ['"a,b"', '"\\u002c"', '"\\u002C\\u0000"', '"\\ud800"', '"\\ud83d\\ude00"', '"\ud800"', '"é"', "null", "true"]
BROKEN = ["", "[", "01", "1.", '"\t"', '"\\x"', "nul", "{,}"]


def objects(parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    names = st.sampled_from(['"a"', '"b"', '""', '"a,"', '"\\u0061"'])
    members = st.lists(st.builds("{}:{}".format, names, parts), max_size=4)
    lists = st.lists(parts, max_size=3).map(lambda found: f"[{','.join(found)}]")
    return members.map(lambda found: f"{{{', '.join(found)}}}") | lists


@example(r'{"a": 1, "a": "\u002c"}')
@given(st.recursive(st.sampled_from([*NUMBERS, *TEXTS, *BROKEN]), objects, max_leaves=8))
def test_json_is_decoded_quickly_as_it_is_decoded_part_by_part(text: str) -> None:
    def told(decode: Callable[[str], object]) -> object:
        try:
            return plain(decode(text))
        except json.JSONDecodeError as error:
            return str(error)

    assert told(decode_exactly) == told(DECODER.decode)


def plain(value: object) -> object:
    """Return a decoded value with the types and texts of its parts."""
    if isinstance(value, dict):
        named = [(name, plain(each)) for name, each in value.items()]
        return type(value), getattr(value, "name", ""), named
    return [plain(each) for each in value] if isinstance(value, list) else (type(value), str(value))


def test_a_good_record_is_taken_as_it_is() -> None:
    checked, found = validate_record(record(1182, machine="HC-1"))
    assert found == []
    assert (checked.record_id, checked.machine, checked.checkup_for) == ("1182", "HC-1", "bholanath")
    assert checked.taken_at == datetime.fromisoformat("2026-11-20T09:14:03+05:30")
    assert json.loads(checked.results) == record()["results"]


def test_what_was_not_sent_is_null() -> None:
    checked, _ = validate_record({"checkup_for": "x", "checkup_type": "T", "checkup_report": "", "disease": ""})
    assert (checked.record_id, checked.machine, checked.taken_by, checked.taken_at) == (None, None, None, None)
    assert checked.results == "[]"
    checked, _ = validate_record(record(results=[{"name": "Weight", "value": "heavy"}]))
    assert json.loads(checked.results) == [
        {"code": None, "name": "Weight", "value": "heavy", "unit": None, "low": None, "high": None, "flag": None}
    ]


@pytest.mark.parametrize("text", ["5.10", "1e-22", "0.30000000000000004", "1E+2", "37", "-3.50"])
def test_a_value_is_stored_with_the_digits_it_had(text: str) -> None:
    written = json.dumps(one_result(value="@", low=..., high=...)).replace('"@"', text)
    checked, found = validate_record(DECODER.decode(written))
    assert found == []
    value = json.loads(checked.results, parse_float=Decimal, parse_int=Decimal)[0]["value"]
    assert str(value) == str(Decimal(text))


@pytest.mark.parametrize(
    ("value", "field", "said"),
    [
        ("[1]", "", "must be an object, not a list"),
        ("null", "", "must be an object, not null"),
        (record(checkup_for=...), "checkup_for", "is missing"),
        (record(checkup_type=...), "checkup_type", "is missing"),
        (record(checkup_report=...), "checkup_report", "is missing"),
        (record(disease=...), "disease", "is missing"),
        (record(checkup_for=" "), "checkup_for", "is empty"),
        (record(checkup_for=None), "checkup_for", "must be text, not null"),
        (record(checkup_type=5), "checkup_type", "must be text, not a number"),
        (record(disease=["BP"]), "disease", "must be text, not a list"),
        (record(checkup_report={"a": 1}), "checkup_report", "must be text, not an object"),
        (record(taken_by=True), "taken_by", "must be text, not true or false"),
        (record(checkup_report="a\0b"), "checkup_report", "contains a NUL character (at 1)"),
        (record(checkup_report="x" * 10_000_000), "checkup_report", "has 10000000 characters; at most 1000000"),
        (record(disease="\ud800"), "disease", "half a character"),
        (record(record_id=1.5), "record_id", "must be text or a whole number"),
        (record(record_id=True), "record_id", "not true or false"),
        (record(record_id=" "), "record_id", "is empty"),
        (record(machine=7), "machine", "must be text, not a number"),
        (record(machine="A/B"), "machine", "contains a /"),
        (record(taken_at="2026-11-20T09:14:03"), "taken_at", "has no zone; add one"),
        (record(taken_at="99999-01-01T00:00:00Z"), "taken_at", "is not a date and time like"),
        (record(taken_at="2026-02-30T00:00:00Z"), "taken_at", "is not a date and time like"),
        (record(taken_at="0001-01-01T00:00:00+14:00"), "taken_at", "is not between the years 1900 and 2199"),
        (record(taken_at="yesterday\x1b[2J"), "taken_at", r"'yesterday\x1b[2J' is not a date"),
        (record(taken_at=1763615643), "taken_at", "must be text like"),
        (record(taken_at="\ud800"), "taken_at", r"'\ud800' is not a date"),
        (record(takken_at="x"), "takken_at", "is not a field; the fields are"),
        (record(results={}), "results", "must be a list, not an object"),
        (record(results=[{"name": "a", "value": 1}] * 2001), "results", "has 2001 entries"),
        (record(results=[7]), "results[0]", "must be an object, not a number"),
        (one_result(value=...), "results[0].value", "is missing"),
        (one_result(value=None), "results[0].value", "must be a number or text, not null"),
        (one_result(value=True), "results[0].value", "not true or false"),
        (one_result(name=...), "results[0].name", "is missing"),
        (one_result(name=5), "results[0].name", "must be text, not a number"),
        (one_result(unit=5), "results[0].unit", "must be text, not a number"),
        (one_result(code=["x"]), "results[0].code", "must be text, not a list"),
        (one_result(low="1"), "results[0].low", "must be a number or null, not text"),
        (one_result(low=40, high=30), "results[0].low", "is 40, above high, which is 30"),
        (one_result(flag="high"), "results[0].flag", "must be one of L, H, LL, HH, N, A or null, not 'high'"),
        (one_result(flag=1), "results[0].flag", "not a number"),
        (one_result(colour="red"), "results[0].colour", "is not a field"),
        (one_result(value="a\0b"), "results[0].value", "contains a NUL"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 40 else "",
)  # fmt: skip
def test_a_fault_is_told_with_its_place(value: object, field: str, said: str) -> None:
    found = faults(value)
    assert list(found) == [field]
    assert said in found[field]


@pytest.mark.parametrize("text", ["NaN", "1e999", "9" * 400, "-Infinity"])
@pytest.mark.parametrize("field", ["value", "low", "high"])
def test_a_number_that_cannot_be_kept_is_told_with_its_place(text: str, field: str) -> None:
    written = json.dumps(one_result(**{field: "@"})).replace('"@"', text)
    found = faults(written)
    assert list(found) == [f"results[0].{field}"]
    assert len(found[f"results[0].{field}"]) < 160
    assert ("a number of 400 digits" if text[0] == "9" else text) in found[f"results[0].{field}"]


def test_all_faults_are_told_at_once() -> None:
    broken = record(checkup_for=..., taken_at="x", results=[{"value": None}, 5, {"name": "a", "value": 1}])
    assert list(faults(broken)) == ["checkup_for", "taken_at", "results[0].name", "results[0].value", "results[1]"]


def test_a_name_that_stands_twice_is_a_fault() -> None:
    text = json.dumps(record())[:-1] + ', "disease": "other"}'
    assert faults(text) == {"disease": "occurs twice"}
    text = json.dumps(one_result()).replace('"unit": "Cel"', '"unit": "Cel", "value": 40')
    assert faults(text) == {"results[0].value": "occurs twice"}


def test_the_whole_dumps_machine_and_the_records_must_agree() -> None:
    assert faults(record(machine="HC-1"), "HC-1") == {}
    assert "is 'HC-2', but the whole dump is of 'HC-1'" in faults(record(machine="HC-2"), "HC-1")["machine"]


JSON = st.recursive(
    st.none() | st.booleans() | st.text() | st.integers() | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from([*record(), "machine", "results", "junk"])


@given(st.dictionaries(FIELDS, JSON, max_size=4), st.sets(FIELDS, max_size=3))
def test_whatever_stands_in_a_record_is_judged_without_stumbling(changes: dict, gone: set) -> None:
    made = {name: value for name, value in {**record(), **changes}.items() if name not in gone}
    checked, found = validate_record(DECODER.decode(json.dumps(made)))
    assert (checked is None) == bool(found)
    assert all(isinstance(field, str) and message for field, message in found)
