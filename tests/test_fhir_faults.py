"""Reading FHIR R4: broken and mutilated resources cost no other record and never stop the reader."""

import copy
import io
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fhir import (
    FULL,
    PATIENT,
    bundle,
    faults_of,
    named,
    observation,
    quantity,
    read,
    read_text,
    report,
    result_of,
    same_again,
)
from support.paths import DATA

from myhealth.common.errors import BadInput
from myhealth.intake.formats import json_reader
from myhealth.intake.formats.fhir.reader import read_fhir
from myhealth.intake.formats.format import Dump
from myhealth.intake.formats.json_reader import JsonBuffer
from myhealth.intake.formats.registry import FHIR
from myhealth.intake.validation import validate_record

MODIFIER = [{"url": "http://x.example/negated", "valueBoolean": True}]


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"valueQuantity": {"value": "6.3"}}, "Observation.valueQuantity.value", "must be a number, not text"),
        ({"valueQuantity": {"value": True}}, "Observation.valueQuantity.value", "must be a number, not true or false"),
        ({"valueQuantity": {"value": float("nan")}}, "Observation.valueQuantity.value", "NaN, which cannot be kept"),
        ({"valueQuantity": {"value": 10**30}}, "Observation.valueQuantity.value", "a number of 31 digits, which cannot"),
        ({"valueQuantity": [quantity(5)]}, "Observation.valueQuantity", "must be an object, not a list"),
        ({"valueQuantity": {"value": 5, "unit": 5}}, "Observation.valueQuantity.unit", "must be text, not a number"),
        ({"valueQuantity": ..., "valueString": 5}, "Observation.valueString", "must be text, not a number"),
        ({"valueQuantity": ..., "valueBoolean": "yes"}, "Observation.valueBoolean", "must be true or false, not text"),
        ({"valueString": "two"}, "Observation.valueString", "is beside valueQuantity: which value is meant?"),
        ({"valueQuantity": ..., "valueMoney": {}}, "Observation.valueMoney", "is of a kind that is not known"),
        ({"code": ...}, "Observation.code", "has no text, display or code"),
        ({"code": {"coding": [{"code": 5}]}}, "Observation.code.coding[0].code", "must be text, not a number"),
        ({"referenceRange": [{"low": {"value": "3"}}]}, "Observation.referenceRange[0].low.value", "not text"),
        ({"component": ["x"]}, "Observation.component[0]", "must be an object, not text"),
        ({"subject": "Patient/p1"}, "Observation.subject", "must be an object, not text"),
        ({"subject": {"identifier": {"value": 17}}}, "Observation.subject.identifier.value", "must be text"),
        ({"effectiveDateTime": 2026}, "Observation.effectiveDateTime", "must be text, not a number"),
        ({"valueQuantity": {**quantity(5), "comparator": "ad"}}, "Observation.valueQuantity.comparator", "is not known: 'ad'"),
        ({"valueQuantity": ..., "valueRatio": {"numerator": {"value": 1, "comparator": "~"}, "denominator": quantity(8)}},
         "Observation.valueRatio.numerator.comparator", "is not known: '~'"),
        ({"modifierExtension": MODIFIER}, "Observation.modifierExtension", "may change what the rest means"),
        ({"implicitRules": "http://x.example"}, "Observation.implicitRules", "may change what the rest means"),
        ({"component": [{"code": {"text": "k"}, "modifierExtension": MODIFIER}]},
         "Observation.component[0].modifierExtension", "may change what the rest means"),
        ({"referenceRange": [{"text": "<5", "modifierExtension": MODIFIER}]},
         "Observation.referenceRange[0].modifierExtension", "may change what the rest means"),
        ({"contained": [{"resourceType": "Specimen", "id": "s", "modifierExtension": MODIFIER}], "specimen": {"reference": "#s"}},
         "Specimen.modifierExtension", "may change what the rest means"),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, dict) else "",
)  # fmt: skip
def test_a_part_of_the_wrong_kind_is_a_fault_with_its_place(changes: dict[str, Any], field: str, said: str) -> None:
    found = faults_of(observation(**changes))
    assert field in dict(found)
    assert said in dict(found)[field]


@pytest.mark.parametrize(
    "changes",
    [
        {"note": None},
        {"note": [None]},
        {"component": []},
        {"encounter": 5},
        {"issued": None},
        {"modifierExtension": []},
        {"code": {"text": "x", "coding": None}},
    ],
    ids=str,
)
def test_a_null_or_what_nobody_reads_is_harmless(changes: dict[str, Any]) -> None:
    assert result_of(**changes)["value"] == 6.3


def test_a_name_that_stands_twice_is_a_fault_and_the_text_keeps_both() -> None:
    (reading,), _ = read_text(
        '{"resourceType": "Bundle", "entry": [{"resource": '
        + json.dumps(observation())[:-1]
        + ', "valueQuantity": {"value": 7}}}]}'
    )
    assert reading.faults == [("Observation.valueQuantity", "is there twice")]
    assert "6.3" in reading.raw
    assert '{"value": 7}' in reading.raw
    (reading,), _ = read_text('{"resourceType": "Bundle", "entry": [], "entry": []}')
    assert reading.faults == [("Bundle.entry", "is there twice")]


@pytest.mark.parametrize(
    ("entry", "field"),
    [
        (5, "Bundle.entry"),
        ({"resource": 5}, "Bundle.entry.resource"),
        ({"resource": {}}, "Bundle.entry.resource.resourceType"),
        ({"fullUrl": 5, "resource": {"resourceType": "Patient"}}, "Bundle.entry.fullUrl"),
        ({"resource": {"resourceType": "Bundle", "entry": {}}}, "Bundle.entry.resource: Bundle.entry"),
    ],
    ids=str,
)
def test_an_entry_that_is_no_resource_spoils_nothing_else(entry: Any, field: str) -> None:
    whole = bundle(observation())
    whole["entry"].insert(0, entry)
    bad, good = read(whole)
    assert [name for name, _ in bad.faults] == [field]
    assert good.faults == []
    again, _ = read_text(bad.raw)
    assert [reading.faults for reading in again] == [bad.faults]


@pytest.mark.parametrize(
    ("entry", "field", "said"),
    [
        ({"resource": observation(), "modifierExtension": MODIFIER}, "Bundle.entry.modifierExtension", "may change"),
        ({"request": {"method": "DELETE", "url": "Observation?code=5&patient=p1"}}, "Bundle.entry.request", "name the resource by"),
        ({"request": {"method": "DELETE", "url": "https://a.example/DiagnosticReport?_lastUpdated=lt2020"}},
         "Bundle.entry.request", "is not carried out"),
        ({"request": {"method": "PATCH", "url": "Observation/a"}, "resource": {"resourceType": "Parameters"}},
         "Bundle.entry.request", "send the whole resource"),
    ],
)  # fmt: skip
def test_a_change_that_cannot_be_carried_out_is_told(entry: dict[str, Any], field: str, said: str) -> None:
    whole = bundle(observation("b"))
    whole["entry"].insert(0, entry)
    bad, good = read(whole)
    ((place, message),) = bad.faults
    assert (place, said in message, good.faults) == (field, True, [])


@pytest.mark.parametrize("url", ["Patient/p1", "Specimen/s", "ObservationDefinition/a", "Patient?identifier=5"])
def test_a_change_of_what_is_no_result_is_counted(url: str) -> None:
    found, skipped = read_text(json.dumps(bundle() | {"entry": [{"request": {"method": "DELETE", "url": url}}]}))
    assert (found, skipped) == ([], {"Bundle entry without a resource": 1})


def test_what_a_server_left_out_is_told() -> None:
    tagged = observation(meta={"tag": [{"code": "SUBSETTED"}]})
    (reading,) = read(bundle(tagged, report("Observation/glucose")))
    assert reading.warnings == [("Observation.meta.tag", "its server left parts of it out (SUBSETTED)")]


@pytest.mark.parametrize(
    ("unit", "code"),
    [
        ("10^3/uL", "10*9/L"), ("IU/L", "U/L"), ("mEq/L", "mmol/L"), ("milligram per decilitre", "mg/dL"), ("bpm", "/min"),
        ("mmHg", "mm[Hg]"), ("ng/mL", "ug/L"), ("µIU/mL", "m[IU]/L"), ("mmol", "mmol/L"),
    ],
)  # fmt: skip
def test_a_unit_that_is_that_of_its_code_in_other_words_is_taken(unit: str, code: str) -> None:
    (reading,) = read(observation(valueQuantity=quantity(110, unit, code)))
    assert reading.warnings == []
    assert (reading.record["results"][0]["value"], reading.record["results"][0]["unit"]) == (110, code)


def test_a_specimen_or_a_device_that_is_an_error_is_not_the_results() -> None:
    for status, expected in (("entered-in-error", None), ("available", "Urine")):
        inside = [{"resourceType": "Specimen", "id": "s", "status": status, "type": {"text": "Urine"}},
                  {"resourceType": "Device", "id": "d", "status": status, "deviceName": [{"name": "Urine"}]}]  # fmt: skip
        (reading,) = read(observation(contained=inside, specimen={"reference": "#s"}, device={"reference": "#d"}))
        details = reading.record.get("details", {})
        assert (details.get("specimen"), details.get("device")) == (expected, expected)


def test_a_bundle_whose_entries_are_no_list_is_a_fault() -> None:
    assert faults_of({"resourceType": "Bundle", "entry": {}}) == [("Bundle.entry", "must be a list, not an object")]


@pytest.mark.parametrize("chunk", [50, 4000])
def test_a_broken_bundle_gives_nothing_lest_a_report_lose_results(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_reader, "CHUNK_BYTES", chunk)
    text = json.dumps(bundle(report("Observation/a"), named("a")))
    for cut in (len(text) - 1, len(text) // 2):
        (reading,) = read_fhir(JsonBuffer(io.BytesIO(text[:cut].encode())), dump := Dump(FHIR))
        assert reading.faults == [("", "it is cut short: the file ends in it")]
        assert reading.raw == text[:cut]
        assert dump.truncated == "line 1: the file ends in the middle of a value: it is cut short"


def test_a_bundle_longer_than_a_record_may_be_is_read_whole_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_reader, "RECORD_MAX", 4000)
    monkeypatch.setattr(json_reader, "CHUNK_BYTES", 500)
    text = json.dumps(bundle(report(*(f"Observation/{i}" for i in range(30))), *(named(str(i)) for i in range(30))))
    (reading,), _ = read_text(text + "\n" + json.dumps(PATIENT))
    assert len(reading.record["results"]) == 30
    for broken in (text[:-300], text.replace('"id": "25"', '"id" "25"')):
        with pytest.raises(BadInput, match="line 1"):
            read_text(broken)
    (reading,), _ = read_text(text.replace('"id": "2"', '"id" "2"'))
    assert reading.record is None
    (reading,), _ = read_text(json.dumps(observation(note=[{"text": "x" * 9000}])))
    assert "has more than 4000 characters" in reading.faults[0][1]


def test_more_members_than_a_record_may_have_are_a_fault() -> None:
    many = [named(str(i)) for i in range(2_100)]
    (reading,) = [r for r in read(bundle(report(*(f"Observation/{i}" for i in range(2_100))), *many)) if r.faults]
    assert ("DiagnosticReport", "has more than 2000 results") in reading.faults


def test_deep_nesting_hurts_nobody() -> None:
    deep = json.dumps(observation(extension="@")).replace('"@"', "[" * 50_000 + "]" * 50_000)
    found, _ = read_text(deep + "\n" + json.dumps(observation()))
    assert [bool(reading.faults) for reading in found] == [True, False]
    nested: dict[str, Any] = bundle(observation())
    for _ in range(150):
        nested = bundle(nested)
    assert len(read(nested)) == 1


def test_each_record_of_a_bundle_can_be_read_alone() -> None:
    found = read(FULL)
    assert [reading.record["record_id"] for reading in found] == [
        "https://x.example/fhir/DiagnosticReport/r1", "Observation/e", "Observation/g"]  # fmt: skip
    for reading in found:
        assert reading.faults == []
        same_again(reading)
    assert found[0].record["machine"] == "HC-9"
    assert json.loads(found[0].raw)["entry"][3]["fullUrl"] == "https://x.example/fhir/DiagnosticReport/r1"
    kept = [entry["resource"]["id"] for entry in json.loads(found[0].raw)["entry"]]
    assert sorted(kept) == ["a", "b", "d", "d1", "d2", "p1", "r1"]
    assert json.loads(found[2].raw)["entry"][0] == {"resource": PATIENT}


def sources() -> list[dict[str, Any]]:
    found = [FULL, observation(), report("#c", contained=[named("c")])]
    found += [json.loads(Path(path).read_bytes()) for path in sorted((DATA / "fhir-r4").glob("*.json"))]
    return found


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, each in items for found in ((*path, key), *places(each, (*path, key)))]


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


JUNK = [None, True, 5, "", "x", [], {}, [1], {"a": 1}, [None], "2020", "#c", float("nan"), 10**40, "\ud800", "Patient/p1",
        {"reference": "Observation/a"}, [[]], -1.5]  # fmt: skip
moves = st.lists(
    st.tuples(st.integers(0, 10**6), st.sampled_from(["drop", "junk", "copy"]), st.integers(0, 10**6)), max_size=6
)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(sources()), moves)
def test_a_mutilated_resource_never_makes_it_stumble(source: dict[str, Any], steps: Any) -> None:
    resource = copy.deepcopy(source)
    for number, what, other in steps:
        paths = places(resource)
        if not paths:
            break
        path = paths[number % len(paths)]
        holder = at(resource, path[:-1])
        if what == "drop":
            del holder[path[-1]]
        else:
            junk = JUNK[other % len(JUNK)] if what == "junk" else at(resource, paths[other % len(paths)])
            holder[path[-1]] = copy.deepcopy(junk)
    for reading in read_text(json.dumps(resource))[0]:
        same_again(reading)
        validate_record(reading.record)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([json.dumps(source).encode() for source in sources()]),
       st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from(list(b'{}[]",:0\xff\\\n'))), max_size=5), st.integers(1, 9))  # fmt: skip
def test_flipped_bytes_never_make_it_stumble(source: bytes, flips: Any, parts: int) -> None:
    data = bytearray(source)
    for place, byte in flips:
        data[place % len(data)] = byte
    try:
        readings, _ = read_text(bytes(data) * (parts // 9 + 1))
    except BadInput:
        return
    for reading in readings:
        same_again(reading)


@settings(max_examples=60, deadline=None)
@given(st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**9), max_value=10**9))
def test_any_number_comes_out_digit_by_digit(value: Decimal) -> None:
    (reading,), _ = read_text(json.dumps(observation(valueQuantity={"value": "@"})).replace('"@"', str(value)))
    assert str(Decimal(str(reading.record["results"][0]["value"]))) == str(value)
