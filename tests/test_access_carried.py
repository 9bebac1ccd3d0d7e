"""Who read a record at the upload API, or set a password, is in the person's one access log."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from support.factories import PASSWORD, record, take
from support.page_client import plain

from myhealth.audit.events import Actor, record_event
from myhealth.audit.merged import find_all_events
from myhealth.profiles.services import set_person
from myhealth.reports.access_log import AccessEvent

NEW_PASSWORD = "another-correct-horse"
HOUR = timedelta(hours=1)
READS = {"/users/bholanath/checkups/": ("checkups", None), "/checkups/": ("checkups", None),
         "/users/bholanath/": ("profile", None), "/users/bholanath/checkups/1/": ("checkups", 1)}  # fmt: skip


@pytest.fixture
def read(upload, log_in):
    """Read Bholanath's record at the upload API, as the doctor in each way, and as others who leave no trace."""
    take(record(1), record(2, "savita"))
    for path in READS:
        assert upload("GET", path, token=log_in("dr.ayush")).status_code == 200
        if path != "/checkups/":
            upload("GET", path, token=log_in("bholanath"))
            upload("GET", path, token=log_in("tara"))


def logged(reports, name: str = "bholanath") -> list[AccessEvent]:
    return reports.access_log.find_for_patient(reports.people.find_by_username(name))


def test_reads_at_the_upload_api_are_in_the_access_log(
    read, application, calling, browser, sync, reports, log_in
) -> None:
    for _ in range(3):
        sync()
    found = [(event.actor, event.actor_role, event.what, event.report_id) for event in logged(reports)]
    assert found == [("dr.ayush", "doctor", *what) for what in reversed(READS.values())]
    assert [event.what for event in logged(reports, "savita")] == ["checkups"]
    answer = calling(application)("GET", "/users/bholanath/access-log/", token=log_in("bholanath"))
    assert [(event["actor"], event["what"]) for event in answer.json] == [each[::2] for each in found]
    browser.log_in("bholanath")
    assert plain(browser.get("/my/access-log")).count("dr.ayush") == len(READS)
    pages = [event.id for event in logged(reports)]
    assert pages == sorted(pages, reverse=True)


def test_the_audit_shows_each_event_once(read, sync, reports) -> None:
    sync()
    assert sum(event.action == "read" and event.subject == "bholanath" for event in find_all_events(reports)) == len(
        READS
    )


def test_an_event_that_is_committed_late_is_carried_too(db, people, connect, sync, reports) -> None:
    with connect() as late, late.cursor() as cursor:
        cursor.execute(
            "insert into audit_events (actor, action, subject_id, subject, outcome, details)"
            " values ('late', 'read', %s, 'bholanath', 'done', '{\"what\": \"profile\"}')", (people["bholanath"],)
        )  # fmt: skip
        record_event(
            "read", subject_id=people["bholanath"], subject="bholanath", actor=Actor(None, "x", None), what="profile"
        )
        sync()
        assert [event.actor for event in logged(reports)] == ["x"]
        late.commit()
    sync()
    assert [event.actor for event in logged(reports)] == ["x", "late"]


def test_old_events_are_read_once_and_a_new_epoch_reads_them_again(db, people, sync, reports) -> None:
    sync()
    old = datetime.now(UTC) - HOUR
    db("update users set created_at = %s", old - timedelta(days=1))
    insert = (
        "insert into audit_events (at, actor, action, subject_id, subject, outcome, details) select %s, n::text, 'read',"
        " %s, 'x', 'done', '{\"what\": \"profile\"}' from generate_series(1, 2500) n"
    )
    db(insert, old, people["bholanath"])
    sync()
    sync()
    collection = reports.access_log.collection
    assert collection.count_documents({"source": "upload"}) == 2500
    assert (
        reports.state.find_one({"_id": "events"})["after"]
        == db("select max(id) from audit_events where at < now() - interval '1 minute'")[0][0]
    )
    reports.drop()
    reports.make_indexes()
    sync()
    assert collection.count_documents({"source": "upload"}) == 2500


def test_an_event_of_a_former_user_of_the_same_id_is_not_shown(db, people, sync, reports) -> None:
    record_event("read", subject_id=people["savita"], subject="former", actor=Actor(None, "x", None), what="profile")
    db("update users set created_at = clock_timestamp() where username = 'savita'")
    sync()
    assert logged(reports, "savita") == []


def test_a_password_that_another_set_is_in_the_access_log(upload, log_in, sync, reports) -> None:
    assert upload("PUT", "/users/bholanath/", {"password": "another-horse"}, token=log_in("root")).status_code == 200
    changes = {"password": "another-horse", "current_password": PASSWORD}
    assert upload("PUT", "/users/savita/", changes, token=log_in("savita")).status_code == 200
    sync()
    assert [(event.actor, event.action, event.what) for event in logged(reports)] == [
        ("root", "user.change", "password")
    ]
    assert logged(reports, "savita") == []


def test_changes_and_an_invitation_are_in_the_access_log_because_they_show_or_open_the_record(
    upload, log_in, sync, reports
) -> None:
    take(record(1))
    doctor, admin = log_in("dr.ayush"), log_in("root")
    corrected = upload("PUT", "/users/bholanath/checkups/1/", {"taken_by": None}, token=doctor)
    assert corrected.json["results"], "all of it is shown"
    named = upload("PUT", "/users/bholanath/", {"full_name": "B. Joshi"}, token=admin)
    assert named.json["identifiers"] == []
    code = upload("POST", "/invitations/", {"username": "bholanath"}, token=admin).json["code"]
    welcome = {"username": "bholanath", "code": code, "password": NEW_PASSWORD}
    assert upload("POST", "/welcome/", welcome).status_code == 200
    sync()
    assert [(event.actor, event.what, event.report_id) for event in reversed(logged(reports))] == [
        ("dr.ayush", "correction", 1), ("root", "profile", None), ("root", "invitation", None),
    ]  # fmt: skip


def test_a_list_that_tells_birth_dates_is_in_the_access_logs(upload, log_in, sync, reports, browser) -> None:
    set_person("bholanath", birth_date="1961-04-02")
    doctor = log_in("dr.ayush")
    assert "1961-04-02" in upload("GET", "/users/", token=doctor).text
    assert "1961-04-02" not in upload("GET", "/users/?limit=1&after=bholanath", token=doctor).text
    for page in ("/type-in", "/refused"):
        id_ = take(record(None, disease=5))[0].rejection_id
        form = {"token": doctor, "action": "find", "search": "bho", "id": str(id_) * (page == "/refused")}
        assert "1961-04-02" in upload.client.post(page, data=form).text
        assert "1961-04-02" not in upload.client.post(page, data={**form, "token": log_in("tara")}).text
    sync()
    assert [event.what for event in logged(reports) if event.actor == "dr.ayush"].count("profile") == 3
    assert "profile" not in [event.what for event in logged(reports, "savita")]
    browser.log_in("dr.ayush")
    assert "1961-04-02" not in browser.get("/my/patients").text, "this list is in no access log"
    assert "1961-04-02" in browser.get("/my/patients?q=bho").text
    assert logged(reports)[0].what == "search"


def test_a_password_that_another_set_is_said_once_at_the_next_login(
    upload, application, calling, browser, log_in, sync
) -> None:
    sync()

    def set_password(caller: str, name: str, **changes: str) -> None:
        changed = upload("PUT", f"/users/{name}/", {"password": NEW_PASSWORD, **changes}, token=log_in(caller))
        assert changed.status_code == 200

    def answer(caller: Any, name: str) -> dict[str, Any]:
        found: dict[str, Any] = caller("POST", "/login/", {"username": name, "password": NEW_PASSWORD}).json
        return found

    set_password("savita", "savita", current_password=PASSWORD)
    assert "password_reset_at" not in answer(upload, "savita")
    for caller in (upload, calling(application)):
        set_password("root", "bholanath")
        assert datetime.now(UTC) - datetime.fromisoformat(answer(caller, "bholanath")["password_reset_at"]) < HOUR
        assert "password_reset_at" not in answer(caller, "bholanath")
    set_password("root", "bholanath")
    browser.log_in("bholanath", NEW_PASSWORD)
    said = "somebody else has set your password"
    assert said in plain(browser.get("/my/"))
    assert said not in plain(browser.get("/my/"))
    browser.submit(browser.get("/my/"), "/my/logout")
    browser.log_in("bholanath", NEW_PASSWORD)
    assert said not in plain(browser.get("/my/"))
    browser.submit(browser.get("/my/"), "/my/logout")
    set_password("root", "dr.ayush")
    browser.log_in("dr.ayush", NEW_PASSWORD)  # whose first page does not show it
    browser.submit(browser.get("/my/patients"), "/my/logout")
    browser.log_in("bholanath", NEW_PASSWORD)
    assert said not in plain(browser.get("/my/"))


def test_a_password_that_an_operator_set_is_said_at_the_next_login(upload, run_cli) -> None:
    assert run_cli("users", "set-password", "savita", "--password-stdin", stdin=NEW_PASSWORD).returncode == 0
    found = upload("POST", "/login/", {"username": "savita", "password": NEW_PASSWORD}).json
    assert set(found) == {"token", "expires_at", "password_reset_at"}
