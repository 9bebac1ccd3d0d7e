"""The loop compares a sample of both stores, and tells of differences without mending them."""

import dataclasses
import json
import os
import signal
import threading
import time

import pytest
from support.factories import PASSWORD, record, take

from myhealth.reports.writer import ReportWriter
from myhealth.sync.runner import run_pass
from myhealth.sync.scheduler import run_loop
from myhealth.sync.targets import ReportsApi
from myhealth.sync.verify import verify_sample

pytestmark = pytest.mark.usefixtures("people")
ROWS = 30


def sampling(settings, share=1.0, every_s=3600.0, **sync):
    own = {"verify_share": share, "verify_interval_s": every_s, **sync}
    return dataclasses.replace(settings, sync=dataclasses.replace(settings.sync, **own))


@pytest.fixture(params=["direct", "http"])
def target(request, reports, settings):
    if request.param == "direct":
        return ReportWriter(reports)
    upload_url, browse_url = request.getfixturevalue("served")
    remote = sampling(settings, reports_api_url=browse_url, username="runner", password=PASSWORD)
    return ReportsApi(dataclasses.replace(remote, auth_url=upload_url))


def damage(reports) -> None:
    reports.reports.update_one({"_id": 2}, {"$set": {"checkup_report": "HIV POSITIVE (forged)"}})
    reports.reports.delete_one({"_id": 3})
    reports.reports.update_one({"_id": 5}, {"$set": {"revision": 0}})
    ghost = {**reports.reports.find_one({"_id": 2}), "_id": 7, "revision": 9}
    reports.reports.insert_one(ghost)


def test_every_kind_of_difference_is_found_and_mended_by_nobody(db, reports, settings, target, sync) -> None:
    take(*[record(i) for i in range(ROWS)])
    db("delete from checkups where id = 7")
    run_pass(settings.database_url, target, settings)
    clean = verify_sample(settings.database_url, target, sampling(settings), threading.Event())
    assert (clean.differences, clean.rows) == (0, ROWS + 6)
    damage(reports)
    found = verify_sample(settings.database_url, target, sampling(settings), threading.Event())
    assert {(each.what, each.kind, each.id) for each in found.first} == {
        ("altered", "checkup", 2), ("lost", "checkup", 3), ("stale", "checkup", 5), ("ghost", "checkup", 7),
    }  # fmt: skip
    assert reports.get(3) is None
    part = verify_sample(settings.database_url, target, sampling(settings, 0.1), threading.Event())
    assert part.rows == 3 + 1
    stopped = threading.Event()
    stopped.set()
    assert verify_sample(settings.database_url, target, sampling(settings), stopped).rows == 0


def test_a_change_that_has_yet_to_be_carried_over_is_no_difference(db, reports, settings, target, sync) -> None:
    take(*[record(i) for i in range(5)])
    run_pass(settings.database_url, target, settings)
    db("update checkups set disease = 'x' where id = 2")
    db("delete from checkups where id = 3")
    take(record(99))
    assert verify_sample(settings.database_url, target, sampling(settings), threading.Event()).differences == 0


def test_status_and_metrics_show_the_last_sample_also_after_a_pass(
    db, reports, settings, sync, run_cli, upload
) -> None:
    take(*[record(i) for i in range(ROWS)])
    db("delete from checkups where id = 7")
    sync()
    assert json.loads(run_cli("status", "--json").stdout)["verified"] is None
    assert "myhealth_sync_verify_ids 0" in upload("GET", "/metrics").text
    damage(reports)
    verify_sample(settings.database_url, ReportWriter(reports), sampling(settings), threading.Event())
    sync()
    verified = json.loads(run_cli("status", "--json").stdout)["verified"]
    assert (verified["ids"], verified["differences"]["altered"]) == (ROWS + 6, 1)
    assert "DIFFERENCES" in run_cli("status").stdout
    metrics = upload("GET", "/metrics").text
    assert "myhealth_sync_verify_differences 4" in metrics
    (at,) = [float(line.split()[1]) for line in metrics.splitlines() if line.startswith("myhealth_sync_verify_timesta")]
    assert 0 <= time.time() - at < 60


class Counting(ReportWriter):
    """Counts the samples that the loop compares; the third one ends it."""

    samples = 0

    def quarantined_among(self, kind, ids):
        self.samples += 1
        if self.samples == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().quarantined_among(kind, ids)


@pytest.mark.parametrize("share", [0.5, 0.0])
def test_the_loop_compares_a_sample_now_and_then_unless_told_not_to(db, reports, settings, share) -> None:
    take(*[record(i) for i in range(ROWS)])
    writer = Counting(reports)
    ending = threading.Timer(30 if share else 2, os.kill, (os.getpid(), signal.SIGTERM))
    ending.start()
    try:
        run_loop(settings.database_url, writer, sampling(settings, share, 0.3, interval_s=0.2))
    finally:
        ending.cancel()
        ending.join()
    assert writer.samples == (3 if share else 0)
