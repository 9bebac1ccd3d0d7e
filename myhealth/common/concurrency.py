"""Working ahead: one thread makes what another uses, so that waiting for one store overlaps with work for the other."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import gc
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
S = TypeVar("S")
POLL_S = 0.2


class _End:
    """Marks the end of what is made, with the error that ended it."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


@contextlib.contextmanager
def prefetch(items: Iterable[T], depth: int = 2) -> Iterator[Iterator[T]]:
    """Makes `items` in a thread of its own, at most `depth` of them before they are wanted, in their order.

    What the making raises is raised to whoever uses them, behind the items that came before it. When the block is
    left, the thread has ended; an item that is being made by then is made to its end first.
    """
    made: queue.Queue[T | _End] = queue.Queue(depth)
    leaving = threading.Event()

    def put(item: T | _End) -> bool:
        while not leaving.is_set():
            with contextlib.suppress(queue.Full):
                made.put(item, timeout=POLL_S)
                return True
        return False

    def make() -> None:
        error: BaseException | None = None
        try:
            try:
                for item in items:
                    if not put(item):
                        return
            finally:
                if isinstance(items, Generator):  # here and now: what it holds open is closed behind us
                    items.close()
        except BaseException as raised:  # noqa: BLE001 - it is raised again where the items are used
            error = raised
        put(_End(error))

    def use() -> Iterator[T]:
        while not isinstance(item := made.get(), _End):
            yield item
        if item.error is not None:
            raise item.error

    thread = threading.Thread(target=make, name="ahead", daemon=True)
    thread.start()
    try:
        yield use()
    finally:
        leaving.set()
        thread.join()


@contextlib.contextmanager
def parallel_map(work: Callable[[T], S], items: Iterable[T], workers: int = 2) -> Iterator[Iterator[S]]:
    """Does `work` on items in some threads at once; gives the results in the items' order.

    What work raises is raised to whoever uses the results, behind those that came before it. When the block is left,
    the threads have ended; items that are being worked on by then are worked on to their end first.
    """
    pool = concurrent.futures.ThreadPoolExecutor(workers, thread_name_prefix="side by side")

    def use() -> Iterator[S]:
        waiting: collections.deque[concurrent.futures.Future[S]] = collections.deque()
        for item in items:
            waiting.append(pool.submit(work, item))
            while waiting and (len(waiting) > workers or waiting[0].done()):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    try:
        yield use()
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def relaxed_gc() -> Iterator[None]:
    """Looks for garbage in cycles fifty times less often: a fifth of the time of a pipeline that makes many short-lived
    documents, which have none, goes into that. What exists before is not looked at again within the block."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
