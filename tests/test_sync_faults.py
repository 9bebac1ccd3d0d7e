"""Faults that the sync survives, with real processes: after any kill, crash or outage both stores agree."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
from support.compare import NONE, asking, differences
from support.factories import PASSWORD, record, take
from support.servers import crash, running_apis
from support.sync_processes import FILL, TAKEN, Writers, begun, carry_over, ended, syncing, wait_for

from myhealth import stores
from myhealth.common.settings import Settings
from myhealth.reports.writer import ReportWriter
from myhealth.sync.runner import run_pass
from myhealth.sync.source import Source
from myhealth.sync.verify import verify

pytestmark = [pytest.mark.usefixtures("people"), pytest.mark.long]

# SYNC_FAULT_SECONDS=60 for a thorough run.
SECONDS = float(os.environ.get("SYNC_FAULT_SECONDS", "10"))
AWAY_S = 30.0 if "SYNC_FAULT_SECONDS" in os.environ else 5.0


@pytest.fixture(params=["straight", "through the browse API"])
def way(request: pytest.FixtureRequest, settings: Settings) -> Iterator[dict[str, str]]:
    """What the sync's environment says of the way to the report store."""
    if request.param == "straight":
        yield {}
        return
    with running_apis(settings, workers=2) as (upload, browse):
        who = {"MYHEALTH_SYNC_USERNAME": "runner", "MYHEALTH_SYNC_PASSWORD": PASSWORD}
        who["MYHEALTH_SYNC_SIGNING_KEY"] = settings.sync.signing_key
        yield {"MYHEALTH_AUTH_URL": upload, "MYHEALTH_SYNC_REPORTS_API_URL": browse, **who}


def test_a_sync_killed_at_random_moments_loses_nothing_that_six_writers_write(db, reports, settings, way) -> None:
    chance, seen = random.Random(), {"runs": 0, "kills": 0, "kills within a pass": 0, "locked out": 0}
    db(FILL, 4000)
    deadline = time.monotonic() + SECONDS
    with Writers(settings.database_url) as writers:
        while time.monotonic() < deadline or seen["kills within a pass"] < 3:
            seen["runs"] += 1
            anew = seen["runs"] % 6 == 0 and deadline - time.monotonic() > SECONDS / 2  # it would heal what was lost
            words = ["--restart"] if anew else ["--once"]
            with syncing(settings, *words, "--verbose", MYHEALTH_SYNC_BATCH_ROWS="20", **way) as process:
                try:
                    process.wait(chance.uniform(0.2, 1.2))
                except subprocess.TimeoutExpired:
                    process.kill()
                    seen["kills"] += 1
                    mark = reports.state.find_one({"_id": "mark"})
                    seen["kills within a pass"] += bool(mark) and not mark["finished"]
                seen["locked out"] += TAKEN in process.communicate()[1]
    carry_over(settings, **way)
    if (
        way
    ):  # what the browse API was still at for a runner that was killed may come behind the pass; the next rights it
        time.sleep(2)
        carry_over(settings, **way)
    found = differences(db, reports)
    ((rows, highest),) = db("select count(*), max(id) from checkups")
    ((deleted, users),) = db("select count(*) filter (where kind = 'checkup'), count(*) filter (where kind = 'user')"
                             " from tombstones")  # fmt: skip
    print(f"\n{SECONDS:g} s: {seen}, {writers.commits:,} commits, {rows:,} check-ups of {highest:,} ids, {deleted:,}"
          f" and {users} users deleted; {({name: len(ids) for name, ids in found.items()})}")  # fmt: skip
    assert found == NONE
    assert rows > 0
    assert rows + deleted > 1000  # the writers delete users, and with them any number of check-ups
    assert users > 0


def test_verify_gives_no_false_alarm_while_writers_write_and_syncs_are_killed(db, reports, settings) -> None:
    chance, deadline, looks = random.Random(), time.monotonic() + SECONDS / 2, 0
    db(FILL, 1000)
    carry_over(settings)
    with Writers(settings.database_url):
        while time.monotonic() < deadline or looks < 5:
            with syncing(settings, "--once", MYHEALTH_SYNC_BATCH_ROWS="20"):
                until = time.monotonic() + chance.uniform(0.3, 1.2)
                while time.monotonic() < until:
                    assert verify(settings.database_url, ReportWriter(reports), 100).first == []
                    looks += 1


def test_a_cursor_over_ids_loses_rows_of_the_same_writers(db, settings) -> None:
    """Which shows that the writers are what the test above needs."""
    seen, last, deadline = set(), 0, time.monotonic() + 5
    rows: list[Any] = []
    with Writers(settings.database_url):
        while time.monotonic() < deadline:
            seen |= {id_ for (id_,) in rows}
            rows = db("select id from checkups where id > %s order by id", last)
            last = max((id_ for (id_,) in rows), default=last)
    seen |= {id_ for (id_,) in db("select id from checkups where id > %s", last)} | {id_ for (id_,) in rows}
    lost = {id_ for (id_,) in db("select id from checkups")} - seen
    print(f"\n{len(lost)} of {len(seen | lost):,} rows are lost")
    assert lost


# -- a store goes away ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("how", "commits"), [(signal.SIGKILL, "on"), (signal.SIGQUIT, "off")])
def test_postgresql_that_crashes_within_a_pass(db, reports, settings, postgres, how, commits: str) -> None:
    """Also where writers do not wait for the disk, and the crash takes back what others have seen already."""
    chance, met = random.Random(), 0
    db(FILL, 8000)
    for _ in range(3):  # the first while everything is read anew, the others while changes are followed
        at_work = begun(reports)
        with (
            Writers(settings.database_url, options=f"-c synchronous_commit={commits}"),
            syncing(settings, "--once", MYHEALTH_SYNC_BATCH_ROWS="80") as process,
        ):
            wait_for(at_work)
            time.sleep(chance.uniform(0, 0.5))
            met += process.poll() is None
            crash(postgres, how)
            stores.close_database()
            postgres.ensure()
            ended(process)
        db("update checkups set checkup_report = checkup_report || '.'")
    assert met
    carry_over(settings)
    assert differences(db, reports) == NONE


@pytest.fixture
def late_disk(db):
    """What does not ask for the disk stays in memory for long: a crash takes it back for certain."""
    db("alter system set wal_writer_delay = '10s'")
    db("select pg_reload_conf()")
    yield
    stores.close_database()
    db("alter system reset wal_writer_delay")
    db("alter system reset synchronous_commit")
    db("select pg_reload_conf()")


@pytest.mark.parametrize("who", ["one writer", "all, the sync too"])
def test_what_a_crash_takes_back_is_not_taken_for_done(
    db, reports, settings, postgres, monkeypatch, late_disk, who: str
) -> None:
    """A writer that does not wait for the disk deletes a row before the pass comes to it. The mark moves beyond; then a
    crash undoes the deletion, and the row is there again."""
    if who == "all, the sync too":
        db("alter system set synchronous_commit = off")
        db("select pg_reload_conf()")
    take(record(1), record(2))
    run_pass(settings.database_url, ReportWriter(reports), settings)
    db("update checkups set disease = 'edited'")
    follow, write_checkpoint, crashed = Source.follow, ReportWriter.write_checkpoint, []

    def hidden(self: Source, table: str, *values: Any) -> Any:
        if table == "checkups" and not crashed:
            with asking(settings.database_url) as hasty:
                hasty("set synchronous_commit = off")
                hasty("delete from checkups where id = 1")
        return follow(self, table, *values)

    def crashing(self: ReportWriter, mark: Any, run: str) -> None:
        write_checkpoint(self, mark, run)
        if reports.get(2)["disease"] == "edited" and not crashed:
            crashed.append(mark)
            crash(postgres)
            postgres.ensure()

    monkeypatch.setattr(Source, "follow", hidden)
    monkeypatch.setattr(ReportWriter, "write_checkpoint", crashing)
    run_pass(settings.database_url, ReportWriter(reports), settings)
    assert crashed
    stores.close_database()
    carry_over(settings)
    assert differences(db, reports) == NONE


def test_no_transaction_id_below_an_epochs_horizon_comes_twice(
    db, reports, settings, postgres, monkeypatch, late_disk, connect
) -> None:
    """A crash gives out again what was rolled back before it; a row with such an id is not visible to the scan, and
    would lie below where the feed begins."""
    take(record(1))
    insert_witness, begin = Source.insert_witness, ReportWriter.begin

    def burn() -> None:
        with asking(settings.database_url) as other:
            for _ in range(100):
                other("begin; select pg_current_xact_id(); rollback")

    def burning(self: Source) -> str:
        witness = insert_witness(self)
        burn()
        return witness

    def crashing(self: ReportWriter, mark: Any) -> None:
        begin(self, mark)
        crash(postgres)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Source, "insert_witness", burning)
        patch.setattr(ReportWriter, "begin", crashing)
        with pytest.raises(KeyboardInterrupt):
            run_pass(settings.database_url, ReportWriter(reports), settings)
    postgres.ensure()
    stores.close_database()
    late = connect()
    with late.cursor() as cursor:
        cursor.execute(
            "insert into checkups (patient_id, checkup_type, checkup_report, disease) values (1, 'LATE', '', '')"
        )
    for _ in range(3):
        burn()
    run_pass(settings.database_url, ReportWriter(reports), settings)
    late.commit()
    carry_over(settings)
    assert differences(db, reports) == NONE


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_mongodb_that_is_away_for_a_while_within_a_pass(db, reports, settings, mongo, how: signal.Signals) -> None:
    db(FILL, 8000)
    for _ in range(2):  # once while everything is read anew, once while changes are followed
        at_work = begun(reports)
        with (
            Writers(settings.database_url),
            syncing(settings, "--once", "--verbose", MYHEALTH_SYNC_BATCH_ROWS="40") as process,
        ):
            wait_for(at_work)
            assert process.poll() is None
            crash(mongo, how)
            time.sleep(AWAY_S)
            mongo.ensure()
            assert process.poll() is None, "it waits for the store"
            said = ended(process)
            assert process.returncode == 0, said
        db("update checkups set checkup_report = checkup_report || '.'")
    carry_over(settings)
    assert differences(db, reports) == NONE


def test_the_loop_outlives_both_stores_and_ends_when_it_is_told_to(db, reports, settings, postgres, mongo) -> None:
    db(FILL, 3000)
    with syncing(settings, "--interval", "0.2", MYHEALTH_SYNC_BATCH_ROWS="40") as process:
        wait_for(lambda: reports.count()[0] == 3000)
        db("update checkups set disease = 'edited' where id % 2 = 0")
        crash(mongo)
        crash(postgres)
        stores.close_database()
        time.sleep(AWAY_S)
        postgres.ensure()
        mongo.ensure()
        db("delete from checkups where id % 10 = 0")
        wait_for(lambda: differences(db, reports) == NONE)
        db(FILL, 20_000)
        wait_for(lambda: reports.count()[0] > 3000)
        process.send_signal(signal.SIGTERM)
        told_at = time.monotonic()
        said = process.communicate(timeout=60)[1]
        assert time.monotonic() - told_at < 10
    assert process.returncode == 0
    assert "Traceback" not in said  # whether a pass failed and was tried again, or waited for its store, is chance
    assert reports.count()[0] < 20_000, "it ended between two batches"
    carry_over(settings)
    assert differences(db, reports) == NONE


# -- two at once, and the whole system --------------------------------------------------------------------------------


def test_two_at_once_do_not_come_in_each_others_way(db, reports, settings) -> None:
    db(FILL, 4000)
    at_work = begun(reports)
    with syncing(settings, "--once", MYHEALTH_SYNC_BATCH_ROWS="2") as first:
        wait_for(at_work)
        with syncing(settings, "--once", "--verbose") as second:
            assert TAKEN in second.communicate(timeout=60)[1]
        assert first.poll() is None
        assert first.wait(120) == second.returncode == 0
    assert differences(db, reports) == NONE
    with syncing(settings, "--once", "--restart") as first, syncing(settings, "--once", "--restart") as second:
        assert (first.wait(60), second.wait(60)) == (0, 0)
    carry_over(settings)
    assert differences(db, reports) == NONE
