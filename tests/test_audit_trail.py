"""Whatever somebody does at the upload API or at the command line is noted once: this table is the specification.

Who, what, whose, from where, with which outcome, and the details; and nothing that was measured, and no password.
"""

import dataclasses
import json
import os
import pwd
import urllib.error
import urllib.request
from datetime import datetime
from typing import Any
from unittest.mock import ANY

import psycopg2
import psycopg2.extensions
import pytest
from support.clients import basic
from support.factories import PASSWORD, dump, record

from cli.context import operator_name
from myhealth import processes
from myhealth.audit.events import find_events
from myhealth.common.database import Pool
from wsgi.upload import make_app

ADDRESS = "192.0.2.7"
# What is sent and may stand nowhere: every text and number of a record, and every password.
MARK = "MARK"
NUMBER = 98765.4321
RESULT = {"code": "8480-6", "name": f"{MARK} name", "value": NUMBER, "unit": f"{MARK} unit", "low": 90, "high": 120}
NEW_PASSWORD = f"{MARK} another password"
USER, CHECKUPS, CHECKUP = "/users/savita/", "/users/savita/checkups/", "/users/savita/checkups/1/"


def secret(number: int, patient: str = "savita", **changes: Any) -> dict[str, Any]:
    texts = {"checkup_type": f"{MARK} type", "checkup_report": f"{MARK} report", "disease": f"{MARK} disease"}
    return record(number, patient, **{**texts, "taken_by": f"{MARK} doctor", "results": [RESULT], **changes})


def event(actor: str, action: str, subject: str | None = None, outcome: str = "done", **details: Any) -> Any:
    return actor, action, subject, outcome, details


def refused(actor: str, request: str, subject: str | None = None) -> Any:
    return event(actor, "refused", subject, "refused", request=request)


def uploaded(actor: str, subject: str | None, machine: str | None, *counts: int) -> Any:
    names = ("accepted", "duplicate", "rejected")
    return event(actor, "upload", subject, machine=machine, **dict(zip(names, counts, strict=True)))


DOCTOR, TECHNICIAN, ADMIN, PATIENT = "dr.ayush", "tara", "root", "bholanath"
ONE, OTHER = {"username": "new.one", "password": NEW_PASSWORD}, {"username": "savita", "password": f"{MARK} wrong"}
# (what, who, method, path, body, status, events); check-up 1 is Savita's, 2 is Bholanath's.
TABLE: list[tuple[str, str, str, str, Any, int, list[Any]]] = [
    ("a login", "", "POST", "/login/", {"username": "savita", "password": PASSWORD}, 200, [event("savita", "login")]),
    ("a wrong login", "", "POST", "/login/", OTHER, 401, [event(None, "login", "savita", "refused")]),
    ("a login of nobody", "", "POST", "/login/", {"username": "x"}, 401, [event(None, "login", "x", "refused")]),
    ("a logout", "savita", "POST", "/logout/", None, 204, [event("savita", "logout", "savita")]),
    ("a registration", "", "POST", "/registration/", ONE, 201, [event(None, "register", "new.one", role="patient")]),
    ("users listed", DOCTOR, "GET", "/users/", None, 200, [event(DOCTOR, "read", what="people")]),
    ("oneself listed", PATIENT, "GET", "/users/", None, 200, []),
    ("a user made", ADMIN, "POST", "/users/", {**ONE, "role": "doctor"}, 201, [event(ADMIN, "user.create", "new.one", role="doctor")]),
    ("a user not made", DOCTOR, "POST", "/users/", ONE, 403, [refused(DOCTOR, "POST /users/")]),
    ("a user seen", DOCTOR, "GET", USER, None, 200, [event(DOCTOR, "read", "savita", what="profile")]),
    ("oneself seen", "savita", "GET", USER, None, 200, []),
    ("a user not seen", PATIENT, "GET", USER, None, 404, [refused(PATIENT, f"GET {USER}", "savita")]),
    ("a name changed", "savita", "PUT", USER, {"full_name": f"{MARK} S"}, 200, [event("savita", "user.change", "savita", changed="full_name")]),
    ("a role changed", ADMIN, "PUT", USER, {"role": "doctor"}, 200, [event(ADMIN, "user.change", "savita", changed="role doctor")]),
    ("no role set", ADMIN, "PUT", USER, {"role": "king"}, 400, [refused(ADMIN, f"PUT {USER}", "savita")]),
    ("no user changed", ADMIN, "PUT", "/users/nobody/", {"role": "doctor"}, 404, [refused(ADMIN, "PUT /users/nobody/", "nobody")]),
    ("a name taken", ADMIN, "POST", "/users/", {"username": "savita"}, 409, [refused(ADMIN, "POST /users/")]),
    ("renamed to one that is taken", ADMIN, "PUT", USER, {"username": PATIENT}, 409, [refused(ADMIN, f"PUT {USER}", "savita")]),
    ("nobody linked", ADMIN, "POST", "/users/nobody/link/", None, 404, [refused(ADMIN, "POST /users/nobody/link/", "nobody")]),
    ("disabled", ADMIN, "PUT", USER, {"active": False}, 200, [event(ADMIN, "user.change", "savita", changed="disabled")]),
    ("enabled", ADMIN, "PUT", USER, {"active": True}, 200, [event(ADMIN, "user.change", "savita", changed="enabled")]),
    ("a password set", ADMIN, "PUT", USER, {"password": NEW_PASSWORD}, 200, [event(ADMIN, "user.change", "savita", changed="password")]),
    ("one's password set", "savita", "PUT", USER, {"password": NEW_PASSWORD, "current_password": PASSWORD}, 200, [event("savita", "user.change", "savita", changed="password")]),
    ("one's password not set", "savita", "PUT", USER, {"password": NEW_PASSWORD, "current_password": f"{MARK} wrong"}, 403, [refused("savita", f"PUT {USER}", "savita")]),
    ("one's role not changed", ADMIN, "PUT", "/users/root/", {"role": "patient"}, 403, [refused(ADMIN, "PUT /users/root/", "root")]),
    ("renamed", ADMIN, "PUT", USER, {"username": "savita.k"}, 200, [event(ADMIN, "user.change", "savita", changed="username savita.k")]),
    ("not renamed", "savita", "PUT", USER, {"username": "savita.k"}, 403, [refused("savita", f"PUT {USER}", "savita")]),
    ("the same name", ADMIN, "PUT", USER, {"username": "savita"}, 200, [event(ADMIN, "read", "savita", what="profile")]),
    ("a user seen by a change of nothing", ADMIN, "PUT", USER, {}, 200, [event(ADMIN, "read", "savita", what="profile")]),
    ("a user seen by a password", ADMIN, "PUT", USER, {"current_password": MARK}, 200, [event(ADMIN, "read", "savita", what="profile")]),
    ("oneself seen by a change of nothing", "savita", "PUT", USER, {}, 200, []),
    ("a machine labelled", TECHNICIAN, "POST", "/machines/", {"serial": "HC-1", "site": "Pune"}, 201, [event(TECHNICIAN, "machine.change", machine="HC-1", changed=["site"])]),
    ("another not changed", DOCTOR, "PUT", USER, {"full_name": MARK}, 404, [refused(DOCTOR, f"PUT {USER}", "savita")]),
    ("deleted", ADMIN, "DELETE", USER, None, 204, [event(ADMIN, "user.delete", "erased user 2", rejections=0)]),
    ("not deleted", DOCTOR, "DELETE", USER, None, 403, [refused(DOCTOR, f"DELETE {USER}")]),
    ("oneself not deleted", ADMIN, "DELETE", "/users/root/", None, 403, [refused(ADMIN, "DELETE /users/root/", "root")]),
    ("all records read", DOCTOR, "GET", "/checkups/", None, 200, [event(DOCTOR, "read", name, what="checkups") for name in (PATIENT, "savita")]),
    ("records read", DOCTOR, "GET", CHECKUPS, None, 200, [event(DOCTOR, "read", "savita", what="checkups")]),
    ("a record read", DOCTOR, "GET", CHECKUP, None, 200, [event(DOCTOR, "read", "savita", what="checkups", checkup=1)]),
    ("one's own read", "savita", "GET", CHECKUP, None, 200, []),
    ("another's not read", PATIENT, "GET", CHECKUPS, None, 404, [refused(PATIENT, f"GET {CHECKUPS}", "savita")]),
    ("a record not read", PATIENT, "GET", CHECKUP, None, 404, [refused(PATIENT, f"GET {CHECKUP}", "savita")]),
    ("no list for patients", PATIENT, "GET", "/checkups/", None, 403, [refused(PATIENT, "GET /checkups/")]),
    ("a record corrected", DOCTOR, "PUT", CHECKUP, {"disease": f"{MARK} other", "results": [RESULT]}, 200, [event(DOCTOR, "checkup.change", "savita", checkup=1, changed=["disease", "results"])]),
    ("a record read by a change of nothing", DOCTOR, "PUT", CHECKUP, {"revision": 1}, 200, [event(DOCTOR, "read", "savita", what="checkups", checkup=1)]),
    ("a record not corrected", TECHNICIAN, "PUT", CHECKUP, {"disease": MARK}, 403, [refused(TECHNICIAN, f"PUT {CHECKUP}")]),
    ("a record deleted", DOCTOR, "DELETE", CHECKUP, None, 204, [event(DOCTOR, "checkup.delete", "savita", checkup=1)]),
    ("a record not deleted", TECHNICIAN, "DELETE", CHECKUP, None, 403, [refused(TECHNICIAN, f"DELETE {CHECKUP}")]),
    ("a record reviewed", DOCTOR, "POST", f"{CHECKUP}review/", {"note": MARK}, 200, [event(DOCTOR, "checkup.review", "savita", checkup=1)]),
    ("a review taken back", DOCTOR, "DELETE", f"{CHECKUP}review/", None, 204, [event(DOCTOR, "checkup.review", "savita", checkup=1, taken_back=True)]),
    ("a record not reviewed", TECHNICIAN, "POST", f"{CHECKUP}review/", {}, 403, [refused(TECHNICIAN, f"POST {CHECKUP}review/")]),
    ("one record uploaded", DOCTOR, "POST", "/checkups/", secret(7), 201, [uploaded(DOCTOR, "savita", None, 1, 0, 0)]),
    ("records uploaded", TECHNICIAN, "POST", "/reports/", [secret(7), secret(8, PATIENT), secret(9, disease=5)], 201, [uploaded(TECHNICIAN, None, None, 2, 0, 1)]),
    ("a record again", TECHNICIAN, "POST", "/checkups/", [secret(1, "bholanath"), secret(2, "bholanath")], 200, [uploaded(TECHNICIAN, PATIENT, None, 0, 1, 1), event(TECHNICIAN, "upload", "savita", "refused", machine=None, reason="stored with other content")]),
    ("a patient's records", TECHNICIAN, "POST", CHECKUPS, [secret(7), secret(8)], 201, [uploaded(TECHNICIAN, "savita", None, 2, 0, 0)]),
    ("a dump", TECHNICIAN, "POST", "/machines/HC-1/dumps/", dump([secret(7)]), 201, [uploaded(TECHNICIAN, "savita", "HC-1", 1, 0, 0)]),
    ("all or nothing", TECHNICIAN, "POST", "/checkups/?atomic=true", [secret(7), secret(8, disease=5)], 422, [uploaded(TECHNICIAN, None, None, 0, 0, 2)]),
    ("an unknown patient", TECHNICIAN, "POST", "/checkups/", secret(7, "nobody"), 404, [uploaded(TECHNICIAN, "nobody", None, 0, 0, 1)]),
    ("nothing uploaded", TECHNICIAN, "POST", "/checkups/", f'[{{"{MARK}":'.encode(), 400, []),
    ("no upload by patients", PATIENT, "POST", "/checkups/", secret(7), 403, [refused(PATIENT, "POST /checkups/")]),
    ("no upload by doctors", DOCTOR, "POST", "/machines/HC-1/dumps/", dump([secret(7)]), 403, [refused(DOCTOR, "POST /machines/HC-1/dumps/")]),
    ("machines not listed", PATIENT, "GET", "/machines/", None, 403, [refused(PATIENT, "GET /machines/")]),
    ("machines not made", PATIENT, "POST", "/machines/", {"serial": MARK}, 403, [refused(PATIENT, "POST /machines/")]),
]  # fmt: skip


class Trail:
    """What was noted since it was made."""

    def __init__(self, db: Any) -> None:
        self.db = db
        ((self.newest, self.since),) = db("select coalesce(max(id), 0), clock_timestamp() from audit_events")

    def read(self, address: str | None) -> list[Any]:
        """The events, as the table has them, after a look at what all have in common."""
        found = self.rows()
        ids = dict(self.db("select username, id from users"))
        for actor, action, subject, outcome, details, actor_id, subject_id, came_from, at in found:
            assert came_from == address
            assert (details.pop("request_id", None) is None) == (address is None)
            assert self.since <= at <= datetime.now(at.tzinfo)
            if actor_id is not None:
                assert actor_id == ids[actor]
            else:
                assert address is None or action in ("login", "register")
                assert (action, outcome) != ("login", "done")
            if subject_id is not None and action != "user.delete":
                assert subject_id == (ids.get(subject) or ids["savita.k"])
        return [row[:5] for row in found]

    def events(self) -> list[Any]:
        """The events of requests, without the number of their request."""
        found = [row[:5] for row in self.rows()]
        assert all(details.pop("request_id") for *_, details in found)
        return found

    def rows(self) -> list[Any]:
        columns = "actor, action, subject, outcome, details, actor_id, subject_id, address, at"
        return self.db(f"select {columns} from audit_events where id > %s order by subject, id", self.newest)

    def holds_nothing_of(self, *markers: str) -> None:
        ((everything,),) = self.db("select coalesce(string_agg(audit_events::text, ' '), '') from audit_events")
        for marker in markers:
            assert marker not in everything


@pytest.fixture
def filled(people, db) -> None:
    from support.factories import take

    take(secret(1), secret(2, PATIENT), machine=None)


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize(
    ("who", "method", "path", "body", "status", "events"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_what_is_done_at_the_api_is_noted_once(
    upload, log_in, db, caplog, who, method, path, body, status, events
) -> None:
    token, trail = log_in(who) if who else "", Trail(db)
    answer = upload(method, path, body, token=token, environ_overrides={"REMOTE_ADDR": ADDRESS})
    assert answer.status_code == status, answer.text
    assert trail.read(ADDRESS) == events
    trail.holds_nothing_of(MARK, str(NUMBER), PASSWORD, token or MARK)
    assert MARK not in caplog.text
    assert str(NUMBER) not in caplog.text


@pytest.mark.parametrize("how", ["login", "password"])
def test_a_guess_too_many_is_noted(upload, log_in, db, how: str) -> None:
    token = log_in("savita") if how == "password" else ""
    method, path, body = {
        "login": ("POST", "/login/", OTHER),
        "password": ("PUT", USER, {"password": NEW_PASSWORD, "current_password": f"{MARK} wrong"}),
    }[how]
    for _ in range(10):
        upload(method, path, body, token=token)
    trail = Trail(db)
    assert upload(method, path, body, token=token, environ_overrides={"REMOTE_ADDR": ADDRESS}).status_code != 429
    assert upload(method, path, body, token=token).status_code == 429
    expected = event(None, "login", "savita", "refused", reason="too many attempts")
    if how == "password":
        expected = refused("savita", f"PUT {USER}", "savita")
    assert trail.events()[1:] == [expected]
    trail.holds_nothing_of(MARK)


def test_a_registration_where_there_is_none_is_noted(people, settings, calling, db) -> None:
    upload, trail = calling(make_app(dataclasses.replace(settings, registration_open=False))), Trail(db)
    answer = upload("POST", "/registration/", ONE, environ_overrides={"REMOTE_ADDR": ADDRESS})
    assert answer.status_code == 403
    assert trail.read(ADDRESS) == [event(None, "register", outcome="refused")]


def test_what_is_answered_again_is_not_noted_again(upload, log_in, db) -> None:
    token, trail = log_in("tara"), Trail(db)
    for _ in range(3):
        upload("POST", "/checkups/", [secret(7)], token=token, headers={"Idempotency-Key": f"{MARK}-key"})
    assert trail.events() == [uploaded("tara", "savita", None, 1, 0, 0)]
    trail.holds_nothing_of(MARK)


COMMANDS: list[tuple[list[str], str, list[Any]]] = [
    (["users", "create", "new.one", "--password-stdin"], NEW_PASSWORD, [("user.create", "new.one", {"role": "patient"})]),
    (["users", "create", "savita", "--no-password"], "", [("refused", "savita", {"request": "myhealth users create"})]),
    (["users", "set-role", "nobody", "doctor"], "", [("refused", "nobody", {"request": "myhealth users set-role"})]),
    (["users", "identifiers", "remove", "savita", "HOSP", "7"], "", [("refused", "savita", {"request": "myhealth users identifiers remove"})]),
    (["users", "set-password", "savita", "--password-stdin"], NEW_PASSWORD, [("user.change", "savita", {"changed": "password"})]),
    (["users", "set-role", "savita", "doctor"], "", [("user.change", "savita", {"changed": "role doctor"})]),
    (["users", "disable", "savita"], "", [("user.change", "savita", {"changed": "disabled"})]),
    (["users", "enable", "savita"], "", [("user.change", "savita", {"changed": "enabled"})]),
    (["users", "import", "-"], f"username,password\nby.file,{NEW_PASSWORD}\n", [("user.create", "by.file", {"role": "patient"})]),
    (["import-machine", "--create-patients", "-"], dump([secret(7, "made.too"), secret(8), secret(9, disease=5)]).decode(),
     [("import", None, {"machine": "HC-1", "source": "standard input", "ended": True, "accepted": 2, "duplicate": 0, "rejected": 1}),
      ("user.create", "made.too", {"role": "patient"})]),
    (["import-machine", "--dry-run", "-"], dump([secret(10)]).decode(), []),
    (["import-machine", "-"], dump([secret(8)]).decode()[:-2], [("import", None, {"machine": "HC-1", "source": "standard input", "ended": False, "accepted": 0, "duplicate": 1, "rejected": 0})]),
    (["rejections", "list", "--json"], "", [("read", None, {"what": "rejections"})]),
    (["users", "list"], "", [("read", None, {"what": "people"})]),
    (["users", "show", "savita"], "", [("read", "savita", {"what": "profile"})]),
    (["verify"], "", [("read", None, {"what": "verify"})]),
    (["audit", "--json"], "", [("read", None, {"what": "audit"})]),
    (["machines", "register", "HC-9"], "", [("machine.change", None, {"machine": "HC-9", "changed": []})]),
    (["rejections", "show", "1"], "", [("read", "savita", {"what": "rejection", "rejection": 1})]),
    (["rejections", "discard", "1", "--reason", MARK], "", [("rejection.discard", "savita", {"rejection": 1})]),
    (["rejections", "retry", "2"], "", [("rejection.retry", "late", {"rejection": 2, "checkup": ANY})]),
    (["users", "delete", "savita", "--yes"], "", [("user.delete", "erased user 2", {"rejections": 1})]),
]  # fmt: skip


@pytest.mark.long
@pytest.mark.usefixtures("filled")
def test_what_is_done_at_the_command_line_is_noted_once(db, run_cli) -> None:
    for words, stdin, events in COMMANDS:
        if words[:2] == ["rejections", "retry"]:
            run_cli("import-machine", "-", stdin=dump([secret(11, "late")]))
            run_cli("users", "create", "late", "--no-password")
        trail = Trail(db)
        done = run_cli(*words, stdin=stdin)
        found = trail.rows()
        assert [(row[1], row[2], row[4]) for row in sorted(found, key=lambda row: row[1])] == events, (
            words,
            done.stderr,
        )
        for actor, action, _, outcome, _, actor_id, _, address, _ in found:
            expected = "refused" if action == "refused" else "done"
            assert (actor, actor_id, address, outcome) == (operator_name(), None, None, expected)
    trail.holds_nothing_of(f"{MARK} ", str(NUMBER))


def test_an_operator_is_the_system_account_and_not_what_the_environment_says(monkeypatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "dr.ayush")
    account = pwd.getpwuid(os.getuid()).pw_name
    for sudo_uid, caller in (("", ""), ("0", " (sudo by root)"), ("999999", " (sudo by uid 999999)"), ("x", "")):
        monkeypatch.setenv("SUDO_UID", sudo_uid)
        assert operator_name() == f"{account}{caller} at the command line"


def test_a_forwarded_deletion_names_the_address_of_the_person_and_of_the_host(upload, log_in, db) -> None:
    proxied: dict[str, Any] = {"headers": {"X-Forwarded-For": ADDRESS}, "environ_overrides": {"REMOTE_ADDR": "::1"}}
    assert upload("DELETE", USER, token=log_in("root"), **proxied).status_code == 204
    assert db("select address from audit_events where action = 'user.delete'") == [(f"{ADDRESS} via ::1",)]


@pytest.mark.parametrize("query", ["", "?atomic=true"])
def test_a_guess_at_a_stored_record_is_noted_of_its_owner(upload, log_in, db, query: str) -> None:
    assert upload("POST", "/checkups/", [record(1, "savita")], token=log_in("tara")).status_code == 201
    assert upload("POST", f"/checkups/{query}", [record(1, "bholanath")], token=log_in("tara")).status_code == 422
    noted = db("select actor, subject from audit_events where action = 'upload' and outcome = 'refused'")
    assert noted == [("tara", "savita")]


@pytest.mark.process
def test_servers_logs_hold_nothing_of_what_was_sent(people, settings, db, tmp_path, log_in) -> None:
    """Through gunicorn itself, with the errors that there can be."""
    token = log_in("tara")
    sent = [("GET", "/login/", None, basic("savita", f"{MARK} wrong")), ("POST", "/login/", OTHER, {})]
    for body in (
        [secret(7)],
        [secret(8, disease=5)],
        secret(9, "nobody"),
        f'[{{"{MARK}":'.encode(),
        f"{MARK}".encode(),
    ):
        sent.append(("POST", "/checkups/", body, {"Authorization": f"Bearer {token}"}))
    with (tmp_path / "log").open("w+b") as log_file, processes.open_listening_socket("127.0.0.1", 0) as listener:
        with processes.gunicorn("wsgi.upload:app", listener, settings, log_file=log_file):
            with urllib.request.urlopen(f"{processes.url_of(listener)}/docs/") as answer:
                assert answer.headers.get_all("Server") == ["MyHealth"]
            statuses = [ask(processes.url_of(listener), *request) for request in sent]
            db("alter table users rename column full_name to other_name")  # a fault of ours, of each request
            try:
                statuses.append(ask(processes.url_of(listener), *sent[2]))
            finally:
                db("alter table users rename column other_name to full_name")
        log_file.seek(0)
        log = log_file.read().decode()
    assert statuses == [401, 401, 201, 422, 404, 400, 400, 500]
    assert "failed: " in log
    for marker in (MARK, str(NUMBER), token):
        assert marker not in log
    Trail(db).holds_nothing_of(MARK, str(NUMBER), token)


def ask(url: str, method: str, path: str, body: Any, headers: dict[str, str]) -> int:
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", **headers}
    request = urllib.request.Request(url + path, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.parametrize("role", ["origin", "replica"])
@pytest.mark.parametrize(
    "sql", ["update audit_events set actor = 'x'", "delete from audit_events", "truncate audit_events"]
)
def test_events_are_only_ever_added(people, connect, sql: str, role: str) -> None:
    """Also in a session that has triggers switched off, as a replica's or a restore's has."""
    with connect() as connection, connection.cursor() as cursor:
        cursor.execute(f"set session_replication_role = {role}")
        cursor.execute("select count(*) from audit_events")
        assert cursor.fetchone() != (0,)
        with pytest.raises(psycopg2.IntegrityError, match="audit events are only ever added"):
            cursor.execute(sql)


@pytest.mark.parametrize(("who", "method", "path", "body"), [
    ("", "POST", "/login/", OTHER), ("bholanath", "GET", USER, None), ("bholanath", "GET", "/users/nobody/", None),
    ("bholanath", "GET", "/checkups/", None),
], ids=["logins", "another", "nobody", "a role"])  # fmt: skip
def test_equal_refusals_of_a_minute_are_one_event_with_their_count(upload, log_in, db, who, method, path, body) -> None:
    token = log_in(who) if who else ""
    for _ in range(10 if not who else 0):
        upload(method, path, body)  # the wrong ones before the limit are told one by one
    trail = Trail(db)
    for _ in range(30):
        assert upload(method, path, body, token=token).status_code in (429, 404, 403)
    ids = [row[0] for row in db("select id from audit_events where id > %s order by id", trail.newest)]
    assert len(ids) <= 2  # two if the minute ended meanwhile
    counts = [event.details.get("count", 1) for event in find_events(after=trail.newest)]
    assert sum(counts) == 30


def test_closed_registration_is_summed_too(people, settings, calling, db) -> None:
    upload, trail = calling(make_app(dataclasses.replace(settings, registration_open=False))), Trail(db)
    for number in range(30):
        assert upload("POST", "/registration/", {"username": f"x{number}", "password": PASSWORD}).status_code == 403
    assert len(trail.rows()) <= 2


def test_invented_names_fill_no_table(upload, log_in, db) -> None:
    """Each refused path is noted until there are ten of one caller in a minute; then they are counted."""
    token, trail = log_in("bholanath"), Trail(db)
    for number in range(60):
        assert upload("GET", f"/users/nobody{number}/", token=token).status_code == 404
    assert 10 < len(trail.rows()) <= 22
    assert sum(event.details.get("count", 1) for event in find_events(after=trail.newest)) == 60


@pytest.mark.parametrize(("who", "method", "path", "body"), [
    ("bholanath", "GET", "/users/{}/", None),
    ("tara", "GET", "/users/{}/", None),
    ("bholanath", "PUT", "/users/{}/", {"full_name": "x"}),
    ("bholanath", "DELETE", "/users/{}/", None),
    ("bholanath", "GET", "/users/{}/checkups/", None),
    ("tara", "GET", "/users/{}/checkups/", None),
    ("bholanath", "GET", "/users/{}/checkups/1/", None),
    ("root", "GET", "/users/{}/checkups/", None),
    ("bholanath", "POST", "/users/{}/checkups/", []),
    ("bholanath", "PUT", "/users/{}/checkups/1/", {"disease": "x"}),
    ("savita", "PUT", "/users/savita/", {"username": "{}"}),
    ("savita", "GET", "/users/?after={}", None),
], ids=lambda value: str(value))  # fmt: skip
@pytest.mark.usefixtures("filled")
def test_a_known_and_an_unknown_name_cost_the_same_statements_and_events(
    upload, log_in, db, monkeypatch, who, method, path, body
) -> None:
    token, found = log_in(who), {}
    upload("GET", f"/users/{who}/", token=token)  # the first request opens the database
    for name in ("dr.ayush", "dr.nobody"):
        db("delete from refusals")  # the first of its kind in this minute, both times
        trail, statements = Trail(db), recorded_statements(monkeypatch)
        sent = json.loads(json.dumps(body).replace("{}", name))
        answer = upload(method, path.format(name), sent, token=token)
        text = answer.text.replace(name, "X")
        noted = [(row[0], row[1], row[5], row[6]) for row in trail.rows()]
        found[name] = (answer.status_code, text, noted, [words.replace(name, "X") for words in statements])
    assert found["dr.ayush"] == found["dr.nobody"]
    assert found["dr.ayush"][3]


@pytest.mark.parametrize("throttled", [False, True])
def test_a_login_costs_the_same_statements_whether_the_name_is_known(upload, db, monkeypatch, throttled) -> None:
    found = {}
    upload("POST", "/login/", {"username": "anybody", "password": "wrong"})  # the first request opens the database
    for name in ("savita", "nobody"):
        for _ in range(10 if throttled else 0):
            upload("POST", "/login/", {"username": name, "password": "wrong"})
        statements = recorded_statements(monkeypatch)
        answer = upload("POST", "/login/", {"username": name, "password": "wrong"})
        # the attempt's name is its user's id or the name itself
        words = [
            each.replace("user_id is null and username = %(folded)s", "user_id = %(user_id)s") for each in statements
        ]
        found[name] = (answer.status_code, answer.text, words)
    assert found["savita"][0] == (429 if throttled else 401)
    assert found["savita"] == found["nobody"]


def recorded_statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that fills with the statements, without their values, that any connection is sent from now on."""
    found: list[str] = []

    class Cursor(psycopg2.extensions.cursor):
        def execute(self, sql: Any, values: Any = None) -> None:
            found.append(sql if isinstance(sql, str) else str(sql))
            super().execute(sql, values)

    def cursor(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self.connection().cursor(cursor_factory=Cursor)

    monkeypatch.setattr(Pool, "cursor", cursor)
    return found
