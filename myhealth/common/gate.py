"""A gate that few threads pass at a time, so that expensive work leaves threads and memory for other requests."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from myhealth.common.errors import Busy

WAIT_S = 2.0


class Gate:
    """A limit on the threads within.

    `slots` are within at once, `waiting` more may wait for up to `wait_s`; any further one is refused at once.
    `refusal`: the message, if not that for logins, and the seconds after which to try again.
    """

    def __init__(self, slots: int, waiting: int, wait_s: float = WAIT_S, refusal: tuple[Any, ...] = ()) -> None:
        self._wait_s, self._refusal = wait_s, refusal
        self._slots = threading.Semaphore(slots)
        self._room = threading.Semaphore(slots + waiting)

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Run the block within the gate. Raises Busy. A thread that is within must not enter again."""
        with ExitStack() as held:
            for semaphore, seconds in ((self._room, 0.0), (self._slots, self._wait_s)):
                if not semaphore.acquire(timeout=seconds):
                    raise Busy(*self._refusal)
                held.callback(semaphore.release)
            yield
