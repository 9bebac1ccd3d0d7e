"""The gapless change feed of PostgreSQL, and the scan by which an epoch begins.

Ids are handed out at insert and become visible at commit, so a cursor over ids skips what commits late. Every row
carries the transaction that wrote it last; nothing below the horizon, the oldest transaction that has not ended,
can still appear.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg2
import psycopg2.extensions

from myhealth.common.database import (
    UNAVAILABLE_ERRORS,
    UNCLASSIFIED_ERRORS,
    check_url,
    is_unavailable,
    unavailable_error,
)
from myhealth.common.errors import SettingsError, Unavailable
from myhealth.sync.checkpoint import History, Position

# The key of the advisory lock that a runner holds: any constant that nothing else in this database locks.
SYNC_LOCK = 7_305_808_869_231_650_133
# Rows of one slice: each is read in a snapshot of its own, which must stay short, for it holds back vacuum.
SLICE_ROWS = 50_000

# A standby that has not replayed a row after so long is not worth waiting for.
STANDBY_PATIENCE_S = 30.0

Row = tuple[Any, ...]
Connection = psycopg2.extensions.connection

# Each begins with the row's id and the transaction that wrote it last; the rest is what `documents` takes, in order.
# Moments come in UTC and without a zone: an aware one takes twice as long to be read and to be written.
COLUMNS = {
    "checkups": "t.id, t.changed_in::text::bigint, t.patient_id, users.subject::text, t.checkup_type, t.checkup_report,"
    " t.disease, machines.serial, t.taken_by, t.taken_at at time zone 'UTC', t.created_at at time zone 'UTC',"
    " t.updated_at at time zone 'UTC', t.results::text, t.revision",
    "users": "t.id, t.changed_in::text::bigint, t.subject::text, t.username, t.full_name, t.role, t.active,"
    " t.tokens_valid_after at time zone 'UTC', t.revision",
    "tombstones": "t.id, t.changed_in::text::bigint, t.kind, t.row_id, t.revision",
}
JOINS = {
    "checkups": "join users on users.id = t.patient_id left join machines on machines.id = t.machine_id",
    "users": "",
    "tombstones": "",
}
SCAN = "select {columns} from {table} t {join} where t.id > %(id)s order by t.id limit %(limit)s"
FEED = (
    "select {columns} from {table} t {join} where (t.changed_in, t.id) > (%(xid)s::text::xid8, %(id)s)"
    " and t.changed_in < %(horizon)s::text::xid8 order by t.changed_in, t.id limit %(limit)s"
)
# In order and no more than one, not `exists`: for that a planner who has no figures, or old ones, reads the table.
PENDING = (
    "(select true from {table} t where (t.changed_in, t.id) > (%({table}_xid)s::text::xid8, %({table}_id)s)"
    " and t.changed_in < %(horizon)s::text::xid8 order by t.changed_in, t.id limit 1) is not null"
)
BY_ID = "select {columns} from {table} t {join} where t.id = any(%(ids)s) order by t.id limit %(limit)s"
TOMBSTONES_SQL = """
select distinct on (row_id) row_id, changed_in::text::bigint, id from tombstones
where kind = %(kind)s and row_id = any(%(ids)s) order by row_id, changed_in desc, id desc"""
# What keeps the feed true of both tables, and what a restore makes last. A trigger that was off for a while has another
# xmin behind it: rows that came meanwhile may say that they are from long ago.
STATE = """
select system_identifier::text, ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint,
       format('%%s/%%s/%%s/%%s/%%s', (select oid from pg_database where datname = current_database()),
              'users'::regclass::oid, 'checkups'::regclass::oid, 'tombstones'::regclass::oid, guards),
       pg_snapshot_xmin(pg_current_snapshot())::text::bigint, pg_snapshot_xmax(pg_current_snapshot())::text::bigint,
       exists (select from sync_witness where nonce::text = %(witness)s), feeding
from pg_control_system(), (
    select md5(string_agg(guard, ' ' order by guard)) as guards, count(*) filter (where feeds) as feeding
    from (select format('%%s%%s%%s', oid, tgenabled, xmin) as guard,
                 tgenabled <> 'D' and tgname in ('feed_stamp_insert', 'feed_stamp_update', 'feed_bury') as feeds
          from pg_trigger where tgrelid in ('users'::regclass, 'checkups'::regclass) and not tgisinternal
          union all
          select oid::text, false from pg_constraint where conrelid = 'checkups'::regclass and contype = 'f') as each
) as guarding"""
FEEDING = 6  # three triggers on each of two tables
NOTE = """
insert into sync_pass (began_at, problem, mark, done)
values (clock_timestamp() - %(secs)s * interval '1 second', %(problem)s, %(mark)s, %(done)s)
on conflict (one) do update set began_at = excluded.began_at, ended_at = clock_timestamp(), problem = excluded.problem,
    mark = coalesce(excluded.mark, sync_pass.mark), done = excluded.done"""
# Old ones are looked for now and then only: that reads the whole table.
WITNESS = """
with old as (delete from sync_witness where written_at < now() - interval '90 days' and (select random() < 0.01))
insert into sync_witness default values returning nonce::text"""


@dataclass(frozen=True)
class State:
    """The source at one moment: its history, its horizon, the first transaction id that is not given out yet, and
    whether it has the witness that was asked for."""

    history: History
    horizon: int
    next_xid: int
    witnessed: bool


class Source:
    """The source of truth as the sync reads it. One runner at a time holds its lock.

    Rows may be read from a hot standby. Its horizon is as right as the primary's, for its own snapshot: it holds every
    transaction for running whose id it has seen, or could have seen below one it has seen, until it has replayed its
    end (KnownAssignedXids in PostgreSQL's procarray.c); so whatever is below has ended, and is visible, there. It only
    lies further back. What a standby cannot do is done at the primary: the lock, which is each server's own, and the
    witnesses, which are rows. That the standby has a witness shows that it follows this very history.
    """

    def __init__(self, url: str, primary: Connection, reader: Connection) -> None:
        self._url = url
        self._primary = primary
        self._reader = reader
        self._locked = False

    @classmethod
    @contextlib.contextmanager
    def opened(cls, url: str, standby_url: str = "") -> Iterator[Source]:
        """Raises Unavailable where the server is away; so do all statements when they find it gone."""
        with contextlib.ExitStack() as stack:
            primary = connect(url)
            stack.callback(primary.close)
            reader = connect(standby_url, "sync.source_url") if standby_url else primary
            stack.callback(reader.close)
            source = cls(url, primary, reader)
            if reader is not primary:
                source._check_standby()
            stack.callback(source._unlock)
            yield source

    def _check_standby(self) -> None:
        """Raises WrongSettings for a server that is no standby, or another cluster's."""
        sql = "select system_identifier::text, pg_is_in_recovery() from pg_control_system()"
        ours, (theirs, recovering) = self._one(sql, at=self._primary), self._one(sql)
        if theirs != ours[0]:
            raise SettingsError(
                "sync.source_url is a server of another cluster; it must be a standby of database_url's"
            )
        if not recovering:
            raise SettingsError("sync.source_url is not a standby, or not any more; leave it out, or name one")

    def lock(self) -> bool:
        """Whether this is the only runner; the lock lasts as long as the connection."""
        self._locked = bool(self._one("select pg_try_advisory_lock(%s)", (SYNC_LOCK,), at=self._primary)[0])
        return self._locked

    def _unlock(self) -> None:
        """At once: a session that is closed ends a moment later, and the next runner would find its lock."""
        if self._locked:
            with contextlib.suppress(Unavailable, psycopg2.Error):  # a session that is broken has no lock for long
                self._one("select pg_advisory_unlock(%s)", (SYNC_LOCK,), at=self._primary)

    def state(self, witness: str = "") -> State:
        """With a standby, the horizon is the standby's, once it has the witness. Raises Unavailable where it is too far
        behind for that, and while the tables have not got the triggers that make a feed of them."""
        found = self._one(STATE, {"witness": witness}, at=self._primary)
        system_identifier, timeline, tables, horizon, next_xid, witnessed, feeding = found
        if feeding != FEEDING:
            raise Unavailable("PostgreSQL's tables have no triggers, or they are off: perhaps it is being restored")
        if witnessed and self._reader is not self._primary:
            self.await_marker_row(witness)
            horizon = self._one("select pg_snapshot_xmin(pg_current_snapshot())::text::bigint")[0]
        return State(History(system_identifier, timeline, tables), horizon, next_xid, witnessed)

    def await_marker_row(self, witness: str) -> None:
        """Waits until whoever rows are read from has it; not within a slice, whose snapshot may be what a standby waits
        for. Raises Unavailable where a standby is too far behind for that."""
        if self._reader is self._primary:
            return
        until = time.monotonic() + STANDBY_PATIENCE_S
        while not self._one("select exists (select from sync_witness where nonce::text = %s)", (witness,))[0]:
            if time.monotonic() > until:
                raise Unavailable(
                    f"the standby of sync.source_url is more than {STANDBY_PATIENCE_S:g} s behind, or follows no more"
                )
            time.sleep(0.02)

    def insert_marker_row(self) -> str:
        """Makes a row that a database does not have which is later set back to before this moment; gives its name.

        On a connection of its own: it must be there for good before anything is written that this one reads. Ours must
        have outlived it: what was read before a crash is not vouched for by a witness from behind it.
        """
        connection = connect(self._url)
        try:
            with translate_source_errors(), connection.cursor() as cursor:
                cursor.execute(WITNESS)
                witness = str(cursor.fetchall()[0][0])
        finally:
            connection.close()
        self._one("select true", at=self._primary)
        return witness

    def note_pass(self, secs: float, problem: str, mark: dict[str, Any] | None, done: dict[str, Any]) -> None:
        """Notes how a pass went, for whoever looks at PostgreSQL alone; the sync itself never reads it."""
        values = {"secs": secs, "problem": problem, "mark": mark and _json(mark), "done": _json(done)}
        with translate_source_errors(), self._primary.cursor() as cursor:
            try:
                cursor.execute(NOTE, values)
            except psycopg2.errors.InvalidColumnReference as error:
                raise Unavailable("sync_pass has no key yet: it is being restored") from error

    def pending(self, feeds: Mapping[str, Position], horizon: int) -> list[str]:
        """The feeds that have something beyond their positions and below the horizon: an index look-up each."""
        checks: list[str] = []
        values: dict[str, int] = {}
        for feed, place in feeds.items():
            checks.append(PENDING.format(table=feed))
            values |= {f"{feed}_xid": place.xid, f"{feed}_id": place.id}
        found = self._one(f"select {', '.join(checks)}", {**values, "horizon": horizon})
        return [feed for feed, has in zip(feeds, found, strict=True) if has]

    def scan(self, table: str, after: int, batch_rows: int) -> Iterator[list[Row]]:
        """Batches of one slice of a table in order of id, beyond `after`, in one snapshot."""
        return self._slice(SCAN, table, {"id": after}, batch_rows)

    def follow(self, table: str, after: Position, horizon: int, batch_rows: int) -> Iterator[list[Row]]:
        """Batches of one slice of a table's feed, beyond `after` and below `horizon`, in one snapshot."""
        return self._slice(FEED, table, {"xid": after.xid, "id": after.id, "horizon": horizon}, batch_rows)

    def find(self, table: str, ids: Sequence[int], batch_rows: int) -> Iterator[list[Row]]:
        """Batches of these rows, as far as they are there."""
        return self._slice(BY_ID, table, {"ids": list(ids), "limit": len(ids)}, batch_rows)

    def tombstones_of(self, kind: str, ids: Sequence[int]) -> dict[int, Position]:
        """Where in the feed the last deletion of each of these rows stands, of those that were ever deleted."""
        with translate_source_errors(), self._reader.cursor() as cursor:
            cursor.execute(TOMBSTONES_SQL, {"kind": kind, "ids": list(ids)})
            return {row_id: Position(xid, id_) for row_id, xid, id_ in cursor.fetchall()}

    def _slice(self, query: str, table: str, values: dict[str, Any], batch_rows: int) -> Iterator[list[Row]]:
        sql = query.format(columns=COLUMNS[table], table=table, join=JOINS[table])
        with translate_source_errors():
            self._reader.autocommit = False
        left = False
        try:
            with self._reader, self._reader.cursor(name="slice") as cursor:
                cursor.itersize = batch_rows
                with translate_source_errors():
                    cursor.execute(sql, {"limit": SLICE_ROWS, **values})
                while rows := _fetch(cursor, batch_rows):
                    left = True
                    yield rows
                    left = False
        except (*UNAVAILABLE_ERRORS, *UNCLASSIFIED_ERRORS) as error:
            if not is_unavailable(error):
                raise
            if not left:  # else nobody reads on: it came up as the transaction was ended
                raise unavailable_error(error) from error
        finally:
            with contextlib.suppress(psycopg2.Error):  # of a connection that is of no use any more
                self._reader.autocommit = True

    def _one(self, sql: str, values: Any = None, *, at: Connection | None = None) -> Row:
        with translate_source_errors(), (at or self._reader).cursor() as cursor:
            cursor.execute(sql, values)
            row = cursor.fetchone()
        if row is None:
            raise LookupError(f"no row: {sql}")
        return row


def connect(url: str, key: str = "database_url") -> Connection:
    """A connection that commits by itself; it notices a server that is gone within a minute."""
    options: Any = {"connect_timeout": 10, "keepalives_idle": 30, "tcp_user_timeout": 60_000}
    with translate_source_errors():
        connection: Connection = psycopg2.connect(
            check_url(url, key), application_name="myhealth sync", options="-c timezone=UTC -c jit=off", **options
        )
        connection.autocommit = True
        return connection


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, default=str)


def _fetch(cursor: Any, batch_rows: int) -> list[Row]:
    with translate_source_errors():
        rows: list[Row] = cursor.fetchmany(batch_rows)
        return rows


@contextlib.contextmanager
def translate_source_errors() -> Iterator[None]:
    """Turns a fault of the connection into Unavailable, and a standby into a clear word."""
    try:
        yield
    except (psycopg2.errors.ObjectNotInPrerequisiteState, psycopg2.errors.ReadOnlySqlTransaction) as error:
        raise SettingsError(
            "database_url is a standby in recovery", hint="name the primary there, and the standby in sync.source_url"
        ) from error
    except (*UNAVAILABLE_ERRORS, *UNCLASSIFIED_ERRORS) as error:
        if not is_unavailable(error):
            raise
        raise unavailable_error(error) from error
