"""Stores that hang, and locks: nobody waits for long, and what needs no store is served as ever."""

import dataclasses
import json
import signal
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.clients import Caller
from support.factories import PASSWORD, record, take
from support.servers import hanging, running_apis
from support.sync_processes import syncing, wait_for

from myhealth import processes
from myhealth.common import database_watch
from myhealth.common.database import database, make_database
from myhealth.common.database_watch import ask
from myhealth.common.errors import Unavailable
from myhealth.common.settings import Settings
from myhealth.reports.writer import ReportWriter
from myhealth.sync.runner import run_pass
from myhealth.sync.source import Source

QUICK_S = 0.1
LONGEST_S = 5.0
WITHOUT_STORE = (
    ("upload", "/livez"), ("upload", "/"), ("upload", "/.well-known/jwks.json"), ("upload", "/static/upload.css"),
    ("browse", "/livez"), ("browse", "/my/login"), ("browse", "/static/pages.css"), ("browse", "/openapi.json"),
)  # fmt: skip


class Apis:
    def __init__(self, urls: tuple[str, str], token: str) -> None:
        self.urls = dict(zip(("upload", "browse"), urls, strict=True))
        self.token = token

    def call(self, name: str, path: str, body: Any = None) -> tuple[int, float]:
        """Return the status and the seconds that it took."""
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.urls[name] + path, content, headers)
        started = time.monotonic()
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                status = answer.status
        except urllib.error.HTTPError as error:
            status = error.code
        return status, time.monotonic() - started

    def check_quick(self) -> None:
        """Whatever needs no store answers at once; the quickest of three, because other programs run here too."""
        for name, path in WITHOUT_STORE:
            answers = [self.call(name, path) for _ in range(3)]
            assert {status for status, _ in answers} == {200}, path
            assert min(secs for _, secs in answers) <= QUICK_S, (path, answers)


def needing_a_store() -> list[tuple[Any, ...]]:
    login = {"username": "bholanath", "password": PASSWORD}
    return [("upload", "/readyz"), ("upload", "/healthz"), ("upload", "/users/"),
            ("upload", "/checkups/", [record(50)]), ("upload", "/login/", login), ("browse", "/readyz"),
            ("browse", "/reports/"), ("browse", "/users/"), ("browse", "/login/", login)]  # fmt: skip


@pytest.mark.long
@pytest.mark.process
def test_stores_that_hang_hold_nobody_for_long(postgres, mongo, people, reports, settings, log_in) -> None:
    take(record(1))
    run_pass(settings.database_url, ReportWriter(reports), settings)
    with running_apis(settings) as urls:
        apis = Apis(urls, log_in("tara"))
        with ThreadPoolExecutor(20) as threads:
            before = [apis.call(*each) for each in needing_a_store()]
            assert {status for status, _ in before} <= {200, 201, 403}, before
            database.close_all()
            with hanging(postgres, mongo):
                time.sleep(1)  # for so long, readiness is remembered
                for times in (1, 2, 2, 2):
                    answers = [*threads.map(lambda each: (each[:2], *apis.call(*each)), needing_a_store() * times)]
                    assert {status for _, status, _ in answers} == {503}, answers
                    assert max(secs for _, _, secs in answers) <= LONGEST_S, answers
                    apis.check_quick()
                    status, secs = apis.call("upload", "/metrics")  # without the figures of the store
                    assert (status, secs <= LONGEST_S) == (200, True)
            deadline = time.monotonic() + 15
            while not all(apis.call(*each)[0] in (200, 201, 403) for each in needing_a_store()):
                assert time.monotonic() < deadline, "they come back by themselves"


@pytest.mark.long
@pytest.mark.process
def test_apis_that_start_while_the_stores_hang_answer_too(
    postgres, mongo, people, reports, settings, log_in, monkeypatch
) -> None:
    token = log_in("tara")
    database.close_all()
    monkeypatch.setattr(processes, "_wait_until_ready", lambda process, url, name: None)
    with hanging(postgres, mongo), running_apis(settings) as urls, ThreadPoolExecutor(12) as threads:
        apis = Apis(urls, token)
        assert (apis.call("upload", "/livez")[0], apis.call("browse", "/livez")[0]) == (200, 200)
        answers = [*threads.map(lambda path: apis.call("upload", path), ["/readyz", "/users/", "/checkups/"] * 4)]
        assert {status for status, _ in answers} == {503}
        assert max(secs for _, secs in answers) <= LONGEST_S, answers
        apis.check_quick()


def test_a_lock_holds_no_upload_for_long(upload: Caller, log_in: Any, connect: Any) -> None:
    token = log_in("tara")
    assert upload("POST", "/checkups/", [record(1)], token=token).status_code == 201
    holder = connect()
    with holder.cursor() as cursor:
        cursor.execute("lock table checkups")
        started = time.monotonic()
        answer = upload("POST", "/checkups/", [record(2)], token=token)
        assert (answer.status_code, answer.json["code"]) == (503, "unavailable")
        assert time.monotonic() - started <= LONGEST_S
        assert upload("GET", "/.well-known/jwks.json").status_code == 200
        assert upload("GET", "/readyz").status_code == 200
    holder.rollback()
    assert upload("POST", "/checkups/", [record(2)], token=token).status_code == 201


@pytest.mark.process
def test_the_sync_does_not_wait_for_ever_for_a_postgresql_that_hangs(postgres, people, settings, monkeypatch) -> None:
    monkeypatch.setattr("myhealth.common.database_watch.PASS_ASK_S", 0.2)
    monkeypatch.setattr("myhealth.common.database_watch.PASS_ANSWER_S", 1.0)
    database.close_all()
    with Source.opened(settings.database_url) as source:
        source.state()
        started = time.monotonic()
        with hanging(postgres), pytest.raises(Unavailable):
            source.state()
        assert time.monotonic() - started < 30


@pytest.mark.long
@pytest.mark.process
def test_the_sync_ends_with_75_or_goes_on_by_itself(postgres, mongo, people, reports, settings) -> None:
    take(record(1))
    quick = f"{settings.mongo_url}?serverSelectionTimeoutMS=2000"
    for server, said in ((postgres, "PostgreSQL is unavailable"), (mongo, "MongoDB is unavailable")):
        with hanging(server), syncing(settings, "--once", MYHEALTH_MONGO_URL=quick) as once:
            _, errors = once.communicate(timeout=60)
            assert (once.returncode, said in errors) == (75, True), errors
    assert reports.count() == (0, 0)
    with syncing(settings, "--interval", "0.2") as loop:
        wait_for(lambda: reports.count()[0] == 1)
        with hanging(postgres, mongo):
            time.sleep(2)
            assert loop.poll() is None
        take(record(2))
        wait_for(lambda: reports.count()[0] == 2)
        loop.send_signal(signal.SIGTERM)
        assert loop.wait(60) == 0


def test_a_hang_is_logged_once(postgres, people, settings, monkeypatch, caplog) -> None:
    asked = []
    monkeypatch.setattr(database_watch, "ANSWER_S", 0.2)
    monkeypatch.setattr(database_watch, "POLL_S", 0.05)
    monkeypatch.setattr(database_watch, "ask", lambda *of: (asked.append(of), ask(*of))[1])
    database.close_all()
    pool = make_database(settings.database_url, is_served=True)
    pool.connect()
    watch = database_watch.Watch(pool, settings.database_url)
    try:
        with hanging(postgres):
            wait_for(lambda: len(asked) > 3)
        wait_for(lambda: pool.refused_until == 0)
        assert caplog.text.count("PostgreSQL does not answer") == 1
    finally:
        watch.stop()
        pool.close_all()


def test_sessions_of_the_upload_api_have_limits(upload: Caller) -> None:
    assert upload("GET", "/metrics").status_code == 200
    shown = "select current_setting('statement_timeout'), current_setting('lock_timeout')"
    assert database.execute_sql(shown).fetchone() == ("30s", "4s")


# -- readiness -------------------------------------------------------------------------------------------------------


def test_readiness_tells_how_old_the_last_pass_is(upload: Caller, sync: Any) -> None:
    assert upload("GET", "/readyz").json["sync_age_s"] is None
    sync()
    database.execute_sql(
        "update sync_pass set began_at = now() - interval '9 days', ended_at = now() - interval '9 days'"
    )
    time.sleep(1)
    answer = upload("GET", "/healthz")
    assert answer.status_code == 200
    assert answer.json["sync_age_s"] > 9 * 86400


@pytest.mark.parametrize(
    "sql",
    ["insert into schema_migration (name, applied) values ('0999_later', now());"
     " comment on table schema_migration is 'programs of migration 999 and later work with this schema'",
     "delete from schema_migration",
     "alter table schema_migration rename to moved"],
    ids=["newer", "empty", "without a history"],
)  # fmt: skip
def test_an_api_is_not_ready_on_another_schema_while_it_lives(upload: Caller, connect: Any, sql: str) -> None:
    assert upload("GET", "/metrics").status_code == 200  # a worker that was started before
    other = connect()
    with other.cursor() as cursor:
        cursor.execute("create table kept as select * from schema_migration")
        cursor.execute("select obj_description('schema_migration'::regclass)")
        (comment,) = cursor.fetchone()
        cursor.execute(sql)
    other.commit()
    try:
        assert upload("GET", "/readyz").status_code == upload("GET", "/healthz").status_code == 503
        assert upload("GET", "/livez").status_code == 200
    finally:
        with other.cursor() as cursor:
            cursor.execute("alter table if exists moved rename to schema_migration")
            cursor.execute("delete from schema_migration")
            cursor.execute("insert into schema_migration select * from kept")
            cursor.execute("drop table kept")
            cursor.execute("comment on table schema_migration is %s", (comment,))
        other.commit()
    time.sleep(1)
    assert upload("GET", "/readyz").status_code == 200


def test_browsing_is_not_ready_without_keys(settings: Settings, reports: Any, calling: Any, stub: Any) -> None:
    from wsgi.browse import make_app

    without = calling(make_app(dataclasses.replace(settings, auth_url="http://127.0.0.1:1")))
    assert without("GET", "/readyz").status_code == without("GET", "/healthz").status_code == 503
    assert without("GET", "/livez").status_code == 200
    assert calling(make_app(dataclasses.replace(settings, auth_url=stub[0])))("GET", "/readyz").status_code == 200
