"""Limits on the work that one user causes: one export at a time, and answers that are computed once."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from myhealth.common.errors import TooManyAttempts

EXPORT_RETRY_S = 5
ANSWER_WAIT_S, ANSWER_RETRY_S = 1.0, 2
EXPORT_BUSY = "Another download of yours is still running; please try again when it has ended."
ANSWER_BUSY = "This is being prepared for you already; please try again in a moment."


class OnePerUser:
    """Exports that are running in this process, at most one for each user."""

    def __init__(self) -> None:
        self._running: set[str] = set()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def hold(self, subject: str) -> Iterator[None]:
        """Count the block as the export of this user. Raises TooManyAttempts while the user has another one."""
        with self._lock:
            if subject in self._running:
                raise TooManyAttempts(EXPORT_BUSY, code="export_running", retry_after_s=EXPORT_RETRY_S)
            self._running.add(subject)
        try:
            yield
        finally:
            with self._lock:
                self._running.discard(subject)


@dataclass
class _Answer:
    lock: threading.Lock = field(default_factory=threading.Lock)
    value: Any = None
    size: int = 0
    until: float = 0.0


class RecentAnswers:
    """A cache of at most `most` expensive answers for some seconds: a chart is often followed by its table.

    `size_of`: the bytes of an answer; all together have at most `max_bytes`, or the last one alone.
    Callers of one key wait for the first, for a second at most. The caller checks the permission first, and puts the
    patient and the question into the key.
    """

    def __init__(
        self, keep_s: float, most: int, max_bytes: int = 0, size_of: Callable[[Any], int] = lambda value: 0
    ) -> None:
        self._keep_s, self._most, self._max_bytes, self._size_of = keep_s, most, max_bytes, size_of
        self._answers: dict[Any, _Answer] = {}
        self._lock = threading.Lock()

    def get(self, key: Any, make: Callable[[], Any]) -> Any:
        """Return what `make` returns, or returned some seconds ago. Raises TooManyAttempts if `make` is still running
        for another caller."""
        with self._lock:
            found = self._answers.setdefault(key, _Answer())
            self._trim(found)
        if not found.lock.acquire(timeout=ANSWER_WAIT_S):
            raise TooManyAttempts(ANSWER_BUSY, code="overview_running", retry_after_s=ANSWER_RETRY_S)
        try:
            if time.monotonic() >= found.until:
                found.value = make()
                found.until = time.monotonic() + self._keep_s
                with self._lock:
                    found.size = self._size_of(found.value)
                    self._trim(found)
            return found.value
        finally:
            found.lock.release()

    def _trim(self, kept: _Answer) -> None:
        """Forget the oldest answers beyond the bounds, but not this one."""
        size = sum(each.size for each in self._answers.values())
        for key, each in list(self._answers.items()):
            if len(self._answers) <= self._most and size <= self._max_bytes:
                return
            if each is not kept:
                del self._answers[key]
                size -= each.size
