"""Whose a result is where its source leaves doubt: two patients of one address, a replaced one, another server, no date."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from support.fhir import observation

from myhealth.intake.file_import import FileImport, ImportOptions
from myhealth.intake.results import RecordResult
from myhealth.intake.retry import retry_rejection
from myhealth.profiles.identifiers import add_identifier
from myhealth.profiles.services import create_user, set_person


def asha_resource(number: str = "M100", **changes: Any) -> dict[str, Any]:
    identifier = [{"system": "http://h.example/mrn", "value": number}] if number else []
    made = {"resourceType": "Patient", "id": "p1", "identifier": identifier, "name": [{"text": "Asha Roy"}], **changes}
    return {key: value for key, value in made.items() if value}


def sent_with(*patients: dict[str, Any], create: bool = True, at: str = "", **changes: Any) -> RecordResult:
    """Send these Patient resources and, with an address on the server `at`, a result about Patient/p1."""
    entries: list[Any] = [{"resource": each} for each in patients]
    entries.append({"resource": observation("a", **{"subject": {"reference": "Patient/p1"}, **changes})})
    if at:
        entries[-1]["fullUrl"] = f"{at}/Observation/a"
    text = json.dumps({"resourceType": "Bundle", "type": "collection", "entry": entries})
    started = FileImport(io.BytesIO(text.encode()), "a.json", ImportOptions(create_patients=create))
    return [result for batch in started for _, result in batch][-1]


DOUBLES: dict[str, tuple[dict[str, Any], dict[str, Any], bool]] = {
    "numbers": ({}, {"number": "M200"}, False),
    "the same number, another birth date": ({"birthDate": "1990"}, {"birthDate": "2012-01-01"}, False),
    "names": ({"number": ""}, {"number": "", "name": [{"text": "Bo Das"}]}, False),
    "sexes": ({"number": "", "gender": "male"}, {"number": "", "gender": "female"}, False),
    "a new name": ({}, {"name": [{"text": "Asha Das"}]}, True),
    "a birth date of another precision": ({"birthDate": "1990"}, {"birthDate": "1990-05-01"}, True),
}


@pytest.mark.parametrize(("one", "other", "same"), DOUBLES.values(), ids=DOUBLES)
def test_two_patients_with_one_address_in_a_bundle_are_told_apart_by_a_person(db, people, one, other, same) -> None:
    result = sent_with(asha_resource(**one), asha_resource(**other))
    if same:
        assert result.status == "accepted"
        return
    assert (result.status, result.errors[0]["code"]) == ("rejected", "identity_conflict")
    assert result.errors[0]["message"].startswith("Patient/p1 is the address of two different patients here")
    assert retry_rejection(result.rejection_id).status == "rejected"
    assert retry_rejection(result.rejection_id, patient="savita").status == "accepted"


@pytest.mark.parametrize(
    ("kind", "status"), [("replaced-by", "rejected"), ("replace", "rejected"), ("replaces", "accepted")]
)
def test_a_patient_whom_the_source_replaced_is_told(db, people, kind: str, status: str) -> None:
    link = [{"other": {"reference": "Patient/p2"}, "type": kind}]
    result = sent_with(asha_resource(link=link))
    assert result.status == status
    if status == "rejected":
        assert result.errors[0]["message"].startswith("the source replaced Patient/p1 by Patient/p2 (Patient.link)")
        assert retry_rejection(result.rejection_id, patient="savita").status == "accepted"


def test_what_a_reference_means_without_a_server_is_not_taken_for_sure_with_one(db, people) -> None:
    create_user("asha")
    add_identifier("asha", "http://h.example/mrn", "M100")
    create_user("p1")
    started = FileImport(io.BytesIO(json.dumps(asha_resource()).encode()), "Patient.ndjson", ImportOptions())
    assert list(started) == []
    for create in (False, True):
        result = sent_with(at="https://a.example", create=create)
        assert (result.status, result.errors[0]["code"]) == ("rejected", "identity_conflict")
    assert retry_rejection(result.rejection_id, patient="asha").status == "accepted"
    assert sent_with(at="https://a.example").status == "duplicate"
    assert db("select username from checkups join users on users.id = patient_id") == [("asha",)]


def test_a_birth_date_is_read_as_iso_8601_writes_it_and_told_where_it_is_none(people) -> None:
    create_user("asha")
    add_identifier("asha", "HOSP_A", "4711")
    set_person("asha", birth_date="1980-02-29")
    message = (
        "MSH|^~\\&|LAB||||||ORU^R01|1|P|2.5\rPID|1||4711^^^HOSP_A||Roy^Asha||{}\rOBR|1||7|T^T\rOBX|1|NM|T^T||5||||||F\r"
    )
    outcomes = []
    for born in ("1981-02-28", "30.02.1980"):
        started = FileImport(io.BytesIO(message.format(born).encode()), "a.hl7", ImportOptions())
        outcomes += [result for batch in started for _, result in batch]
    refused, told = outcomes
    assert (refused.status, refused.errors[0]["code"]) == ("rejected", "identity_conflict")
    assert (told.status, told.warnings[0]["field"]) == ("accepted", "PID-7")
    of_fhir = sent_with(asha_resource(birthDate="30.02.1980"))
    assert (of_fhir.status, of_fhir.warnings[0]["field"]) == ("accepted", "Patient.birthDate")


def test_a_reference_that_leads_nowhere_is_told_in_words(people) -> None:
    result = sent_with(subject={"reference": "urn:uuid:0c3151bd-1cbf-4d64-b04d-cd9187a4c6e0"})
    message = result.errors[0]["message"]
    assert message.startswith(
        "there is no user named urn:uuid:0c3151bd-1cbf-4d64-b04d-cd9187a4c6e0, and none can be created"
    )
