"""A deleted FHIR resource: which check-up or result it was, and when it was deleted."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from support.factories import record, take
from support.fhir import observation, quantity
from support.stored_results import effects, values, versions

from myhealth.intake.file_import import FileImport, ImportOptions
from myhealth.intake.results import RecordResult


def test_a_deletion_that_only_names_a_record_withdraws_it_of_whatever_machine(db, people) -> None:
    take(record("A-05"), format="fhir", machine="HC-2")
    deletion = {"record_id": "A-05", "status": "entered-in-error"}
    assert effects(take(deletion, {**deletion, "record_id": "B"}, format="fhir", machine=None)) == [
        ("accepted", "withdrawn"),
        ("duplicate", "none"),
    ]
    assert values(db) == []
    (again,) = take(deletion, format="fhir", machine=None)
    assert (again.status, again.id) == ("duplicate", 1)
    (never,) = take({**deletion, "record_id": "B"}, format="fhir", machine=None)
    assert (never.warnings[-1]["code"], never.status) == ("not_stored", "duplicate")


OWN = {"identifier": [{"system": "http://lab.example", "value": "77"}]}
DELETIONS = {
    "by its id, stored by an identifier": (OWN, "", "Observation/o6"),
    "by its id, stored by an address": ({}, "http://a.example/Observation/o6", "Observation/o6"),
    "by its address, stored by an identifier": (OWN, "", "http://a.example/Observation/o6"),
    "by an identifier": (OWN, "", "Observation?identifier=http%3A%2F%2Flab.example%7C77"),
    "by a version": ({}, "", "Observation/o6/_history/3"),
}


def take_fhir(*resources: Any, **options: Any) -> list[RecordResult]:
    """Import resources, or whole entries of a Bundle."""
    entries = [each if "request" in each or "resource" in each else {"resource": each} for each in resources]
    text = json.dumps({"resourceType": "Bundle", "type": "transaction", "entry": entries})
    started = FileImport(io.BytesIO(text.encode()), "bundle", ImportOptions(create_patients=True, **options))
    return [result for batch in started for _, result in batch]


def deleted(url: str) -> dict[str, Any]:
    return {"request": {"method": "DELETE", "url": url}}


@pytest.mark.parametrize(("changes", "url", "deletion"), DELETIONS.values(), ids=DELETIONS)
def test_a_deleted_resource_is_found_by_whatever_number(db, people, changes, url, deletion) -> None:
    take_fhir({"fullUrl": url, "resource": observation("o6", **changes)} if url else observation("o6", **changes))
    take_fhir(observation("o7"))
    assert effects(take_fhir(deleted(deletion))) == [("accepted", "withdrawn")]
    assert len(values(db)) == 1
    assert effects(take_fhir(deleted(deletion)))[0][1] == "none"


def test_a_deletion_of_one_of_several_withdraws_none(db, people) -> None:
    for system in ("http://a.example", "http://b.example"):
        take_fhir(
            observation(
                "o6", identifier=[{"system": system, "value": "77"}], subject={"reference": f"Patient/{system[7]}"}
            )
        )
    (outcome,) = take_fhir(deleted("Observation/o6"))
    assert "may be 2 check-ups here, so nothing was withdrawn" in outcome.warnings[0]["message"]
    (other,) = take_fhir(deleted("DiagnosticReport/o6"))
    assert "is not stored here" in other.warnings[0]["message"]
    assert len(values(db)) == 2


def test_a_deleted_member_of_a_report_is_withdrawn_alone(db, people, sync, reports) -> None:
    report = {
        "resourceType": "DiagnosticReport", "id": "r1", "status": "final", "code": {"text": "Panel"},
        "subject": {"reference": "Patient/p1"}, "effectiveDateTime": "2026-11-20T09:14:03+05:30",
        "result": [{"reference": "Observation/a"}, {"reference": "Observation/b"}],
    }  # fmt: skip
    take_fhir(
        report,
        observation("a", valueQuantity=quantity(1, "mmol/L")),
        observation("b", valueQuantity=quantity(2, "mmol/L")),
    )
    db("update checkups set created_at = '2020-01-01'")  # by an earlier reader
    assert effects(take_fhir(deleted("Observation/a"))) == [("accepted", "withdrawn")]
    assert values(db) == [2]
    assert versions(db) == [("withdrawn", [1, 2])]
    sync()
    assert [each["value"] for each in reports.reports.find_one()["results"]] == [2]
    assert effects(take_fhir(deleted("DiagnosticReport/r1"))) == [("accepted", "withdrawn")]
    assert values(db) == []


def test_a_dry_run_says_what_the_import_would_do(db, people) -> None:
    steps = [
        (observation("o6"), "created"),
        (observation("o6", status="amended", valueQuantity=quantity(7, "mmol/L")), "replaced"),
        (observation("o6"), "none"),
        (deleted("Observation/o6"), "withdrawn"),
        (deleted("Observation/o6"), "none"),
    ]
    lines = "\n".join(
        json.dumps(
            {"resourceType": "Bundle", "type": "batch", "entry": [each if "request" in each else {"resource": each}]}
        )
        for each, _ in steps
    )
    found = {}
    for dry_run in (True, False):
        started = FileImport(io.BytesIO(lines.encode()), "x", ImportOptions(create_patients=True, dry_run=dry_run))
        found[dry_run] = [result.effect for results in started for _, result in results]
        assert started.created == 1
        assert db("select count(*) from checkups") == [(0,) if dry_run else (1,)]
    assert found[True] == found[False] == [effect for _, effect in steps]


def test_a_deletion_before_its_versions_as_a_history_has_it_counts(db, people) -> None:
    newest = observation("o6", valueQuantity=quantity(7, "mmol/L"))
    assert effects(take_fhir(deleted("Observation/o6"), newest)) == [("accepted", "withdrawn"), ("accepted", "created")]
    assert values(db) == []


def history(*versions: Any) -> list[tuple[str, str]]:
    """Send a history: the version and value of each entry, None for a deletion."""
    entries = []
    for number, value in versions:
        entry: dict[str, Any] = {"fullUrl": "http://lab.example/Observation/o6"}
        if value is None:
            entry["request"] = {"method": "DELETE", "url": "Observation/o6"}
            entry["response"] = {"status": "204", "etag": f'W/"{number}"'}
        else:
            entry["resource"] = observation("o6", valueQuantity=quantity(value), meta={"versionId": str(number)})
        entries.append(entry)
    return effects(take_fhir(*entries))


HISTORIES = {
    "created again": ([(3, 8), (2, None), (1, 5)], [8]),
    "deleted last": ([(3, None), (2, 8), (1, 5)], []),
    "oldest first": ([(1, 5), (2, None), (3, 8)], [8]),
}


@pytest.mark.parametrize(("versions", "expected"), HISTORIES.values(), ids=HISTORIES)
def test_a_deletion_in_a_history_has_its_place_among_the_versions(db, people, versions, expected) -> None:
    history(*versions)
    assert values(db) == expected
    history(*versions)
    assert values(db) == expected
