"""Process large bodies one at a time in each worker, so that their memory does not add up; small ones go on."""

import contextlib
import threading
from collections.abc import Iterator

from myhealth.common.errors import Unavailable


class Busy(Unavailable):
    code = "busy"


class Gate:
    """Let one thread in. At most `waiting` others wait for it: each waiting one is a thread less for other requests."""

    def __init__(self, waiting: int = 2, wait_s: float = 60) -> None:
        self._wait_s = wait_s
        self._turn = threading.BoundedSemaphore()
        self._places = threading.BoundedSemaphore(1 + waiting)

    @contextlib.contextmanager
    def enter(self) -> Iterator[None]:
        """Wait for the turn. Raises Busy if too many wait already, or for too long."""
        with contextlib.ExitStack() as held:
            for semaphore, seconds in ((self._places, 0.0), (self._turn, self._wait_s)):
                if not semaphore.acquire(timeout=seconds):
                    raise Busy("Other large uploads are being stored; send it again in a moment.", retry_after_s=10)
                held.callback(semaphore.release)
            yield
