"""Threads beside those that serve requests: one ends the wait for a PostgreSQL that hangs, one notifies the sync.

A server that is stopped, or behind a firewall that drops packets, answers neither statements nor cancellations; its
driver would wait for ever.
"""

import atexit
import contextlib
import logging
import math
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any

import psycopg2
from psycopg2.extensions import POLL_OK, POLL_READ

from myhealth.common.database import SLOW_S, Pool, check_url, database, send_notification, translate_driver_errors
from myhealth.common.errors import MyHealthError, Unavailable

log = logging.getLogger(__name__)
POLL_S = 0.5
ANSWER_S = 2.0


class NoAnswer(Unavailable):
    """PostgreSQL takes connections or packets, and does not answer."""


def ask(url: str, sql: str, seconds: float) -> tuple[Any, ...]:
    """Run a statement over a connection of its own, and return its row. Raises NoAnswer if that takes longer than
    `seconds`, and the errors of `translate_driver_errors`."""
    until = time.monotonic() + seconds
    with translate_driver_errors:
        connection = psycopg2.connect(check_url(url), async_=1, application_name="myhealth health")
        try:
            _wait(connection, until)
            with connection.cursor() as cursor:
                cursor.execute(sql)
                _wait(connection, until)
                row = cursor.fetchone()
                return row if row is not None else ()
        finally:
            connection.close()


def _wait(connection: Any, until: float) -> None:
    while (state := connection.poll()) != POLL_OK:
        reading, writing = ([connection], []) if state == POLL_READ else ([], [connection])
        left = until - time.monotonic()
        if left <= 0 or not any(select.select(reading, writing, [], left)):
            raise NoAnswer("PostgreSQL is unavailable: it does not answer")


def hangs(url: str, seconds: float) -> bool:
    """Return whether PostgreSQL does not answer within these seconds. If it refuses, its connections end by
    themselves."""
    try:
        ask(url, "select true", seconds)
    except NoAnswer:
        return True
    except MyHealthError:
        pass
    return False


class Watch:
    """A thread that asks PostgreSQL while requests wait for it. If there is no answer, it breaks their connections, and
    the pool makes no new ones until there is."""

    def __init__(self, pool: Pool, url: str, observe: Callable[[Pool], None] = lambda _: None) -> None:
        """`observe`: called twice a second with the pool."""
        self._pool, self._url, self._observe = pool, url, observe
        self._stop = threading.Event()
        threading.Thread(target=self._run, name="database watch", daemon=True).start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(POLL_S):
            self._observe(self._pool)
            if self._pool.refused_until < math.inf and self._pool.longest_use_s() < SLOW_S:
                continue
            if not hangs(self._url, ANSWER_S):
                self._pool.refused_until = 0.0
                continue
            if self._pool.refused_until < math.inf:
                log.warning("PostgreSQL does not answer; the requests that wait for it are ended")
            self._pool.refused_until = math.inf
            for connection in self._pool.in_use():
                break_connection(connection)
            self._pool.close_idle()


NOTIFY_AFTER_S = 0.02


class Notifier:
    """A thread that notifies the sync of changes, so that no request waits for that. One notification tells of all
    changes of NOTIFY_AFTER_S."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._woken = threading.Event()
        self._changed = self._stopped = False
        self._thread = threading.Thread(target=self._run, name="notifier", daemon=True)
        self._thread.start()
        pool.announce = self.announce
        atexit.register(self.stop)

    def announce(self) -> None:
        """Notify the sync soon."""
        if not self._changed:
            self._changed = True
            self._woken.set()

    def stop(self) -> None:
        """End the thread, which notifies the sync of the last changes."""
        atexit.unregister(self.stop)
        self._pool.announce = None
        self._stopped = True
        self._woken.set()
        self._thread.join()

    def _run(self) -> None:
        is_last = False
        while not is_last:
            self._woken.wait()
            self._woken.clear()
            is_last = self._stopped
            time.sleep(NOTIFY_AFTER_S)
            self._tell()

    def _tell(self) -> None:
        if not self._changed:
            return
        self._changed = False
        try:
            send_notification()
            database.close()
        except Exception as error:  # noqa: BLE001 - whatever it is, the thread tells of the next change
            log.warning("the sync is not notified of a change: %s", type(error).__name__)


def break_connection(connection: Any) -> None:
    """Shut a connection's socket down: the thread that waits for it gets an error of the driver."""
    with contextlib.suppress(psycopg2.Error, OSError), socket.socket(fileno=os.dup(connection.fileno())) as end:
        end.shutdown(socket.SHUT_RDWR)


# A server under load may be slow; a pass is no request that somebody waits for.
PASS_ASK_S, PASS_ANSWER_S = 10.0, 20.0


@contextlib.contextmanager
def broken_if_hanging(url: str, connections: Collection[Any]) -> Iterator[None]:
    """Within the block, ask the server every ten seconds over a connection of its own. If it does not answer, break the
    connections, so that the threads that wait for them get an error."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(PASS_ASK_S):
            if hangs(url, PASS_ANSWER_S):
                log.warning("PostgreSQL is unavailable: it does not answer; the sync's connections are broken")
                for connection in tuple(connections):
                    break_connection(connection)

    threading.Thread(target=watch, name="sync watch", daemon=True).start()
    try:
        yield
    finally:
        ended.set()
