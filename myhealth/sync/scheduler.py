"""The loop around passes: every interval, until it is told to end."""

from __future__ import annotations

import logging
import random
import time

from myhealth.common.errors import SettingsError, Unavailable
from myhealth.common.settings import Settings
from myhealth.sync.runner import run_pass
from myhealth.sync.targets import Target
from myhealth.sync.wakeup import Listener, Waker, listen_for_wakeups

log = logging.getLogger(__name__)

# A pass that a store's absence ended is tried again sooner than after a long interval, but not at once.
RETRY_FIRST_S, RETRY_LONGEST_S = 1.0, 30.0
# An upload may have been heard of while an older transaction held its rows back: looked for again after so long.
RECHECK_S = (0.2, 1.0, 5.0)


def run_loop(source_url: str, target: Target, settings: Settings) -> None:
    """Passes until SIGTERM or SIGINT, which end it between two batches; one after the other, never two at once.

    They begin a whole number of intervals after the first one, however long each takes; one that is still at work
    when the next is due takes its place. With `sync.listen`, an upload begins one at once. A store that is away is
    logged and tried again; one line a pass, also when it did nothing.
    """
    log.info("sync starts, every %g s", settings.sync.interval_s)
    with listen_for_wakeups(Listener(source_url) if settings.sync.listen else None) as waker:
        due, away, looks, proven = time.monotonic(), 0, 0, False
        while not waker.ending.is_set():
            read = _one_pass(source_url, target, settings, waker, proven)
            away, proven = (away + 1, proven) if read is None else (0, True)
            due = next_due(due, settings.sync.interval_s, time.monotonic())
            looks = 0 if read or not looks else looks - 1
            if waker.wait(_until(due, away, looks)):
                looks = len(RECHECK_S)
    log.info("sync ended")


def next_due(due: float, interval_s: float, now: float) -> float:
    """The first moment after `now` that lies a whole number of intervals after `due`."""
    return due + interval_s * max(1, int((now - due) // interval_s) + 1)


def _until(due: float, away: int, looks: int) -> float:
    if away:
        delay_s = min(RETRY_LONGEST_S, RETRY_FIRST_S * 2.0 ** min(away, 10)) * random.uniform(0.5, 1)  # noqa: S311
        return min(due, time.monotonic() + delay_s)
    return min(due, time.monotonic() + RECHECK_S[-looks]) if looks else due


def _one_pass(source_url: str, target: Target, settings: Settings, waker: Waker, proven: bool) -> int | None:
    """How much the pass has read; None where a store was away. `proven`: the settings have served an earlier pass, so
    what looks like a wrong one is a failover under way, or a password that is being changed."""
    try:
        done = run_pass(source_url, target, settings, ending=waker.ending)
    except (Unavailable, SettingsError) as error:
        if isinstance(error, SettingsError) and not proven:
            raise
        log.warning("sync failed, tries again: %s", error)
        return None
    log.info("%s", "sync waits: another one is at work" if done.locked_out else done.line())
    return done.read
