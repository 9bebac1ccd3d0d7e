"""How far the report store is behind, as PostgreSQL knows it, and who holds it back. Functions take a cursor."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from myhealth.sync.checkpoint import FEEDS, Checkpoint, Position, from_document

# Beyond so many, rows are not counted one by one: who asks often wants an answer soon.
COUNTED = 1_000_000

CHANGED_AT = {"checkups": "updated_at", "users": "updated_at", "tombstones": "deleted_at"}
FOLLOWING = "(changed_in, id) > (%(xid)s::text::xid8, %(id)s)"
SCANNING = "(id > %(scanned)s or changed_in >= %(horizon)s::text::xid8)"
BACKLOG = """
select (select count(*) from (select from {table} where {beyond} limit %(most)s) as counted),
       (select {changed_at} from {table} where {beyond} order by {order} limit 1), now()"""
# Only transactions that write hold the horizon back; those of every database in the cluster do.
HOLDER = """
select pid, usename, datname, application_name, state, backend_xid::text::bigint, xact_start, '' as prepared
from pg_stat_activity where backend_xid is not null and pid <> pg_backend_pid()
union all
select null, owner, database, '', 'prepared', transaction::text::bigint, prepared, gid from pg_prepared_xacts
order by xact_start nulls last limit 1"""
NOTED = "select began_at, ended_at, problem, mark, done from sync_pass"


@dataclass(frozen=True)
class Lag:
    """`rows` that are not carried over yet, changes and deletions alike; `seconds` since the first of them."""

    rows: int
    seconds: float


@dataclass(frozen=True)
class Holder:
    """The oldest transaction that writes: nothing that came after it is carried over before it ends. `pid` is None for
    a prepared one, which has a name instead, `prepared`."""

    pid: int | None
    user: str | None
    database: str | None
    application: str | None
    state: str | None
    since: datetime | None
    prepared: str


@dataclass(frozen=True)
class LastPass:
    """`problem`: why it did not end as it should, or nothing. `done`: figures by name."""

    began_at: datetime
    ended_at: datetime
    problem: str
    mark: Checkpoint | None
    done: dict[str, Any]


def measure_lag(cursor: Any, mark: Checkpoint | None, most: int = COUNTED) -> Lag:
    """How far behind PostgreSQL a store with this mark is; with none, everything is still to come. Counts at most
    `most` rows a table."""
    rows, seconds = 0, 0.0
    for feed in FEEDS:
        found, oldest, now = _backlog(cursor, feed, mark, most)
        rows += found
        if oldest is not None:
            seconds = max(seconds, (now - oldest).total_seconds())
    return Lag(rows, seconds)


def find_holder(cursor: Any) -> Holder | None:
    """Who holds the horizon back most, if anybody writes just now."""
    cursor.execute(HOLDER)
    row = cursor.fetchone()
    if row is None:
        return None
    pid, user, database, application, state, _, since, prepared = row
    return Holder(pid, user, database, application, state, since, prepared)


def read_last_pass(cursor: Any) -> LastPass | None:
    cursor.execute(NOTED)
    row = cursor.fetchone()
    if row is None:
        return None
    began_at, ended_at, problem, mark, done = row
    return LastPass(began_at, ended_at, problem, from_document(mark), done)


def _backlog(cursor: Any, feed: str, mark: Checkpoint | None, most: int) -> tuple[int, datetime | None, datetime]:
    scanning = mark is not None and mark.phase == "scan"
    if scanning and feed == "tombstones":
        place, scanning = Position(mark.horizon - 1, 0) if mark else Position(), False
    else:
        place = mark.feeds[feed] if mark else Position()
    if mark is None and feed == "tombstones":
        most = 0  # a store that has nothing has nothing to remove
    values: dict[str, Any] = {"xid": place.xid, "id": place.id, "most": most}
    if scanning and mark is not None:
        values |= {"scanned": mark.scanned[feed], "horizon": mark.horizon}
    beyond, order = (SCANNING, "id") if scanning else (FOLLOWING, "changed_in, id")
    cursor.execute(BACKLOG.format(table=feed, changed_at=CHANGED_AT[feed], beyond=beyond, order=order), values)
    found, oldest, now = cursor.fetchone()
    return found, oldest if most else None, now
