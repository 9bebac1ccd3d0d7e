"""`verify` finds every difference and reports no false one while writers and the sync work; `--repair` mends all."""

import contextlib
import json
import random
import threading
import time
from typing import Any

import psycopg2.errors
import pytest
from bson import ObjectId
from support.compare import NONE, differences
from support.factories import record, take

from myhealth.common.errors import MyHealthError, Unavailable
from myhealth.common.settings import Settings
from myhealth.reports.repository import ReportRepository
from myhealth.reports.writer import ReportWriter
from myhealth.sync import source
from myhealth.sync.checkpoint import from_document
from myhealth.sync.runner import restart_epoch, run_pass
from myhealth.sync.source import Source
from myhealth.sync.verify import StoreComparison, verify

pytestmark = pytest.mark.usefixtures("people")


@pytest.fixture
def compare(settings: Settings, reports: ReportRepository):
    def once(repair: bool = False, batch_rows: int = 3) -> StoreComparison:
        return verify(settings.database_url, ReportWriter(reports), batch_rows, repair=repair)

    return once


def found(comparison: StoreComparison) -> dict[str, list[Any]]:
    ids: dict[str, list[Any]] = {}
    for each in comparison.first:
        ids.setdefault(f"{each.what} {each.kind}", []).append(each.id)
    return ids


def test_two_stores_that_agree_differ_in_nothing(db, reports, sync, compare) -> None:
    take(*[record(i) for i in range(10)])
    sync()
    same = compare()
    assert (same.rows, same.documents, same.not_yet, same.differences) == (16, 16, 0, 0)


FAULTS = {
    "a document that is gone": ([{"delete": {"_id": 4}}], {"lost checkup": [4]}),
    "the first and the last are gone": ([{"delete": {"_id": {"$in": [1, 10]}}}], {"lost checkup": [1, 10]}),
    "a document behind the last row": ([{"copy": 70}], {"ghost checkup": [70]}),
    "documents before the first row": ([{"copy": -5}, {"copy": 0}], {"ghost checkup": [-5, 0]}),
    "an id beyond 32 bits": ([{"copy": 2**40}], {"ghost checkup": [2**40]}),
    "ids that are no numbers": ([{"copy": "x"}, {"copy": ObjectId("6" * 24)}], {"ghost checkup": ["x", ObjectId("6" * 24)]}),
    "an id that is a document": ([{"copy": {"a": 1}}], {"ghost checkup": [{"a": 1}]}),
    "a fraction for an id": ([{"copy": 2.5}], {"ghost checkup": [2.5]}),
    "an older revision": ([{"set": {"revision": 0}}], {"stale checkup": [5]}),
    "an earlier epoch": ([{"set": {"epoch": 0}}], {"stale checkup": [5]}),
    "no revision": ([{"unset": {"revision": ""}}], {"stale checkup": [5]}),
    "other content of the same revision": ([{"set": {"disease": "x"}}], {"altered checkup": [5]}),
    "another type of the same number": ([{"set": {"results.0.value": 128.0}}], {"altered checkup": [5]}),
    "a further field": ([{"set": {"extra": 1}}], {"altered checkup": [5]}),
    "a revision from the future": ([{"set": {"revision": 9}}], {"altered checkup": [5]}),
    "an epoch from the future": ([{"set": {"epoch": 9}}], {"altered checkup": [5]}),
}  # fmt: skip


def spoil(collection: Any, fault: dict[str, Any]) -> None:
    if "delete" in fault:
        collection.delete_many(fault["delete"])
    elif "copy" in fault:
        collection.insert_one({**collection.find_one({"_id": 3}), "_id": fault["copy"]})
    else:
        name = next(iter(fault))
        collection.update_one({"_id": 5}, {f"${name}": fault[name]})


@pytest.mark.parametrize("name", FAULTS)
def test_each_kind_of_fault_is_told_and_mended(db, reports, sync, compare, name: str) -> None:
    take(*[record(i) for i in range(10)])
    sync()
    faults, expected = FAULTS[name]
    for fault in faults:
        spoil(reports.reports, fault)
    assert found(compare()) == expected
    mended = compare(repair=True)
    assert (found(mended), mended.mended) == (expected, mended.differences)
    assert compare().differences == 0
    assert differences(db, reports) == NONE
    assert sync().read == 0, "the mark is where it was"


def test_an_integral_fraction_for_an_id_is_mended(db, reports, sync, compare) -> None:
    take(*[record(i) for i in range(10)])
    sync()
    whole = reports.reports.find_one_and_delete({"_id": 5})
    reports.reports.insert_one({**whole, "_id": 5.0})
    assert compare().differences
    compare(repair=True)
    assert compare().differences == 0
    assert type(reports.reports.find_one({"_id": 5})["_id"]) is int


def test_the_order_of_fields_is_no_difference(db, reports, sync, compare) -> None:
    take(record(1))
    sync()
    whole = reports.reports.find_one_and_delete({"_id": 1})
    reports.reports.insert_one(dict(reversed(whole.items())))
    assert compare().differences == 0


def test_users_are_compared_too(db, reports, sync, compare) -> None:
    sync()
    reports.users.delete_one({"_id": 1})
    reports.users.update_one({"_id": 2}, {"$set": {"active": False}})
    reports.users.insert_one({"_id": 50, "username": "nobody", "revision": 1, "epoch": 1})
    assert found(compare()) == {"lost user": [1], "altered user": [2], "ghost user": [50]}
    assert compare(repair=True).mended == 3
    assert compare().differences == 0
    assert differences(db, reports) == NONE


def test_what_the_sync_has_yet_to_carry_is_no_difference(db, reports, sync, compare, connect) -> None:
    take(*[record(i) for i in range(10)])
    sync()
    take(*[record(i) for i in range(20, 25)])
    db("update checkups set disease = 'edited' where id = 3")
    db("delete from checkups where id in (4, 5)")
    db("update users set full_name = 'x' where username = 'savita'")
    before = compare()
    assert (before.differences, before.not_yet) == (0, 9)
    assert compare(repair=True).mended == 0
    reports.reports.delete_one({"_id": 6})
    assert found(compare()) == {"lost checkup": [6]}
    sync()
    assert found(compare()) == {"lost checkup": [6]}


def test_a_deletion_that_was_carried_and_came_undone_is_a_ghost(db, reports, sync, compare) -> None:
    take(record(1), record(2))
    sync()
    ghost = reports.reports.find_one({"_id": 2})
    db("delete from checkups where id = 2")
    sync()
    reports.reports.insert_one(ghost)
    assert found(compare()) == {"ghost checkup": [2]}


def test_what_the_horizon_holds_back_is_no_difference(db, reports, sync, compare, connect) -> None:
    sync()
    holding = connect()
    with holding.cursor() as cursor:
        cursor.execute("insert into machines (serial) values ('slow')")
    take(record(1))
    sync()
    assert (compare().differences, compare().not_yet) == (0, 1)
    holding.rollback()


def test_a_dropped_collection_is_filled_by_a_repair(db, reports, sync, compare) -> None:
    take(*[record(i) for i in range(30)])
    sync()
    reports.reports.drop()
    assert compare().counts["lost"] == 30
    assert len(compare().first) == 20
    assert compare(repair=True).mended == 30
    assert differences(db, reports) == NONE


def test_what_mongodb_refuses_is_told_and_stays_refused(db, reports, sync, compare) -> None:
    take(record(1), record(2))
    sync()
    db("update checkups set results = %s where id = 2", '[{"value": %s}]' % ("9" * 40))
    sync()
    assert found(compare()) == {"refused checkup": [2]}
    mended = compare(repair=True)
    assert (found(mended), mended.mended) == ({"refused checkup": [2]}, 0)


def test_without_a_mark_of_this_history_there_is_nothing_to_compare(db, reports, sync, compare) -> None:
    take(record(1))
    with pytest.raises(MyHealthError, match="there is no checkpoint"):
        compare()
    sync()
    reports.state.update_one({"_id": "mark"}, {"$set": {"history.timeline": 99}})
    with pytest.raises(MyHealthError, match="history has branched"):
        compare()


def test_an_epoch_that_is_under_way_is_judged_by_how_far_it_has_come(db, reports, sync, compare, settings) -> None:
    take(*[record(i) for i in range(10)])
    sync()
    assert restart_epoch(settings.database_url, ReportWriter(reports))
    assert compare().differences == 0, "nothing of the new epoch was carried yet"
    reports.state.update_one({"_id": "mark"}, {"$set": {"scanned.checkups": 4, "scanned.users": 6}})
    stale = compare()
    assert found(stale) == {"stale user": [1, 2, 3, 4, 5, 6], "stale checkup": [1, 2, 3, 4]}
    compare(repair=True)
    assert compare().differences == 0


def test_a_repair_runs_beside_no_sync(db, reports, sync, compare, settings) -> None:
    sync()
    with Source.opened(settings.database_url) as other:
        assert other.lock()
        assert compare().differences == 0
        with pytest.raises(Unavailable, match="a sync is at work"):
            compare(repair=True)


def test_a_repair_that_is_killed_leaves_the_deletions_to_be_rechecked(db, reports, sync, compare, monkeypatch) -> None:
    """What it still has on its way may arrive after a deletion was carried out, as with a pass that is killed."""
    take(record(1))
    sync()
    reports.reports.drop()

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ReportWriter, "put", killed)
    with pytest.raises(KeyboardInterrupt):
        compare(repair=True)
    mark = from_document(ReportWriter(reports).read_checkpoint())
    assert mark is not None
    assert not mark.finished


def test_rows_that_change_while_they_are_looked_at_again_are_no_difference(
    db, reports, sync, compare, settings, monkeypatch
) -> None:
    """Whatever happens before and after the rows are read, a new epoch too, the verdict holds."""
    take(*[record(i) for i in range(10)])
    sync()
    db("update checkups set disease = 'edited' where id < 8")
    real = Source.find

    def find(self, table: str, ids: Any, batch_rows: int):
        for edited, deleted in ((1, 2), (3, 4)):
            if edited == 3:
                rows = list(real(self, table, ids, batch_rows))
            db("update checkups set disease = disease || 'x' where id = %s", edited)
            db("delete from checkups where id = %s", deleted)
            sync()
        return iter(rows)

    monkeypatch.setattr(Source, "find", find)
    assert found(compare()) == {}
    monkeypatch.undo()
    assert found(compare()) == {}
    real_raw = ReportWriter.raw

    def raw(self, kind: str, query: Any, **options):
        if "$in" in query.get("_id", {}):
            monkeypatch.undo()
            assert restart_epoch(settings.database_url, ReportWriter(reports))
            sync()
        return real_raw(self, kind, query, **options)

    db("update checkups set disease = 'again' where id = 9")
    monkeypatch.setattr(ReportWriter, "raw", raw)
    assert found(compare()) == {}


def test_it_finds_nothing_while_writers_and_the_sync_go_on(
    db, reports, sync, compare, connect, settings, monkeypatch
) -> None:
    """Inserts, edits, deletions and slow commits, a sync now and then, and verify again and again: no false alarm."""
    monkeypatch.setattr(source, "SLICE_ROWS", 40)
    take(*[record(i) for i in range(100)])
    sync()
    ending = threading.Event()
    connections = [connect() for _ in range(2)]

    def write(connection: Any, seed: int) -> None:
        chance = random.Random(seed)
        while not ending.is_set():
            with contextlib.suppress(psycopg2.errors.DeadlockDetected), connection, connection.cursor() as cursor:
                for _ in range(chance.randint(1, 4)):
                    id_ = chance.randint(1, 100)
                    cursor.execute(chance.choice([
                        "insert into checkups (patient_id, checkup_type, checkup_report, disease) values (1, 'T', '', '')",
                        "update checkups set disease = disease || 'x' where id = %(id)s",
                        "delete from checkups where id = %(id)s",
                        "insert into checkups (id, patient_id, checkup_type, checkup_report, disease)"
                        " values (%(id)s, 2, 'BACK', '', '') on conflict do nothing",
                    ]), {"id": id_})  # fmt: skip
                time.sleep(chance.random() / 100)

    def carry() -> None:
        while not ending.is_set():
            run_pass(settings.database_url, ReportWriter(reports), settings)

    threads = [threading.Thread(target=write, args=(connection, i)) for i, connection in enumerate(connections)]
    threads.append(threading.Thread(target=carry))
    for thread in threads:
        thread.start()
    try:
        compared = 0
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            assert found(compare(batch_rows=7)) == {}
            compared += 1
    finally:
        ending.set()
        for thread in threads:
            thread.join()
    assert compared > 3
    while sync().locked_out or compare().not_yet:
        pass  # the session of the pass before may be ending yet, and an autovacuum may hold the horizon back
    assert compare().differences == 0
    assert differences(db, reports) == NONE


def test_the_command_tells_differences_and_exits_1(db, reports, sync, run_cli) -> None:
    take(*[record(i) for i in range(5)])
    sync()
    clean = run_cli("verify")
    assert (clean.returncode, clean.stderr) == (0, "")
    assert "Compared 11 rows with 11 documents; 0 not carried over yet.\nNo difference." in clean.stdout
    reports.reports.delete_one({"_id": 2})
    reports.reports.insert_one({"_id": "odd", "revision": 1, "epoch": 1})
    told = run_cli("verify", "--json")
    assert told.returncode == 1
    answer = json.loads(told.stdout)
    assert (answer["differences"]["lost"], answer["differences"]["ghost"]) == (1, 1)
    assert {each["id"] for each in answer["first"]} == {2, "odd"}
    mended = run_cli("verify", "--repair")
    assert (mended.returncode, "2 mended" in mended.stdout) == (0, True)
    assert run_cli("verify").returncode == 0
    reports.drop()
    nothing = run_cli("verify")
    assert nothing.returncode == 1
    assert "run `myhealth sync --once` first" in nothing.stderr
