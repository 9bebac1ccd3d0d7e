"""Processes are killed and PostgreSQL crashes while clients upload over HTTP: what was acknowledged is stored, and
nothing is stored twice. Clients repeat an upload until it is acknowledged, as the tablet does."""

import collections
import itertools
import json
import os
import random
import select
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.client import HTTPException
from typing import Any

import pytest
from support.factories import PASSWORD, record
from support.servers import crash

from myhealth import processes, stores
from myhealth.common.database import CHANNEL

UPLOADS, RECORDS, CLIENTS = 200, 20, 4

pytestmark = pytest.mark.long


class Clients:
    """Threads that send bulk uploads. The records of every other upload have numbers; those of the rest have none, are
    all alike, and go under an Idempotency-Key.

    `answers`: the acknowledgement of each upload. `known_again`: how many were acknowledged by a repetition that found
    them stored, for the attempt that stored them had ended between its commit and its answer.
    """

    def __init__(self, url: str, token: str, uploads: int = UPLOADS, *, reachable: bool = False) -> None:
        """`reachable`: the server is always there, so that a broken connection is a fault."""
        self.url, self.token, self.uploads, self.reachable = url, token, uploads, reachable
        self.answers: dict[int, dict[str, Any]] = {}
        self.refusals = self.repeats = self.known_again = 0
        self.faults: list[str] = []
        self._numbers, self._lock = iter(range(uploads)), threading.Lock()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(CLIENTS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def wait_for(self, answers: int) -> bool:
        """Waits until so many uploads have been acknowledged; whether there are others to come."""
        deadline = time.monotonic() + 60
        while any(thread.is_alive() for thread in self._threads):
            if len(self.answers) >= answers:
                return True
            assert time.monotonic() < deadline, "nothing is acknowledged any more"
            time.sleep(0.002)
        return False

    def _run(self) -> None:
        while not self.faults:
            with self._lock:
                number = next(self._numbers, None)
            if number is None:
                return
            attempts = 1
            while not self.send(number, attempts) and not self.faults:
                attempts += 1
                time.sleep(0.05)
            self.repeats += attempts - 1

    def send(self, number: int, attempt: int = 1) -> bool:
        """Whether the upload was acknowledged."""
        numbered = number % 2 == 0
        records = [record(f"{number}-{i}" if numbered else None, disease=str(number), machine="HC-1") for i in range(RECORDS)]  # fmt: skip
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        headers |= {} if numbered else {"Idempotency-Key": f"upload {number}"}
        request = urllib.request.Request(f"{self.url}/checkups/", json.dumps(records).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                said, replayed = json.load(answer), answer.headers.get("Idempotent-Replayed") == "true"
        except urllib.error.HTTPError as error:
            self.refusals += 1
            if error.code != 503 or int(error.headers["Retry-After"] or 0) < 1:
                self.faults.append(f"{error.code}: {error.read()!r}")
            return False
        except (OSError, HTTPException, ValueError) as error:
            if self.reachable:
                self.faults.append(repr(error))
            return False
        self.known_again += attempt > 1 and (replayed or said["duplicate"] == RECORDS)
        self.answers[number] = said
        return True

    def check(self, db: Any) -> None:
        """Every upload was acknowledged, and what its answer says is what is stored, each record once."""
        assert not self.faults
        assert len(self.answers) == self.uploads
        stored = {id_: (number, disease) for id_, number, disease in db("select id, record_id, disease from checkups")}
        assert len(stored) == self.uploads * RECORDS
        for number, answer in self.answers.items():
            assert answer["rejected"] == 0
            sent = [(f"{number}-{i}" if number % 2 == 0 else None, str(number)) for i in range(RECORDS)]
            assert [stored.pop(item["id"]) for item in answer["items"]] == sent
        assert stored == {}


def workers_of(master: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(master)], capture_output=True, text=True)
    return [int(pid) for pid in found.stdout.split()]


@pytest.fixture
def committed(connect) -> Callable[[], None]:
    """Waits for the next commit of an upload: the API announces each behind its commit, and before its answer."""
    connection = connect()
    connection.autocommit = True
    connection.cursor().execute(f"listen {CHANNEL}")

    def wait() -> None:
        connection.poll()
        connection.notifies.clear()
        select.select([connection], [], [], 10)

    return wait


def test_workers_killed_at_any_moment_lose_and_double_nothing(settings, people, db, log_in) -> None:
    kills, kill_at = 0, 5
    with (
        processes.open_listening_socket("127.0.0.1", 0) as listener,
        processes.gunicorn("wsgi.upload:app", listener, settings, workers=2) as master,
    ):
        clients = Clients(processes.url_of(listener), log_in("tara"))
        clients.start()
        # a worker that is killed before it has started would take no upload at all
        while clients.wait_for(kill_at):
            time.sleep(random.uniform(0, 0.1))
            for pid in workers_of(master.pid):
                os.kill(pid, signal.SIGKILL)
                kills += 1
            kill_at = len(clients.answers) + random.randint(15, 30)
    assert kills > 0
    assert clients.repeats > 0, "no kill has met an upload"
    clients.check(db)


def test_a_server_killed_as_a_whole_at_any_moment_loses_and_doubles_nothing(
    settings, people, db, log_in, committed
) -> None:
    """Every other kill comes at a random moment, the rest as soon as a commit is seen: some of them before its answer."""
    kills, more = 0, True
    with processes.open_listening_socket("127.0.0.1", 0) as listener:
        clients = Clients(processes.url_of(listener), log_in("tara"))
        clients.start()
        while more:
            with processes.gunicorn("wsgi.upload:app", listener, settings, workers=2) as master:
                more = clients.wait_for(len(clients.answers) + random.randint(3, 10))
                if more:
                    committed() if kills % 2 else time.sleep(random.uniform(0, 0.1))
                    os.killpg(master.pid, signal.SIGKILL)  # the master and its workers
                    kills += 1
    print(f"\n{kills} kills, {clients.repeats} repetitions, {clients.known_again} found their records stored")
    assert kills > 10
    assert clients.known_again > 0, "no kill has come between a commit and its answer"
    clients.check(db)


@pytest.mark.parametrize("number", [0, 1], ids=["with numbers", "under a key"])
def test_what_was_committed_and_not_acknowledged_is_known_again(settings, people, db, log_in, connect, number) -> None:
    """PostgreSQL writes a commit down and then waits for a standby that never comes, so the moment holds still."""
    connection = connect()
    connection.autocommit = True
    cursor = connection.cursor()

    def wait_for_standbys(names: str) -> None:
        cursor.execute(f"alter system set synchronous_standby_names = '{names}'")
        cursor.execute("select pg_reload_conf()")

    with processes.open_listening_socket("127.0.0.1", 0) as listener:
        clients = Clients(processes.url_of(listener), log_in("tara"), uploads=1)
        sending = threading.Thread(target=clients.send, args=(number,), daemon=True)
        with processes.gunicorn("wsgi.upload:app", listener, settings) as master:
            wait_for_standbys("nobody")
            try:
                sending.start()
                waiting = "select count(*) from pg_stat_activity where wait_event = 'SyncRep'"
                wait_until(lambda: cursor.execute(waiting) or cursor.fetchone() == (1,))
                sending.join(0.5)
                assert sending.is_alive(), "it is acknowledged before its commit has ended"
                os.killpg(master.pid, signal.SIGKILL)
                sending.join(20)
                assert clients.answers == {}
            finally:
                wait_for_standbys("")
        wait_until(lambda: db("select count(*) from checkups") == [(RECORDS,)])
        with processes.gunicorn("wsgi.upload:app", listener, settings):
            assert clients.send(number, attempt=2)
    assert clients.known_again == 1
    assert db("select count(*) from checkups") == [(RECORDS,)]


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def stopped(postgres) -> Iterator[Callable[[float], None]]:
    """Stops PostgreSQL at once, as when the power goes, for some seconds; it runs again at the end of the test."""

    def stop(away_s: float) -> None:
        crash(postgres)
        time.sleep(away_s)
        stores.close_database()
        postgres.ensure()

    yield stop
    stores.close_database()
    postgres.ensure()


def test_postgresql_that_crashes_again_and_again_is_503_and_loses_and_doubles_nothing(
    settings, people, db, log_in, stopped
) -> None:
    """What was acknowledged before a crash is not sent again: it is there at the end only if its commit came first.
    Whatever else is asked meanwhile is answered, or put off."""
    crashes, away, asked = 0, [0.0, 0.5, 1.5], collections.Counter[int]()
    with (
        processes.open_listening_socket("127.0.0.1", 0) as listener,
        processes.gunicorn("wsgi.upload:app", listener, settings, workers=2),
    ):
        clients = Clients(processes.url_of(listener), log_in("tara"), reachable=True)
        clients.start()
        reader = threading.Thread(target=read_on, args=(clients, log_in("dr.ayush"), asked), daemon=True)
        reader.start()
        while clients.wait_for(len(clients.answers) + random.randint(5, 20)):
            time.sleep(random.uniform(0, 0.05))
            stopped(away[crashes % len(away)])
            crashes += 1
        reader.join(30)
    print(f"\n{crashes} crashes, {clients.refusals} answers were 503, {clients.known_again} found their records stored")
    assert set(asked) == {200, 503}, asked
    assert crashes > 3
    assert clients.refusals > 0, "no crash has met an upload"
    clients.check(db)


def read_on(clients: Clients, token: str, asked: collections.Counter[int]) -> None:
    """Asks for other things for as long as the clients upload."""
    paths = ("/users/", "/checkups/", "/users/bholanath/checkups/", "/healthz", "/metrics", "/openapi.json", "/login/")
    credentials = json.dumps({"username": "savita", "password": PASSWORD}).encode()
    for path in itertools.cycle(paths):
        if len(clients.answers) == clients.uploads or clients.faults:
            return
        headers = {"Authorization": f"Bearer {token}"}
        request = urllib.request.Request(clients.url + path, credentials if path == "/login/" else None, headers)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                asked[answer.status] += 1
        except urllib.error.HTTPError as error:
            asked[error.code] += 1
            assert int(error.headers["Retry-After"]) > 0
        time.sleep(0.01)
