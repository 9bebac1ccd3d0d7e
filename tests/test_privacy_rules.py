"""Every table and collection has its rule, and the rules are what the code does."""

import json
import stat
import zipfile
from typing import Any, NamedTuple

import pytest
from support.factories import PASSWORD, record, take
from support.paths import ROOT

from myhealth.common.database import database
from myhealth.common.settings import RetentionSettings
from myhealth.intake.corrections import change_checkup
from myhealth.privacy import export
from myhealth.privacy.rules import kept_days
from myhealth.profiles import services
from myhealth.reports.access_log import Access
from myhealth.sync.checkpoint import TABLES as FEED_TABLES

NOT_PERSONAL = "not personal"


class Rule(NamedTuple):
    """One row of the tables in cli/README.md, "What is held of a person"."""

    erase: str
    export: str
    kept: str
    grants: str
    access_log: str
    verify: str


def rules_of(store: str) -> dict[str, Rule]:
    rows = (ROOT / "cli/README.md").read_text().split(f"\n| {store} |")[1].split("\n\n")[0].strip().splitlines()[2:]
    cells = [[cell.strip() for cell in row.strip("| ").split(" | ")] for row in rows]
    return {name.strip("`"): Rule(*values) for name, *values in cells}


TABLES, COLLECTIONS = rules_of("PostgreSQL"), rules_of("MongoDB")


def test_every_table_and_collection_has_a_rule_for_everything(db, stored, reports) -> None:
    reports.failures.insert_one({"_id": "checkup:1"})
    reports.access_log.log(Access({"_id": 1, "subject": "s", "username": "x", "role": "admin"}, None, "people"))
    assert {*TABLES} == {*database.get_tables()}
    assert {*COLLECTIONS} == {*reports.state.database.list_collection_names()}
    for name, rule in [*TABLES.items(), *COLLECTIONS.items()]:
        assert all(rule), f"{name} lacks a rule"


def test_the_rules_are_what_the_code_does() -> None:
    personal = {name for name, rule in TABLES.items() if rule.export != NOT_PERSONAL}
    assert {*export.QUERIES} == {TABLES[name].export for name in personal} == personal
    assert {name for name, rule in TABLES.items() if rule.verify != "not compared"} == {*FEED_TABLES}
    for name, days in kept_days(RetentionSettings(rejections_days=1, audit_days=1)).items():
        assert "retention." in TABLES[name].kept or TABLES[name].kept == f"{days} days"


def test_a_table_with_a_reference_to_a_person_is_personal(db) -> None:
    """Also one that is made by a later migration."""
    referring = db(
        "select distinct conrelid::regclass::text from pg_constraint"
        " where contype = 'f' and confrelid = 'users'::regclass"
    )
    assert {name for (name,) in referring} <= {name for name, rule in TABLES.items() if rule.erase != NOT_PERSONAL}


def read(path: Any) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        return {name: json.loads(archive.read(name)) for name in archive.namelist()}


def test_an_export_has_everything_and_nothing_of_others(
    stored, people, db, upload, sync, reports, run_cli, tmp_path, log_in
) -> None:
    take(record(1, disease=5), record(2, "savita", disease=5))
    change_checkup(people["bholanath"], 1, {"disease": "corrected"})
    upload("POST", "/login/", {"username": "Bholanath", "password": PASSWORD})
    upload("GET", "/users/bholanath/checkups/", token=log_in("dr.ayush"))
    upload("GET", "/users/savita/checkups/", token=log_in("bholanath"))
    sync()
    patient, doctor = (reports.people.find_by_username(name) for name in ("bholanath", "dr.ayush"))
    reports.access_log.log(Access(doctor, patient, "reports"))
    done = run_cli("users", "export", "BHOLANATH", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    path = tmp_path / "bholanath.zip"
    assert done.stdout.startswith("Wrote bholanath.zip. It has these rows: users 1, ")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = read(path)
    assert found["users.json"][0]["username"] == "bholanath"
    assert [each["disease"] for each in found["checkups.json"]] == ["corrected", "BP", "BP"]
    assert {each["machine"] for each in found["checkups.json"]} == {"HC-1"}
    assert len(found["superseded.json"]) == len(found["rejections.json"]) == 1
    assert [each["user_id"] for each in found["login_attempts.json"]] == [people["bholanath"]]
    assert {"read", "login", "checkup.change", "user.create"} <= {each["action"] for each in found["audit_events.json"]}
    assert [(each["actor"], each["what"]) for each in found["access_log.json"]][:1] == [("dr.ayush", "reports")]
    resources = [entry["resource"] for entry in found["fhir/0001.json"]["entry"]]
    assert sum(each["resourceType"] == "DiagnosticReport" for each in resources) == 3
    assert "savita" not in str(found)
    assert "$2b$" not in str(found)
    again = run_cli("users", "export", "bholanath", "--output", str(path))
    assert (again.returncode, "--output" in again.stderr) == (2, True)
    assert db("select count(*) from audit_events where details->>'what' = 'export'") == [(1,)]


def test_an_export_has_numbers_beyond_32_bits(people, sync, run_cli, tmp_path) -> None:
    take(record(1, results=[{"name": "Red cells", "value": 4_500_000_000, "unit": "/L"}]))
    sync()
    done = run_cli("users", "export", "bholanath", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    resources = [entry["resource"] for entry in read(tmp_path / "bholanath.zip")["fhir/0001.json"]["entry"]]
    assert [each["valueQuantity"]["value"] for each in resources if "valueQuantity" in each] == [4_500_000_000]


@pytest.mark.parametrize("which", [0, 1], ids=["first", "second"])
def test_an_export_has_nothing_of_another_who_had_the_name(
    people, upload, log_in, reports, sync, tmp_path, which
) -> None:
    services.create_user("asha")
    upload.token = log_in("tara")
    for text, name in (("FIRST", "asha.first"), ("SECOND", "asha.second")):
        upload("POST", "/checkups/", record(None, "asha", disease=5, checkup_report=text))
        upload("POST", "/checkups/", record(f"of {text}", "asha"))
        sync()
        patient, doctor = (reports.people.find_by_username(each) for each in ("asha", "dr.ayush"))
        reports.access_log.log(Access(doctor, patient, text), Access(patient, doctor, f"by {text}"))
        services.rename_user("asha", name)
        if text == "FIRST":
            services.create_user("asha")
    sync()
    user = services.get_user(("asha.first", "asha.second")[which])
    export.export_user(user, reports, tmp_path / "a.zip")
    found = read(tmp_path / "a.zip")
    mine, other = ("FIRST", "SECOND")[which], ("FIRST", "SECOND")[1 - which]
    assert mine in str(found["rejections.json"])
    assert [each["what"] for each in found["access_log.json"]][:2] == [mine, f"by {mine}"]
    assert [each["action"] for each in found["audit_events.json"]].count("upload") == 1
    assert other not in str(found)
    assert {each["subject_id"] for each in found["audit_events.json"]} <= {user.id, None}


def test_an_unlinked_accounts_export_has_nothing_that_is_only_named_so(
    people, upload, log_in, reports, tmp_path
) -> None:
    services.create_user("asha", self_registered=True)
    upload("POST", "/checkups/", record(None, "asha", disease=5), token=log_in("tara"))
    export.export_user(services.get_user("asha"), reports, tmp_path / "a.zip")
    found = read(tmp_path / "a.zip")
    assert (found["rejections.json"], [each["action"] for each in found["audit_events.json"]]) == (
        [],
        ["register", "read"],
    )
