"""The loop around passes: every interval, until it is told to end."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import schedule

from myhealth.common.errors import Unavailable
from myhealth.common.settings import Settings
from myhealth.reports.mirror import Mirror
from myhealth.sync.runner import run_pass

log = logging.getLogger(__name__)


def run_loop(source_url: str, mirror: Mirror, settings: Settings) -> None:
    """Passes until SIGTERM or SIGINT, which end it between two batches. A store that is away is logged and tried
    again at the next pass; one line a pass, also when it did nothing."""
    log.info("sync starts, every %g s", settings.sync.interval_s)
    with ended_by_signals() as ending:

        def one_pass() -> None:
            try:
                done = run_pass(source_url, mirror, settings, ending=ending)
                log.info("%s", "sync waits: another one is at work" if done.locked_out else done.line())
            except Unavailable as error:
                log.warning("sync failed, next try in %g s: %s", settings.sync.interval_s, error)

        scheduler = schedule.Scheduler()
        scheduler.every(settings.sync.interval_s).seconds.do(one_pass)  # type: ignore[arg-type]
        scheduler.run_all()
        while not ending.is_set():
            idle_s = scheduler.idle_seconds
            if not ending.wait(max(0.0, idle_s if idle_s is not None else 1.0)):
                scheduler.run_pending()
    log.info("sync ended")


@contextmanager
def ended_by_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set; a second one of them acts as it did before."""
    ending = threading.Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def end(number: int, frame: Any) -> None:
        ending.set()
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, end)
    try:
        yield ending
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
