"""The sync as a process that can be killed, and concurrent writers."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Self

import psycopg2
import psycopg2.errors

from myhealth.common.settings import Settings
from myhealth.reports.repository import ReportRepository

TIMEOUT_S = 120.0
TAKEN = "Another sync is at work"
INSERT = "insert into checkups (patient_id, checkup_type, checkup_report, disease, results) values (%s, %s, %s, '', %s)"
FILL = ("insert into checkups (patient_id, checkup_type, checkup_report, disease)"
        " select 1, 'T', n::text, '' from generate_series(1, %s) n")  # fmt: skip
A_USER = "select id from users where username like 'w-%%' offset %s limit 1"
A_ROW = "(select id from checkups where id >= %s order by id limit 1 for update skip locked)"
HIGHEST = "select coalesce(max(id), 0) from checkups"


@contextlib.contextmanager
def syncing(settings: Settings, *words: str, **options: str) -> Iterator[subprocess.Popen[str]]:
    """Run `myhealth sync` with these arguments and environment variables; kill it when the block ends."""
    own = {
        "MYHEALTH_DATABASE_URL": settings.database_url,
        "MYHEALTH_MONGO_URL": settings.mongo_url,
        "MYHEALTH_DATA_DIR": settings.data_dir,
        "MYHEALTH_BCRYPT_ROUNDS": "4",
        **options,
    }
    command = [sys.executable, "-m", "cli", "sync", *words]
    process = subprocess.Popen(command, env={**os.environ, **own}, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


def carry_over(settings: Settings, *words: str, **options: str) -> str:
    """Run one whole pass, which must succeed; return its log.

    The session of a killed runner may hold the lock for a moment longer.
    """
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        with syncing(settings, "--once", "--verbose", *words, **options) as process:
            said = process.communicate(timeout=TIMEOUT_S)[1]
        assert process.returncode == 0, said
        if TAKEN not in said:
            return said
        assert time.monotonic() < deadline, said


def begun(reports: ReportRepository) -> Callable[[], bool]:
    """Return a function that returns whether a new pass has begun since this call and is at work."""
    before = (reports.state.find_one({"_id": "mark"}) or {}).get("run")

    def at_work() -> bool:
        mark = reports.state.find_one({"_id": "mark"})
        return mark is not None and mark["run"] not in ("", before) and not mark["finished"]

    return at_work


def ended(process: subprocess.Popen[str]) -> str:
    """Return the log of a pass that succeeded or asks for a retry."""
    said = process.communicate(timeout=TIMEOUT_S)[1]
    assert process.returncode in (0, 75), said
    assert "Traceback" not in said
    return said


def wait_for(what: Callable[[], Any], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Threads:
    """Threads that run until the block ends; `run` gets the number of its thread and waits for `ending` to be set."""

    def __init__(self, run: Callable[[int], None], count: int) -> None:
        self.ending = threading.Event()
        self._threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ending.set()
        for thread in self._threads:
            thread.join()


class Writers(Threads):
    """Concurrent writers in plain SQL, until the block ends: slow commits, rollbacks, edits, renames, reports that move
    to another patient, deletions, also of users with all their data. They survive a crash of the server.

    `options`: settings of their sessions, as libpq takes them.
    """

    def __init__(self, url: str, count: int = 6, options: str = "") -> None:
        self.commits = 0
        self._url, self._options = url, options
        self._faults: list[BaseException] = []
        super().__init__(self._run, count)

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        if self._faults:
            raise self._faults[0]

    def _run(self, seed: int) -> None:
        chance = random.Random(seed)
        try:
            while not self.ending.is_set():
                with surviving():
                    connection = psycopg2.connect(self._url, options=self._options)
                    with contextlib.closing(connection):
                        while not self.ending.is_set():
                            self._transact(connection, chance)
                self.ending.wait(0.1)
        except BaseException as error:  # noqa: BLE001 - it is asserted on when the block ends
            self._faults.append(error)

    def _transact(self, connection: Any, chance: random.Random) -> None:
        try:
            with connection.cursor() as cursor:
                for _ in range(chance.randint(1, 5)):
                    write(cursor, chance)
                time.sleep(chance.random() * (0.5 if chance.random() < 0.05 else 0.03))
            if chance.random() < 0.2:
                connection.rollback()
            else:
                connection.commit()
                self.commits += 1
        except (psycopg2.errors.DeadlockDetected, psycopg2.errors.IntegrityError):
            connection.rollback()  # they are in each other's way, or the patient is gone


@contextlib.contextmanager
def surviving() -> Iterator[None]:
    """Ignore errors of a server that becomes unavailable; the driver may raise a plain DatabaseError then."""
    try:
        yield
    except (psycopg2.OperationalError, psycopg2.InterfaceError):
        pass
    except psycopg2.DatabaseError as error:
        if type(error) is not psycopg2.DatabaseError:
            raise


def write(cursor: Any, chance: random.Random) -> None:
    """Run one statement, or a few."""
    what, some = chance.random(), str(chance.random())
    cursor.execute(HIGHEST)
    row = chance.randint(0, cursor.fetchone()[0])
    cursor.execute(A_USER, (chance.randint(0, 20),))
    patient = (cursor.fetchone() or (1,))[0]
    if what < 0.06:
        cursor.execute("insert into users (username) values (%s) returning id", (f"w-{some}",))
        patient = cursor.fetchone()[0]
    if what < 0.5:
        for _ in range(chance.choice([1, 1, 1, 1, 20])):
            cursor.execute(INSERT, (patient, "T", some, f'[{{"name": "n", "value": {some[:8]}, "flag": "H"}}]'))
    elif what < 0.7:
        cursor.execute(f"update checkups set disease = %s, results = '[]' where id = {A_ROW}", (some, row))
    elif what < 0.75:
        cursor.execute(f"update checkups set patient_id = %s where id = {A_ROW}", (patient, row))
    elif what < 0.85:
        cursor.execute(f"delete from checkups where id = {A_ROW}", (row,))
    elif what < 0.9:
        cursor.execute("savepoint here")
        cursor.execute(INSERT, (patient, "NEVER", some, "[]"))
        cursor.execute("rollback to here")
    elif what < 0.97:
        name = " ".join(chance.choices(["Bholanath", "Savita", "Kulkarni", "Pande", "Rao"], k=3))
        cursor.execute("update users set username = %s, full_name = %s where id = %s", (f"w-{some}", name, patient))
    else:
        cursor.execute("delete from users where id = %s and username like 'w-%%'", (patient,))
