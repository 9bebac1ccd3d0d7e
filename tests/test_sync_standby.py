"""The sync reads from a hot standby, with a correct horizon."""

import dataclasses
import os
import random
import shutil
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg2
import pytest
from support.compare import NONE, differences
from support.factories import record, take
from support.servers import DATABASE_NAME

from myhealth.common.database import database
from myhealth.common.errors import SettingsError, Unavailable
from myhealth.common.settings import Settings
from myhealth.embedded.postgres import Postgres
from myhealth.reports.writer import ReportWriter
from myhealth.sync.runner import run_pass
from myhealth.sync.source import Source

pytestmark = [pytest.mark.usefixtures("people"), pytest.mark.long]


@pytest.fixture(scope="module")
def standby(postgres: Postgres, settings: Settings, tmp_path_factory: Any) -> Iterator[Postgres]:
    """A standby of the tests' PostgreSQL: a copy of its data, made while it was down, which streams from it."""
    database.close_all()
    postgres.stop()
    server = Postgres(postgres.root / "standby")
    server.folder.mkdir(parents=True)
    shutil.copytree(postgres.data, server.data, symlinks=True)
    (server.data / "standby.signal").touch()
    with (server.data / "postgresql.auto.conf").open("a") as file:
        file.write(f"primary_conninfo = 'host={postgres.run} user=myhealth'\nmax_standby_streaming_delay = '2s'\n")
    if server.owner():
        for path in (server.data, *server.data.rglob("*")):
            os.chown(path, *server.owner(), follow_symlinks=False)
    postgres.ensure()
    server.make_database = lambda *args, **options: None  # type: ignore[method-assign] # it cannot, and has it
    server.ensure()
    yield server
    server.stop()


@pytest.fixture
def from_standby(standby: Postgres, settings: Settings) -> Settings:
    sync = dataclasses.replace(settings.sync, source_url=standby.url_of(DATABASE_NAME))
    return dataclasses.replace(settings, sync=sync)


def run(settings: Settings, reports: Any) -> Any:
    return run_pass(settings.database_url, ReportWriter(reports), settings)


def test_what_is_new_changed_and_deleted_is_read_from_it(db, reports, from_standby) -> None:
    with Source.opened(from_standby.database_url, from_standby.sync.source_url) as source:
        assert source._one("select pg_is_in_recovery()") == (True,)
    take(*[record(i) for i in range(30)])
    assert run(from_standby, reports).read == 36
    assert differences(db, reports) == NONE
    db("update checkups set disease = 'edited' where id < 5")
    db("delete from checkups where id = 9")
    caught_up(from_standby)
    assert run(from_standby, reports).read == 5
    assert differences(db, reports) == NONE
    assert run(from_standby, reports).read == 0


def test_a_transaction_that_is_open_at_the_primary_holds_the_standbys_horizon_back(
    db, reports, from_standby, connect
) -> None:
    """Its id is below that of one that has committed, and its rows are to come."""
    run(from_standby, reports)
    late = connect()
    with late.cursor() as cursor:
        cursor.execute("insert into checkups (patient_id, checkup_type, checkup_report, disease) values (1, 'LATE', '', '')"
                       " returning id")  # fmt: skip
        late_id = cursor.fetchone()[0]
    take(record(1))
    caught_up(from_standby)
    assert run(from_standby, reports).read == 0
    late.commit()
    caught_up(from_standby)
    run(from_standby, reports)
    assert reports.get(late_id)["checkup_type"] == "LATE"
    assert differences(db, reports) == NONE


def test_no_row_is_lost_with_six_writers_at_the_primary(db, reports, from_standby) -> None:
    """Slow commits, roll-backs, sub-transactions, edits and deletes, while passes read the standby."""
    ending = threading.Event()

    def write(seed: int) -> None:
        chance = random.Random(seed)
        connection = psycopg2.connect(from_standby.database_url)
        with connection.cursor() as cursor:
            while not ending.is_set():
                for number in range(chance.randint(1, 90 if chance.random() < 0.1 else 4)):
                    cursor.execute(f"savepoint s{number}")  # over 64 of them a standby keeps only their parent
                    cursor.execute("insert into checkups (patient_id, checkup_type, checkup_report, disease)"
                                   " values (1, 'T', '', '')")  # fmt: skip
                cursor.execute("update checkups set disease = %s where id = (select id from checkups offset %s limit 1"
                               " for update skip locked)", (str(chance.random()), chance.randint(0, 50)))  # fmt: skip
                cursor.execute("delete from checkups where id = (select id from checkups offset %s limit 1"
                               " for update skip locked)", (chance.randint(0, 50),))  # fmt: skip
                time.sleep(chance.random() * 0.03)
                connection.rollback() if chance.random() < 0.2 else connection.commit()
        connection.close()

    writers = [threading.Thread(target=write, args=(seed,)) for seed in range(6)]
    for writer in writers:
        writer.start()
    passes, deadline = 0, time.monotonic() + 3
    try:
        while time.monotonic() < deadline or passes < 5:
            run(from_standby, reports)
            passes += 1
    finally:
        ending.set()
        for writer in writers:
            writer.join()
    caught_up(from_standby)
    run(from_standby, reports)
    assert db("select max(id) from checkups")[0][0] > 100, "many were written, and some of them deleted again"
    assert differences(db, reports) == NONE


def test_a_standby_that_follows_no_more_is_not_read(db, reports, from_standby, monkeypatch) -> None:
    monkeypatch.setattr("myhealth.sync.source.STANDBY_WAIT_S", 0.5)
    monkeypatch.setattr("myhealth.sync.pass_result.RETRY_FOR_S", 0.5)
    run(from_standby, reports)
    replica = psycopg2.connect(from_standby.sync.source_url)
    replica.autocommit = True
    replica.cursor().execute("select pg_wal_replay_pause()")
    try:
        ReportWriter(reports).begin({})
        with pytest.raises(Unavailable, match=r"is more than 0\.5 s behind, or no longer follows"):
            run(from_standby, reports)
    finally:
        replica.cursor().execute("select pg_wal_replay_resume()")
        replica.close()
    monkeypatch.undo()
    run(from_standby, reports)
    assert differences(db, reports) == NONE


def test_what_is_no_standby_is_refused(db, reports, from_standby, settings) -> None:
    itself = dataclasses.replace(settings, sync=dataclasses.replace(settings.sync, source_url=settings.database_url))
    with pytest.raises(SettingsError, match="is not a standby"):
        run(itself, reports)
    with pytest.raises(SettingsError, match="database_url is a standby in recovery"):
        run_pass(from_standby.sync.source_url, ReportWriter(reports), settings)


def caught_up(settings: Settings) -> None:
    """Waits until the standby has replayed all that the primary has written by now."""
    primary, replica = psycopg2.connect(settings.database_url), psycopg2.connect(settings.sync.source_url)
    primary.autocommit = replica.autocommit = True
    with primary.cursor() as at, replica.cursor() as behind:
        at.execute("select pg_current_wal_insert_lsn()::text")
        (until,) = at.fetchone()
        deadline = time.monotonic() + 30
        while True:
            behind.execute("select pg_last_wal_replay_lsn() >= %s::pg_lsn", (until,))
            if behind.fetchone() == (True,):
                break
            assert time.monotonic() < deadline
            time.sleep(0.02)
    primary.close()
    replica.close()
