"""The loop: on time, at once after an upload, one pass at a time; and faults that a pass bears."""

import dataclasses
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from support.compare import NONE, differences
from support.factories import record, take

from myhealth.common import database as database_module
from myhealth.common import database_watch
from myhealth.common.errors import Unavailable
from myhealth.reports.writer import ReportWriter
from myhealth.sync.runner import run_pass
from myhealth.sync.scheduler import listen_for_wakeups, run_loop
from myhealth.sync.source import SYNC_LOCK

pytestmark = pytest.mark.usefixtures("people")


@contextmanager
def looping(settings: Any, **options: str) -> Iterator[subprocess.Popen[str]]:
    own = {"MYHEALTH_DATABASE_URL": settings.database_url, "MYHEALTH_MONGO_URL": settings.mongo_url, **options}
    words = [sys.executable, "-m", "cli", "sync"]
    process = subprocess.Popen(words, env={**os.environ, **own}, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(what: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


class SlowWriter(ReportWriter):
    """Makes each pass take 0.3 s; ends the loop by SIGTERM in the pass of that number, and calls `after_first`."""

    def __init__(self, reports: Any, last: int, after_first: Any = None) -> None:
        super().__init__(reports)
        self.last, self.after_first = last, after_first
        self.begun: list[float] = []

    def read_checkpoint(self) -> Any:
        self.begun.append(time.monotonic())
        time.sleep(0.3)
        if len(self.begun) == 1 and self.after_first:
            threading.Timer(0.2, self.after_first).start()
        if len(self.begun) == self.last:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().read_checkpoint()


def every(settings: Any, seconds: float) -> Any:
    return dataclasses.replace(settings, sync=dataclasses.replace(settings.sync, interval_s=seconds))


def test_the_interval_counts_from_the_end_of_a_pass(db, reports, settings) -> None:
    writer = SlowWriter(reports, last=4)
    run_loop(settings.database_url, writer, every(settings, 0.5))
    gaps = [later - earlier for earlier, later in zip(writer.begun[1:], writer.begun[2:], strict=False)]
    assert len(gaps) == 2
    assert all(0.8 <= gap < 2 for gap in gaps), gaps


def test_local_time_that_goes_back_by_an_hour_delays_no_pass(db, reports, settings, monkeypatch) -> None:
    """As where summer time ends: `schedule` counts by local time."""
    monkeypatch.setenv("TZ", "UTC-1")
    time.tzset()

    def end_of_summer() -> None:
        monkeypatch.setenv("TZ", "UTC")
        time.tzset()

    writer = SlowWriter(reports, last=2, after_first=end_of_summer)
    try:
        run_loop(settings.database_url, writer, every(settings, 2))
    finally:
        monkeypatch.undo()
        time.tzset()
    assert writer.begun[1] - writer.begun[0] < 10


@pytest.mark.process
def test_an_upload_begins_a_pass_at_once_where_the_loop_listens(db, reports, settings) -> None:
    with looping(settings, MYHEALTH_SYNC_LISTEN="true", MYHEALTH_SYNC_INTERVAL_S="3600") as process:
        wait_for(lambda: reports.count()[1] == 6)
        for i in range(1, 4):
            take(record(i))
            wait_for(lambda i=i: reports.count()[0] == i)
        assert differences(db, reports) == NONE
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


@pytest.mark.process
def test_an_upload_that_an_older_transaction_holds_back_is_looked_for_again(db, reports, settings, connect) -> None:
    with looping(settings, MYHEALTH_SYNC_LISTEN="true", MYHEALTH_SYNC_INTERVAL_S="3600"):
        wait_for(lambda: reports.count()[1] == 6)
        holding = connect()
        holding.cursor().execute("insert into machines (serial) values ('slow')")
        take(record(1))
        time.sleep(1)
        assert reports.count()[0] == 0
        holding.rollback()
        wait_for(lambda: reports.count()[0] == 1)


def test_it_hears_of_uploads_again_when_its_connection_was_lost(db, settings, monkeypatch) -> None:
    monkeypatch.setattr("myhealth.sync.scheduler.RECONNECT_S", 0.1)
    with listen_for_wakeups(settings.database_url) as wakeup:
        assert wakeup.wait(time.monotonic() + 0.05) is False
        take(record(1))
        assert wakeup.wait(time.monotonic() + 20) is True
        db(
            "select pg_terminate_backend(pid) from pg_stat_activity where query like 'listen %%' and datname = current_database()"
        )
        assert wakeup.wait(time.monotonic() + 20) is True, "something may have come in meanwhile"
        assert wakeup.wait(time.monotonic() + 20) is True, "and until it was there again"
        take(record(2))
        assert wakeup.wait(time.monotonic() + 20) is True
        os.kill(os.getpid(), signal.SIGTERM)
        begun = time.monotonic()
        assert wakeup.wait(begun + 60) is False
        assert wakeup.stop.is_set()


@pytest.mark.process
def test_without_listening_the_loop_has_no_further_connection(db, reports, settings) -> None:
    with looping(settings, MYHEALTH_SYNC_INTERVAL_S="3600"):
        wait_for(lambda: reports.count()[1] == 6)
        wait_for(lambda: not db("select query from pg_stat_activity where application_name = 'myhealth sync'"
                                " and datname = current_database()"))  # fmt: skip


# -- within a pass ---------------------------------------------------------------------------------------------------


def kill_sessions(db: Any) -> None:
    db("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'myhealth sync'"
       " and datname = current_database()")  # fmt: skip


def test_a_connection_that_drops_within_a_pass_is_made_anew(db, reports, settings) -> None:
    take(*[record(i) for i in range(60)])
    writer = ReportWriter(reports)
    real, calls = writer.insert, [0]

    def insert(kind: str, documents: Any) -> Any:
        calls[0] += 1
        if calls[0] in (1, 4):
            kill_sessions(db)
        return real(kind, documents)

    writer.insert = insert  # type: ignore[method-assign]
    small = dataclasses.replace(settings, sync=dataclasses.replace(settings.sync, batch_rows=7))
    done = run_pass(settings.database_url, writer, small)
    assert calls[0] >= 9
    assert done.new_epoch == "there is no checkpoint", "it went on in the epoch that it had begun"
    assert done.epoch == 1
    assert differences(db, reports) == NONE


def test_a_store_that_stays_away_within_a_pass_is_told_in_the_end(db, reports, settings, monkeypatch) -> None:
    monkeypatch.setattr("myhealth.sync.pass_result.RETRY_FOR_S", 1.0)
    take(record(1))
    writer, tries = ReportWriter(reports), []

    def put(kind: str, documents: Any) -> Any:
        tries.append(time.monotonic())
        raise Unavailable("MongoDB is away")

    writer.put = put  # type: ignore[method-assign]
    with pytest.raises(Unavailable, match="MongoDB is away"):
        run_pass(settings.database_url, writer, settings)
    assert len(tries) >= 2
    run_pass(settings.database_url, ReportWriter(reports), settings)
    assert differences(db, reports) == NONE


def test_sigterm_ends_the_waiting_for_a_store(db, reports, settings) -> None:
    stop = threading.Event()
    writer = ReportWriter(reports)

    def put(kind: str, documents: Any) -> Any:
        stop.set()
        raise Unavailable("MongoDB is away")

    writer.put = put  # type: ignore[method-assign]
    take(record(1))
    with pytest.raises(Unavailable):
        run_pass(settings.database_url, writer, settings, stop=stop)


def test_two_by_force_are_right(db, reports, settings) -> None:
    """Both hold the lock as far as they know: another session lets it go beneath the first."""
    take(*[record(i) for i in range(200)])
    small = dataclasses.replace(settings, sync=dataclasses.replace(settings.sync, batch_rows=5))
    faults: list[BaseException] = []

    def go() -> None:
        try:
            run_pass(settings.database_url, ReportWriter(reports), small)
        except Unavailable:
            pass  # taken over
        except BaseException as error:  # noqa: BLE001 - it is asserted on below
            faults.append(error)

    from myhealth.sync.source import Source

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Source, "lock", lambda self: True)
        for _ in range(4):
            runners = [threading.Thread(target=go) for _ in range(2)]
            for runner in runners:
                runner.start()
            db("update checkups set disease = disease || 'x' where id %% 3 = 0".replace("%%", "%"))
            db("delete from checkups where id = (select min(id) from checkups)")
            for runner in runners:
                runner.join()
    assert faults == []
    assert db("select count(*) from pg_locks where locktype = 'advisory' and objid = %s", SYNC_LOCK & 0xFFFFFFFF) == [
        (0,)
    ]
    run_pass(settings.database_url, ReportWriter(reports), settings)
    assert differences(db, reports) == NONE


def test_the_help_says_what_it_does(run_cli) -> None:
    text = re.sub(r"\s+", " ", run_cli("sync", "--help").stdout)
    for said in ("sync.reports_api_url", "--retry-failed", "--restart", "tried again for a minute", "exits 0"):
        assert said in text


@pytest.fixture
def notified(db, monkeypatch) -> list[int]:
    """The number of check-ups that others saw at each notification of the sync."""
    real, seen = database_module.send_notification, list[int]()

    def send_notification() -> None:
        seen.append(db("select count(*) from checkups")[0][0])
        real()

    for module in (database_module, database_watch):
        monkeypatch.setattr(module, "send_notification", send_notification)
    return seen


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "once"}], ids=["plain", "repeatable"])
def test_an_upload_over_http_is_announced_behind_its_commit(upload, log_in, settings, notified, headers) -> None:
    """Transactions that notify commit one by one: uploads would wait for each other."""
    upload("GET", "/checkups/", token=log_in("dr.ayush"))  # the first request opens the database
    with listen_for_wakeups(settings.database_url) as wakeup:
        answer = upload("POST", "/checkups/", [record(1)], token=log_in("tara"), headers=headers)
        assert answer.status_code == 201
        assert wakeup.wait(time.monotonic() + 20) is True
    assert notified == [1]


def test_many_uploads_over_http_are_announced_together_and_the_last_one_too(upload, log_in, notified) -> None:
    token = log_in("tara")
    for number in range(1, 21):
        assert upload("POST", "/checkups/", record(number, machine="HC-1"), token=token).status_code == 201
    upload.application.close()  # as a worker ends
    assert notified[-1] == 20
    assert len(notified) < 20


def test_an_announcement_that_fails_does_not_end_those_after_it(upload, log_in, monkeypatch) -> None:
    token, called = log_in("tara"), list[int]()
    monkeypatch.setattr(database_watch, "send_notification", lambda: 1 / called.append(1))
    for number in (1, 2):
        assert upload("POST", "/checkups/", record(number), token=token).status_code == 201
        wait_for(lambda number=number: len(called) == number)


def test_a_broken_wake_up_costs_an_upload_nothing(db, reports, monkeypatch) -> None:
    """PostgreSQL ends the connection while it notifies, and the next one, on which this is tried again."""
    discard, discarded = database_module.discard_broken_connection, list[None]()
    monkeypatch.setattr(database_module, "NOTIFY_SQL", "select pg_terminate_backend(pg_backend_pid())")
    monkeypatch.setattr(database_module, "discard_broken_connection", lambda: discarded.append(discard()))
    assert [outcome.status for outcome in take(record(1))] == ["accepted"]
    assert len(discarded) == 1
    assert database_module.fetch_one("select count(*) from checkups", None).fetchone() == (1,)
