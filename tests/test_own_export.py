"""What goes out as FHIR is known again when it is imported here, and belongs to nobody by chance elsewhere."""

import io
import json
from typing import Any

import pytest
from support.factories import record, take
from support.paths import DATA

from myhealth.intake.corrections import change_checkup, delete_checkup
from myhealth.intake.file_import import FileImport, ImportOptions
from myhealth.profiles.services import create_user
from myhealth.reports.documents import encode_json
from myhealth.reports.export.fhir import fhir_bundle

FILES = [path for folder in ("faults", "bundles") for path in sorted((DATA / folder).iterdir())]
FILES = [path for path in FILES if path.name.endswith((".fhir.json", ".hl7")) or path.parent.name == "bundles"]


def import_bytes(data: bytes, name: str = "bundle", **options: Any) -> dict[str, int]:
    started = FileImport(io.BytesIO(data), name, ImportOptions(**options))
    for _ in started:
        pass
    return dict(started.counts)


@pytest.fixture
def exported(people: dict[str, int], db: Any, sync: Any, reports: Any) -> dict[str, bytes]:
    """Import the samples and return the export of each person who got reports, by username."""
    for path in FILES:
        if path.suffix in (".json", ".hl7"):
            import_bytes(path.read_bytes(), path.name, create_patients=True)
    take(record(None, patient="savita", taken_at=...))  # taken now, to the microsecond
    sync()
    found = {}
    for patient in reports.users.find():
        own = list(reports.reports.find({"patient_id": patient["_id"]}))
        if own:
            found[patient["username"]] = encode_json(fhir_bundle(own, patient))
    return found


def test_our_own_export_is_all_duplicates_where_its_records_are(exported, db):
    (before,) = db("select count(*) from checkups")
    assert len(exported) > 3
    for username, bundle in exported.items():
        counts = import_bytes(bundle)
        refused = db("select errors from rejections where source = 'bundle'")
        assert counts["accepted"] == counts["rejected"] == 0, (username, counts, refused)
        assert counts["duplicate"] > 0
    assert db("select count(*) from checkups") == [before]


def test_an_export_of_elsewhere_belongs_to_no_namesake_here(exported, db):
    username, bundle = next(iter(exported.items()))
    db("truncate users cascade")
    create_user(username, rounds=4)
    counts = import_bytes(bundle)
    assert counts["accepted"] == 0
    assert counts["rejected"] > 0


def test_an_export_with_the_number_of_another_check_up_is_stored(exported, db, people):
    bundle = json.loads(exported["asha"])
    report = next(
        each["resource"] for each in bundle["entry"] if each["resource"]["resourceType"] == "DiagnosticReport"
    )
    (own,) = [each for each in report["identifier"] if each.get("system", "").endswith(":report")]
    (other,) = db(
        f"select max(id) from checkups where patient_id = (select patient_id from checkups where id = {own['value']})"
        f" and id <> {own['value']} and taken_at <> (select taken_at from checkups where id = {own['value']})"
    )[0]
    kept = {"Patient", *(result["reference"] for result in report.get("result", []))}
    bundle["entry"] = [
        each for each in bundle["entry"]
        if each["resource"] is report or each["resource"]["resourceType"] == "Patient" or each["fullUrl"] in kept
    ]  # fmt: skip
    own["value"] = str(other)
    counts = import_bytes(json.dumps(bundle).encode())
    assert counts["accepted"] == 1, (counts, report, db("select errors from rejections where source = 'bundle'"))


def test_an_export_from_before_a_correction_is_known_too(exported, db):
    (id_, patient), *_ = db(
        "select id, patient_id from checkups where record_id like 'Observation/%' and status is null"
    )
    change_checkup(patient, id_, {"taken_at": "2026-10-01T09:00:00Z"})
    for username, bundle in exported.items():
        counts = import_bytes(bundle)
        assert counts["accepted"] == counts["rejected"] == 0, (username, counts)


def test_an_export_from_before_a_deletion_brings_nothing_back(exported, db):
    deleted = db("select id, patient_id from checkups where record_id like 'Observation/%' and status is null")
    for id_, patient in deleted:
        delete_checkup(patient, id_)
    (before,) = db("select count(*) from checkups")
    for username, bundle in exported.items():
        counts = import_bytes(bundle)
        assert counts["accepted"] == counts["rejected"] == 0, (username, counts)
    assert db("select count(*) from checkups") == [before]
    assert len(deleted) > 3


def test_a_local_code_of_a_dump_comes_back_as_a_duplicate(people, sync, reports):
    take(record("7", patient="savita", results=[{"code": "GLU", "name": "Glucose", "value": 5, "unit": "mmol/L"}]))
    sync()
    (patient,) = reports.users.find({"username": "savita"})
    bundle = encode_json(fhir_bundle(list(reports.reports.find({"patient_id": patient["_id"]})), patient))
    assert import_bytes(bundle)["duplicate"] == 1
