"""A new epoch begins when the stores' histories part, and it heals everything."""

import contextlib
import dataclasses
import os
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import replace
from support.compare import NONE, asking, differences
from support.factories import record, take
from support.servers import DATABASE_NAME

from myhealth import stores
from myhealth.common.errors import MyHealthError, SettingsError, Unavailable
from myhealth.profiles.services import create_user
from myhealth.reports.user_search import Search
from myhealth.reports.writer import ReportWriter
from myhealth.sync.checkpoint import Checkpoint, History, Position, from_document, new_epoch_reason, to_document
from myhealth.sync.runner import restart_epoch, run_pass
from myhealth.sync.source import Source
from myhealth.sync.verify import verify

pytestmark = pytest.mark.usefixtures("people")


def test_a_lost_mark_begins_a_new_epoch_and_heals_everything(db, reports, sync) -> None:
    take(*[record(i) for i in range(5)])
    sync()
    reports.state.delete_many({})
    reports.reports.delete_one({"_id": 2})
    reports.reports.update_one({"_id": 3}, {"$set": {"disease": "tampered"}})
    reports.reports.insert_one({"_id": 77, "patient_id": 1, "epoch": 1, "revision": 1})
    done = sync()
    assert (done.epoch, done.new_epoch, done.removed) == (2, "there is no checkpoint", 1)
    assert differences(db, reports) == NONE


def test_a_store_that_another_version_filled_is_filled_anew(db, reports, sync, settings) -> None:
    """The first version told no form, and its users had no keys of their full names."""
    take(*[record(i) for i in range(5)])
    db("update users set full_name = 'Bholanath Joshi' where username = 'bholanath'")
    sync()
    for other in ({"$unset": {"form": 1}}, {"$set": {"form": 2}}):
        reports.users.update_many({}, {"$unset": {"name_keys": 1}})
        reports.state.update_one({"_id": "mark"}, other)
        with pytest.raises(MyHealthError, match="the form of another version"):
            verify(settings.database_url, ReportWriter(reports), 100)
        done = sync()
        assert done.new_epoch == "the documents have the form of another version of MyHealth"
        assert differences(db, reports) == NONE
        assert verify(settings.database_url, ReportWriter(reports), 100).differences == 0
        assert [each["username"] for each in reports.people.search(Search("joshi"))] == ["bholanath"]
        assert sync().new_epoch == ""


def test_restart_reads_everything_anew(db, reports, sync, settings) -> None:
    take(record(1))
    sync()
    reports.reports.update_one({"_id": 1}, {"$set": {"disease": "tampered"}})
    assert restart_epoch(settings.database_url, ReportWriter(reports))
    assert sync().epoch == 2
    assert differences(db, reports) == NONE


def test_a_new_epoch_inserts_into_a_collection_that_is_empty(db, reports, sync, settings, monkeypatch) -> None:
    take(*[record(i) for i in range(1, 9)])
    sync()
    reports.reports.drop()
    inserted: list[int] = []
    insert = ReportWriter.insert

    def watched(self: ReportWriter, kind: str, documents: Any) -> Any:
        result = insert(self, kind, documents)
        inserted.append(result.written)
        return result

    monkeypatch.setattr(ReportWriter, "insert", watched)
    assert sync().epoch == 2
    assert sum(inserted) == 8
    assert differences(db, reports) == NONE
    inserted.clear()
    assert restart_epoch(settings.database_url, ReportWriter(reports))
    assert (sync().epoch, inserted) == (3, []), "documents that are there are not inserted once more"


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
    moved = reports.get(1)
    back = {**moved, "patient_id": 77, "revision": moved["revision"] + 1}
    assert ReportWriter(reports)._replace("checkup", [back]).written == 1, "as a runner beside us may find it"
    assert ReportWriter(reports).put("checkup", [moved]).unchanged == 1, "an older version is nobody's any more"
    assert reports.get(1)["patient_id"] == 77
    assert reports.count()[0] == 3


def test_an_emptied_report_store_is_filled_anew(db, reports, sync) -> None:
    take(record(1))
    sync()
    reports.drop()
    sync()
    assert differences(db, reports) == NONE


@pytest.mark.process
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
    assert reports.get(1) is not None
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
        ReportWriter(reports).begin(to_document(mark.with_new_run("another", datetime.now(UTC))))
        return done

    writer.insert = slow
    with pytest.raises(Unavailable, match="another sync has taken over"):
        run_pass(settings.database_url, writer, settings)
    sync()
    assert differences(db, reports) == NONE


@pytest.fixture
def staging(db, postgres, settings):
    """Return the URL of another database of the schema, without a check-up."""
    postgres.make_database("staging_test", anew=True)
    stores.close_database()
    found = dataclasses.replace(settings, database_url=postgres.url_of("staging_test"))
    with bound(found):
        stores.migrate(found)
    stores.open_database(settings)
    yield found
    stores.close_database()


@contextlib.contextmanager
def bound(settings):
    stores.bind_database(settings)
    try:
        yield
    finally:
        stores.close_database()


@pytest.mark.process
@pytest.mark.parametrize("rows", [0, 20], ids=["an empty system", "a system with as many rows, of other people"])
def test_another_system_removes_nothing_unasked(sync, reports, settings, staging, run_cli, rows: int) -> None:
    take(*[record(i) for i in range(20)])
    sync()
    stores.close_database()
    with bound(staging):
        create_user("bholanath", rounds=4)
        take(*[record(i, disease="staging") for i in range(rows)])
    before = {name: list(reports._database[name].find()) for name in ("reports", "users", "sync_state")}
    env = {"MYHEALTH_DATABASE_URL": staging.database_url, "MYHEALTH_MONGO_URL": settings.mongo_url}
    for words in (["--once"], ["--once"], ["--restart", "--once"], ["--restart", "--expect-removals", "25", "--once"]):
        done = run_cli("sync", *words, env=env)
        assert done.returncode == 78, done.stderr
        assert "26 of the report store's 26 documents would go" in done.stderr
        with Source.opened(settings.database_url) as ours, Source.opened(staging.database_url) as theirs:
            assert all(source.state().history.system in done.stderr for source in (ours, theirs))
        assert {name: list(reports._database[name].find()) for name in before} == before
    done = run_cli("sync", "--once", "--restart", "--expect-removals", "26", env=env)
    assert done.returncode == 0, done.stderr
    with asking(staging.database_url) as there:
        assert differences(there, reports) == NONE
    assert run_cli("sync", "--once", env=env).returncode == 0
    back = run_cli("sync", "--once")
    assert back.returncode == 78


@pytest.mark.parametrize(("lost", "heals"), [(2, True), (3, False)])
def test_another_system_with_nearly_the_same_rows_is_a_restore(
    reports, sync, settings, staging, postgres, db, lost: int, heals: bool
) -> None:
    """As `pg_restore` into a new database leaves it: the same people, an hour older."""
    take(*[record(i) for i in range(20)])
    sync()
    stores.close_database()
    with asking(settings.database_url.replace(DATABASE_NAME, "postgres")) as ask:
        ask("drop database staging_test with (force)")
        # A template must have no session: what a killed test process left behind may still be ending.
        ask("select pg_terminate_backend(pid, 30000) from pg_stat_activity where datname = %s", DATABASE_NAME)
        ask(f"create database staging_test template {DATABASE_NAME}")
    with asking(staging.database_url) as ask:
        ask("delete from checkups where id <= %s", lost)
        ask("delete from tombstones")
    with contextlib.nullcontext() if heals else pytest.raises(SettingsError, match=f"{lost} of the report store's 26"):
        assert run_pass(staging.database_url, ReportWriter(reports), staging).removed == lost
    assert reports.reports.count_documents({}) == 20 - lost * heals


HERE = History("7", 1, "x")
MARK = Checkpoint(
    HERE, 3, "steady", 100, "w", feeds=dict.fromkeys(("tombstones", "users", "checkups"), Position(120, 9))
)


@pytest.mark.parametrize(
    ("mark", "history", "next_xid", "witnessed", "why"),
    [
        (MARK, HERE, 121, True, ""),
        (MARK, HERE, 5000, True, ""),
        (None, HERE, 121, False, "there is no checkpoint"),
        (MARK, History("8", 1, "x"), 121, True, "another PostgreSQL cluster"),
        (MARK, History("7", 2, "x"), 121, True, "has branched"),
        (MARK, History("7", 1, "y"), 121, True, "made anew"),
        (MARK, HERE, 120, True, "PostgreSQL's future"),
        (replace(MARK, phase="scan", horizon=500), HERE, 200, True, "PostgreSQL's future"),
        (MARK, HERE, 121, False, "set back to before the last pass"),
        (replace(MARK, form=1), HERE, 121, True, "the form of another version"),
    ],
)
def test_a_new_epoch_begins_where_transaction_ids_mean_something_else(
    mark, history, next_xid: int, witnessed: bool, why: str
) -> None:
    found = new_epoch_reason(mark, history, next_xid, witnessed)
    assert why in found
    assert bool(found) == bool(why)


def test_another_store_is_another_history() -> None:
    mark = replace(MARK, store="a/b")
    assert new_epoch_reason(mark, HERE, 121, True, "a/b") == new_epoch_reason(mark, HERE, 121, True) == ""
    assert "dropped or made anew" in new_epoch_reason(mark, HERE, 121, True, "a/c")


def test_a_mark_outlives_its_way_through_the_store(reports) -> None:
    writer = ReportWriter(reports)
    begun = MARK.with_new_run("run", datetime(2026, 11, 20, tzinfo=UTC))
    for mark in (MARK, begun, begun.with_new_run("other", datetime(2026, 11, 20, tzinfo=UTC))):
        writer.begin(to_document(mark))
        assert from_document(writer.read_checkpoint()) == mark
    for broken in ({}, {"epoch": "x"}, {**to_document(MARK), "feeds": {}}, None):
        assert from_document(broken) is None


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
