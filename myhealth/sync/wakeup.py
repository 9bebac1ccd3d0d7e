"""The wait between two passes, which a signal or a PostgreSQL notification of an upload ends early."""

import contextlib
import logging
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg2.extensions

from myhealth.common.database import CHANNEL, UNAVAILABLE_ERRORS, UNCLASSIFIED_ERRORS
from myhealth.common.errors import Unavailable
from myhealth.sync.source import connect, translate_source_errors

log = logging.getLogger(__name__)

RECONNECT_S = 5.0


class Listener:
    """A connection that listens for uploads. The next pass carries over what comes while it is broken."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: psycopg2.extensions.connection | None = None
        self._again_at = 0.0

    @property
    def is_connected(self) -> bool:
        return self._connection is not None

    def socket(self) -> Any:
        """Return the connection to wait on, connecting again if it was lost; None while PostgreSQL is unavailable."""
        if self._connection is None and time.monotonic() >= self._again_at:
            self._again_at = time.monotonic() + RECONNECT_S
            try:
                self._connection = connect(self._url)
                with translate_source_errors(), self._connection.cursor() as cursor:
                    cursor.execute(f"listen {CHANNEL}")
            except Unavailable as error:
                self.close()
                log.warning("sync cannot listen for uploads, next try in %g s: %s", RECONNECT_S, error)
        return self._connection

    def has_notification(self) -> bool:
        """Return whether an upload has come in since the last call."""
        if self._connection is None:
            return False
        try:
            self._connection.poll()
        except (*UNAVAILABLE_ERRORS, *UNCLASSIFIED_ERRORS):
            self.close()
            return True  # an upload may have come in as the connection broke
        notified = bool(self._connection.notifies)
        self._connection.notifies.clear()
        return notified

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None


class Wakeup:
    """A wait that a signal or an upload ends at once. `stop` is set by the signal."""

    def __init__(self, signals: socket.socket, stop: threading.Event, listener: Listener | None) -> None:
        self.stop = stop
        self._signals = signals
        self._listener = listener

    def wait(self, until: float) -> bool:
        """Wait until that moment of the monotonic clock, or until `stop`; return whether an upload ended the wait."""
        while not self.stop.is_set() and (left := until - time.monotonic()) > 0:
            was_connected = self._listener is not None and self._listener.is_connected
            socket = self._listener.socket() if self._listener else None
            if socket is not None and not was_connected:
                return True  # an upload may have come in before we listened
            step = min(left, RECONNECT_S) if self._listener and socket is None else left
            ready = select.select([each for each in (self._signals, socket) if each], [], [], step)[0]
            if self._signals in ready:
                self._signals.recv(1024)
            if socket in ready and self._listener is not None and self._listener.has_notification():
                return True
        return False


@contextlib.contextmanager
def listen_for_wakeups(listener: Listener | None) -> Iterator[Wakeup]:
    """Let SIGTERM and SIGINT set `stop` within the block; a second signal acts as it did before.

    The signal arrives through a socket, because a handler runs in the main thread: it could not set an Event on which
    that same thread waits.
    """
    if listener is not None:
        listener.socket()  # before the first pass: an upload during that pass is noticed
    stop = threading.Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def end(number: int, frame: Any) -> None:
        stop.set()
        for each, handler in before.items():
            signal.signal(each, handler)

    reading, writing = socket.socketpair()
    writing.setblocking(False)
    woken_before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    for number in before:
        signal.signal(number, end)
    try:
        yield Wakeup(reading, stop, listener)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(woken_before)
        for end_of_pair in (reading, writing):
            end_of_pair.close()
        if listener is not None:
            listener.close()
