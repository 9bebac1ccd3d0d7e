"""The sync copies every change once, in spite of faults; an independent comparison checks it."""

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

from myhealth.common.settings import Settings
from myhealth.reports.repository import BROWSED_BY, ReportRepository
from myhealth.reports.writer import ReportWriter
from myhealth.sync import rows, source
from myhealth.sync.runner import run_pass
from myhealth.sync.source import Source

pytestmark = pytest.mark.usefixtures("people")


def test_a_first_pass_takes_over_everything_and_a_second_has_nothing_to_do(db, reports, sync) -> None:
    take(*[record(i) for i in range(30)])
    done = sync()
    assert (done.read, done.written, done.last_checkup_id) == (36, 36, 30)
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


def test_a_value_outside_its_range_is_abnormal_without_a_flag(db, reports, sync) -> None:
    take(record(1), record(2), record(3))
    for id_, value in ((1, 150), (2, 60), (3, 100)):
        db("update checkups set results = %s where id = %s", f'[{{"value": {value}, "low": 90, "high": 120}}]', id_)
    done = sync()
    assert (done.read, done.quarantined) == (9, [])
    assert [reports.reports.find_one({"_id": id_})["abnormal"] for id_ in (1, 2, 3)] == [True, True, False]
    assert differences(db, reports) == NONE


def test_a_report_is_marked_while_a_value_is_far_outside_its_range(db, reports, sync) -> None:
    far = {**record(1)["results"][0], "value": 182}
    take(record(1, results=[far]), record(2), record(3, results=[{**far, "value": 150, "flag": "HH"}]))
    sync()
    assert [reports.reports.find_one({"_id": id_}).get("far") for id_ in (1, 2, 3)] == [True, None, True]
    assert differences(db, reports) == NONE
    db("update checkups set results = jsonb_set(results, '{0,value}', '128') where id = 1")
    sync()
    assert "far" not in reports.reports.find_one({"_id": 1})
    assert differences(db, reports) == NONE


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
    assert reports.get(late_id) is None
    late.commit()
    sync()
    assert reports.get(late_id)["checkup_type"] == "LATE"
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
    take(*[record(i) for i in range(40)])
    real = Source._slice
    slices = []

    def read_slice(self, query: str, table: str, values: dict, batch_rows: int):
        if table == "checkups" and query == source.SCAN:
            slices.append(values["id"])
            if len(slices) == 3:
                db("update checkups set disease = 'edited' where id in (2, 39)")
                db("delete from checkups where id in (3, 38)")
                take(record(99))
        return real(self, query, table, values, batch_rows)

    monkeypatch.setattr(Source, "_slice", read_slice)
    sync()
    assert len(slices) >= 4
    sync()
    assert differences(db, reports) == NONE


@pytest.mark.parametrize("batch", [1, 7, 2000])
def test_the_feed_goes_on_within_one_large_transaction(db, reports, sync, settings, monkeypatch, batch: int) -> None:
    """One transaction's rows share their xid: the mark's second half, the id, tells them apart."""
    monkeypatch.setattr(source, "SLICE_ROWS", 15)
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
    db("truncate checkups cascade")
    assert sync().removed == 1


ODD = {
    "a number of 40 digits": ("results", '[{"value": %s}]' % ("9" * 40)),
    "a number too small for MongoDB": ("results", '[{"value": 1e-7000}]'),
    "300 lists in each other": ("results", "[" * 300 + "]" * 300),
    "text of 17 MB": ("results", '["%s"]' % ("x" * 17_000_000)),
    "a moment of the year 10000": ("taken_until", "10000-01-01 00:00Z"),
    "a moment before Christ": ("issued_at", "0044-03-15 00:00Z BC"),
    "the end of time": ("taken_until", "infinity"),
}


@pytest.mark.parametrize("name", ODD)
def test_whatever_a_row_holds_it_stops_nothing_and_nothing_outdated_stays(db, reports, sync, name: str) -> None:
    take(record(1), record(2), record(3))
    sync()
    column, value = ODD[name]
    db(f"update checkups set {column} = %s where id = 2", value)
    done = sync()
    assert (done.quarantined_count, done.quarantined[0].id) == (1, 2)
    assert differences(db, reports)["lost"] == [2]
    assert reports.get(2) is None, "an outdated report is worse than a missing one"
    take(record(4))
    assert sync().quarantined_count == 0
    found = reports.find(reports.people.find_by_username("bholanath"), limit=9)
    assert sorted(report["_id"] for report in found) == [1, 3, 4]


def test_of_the_facts_that_few_reports_have_each_arrives_in_its_type_and_no_other(db, reports, sync) -> None:
    take(record(1), record(2), record(3))
    db("update checkups set status = 'preliminary', taken_until = '2026-11-20T10:00:00.125+05:30' where id = 1")
    db("""update checkups set taken_offset = 330, details = '{"notes": [{"text": "x"}], "n": 5.10}' where id = 2""")
    sync()
    assert differences(db, reports) == NONE
    first, second, third = (reports.get(id_) for id_ in (1, 2, 3))
    assert first["taken_until"] == datetime(2026, 11, 20, 4, 30, 0, 125_000, UTC)
    assert (str(second["details"]["n"]), second["taken_offset"]) == ("5.10", 330)
    assert first.keys() - third.keys() == {"status", "taken_until"}
    assert second.keys() - third.keys() == {"taken_offset", "details"}


@pytest.mark.parametrize("value", ["1e20", "6.02e23", "2.5E+19", "9223372036854775807", "2147483648", "-0.0", "1.50"])
def test_numbers_of_any_size_arrive(db, reports, sync, value: str) -> None:
    take(record(1))
    db("update checkups set results = %s where id = 1", f'[{{"value": {value}}}]')
    assert sync().quarantined_count == 0
    (stored,) = db("select results->0->>'value' from checkups")[0]
    assert str(reports.get(1)["results"][0]["value"]) == stored


def test_a_refusal_by_mongodb_itself_is_set_aside(db, reports, sync) -> None:
    reports._database.command("collMod", "reports", validator={"disease": {"$ne": "bad"}})
    take(record(1), record(2, disease="bad"), record(3))
    done = sync()
    assert [(failure.kind, failure.id) for failure in done.quarantined] == [("checkup", 2)]
    reports._database.command("collMod", "reports", validator={})
    assert sync(retry_quarantined=True).written == 1
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
    assert db("select max(id) from checkups")[0][0] > 100, "many were written, and most of them deleted again"
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
    for table in ("checkups", "users", "tombstones"):  # autovacuum would analyze some of them in between
        db(f"alter table {table} set (autovacuum_enabled = off)")
    db("insert into checkups (patient_id, checkup_type, checkup_report, disease) select 1, 'T', '', '' from"
       " generate_series(1, 20000)")  # fmt: skip
    db("insert into users (username) select 'u' || n from generate_series(1, 5000) n")
    db("insert into tombstones (kind, row_id, revision) select 'checkup', n, 1 from generate_series(1, 5000) n")
    for table in ("checkups", "users", "tombstones") if analyzed else ():
        db(f"analyze {table}")
    last = db("select max(changed_in)::text::bigint from checkups")[0][0]
    for table in rows.SELECTED:
        forms = {"columns": rows.SELECTED[table], "table": table, "join": rows.JOINS[table]}
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
    assert "Sort" not in plan.split("SubPlan")[0], plan  # a user's few identifiers are sorted


def explain(settings: Settings, sql: str, values: dict) -> str:
    """The plan of a server-side cursor of it, as the sync reads."""
    with source.connect(settings.database_url) as connection, connection.cursor() as cursor:
        cursor.execute("begin")
        cursor.execute(f"explain declare slice cursor for {sql}", values)
        rows = cursor.fetchall()
    connection.close()
    return "\n".join(row[0] for row in rows)
