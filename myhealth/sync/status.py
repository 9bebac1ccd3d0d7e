"""How the sync is: both stores, the mark between them, what holds it back, what was set aside."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from myhealth.common.database import transaction
from myhealth.common.errors import Unavailable
from myhealth.reports.writer import ReportWriter
from myhealth.sync.checkpoint import Checkpoint, epoch_ended, from_document
from myhealth.sync.lag import Holder, Lag, LastPass, find_holder, measure_lag, read_last_pass
from myhealth.sync.source import Source

COUNTS = "select (select count(*) from checkups), (select count(*) from users)"


@dataclass
class Status:
    """`away`: the stores that did not answer, with the reason; what they know is None. `epoch_ended`: why the next
    pass reads everything anew, or nothing."""

    away: dict[str, str] = field(default_factory=dict)
    lag: Lag | None = None
    mark: Checkpoint | None = None
    epoch_ended: str = ""
    last_pass: LastPass | None = None
    held_back_by: Holder | None = None
    set_aside: list[dict[str, Any]] = field(default_factory=list)
    set_aside_count: int | None = None
    checkups: int | None = None
    users: int | None = None
    reports: int | None = None
    report_users: int | None = None

    def is_behind(self, max_lag_s: float | None) -> bool:
        return max_lag_s is not None and self.lag is not None and self.lag.seconds > max_lag_s


def collect_status(source_url: str, writer: ReportWriter, *, failures: int = 100) -> Status:
    """Asks both stores; one that is away is told, and the other is asked all the same. PostgreSQL must be bound.

    With MongoDB away, the lag is measured from where the last pass had come to. At most `failures` are listed.
    """
    status = Status()
    try:
        _ask_store(writer, status, failures)
    except Unavailable as error:
        status.away["MongoDB"] = error.message
    try:
        _ask_source(source_url, status)
    except Unavailable as error:
        status.away["PostgreSQL"] = error.message
    return status


def _ask_store(writer: ReportWriter, status: Status, failures: int) -> None:
    status.mark = from_document(writer.read_checkpoint())
    status.set_aside, status.set_aside_count = writer.failures(failures), writer.count_quarantined()
    status.reports, status.report_users = writer.count()


def _ask_source(source_url: str, status: Status) -> None:
    with transaction() as cursor:
        status.last_pass = read_last_pass(cursor)
        known = status.mark
        if "MongoDB" in status.away:
            known = status.last_pass.mark if status.last_pass else None
        with Source.opened(source_url) as source:
            state = source.state(known.witness if known else "")
        status.epoch_ended = epoch_ended(known, state.history, state.next_xid, state.witnessed)
        status.lag = measure_lag(cursor, None if status.epoch_ended else known)
        status.held_back_by = find_holder(cursor)
        cursor.execute(COUNTS)
        status.checkups, status.users = cursor.fetchone()


def raise_if_unavailable(status: Status) -> None:
    """Raises Unavailable where a store was away."""
    if status.away:
        raise Unavailable("; ".join(status.away.values()))
