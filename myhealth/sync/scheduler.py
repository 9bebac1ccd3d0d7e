"""The loop around passes.

`schedule` runs a pass every interval, counted from the END of the pass before, and now and then the comparison of a
sample. Three things end the wait for a pass early: a notification that an upload has come in, SIGTERM or SIGINT, and
the retry after a store was unavailable.
"""

from __future__ import annotations

import contextlib
import logging
import math
import random
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import schedule

from myhealth.common.database import CHANNEL, UNAVAILABLE_ERRORS, UNCLASSIFIED_ERRORS
from myhealth.common.errors import MissingPrivilege, MyHealthError, SettingsError, Unavailable
from myhealth.common.settings import Settings
from myhealth.sync.runner import run_pass
from myhealth.sync.source import connect, translate_source_errors
from myhealth.sync.verify import verify_sample

if TYPE_CHECKING:
    from myhealth.sync.targets import Target


log = logging.getLogger(__name__)

# After a pass that an unavailable store ended, the next one comes before a long interval is over, with backoff.
RETRY_FIRST_S, RETRY_LONGEST_S = 1.0, 30.0
# After a notification, further passes come this soon: an older transaction may have held the rows back.
RECHECK_S = (0.2, 1.0, 5.0)


def run_loop(source_url: str, target: Target, settings: Settings) -> None:
    """Run passes until SIGTERM or SIGINT, which end a pass between two batches. Never run two at once.

    The first pass begins at once, each further one `sync.interval_s` after the end of the one before. With
    `sync.listen`, an upload begins one at once. An unavailable store is logged and retried. Each pass logs one line,
    also if it did nothing. Raises SettingsError if the first pass finds wrong settings.
    """
    log.info("sync starts, every %g s", settings.sync.interval_s)
    with listen_for_wakeups(source_url if settings.sync.listen else "") as wakeup:
        _Loop(source_url, target, settings, wakeup).run()
    log.info("sync ended")


class _Loop:
    """Runs passes at intervals and after notifications.

    `failures`: passes in a row that failed. `rechecks`: passes still to come soon after a notification.
    """

    def __init__(self, source_url: str, target: Target, settings: Settings, wakeup: Wakeup) -> None:
        self.source_url = source_url
        self.target = target
        self.settings = settings
        self.wakeup = wakeup
        self.failures = 0
        self.rechecks = 0
        self.settings_verified = False
        self.scheduler = schedule.Scheduler()  # an own one: the library's default one is shared by the whole process
        every: Any = self.scheduler.every  # its annotation allows no float
        self.passes = every(settings.sync.interval_s).seconds.do(self.run_pass)
        if settings.sync.verify_share:
            every(settings.sync.verify_interval_s).seconds.do(self.verify)

    def run(self) -> None:
        self.passes.run()
        while not self.wakeup.stop.is_set():
            idle_s, early_s = max(self.scheduler.idle_seconds or 0.0, 0.0), self._early_s()
            notified = self.wakeup.wait(time.monotonic() + min(idle_s, early_s))
            if self.wakeup.stop.is_set():
                return
            if notified:
                self.rechecks = len(RECHECK_S)
            if notified or early_s < idle_s:
                self.passes.run()  # now, though it is not due
            else:
                self.scheduler.run_pending()

    def _early_s(self) -> float:
        """Return the seconds until a pass that begins before its interval ends; infinity if there is no reason for
        one."""
        if self.failures:
            return min(RETRY_LONGEST_S, RETRY_FIRST_S * 2.0 ** min(self.failures, 10)) * random.uniform(0.5, 1)  # noqa: S311
        if self.rechecks:
            return RECHECK_S[-self.rechecks]
        # `schedule` counts by the local time of day, which goes back by an hour once a year where summer time ends.
        was_set_back = (self.scheduler.idle_seconds or 0.0) > self.settings.sync.interval_s
        return 0.0 if was_set_back else math.inf

    def verify(self) -> None:
        """Compare a sample of both stores. An error ends the comparison, not the loop."""
        try:
            verify_sample(self.source_url, self.target, self.settings, self.wakeup.stop)
        except MyHealthError as error:
            log.warning("verify is postponed: %s", error)

    def run_pass(self) -> None:
        """Run one pass. Settings that served an earlier pass are right: a SettingsError then means that a failover is
        under way or a password is being changed, and is retried."""
        try:
            done = run_pass(self.source_url, self.target, self.settings, stop=self.wakeup.stop)
        except (Unavailable, SettingsError) as error:
            if isinstance(error, (SettingsError, MissingPrivilege)) and not self.settings_verified:
                raise
            self.failures += 1
            log.warning("sync failed, tries again: %s", error)
            return
        self.failures, self.settings_verified = 0, True
        self.rechecks = 0 if done.read else max(0, self.rechecks - 1)
        log.info("%s", "sync waits: another one is at work" if done.locked_out else done.line())


RECONNECT_S = 5.0


class Wakeup:
    """A wait that a signal or an upload ends at once. `stop` is set by the signal.

    `url`: where to listen for uploads, "" for nowhere. The next pass carries over what comes while the connection is
    broken.
    """

    def __init__(self, signals: socket.socket, stop: threading.Event, url: str) -> None:
        self.stop = stop
        self._signals = signals
        self._url = url
        self._connection: Any = None
        self._again_at = 0.0

    def wait(self, until: float) -> bool:
        """Wait until that moment of the monotonic clock, or until `stop`; return whether an upload ended the wait."""
        while not self.stop.is_set() and (left := until - time.monotonic()) > 0:
            if self.listen():
                return True  # an upload may have come in before we listened
            if self._url and self._connection is None:
                left = min(left, RECONNECT_S)
            ready = select.select([each for each in (self._signals, self._connection) if each], [], [], left)[0]
            if self._signals in ready:
                self._signals.recv(1024)
            if self._connection in ready and self._has_notification():
                return True
        return False

    def listen(self) -> bool:
        """Connect if there is no connection, but not soon after a failure; return whether there is a new one."""
        if not self._url or self._connection is not None or time.monotonic() < self._again_at:
            return False
        self._again_at = time.monotonic() + RECONNECT_S
        try:
            self._connection = connect(self._url)
            with translate_source_errors(), self._connection.cursor() as cursor:
                cursor.execute(f"listen {CHANNEL}")
        except Unavailable as error:
            self.close()
            log.warning("sync cannot listen for uploads, next try in %g s: %s", RECONNECT_S, error)
        return self._connection is not None

    def _has_notification(self) -> bool:
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


@contextlib.contextmanager
def listen_for_wakeups(url: str) -> Iterator[Wakeup]:
    """Let SIGTERM and SIGINT set `stop` within the block; a second signal acts as it did before. `url`: as in Wakeup.

    The signal arrives through a socket, because a handler runs in the main thread: it could not set an Event on which
    that same thread waits.
    """
    stop = threading.Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def end(number: int, frame: Any) -> None:
        stop.set()
        for each, handler in before.items():
            signal.signal(each, handler)

    reading, writing = socket.socketpair()
    writing.setblocking(False)
    wakeup = Wakeup(reading, stop, url)
    wakeup.listen()  # before the first pass: an upload during that pass is noticed
    woken_before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    for number in before:
        signal.signal(number, end)
    try:
        yield wakeup
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(woken_before)
        for opened in (reading, writing, wakeup):
            opened.close()
