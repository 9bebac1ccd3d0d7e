"""A gate that few threads pass at a time, so that expensive work leaves threads and cores for the other requests."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from myhealth.common.errors import Busy

WAIT_S = 2.0


class Gate:
    """`slots` threads are within at once, `waiting` more may wait for up to 2 s; any further one is refused at once."""

    def __init__(self, slots: int, waiting: int) -> None:
        self._room = threading.Semaphore(slots + waiting)
        self._slots = threading.Semaphore(slots)

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Run the block within the gate. Raises Busy. A thread that is within must not enter again."""
        if not self._room.acquire(blocking=False):
            raise Busy()
        try:
            if not self._slots.acquire(timeout=WAIT_S):
                raise Busy()
            try:
                yield
            finally:
                self._slots.release()
        finally:
            self._room.release()
