"""More siblings of the inputs in tests/data/faults: fields of HL7 v2 and FHIR whose other forms came out wrong."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from support.factories import record
from support.fhir import bundle, observation, report, result_of
from support.fhir import read as fhir_read
from support.hl7 import MSH, OBR, PID, obx, record_of
from support.hl7 import result_of as hl7_result

from myhealth.clinical.ranges import compare
from myhealth.intake.file_import import FileImport, ImportOptions
from myhealth.intake.formats.fhir.reader import read_fhir
from myhealth.intake.formats.format import Dump
from myhealth.intake.formats.hl7v2.reader import read_hl7
from myhealth.intake.formats.json_reader import JsonBuffer
from myhealth.intake.formats.registry import FHIR, HL7
from myhealth.intake.parsed_record import DECODER
from myhealth.intake.validation import validate_record
from myhealth.reports.export.fhir_values import measured

UUID = "550e8400-e29b-41d4-a716-446655440000"


@pytest.mark.parametrize(
    ("sent", "flag", "codes"),
    [
        ("^^^H", "H", None),
        ("99^weird^L^HH^^HL70078", "HH", ["99", "HH"]),
        ("N^^L^H^High^HL70078", "H", ["N", "H"]),
        ("H^High^HL70078^99^own^L", "H", ["H", "99"]),
    ],
)
def test_the_alternate_code_of_an_interpretation_counts_too(sent: str, flag: str, codes: Any) -> None:
    result = hl7_result(obx("NM", "7", f8=sent))
    assert (result["flag"], [each["code"] for each in result.get("interpretations", ())] or None) == (flag, codes)


@pytest.mark.parametrize(
    ("kind", "sent", "value"),
    [
        ("NM", ">^100", ">100"),
        ("NM", "^5.1", 5.1),
        ("NM", "5.1^6", "5.1^6"),
        ("NR", "10^5", "10^5"),
        ("TM", "0915+0530", "09:15:00+05:30"),
        ("TM", "0915", "09:15:00"),
    ],
)
def test_a_value_in_another_form_of_its_type_means_the_same(kind: str, sent: str, value: Any) -> None:
    result = hl7_result(obx(kind, sent))
    assert result["value"] == value
    assert ("value_moment" in result) == (sent == "0915")
    assert "value_range" not in result


def patient_of(pid: str) -> dict[str, Any]:
    found: dict[str, Any] = record_of(MSH, pid, OBR, obx("NM", "5"))["patient"]
    return found


def test_the_legal_name_counts_before_a_former_one() -> None:
    assert patient_of("PID|1||M1^^^H^MR||Das^Asha^^^^^M~Roy^Asha^^^^^L")["name"] == "Asha Roy"
    assert patient_of("PID|1||M1^^^H^MR||Das^Asha^^^^^M")["name"] == "Asha Das"


def test_what_a_source_calls_a_default_says_nothing_of_the_person() -> None:
    pid = "PID|1||M1^^^H^MR~999^^^S^SS||Roy^Asha||19000101|F" + "|" * 24
    numbers = [{"value": "M1", "system": "H", "type": "MR"}]
    assert patient_of(f"{pid}UD~US~AL") == {"identifiers": numbers, "sex": "female"}
    assert len(patient_of(pid)["identifiers"]) == 2


@pytest.mark.parametrize("together", [False, True])
def test_a_placeholder_for_a_name_is_no_name_of_a_patient(db, people, together: bool) -> None:
    names = ("UNKNOWN^UNKNOWN", "Roy^Asha", "UNKNOWN^FEMALE", "Das^Ravi")
    messages = [
        "".join(f"{each}\r" for each in (MSH, f"PID|1||M1^^^H^MR||{name}", OBR.replace("F1", f"F{i}"), obx("NM", "5")))
        for i, name in enumerate(names)
    ]
    files = ["".join(messages)] if together else messages
    taken = [FileImport(io.BytesIO(text.encode()), "test", ImportOptions(create_patients=True)) for text in files]
    statuses = [result.status for started in taken for batch in started for _, result in batch]
    assert statuses == ["accepted", "accepted", "accepted", "rejected"]
    assert db("select source_name from patient_identifiers where system = 'H'") == [("Asha Roy",)]


@pytest.mark.parametrize("in_parts", [False, True])
def test_a_urn_names_one_resource_in_capital_or_small_letters(in_parts: bool) -> None:
    patient = {"resourceType": "Patient", "id": "p", "identifier": [{"value": "M1"}]}
    result = observation(subject={"reference": f"urn:uuid:{UUID}"})
    urls = (f"urn:uuid:{UUID.upper()}",)
    whole = [bundle(patient, result, urls=urls)] if not in_parts else [bundle(patient, urls=urls), result]
    (parsed,) = fhir_read(*whole)
    assert parsed.record["checkup_for"] == "M1"


def test_an_integer_with_a_fraction_is_a_number() -> None:
    sent = json.loads('{"valueInteger": 5.5, "valueQuantity": null}')
    assert "value_type" not in result_of(**sent)
    assert result_of(valueQuantity=..., valueInteger=5)["value_type"] == "integer"


def test_a_merge_of_two_patients_is_told() -> None:
    dump = Dump(HL7)
    text = "\r".join((MSH.replace("ORU^R01^ORU_R01", "ADT^A40"), "PID|1||9^^^A^MR", "MRG|1^^^A^MR", ""))
    assert list(read_hl7(io.BytesIO(text.encode()), dump)) == []
    (notice,) = dump.notices
    assert "ADT^A40 gives the patient 1^^^A^MR (MRG-1) the number 9^^^A^MR (PID-3)" in notice


def test_the_words_of_a_range_leave_with_its_ends() -> None:
    result = hl7_result(obx("NM", "6", f7="<5.5", f6="mmol/L"))
    (found,) = measured(result)["referenceRange"]
    assert (found["high"]["value"], found["text"]) == (5.5, "<5.5")


@pytest.mark.parametrize("sent", [{"text": "<5.5"}, {"text": "<5.5", "high": {"value": 5.5}}])
def test_the_words_of_a_fhir_range_exclude_its_end_as_those_of_hl7(sent: dict[str, Any]) -> None:
    of_hl7 = stored(hl7_result(obx("NM", "5.5", f7="<5.5")))
    of_fhir = stored(result_of(valueQuantity={"value": 5.5}, code={"text": "T"}, referenceRange=[sent]))
    assert (compare(of_hl7).position, compare(of_fhir).position) == ("above", "above")
    within = {**sent, "text": "<=5.5"}
    assert compare(stored(result_of(valueQuantity={"value": 5.5}, referenceRange=[within]))).position == "within"


def stored(result: dict[str, Any]) -> dict[str, Any]:
    made, faults = validate_record(record(results=[result]))
    assert made is not None and faults == []
    (found,) = DECODER.decode(made.results)
    return found


PARENT = "600-7&Bacteria&LN^1^E. coli"


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (PARENT, "Bacteria 1: E. coli"),
        ("600-7&Bacteria&LN^1", "Bacteria 1"),
        ("600-7&Bacteria&LN^1^112283007&E. coli", "Bacteria 1: E. coli"),
    ],
)
def test_an_order_says_which_result_it_belongs_to(sent: str, words: str) -> None:
    found = record_of(MSH, PID, f"{OBR}{'|' * 19}{sent}", obx("SN", "<=^8"))
    assert found["details"]["notes"] == [{"text": f"Belongs to the result {words}"}]


def specimen_of(collected: Any, **changes: Any) -> dict[str, Any]:
    specimen = {"resourceType": "Specimen", "id": "s", "type": {"text": "Serum"}, "collection": collected}
    return bundle(specimen, observation(specimen={"reference": "Specimen/s"}, effectiveDateTime=..., **changes))


@pytest.mark.parametrize(
    ("collected", "moment"),
    [
        ({"collectedDateTime": "2026-11-20T08:00:00+05:30"}, ("2026-11-20T08:00:00+05:30", None)),
        ({"collectedPeriod": {"start": "2026-11-20"}}, ("2026-11-20T12:00:00+00:00", "day")),
        ({"collectedDateTime": "soon"}, (None, "unknown")),
        ({}, (None, "unknown")),
    ],
)
def test_the_moment_of_the_specimen_is_that_of_a_result_without_one(collected: Any, moment: Any) -> None:
    (parsed,) = fhir_read(specimen_of(collected))
    assert (parsed.record.get("taken_at"), parsed.record.get("taken_precision")) == moment
    (parsed,) = fhir_read(
        bundle(report("Observation/glucose"), *(e["resource"] for e in specimen_of(collected)["entry"]))
    )
    assert parsed.record["taken_at"] == "2026-11-20T09:00:00Z"


@pytest.mark.parametrize(
    ("text", "was"),
    [
        (json.dumps(specimen_of({"collectedDateTime": "2026-11-20T08:00:00Z"})), "taken_precision = 'unknown', taken_offset = null, taken_at = now()"),
        ("".join(f"{each}\r" for each in (MSH, PID, f"{OBR}{'|' * 19}{PARENT}", obx("NM", "5"))), "details = details - 'notes'"),
    ],
)  # fmt: skip
def test_what_was_stored_without_it_is_a_duplicate_when_it_comes_again(db, people, text: str, was: str) -> None:
    for expected in ("accepted", "duplicate"):
        started = FileImport(io.BytesIO(text.encode()), "test", ImportOptions(create_patients=True))
        assert [result.status for batch in started for _, result in batch] == [expected]
        db(f"update checkups set {was}")


def test_results_that_are_marked_as_test_data_are_told_once() -> None:
    meta = {"security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ActReason", "code": "HTEST"}]}
    dump = Dump(FHIR)
    text = "\n".join(json.dumps(observation(name, meta=meta)) for name in "ab")
    assert len(list(read_fhir(JsonBuffer(io.BytesIO(text.encode())), dump))) == 2
    assert [each for each in dump.notices if "HTEST" in each] == dump.notices[:1] != []


def contained(value: float) -> dict[str, Any]:
    inside = observation("1", code={"text": "Glucose"}, subject=..., valueQuantity={"value": value})
    return report("#1", contained=[inside])


@pytest.mark.parametrize(
    "other",
    [
        observation("1", code={"text": "K"}, valueQuantity={"value": 4}, status="corrected"),
        observation("1", code={"text": "K"}, valueQuantity={"value": 4}, status="entered-in-error"),
        {"resourceType": "Bundle", "entry": [{"request": {"method": "DELETE", "url": "Observation/1"}}]},
    ],
)
@pytest.mark.parametrize("first", ["contained", "other"])
def test_the_id_of_a_contained_result_is_not_an_address(db, people, other: dict[str, Any], first: str) -> None:
    for sent in (contained(6), other) if first == "contained" else (other, contained(6)):
        started = FileImport(io.BytesIO(json.dumps(sent).encode()), "test", ImportOptions(create_patients=True))
        assert "rejected" not in [result.status for batch in started for _, result in batch]
    of_report = "select status, results->0->'value', results->0->>'status' from checkups where record_id like 'Diag%%'"
    assert db(of_report) == [(None, 6, None)]


def test_a_contained_result_that_an_earlier_release_stored_by_its_id_is_the_same(db, people) -> None:
    versions = [
        contained(value) | {"meta": {"versionId": version}} for value, version in ((6, "1"), (6, "1"), (7, "2"))
    ]
    statuses = []
    for sent in versions:
        started = FileImport(io.BytesIO(json.dumps(sent).encode()), "test", ImportOptions(create_patients=True))
        statuses += [result.effect for batch in started for _, result in batch]
        db("update checkups set results = jsonb_set(results, '{0,sub_id}', '\"Observation/1\"')")
    assert statuses == ["created", "none", "replaced"]
    assert db("select jsonb_path_query_array(results, '$[*].value') from checkups") == [([7],)]


def test_a_contained_result_that_a_later_version_lacks_is_withdrawn(db, people) -> None:
    inside = [observation(name, code={"text": name}, subject=...) for name in ("k", "na")]
    codes = []
    for version, names in (("1", ["k", "na"]), ("2", ["na"]), ("2", ["na"]), ("1", ["k", "na"])):
        held = [each for each in inside if each["id"] in names]
        sent = report(*(f"#{name}" for name in names), contained=held, meta={"versionId": version})
        started = FileImport(io.BytesIO(json.dumps(sent).encode()), "test", ImportOptions(create_patients=True))
        codes += [[each["code"] for each in result.warnings] for batch in started for _, result in batch]
    assert codes == [[], ["withdrawn"], [], ["earlier_version"]]
    ((results, details),) = db("select results, details from checkups")
    assert [(each["name"], each.get("status")) for each in results] == [("k", "entered-in-error"), ("na", None)]
    assert "notes" not in (details or {})
