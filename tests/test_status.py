"""`status` and /metrics report the lag of the report store, its cause, and unavailable stores."""

import json
import re
from typing import Any

import pytest
from support.factories import record, take

from myhealth.common.errors import Unavailable
from myhealth.common.settings import Settings
from myhealth.reports.repository import ReportRepository
from myhealth.reports.writer import ReportWriter
from myhealth.sync.runner import restart_epoch, run_pass
from myhealth.sync.status import Status, collect_status

pytestmark = pytest.mark.usefixtures("people")


@pytest.fixture
def status(settings: Settings, reports: ReportRepository):
    return lambda: collect_status(settings.database_url, ReportWriter(reports))


def behind(found: Status) -> int:
    assert found.lag is not None
    return found.lag.rows


def test_a_store_that_has_everything_is_not_behind(db, reports, sync, status) -> None:
    take(*[record(i) for i in range(4)])
    sync()
    found = status()
    assert (behind(found), found.lag.seconds, found.new_epoch, found.unavailable) == (0, 0, "", {})
    assert (found.checkpoint.last_checkup_id, found.checkpoint.epoch, found.checkpoint.phase) == (4, 1, "steady")
    assert (found.checkups, found.users, found.reports, found.report_users) == (4, 6, 4, 6)
    assert (found.last_pass.done["read"], found.last_pass.problem, found.quarantined_count) == (10, "", 0)


def test_changes_and_deletions_that_are_not_carried_yet_are_counted_and_timed(db, reports, sync, status) -> None:
    take(*[record(i) for i in range(6)])
    sync()
    db("insert into checkups (patient_id, checkup_type, checkup_report, disease, updated_at)"
       " values (1, 'T', '', '', now() - interval '90 s')")  # fmt: skip
    db("update checkups set disease = 'x' where id = 2")
    db("delete from checkups where id = 3")
    db("update users set full_name = 'x' where username = 'savita'")
    found = status()
    assert behind(found) == 4
    assert 90 <= found.lag.seconds < 150
    assert found.is_behind(60)
    assert not found.is_behind(600)
    sync()
    assert behind(status()) == 0


def test_an_epoch_under_way_is_behind_by_what_it_has_yet_to_read(db, reports, sync, status, settings) -> None:
    assert (behind(status()), status().new_epoch) == (6, "there is no checkpoint")
    take(*[record(i) for i in range(10)])
    sync()
    assert restart_epoch(settings.database_url, ReportWriter(reports))
    assert behind(status()) == 16
    reports.state.update_one({"_id": "mark"}, {"$set": {"scanned.checkups": 4, "scanned.users": 6}})
    assert behind(status()) == 6
    reports.state.update_one({"_id": "mark"}, {"$set": {"history.timeline": 7}})
    assert "has branched" in status().new_epoch
    assert behind(status()) == 16


def test_it_names_who_holds_the_horizon_back(db, reports, sync, status, connect) -> None:
    sync()
    reader = connect()
    with reader.cursor() as cursor:
        cursor.execute("select count(*) from checkups")
    assert status().held_back_by is None, "who only reads holds nothing back"
    writer = connect()
    with writer.cursor() as cursor:
        cursor.execute("set application_name = 'a slow one'; insert into machines (serial) values ('slow')")
    take(record(1))
    sync()
    found = status()
    assert (found.held_back_by.pid, found.held_back_by.application) == (writer.info.backend_pid, "a slow one")
    assert found.held_back_by.since is not None
    assert behind(found) == 1
    writer.rollback()
    assert status().held_back_by is None


def test_what_mongodb_refused_is_listed(db, reports, sync, status, run_cli) -> None:
    take(record(1), record(2))
    db("update checkups set results = %s where id = 2", '[{"value": %s}]' % ("9" * 40))
    sync()
    (failure,) = status().quarantined
    assert (failure["kind"], failure["row_id"], failure["tries"]) == ("checkup", 2, 1)
    assert "BSON cannot hold it" in failure["reason"]
    told = run_cli("status")
    assert told.returncode == 0
    assert "1 document that MongoDB refused" in told.stdout
    assert re.search(r"checkup +2 +.*BSON cannot hold it", told.stdout)


def test_the_command_speaks_to_people_and_to_scripts(db, reports, sync, run_cli) -> None:
    take(record(1))
    sync()
    told = run_cli("status", "--max-lag", "0")
    assert (told.returncode, told.stderr) == (0, "")
    for text in (
        "1 check-up, 6 users",
        "1 report, 6 users",
        "check-up 1, epoch 1, steady",
        "0 rows, 0 s",
        "read 7, written 7",
    ):
        assert text in told.stdout
    take(record(2))
    late = run_cli("status", "--json", "--max-lag", "0")
    assert late.returncode == 1
    answer = json.loads(late.stdout)
    assert answer["behind"]["rows"] == 1
    assert (answer["checkpoint"]["checkup_id"], answer["source"]["checkups"], answer["store"]["reports"]) == (1, 2, 1)
    assert (answer["last_pass"]["read"], answer["last_pass"]["quarantined"], answer["quarantined"]["count"]) == (
        7,
        0,
        0,
    )


def test_a_store_that_is_away_is_told_and_the_other_answers(db, reports, sync, run_cli, settings) -> None:
    take(record(1))
    sync()
    take(record(2))
    away = "mongodb://127.0.0.1:9/myhealth_test?serverSelectionTimeoutMS=200"
    own = {"MYHEALTH_DATA_DIR": settings.data_dir, "MYHEALTH_DATABASE_URL": settings.database_url}
    told = run_cli("status", "--json", env={**own, "MYHEALTH_MONGO_URL": away})
    assert told.returncode == 75
    answer = json.loads(told.stdout)
    assert (list(answer["unavailable"]), answer["source"]["checkups"], answer["behind"]["rows"]) == (["MongoDB"], 2, 1)
    own = {"MYHEALTH_DATA_DIR": settings.data_dir, "MYHEALTH_MONGO_URL": settings.mongo_url}
    told = run_cli("status", "--json", env={**own, "MYHEALTH_DATABASE_URL": "postgresql://127.0.0.1:9/x_test"})
    assert told.returncode == 75
    answer = json.loads(told.stdout)
    assert (list(answer["unavailable"]), answer["store"]["reports"], answer["behind"]) == (["PostgreSQL"], 1, None)


@pytest.mark.process
def test_max_age_ends_with_1_if_the_sync_has_not_run_for_long(db, run_cli, sync) -> None:
    assert run_cli("status", "--max-age", "60").returncode == 1, "it has never run"
    sync()
    assert run_cli("status", "--max-age", "600").returncode == 0
    db("update sync_pass set ended_at = now() - interval '1 hour'")
    assert run_cli("status", "--max-age", "600", "--max-lag", "600").returncode == 1


def gauges(upload: Any) -> dict[str, float]:
    text = upload("GET", "/metrics").text
    return {line.split()[0]: float(line.split()[1]) for line in text.splitlines() if line[0] != "#" and "{" not in line}


def test_metrics_say_the_same_and_know_when_mongodb_was_away(db, reports, sync, upload, settings) -> None:
    before = gauges(upload)
    assert (before["myhealth_sync_last_pass_ok"], before["myhealth_sync_rows_behind"]) == (0, 6)
    take(record(1))
    sync()
    good = gauges(upload)
    assert (good["myhealth_sync_last_pass_ok"], good["myhealth_sync_rows_behind"]) == (1, 0)
    assert (good["myhealth_sync_mark_checkup_id"], good["myhealth_sync_epoch"]) == (1, 1)
    take(record(2))
    away = ReportRepository.connect("mongodb://127.0.0.1:9/myhealth_test?serverSelectionTimeoutMS=200")
    with pytest.raises(Unavailable):
        run_pass(settings.database_url, ReportWriter(away), settings)
    away.close()
    bad = gauges(upload)
    assert (bad["myhealth_sync_last_pass_ok"], bad["myhealth_sync_rows_behind"]) == (0, 1)
    assert bad["myhealth_sync_mark_checkup_id"] == 1, "the mark is where it was"
    assert bad["myhealth_sync_last_pass_timestamp_seconds"] >= good["myhealth_sync_last_pass_timestamp_seconds"]
