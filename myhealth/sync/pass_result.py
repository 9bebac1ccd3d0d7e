"""The result of one pass of the sync, and the backoff within it when a store becomes unavailable."""

import logging
import random
import threading
import time
from typing import Any

from myhealth.common.errors import Unavailable
from myhealth.reports.writer import WriteResult

QUARANTINED_SHOWN = 100


class Pass(WriteResult):
    """The result of one pass.

    `quarantined`: the first documents that MongoDB refused; `quarantined_count`: all of them. `last_checkup_id`: the
    highest check-up id stored. `locked_out`: another runner is at work and this pass did nothing. `begun`: both stores
    have answered.
    """

    read: int = 0
    quarantined_count: int = 0
    last_checkup_id: int = 0
    epoch: int = 0
    new_epoch: str = ""
    secs: float = 0.0
    locked_out: bool = False
    begun: bool = False

    def line(self) -> str:
        """Return one log line with fixed keys."""
        return (
            f"sync read={self.read} written={self.written} unchanged={self.unchanged} removed={self.removed}"
            f" failed={self.quarantined_count} mark={self.last_checkup_id} secs={self.secs:.2f}"
        )

    def figures(self) -> dict[str, Any]:
        """Return the figures that `sync_pass` stores in PostgreSQL; scripts read these names."""
        figures = {"read": self.read, "written": self.written, "unchanged": self.unchanged, "removed": self.removed}
        return {**figures, "failures": self.quarantined_count, "new_epoch": self.new_epoch}

    def add(self, rows: int, result: WriteResult) -> None:
        self.read += rows
        self.written += result.written
        self.unchanged += result.unchanged
        self.removed += result.removed
        self.quarantined_count += len(result.quarantined)
        self.quarantined = [*self.quarantined, *result.quarantined][:QUARANTINED_SHOWN]


log = logging.getLogger(__name__)

# A pass retries this long after its last progress: longer than a replica set takes to elect a primary, or a server to
# restart.
RETRY_FOR_S = 60.0
FIRST_DELAY_S, LONGEST_DELAY_S = 0.2, 5.0


class Backoff:
    """Exponential backoff with jitter, so that many clients of a lost server do not come back at once."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._progress = -1
        self._tries = 0
        self._since = 0.0

    def wait(self, progress: int, error: Unavailable) -> bool:
        """Wait before another attempt; return False if there is to be no further one.

        `progress`: the rows that the last attempt had read. Progress starts the backoff again.
        """
        now = time.monotonic()
        if progress != self._progress:
            self._progress, self._tries, self._since = progress, 0, now
        self._tries += 1
        delay_s = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2**self._tries) * random.uniform(0.5, 1)  # noqa: S311
        if now + delay_s - self._since > RETRY_FOR_S:
            return False
        log.warning("sync tries again in %.1f s: %s", delay_s, error.message)
        until = now + delay_s
        while time.monotonic() < until and not self._stop.is_set():
            time.sleep(0.05)
        return not self._stop.is_set()
