"""How a pass bears with a store that has gone away within it."""

from __future__ import annotations

import logging
import random
import threading
import time

from myhealth.common.errors import Unavailable

log = logging.getLogger(__name__)

# How long a pass that has begun puts up with a store that is away, since it last got anything done: longer than a
# replica set takes to elect a primary, or a server to restart.
RETRY_FOR_S = 60.0
FIRST_DELAY_S, LONGEST_DELAY_S = 0.2, 5.0


class Backoff:
    """Backoff with jitter, so that many who lost the same server do not come back at once."""

    def __init__(self, ending: threading.Event) -> None:
        self._ending = ending
        self._got = -1
        self._tries = 0
        self._since = 0.0

    def wait(self, got: int, error: Unavailable) -> bool:
        """Waits before another attempt; False where there is to be none. `got`: how far the last one came."""
        now = time.monotonic()
        if got != self._got:
            self._got, self._tries, self._since = got, 0, now
        self._tries += 1
        delay_s = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2**self._tries) * random.uniform(0.5, 1)  # noqa: S311
        if now + delay_s - self._since > RETRY_FOR_S:
            return False
        log.warning("sync tries again in %.1f s: %s", delay_s, error.message)
        until = now + delay_s
        while time.monotonic() < until and not self._ending.is_set():
            time.sleep(0.05)
        return not self._ending.is_set()
