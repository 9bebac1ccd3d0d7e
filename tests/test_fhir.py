"""Reading FHIR R4: values come out as they were sent; none is lost or invented."""

import json
from decimal import Decimal
from typing import Any

import pytest
from support.fhir import (
    LOINC,
    bundle,
    concept,
    observation,
    patients_of,
    quantity,
    read,
    read_text,
    record_of,
    result_of,
)
from support.paths import DATA

from myhealth.intake.record import Result
from myhealth.intake.validation import validate_record

# --- The samples that HL7 and others wrote -------------------------------------------------------------------------

R = {"low": None, "high": None, "flag": None, "unit": None}
SAMPLE_RESULTS = {
    "Bundle-lipids": [
        {**R, "code": "35200-5", "name": "Cholesterol", "value": 6.3, "unit": "mmol/L", "high": 4.5},
        {**R, "code": "35217-9", "name": "Triglyceride", "value": 1.3, "unit": "mmol/L", "high": 2.0},
        {**R, "code": "2085-9", "name": "Cholesterol in HDL", "value": 1.3, "unit": "mmol/L", "low": 1.5},
        {**R, "code": "13457-7", "name": "LDL Chol. (Calc)", "value": 4.6, "unit": "mmol/L", "high": 3.0},
    ],
    "DiagnosticReport-102": [],
    "DiagnosticReport-f201": [],
    "Observation-656": [
        {**R, "code": "19935-6", "name": "Peak expiratory flow", "value": 820, "unit": "cL/s"},
    ],
    "Observation-blood-pressure": [
        {**R, "code": "8480-6", "name": "Systolic blood pressure", "value": 107, "unit": "mm[Hg]", "flag": "N"},
        {**R, "code": "8462-4", "name": "Diastolic blood pressure", "value": 60, "unit": "mm[Hg]", "flag": "L"},
    ],
    "Observation-blood-pressure-cancel": [
        {**R, "code": "8480-6", "name": "Systolic blood pressure", "value": "Not Asked", "absent_reason": "Not Asked"},
        {**R, "code": "8462-4", "name": "Diastolic blood pressure", "value": "Not Asked", "absent_reason": "Not Asked"},
    ],
    "Observation-bmi": [{**R, "code": "39156-5", "name": "BMI", "value": 16.2, "unit": "kg/m2"}],
    "Observation-body-temperature": [
        {**R, "code": "8310-5", "name": "Body temperature", "value": 36.5, "unit": "Cel"},
    ],
    "Observation-date-lastmp": [
        {**R, "code": "8665-2", "name": "Date last menstrual period", "value": "2016-12-30"},
    ],
    "Observation-decimal": [
        {**R, "code": None, "name": "Component", "unit": "g", "value": value}
        for value in (1.0, Decimal("1.00"), 1.0, Decimal("1E-22"), 10**18, Decimal("1.000000000000000000E-245"),
                      Decimal("-1.000000000000000000E+245"))
    ],
    "Observation-eye-color": [{**R, "code": None, "name": "eye color", "value": "blue"}],
    "Observation-f001": [
        {"code": "15074-8", "name": "Glucose [Moles/volume] in Blood", "value": 6.3, "unit": "mmol/L", "low": 3.1,
         "high": 6.2, "flag": "H"},
    ],
    "Observation-f002": [
        {"code": "11555-0", "name": "Base excess in Blood by calculation", "value": 12.6, "unit": "mmol/L",
         "low": 7.1, "high": 11.2, "flag": "H"},
    ],
    "Observation-heart-rate": [{**R, "code": "8867-4", "name": "Heart rate", "value": 44, "unit": "/min"}],
    "Observation-satO2": [
        {"code": "2708-6", "name": "Oxygen saturation in Arterial blood", "value": 95, "unit": "%", "low": 90,
         "high": 99, "flag": "N"},
    ],
    "Observation-unsat": [
        {"code": "15074-8", "name": "Glucose [Moles/volume] in Blood", "unit": "mmol/L", "low": 3.1, "high": 6.2,
         "flag": None, "value": "Specimen unsatisfactory for evaluation",
         "absent_reason": "Specimen unsatisfactory for evaluation"},
    ],
    "Observation-vitals-panel": [],
}  # fmt: skip
SAMPLE_RECORDS = {
    "Bundle-lipids": ("pat2", "http://acme.com/lab/reports|5234342#lipids", "2011-03-04T08:30:00+11:00", "Lipid Panel", "",
                      "", "Acme Laboratory, Inc"),
    "DiagnosticReport-102": ("pat2", "DiagnosticReport/102", "2008-06-17T12:00:00+00:00", "DXA BONE DENSITOMETRY", "",
                             "", "Dr Henry Seven"),
    "DiagnosticReport-f201": ("f201", "DiagnosticReport/f201", "2012-12-01T12:00:00+01:00", "CT of head-neck", "",
                              "CT brains: large tumor sphenoid/clivus.", "Blijdorp MC"),
    "Observation-656": ("PatientId-patientId", "patientId-urn:oid:1.2.4~0000000000000000~152584~20170503155426~820#656",
                        "2017-05-03T15:54:26-04:00", "Peak expiratory flow", "", "",
                        "Patient/PatientId-patientId"),
    "Observation-f001": ("f001", "http://www.bmc.nl/zorgportal/identifiers/observations|6323#f001",
                         "2013-04-02T09:30:10+01:00", "Glucose [Moles/volume] in Blood", "", "", "A. Langeveld"),
    "Observation-unsat": ("f001", "http://www.bmc.nl/zorgportal/identifiers/observations|6323#unsat",
                          "2013-04-02T09:30:10+01:00", "Glucose [Moles/volume] in Blood", "", "", "A. Langeveld"),
    "Observation-bmi": ("example", "Observation/bmi", "1999-07-02T12:00:00+00:00", "BMI", "", "", None),
    "Observation-vitals-panel": ("example", "Observation/vitals-panel", "1999-07-02T12:00:00+00:00",
                                 "Vital signs Panel", "", "", None),
}  # fmt: skip


def plain(result: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that every dump has; `test_fhir_records.py` has the others."""
    return {name: value for name, value in result.items() if name in Result.__struct_fields__}


def sample(name: str, folder: str = "fhir-r4") -> bytes:
    return (DATA / folder / f"{name}.json").read_bytes()


@pytest.mark.parametrize("name", SAMPLE_RESULTS)
def test_an_example_of_hl7_comes_out_as_it_is(name: str) -> None:
    (reading,), skipped = read_text(sample(name))
    assert reading.faults == []
    assert [plain(result) for result in reading.record["results"]] == SAMPLE_RESULTS[name]
    kinds = [type(result["value"]) for result in reading.record["results"]]
    assert kinds == [type(result["value"]) for result in SAMPLE_RESULTS[name]]
    assert not skipped
    if name != "Observation-decimal":  # it is about nobody
        assert validate_record(reading.record)[1] == []
    if name in SAMPLE_RECORDS:
        names = ("checkup_for", "record_id", "taken_at", "checkup_type", "disease", "checkup_report", "taken_by")
        assert tuple(reading.record.get(name) for name in names) == SAMPLE_RECORDS[name]


@pytest.mark.parametrize(
    ("name", "counted"),
    [
        ("AuditEvent-example-search", {"AuditEvent": 1}),
        ("Device-example", {"Device": 1}),
        ("OperationOutcome-validationfail", {"OperationOutcome": 1}),
        ("Bundle-bundle-response",
         {"Patient": 1, "Parameters": 1, "Bundle entry without a resource": 7, "empty Bundle": 1}),
    ],
)  # fmt: skip
def test_what_is_no_result_is_counted_by_kind(name: str, counted: dict[str, int]) -> None:
    readings, skipped = read_text(sample(name))
    assert readings == []
    assert skipped == counted


@pytest.mark.parametrize("number", [0, 3])
def test_a_transaction_bundle_gives_each_observation_once(number: int) -> None:
    data = sample(f"mixed-20261123-000{number}", "bundles")
    readings, skipped = read_text(data)
    (patient,) = (entry for entry in json.loads(data)["entry"] if entry["resource"]["resourceType"] == "Patient")
    assert len(readings) == 13  # five reports, and eight vital signs of their own
    for reading in readings:
        assert reading.faults == []
        assert validate_record(reading.record)[1] == []
        assert patients_of(reading) == (patient["resource"]["identifier"][0]["value"],)
        assert reading.record["record_id"].startswith("urn:uuid:")
        assert reading.record["taken_at"] == "2026-01-01T09:00:00Z"
    # 34 Observations, of which the blood pressure has two components
    assert sum(len(reading.record["results"]) for reading in readings) == 35
    assert skipped["Patient"] == skipped["Practitioner"] == skipped["Encounter"] == 1


def test_the_vital_signs_of_a_transaction_bundle_have_their_values() -> None:
    readings, _ = read_text(sample("mixed-20261123-0000", "bundles"))
    found = [
        (result["code"], result["value"], result["unit"])
        for reading in readings[:8]
        for result in reading.record["results"]
    ]
    assert found == [
        ("8302-2", 164, "cm"), ("29463-7", 105.6, "kg"), ("39156-5", 39.4, "kg/m2"), ("8867-4", 64, "/min"),
        ("9279-1", 14, "/min"), ("8310-5", 36.6, "Cel"), ("59408-5", 100, "%"), ("8480-6", 120, "mm[Hg]"),
        ("8462-4", 69, "mm[Hg]"),
    ]  # fmt: skip
    assert readings[0].full_name == "Cato Placeholt"
    assert readings[0].record["taken_by"] == "Fen Mocklin"
    assert [reading.line for reading in readings] == sorted(reading.line for reading in readings)


# --- Values ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected", "unit"),
    [
        ({"valueQuantity": quantity(6.3, "mmol/l", "mmol/L")}, 6.3, "mmol/L"),
        ({"valueQuantity": quantity(820, "cL/s", "265201", "urn:iso:std:iso:11073:10101")}, 820, "cL/s"),
        ({"valueQuantity": quantity(5, "tablets")}, 5, "tablets"),
        ({"valueQuantity": quantity(5, "", "mg", "http://example.org")}, 5, "mg"),
        ({"valueQuantity": {**quantity(5, "mg/L"), "comparator": "<"}}, "<5", "mg/L"),
        ({"valueString": "clear"}, "clear", None),
        ({"valueCodeableConcept": {"coding": [{"code": "N", "display": "Negative"}], "text": "none seen"}}, "none seen", None),
        ({"valueCodeableConcept": {"coding": [{"code": "X"}, {"code": "N", "display": "Negative"}]}}, "Negative", None),
        ({"valueCodeableConcept": concept("260385009")}, "260385009", None),
        ({"valueBoolean": True}, "true", None),
        ({"valueBoolean": False}, "false", None),
        ({"valueInteger": 0}, 0, None),
        ({"valueRange": {"low": quantity(10, "a"), "high": quantity(20, "a")}}, "10 - 20", "a"),
        ({"valueRange": {"low": quantity(10)}}, ">=10", None),
        ({"valueRange": {"high": quantity(20)}}, "<=20", None),
        ({"valueRatio": {"numerator": quantity(1), "denominator": quantity(128)}}, "1:128", None),
        ({"valueRatio": {"numerator": quantity(5, "mg"), "denominator": quantity(1, "mL")}}, "5 mg:1 mL", None),
        ({"valueTime": "09:30:00"}, "09:30:00", None),
        ({"valueDateTime": "2016-12"}, "2016-12", None),
        ({"valuePeriod": {"start": "2026-01-01", "end": "2026-01-02"}}, "2026-01-01 - 2026-01-02", None),
        ({"valuePeriod": {"start": "2026-01-01"}}, "from 2026-01-01", None),
        ({"valueSampledData": {"origin": quantity(0, "mV"), "data": "1 2 E 3"}}, "1 2 E 3", "mV"),
        ({"valueSampledData": {"origin": quantity(0, "mV"), "factor": 1.612, "data": "1 2"}}, "1 2", None),
        ({"valueSampledData": {"origin": quantity(2048, "mV"), "data": "1 2"}}, "1 2", None),
    ],
    ids=lambda value: json.dumps(value, default=str)[:60] if isinstance(value, dict) else "",
)  # fmt: skip
def test_a_value_of_any_kind_is_kept(value: dict[str, Any], expected: Any, unit: str | None) -> None:
    result = result_of(valueQuantity=value.pop("valueQuantity", ...), **value)
    assert (result["value"], result["unit"]) == (expected, unit)
    assert "absent_reason" not in result


@pytest.mark.parametrize("digits", ["5.10", "1E-22", "0.30000000000000004", "-3.50", "7", "1.000000000000000000E-245"])
@pytest.mark.parametrize("comparator", ["", "<"])
def test_a_number_keeps_its_digits(digits: str, comparator: str) -> None:
    resource = observation(valueQuantity={"value": "@", "comparator": comparator or None})
    (reading,), _ = read_text(json.dumps(resource).replace('"@"', digits))
    assert str(reading.record["results"][0]["value"]) == comparator + digits


@pytest.mark.parametrize(
    ("changes", "reason", "unit"),
    [
        ({"dataAbsentReason": {"coding": [{"code": "unknown", "display": "Unknown"}]}}, "Unknown", None),
        ({"dataAbsentReason": {"coding": [{"code": "not-asked"}], "text": "nobody asked"}}, "nobody asked", None),
        ({"dataAbsentReason": concept("not-asked")}, "not-asked", None),
        ({}, "no value", None),
        ({"valueString": ""}, "no value", None),
        ({"valueQuantity": quantity(None, "mg/dL")}, "no value", "mg/dL"),
        ({"referenceRange": [{"low": quantity(3, "g/L")}]}, "no value", "g/L"),
        ({"_valueQuantity": {"extension": [{"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason",
                                            "valueCode": "masked"}]}}, "masked", None),
    ],
    ids=["display", "text", "code", "none", "empty", "unit-only", "unit-of-range", "extension"],
)  # fmt: skip
def test_a_missing_value_says_why(changes: dict[str, Any], reason: str, unit: str | None) -> None:
    result = result_of(**{"valueQuantity": ..., **changes})
    assert (result["value"], result["absent_reason"], result["unit"]) == (reason, reason, unit)


def test_a_value_without_a_unit_gets_none_from_its_range() -> None:
    assert result_of(valueQuantity=quantity(5), referenceRange=[{"high": quantity(7, "g/L")}])["unit"] is None


FLAG_SYSTEM = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"


@pytest.mark.parametrize(
    ("codes", "flag"),
    [("L", "L"), ("H", "H"), ("LL", "LL"), ("HH", "HH"), ("N", "N"), ("A", "A"), ("HU", "HH"), ("LU", "LL"),
     ("AA", "A"), (">", None), ("<", None), ("H>", "HH"), ("L<", "LL"), ("POS", "A"), ("DET", "A"), ("R", "A"),
     ("NEG", "N"), ("ND", "N"), ("S", "N"), ("IND", None), ("U", None), ("W", None), ("whatever", None),
     ("B H", "H")],
)  # fmt: skip
def test_an_interpretation_is_one_of_six_flags(codes: str, flag: str | None) -> None:
    for system in (FLAG_SYSTEM, "http://hl7.org/fhir/v2/0078", ""):
        told = [concept(code, system=system) for code in codes.split()]
        assert result_of(interpretation=told)["flag"] == flag
        assert result_of(interpretation=told[-1])["flag"] == flag  # a single one, as in older releases


def test_a_flag_of_an_unknown_system_is_none() -> None:
    assert result_of(interpretation=[concept("A", system="http://example.org/our-flags")])["flag"] is None


@pytest.mark.parametrize(
    ("ranges", "low", "high", "kept"),
    [
        ([{"low": quantity(3.1, "mmol/l", "mmol/L"), "high": quantity(6.2, "mmol/l", "mmol/L")}], 3.1, 6.2, None),
        ([{"high": quantity(6.2)}], None, 6.2, None),
        ([{"text": "see the leaflet"}], None, None, None),
        ([{"text": "3.9 - 5.5"}], 3.9, 5.5, [{"low": 3.9, "high": 5.5, "text": "3.9 - 5.5"}]),
        ([{"low": quantity(1), "type": concept("normal")}], 1, None, [{"low": 1, "type": {"codings": [{"code": "normal"}]}}]),
        ([{"low": quantity(1), "type": concept(text="Normal Range")}], 1, None, [{"low": 1, "type": "Normal Range"}]),
        ([{"low": quantity(1), "high": quantity(2), "type": concept(text="therapy")}], None, None,
         [{"low": 1, "high": 2, "type": "therapy"}]),
        ([{"low": quantity(1), "appliesTo": [concept(text="women")]}, {"low": quantity(2), "appliesTo": [concept(text="men")]}],
         2, None, [{"low": 1, "sex": "female", "sex_coded": "women"}, {"low": 2, "sex": "male", "sex_coded": "men"}]),
        ([{"high": quantity(9), "appliesTo": [concept(text="smokers")]}, {"high": quantity(7), "age": {"low": quantity(18, "a")}}],
         None, 7, [{"high": 9, "applies_to": ["smokers"]}, {"high": 7, "age_low": 18}]),
        ([{"high": quantity(7), "age": {"high": quantity(24, "months", "mo")}}], None, None,
         [{"high": 7, "age_high": 24, "age_unit": "mo"}]),
        ([{"low": quantity(70, "mg/dL", "mg/dL"), "high": quantity(105, "mg/dL", "mg/dL")}], None, None,
         [{"low": 70, "high": 105, "unit": "mg/dL"}]),
        ([{"low": quantity(9), "high": quantity(2)}], None, None, [{"low": 9, "high": 2}]),
        ([{"low": quantity(3, "MMOL/L")}], 3, None, [{"low": 3, "unit_text": "MMOL/L"}]),
    ],
    ids=["both", "high", "text", "plain-text", "normal", "normal-in-words", "therapeutic", "men-and-women", "smokers-and-adults",
         "age", "other-unit", "wrong-way", "unit-in-capitals"],
)  # fmt: skip
def test_every_reference_range_is_kept_and_that_of_the_patient_compared(
    ranges: Any, low: Any, high: Any, kept: Any
) -> None:
    person = {"resourceType": "Patient", "id": "p1", "gender": "male", "birthDate": "1970-05"}
    (reading,) = read(bundle(person, observation(referenceRange=ranges)))
    assert reading.record["results"][0].get("ranges") == kept
    record, faults = validate_record(reading.record)
    assert record is not None, faults
    (result,) = json.loads(record.results)
    assert (result["low"], result["high"]) == (low, high)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ({"coding": [{"system": "http://snomed.info/sct", "code": "1"}, {"system": LOINC, "code": "718-7", "display": "Hb"}]},
         {"code": "718-7", "name": "Hb"}),
        ({"coding": [{"system": "http://snomed.info/sct", "code": "1", "display": "Haemoglobin"}]},
         {"code": None, "other_code": "1", "code_system": "http://snomed.info/sct", "name": "Haemoglobin"}),
        ({"coding": [{"code": "718-7"}]}, {"code": None, "other_code": "718-7", "name": "718-7"}),
        ({"text": "eye color"}, {"code": None, "name": "eye color"}),
    ],
    ids=["loinc-behind", "snomed", "no-system", "text"],
)  # fmt: skip
def test_a_code_is_loinc_or_named_with_its_system(code: Any, expected: dict[str, Any]) -> None:
    result = result_of(code=code)
    assert {name: result[name] for name in result if name in ("code", "other_code", "code_system", "name")} == expected


def test_components_have_their_own_values_ranges_and_flags() -> None:
    components = [
        {"code": {"text": "systolic"}, "valueQuantity": quantity(128, "mmHg", "mm[Hg]"),
         "interpretation": [concept("H")], "referenceRange": [{"high": quantity(120)}]},
        {"code": {"text": "diastolic"}, "valueQuantity": quantity(82, "mmHg", "mm[Hg]")},
    ]  # fmt: skip
    both = record_of(observation(component=components, interpretation=[concept("A")]))
    assert [(r["name"], r["value"], r["high"], r["flag"]) for r in both["results"]] == [
        ("Glucose", 6.3, None, "A"), ("systolic", 128, 120, "H"), ("diastolic", 82, None, None)]  # fmt: skip
    alone = record_of(observation(valueQuantity=..., component=components, interpretation=[concept("A", text="odd")]))
    assert [(r["name"], r["flag"]) for r in alone["results"]] == [("systolic", "H"), ("diastolic", None)]
    assert alone["checkup_report"] == ""
    (panel,) = alone["details"]["panels"]
    assert (panel["name"], panel["interpretations"]) == ("Glucose", [{"code": "A", "text": "odd"}])
