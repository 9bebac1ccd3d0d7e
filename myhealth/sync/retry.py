"""Retry within a pass: exponential backoff when a store becomes unavailable."""

import logging
import random
import threading
import time

from myhealth.common.errors import Unavailable

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
