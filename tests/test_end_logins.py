"""Disabling, demoting, deleting and a new password end the logins at the browse API at once, without the sync."""

import dataclasses

import pytest
from support.factories import PASSWORD
from support.servers import running_apis

from myhealth.end_logins import end_logins
from myhealth.privacy.erasure import erase_user
from myhealth.profiles import services
from myhealth.profiles.services import get_user
from myhealth.reports.writer import ReportWriter
from myhealth.sync.runner import run_pass

NEW_PASSWORD = "another-correct-horse"
OTHERS = "/users/bholanath/reports/"
WAYS = {
    "disable": ({"active": False}, ["users", "disable", "dr.ayush"]),
    "demote": ({"role": "patient"}, ["users", "set-role", "dr.ayush", "patient"]),
    "password": ({"password": NEW_PASSWORD}, ["users", "set-password", "dr.ayush", "--password-stdin"]),
    "delete": (None, ["users", "delete", "dr.ayush", "--yes"]),
}


@pytest.mark.parametrize("where", ["API", "command line"])
@pytest.mark.parametrize("way", WAYS)
def test_it_ends_logins_at_the_browse_api_at_once(
    stored, application, upload, calling, log_in, run_cli, way, where
) -> None:
    browse, token, (changes, words) = calling(application), log_in("dr.ayush"), WAYS[way]
    assert browse("GET", OTHERS, token=token).status_code == 200
    if where == "command line":
        assert run_cli(*words, stdin=NEW_PASSWORD).returncode == 0
    elif changes is None:
        assert upload("DELETE", "/users/dr.ayush/", token=log_in("root")).status_code == 204
    else:
        assert upload("PUT", "/users/dr.ayush/", changes, token=log_in("root")).status_code == 200
    assert browse("GET", OTHERS, token=token).status_code == 401
    again = browse("POST", "/login/", {"username": "dr.ayush", "password": PASSWORD})
    assert again.status_code == (200 if way == "demote" else 401)
    if way == "demote":  # logged in anew, the former doctor is a patient
        assert browse("GET", OTHERS, token=again.json["token"]).status_code == 404


def test_a_deletion_through_the_browse_api_ends_the_logins(browse, log_in) -> None:
    token = log_in("savita")
    assert browse("GET", "/reports/", token=token).status_code == 200
    assert browse("DELETE", "/users/savita/", token=log_in("root")).status_code == 204
    assert browse("GET", "/reports/", token=token).status_code == 401


def test_the_next_pass_agrees(stored, application, calling, log_in, sync, reports, settings, run_cli) -> None:
    for words in (WAYS["disable"][1], ["users", "set-role", "tara", "patient"], ["users", "delete", "savita", "--yes"]):
        assert run_cli(*words).returncode == 0
        assert run_cli("verify").returncode == 0, "not carried over yet, which is no difference"
    sync()
    assert run_cli("verify").returncode == 0
    assert reports.people.find_by_username("savita") is None
    assert run_cli("users", "enable", "dr.ayush").returncode == 0
    sync()
    assert calling(application)("GET", OTHERS, token=log_in("dr.ayush")).status_code == 200


def test_a_report_store_that_is_away_is_no_error(people, settings, run_cli) -> None:
    away = {"MYHEALTH_MONGO_URL": "mongodb://127.0.0.1:9/myhealth_test", "MYHEALTH_DATABASE_URL": settings.database_url}
    done = run_cli("users", "disable", "dr.ayush", env={**away, "MYHEALTH_DATA_DIR": settings.data_dir})
    assert done.returncode == 0
    assert "ends the logins with the next sync" in done.stdout
    assert not get_user("dr.ayush").active


@pytest.mark.process
def test_it_goes_over_http_where_the_sync_does(stored, settings, reports) -> None:
    with running_apis(settings) as (upload_url, browse_url):
        sync = dataclasses.replace(settings.sync, reports_api_url=browse_url, username="runner", password=PASSWORD)
        apart = dataclasses.replace(settings, mongo_url="", data_dir="/nowhere", auth_url=upload_url, sync=sync)
        services.set_active("dr.ayush", False)
        assert end_logins(apart, get_user("dr.ayush"))
        assert not reports.people.find_by_username("dr.ayush")["active"]
        savita = get_user("savita")
        erase_user("savita")
        assert end_logins(apart, savita)
        assert reports.people.find_by_username("savita") is None
        patient = get_user("bholanath")
        assert reports.reports.count_documents({"patient_id": patient.id})
        erase_user("bholanath")
        assert end_logins(apart, patient)
        assert not reports.reports.count_documents({"patient_id": patient.id}), "at once over HTTP too"
    run_pass(settings.database_url, ReportWriter(reports), settings)
    assert reports.people.find_by_username("savita") is None


@pytest.mark.parametrize("synced", [False, True])
def test_a_call_that_comes_late_undoes_nothing(
    stored, settings, reports, sync, calling, application, log_in, synced
) -> None:
    """Two requests at once: the earlier one's call to the report store comes after the later one's."""
    early = get_user("dr.ayush")
    services.set_active("dr.ayush", False)
    disabled = get_user("dr.ayush")
    services.set_active("dr.ayush", True)
    services.set_role("dr.ayush", "patient")
    services.set_full_name("dr.ayush", "Ayush")
    latest = get_user("dr.ayush")
    assert end_logins(settings, latest)
    if synced:
        sync()
    for old in (disabled, early):
        assert end_logins(settings, old)
        found = reports.people.find_by_username("dr.ayush")
        assert (found["role"], found["active"], found["full_name"]) == ("patient", True, "Ayush")
    erase_user("dr.ayush")
    assert end_logins(settings, latest)
    sync()
    assert end_logins(settings, latest)
    assert reports.people.find_by_username("dr.ayush") is None


def test_no_answer_of_an_erased_person_is_given_from_a_cache(
    stored, application, upload, calling, log_in, sync
) -> None:
    browse, root = calling(application), log_in("root")
    path = "/users/bholanath/trends/?name=Systolic blood pressure"
    for name in ("bholanath", "dr.ayush"):
        answer = browse("GET", path, token=log_in(name))
        assert (answer.status_code, b"128" in answer.data) == (200, True), answer.json
    token = log_in("bholanath")
    assert upload("DELETE", "/users/bholanath/", token=root).status_code == 204
    assert browse("GET", path, token=token).status_code == 401
    assert browse("GET", path, token=log_in("dr.ayush")).status_code == 404
    services.create_user("bholanath", reuse_erased_name=True)
    sync()
    again = browse("GET", path, token=log_in("dr.ayush"))
    assert (again.status_code, b"128" in again.data) == (200, False)
