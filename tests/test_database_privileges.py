"""A role of its own in PostgreSQL: lacking rights are the operator's task, and no log gets a patient's data."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from typing import Any

import psycopg2
import pytest
from support.clients import Caller
from support.factories import record

from myhealth import stores
from myhealth.common.settings import Settings

ROLE = "myhealth_test_limited"
SECRET_TEXT = "HIV POSITIVE, please call"


@pytest.fixture
def limited(db: Any, people: dict[str, int], settings: Settings) -> Iterator[Settings]:
    """Settings whose PostgreSQL user is not a superuser and owns nothing, with every right that the APIs need."""
    db(f"drop role if exists {ROLE}")
    db(f"create role {ROLE} login")
    db(f"grant all on all tables in schema public to {ROLE}")
    db(f"grant all on all sequences in schema public to {ROLE}")
    stores.close_database()
    yield dataclasses.replace(settings, database_url=settings.database_url.replace("myhealth@", f"{ROLE}@"))
    stores.close_database()
    connection = psycopg2.connect(settings.database_url)
    with connection, connection.cursor() as cursor:
        cursor.execute(f"drop owned by {ROLE}; drop role {ROLE}")
    connection.close()


def as_superuser(settings: Settings, sql: str) -> None:
    connection = psycopg2.connect(settings.database_url)
    with connection, connection.cursor() as cursor:
        cursor.execute(sql)
    connection.close()


@pytest.mark.parametrize(
    ("sql", "text"),
    [
        (f"revoke insert on checkups from {ROLE}", "permission denied for table checkups to role " + ROLE),
        ("alter table checkups rename to checkups_gone", 'relation "checkups" does not exist'),
    ],
    ids=["a missing right", "a missing table"],
)
def test_what_the_database_lacks_is_never_the_clients_fault(
    limited: Settings, settings: Settings, calling: Any, log_in: Any, caplog: Any, sql: str, text: str
) -> None:
    from wsgi.upload import make_app

    upload: Caller = calling(make_app(limited))
    token = log_in("tara")
    as_superuser(settings, sql)
    try:
        with caplog.at_level(logging.ERROR):
            answer = upload("POST", "/checkups/", [record(1)], token=token)
    finally:
        if "rename" in sql:
            as_superuser(settings, "alter table checkups_gone rename to checkups")
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    assert "checkups" not in answer.text
    assert text in caplog.text


@pytest.mark.parametrize("table", ["users", "checkups", "rejections", "login_attempts", "sync_pass", "audit_events"])
def test_no_missing_right_is_an_answer_of_its_own(
    limited: Settings, settings: Settings, calling: Any, log_in: Any, caplog: Any, table: str
) -> None:
    from wsgi.upload import make_app

    upload: Caller = calling(make_app(limited))
    token = log_in("tara")
    as_superuser(settings, f"revoke all on {table} from {ROLE}")
    calls: list[Any] = [("GET", "/metrics"), ("GET", "/readyz"), ("POST", "/checkups/", [record(1), {"record_id": "x"}]),
                        ("GET", "/users/tara/"), ("POST", "/login/", {"username": "tara", "password": "wrong"})]  # fmt: skip
    with caplog.at_level(logging.ERROR):
        answers = [upload(*call, token=token) for call in calls]
    assert {answer.status_code for answer in answers} <= {200, 201, 401, 503}, [answer.data for answer in answers]
    assert any(answer.status_code == 503 for answer in answers)
    assert not any(table.encode() in answer.data for answer in answers if answer.status_code == 503)
    assert f"permission denied for table {table} to role {ROLE}" in caplog.text


@pytest.mark.process
def test_a_database_that_is_not_utf8_is_refused(settings: Settings, postgres: Any, run_cli: Any) -> None:
    postgres.make_database("latin_test", anew=True)
    maintenance = psycopg2.connect(postgres.url_of("postgres"))
    maintenance.autocommit = True
    with maintenance.cursor() as cursor:
        cursor.execute("drop database latin_test")
        cursor.execute("create database latin_test encoding 'LATIN1' locale 'C' template template0")
    maintenance.close()
    env = {"MYHEALTH_DATABASE_URL": postgres.url_of("latin_test"), "MYHEALTH_MONGO_URL": settings.mongo_url}
    for words in (["migrate"], ["sync", "--once"], ["users", "list"]):
        done = run_cli(*words, env=env)
        assert done.returncode == 78, done.stderr
        assert "encoded in LATIN1, not in UTF-8" in done.stderr


@pytest.mark.process
def test_a_sync_without_a_right_ends_with_77(limited: Settings, settings: Settings, run_cli: Any) -> None:
    as_superuser(settings, f"revoke select on users from {ROLE}")
    env = {"MYHEALTH_DATABASE_URL": limited.database_url, "MYHEALTH_MONGO_URL": settings.mongo_url}
    done = run_cli("sync", "--once", env={**env, "MYHEALTH_SECRET_KEY": settings.secret_key})
    assert done.returncode == 77, done.stderr
    assert "permission denied" in done.stderr
    assert "Traceback" not in done.stderr


def test_failing_statements_leave_no_data_in_the_log(
    limited: Settings, settings: Settings, postgres: Any, calling: Any, log_in: Any, run_cli: Any, caplog: Any
) -> None:
    """Once the role has its settings; before, a start warns, and the role itself may not change them."""
    from wsgi.upload import make_app

    log = postgres.data / "server.log"

    def fail_with(each: Settings) -> str:
        upload: Caller = calling(make_app(each))
        token = log_in("tara")
        as_superuser(settings, f"revoke insert on checkups from {ROLE}")
        before = log.stat().st_size
        assert upload("POST", "/checkups/", [record(1, checkup_report=SECRET_TEXT)], token=token).status_code == 503
        as_superuser(settings, f"grant insert on checkups to {ROLE}")
        stores.close_database()
        return log.read_text()[before:]

    with caplog.at_level(logging.WARNING):
        assert SECRET_TEXT in fail_with(limited)
    assert "migrate --grants" in caplog.text
    env = {"MYHEALTH_DATABASE_URL": limited.database_url, "MYHEALTH_MONGO_URL": settings.mongo_url}
    refused = run_cli("migrate", "--grants", env=env)
    assert refused.returncode == 77
    statements = refused.stderr.split("a superuser runs: ")[1].splitlines()[0]
    as_superuser(settings, statements.rstrip(")."))
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        logged = fail_with(limited)
    assert "permission denied" in logged
    assert SECRET_TEXT not in logged
    assert "migrate --grants" not in caplog.text
    assert run_cli("migrate", "--grants", env=env).returncode == 0


def test_a_superusers_own_sessions_keep_data_out_of_the_log(db: Any, postgres: Any) -> None:
    log = postgres.data / "server.log"
    before = log.stat().st_size
    with pytest.raises(Exception, match="division by zero"):
        db("select 1 / 0 as what, %s as result", SECRET_TEXT)
    logged = log.read_text()[before:]
    assert "division by zero" in logged
    assert SECRET_TEXT not in logged
