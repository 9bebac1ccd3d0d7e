"""What is old goes by itself: a pass of the sync removes it, a bounded number of rows at a time."""

import dataclasses
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any

import psycopg2
import pytest
from support.factories import record, take

from myhealth.audit.events import record_event
from myhealth.common.settings import RetentionSettings
from myhealth.intake.rejections import discard
from myhealth.privacy import rules
from myhealth.reports.access_log import Access
from myhealth.reports.writer import ReportWriter
from myhealth.sync.runner import run_pass

TABLES = ("idempotency_keys", "login_attempts", "rejections", "audit_events")


def count(db: Any) -> dict[str, int]:
    return {table: db(f"select count(*) from {table}")[0][0] for table in TABLES}


@pytest.fixture
def old(db, people, settings) -> None:
    """Two rows of each table: one a little older than it is kept, one a little younger. Rejections have an open one."""
    with psycopg2.connect(settings.database_url) as connection, connection.cursor() as cursor:
        cursor.execute("alter table audit_events disable trigger audit_events_stay; delete from audit_events")
        for days in (731, 729):
            cursor.execute("insert into audit_events (at, action, outcome) values"
                           " (now() - make_interval(days => %s), 'login', 'done')", (days,))  # fmt: skip
        cursor.execute("alter table audit_events enable always trigger audit_events_stay")
    for days in (8, 6):
        db("insert into idempotency_keys values (%s, %s, now() - make_interval(days => %s), '', 201, '{}')",
           people["tara"], f"k{days}", days)  # fmt: skip
    for days in (32, 30):
        db("insert into login_attempts (at, kind, username, address) values"
           " (now() - make_interval(days => %s), 'login', 'x', 'y')", days)  # fmt: skip
    take(*[record(n, disease=5) for n in range(3)])
    for id_ in (1, 2):
        discard(id_)
    db("update rejections set resolved_at = now() - interval '366 days' where id = 1")
    db("update rejections set received_at = now() - interval '9 years' where id = 3")


def test_a_pass_removes_what_is_older_than_it_is_kept(old, db, sync) -> None:
    before = count(db)
    sync()
    assert count(db) == {table: number - 1 for table, number in before.items()}
    assert db("select id from rejections order by id") == [(2,), (3,)], "an open one is never removed"
    sync()
    assert count(db) == {table: number - 1 for table, number in before.items()}


def test_nothing_goes_by_age_where_it_is_kept_for_ever(old, db, settings, reports) -> None:
    kept = dataclasses.replace(settings, retention=RetentionSettings(rejections_days=0, audit_days=0))
    before = count(db)
    run_pass(settings.database_url, ReportWriter(reports), kept)
    after = count(db)
    assert {name: before[name] - after[name] for name in TABLES} == dict(zip(TABLES, (1, 1, 0, 0), strict=True))


def test_a_pass_removes_a_bounded_number(db, settings, reports, monkeypatch) -> None:
    monkeypatch.setattr(rules, "PURGE_ROWS", 3)
    db("insert into login_attempts (at, kind, username, address) select '2020-01-01', 'login', 'x', 'y'"
       " from generate_series(1, 7)")  # fmt: skip
    left = []
    for _ in range(3):
        run_pass(settings.database_url, ReportWriter(reports), settings)
        left.append(count(db)["login_attempts"])
    assert left == [4, 1, 0]


def test_no_setting_removes_an_event_of_this_month(people, db) -> None:
    record_event("login")
    before = count(db)
    assert db("select audit_upkeep(now(), 1000)") == [(0,)]
    assert count(db) == before


def test_the_function_does_not_rename_who_has_an_account(people, db) -> None:
    with pytest.raises(psycopg2.IntegrityError, match="still has an account"):
        db("select audit_upkeep(null, 0, %s, array['bholanath'])", people["bholanath"])


@pytest.mark.parametrize("name", ["savita", "SAVITA", " savita", "ｓavita"])
@pytest.mark.parametrize("place", ["spellings", "identifiers"])
def test_the_function_does_not_rename_a_name_that_somebody_has(people, db, name: str, place: str) -> None:
    with pytest.raises(psycopg2.IntegrityError, match="still has an account"):
        db(f"select audit_upkeep(null, 0, 4711, {place} => %s)", [name])


@pytest.mark.parametrize(
    ("rights", "may"), [("insert on audit_events", False), ("insert on users", False), ("delete on rejections", True)]
)
def test_only_who_may_erase_may_call_the_function(people, db, settings, rights: str, may: bool) -> None:
    db("drop role if exists myhealth_test_caller")
    db("create role myhealth_test_caller")
    with psycopg2.connect(settings.database_url) as connection, connection.cursor() as cursor:
        cursor.execute(f"grant select, {rights} to myhealth_test_caller")
        migration = import_module("myhealth.migrations.0017_audit_upkeep_guard")
        cursor.execute(migration.DOWN + migration.UP)
        cursor.execute("select has_function_privilege('myhealth_test_caller', oid, 'execute') from pg_proc"
                       " where proname = 'audit_upkeep'")  # fmt: skip
        assert cursor.fetchall() == [(may,)]
        connection.rollback()
    db("drop role myhealth_test_caller")


def test_events_are_only_ever_added_after_the_function_too(people, connect) -> None:
    """The function leaves nothing behind that lets others through."""
    with connect() as connection, connection.cursor() as cursor:
        cursor.execute("select audit_upkeep(now(), 1000)")
        with pytest.raises(psycopg2.IntegrityError, match="only ever added"):
            cursor.execute("delete from audit_events")


def test_a_pass_removes_old_events_of_the_report_store(stored, settings, reports) -> None:
    root = {"_id": 5, "subject": "s", "username": "root", "role": "admin"}
    now = datetime.now(UTC)
    for days in (800, 40, 20):
        reports.access_log.log(Access(root, None, "people"), now=now - timedelta(days=days))

    def left(audit_days: int) -> int:
        take(record(f"n{audit_days}"))
        run_pass(settings.database_url, ReportWriter(reports, audit_days=audit_days), settings)
        return len(list(reports.access_log.find_events()))

    assert [left(0), left(730), left(1)] == [3, 2, 1]
