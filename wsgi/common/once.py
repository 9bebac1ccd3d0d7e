"""Work that is done once for all requests; a failure is remembered for a moment."""

import math
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from myhealth.common.errors import MyHealthError

T = TypeVar("T")
RETRY_S = 1.0


class Once(Generic[T]):
    """Cache what `make` returned for `keep_s` seconds, for ever by default. Safe to share between threads.

    An error is cached too, for as long as the failed call took, at most a second: requests that waited for it would
    otherwise repeat the call one after the other.
    """

    def __init__(self, make: Callable[[], T], keep_s: float = math.inf) -> None:
        self._make, self._keep_s = make, keep_s
        self._found: list[T] = []
        self._error: MyHealthError | None = None
        self._until = -math.inf
        self._lock = threading.Lock()

    def __call__(self) -> T:
        if self._found and time.monotonic() < self._until:
            return self._found[0]
        with self._lock:
            if time.monotonic() >= self._until:
                self._try()
            if self._error is not None:
                raise self._error.with_traceback(None)
            return self._found[0]

    def _try(self) -> None:
        started = time.monotonic()
        try:
            self._found, self._error = [self._make()], None
            self._until = time.monotonic() + self._keep_s
        except MyHealthError as error:
            self._found, self._error = [], error
            now = time.monotonic()
            self._until = now + min(now - started, RETRY_S)
