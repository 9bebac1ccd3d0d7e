"""Inputs that contradict themselves: what is unclear is not taken, and told; the rest is."""

import io
import json
from typing import Any

import pytest
from support.fhir import bundle, observation, quantity, read, record_of, report, result_of
from support.hl7 import MSH, OBR, PID, obx
from support.hl7 import read as read_hl7

from myhealth.clinical.unit_sizes import contradiction_in_unit, size_of
from myhealth.intake.file_import import FileImport, ImportOptions
from myhealth.intake.validation import validate_record

ABSENT = "no value"
SAID = "is not taken: its unit is mg/dL in words and mmol/L by its code"


@pytest.mark.parametrize(
    ("one", "other"),
    [("ng/mL", "ug/L"), ("pg/mL", "ng/L"), ("mU/L", "uU/mL"), ("10*3/uL", "10*9/L"), ("g/L", "mg/mL"), ("mg/d", "mg/(24.h)"),
     ("fL", "um3"), ("%", "mL/dL"), ("g%", "g/dL"), ("{copies}/mL", "/mL"), ("kg/m2", "g/m2.10*3")],
)  # fmt: skip
def test_units_of_one_size(one: str, other: str) -> None:
    assert size_of(one) == size_of(other) is not None


@pytest.mark.parametrize(
    ("words", "code"), [("mM", "mmol/L"), ("EU/dL", "[EU]/dL"), ("D", "[diop]"), ("MG/DL", "mg/dL")]
)
def test_words_that_are_not_certain_contradict_no_code(words: str, code: str) -> None:
    assert contradiction_in_unit(words, code) == ""


@pytest.mark.parametrize(
    ("words", "code"),
    [("mg/dL", "mmol/L"), ("g/L", "g/dL"), ("kg", "g"), ("lb", "kg"), ("F", "Cel"), ("%", "1"), ("cells/uL", "10*3/uL"),
     ("10^9/L", "10*12/L"), ("cm", "m"), ("kPa", "mm[Hg]"), ("h", "min"), ("m", "mm"), ("cm", "[in_i]")],
)  # fmt: skip
def test_words_that_contradict_a_code(words: str, code: str) -> None:
    assert contradiction_in_unit(words, code) == f"its unit is {words} in words and {code} by its code"


@pytest.mark.parametrize("unit", ["mg/0", "0", "m0", "km999999999", "10*99999999", "1" * 400])
def test_a_number_that_no_unit_has(unit: str) -> None:
    assert size_of(unit) is None
    assert result_of(valueQuantity=quantity(5, "mg/dL", unit))["value"] == 5


WRONG = quantity(5, "mg/dL", "mmol/L")
VALUES: dict[str, dict[str, Any]] = {
    "a quantity": {"valueQuantity": WRONG},
    "a quantity with a comparator": {"valueQuantity": {**WRONG, "comparator": "<"}},
    "a code without a system": {"valueQuantity": {"value": 5, "unit": "mg/dL", "code": "mmol/L"}},
    "a ratio": {"valueQuantity": ..., "valueRatio": {"numerator": quantity(1), "denominator": WRONG}},
    "a range": {"valueQuantity": ..., "valueRange": {"low": WRONG}},
    "samples": {
        "valueQuantity": ...,
        "valueSampledData": {"origin": WRONG, "period": 1, "dimensions": 1, "data": "1 2"},
    },
}


@pytest.mark.parametrize("changes", VALUES.values(), ids=VALUES)
def test_a_value_whose_unit_contradicts_its_code_is_not_taken(changes: dict[str, Any]) -> None:
    (reading,) = read(observation(**changes))
    (result,) = reading.record["results"]
    assert (result["value"], result["unit"]) == (ABSENT, None)
    assert result["absent_reason"].endswith(SAID)
    (name,) = (name for name, value in changes.items() if value is not ...)
    assert reading.warnings == [(f"Observation.{name}", result["absent_reason"], "not_taken")]
    assert validate_record(reading.record)[1] == []


def test_the_other_results_of_the_report_are_taken() -> None:
    parts = [
        {"code": {"text": "a"}, "valueQuantity": WRONG},
        {"code": {"text": "b"}, "valueQuantity": quantity(7, "g", "g")},
    ]
    group = observation("c", valueQuantity=..., component=parts)
    (reading,) = read(bundle(report("Observation/glucose", "Observation/c"), observation(), group))
    assert [each["value"] for each in reading.record["results"]] == [6.3, ABSENT, 7]
    assert [place for place, *_ in reading.warnings] == [
        "DiagnosticReport.result[1].resolve().component[0].valueQuantity"
    ]


def test_a_range_whose_unit_contradicts_its_code_is_not_compared() -> None:
    range_ = {"low": quantity(63, "mg/dL", "mmol/L"), "high": quantity(92, "mg/dL", "mmol/L")}
    (reading,) = read(observation(referenceRange=[range_]))
    (result,) = reading.record["results"]
    said = "its unit is mg/dL in words and mmol/L by its code"
    assert (result["low"], result["high"], result["range_text"]) == (None, None, f"63 - 92 ({said})")
    assert reading.warnings == [("Observation.referenceRange[0]", f"it is not compared: {said}", "not_taken")]


@pytest.mark.parametrize(
    ("unit", "is_taken"),
    [("mmol/L^mg/dL^UCUM", False), ("mmol/L^^UCUM^mg/dL^^L", False), ("mg/dL^mg/dL^ISO+^mmol/L^mmol/L^UCUM", False),
     ("M^mmol/L^99LAB", True), ("mmol/L^mmol^UCUM", True), ("ng/mL^ug/L^UCUM", True), ("K/uL^^L^10*3/uL^^UCUM", True)],
)  # fmt: skip
@pytest.mark.parametrize(("kind", "value"), [("NM", "5"), ("SN", ">^5"), ("SN", "^1^:^8"), ("ST", "5.0")])
def test_a_unit_of_hl7_that_is_said_in_two_ways(unit: str, is_taken: bool, kind: str, value: str) -> None:
    (reading,) = read_hl7(MSH, PID, OBR, obx(kind, value, f6=unit), obx("ST", "7", f6="g", f3="U^Other^L"))
    result, other = reading.record["results"]
    assert (result["value"] != ABSENT, other["value"]) == (is_taken, "7")
    if not is_taken:
        assert result["absent_reason"].endswith(SAID)
        assert (result["unit"], "value_ratio" in result) == (None, False)
    assert reading.warnings == [("OBX[1]-6", result.get("absent_reason"), "not_taken")] * (not is_taken)


def test_the_unit_of_words_is_no_obstacle() -> None:
    (reading,) = read_hl7(MSH, PID, OBR, obx("ST", "positive", f6="mmol/L^mg/dL^UCUM"))
    assert (reading.record["results"][0]["value"], reading.warnings) == ("positive", [])


def test_the_ends_of_a_range_in_two_units_are_said_with_them() -> None:
    ends = {"low": quantity(500, "mg", "mg"), "high": quantity(2, "g", "g")}
    (result,) = record_of(observation(valueQuantity=..., valueRange=ends))["results"]
    assert (result["value"], result["unit"]) == ("500 mg - 2 g", None)


MRN = "http://example.org/mrn"


def patient(id_: str, number: str, **changes: Any) -> dict[str, Any]:
    made = {"resourceType": "Patient", "id": id_, "identifier": [{"system": MRN, "value": number}], **changes}
    return {key: value for key, value in made.items() if value is not ...}


def numbered(number: str, system: str = MRN) -> dict[str, Any]:
    return {"identifier": {"system": system, "value": number}}


OTHER = "is another one than the record's"
UNCERTAIN = "a result may be another patient's than its report: they name the patient in different ways"
P1, P2 = {"reference": "Patient/p1"}, {"reference": "Patient/p2"}
SUBJECTS: dict[str, tuple[Any, Any, str]] = {
    "a number and another's address": (numbered("1"), P2, OTHER),
    "an address and another's number": (P1, numbered("2"), OTHER),
    "an address here and one that is not": (P1, {"reference": "Patient/p9"}, OTHER),
    "a number of another authority": (P1, numbered("1", "http://other.example"), UNCERTAIN),
    "a number and an address that is not here": (numbered("1"), {"reference": "Patient/p9"}, UNCERTAIN),
    "a search and another's address": ({"reference": f"Patient?identifier={MRN}|1"}, P2, OTHER),
    "a copy of another": (P1, {"reference": "#p"}, OTHER),
    "a number and its address": (numbered("1"), P1, ""),
    "an address and its number": (P1, numbered("1"), ""),
    "a number without its authority": (P1, {"identifier": {"value": "1"}}, ""),
    "a copy of the same": (P2, {"reference": "#p"}, ""),
    "a name alone": (P1, {"display": "Bholanath"}, ""),
}


@pytest.mark.parametrize(("of_report", "of_result", "fault"), SUBJECTS.values(), ids=SUBJECTS)
def test_a_report_has_no_result_of_another_patient(of_report: Any, of_result: Any, fault: str) -> None:
    result = observation(subject=of_result, contained=[patient("p", "2")])
    people = (patient("p1", "1"), patient("p2", "2"))
    (reading,) = read(bundle(*people, report("Observation/glucose", subject=of_report), result))
    place = "DiagnosticReport.result[0].resolve().subject"
    assert reading.faults == ([(place, fault)] if fault == OTHER else [])
    assert reading.patient_doubt == (fault if fault == UNCERTAIN else "")  # a person may say whose it is


@pytest.mark.parametrize(
    ("subject", "doubt"),
    [
        ({**P1, **numbered("2")}, "Patient/p1 has another number than subject.identifier says"),
        ({**P1, "display": "Savita Rao"}, "Patient/p1 has another name than subject.display says"),
        ({**P1, **numbered("1"), "display": "KULKARNI, Bholanath"}, ""),
        ({**P1, **numbered("9", "http://other.example"), "display": "Patient"}, ""),
        ({**P1, "display": "Patient 4711"}, ""),
        ({**P1, "display": "MRN 1"}, ""),
        ({**P1, "display": "Test Patient"}, ""),
        ({**P1, "display": "Savita Rao 01.02.1980"}, "Patient/p1 has another name than subject.display says"),
    ],
)
def test_a_reference_that_contradicts_its_patient_is_in_doubt(subject: Any, doubt: str) -> None:
    known = patient("p1", "1", name=[{"family": "Kulkarni", "given": ["Bholanath"]}])
    (reading,) = read(bundle(known, observation(subject=subject)))
    assert reading.patient_doubt == doubt


def test_a_value_that_was_not_taken_is_when_it_comes_with_one_unit(db, people) -> None:
    def take(unit: str, source: str) -> tuple[str, str]:
        text = source.replace("UNIT", unit)
        (batch,) = FileImport(io.BytesIO(text.encode()), "test", ImportOptions(create_patients=True))
        return batch[0][1].status, batch[0][1].effect

    fhir = json.dumps(observation(valueQuantity=quantity(5, "UNIT", "mmol/L")))
    hl7 = "\r".join([MSH, PID, OBR, obx("NM", "5", f6="mmol/L^UNIT^UCUM"), ""])
    for source in (fhir, hl7):
        assert [take("mg/dL", source), take("mmol/L", source)] == [("accepted", "created"), ("accepted", "replaced")]
        assert take("mg/dL", source) == ("rejected", "none")
    assert db("select results->0->>'value', results->0->>'unit' from checkups") == [("5", "mmol/L")] * 2


@pytest.mark.parametrize("name", [[], [{"family": "Rao"}]])
def test_the_id_of_a_contained_patient_is_nobodys_number(name: Any) -> None:
    inside = {"resourceType": "Patient", "id": "p1", "name": name}
    (reading,) = read(observation(subject={"reference": "#p1"}, contained=[inside]))
    assert reading.faults == [("Observation.subject.reference", "has no identifier: '#p1'")]
