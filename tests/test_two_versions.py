"""Two releases side by side: what the older one does with the schema and the documents of the newer one."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from support.factories import record, take
from support.sync_processes import wait_for

from myhealth import stores
from myhealth.common.database import database
from myhealth.common.errors import SchemaMismatch, Unavailable
from myhealth.common.settings import Settings
from myhealth.embedded.postgres import Postgres
from myhealth.reports.writer import ReportWriter
from myhealth.sync.runner import restart_epoch
from myhealth.sync.verify import verify

OURS = stores._migration_number(stores._names()[-1])
LATER = "9901_later"
MIGRATION = """
from myhealth.migrations import run_sql
up = run_sql("alter table checkups add column later text")
down = run_sql("alter table checkups drop column later")
"""


@pytest.fixture
def own(postgres: Postgres, settings: Settings) -> Iterator[Settings]:
    """Settings of a migrated database of its own."""
    postgres.make_database("myhealth_test_versions", anew=True)
    found = dataclasses.replace(settings, database_url=postgres.url_of("myhealth_test_versions"))
    stores.bind_database(found)
    stores.migrate(found)
    yield found
    stores.close_database()


@pytest.fixture
def newer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """Return a context in which this process is the next release, with one migration more."""
    folder = tmp_path / "migrations"
    shutil.copytree(stores.MIGRATIONS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / f"{LATER}.py").write_text(MIGRATION)

    @contextlib.contextmanager
    def context(oldest_program: int = OURS) -> Iterator[None]:
        with monkeypatch.context() as patch:
            patch.setattr(stores, "MIGRATIONS", folder)
            patch.setattr(stores, "OLDEST_PROGRAM", oldest_program)
            yield

    return context


def environ(settings: Settings) -> dict[str, str]:
    return {"MYHEALTH_DATABASE_URL": settings.database_url, "MYHEALTH_MONGO_URL": settings.mongo_url}


@pytest.mark.process
def test_the_release_before_works_with_the_schema_of_the_next(own: Settings, newer: Any, run_cli: Any) -> None:
    """It starts, serves, and can be started again; its own `migrate` refuses to touch what it does not know."""
    with newer():
        assert stores.migrate(own) == [("applied", LATER)]
    stores.close_database()
    stores.open_database(own)
    assert stores.check_ready(own.database_url)["schema"] == 9901
    assert run_cli("users", "list", env=environ(own)).returncode == 0
    for words in (["migrate"], ["migrate", "--status"], ["migrate", "--check"], ["migrate", "--to", "4", "--yes"]):
        done = run_cli(*words, env=environ(own))
        assert done.returncode == 78, done.stdout + done.stderr
        assert f"the database is at migration 9901, newer than this program ({OURS}): upgrade" in done.stderr
        assert "Traceback" not in done.stderr
    assert stores.schema_numbers() == (9901, OURS)


@pytest.mark.process
def test_a_schema_that_takes_something_away_is_refused_by_the_release_before(
    own: Settings, newer: Any, run_cli: Any
) -> None:
    with newer(9901):
        stores.migrate(own)
    with pytest.raises(SchemaMismatch, match=r"newer than this program"):
        stores.check_ready(own.database_url)
    assert run_cli("users", "list", env=environ(own)).returncode == 78


def test_a_roll_back_makes_it_the_schema_of_the_release_before(own: Settings, newer: Any) -> None:
    with newer(9901):
        stores.migrate(own)
        assert stores.migrate(own, OURS) == [("reverted", LATER)]
    assert stores.schema_numbers() == (OURS, OURS)
    stores.require_schema(*stores.schema_numbers())


def test_an_older_sync_does_not_rewrite_the_documents_of_a_newer_one(
    db: Any, people: Any, reports: Any, sync: Any, settings: Settings
) -> None:
    take(record(1))
    sync()
    reports.state.update_one({"_id": "mark"}, {"$set": {"form": 99}, "$unset": {"phase": 1}})
    mark = reports.state.find_one({"_id": "mark"})
    take(record(2))
    for call in (sync, lambda: verify(settings.database_url, ReportWriter(reports), 100, repair=True)):
        with pytest.raises(SchemaMismatch, match="have form 99, newer than this program's") as refused:
            call()
        assert refused.value.exit_code == 78
    assert reports.state.find_one({"_id": "mark"}) == mark
    assert reports.reports.count_documents({}) == 1
    assert restart_epoch(settings.database_url, ReportWriter(reports))  # what the hint says
    assert sync().written >= 2


class LongReader:
    """A transaction that has read check-ups, as pg_dump's does for as long as it works."""

    def __init__(self, settings: Settings) -> None:
        self._connection = psycopg2.connect(settings.database_url, application_name="pg_dump")
        with self._connection.cursor() as cursor:
            cursor.execute("select count(*) from checkups")

    def wait_until_long(self) -> None:
        def is_long() -> bool:
            with self._connection.cursor() as cursor:
                cursor.execute("select clock_timestamp() > now() + interval '1.1 s'")
                return bool(cursor.fetchone()[0])

        wait_for(is_long)

    def end(self) -> None:
        self._connection.close()


def test_uploads_never_wait_behind_a_migration_that_waits(
    own: Settings, newer: Any, caplog: pytest.LogCaptureFixture, people: Any
) -> None:
    """A migration that merely asked for the table's lock would stop everybody who comes after it."""
    stores.close_database()
    stores.open_database(own)
    reader = LongReader(own)
    reader.wait_until_long()
    steps: list[tuple[str, str]] = []
    with newer():
        migration = threading.Thread(target=lambda: steps.extend(stores.migrate(own)))
        migration.start()
        try:
            wait_for(lambda: "waits for" in caplog.text)
            with contextlib.closing(psycopg2.connect(own.database_url)) as writer, writer.cursor() as cursor:
                cursor.execute("set lock_timeout = '1ms'")
                for _ in range(50):
                    cursor.execute("insert into users (username) values ('u' || clock_timestamp())")
                    cursor.execute(
                        "insert into checkups (patient_id, checkup_type, checkup_report, disease)"
                        " values ((select max(id) from users), 'T', '', '')"
                    )
                    writer.commit()
            assert steps == []
        finally:
            reader.end()
            migration.join(60)
    assert steps == [("applied", LATER)]
    assert f"migration {LATER} waits for process " in caplog.text
    assert "(pg_dump), at work since 20" in caplog.text


def test_a_lock_that_nobody_is_seen_to_hold_is_tried_for_again(
    own: Settings, newer: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without pg_read_all_stats, PostgreSQL does not tell since when another role is at work."""
    monkeypatch.setattr(stores, "HOLDER", "select '' where false")
    monkeypatch.setattr(stores, "TABLE_LOCK_S", 0.1)
    monkeypatch.setattr(stores, "STEP_WAIT_S", 0.2)
    reader = LongReader(own)
    with newer():
        with pytest.raises(Unavailable, match=f"migration {LATER} waited 0.2 s for somebody who holds a lock"):
            stores.migrate(own)
        assert database.execute_sql("show lock_timeout").fetchone()[0] == "0"
        monkeypatch.setattr(stores, "STEP_WAIT_S", 60)
        caplog.clear()
        migration = threading.Thread(target=lambda: stores.migrate(own))
        migration.start()
        wait_for(lambda: "somebody who holds a lock" in caplog.text)
        reader.end()
        migration.join(60)
    assert stores.schema_numbers()[0] == 9901


@pytest.mark.process
def test_check_and_status_know_both_stores(own: Settings, newer: Any, run_cli: Any, reports: Any) -> None:
    def state(*words: str) -> tuple[int, str]:
        done = run_cli("migrate", *words, env=environ(own))
        return done.returncode, done.stdout

    assert state("--check") == (0, "")
    code, text = state("--status")
    assert (code, text.count("applied"), "missing" in text) == (0, OURS, False)
    reports.users.drop_index("subject_1")
    assert state("--check") == (1, "")
    code, text = state("--status")
    assert (code, "users.subject_1" in text, text.count("missing")) == (1, True, 1)
    assert state()[0] == 0
    assert state("--check") == (0, "")
    assert state("--check", "--to", str(OURS)) == (0, "")
    code, text = state("--status", "--to", str(OURS - 2))
    assert (code, text.count("would be reverted"), text.count("applied")) == (1, 2, OURS - 2)
    assert stores.schema_numbers()[0] == OURS
    assert state("--check", "--grants")[0] == 2
