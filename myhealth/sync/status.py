"""The state of the sync: both stores, the checkpoint, how far the report store is behind PostgreSQL and what holds it
back, and the quarantine."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from myhealth.common.database import transaction
from myhealth.common.errors import Unavailable
from myhealth.sync.checkpoint import FEEDS, TABLES, Checkpoint, Position, from_document, new_epoch_reason
from myhealth.sync.source import Source

if TYPE_CHECKING:
    from myhealth.sync.targets import Target


# Rows beyond this many are not counted, so that the answer comes soon.
COUNTED = 1_000_000

CHANGED_AT = {"checkups": "updated_at", "users": "updated_at", "tombstones": "deleted_at"}
FOLLOWING = "(changed_in, id) > (%(xid)s::text::xid8, %(id)s)"
SCANNING = "(id > %(scanned)s or changed_in >= %(horizon)s::text::xid8)"
# Raw SQL: transaction ids, and PostgreSQL's own views.
BACKLOG = """
select (select count(*) from (select from {table} where {beyond} limit %(most)s) as counted),
       (select {changed_at} from {table} where {beyond} order by {order} limit 1), now()"""
# Only transactions that write hold the horizon back; those of every database in the cluster do.
HOLDER = """
select pid, usename, datname, application_name, state, xact_start, '' as prepared
from pg_stat_activity where backend_xid is not null and pid <> pg_backend_pid()
union all
select null, owner, database, '', 'prepared', prepared, gid from pg_prepared_xacts
order by xact_start nulls last limit 1"""
RECORD = "select began_at, ended_at, problem, mark, done from sync_pass"


class Lag(Struct, frozen=True):
    """How far the report store is behind.

    `rows`: changes and deletions that are not carried over yet. `seconds`: the age of the oldest of them.
    """

    rows: int
    seconds: float


class Holder(Struct, frozen=True):
    """The oldest writing transaction. No later change is carried over before it ends. A prepared transaction has no
    `pid` but a name, `prepared`."""

    pid: int | None
    user: str | None
    database: str | None
    application: str | None
    state: str | None
    since: datetime | None
    prepared: str


class LastPass(Struct, frozen=True):
    """The last pass of the sync.

    `problem`: why the pass failed, or "". `done`: its figures by name. `verified`: the figures of the loop's last
    comparison of both stores: `at` (RFC 3339), `ids`, and `differences` by kind.
    """

    began_at: datetime
    ended_at: datetime
    problem: str
    checkpoint: Checkpoint | None
    done: dict[str, Any]
    verified: dict[str, Any] | None


def measure_lag(cursor: Any, checkpoint: Checkpoint | None, most: int = COUNTED) -> Lag:
    """Return how many rows and seconds the report store is behind. Without a checkpoint, all check-ups and users count.

    Counts at most `most` rows a table.
    """
    rows, seconds = 0, 0.0
    for feed in FEEDS if checkpoint else TABLES:  # an empty store has nothing to remove
        found, oldest, now = _backlog(cursor, feed, checkpoint, most)
        rows += found
        if oldest is not None:
            seconds = max(seconds, (now - oldest).total_seconds())
    return Lag(rows, seconds)


def find_holder(cursor: Any) -> Holder | None:
    """Return the transaction that holds the horizon back, or None if no transaction is writing."""
    cursor.execute(HOLDER)
    row = cursor.fetchone()
    return Holder(*row) if row else None


def read_last_pass(cursor: Any) -> LastPass | None:
    """Return the record of the last pass, or None before the first one."""
    cursor.execute(RECORD)
    row = cursor.fetchone()
    if row is None:
        return None
    began_at, ended_at, problem, mark, done = row
    verified = done.pop("verified", None)
    return LastPass(began_at, ended_at, problem, from_document(mark), done, verified)


def _backlog(cursor: Any, feed: str, checkpoint: Checkpoint | None, most: int) -> tuple[int, datetime | None, datetime]:
    """Return the rows of one feed that are still to come, the time of the oldest one, and the time now."""
    position, beyond, order = Position(), FOLLOWING, "changed_in, id"
    values: dict[str, Any] = {"most": most}
    if checkpoint is not None and checkpoint.phase != "scan":
        position = checkpoint.feeds[feed]
    elif checkpoint is not None and feed == "tombstones":
        position = Position(checkpoint.horizon - 1, 0)
    elif checkpoint is not None:
        beyond, order = SCANNING, "id"
        values |= {"scanned": checkpoint.scanned[feed], "horizon": checkpoint.horizon}
    cursor.execute(
        BACKLOG.format(table=feed, changed_at=CHANGED_AT[feed], beyond=beyond, order=order),
        {**values, "xid": position.xid, "id": position.id},
    )
    found: tuple[int, datetime | None, datetime] = cursor.fetchone()
    return found


# Raw SQL: two tables in one statement, so in one snapshot.
QUARANTINED_SHOWN = 100
COUNTS = "select (select count(*) from checkups), (select count(*) from users)"


class Status(Struct):
    """The state of both stores.

    `unavailable`: the reason by store that did not answer; its figures are None. `new_epoch`: why the next pass reads
    everything anew, or "". `quarantined`: the first entries of the quarantine.
    """

    unavailable: dict[str, str] = {}
    lag: Lag | None = None
    checkpoint: Checkpoint | None = None
    new_epoch: str = ""
    last_pass: LastPass | None = None
    held_back_by: Holder | None = None
    quarantined: list[dict[str, Any]] = []
    quarantined_count: int | None = None
    checkups: int | None = None
    users: int | None = None
    reports: int | None = None
    report_users: int | None = None

    def is_behind(self, max_lag_s: float | None) -> bool:
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
