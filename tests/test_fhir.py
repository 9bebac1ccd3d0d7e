"""Reading FHIR R4: what a resource says comes out as it was sent, and nothing is lost or made up."""

import copy
import io
import json
from collections import Counter
from datetime import UTC, tzinfo
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.paths import DATA

from myhealth.common.errors import BadInput
from myhealth.intake.formats import json_reader
from myhealth.intake.formats.detect import read_dump
from myhealth.intake.formats.fhir.reader import read_fhir
from myhealth.intake.formats.json_reader import JsonBuffer
from myhealth.intake.parsed_record import ParsedRecord
from myhealth.intake.validation import validate_record

KOLKATA = ZoneInfo("Asia/Kolkata")
LOINC = "http://loinc.org"
UCUM = "http://unitsofmeasure.org"


def read_text(data: str | bytes, zone: tzinfo = UTC) -> tuple[list[ParsedRecord], Counter[str]]:
    raw = data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data
    skipped: Counter[str] = Counter()
    return list(read_fhir(JsonBuffer(io.BytesIO(raw)), zone, skipped)), skipped


def read(*resources: Any, zone: tzinfo = UTC) -> list[ParsedRecord]:
    return read_text("\n".join(map(json.dumps, resources)), zone)[0]


def record_of(resource: Any, zone: tzinfo = UTC) -> dict[str, Any]:
    """The record of the only reading of a resource, which must pass the check if it is about a patient."""
    (reading,) = read(resource, zone=zone)
    assert reading.faults == []
    if "checkup_for" in reading.record:
        assert validate_record(reading.record)[1] == []
    return reading.record


def result_of(**changes: Any) -> dict[str, Any]:
    (result,) = record_of(observation(**changes))["results"]
    return result


def faults_of(resource: Any) -> list[tuple[str, str]]:
    (reading,) = read(resource)
    return reading.faults


def observation(name: str = "glucose", **changes: Any) -> dict[str, Any]:
    """A good Observation, with these changes; a change to ... takes the element away."""
    made = {
        "resourceType": "Observation",
        "id": name,
        "status": "final",
        "code": {"coding": [{"system": LOINC, "code": "15074-8", "display": "Glucose in Blood"}], "text": "Glucose"},
        "subject": {"reference": "Patient/p1", "display": "Bholanath Kulkarni"},
        "effectiveDateTime": "2026-11-20T09:14:03+05:30",
        "valueQuantity": quantity(6.3, "mmol/l", "mmol/L"),
        **changes,
    }
    return {key: value for key, value in made.items() if value is not ...}


def quantity(value: Any, unit: str = "", code: str = "", system: str = UCUM) -> dict[str, Any]:
    told = {"value": value, "unit": unit, "code": code, "system": system if code else ""}
    return {key: each for key, each in told.items() if each != ""}


def concept(*codes: str, text: str = "", system: str = "") -> dict[str, Any]:
    coding = [{"code": code, **({"system": system} if system else {})} for code in codes]
    return {key: value for key, value in (("coding", coding), ("text", text)) if value}


def report(*references: str, **changes: Any) -> dict[str, Any]:
    made = {
        "resourceType": "DiagnosticReport",
        "id": "r1",
        "status": "final",
        "code": {"text": "Lipid panel"},
        "subject": {"reference": "Patient/p1"},
        "effectiveDateTime": "2026-11-20T09:00:00Z",
        "result": [{"reference": reference} for reference in references],
        **changes,
    }
    return {key: value for key, value in made.items() if value is not ...}


def bundle(*resources: dict[str, Any], kind: str = "collection", urls: tuple[str, ...] = ()) -> dict[str, Any]:
    entries: list[dict[str, Any]] = [{"resource": resource} for resource in resources]
    for entry, url in zip(entries, urls, strict=False):
        if url:
            entry["fullUrl"] = url
    return {"resourceType": "Bundle", "type": kind, "entry": entries}


PATIENT = {
    "resourceType": "Patient",
    "id": "p1",
    "identifier": [
        {"use": "old", "value": "OLD-1"},
        {"system": "http://example.org/card", "value": "CARD-7"},
        {"use": "usual", "value": "bholanath"},
    ],
    "name": [
        {"use": "nickname", "given": ["Bholu"]},
        {"use": "official", "family": "Kulkarni", "given": ["Bholanath", "V"]},
    ],
}


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
        {**R, "code": None, "other_code": "152584", "code_system": "urn:iso:std:iso:11073:10101",
         "name": "MDC_FLOW_AWAY_EXP_FORCED_PEAK", "value": 820, "unit": "cL/s"},
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
                             "At risk of osteoporotic fracture\nResults that did not come along: Observation/bmd.\n"
                             "Only the day is known.", "Dr Henry Seven"),
    "DiagnosticReport-f201": ("f201", "DiagnosticReport/f201", "2012-12-01T12:00:00+01:00", "CT of head-neck",
                              "Radiology", "CT brains: large tumor sphenoid/clivus.\n"
                              "Malignant tumor of craniopharyngeal duct", "Blijdorp MC"),
    "Observation-656": ("PatientId-patientId", "patientId-urn:oid:1.2.4~0000000000000000~152584~20170503155426~820#656",
                        "2017-05-03T15:54:26-04:00", "MDC_FLOW_AWAY_EXP_FORCED_PEAK", "", "",
                        "Patient/PatientId-patientId"),
    "Observation-f001": ("f001", "http://www.bmc.nl/zorgportal/identifiers/observations|6323#f001",
                         "2013-04-02T09:30:10+01:00", "Glucose [Moles/volume] in Blood", "", "", "A. Langeveld"),
    "Observation-unsat": ("f001", "http://www.bmc.nl/zorgportal/identifiers/observations|6323#unsat",
                          "2013-04-02T09:30:10+01:00", "Glucose [Moles/volume] in Blood", "",
                          "Status: cancelled.\nTube broken in transit and sample leaked", "A. Langeveld"),
    "Observation-bmi": ("example", "Observation/bmi", "1999-07-02T12:00:00+00:00", "BMI", "Vital Signs",
                        "Only the day is known.", None),
    "Observation-vitals-panel": ("example", "Observation/vitals-panel", "1999-07-02T12:00:00+00:00",
                                 "Vital signs Panel", "Vital Signs",
                                 "Results that did not come along: Respiratory Rate, Heart Rate, Blood Pressure, "
                                 "Body Temperature.\nOnly the day is known.", None),
}  # fmt: skip


def sample(name: str, folder: str = "fhir-r4") -> bytes:
    return (DATA / folder / f"{name}.json").read_bytes()


@pytest.mark.parametrize("name", SAMPLE_RESULTS)
def test_an_example_of_hl7_comes_out_as_it_is(name: str) -> None:
    (reading,), skipped = read_text(sample(name))
    assert reading.faults == []
    assert reading.record["results"] == SAMPLE_RESULTS[name]
    kinds = [type(result["value"]) for result in reading.record["results"]]
    assert kinds == [type(result["value"]) for result in SAMPLE_RESULTS[name]]
    assert not skipped
    if name != "Observation-decimal":  # it is about nobody
        assert validate_record(reading.record)[1] == []
    if name in SAMPLE_RECORDS:
        names = ("checkup_for", "record_id", "taken_at", "checkup_type", "disease", "checkup_report", "taken_by")
        assert tuple(reading.record[name] for name in names) == SAMPLE_RECORDS[name]


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
        assert reading.patients == (patient["resource"]["identifier"][0]["value"], patient["fullUrl"])
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
     ("AA", "A"), (">", "HH"), ("<", "LL"), ("H>", "HH"), ("L<", "LL"), ("POS", "A"), ("DET", "A"), ("R", "A"),
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
    ("ranges", "low", "high", "text"),
    [
        ([{"low": quantity(3.1, "mmol/l", "mmol/L"), "high": quantity(6.2, "mmol/l", "mmol/L")}], 3.1, 6.2, None),
        ([{"high": quantity(6.2)}], None, 6.2, None),
        ([{"text": "see the leaflet"}], None, None, "see the leaflet"),
        ([{"low": quantity(1), "type": concept("normal")}], 1, None, None),
        ([{"low": quantity(1), "high": quantity(2), "type": concept("therapeutic", text="therapy")}], None, None, "therapy: 1 - 2"),
        ([{"low": quantity(1), "appliesTo": [concept(text="women")]}, {"low": quantity(2), "appliesTo": [concept(text="men")]}],
         1, None, "men: >=2"),
        ([{"type": concept("treatment"), "high": quantity(9)}, {"high": quantity(7), "age": {"low": quantity(18, "a")}}],
         None, 7, "treatment: <=9"),
        ([{"high": quantity(7), "age": {"low": quantity(18, "a")}, "type": concept("x")}], None, None, "x, age >=18 a: <=7"),
        ([{"low": quantity(70, "mg/dL", "mg/dL"), "high": quantity(105, "mg/dL", "mg/dL")}], None, None, "70 - 105 mg/dL"),
        ([{"low": quantity(9), "high": quantity(2)}], None, None, "9 - 2"),
        ([{"low": quantity(3, "MMOL/L")}], 3, None, None),
    ],
    ids=["both", "high", "text", "normal", "therapeutic", "men-and-women", "treatment-first", "age", "other-unit",
         "wrong-way", "unit-in-capitals"],
)  # fmt: skip
def test_a_reference_range_is_low_and_high_or_words(ranges: Any, low: Any, high: Any, text: str | None) -> None:
    result = result_of(referenceRange=ranges)
    assert (result["low"], result["high"], result.get("range_text")) == (low, high, text)


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
    assert alone["checkup_report"] == "Interpretation: odd."


# --- Records --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "taken_at", "said"),
    [
        ({"effectiveDateTime": "2026-11-20T09:14:03+05:30"}, "2026-11-20T09:14:03+05:30", ""),
        ({"effectiveDateTime": "2026-11-20T09:14:03.125Z"}, "2026-11-20T09:14:03.125Z", ""),
        ({"effectiveDateTime": "2026-11-20T09:14:03"}, "2026-11-20T09:14:03+05:30", ""),
        ({"effectiveDateTime": "2026-11-20T09:14Z"}, "2026-11-20T09:14:00+00:00", ""),
        ({"effectiveDateTime": "2016-12-31T23:59:60Z"}, "2017-01-01T00:00:00+00:00", ""),
        ({"effectiveDateTime": "2026-11-20"}, "2026-11-20T12:00:00+00:00", "Only the day is known."),
        ({"effectiveDateTime": "2026-11"}, "2026-11-01T12:00:00+00:00", "Only the month is known."),
        ({"effectiveDateTime": "2026"}, "2026-01-01T12:00:00+00:00", "Only the year is known."),
        ({"effectiveDateTime": ..., "effectiveInstant": "2026-11-20T09:14:03Z"}, "2026-11-20T09:14:03Z", ""),
        ({"effectiveDateTime": ..., "effectivePeriod": {"start": "2026-11-20T09:00:00Z", "end": "2026-11-21"}},
         "2026-11-20T09:00:00Z", ""),
        ({"effectiveDateTime": ..., "issued": "2026-11-22T01:02:03Z"}, "2026-11-22T01:02:03Z", ""),
        ({"issued": "2026-11-22T01:02:03Z"}, "2026-11-20T09:14:03+05:30", ""),
        ({"effectiveDateTime": ...}, None, ""),
        ({"effectiveDateTime": "1905-06-01T10:00:00"}, "1905-06-01T04:38:50+00:00", ""),
    ],
    ids=lambda value: str(value)[:70] if isinstance(value, dict) else "",
)  # fmt: skip
def test_when_it_was_taken(changes: dict[str, Any], taken_at: str | None, said: str) -> None:
    record = record_of(observation(**changes), zone=KOLKATA)
    assert record.get("taken_at") == taken_at
    assert record["checkup_report"] == said


@pytest.mark.parametrize(
    "text",
    [
        "2026-13",
        "2026-02-30",
        "yesterday",
        "2026-11-20T25:00:00Z",
        "0000",
        "2026-11-20T09:00:00+99:00",
        "2026-11-20T09:00:00+05:75",
    ],
)
def test_a_moment_that_is_none_is_a_fault(text: str) -> None:
    assert faults_of(observation(effectiveDateTime=text)) == [
        ("Observation.effectiveDateTime", f"is no date and time: '{text}'")
    ]


@pytest.mark.parametrize(
    ("changes", "url", "record_id"),
    [
        ({"identifier": [{"system": "http://acme.com", "value": "17"}]}, "urn:uuid:1", "http://acme.com|17#glucose"),
        ({"identifier": [{"use": "old", "value": "16"}, {"value": "17"}]}, "", "17#glucose"),
        ({"id": ..., "identifier": [{"value": "17"}]}, "", "17"),
        ({"identifier": [{"system": "http://acme.com"}]}, "urn:uuid:1", "urn:uuid:1"),
        ({}, "https://example.com/Observation/glucose", "https://example.com/Observation/glucose"),
        ({}, "", "Observation/glucose"),
        ({"id": ...}, "", None),
    ],
    ids=["identifier", "use", "no-id", "system-only", "url", "id", "nothing"],
)  # fmt: skip
def test_the_number_of_a_record(changes: dict[str, Any], url: str, record_id: str | None) -> None:
    (reading,) = read(bundle(observation(**changes), urls=(url,)))
    assert reading.record.get("record_id") == record_id


@pytest.mark.parametrize(
    ("subject", "patients", "full_name"),
    [
        ({"reference": "Patient/p1"}, ("bholanath", "CARD-7", "OLD-1", "p1"), "Bholanath V Kulkarni"),
        ({"reference": "Patient/p1/_history/2"}, ("bholanath", "CARD-7", "OLD-1", "p1"), "Bholanath V Kulkarni"),
        ({"reference": "Patient/p2", "display": "Savita"}, ("p2",), "Savita"),
        ({"reference": "https://example.com/fhir/Patient/p1"}, ("p1",), ""),
        ({"reference": "urn:uuid:5"}, ("urn:uuid:5",), ""),
        ({"identifier": {"value": "MRN-9"}}, ("MRN-9",), ""),
        ({"reference": "Patient?identifier=http://example.org/mrn|123"}, ("123",), ""),
        ({"reference": "Group/g1"}, (), ""),
        ({"reference": "#gone"}, (), ""),
        ({"reference": "", "identifier": {"value": " "}}, (), ""),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, dict) else "",
)  # fmt: skip
def test_the_patient_is_known_by(subject: Any, patients: tuple[str, ...], full_name: str) -> None:
    (reading,) = read(bundle(PATIENT, observation(subject=subject)))
    assert (reading.patients, reading.full_name) == (patients, full_name)
    assert reading.record.get("checkup_for") == (patients[0] if patients else None)
    assert ("checkup_for" in reading.record) == bool(patients)


def test_a_number_on_another_server_is_another_person() -> None:
    here = ("https://a.example/fhir/Patient/p1", "https://a.example/fhir/Observation/glucose")
    there = ("https://b.example/fhir/Patient/p1", "https://a.example/fhir/Observation/glucose")
    assert read(bundle(PATIENT, observation(), urls=here))[0].patients[0] == "bholanath"
    assert read(bundle(PATIENT, observation(), urls=there))[0].patients == ("p1",)


def test_a_reference_to_a_version_means_that_version() -> None:
    versions = [{**PATIENT, "meta": {"versionId": n}, "identifier": [{"value": f"MRN-{n}"}]} for n in ("3", "2")]
    urls = ("https://a.example/Patient/p1",) * 2 + ("https://a.example/Observation/glucose",)
    for text, name in (("Patient/p1", "MRN-3"), ("Patient/p1/_history/2", "MRN-2"), ("Patient/p1/_history/9", "MRN-3")):
        for reference in (text, f"https://a.example/{text}"):
            (reading,) = read(bundle(*versions, observation(subject={"reference": reference}), urls=urls))
            assert reading.patients[0] == name
            same_again(reading)


@pytest.mark.parametrize(
    ("performer", "taken_by"),
    [
        ([{"reference": "Practitioner/d1", "display": "Dr Ayush"}], "Dr Ayush"),
        ([{"reference": "Practitioner/d1"}], "Ayush Rao"),
        ([{"reference": "PractitionerRole/r1"}], "Ayush Rao"),
        ([{"reference": "Organization/o1"}], "Pune Camp"),
        ([{"reference": "Practitioner/unknown"}], "Practitioner/unknown"),
        ([{"identifier": {"value": "L-77"}}], "L-77"),
        ([{"actor": {"reference": "Practitioner/d1"}}], "Ayush Rao"),
        ([{}, {"display": "Tara"}], "Tara"),
        ([], None),
    ],
    ids=lambda value: str(value)[:50] if isinstance(value, list) else "",
)  # fmt: skip
def test_who_took_it(performer: Any, taken_by: str | None) -> None:
    people = [
        {"resourceType": "Practitioner", "id": "d1", "name": [{"family": "Rao", "given": ["Ayush"]}]},
        {"resourceType": "PractitionerRole", "id": "r1", "practitioner": {"reference": "Practitioner/d1"}},
        {"resourceType": "Organization", "id": "o1", "name": "Pune Camp"},
    ]
    (reading,) = read(bundle(*people, observation(performer=performer)))
    assert reading.record["taken_by"] == taken_by


@pytest.mark.parametrize(
    ("device", "serial"),
    [
        ({"identifier": [{"value": "345675"}]}, "345675"),
        ({"identifier": [{"value": "ASSET-1"}], "serialNumber": "SN-2"}, "SN-2"),
        ({"identifier": [{"value": "ASSET-1"}, {"type": concept("SNO"), "value": "SN-3"}]}, "SN-3"),
        ({}, "d1"),
        ({"identifier": [{"value": "A/B"}]}, None),
        (None, "d1"),
    ],
    ids=["identifier", "serial-number", "type", "id", "unusable", "elsewhere"],
)  # fmt: skip
def test_the_machine_is_known_by_a_serial(device: Any, serial: str | None) -> None:
    devices = [] if device is None else [{"resourceType": "Device", "id": "d1", **device}]
    (reading,) = read(bundle(*devices, observation(device={"reference": "Device/d1"})))
    assert reading.record.get("machine") == serial
    assert ("machine" in reading.record) == (serial is not None)


def test_results_of_two_machines_are_of_none_and_both_are_named() -> None:
    both = [observation(name, device={"identifier": {"value": f"HC-{name}"}}) for name in ("1", "2")]
    (reading,) = read(bundle(report("Observation/1", "Observation/2"), *both))
    assert "machine" not in reading.record
    assert "Machines: HC-1, HC-2." in reading.record["checkup_report"]


def test_the_report_says_what_a_person_should_know() -> None:
    record = record_of(
        report(
            conclusion="All fine.",
            conclusionCode=[{"coding": [{"code": "1", "display": "Healthy"}]}],
            presentedForm=[{"title": "Film", "data": "AAAA", "contentType": "application/dicom"}],
            status="preliminary",
            category=[concept("HM"), concept(text="Laboratory")],
            result=[{"reference": "#a"}],
            contained=[
                observation("a", status="cancelled", note=[{"text": "clotted"}], bodySite=concept(text="Left arm"))
            ],
        )
    )
    assert record["checkup_report"] == (
        "All fine.\nHealthy\nAttached: Film.\nStatus: preliminary.\nStatus of Glucose: cancelled.\n"
        "Glucose: clotted\nBody site of Glucose: Left arm."
    )
    assert record["disease"] == "Laboratory"
    for status in ("final", "amended", "corrected"):
        assert record_of(observation(status=status))["checkup_report"] == ""


# --- What makes one record ------------------------------------------------------------------------------------------


def names(readings: list[ParsedRecord]) -> list[tuple[str, list[str]]]:
    """The number of each record and the names of its results."""
    return [(r.record["record_id"], [result["name"] for result in r.record["results"]]) for r in readings]


def named(name: str, *members: str, **changes: Any) -> dict[str, Any]:
    """An Observation that is called as it is numbered, with these members and, if it has any, no value of its own."""
    own = {"valueQuantity": ...} if members else {}
    return observation(name, code={"text": name}, hasMember=[{"reference": each} for each in members], **own, **changes)


def test_a_report_with_its_results_is_one_record_in_its_order() -> None:
    found, skipped = read_text(json.dumps(bundle(
        PATIENT, named("c"), named("x"), report("Observation/a", "#b", "urn:uuid:c", contained=[named("b"), named("z")]),
        named("a"), urls=("", "urn:uuid:c"))))  # fmt: skip
    assert names(found) == [("Observation/x", ["x"]), ("DiagnosticReport/r1", ["a", "b", "c"])]
    assert [reading.index for reading in found] == [0, 1]
    assert skipped == {"Patient": 1, "contained Observation of no result": 1}


def test_a_panel_takes_its_members_and_their_members_once() -> None:
    found = read(bundle(named("inner", "Observation/a", "Observation/b"), named("a"), named("b"),
                        named("outer", "Observation/inner", "Observation/a", "Observation/gone")))  # fmt: skip
    assert names(found) == [("Observation/outer", ["a", "b"])]
    assert found[0].record["checkup_report"] == "Results that did not come along: Observation/gone."


def test_references_in_a_circle_end() -> None:
    assert names(
        read(bundle(named("a", "Observation/b"), named("b", "Observation/a"), named("c", "Observation/c")))
    ) == [
        ("Observation/a", []),
        ("Observation/c", []),
    ]
    assert names(read(bundle(named("b"), named("a", "Observation/a", "Observation/b")))) == [("Observation/a", ["b"])]
    circle = [
        named("a", "Observation/c", valueString="1"),
        named("c", "Observation/a", "Observation/d", valueString="2"),
        named("d"),
    ]
    assert names(read(bundle(*circle))) == [("Observation/a", ["a", "c", "d"])]


def test_a_result_in_two_reports_is_in_both_and_not_alone() -> None:
    found = read(bundle(report("Observation/a"), report("Observation/a", id="r2"), named("a")))
    assert names(found) == [("DiagnosticReport/r1", ["a"]), ("DiagnosticReport/r2", ["a"])]


def test_what_was_entered_in_error_is_counted_and_left_out() -> None:
    wrong = {"status": "entered-in-error"}
    found, skipped = read_text(json.dumps(bundle(
        report("Observation/a", "Observation/b"), named("a"), named("b", **wrong), named("c", **wrong),
        report("Observation/d", id="r2", **wrong), named("d"))))  # fmt: skip
    assert names(found) == [("DiagnosticReport/r1", ["a"]), ("Observation/d", ["d"])]
    assert skipped == {"Observation entered in error": 2, "DiagnosticReport entered in error": 1}
    assert "come along" not in found[0].record["checkup_report"]


def test_a_result_about_another_patient_spoils_its_report() -> None:
    other = named("a", subject={"reference": "Patient/p2"})
    found = read(bundle(PATIENT, {**PATIENT, "id": "p2"}, report("Observation/a"), other))
    place = "DiagnosticReport.result[0].resolve().subject"
    assert [reading.faults for reading in found] == [[(place, "is another one than the record's")]]
    assert read(bundle(report("Observation/a"), other))[0].faults == [(place, "is another one than the record's")]
    assert read(bundle(report("Observation/a", subject=...), other))[0].patients == ("p2",)


@pytest.mark.parametrize("kind", ["transaction", "batch", "collection", "searchset", "document", "message", "history"])
def test_every_kind_of_bundle_is_read(kind: str) -> None:
    assert len(read(bundle(observation(), PATIENT, kind=kind))) == 1


def test_bundles_in_a_bundle_are_read_each_for_itself() -> None:
    inner = bundle(observation("b"), PATIENT, kind="searchset")
    outer = bundle(observation("a"), inner, {"resourceType": "Bundle", "type": "searchset"}, kind="batch-response")
    found, skipped = read_text(json.dumps(outer, indent=1))
    assert [(r.record["record_id"], r.record["checkup_for"]) for r in found] == [
        ("Observation/a", "p1"), ("Observation/b", "bholanath")]  # fmt: skip
    assert skipped == {"Patient": 1, "empty Bundle": 1}
    assert found[1].line > found[0].line


def test_resources_one_after_another_are_records_in_order() -> None:
    data = "\n".join(
        [
            json.dumps(observation("a")),
            json.dumps(PATIENT),
            "",
            json.dumps(observation("b", valueInteger=4, valueQuantity=...)),
        ]
    )
    found, skipped = read_text(data)
    assert names(found) == [("Observation/a", ["Glucose"]), ("Observation/b", ["Glucose"])]
    assert [(reading.index, reading.line) for reading in found] == [(0, 1), (1, 4)]
    assert skipped == {"Patient": 1}


def test_a_bare_list_of_resources_is_read_one_by_one() -> None:
    data = json.dumps([observation("a"), PATIENT, observation("b")], indent=1).encode()
    found = read_dump(io.BytesIO(data))
    assert names(list(found.readings)) == [("Observation/a", ["Glucose"]), ("Observation/b", ["Glucose"])]
    assert (found.format, found.skipped) == ("fhir", {"Patient": 1})


def test_a_broken_line_is_told_and_the_next_one_read() -> None:
    found, _ = read_text('{"resourceType": \n' + json.dumps(observation()) + '\n[1]\n{"a": 1}\n{"resourceType": 5}')
    assert [reading.faults[0][0] if reading.faults else "good" for reading in found] == [
        "", "good", "", "resourceType", "resourceType"]  # fmt: skip


# --- What is wrong with it ------------------------------------------------------------------------------------------


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
        ({"valueString": "two"}, "Observation.valueString", "stands beside valueQuantity: which value is meant?"),
        ({"valueQuantity": ..., "valueMoney": {}}, "Observation.valueMoney", "is of a kind that is not known"),
        ({"code": ...}, "Observation.code", "says nothing"),
        ({"code": {"coding": [{"code": 5}]}}, "Observation.code.coding[0].code", "must be text, not a number"),
        ({"referenceRange": [{"low": {"value": "3"}}]}, "Observation.referenceRange[0].low.value", "not text"),
        ({"component": ["x"]}, "Observation.component[0]", "must be an object, not text"),
        ({"subject": "Patient/p1"}, "Observation.subject", "must be an object, not text"),
        ({"subject": {"identifier": {"value": 17}}}, "Observation.subject.identifier.value", "must be text"),
        ({"effectiveDateTime": 2026}, "Observation.effectiveDateTime", "must be text, not a number"),
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
        {"method": 5},
        {"issued": None},
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
    assert reading.faults == [("Observation.valueQuantity", "stands there twice")]
    assert "6.3" in reading.raw
    assert '{"value": 7}' in reading.raw
    (reading,), _ = read_text('{"resourceType": "Bundle", "entry": [], "entry": []}')
    assert reading.faults == [("Bundle.entry", "stands there twice")]


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


def test_a_bundle_whose_entries_are_no_list_is_a_fault() -> None:
    assert faults_of({"resourceType": "Bundle", "entry": {}}) == [("Bundle.entry", "must be a list, not an object")]


def test_a_broken_bundle_gives_nothing_lest_a_report_lose_results() -> None:
    text = json.dumps(bundle(report("Observation/a"), named("a")))
    for cut in (len(text) - 1, len(text) // 2):
        (reading,), _ = read_text(text[:cut])
        assert reading.faults
        assert reading.raw == text[:cut]


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


# --- Properties -----------------------------------------------------------------------------------------------------


def same_again(reading: ParsedRecord) -> None:
    """Its text, read alone, gives this record again, and nothing else."""
    if any("JSON" in message for _, message in reading.faults):
        return
    (again,), _ = read_text(reading.raw)
    for name in ("record", "faults", "patients", "full_name", "raw"):
        assert str(getattr(again, name)) == str(getattr(reading, name)), name


FULL = bundle(
    PATIENT,
    {"resourceType": "Device", "id": "d1", "identifier": [{"value": "HC-9"}]},
    {"resourceType": "Practitioner", "id": "d2", "name": [{"family": "Rao", "given": ["Ayush"]}]},
    report("Observation/a", "urn:uuid:b", "#c", performer=[{"reference": "Practitioner/d2"}], contained=[named("c")]),
    named("a", device={"reference": "Device/d1"}, interpretation=[concept("H")], referenceRange=[{"high": quantity(5)}]),
    named("b", "Observation/d", note=[{"text": "n"}]),
    named("d", status="entered-in-error"),
    named("e", "Observation/f", "Observation/gone"),
    named("f", "Observation/e", "Observation/a"),
    named("g", component=[{"code": {"text": "k"}, "valueRatio": {"numerator": quantity(1), "denominator": quantity(8)}}]),
    urls=("", "", "", "https://x.example/fhir/DiagnosticReport/r1", "", "urn:uuid:b"),
)  # fmt: skip


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
