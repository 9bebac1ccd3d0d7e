"""`myhealth sync` as a process: its messages, exit codes and signals."""

import os
import signal
import subprocess
import sys
import time

import pytest
from support.compare import NONE, differences
from support.factories import record, take

from myhealth.reports.writer import ReportWriter
from myhealth.sync.source import Source

pytestmark = pytest.mark.usefixtures("people")


def test_a_second_runner_says_so_and_does_nothing(db, reports, sync, settings, run_cli) -> None:
    take(record(1))
    with Source.opened(settings.database_url) as first:
        assert first.lock()
        assert sync().locked_out
        done = run_cli("sync", "--once", "-v")
        assert (done.returncode, done.stdout) == (0, "")
        assert "Another sync is at work" in done.stderr
        done = run_cli("sync", "--once")
        assert (done.returncode, done.stderr) == (0, ""), "cron would send a mail"
    assert sync().read == 7


def test_a_document_that_is_refused_is_told_and_the_rest_goes_on(db, reports, sync, run_cli) -> None:
    take(*[record(i) for i in range(3)])
    db("update checkups set results = %s where id = 2", '[{"value": %s}]' % ("9" * 40))
    done = run_cli("sync", "--once")
    assert done.returncode == 1
    assert "MongoDB refused checkup 2: BSON cannot hold it" in done.stderr
    assert differences(db, reports)["lost"] == [2]
    assert run_cli("sync", "--once").returncode == 0, "it is told once"
    (failure,) = ReportWriter(reports).list_quarantined()
    assert (failure["kind"], failure["row_id"], failure["tries"]) == ("checkup", 2, 1)
    assert run_cli("sync", "--once", "--retry-failed").returncode == 1
    assert ReportWriter(reports).list_quarantined()[0]["tries"] == 2
    db("update checkups set results = '[]' where id = 2")
    sync()
    assert differences(db, reports) == NONE
    assert ReportWriter(reports).list_quarantined() == []


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
    assert "is away" in done.stderr or "is unavailable" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.process
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
    assert time.monotonic() - begun < 10  # far less than the wait between two passes
    assert out == ""
    lines = err.splitlines()
    assert "sync starts, every 0.2 s" in lines[0]
    assert lines[-1].endswith("sync ended")
    assert sum("sync read=1 written=1" in line for line in lines) >= 1
    assert differences(db, reports) == NONE
