"""Siblings of the FHIR inputs in tests/data/faults: former numbers, moments, subjects, types, and places of errors."""

import io
import json
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from support.fhir import bundle, observation, quantity, read_text, report
from support.fhir import read as fhir_read
from support.fhir import record_of as fhir_record

from myhealth.intake.formats.registry import read_dump
from myhealth.intake.validation import validate_record

FORMER = {"system": "http://example.org/mrn", "value": "OLD"}
CURRENT = {"system": "http://example.org/mrn", "value": "NEW"}


@pytest.mark.parametrize("change", [{"use": "old"}, {"period": {"end": "2010-01-01"}}, {"period": {"end": "2010"}}])
def test_a_former_number_counts_last_and_never_alone(change: dict[str, Any]) -> None:
    patient = {"resourceType": "Patient", "id": "p1", "identifier": [{**FORMER, **change}, CURRENT]}
    values = [
        [
            each["value"]
            for each in fhir_read(bundle({**patient, **more}, observation()))[0].record["patient"]["identifiers"]
        ]
        for more in ({"name": [{"family": "Kulkarni"}]}, {"birthDate": "1970"}, {})
    ]
    assert values == [["NEW", "OLD"], ["NEW", "OLD"], ["NEW"]]


@pytest.mark.parametrize("place", ["patient", "subject"])
def test_a_former_number_without_anything_else_is_refused(place: str) -> None:
    alone = {"identifier": {**FORMER, "use": "old"}}
    if place == "patient":
        resources = [{"resourceType": "Patient", "id": "p1", **alone}, observation(subject={"reference": "Patient/p1"})]
    else:
        resources = [observation(subject=alone)]
    (reading,) = fhir_read(bundle(*resources))
    assert [name for name, said in reading.faults if "not valid now" in said] == ["Observation.subject"]


NONE = {"valueQuantity": ...}
FAULTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "two moments": (
        {"effectivePeriod": {"start": "2026-11-19"}},
        "effectivePeriod",
        "is beside effectiveDateTime: which moment is meant?",
    ),
    "an end before the start": (
        {"effectiveDateTime": ..., "effectivePeriod": {"start": "2026-11-20T10:00:00Z", "end": "2026-11-20T10:30:00+02:00"}},
        "effectivePeriod.end",
        "lies before the start: '2026-11-20T10:30:00+02:00'",
    ),
    "a value that is no day": ({**NONE, "valueDateTime": "2026-13-45"}, "valueDateTime", "is not a date and time: '2026-13-45'"),
    "a value that is not a time": ({**NONE, "valueTime": "29:15:00"}, "valueTime", "is not a time: '29:15:00'"),
    "a period of no day": (
        {**NONE, "valuePeriod": {"start": "2026-02-30"}},
        "valuePeriod.start",
        "is not a date and time: '2026-02-30'",
    ),
    "a subject that is not contained": ({"subject": {"reference": "#p"}}, "subject.reference", "names no patient who is here: '#p'"),
    "a subject in small letters": (
        {"subject": {"reference": "patient/p1"}},
        "subject.reference",
        "names no patient who is here: 'patient/p1'",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "element", "said"), FAULTS.values(), ids=FAULTS)
def test_what_may_mean_two_things_or_nothing_is_refused(changes: dict[str, Any], element: str, said: str) -> None:
    (reading,) = fhir_read(observation(**changes))
    assert (f"Observation.{element}", said) in reading.faults


def test_a_type_that_stands_twice_is_refused_and_not_counted_as_another() -> None:
    text = json.dumps(observation())[:-1] + ', "resourceType": "Patient"}'
    (reading,), skipped = read_text(text)
    assert (reading.faults, skipped) == ([("resourceType", "is there twice")], {})


def test_a_blank_text_is_no_value() -> None:
    (result,) = fhir_record(observation(valueQuantity=..., valueString="  "))["results"]
    assert (result["value"], result["absent_reason"]) == ("no value", "no value")


def test_a_code_that_is_none_of_loinc_is_not_one() -> None:
    coded = {"coding": [{"system": "http://loinc.org", "code": "GLU"}], "text": "Glucose"}
    (result,) = fhir_record(observation(code=coded))["results"]
    assert (result["code"], result["other_code"], result["code_system"]) == (None, "GLU", "http://loinc.org")


PARTS: dict[str, tuple[dict[str, Any], str]] = {
    "a value": ({**NONE, "valueString": "x" * 20_000}, "Observation.value[x]"),
    "a name": ({"code": {"text": "x" * 600}}, "Observation.code"),
    "a name of a component": (
        {"component": [{"code": {"text": "x" * 600}, "valueInteger": 1}]},
        "Observation.component[0].code",
    ),
    "a unit": ({"valueQuantity": quantity(1, "x" * 600)}, "Observation.value[x].unit"),
}


@pytest.mark.parametrize(("changes", "element"), PARTS.values(), ids=PARTS)
def test_an_error_of_a_result_names_its_element(changes: dict[str, Any], element: str) -> None:
    (reading,) = fhir_read(observation(**changes))
    _, faults = validate_record(reading.record)
    assert element in {reading.locate(name) for name, _ in faults}


def test_a_moment_that_the_clocks_skipped_or_repeated_is_told() -> None:
    zone = ZoneInfo("Europe/Berlin")
    for text, told in (("2026-10-25T02:30:00", "exists twice"), ("2026-03-29T02:30:00", "does not exist"),
                       ("2026-10-25T02:30:00+01:00", ""), ("2026-10-25", "")):  # fmt: skip
        (reading,) = fhir_read(observation(effectiveDateTime=text), zone=zone)
        assert [(place, told in said) for place, said in reading.warnings] == (
            [("Observation.effectiveDateTime", True)] if told else []
        )


def test_an_error_of_a_patient_names_its_element() -> None:
    patient = {"resourceType": "Patient", "id": "p1", "birthDate": "2199-01-01"}
    (reading,) = fhir_read(bundle(patient, observation()))
    _, faults = validate_record(reading.record)
    assert [reading.locate(name) for name, _ in faults] == ["Patient.birthDate"]


SPECIMEN = {"resourceType": "Specimen", "id": "s", "type": {"text": "Urine"}}
ORDER = {"resourceType": "ServiceRequest", "id": "q", "status": "active", "intent": "order"}
OTHERS = {"a specimen": (SPECIMEN, {"specimen": {"reference": "Specimen/s"}}), "an order": (ORDER, {"basedOn": [{"reference": "ServiceRequest/q"}]})}  # fmt: skip


@pytest.mark.parametrize(("resource", "reference"), OTHERS.values(), ids=OTHERS)
def test_what_is_of_another_patient_gives_no_result_of_this_one(resource: Any, reference: Any) -> None:
    for subject, refused in (("Patient/p2", True), ("Patient/p1", False), ("Location/l", False), (None, False)):
        said = {"subject": {"reference": subject}} if subject else {}
        (reading,) = fhir_read(bundle({**resource, **said}, observation(**reference)))
        place = f"{resource['resourceType']}.subject"
        assert reading.faults == ([(place, "is another one than the record's")] if refused else []), subject


def test_of_several_specimens_none_is_that_of_every_result() -> None:
    def specimen(*types: str) -> Any:
        resources = [{**SPECIMEN, "id": name, "type": {"text": name}} for name in types]
        several = [{"reference": f"Specimen/{name}"} for name in types]
        (reading,) = fhir_read(bundle(report("Observation/a", specimen=several), observation("a"), *resources))
        return reading.record["details"]["specimen"]

    assert specimen("Urine", "Serum") == "Urine, Serum"
    assert specimen("Serum", "Plasma") == "Serum"


CODES: dict[str, tuple[dict[str, Any], str | None, str]] = {
    "blanks around it": ({"coding": [{"system": "http://loinc.org", "code": " 2093-3 "}]}, "2093-3", "Total cholesterol"),
    "a local system": ({"coding": [{"system": "urn:x", "code": "2093-3"}]}, None, "2093-3"),
    "a device's term in words": ({"text": "MDC_PRESS_BLD_NONINV_SYS"}, "8480-6", "Systolic blood pressure"),
}  # fmt: skip


@pytest.mark.parametrize(("code", "loinc", "name"), CODES.values(), ids=CODES)
def test_a_code_without_words_has_the_name_of_its_test(code: Any, loinc: str | None, name: str) -> None:
    (result,) = fhir_record(observation(code=code))["results"]
    assert (result["code"], result["name"].strip()) == (loinc, name)


def test_what_a_server_says_went_wrong_is_told() -> None:
    issues = [{"severity": "warning", "code": "incomplete", "diagnostics": "2 results were not returned"},
              {"severity": "information", "code": "informational", "diagnostics": "fine"}]  # fmt: skip
    outcome = {"resourceType": "OperationOutcome", "issue": issues}
    dump = read_dump(io.BytesIO(json.dumps(bundle(observation(), outcome, kind="searchset")).encode()))
    assert len(list(dump.records)) == 1
    assert (dump.notices, dump.skipped) == (
        ["line 1: the server says: 2 results were not returned"],
        {"OperationOutcome": 1},
    )
