"""`myhealth doctor` finds what is wrong with an installation, says what to do, and shows no secret."""

from __future__ import annotations

import dataclasses
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from myhealth import stores
from myhealth.common.database import database
from myhealth.common.settings import Settings
from myhealth.doctor import ADVICE, FAULT, MONGODB, NOTE, OK, Finding, clock_facts, examine, judge

ROLE = "myhealth_test_doctor"


def levels(found: list[Finding], *words: str) -> list[str]:
    """Return the levels of the findings that have all these words in what they say or advise."""
    return [each.level for each in found if all(word in f"{each.area} {each.text} {each.todo}" for word in words)]


def run_sql(settings: Settings, *statements: str) -> None:
    connection = psycopg2.connect(settings.database_url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
    connection.close()


@pytest.fixture
def examined(settings: Settings, people, reports, sync, serving, upload) -> Callable[..., list[Finding]]:
    """Return a function that examines the test servers, the upload API among them, with other settings."""
    sync()
    own = dataclasses.replace(settings, auth_url=serving(upload.application))

    def look(**changes: Any) -> list[Finding]:
        database.close_all()
        try:
            return examine(dataclasses.replace(own, **changes))
        finally:
            stores.bind_database(settings)

    return look


def test_a_right_installation_has_no_fault(examined) -> None:
    found = examined()
    assert [each for each in found if each.level == FAULT] == []
    assert levels(found, "superuser") == [ADVICE]
    areas = {each.area for each in found}
    assert areas == {"settings", "secrets", "proxies", "PostgreSQL", "sync", "MongoDB", "upload API", "disk"}
    assert all(each.todo for each in found if each.level != OK)


@pytest.mark.parametrize(
    ("sql", "undo", "words"),
    [
        ("alter table users disable trigger feed_bury", "alter table users enable trigger feed_bury", ("triggers",)),
        ("update sync_pass set ended_at = now() - interval '1 day'", "select 1", ("last pass ended 86,4",)),
        ("update sync_pass set problem = 'MongoDB is away'", "select 1", ("last pass failed", "MongoDB is away")),
        ("alter table schema_migration rename to moved", "alter table moved rename to schema_migration", ("myhealth migrate",)),
    ],
    ids=["a trigger that is off", "a sync that is dead", "a sync that fails", "no schema"],
)  # fmt: skip
def test_what_is_wrong_in_postgresql_is_a_fault(examined, settings: Settings, sql: str, undo: str, words) -> None:
    run_sql(settings, sql)
    try:
        found = examined()
    finally:
        run_sql(settings, undo)
    assert levels(found, *words) == [FAULT], found


def test_a_role_with_too_few_rights_is_told_which(examined, settings: Settings) -> None:
    run_sql(settings, f"drop role if exists {ROLE}", f"create role {ROLE} login")
    stores.bind_database(settings)
    try:
        from myhealth.grants import grant

        grant("upload", ROLE)
        limited = settings.database_url.replace("myhealth@", f"{ROLE}@")
        found = examined(database_url=limited)
        assert levels(found, "has the rights of the upload role") == [OK]
        assert levels(found, f"grant pg_read_all_stats to {ROLE}") == [ADVICE]
        run_sql(
            settings,
            f"revoke insert on checkups from {ROLE}",
            f"revoke all on function audit_upkeep from {ROLE}, public",
        )
        found = examined(database_url=limited)
        assert levels(found, "checkups", "audit_upkeep()", f"--upload-role {ROLE}") == [FAULT]
    finally:
        run_sql(settings, f"drop owned by {ROLE}", f"drop role {ROLE}")


def test_stores_that_are_away_are_faults_that_the_others_survive(examined) -> None:
    found = examined(database_url="postgresql://127.0.0.1:9/x_test", mongo_url="mongodb://127.0.0.1:9/x_test?serverSelectionTimeoutMS=200",
                     auth_url="http://127.0.0.1:9")  # fmt: skip
    assert [each.area for each in found if each.level == FAULT] == ["PostgreSQL", "MongoDB"]
    assert levels(found, "upload API", "cannot be reached") == [ADVICE]


def test_a_lost_index_an_exposed_file_and_a_wide_proxy_are_found(examined, reports, tmp_path: Path) -> None:
    reports.reports.drop_indexes()
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0o644)
    try:
        found = examined(trusted_proxies="0.0.0.0/0", origins={"secret_key": str(secret)}, allow_insecure=True)
    finally:
        reports.make_indexes()
    assert levels(found, "MongoDB", "indexes missing", "myhealth migrate") == [ADVICE]
    assert levels(found, "0.0.0.0/0") == [FAULT]
    assert levels(found, f"chmod 600 {secret}") == [FAULT]
    assert levels(found, "allow_insecure") == [ADVICE]


@pytest.mark.parametrize(
    ("theirs", "level"), [(0.5, OK), (3, OK), (8, ADVICE), (-10, ADVICE), (60, FAULT), (-60, FAULT)]
)
def test_a_clock_is_judged_by_how_far_it_is_off(theirs: float, level: str) -> None:
    facts = clock_facts(1000.0, 1001.5, 1000.0 + theirs)
    assert [found.level for check in MONGODB if (found := judge(check, facts))] == [level]


@pytest.mark.process
def test_the_command_ends_with_what_it_found_and_shows_no_secret(run_cli, settings: Settings, sync) -> None:
    sync()
    done = run_cli("doctor", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 1, done.stdout  # the test's role is a superuser, and no upload API runs
    assert {"area", "level", "text", "todo"} == set(found[0])
    env = {"MYHEALTH_DATABASE_URL": "postgresql://u:hush@127.0.0.1:9/x", "MYHEALTH_SECRET_KEY": "hush" * 20}
    done = run_cli("doctor", "--json", env={**env, "MYHEALTH_ALLOW_INSECURE": "true"})
    assert done.returncode == 78
    assert "hush" not in done.stdout + done.stderr
    done = run_cli("doctor", env={"MYHEALTH_TIME_ZONE": "Europe/Berlim"})
    assert done.returncode == 78
    assert "the nearest name is" in done.stdout
    assert "✓" not in run_cli("doctor").stdout


def test_nothing_is_to_be_done_on_embedded_servers(postgres, mongo, settings: Settings) -> None:
    """Before the first command has made its schema, and after; no upload API and no sync runs."""
    own = Settings(data_dir=str(postgres.root), auth_url="http://127.0.0.1:9")
    postgres.make_database("myhealth", anew=True)
    try:
        for noted in ({"this program needs"}, {"a superuser", "it has never run", "cannot be reached"}):
            found = [each for each in examine(own) if each.area != "disk"]  # that of this machine may be full
            assert {each.level for each in found} == {OK, NOTE}, found
            said = "\n".join(each.text for each in found if each.level == NOTE)
            assert all(words in said for words in noted), said
            with stores.opened_database(own):
                pass
    finally:
        stores.bind_database(settings)


def test_a_pipe_is_told_that_all_is_well(postgres, mongo, run_cli) -> None:
    env = {"MYHEALTH_DATA_DIR": str(postgres.root), "MYHEALTH_AUTH_URL": "http://127.0.0.1:9"}
    postgres.make_database("myhealth", anew=True)
    done = run_cli("doctor", env=env)
    if "disk" not in done.stdout:  # that of this machine may be full
        assert (done.returncode, done.stdout) == (0, "All is well: nothing must be changed.\n")
    assert "All is well" not in run_cli("doctor", env=env | {"MYHEALTH_TRUSTED_PROXIES": "0.0.0.0/0"}).stdout


@pytest.mark.process
def test_a_terminal_gets_what_is_right_too(settings: Settings) -> None:
    own = {"MYHEALTH_DATABASE_URL": settings.database_url, "MYHEALTH_MONGO_URL": settings.mongo_url}
    ours, theirs = pty.openpty()
    environ = {**os.environ, **own, "MYHEALTH_DATA_DIR": settings.data_dir}
    running = subprocess.Popen([sys.executable, "-m", "cli", "doctor"], stdout=theirs, env=environ)
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 65536):
            shown += part
    except OSError:
        pass  # the terminal is closed
    assert running.wait(60) in (1, 78)
    assert "✓" in shown.decode()
    assert "→" in shown.decode()
