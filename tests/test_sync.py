"""The sync takes over everything, once, whatever happens; a comparison of its own says so."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from support.compare import NONE, differences
from support.factories import record, take
from support.sync_processes import Writers

from myhealth.common.errors import MyHealthError, Unavailable
from myhealth.common.settings import Settings
from myhealth.reports.filters import list_reports
from myhealth.reports.repository import BROWSED_BY, ReportRepository
from myhealth.reports.user_search import Search, find_people
from myhealth.reports.writer import ReportWriter
from myhealth.sync import source
from myhealth.sync.checkpoint import Checkpoint, History, Position, epoch_ended, from_document, to_document
from myhealth.sync.runner import Pass, restart_epoch, run_pass
from myhealth.sync.source import Source
from myhealth.sync.verify import verify

pytestmark = pytest.mark.usefixtures("people")


@pytest.fixture
def sync(settings: Settings, reports: ReportRepository):
    def one_pass(**options: Any) -> Pass:
        return run_pass(settings.database_url, ReportWriter(reports), settings, **options)

    return one_pass


def test_a_first_pass_takes_over_everything_and_a_second_has_nothing_to_do(db, reports, sync) -> None:
    take(*[record(i) for i in range(30)])
    done = sync()
    assert (done.read, done.written, done.mark) == (36, 36, 30)
    assert differences(db, reports) == NONE
    again = sync()
    assert (again.read, again.written, again.removed, again.new_epoch) == (0, 0, 0, "")


def test_a_first_pass_makes_the_index_behind_the_reports_even_if_it_was_killed(db, reports, sync, settings) -> None:
    take(*[record(i) for i in range(300)])
    target = Watched(reports)
    with pytest.raises(Killed):
        run_pass(settings.database_url, target, small_batches(settings))
    assert set(target.seen) == {False}
    assert reports.count()[0] > 0
    sync()
    assert is_browsed_by_index(reports)
    assert differences(db, reports) == NONE


def test_a_store_that_holds_reports_keeps_its_index(db, reports, settings) -> None:
    take(record(1))
    reports.reports.insert_one({"_id": 99, "patient_id": 1, "epoch": 0, "revision": 1})
    target = Watched(reports)
    run_pass(settings.database_url, target, settings)
    assert set(target.seen) == {True}
    assert differences(db, reports) == NONE


class Killed(Exception):
    pass


class Watched(ReportWriter):
    """Looks at each batch of reports whether their index is there; the third or so is its death."""

    def __init__(self, repository: ReportRepository) -> None:
        super().__init__(repository)
        self.repository, self.seen = repository, list[bool]()

    def insert(self, kind: str, documents: Any) -> Any:
        if kind == "checkup":
            if len(self.seen) >= 2:
                raise Killed
            self.seen.append(is_browsed_by_index(self.repository))
        return super().insert(kind, documents)


def is_browsed_by_index(reports: ReportRepository) -> bool:
    return BROWSED_BY in [list(index["key"].items()) for index in reports.reports.list_indexes()]


def small_batches(settings: Settings) -> Settings:
    return dataclasses.replace(settings, sync=dataclasses.replace(settings.sync, batch_rows=50))


def test_edits_deletes_and_renames_in_plain_sql_are_taken_over(db, reports, sync) -> None:
    take(*[record(i) for i in range(10)])
    sync()
    db("update checkups set checkup_report = 'edited' where id = 3")
    db("delete from checkups where id in (4, 5)")
    db("update users set full_name = 'Savita P.', username = 'savita.p' where username = 'savita'")
    done = sync()
    assert (done.read, done.written, done.removed) == (4, 2, 2)
    assert differences(db, reports) == NONE
    db("delete from users where username = 'bholanath'")
    assert sync().removed == 9
    assert differences(db, reports) == NONE
    assert reports.count() == (0, 5)


def test_a_row_that_commits_late_is_not_skipped(db, reports, sync, connect) -> None:
    """What a cursor over ids loses: a lower id becomes visible after a higher one was taken over."""
    late = connect()
    with late.cursor() as cursor:
        cursor.execute("insert into checkups (patient_id, checkup_type, checkup_report, disease)"
                       " values (1, 'LATE', '', '') returning id")  # fmt: skip
        late_id = cursor.fetchone()[0]
    take(record(1))
    sync()
    assert reports.report(late_id) is None
    late.commit()
    sync()
    assert reports.report(late_id)["checkup_type"] == "LATE"
    assert differences(db, reports) == NONE


def test_nothing_above_the_horizon_is_taken_before_its_time(db, reports, sync, connect) -> None:
    sync()
    holding = connect()
    with holding.cursor() as cursor:
        cursor.execute("insert into machines (serial) values ('slow')")
    take(record(1))
    assert sync().read == 0, "an older transaction is still open"
    holding.rollback()
    assert sync().read == 1
    assert differences(db, reports) == NONE


def test_a_reader_holds_nothing_back(db, reports, sync, connect) -> None:
    sync()
    reader = connect()
    with reader.cursor() as cursor:
        cursor.execute("select count(*) from checkups")
    take(record(1))
    assert sync().read == 1


def test_what_comes_while_an_epoch_is_scanned_comes_by_the_feed(db, reports, sync, settings, monkeypatch) -> None:
    """Rows behind and before the scan's place are edited, deleted and added between two of its slices."""
    monkeypatch.setattr(source, "SLICE_ROWS", 10)
    monkeypatch.setattr("myhealth.sync.runner.SLICE_ROWS", 10)
    take(*[record(i) for i in range(40)])
    real = Source.scan
    slices = []

    def scan(self, table: str, after: int, batch_rows: int):
        if table == "checkups":
            slices.append(after)
            if len(slices) == 3:
                db("update checkups set disease = 'edited' where id in (2, 39)")
                db("delete from checkups where id in (3, 38)")
                take(record(99))
        return real(self, table, after, batch_rows)

    monkeypatch.setattr(Source, "scan", scan)
    sync()
    assert len(slices) >= 4
    sync()
    assert differences(db, reports) == NONE


@pytest.mark.parametrize("batch", [1, 7, 2000])
def test_the_feed_goes_on_within_one_large_transaction(db, reports, sync, settings, monkeypatch, batch: int) -> None:
    """One transaction's rows share their xid: the mark's second half, the id, tells them apart."""
    monkeypatch.setattr(source, "SLICE_ROWS", 15)
    monkeypatch.setattr("myhealth.sync.runner.SLICE_ROWS", 15)
    sync()
    take(*[record(i) for i in range(50)])
    settings = dataclasses.replace(settings, sync=dataclasses.replace(settings.sync, batch_rows=batch))
    assert run_pass(settings.database_url, ReportWriter(reports), settings).read == 50
    assert differences(db, reports) == NONE


def test_a_row_that_was_deleted_and_put_back_is_there(db, reports, sync) -> None:
    take(record(1))
    db("update checkups set disease = 'second'")
    sync()
    db("create temp table kept as select * from checkups")
    db("delete from checkups")
    for _ in range(2):
        db("insert into checkups select * from kept on conflict do nothing")
        sync()
        assert differences(db, reports) == NONE
        db("delete from checkups")
        db("insert into checkups select * from kept")
    sync()
    assert differences(db, reports) == NONE
    db("truncate checkups")
    assert sync().removed == 1


def test_a_lost_mark_begins_a_new_epoch_and_heals_everything(db, reports, sync) -> None:
    take(*[record(i) for i in range(5)])
    sync()
    reports.state.delete_many({})
    reports.reports.delete_one({"_id": 2})
    reports.reports.update_one({"_id": 3}, {"$set": {"disease": "tampered"}})
    reports.reports.insert_one({"_id": 77, "patient_id": 1, "epoch": 1, "revision": 1})
    done = sync()
    assert (done.epoch, done.new_epoch, done.removed) == (2, "there is no mark", 1)
    assert differences(db, reports) == NONE


def test_a_store_that_another_version_filled_is_filled_anew(db, reports, sync, settings) -> None:
    """The first version told no form, and its users had no keys of their full names; a later one may tell another."""
    take(*[record(i) for i in range(5)])
    db("update users set full_name = 'Bholanath Joshi' where username = 'bholanath'")
    sync()
    for other in ({"$unset": {"form": 1}}, {"$set": {"form": 99}}):
        reports.users.update_many({}, {"$unset": {"name_keys": 1}})
        reports.state.update_one({"_id": "mark"}, other)
        with pytest.raises(MyHealthError, match="the form of another version"):
            verify(settings.database_url, ReportWriter(reports), 100)
        done = sync()
        assert done.new_epoch == "the documents have the form of another version of MyHealth"
        assert differences(db, reports) == NONE
        assert verify(settings.database_url, ReportWriter(reports), 100).differences == 0
        assert [each["username"] for each in find_people(reports, Search("joshi"))] == ["bholanath"]
        assert sync().new_epoch == ""


def test_restart_reads_everything_anew(db, reports, sync, settings) -> None:
    take(record(1))
    sync()
    reports.reports.update_one({"_id": 1}, {"$set": {"disease": "tampered"}})
    assert restart_epoch(settings.database_url, ReportWriter(reports))
    assert sync().epoch == 2
    assert differences(db, reports) == NONE


@pytest.mark.parametrize("dropped", ["reports", "users"])
@pytest.mark.parametrize("and_made_anew", [False, True])
def test_a_dropped_collection_is_filled_anew(db, reports, sync, dropped: str, and_made_anew: bool) -> None:
    take(record(1), record(2))
    sync()
    indexes = reports.reports.index_information()
    reports._database[dropped].drop()
    if and_made_anew:
        reports._database.create_collection(dropped)
    done = sync()
    assert done.new_epoch == "collections of the report store were dropped or made anew"
    assert differences(db, reports) == NONE
    assert reports.reports.index_information() == indexes
    assert sync().new_epoch == ""


def test_a_mark_older_than_its_reports_does_not_hide_behind_their_epoch(db, reports, sync, settings) -> None:
    """The marks alone were restored, from a time before the epoch that the reports are of."""
    take(record(1))
    sync()
    older = reports.state.find_one({"_id": "mark"})
    for _ in range(2):
        restart_epoch(settings.database_url, ReportWriter(reports))
        sync()
    db("update checkups set disease = 'edited'")
    sync()
    reports.reports.update_one({"_id": 1}, {"$set": {"disease": "tampered"}})
    reports.state.replace_one({"_id": "mark"}, {**older, "history": {**older["history"], "system_identifier": "1"}})
    assert sync().epoch == 4
    assert differences(db, reports) == NONE


def test_an_earlier_epoch_goes_slice_by_slice(db, reports, sync, settings, monkeypatch) -> None:
    monkeypatch.setattr("myhealth.reports.epochs.SWEEP_IDS", 3)
    take(*[record(i) for i in range(10)])
    sync()
    for id_ in (0, -5, 4.5, 20, 21, 22, 23, 24, "text", 2**40):
        reports.reports.insert_one({"_id": id_, "epoch": 1, "revision": 1, "patient_id": 1})
    restart_epoch(settings.database_url, ReportWriter(reports))
    done = sync()
    assert (done.epoch, done.removed) == (2, 10)
    assert differences(db, reports) == NONE


def test_a_report_that_becomes_another_patients_moves_to_him(db, reports, sync, settings) -> None:
    take(record(1), record(2), record(3))
    sync()
    savita = db("select id from users where username = 'savita'")[0][0]
    db("update checkups set patient_id = %s where id in (1, 2)", savita)
    sync()
    assert differences(db, reports) == NONE
    assert {r["patient_id"] for r in reports.reports.find({"_id": {"$in": [1, 2]}})} == {savita}
    moved = reports.report(1)
    back = {**moved, "patient_id": 77, "revision": moved["revision"] + 1}
    assert ReportWriter(reports)._replace("checkup", [back]).written == 1, "as a runner beside us may find it"
    assert ReportWriter(reports).put("checkup", [moved]).unchanged == 1, "an older version is nobody's any more"
    assert reports.report(1)["patient_id"] == 77
    assert reports.count()[0] == 3


def test_an_emptied_report_store_is_filled_anew(db, reports, sync) -> None:
    take(record(1))
    sync()
    reports.drop()
    sync()
    assert differences(db, reports) == NONE


def test_a_database_that_was_set_back_in_place_is_noticed(db, reports, sync, settings, postgres, tmp_path) -> None:
    """A cold copy of the data folder has the same system, timeline and tables, and later ids that mean other things."""
    import shutil

    from myhealth.common.database import database

    take(*[record(i) for i in range(5)])
    sync()
    database.close_all()
    postgres.stop()
    copy = postgres.folder / "copy"
    shutil.copytree(postgres.data, copy, symlinks=True)
    postgres.ensure()
    take(*[record(i, patient="savita", disease="first life") for i in range(10, 30)])
    sync()
    database.close_all()
    postgres.stop()
    shutil.rmtree(postgres.data)
    copy.rename(postgres.data)
    if postgres.owner():
        for path in (postgres.data, *postgres.data.rglob("*")):
            os.chown(path, *postgres.owner(), follow_symlinks=False)
    postgres.ensure()
    for i in range(40):
        take(record(100 + i, disease="second life"))
    done = sync()
    assert done.new_epoch == "PostgreSQL was set back to before the last pass"
    assert differences(db, reports) == NONE


def test_a_report_store_from_an_older_backup_catches_up_by_itself(db, reports, sync) -> None:
    take(record(1))
    sync()
    older = {name: list(reports._database[name].find()) for name in ("reports", "users", "sync_state")}
    take(record(2))
    db("update checkups set disease = 'edited' where id = 1")
    db("update users set full_name = 'x' where username = 'savita'")
    sync()
    for name, documents in older.items():
        reports._database[name].delete_many({})
        reports._database[name].insert_many(documents)
    done = sync()
    assert (done.new_epoch, done.read) == ("", 3)
    assert differences(db, reports) == NONE


def test_what_a_dying_runner_still_writes_does_not_bring_a_deleted_report_back(db, reports, sync, settings) -> None:
    """Its session is gone, another runner has carried the deletion out, then its last write arrives."""
    take(record(1), record(2))
    late: list = []
    writer = ReportWriter(reports)
    real = writer.insert

    def dying(kind, documents):
        late.extend(dict(document) for document in documents)
        raise KeyboardInterrupt

    writer.insert = dying
    with pytest.raises(KeyboardInterrupt):
        run_pass(settings.database_url, writer, settings)
    db("delete from checkups where id = 1")
    sync()
    real("checkup", late)
    assert reports.report(1) is not None
    sync()
    assert differences(db, reports) == NONE


def test_a_runner_that_was_taken_over_moves_the_mark_no_more(db, reports, sync, settings) -> None:
    take(record(1))
    writer = ReportWriter(reports)
    real = writer.insert

    def slow(kind, documents):
        with Source.opened(settings.database_url) as other:
            assert not other.lock()
        done = real(kind, documents)
        mark = from_document(writer.read_checkpoint())
        ReportWriter(reports).begin(to_document(mark.begun("another", datetime.now(UTC))))
        return done

    writer.insert = slow
    with pytest.raises(Unavailable, match="another sync has taken over"):
        run_pass(settings.database_url, writer, settings)
    sync()
    assert differences(db, reports) == NONE


ODD = {
    "a number of 40 digits": '[{"value": %s}]' % ("9" * 40),
    "a number too small for MongoDB": '[{"value": 1e-7000}]',
    "300 lists in each other": "[" * 300 + "]" * 300,
    "text of 17 MB": '["%s"]' % ("x" * 17_000_000),
}


@pytest.mark.parametrize("name", ODD)
def test_whatever_a_row_holds_it_stops_nothing_and_nothing_outdated_stays(db, reports, sync, name: str) -> None:
    take(record(1), record(2), record(3))
    sync()
    db("update checkups set results = %s where id = 2", ODD[name])
    done = sync()
    assert (done.failures, done.failed[0].id) == (1, 2)
    assert differences(db, reports)["lost"] == [2]
    assert reports.report(2) is None, "an outdated report is worse than a missing one"
    take(record(4))
    assert sync().failures == 0
    assert len(list_reports(reports, reports.user_named("bholanath"), limit=9)) == 3


@pytest.mark.parametrize("value", ["1e20", "6.02e23", "2.5E+19", "9223372036854775807", "2147483648", "-0.0", "1.50"])
def test_numbers_of_any_size_arrive(db, reports, sync, value: str) -> None:
    take(record(1))
    db("update checkups set results = %s where id = 1", f'[{{"value": {value}}}]')
    assert sync().failures == 0
    (stored,) = db("select results->0->>'value' from checkups")[0]
    assert str(reports.report(1)["results"][0]["value"]) == stored


def test_a_refusal_by_mongodb_itself_is_set_aside(db, reports, sync) -> None:
    reports._database.command("collMod", "reports", validator={"disease": {"$ne": "bad"}})
    take(record(1), record(2, disease="bad"), record(3))
    done = sync()
    assert [(failure.kind, failure.id) for failure in done.failed] == [("checkup", 2)]
    reports._database.command("collMod", "reports", validator={})
    assert sync(retry_failed=True).written == 1
    assert differences(db, reports) == NONE


HERE = History("7", 1, "x")
MARK = Checkpoint(
    HERE, 3, "steady", 100, "w", feeds=dict.fromkeys(("tombstones", "users", "checkups"), Position(120, 9))
)


@pytest.mark.parametrize(
    ("mark", "history", "next_xid", "witnessed", "why"),
    [
        (MARK, HERE, 121, True, ""),
        (MARK, HERE, 5000, True, ""),
        (None, HERE, 121, False, "there is no mark"),
        (MARK, History("8", 1, "x"), 121, True, "another PostgreSQL cluster"),
        (MARK, History("7", 2, "x"), 121, True, "has branched"),
        (MARK, History("7", 1, "y"), 121, True, "made anew"),
        (MARK, HERE, 120, True, "PostgreSQL's future"),
        (dataclasses.replace(MARK, phase="scan", horizon=500), HERE, 200, True, "PostgreSQL's future"),
        (MARK, HERE, 121, False, "set back to before the last pass"),
        (dataclasses.replace(MARK, form=1), HERE, 121, True, "the form of another version"),
    ],
)
def test_a_new_epoch_begins_where_transaction_ids_mean_something_else(
    mark, history, next_xid: int, witnessed: bool, why: str
) -> None:
    found = epoch_ended(mark, history, next_xid, witnessed)
    assert why in found
    assert bool(found) == bool(why)


def test_another_store_is_another_history() -> None:
    mark = dataclasses.replace(MARK, store="a/b")
    assert epoch_ended(mark, HERE, 121, True, "a/b") == epoch_ended(mark, HERE, 121, True) == ""
    assert "dropped or made anew" in epoch_ended(mark, HERE, 121, True, "a/c")


def test_a_mark_outlives_its_way_through_the_store(reports) -> None:
    writer = ReportWriter(reports)
    begun = MARK.begun("run", datetime(2026, 11, 20, tzinfo=UTC))
    for mark in (MARK, begun, begun.begun("other", datetime(2026, 11, 20, tzinfo=UTC))):
        writer.begin(to_document(mark))
        assert from_document(writer.read_checkpoint()) == mark
    for broken in ({}, {"epoch": "x"}, {**to_document(MARK), "feeds": {}}, None):
        assert from_document(broken) is None


def test_a_second_runner_says_so_and_does_nothing(db, reports, sync, settings, run_cli) -> None:
    take(record(1))
    with Source.opened(settings.database_url) as first:
        assert first.lock()
        assert sync().locked_out
        done = run_cli("sync", "--once")
        assert (done.returncode, done.stdout) == (0, "")
        assert "Another sync is at work" in done.stderr
    assert sync().read == 7


def test_a_document_that_is_refused_is_told_and_the_rest_goes_on(db, reports, sync, run_cli) -> None:
    take(*[record(i) for i in range(3)])
    db("update checkups set results = %s where id = 2", '[{"value": %s}]' % ("9" * 40))
    done = run_cli("sync", "--once")
    assert done.returncode == 1
    assert "MongoDB refused checkup 2: BSON cannot hold it" in done.stderr
    assert differences(db, reports)["lost"] == [2]
    assert run_cli("sync", "--once").returncode == 0, "it is told once"
    (failure,) = ReportWriter(reports).failures()
    assert (failure["kind"], failure["row_id"], failure["tries"]) == ("checkup", 2, 1)
    assert run_cli("sync", "--once", "--retry-failed").returncode == 1
    assert ReportWriter(reports).failures()[0]["tries"] == 2
    db("update checkups set results = '[]' where id = 2")
    sync()
    assert differences(db, reports) == NONE
    assert ReportWriter(reports).failures() == []


def test_once_says_nothing_when_all_is_well(db, reports, run_cli) -> None:
    take(record(1))
    done = run_cli("sync", "--once")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    told = run_cli("-v", "sync", "--once").stderr
    assert told.startswith("sync read=0 written=0 unchanged=0 removed=0 failed=0 mark=1 secs=0.")


@pytest.mark.parametrize("store", ["MYHEALTH_DATABASE_URL", "MYHEALTH_MONGO_URL"])
def test_a_store_that_is_away_ends_it_with_75(settings, run_cli, store: str) -> None:
    away = {
        "MYHEALTH_DATABASE_URL": "postgresql://127.0.0.1:1/x",
        "MYHEALTH_MONGO_URL": "mongodb://127.0.0.1:1/x?serverSelectionTimeoutMS=200",
    }
    here = {"MYHEALTH_DATABASE_URL": settings.database_url, "MYHEALTH_MONGO_URL": settings.mongo_url}
    done = run_cli("sync", "--once", env={**here, store: away[store]})
    assert done.returncode == 75
    assert "is away" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_the_loop_works_until_it_is_told_to_end(db, reports, settings, how: signal.Signals) -> None:
    environ = {
        **os.environ,
        "MYHEALTH_DATABASE_URL": settings.database_url,
        "MYHEALTH_MONGO_URL": settings.mongo_url,
        "MYHEALTH_SYNC_INTERVAL_S": "600",
    }
    words = [sys.executable, "-m", "cli", "sync", "--interval", "0.2"]
    process = subprocess.Popen(words, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        take(record(1))
        deadline = time.monotonic() + 30
        while (
            not (ReportWriter(reports).read_checkpoint() or {}).get("last_checkup_id") and time.monotonic() < deadline
        ):
            time.sleep(0.05)
        while not ReportWriter(reports).read_checkpoint()["finished"] and time.monotonic() < deadline:
            time.sleep(0.05)
        take(record(2))
        while reports.count()[0] < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        begun = time.monotonic()
        process.send_signal(how)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0
    assert time.monotonic() - begun < 2
    assert out == ""
    lines = err.splitlines()
    assert "sync starts, every 0.2 s" in lines[0]
    assert lines[-1].endswith("sync ended")
    assert sum("sync read=1 written=1" in line for line in lines) >= 1
    assert differences(db, reports) == NONE


@pytest.mark.long
def test_no_row_is_lost_with_six_writers(db, reports, sync, settings) -> None:
    """Slow commits, roll-backs, edits, deletes, renames in plain SQL, while passes run one after another."""
    passes, deadline = 0, time.monotonic() + 6
    with Writers(settings.database_url):
        while time.monotonic() < deadline or passes < 10:
            sync()
            passes += 1
    sync()
    assert db("select count(*) from checkups")[0][0] > 100
    assert differences(db, reports) == NONE


@pytest.mark.parametrize("step", ["read_checkpoint", "begin", "insert", "write_checkpoint"])
def test_it_loses_nothing_when_killed_after(db, reports, sync, settings, step: str) -> None:
    """A real process kills itself with -9 right after the step, again and again; the last pass is left alone."""
    take(*[record(i) for i in range(40)])
    program = f"""
import os, signal, sys
from myhealth.common.settings import load
from myhealth.reports.writer import ReportWriter
from myhealth.reports.repository import BROWSED_BY, ReportRepository
from myhealth.reports.writer import ReportWriter
from myhealth.sync.runner import run_pass
settings = load()
real, calls = ReportWriter.{step}, [0]
def dying(self, *args, **options):
    done = real(self, *args, **options)
    calls[0] += 1
    if calls[0] >= int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    return done
ReportWriter.{step} = dying
run_pass(settings.database_url, ReportWriter(ReportRepository.connect(settings.mongo_url)), settings)
"""
    own = {"MYHEALTH_DATABASE_URL": settings.database_url, "MYHEALTH_MONGO_URL": settings.mongo_url}
    environ = {**os.environ, **own, "MYHEALTH_SYNC_BATCH_ROWS": "7"}
    for calls in (1, 2, 3):
        done = subprocess.run([sys.executable, "-c", program, str(calls)], env=environ, timeout=60)
        assert done.returncode in (-signal.SIGKILL, 0)
        db("update checkups set disease = %s where id = %s", str(calls), calls)
        db("delete from checkups where id = %s", 10 + calls)
    sync()
    assert differences(db, reports) == NONE


@pytest.mark.parametrize("analyzed", [True, False])
def test_the_feed_is_read_by_its_index(db, settings, analyzed: bool) -> None:
    """The scan, each feed, and the look whether there is anything: also where nothing was analyzed since a load."""
    db("insert into checkups (patient_id, checkup_type, checkup_report, disease) select 1, 'T', '', '' from"
       " generate_series(1, 20000)")  # fmt: skip
    db("insert into users (username) select 'u' || n from generate_series(1, 5000) n")
    db("insert into tombstones (kind, row_id, revision) select 'checkup', n, 1 from generate_series(1, 5000) n")
    for table in ("checkups", "users", "tombstones") if analyzed else ():
        db(f"analyze {table}")
    last = db("select max(changed_in)::text::bigint from checkups")[0][0]
    for table in source.COLUMNS:
        forms = {"columns": source.COLUMNS[table], "table": table, "join": source.JOINS[table]}
        feed = source.FEED.format(**forms)
        plan = explain(settings, feed, {"xid": last - 1, "id": 0, "horizon": last + 9, "limit": source.SLICE_ROWS})
        check_plan(plan, table, f"{table}_feed")
        if table != "tombstones":
            scan = source.SCAN.format(**forms)
            check_plan(explain(settings, scan, {"id": 5, "limit": source.SLICE_ROWS}), table, f"{table}_pkey")
        pending = f"select {source.PENDING.format(table=table)}"
        values = {f"{table}_xid": last, f"{table}_id": 2**63 - 1, "horizon": last + 9}
        check_plan(explain(settings, pending, values), table, f"{table}_feed")


def check_plan(plan: str, table: str, index: str) -> None:
    assert f"using {index}" in plan, plan
    assert f"Seq Scan on {table} t" not in plan, plan
    assert "Sort" not in plan, plan


def explain(settings: Settings, sql: str, values: dict) -> str:
    """The plan of a server-side cursor of it, as the sync reads."""
    with source.connect(settings.database_url) as connection, connection.cursor() as cursor:
        cursor.execute("begin")
        cursor.execute(f"explain declare slice cursor for {sql}", values)
        rows = cursor.fetchall()
    connection.close()
    return "\n".join(row[0] for row in rows)


def test_a_new_epoch_only_moves_the_epoch_of_what_says_the_same_already(db, reports, sync, settings) -> None:
    """Reading everything anew leaves no trace in documents that are right, and rights the others, newer ones too."""
    take(*[record(i) for i in range(8)])
    db("update checkups set disease = 'edited' where id in (2, 3)")
    sync()
    reports.reports.update_one({"_id": 1}, {"$set": {"disease": "tampered"}})
    reports.reports.update_one({"_id": 3}, {"$set": {"results": []}, "$inc": {"revision": 5}})
    reports.reports.update_one({"_id": 4}, {"$set": {"epoch": 2}})
    reports.reports.update_one({"_id": 5}, [{"$replaceWith": {"_id": 5, "epoch": 1, "mine": "$disease"}}])
    assert restart_epoch(settings.database_url, ReportWriter(reports))
    done = sync()
    assert (done.epoch, done.read, done.written, done.unchanged) == (3, 14, 14, 0)
    assert differences(db, reports) == NONE
    assert reports.reports.count_documents({"epoch": 3}) == 8
