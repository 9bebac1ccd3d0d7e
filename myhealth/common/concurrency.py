"""Threads that overlap the wait for one store with the work for another, a gate that few of them pass at a time, and
work that is done once for all of them."""

import collections
import concurrent.futures
import contextlib
import gc
import itertools
import math
import sys
import threading
import time
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator
from typing import Any, Generic, TypeVar

from myhealth.common.errors import Busy, MyHealthError

T = TypeVar("T")
S = TypeVar("S")
# How long a thread that has a store's answer waits for the interpreter; by default it is 5 ms, while the store idles.
SWITCH_S = 0.0002


@contextlib.contextmanager
def prefetch(items: Iterable[T], depth: int = 2) -> Iterator[Iterator[T]]:
    """Produce `items` in a thread of their own, in order, at most `depth` of them before they are consumed.

    Errors and the end of the block are as in `parallel_map`. From then on, the threads of the process take turns every
    SWITCH_S.
    """
    sys.setswitchinterval(SWITCH_S)
    end: Any = object()
    iterator = iter(items)
    try:
        with parallel_map(lambda _: next(iterator, end), itertools.count(), workers=1, ahead=depth) as produced:
            yield itertools.takewhile(lambda item: item is not end, produced)
    finally:
        if isinstance(items, Generator):
            items.close()


@contextlib.contextmanager
def parallel_map(work: Callable[[T], S], items: Iterable[T], workers: int = 2, ahead: int = 2) -> Iterator[Iterator[S]]:
    """Call `work` on the items in `workers` threads at once, on at most `ahead` of them before their results are
    consumed; yield the results in the order of the items.

    An error of `work` or of `items` is raised in the consumer, after the results that came before it. When the block
    ends, the threads have ended, after they have finished the items that they were working on.
    """
    pool = concurrent.futures.ThreadPoolExecutor(workers, thread_name_prefix="parallel_map")

    def submit() -> Iterator[concurrent.futures.Future[S]]:
        try:
            for item in items:
                yield pool.submit(work, item)
        except Exception as error:  # noqa: BLE001 - the consumer raises it, behind the results that come before it
            failed = concurrent.futures.Future[S]()
            failed.set_exception(error)
            yield failed

    def consume() -> Iterator[S]:
        waiting: collections.deque[concurrent.futures.Future[S]] = collections.deque()
        for future in submit():
            waiting.append(future)
            if len(waiting) > ahead:  # also where one is done, so that there is always work while a result is consumed
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    try:
        yield consume()
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def relaxed_gc() -> Iterator[None]:
    """Run the cyclic garbage collector fifty times less often, and not on objects from before the block.

    The collector takes a fifth of the time of a pipeline of many short-lived documents, which contain no cycles.
    """
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


WAIT_S = 2.0


class Gate:
    """A limit on the threads inside a block: on all of them, or on those of each user.

    `slots` threads may be inside at once, and `waiting` more may wait for up to `wait_s`; any further one is refused at
    once. `refusal`: returns the error, by default that for logins.
    """

    def __init__(
        self, slots: int, waiting: int = 0, wait_s: float = WAIT_S, refusal: Callable[[], MyHealthError] = Busy
    ) -> None:
        self._slots, self._waiting, self._wait_s, self._refusal = slots, waiting, wait_s, refusal
        self._present: collections.Counter[Hashable] = collections.Counter()  # inside or waiting
        self._inside: collections.Counter[Hashable] = collections.Counter()
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def enter(self, user: Hashable = None) -> Iterator[None]:
        """Run the block within the gate. Raises the refusal. A thread that is within must not enter again.

        `user`: whose threads are counted; None if all of them are.
        """
        most = self._slots + self._waiting
        with self._count(self._present, user, most), self._count(self._inside, user, self._slots, self._wait_s):
            yield

    @contextlib.contextmanager
    def _count(
        self, threads: collections.Counter[Hashable], user: Hashable, most: int, wait_s: float = 0.0
    ) -> Iterator[None]:
        with self._changed:
            if not self._changed.wait_for(lambda: threads[user] < most, wait_s):
                raise self._refusal()
            threads[user] += 1
        try:
            yield
        finally:
            with self._changed:
                threads.subtract([user])
                threads += collections.Counter()  # without those who have gone
                self._changed.notify_all()


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
