"""Reading the HL7 v2 inputs of tests/data/faults: what each must give. Each row is a kind of fault that real senders have.

A row names a place in the record, as in `results[0].unit`, and its value.
"""

from decimal import Decimal
from typing import Any

import pytest
from support.hl7 import at, read_bytes
from support.paths import DATA

from myhealth.intake.validation import validate_record

LOCAL = "tag:myhealth.example,2026:codes:"
MDC, SNOMED = "urn:iso:std:iso:11073:10101", "http://snomed.info/sct"
TABLE_78 = "http://terminology.hl7.org/CodeSystem/v2-0078"

RECORDS: list[tuple[str, dict[str, Any]]] = [
    ("01-leading-zero", {"results[0].value": 5.88, "results[0].low": 3.9, "results[0].high": 5.5}),
    ("02-sn", {
        "results[0].value": 95, "results[1].value": "<>23", "results[2].value": ">=15", "results[3].value": "<0.5",
        "results[4].value": "1:128", "results[4].value_ratio.numerator.value": 1,
        "results[4].value_ratio.denominator.value": 128, "results[1].high": 150, "results[1].range_text": "<150",
        "results[4].high": None, "results[4].range_text": "<1:64",
    }),
    ("03-caret-unit", {
        "results[0].unit": "10*3/uL", "results[0].unit_text": "10^3/uL", "results[1].unit": "10*6/uL",
        "results[1].unit_text": "x10^6/uL", "results[2].unit": "10*9/L", "results[3].unit": "10*3/uL",
        "results[3].unit_text": "10^3/uL",
    }),
    ("04-hex-escape", {"results[0].value": 2.1, "results[0].notes[0].text": "First line\nsecond line"}),
    ("05a-preliminary", {"status": "preliminary", "results[0].value": 6.9, "results[0].status": None}),
    ("05b-final", {"status": None, "results[0].value": 6.1, "record_id": "A-05"}),
    ("05c-corrected", {"status": "corrected", "results[0].value": 5.1, "results[0].flag": "N", "record_id": "A-05"}),
    ("07a-resent", {"taken_at": None, "taken_precision": "unknown", "details.updated_at": "2026-11-01T08:00:00+00:00"}),
    ("07b-resent", {"taken_at": None, "taken_precision": "unknown", "details.updated_at": "2026-11-02T09:30:00+00:00"}),
    ("08a-hospital-a", {"patient.identifiers[0].system": "HOSP_A", "patient.name": "Anna Anders"}),
    ("08b-hospital-b", {
        "patient.identifiers[0].system": "HOSP_B", "patient.identifiers[0].value": "4711", "patient.sex": "male",
        "patient.birth_date": "1950-01-01",
    }),
    ("08e-insurance-number", {"checkup_for": "99001", "patient.identifiers[0].system": "HOSP_A",
                              "patient.identifiers[1]": None}),
    ("15a-day-profile", {
        "taken_at": "2026-11-03T07:00:00+00:00", "results[0].taken_at": None, "results[0].sub_id": "1",
        "results[1].taken_at": "2026-11-03T12:30:00+00:00", "results[2].taken_at": "2026-11-04T02:00:00+00:00",
    }),
    ("A4a-one-message-a-test", {
        "record_id": "2", "details.identifiers[0].value": "LAB-000123", "details.identifiers[0].type": "PLAC",
        "details.identifiers[1].type": "FILL", "details.specimen": "serum", "results[0].name": "GLU",
        "results[0].other_code": "2", "results[0].sub_id": "GLU", "results[0].range_text": None,
    }),
    ("A4c-one-message-a-test", {"record_id": "2", "results[0].name": "CALC", "results[0].value": Decimal("15.000000")}),
    ("A6-bed-number-in-pid4", {"checkup_for": "854", "patient.identifiers[1]": None, "patient.birth_date": "1983-07-19"}),
    ("B1-note-behind-pid", {"details.notes[0].text": "Patient was not fasting", "details.notes[0].author": "orderer"}),
    ("B10-off-scale-low", {
        "results[0].flag": None, "results[0].interpretations[0].code": "<", "results[0].interpretations[0].system": TABLE_78,
        "results[0].interpretations[0].display": "Below absolute low-off instrument scale",
        "results[1].flag": None, "results[1].interpretations[0].code": "<", "results[1].value": "<0.3",
    }),
    ("B11-code-without-words", {"results[0].name": "Total cholesterol", "results[0].code": "2093-3"}),
    ("B12-run-settings-as-results", {"results[0].name": "WBC", "results[1]": None}),
    ("B2-specimen-method-place", {
        "details.clinical_information": "R/O diabetes", "details.reasons[0].codings[0].code": "R73.9",
        "details.reasons[0].codings[0].system": "http://hl7.org/fhir/sid/icd-10",
        "details.specimen.codings[0].display": "Urine", "results[0].method": "Hexokinase",
        "results[0].performers[0].name": "Central Lab", "results[0].performers[1]": None,
    }),
    ("B3-flags-beside", {
        "results[0].interpretations[0].display": "Resistant", "results[0].flag": "A", "results[2].flag": None,
        "results[2].interpretations[0].code": "I", "results[3].interpretations[0].code": "U",
        "results[4].interpretations[0].code": "QUES", "results[5].flag": "H", "results[5].interpretations[1].code": "U",
    }),
    ("B6-mdc-blood-pressure", {
        "taken_offset": 480, "results[0].code": "8480-6", "results[0].name": "Systolic blood pressure",
        "results[0].unit": "mm[Hg]", "results[0].codings[0].system": MDC, "results[0].codings[0].code": "150021",
        "results[0].sub_id": "1.1.9.150021", "results[2].code": "8867-4", "results[2].unit": "/min",
        "results[3].code": "59408-5", "results[3].unit": "%", "results[4].code": "8310-5", "results[4].unit": "Cel",
    }),
    ("B8-name-in-subid", {"results[0].name": "GLU", "results[0].other_code": "2"}),
    ("B9-withdrawn-with-notes", {
        "results[0].status": "entered-in-error", "results[0].notes[0].text": "Has symptoms: No", "details.notes": None,
        "results[0].value_coded.codings[0].system": SNOMED, "checkup_report": "",
    }),
    ("D1-code-systems", {
        "results[0].codings[0].system": MDC, "results[1].codings[0].system": SNOMED,
        "results[2].codings[0].system": "http://hl7.org/fhir/sid/icd-10",
        "results[3].codings[0].system": "http://npu-terminology.org", "details.codings[0].system": f"{LOCAL}L",
    }),
]  # fmt: skip
LEFT_OUT = [
    ("A1-qc-mindray-bc5380", {"quality control": 1}),
    ("A3-processing-id-T-D", {"training": 1}),
    ("B12-run-settings-as-results", {"run setting": 2, "patient's age": 1, "histogram": 2}),
]


@pytest.mark.parametrize(("name", "expected"), RECORDS, ids=[name for name, _ in RECORDS])
def test_what_an_input_gives(name: str, expected: dict[str, Any]) -> None:
    (reading,), _ = read_bytes((DATA / "faults" / f"{name}.hl7").read_bytes())
    assert (reading.faults, reading.warnings) == ([], [])
    assert validate_record(reading.record)[1] == []
    assert {place: at(reading.record, place) for place in expected} == expected


@pytest.mark.parametrize(("name", "kinds"), LEFT_OUT, ids=[name for name, _ in LEFT_OUT])
def test_what_is_no_result_of_a_patient_is_counted(name: str, kinds: dict[str, int]) -> None:
    found, skipped = read_bytes((DATA / "faults" / f"{name}.hl7").read_bytes())
    assert skipped == kinds
    assert len(found) == ("run setting" in kinds)


def test_each_input_has_a_row() -> None:
    rows = {name for name, _ in (*RECORDS, *LEFT_OUT)} | {"A4b-one-message-a-test"}
    assert {path.stem for path in (DATA / "faults").glob("*.hl7")} == rows
