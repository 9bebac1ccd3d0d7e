"""The state of the sync: both stores, the checkpoint, the transaction that holds it back, and the quarantine."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from myhealth.common.database import transaction
from myhealth.common.errors import Unavailable
from myhealth.sync.checkpoint import Checkpoint, from_document, new_epoch_reason
from myhealth.sync.lag import Holder, Lag, LastPass, find_holder, measure_lag, read_last_pass
from myhealth.sync.source import Source

if TYPE_CHECKING:
    from myhealth.sync.targets import Target

# Raw SQL: two tables in one statement, so in one snapshot.
QUARANTINED_SHOWN = 100
COUNTS = "select (select count(*) from checkups), (select count(*) from users)"


@dataclass
class Status:
    """The state of both stores.

    `unavailable`: the reason by store that did not answer; its figures are None. `new_epoch`: why the next pass reads
    everything anew, or "". `quarantined`: the first entries of the quarantine.
    """

    unavailable: dict[str, str] = field(default_factory=dict)
    lag: Lag | None = None
    checkpoint: Checkpoint | None = None
    new_epoch: str = ""
    last_pass: LastPass | None = None
    held_back_by: Holder | None = None
    quarantined: list[dict[str, Any]] = field(default_factory=list)
    quarantined_count: int | None = None
    checkups: int | None = None
    users: int | None = None
    reports: int | None = None
    report_users: int | None = None

    def is_behind(self, max_lag_s: float | None) -> bool:
        """Return whether the lag is known and longer than `max_lag_s`."""
        return max_lag_s is not None and self.lag is not None and self.lag.seconds > max_lag_s

    def is_old(self, max_age_s: float | None) -> bool:
        """Return whether the last pass ended more than `max_age_s` ago, or none has."""
        if max_age_s is None or "PostgreSQL" in self.unavailable:
            return False
        return self.last_pass is None or (datetime.now(UTC) - self.last_pass.ended_at).total_seconds() > max_age_s


def collect_status(source_url: str, target: Target) -> Status:
    """Ask both stores. If one is unavailable, report it and ask the other. PostgreSQL must be bound.

    Without MongoDB, the lag is measured from the checkpoint that the last pass recorded in PostgreSQL.
    """
    status = Status()
    try:
        status.checkpoint = from_document(target.read_checkpoint())
        status.quarantined = target.list_quarantined(QUARANTINED_SHOWN)
        status.quarantined_count = target.count_quarantined()
        status.reports, status.report_users = target.count()
    except Unavailable as error:
        status.unavailable["MongoDB"] = error.message
    try:
        _ask_source(source_url, status)
    except Unavailable as error:
        status.unavailable["PostgreSQL"] = error.message
    return status


def _ask_source(source_url: str, status: Status) -> None:
    with transaction() as cursor:
        status.last_pass = read_last_pass(cursor)
        known = status.checkpoint
        if "MongoDB" in status.unavailable:
            known = status.last_pass.checkpoint if status.last_pass else None
        with Source.opened(source_url) as source:
            state = source.state(known.witness if known else "")
        status.new_epoch = new_epoch_reason(known, state.history, state.next_xid, state.witnessed)
        status.lag = measure_lag(cursor, None if status.new_epoch else known)
        status.held_back_by = find_holder(cursor)
        cursor.execute(COUNTS)
        status.checkups, status.users = cursor.fetchone()
