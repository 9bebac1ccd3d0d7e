"""The gapless change feed of PostgreSQL, and the scan with which an epoch begins.

PostgreSQL hands out an id at insert and shows the row at commit, so a cursor over ids skips rows that commit late.
Here every row carries the id of the transaction that wrote it last. The horizon is the oldest transaction that has not
ended; below it no row can still appear. So the feed in order of (transaction id, row id) up to the horizon has no gap.

Raw SQL throughout: transaction ids, snapshots, server-side cursors and catalogs have no form in peewee.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

import psycopg2
import psycopg2.extensions
from msgspec import Struct

from myhealth.common.database import (
    NETWORK,
    SESSION_SQL,
    UNAVAILABLE_ERRORS,
    UNCLASSIFIED_ERRORS,
    check_url,
    is_unavailable,
    transaction,
    translate_driver_errors,
    unavailable_error,
)
from myhealth.common.database_watch import broken_if_hanging
from myhealth.common.errors import SettingsError, Unavailable
from myhealth.common.settings import RetentionSettings
from myhealth.privacy.rules import purge
from myhealth.reports.access_log import UploadEvent
from myhealth.sync.checkpoint import History, Position
from myhealth.sync.rows import JOINS, ROWS, SELECTED, Row

# The key of the advisory lock that a runner holds: any constant that nothing else in this database locks.
SYNC_LOCK = 7_305_808_869_231_650_133
# Rows of a slice. Each slice has a snapshot of its own, which must be short, because it holds back vacuum.
SLICE_ROWS = 50_000

# A pass waits at most this long until a standby has replayed a row.
STANDBY_WAIT_S = 30.0

Connection = psycopg2.extensions.connection

SCAN = "select {columns} from {table} t {join} where t.id > %(id)s order by t.id limit %(limit)s"
FEED = (
    "select {columns} from {table} t {join} where (t.changed_in, t.id) > (%(xid)s::text::xid8, %(id)s)"
    " and t.changed_in < %(horizon)s::text::xid8 order by t.changed_in, t.id limit %(limit)s"
)
# Ordered and limited to one row: for `exists`, a planner without statistics reads the whole table.
PENDING = (
    "(select true from {table} t where (t.changed_in, t.id) > (%({table}_xid)s::text::xid8, %({table}_id)s)"
    " and t.changed_in < %(horizon)s::text::xid8 order by t.changed_in, t.id limit 1) is not null"
)
BY_ID = "select {columns} from {table} t {join} where t.id = any(%(ids)s) order by t.id limit %(limit)s"
HIGHEST = "select (select coalesce(max(id), 0) from checkups) + (select coalesce(max(id), 0) from users)"
TOMBSTONES_SQL = """
select distinct on (row_id) row_id, changed_in::text::bigint, id from tombstones
where kind = %(kind)s and row_id = any(%(ids)s) order by row_id, changed_in desc, id desc"""
# `guards` is a hash of the triggers and foreign keys, which keep the feed true and which a restore makes last. One
# that was off for a while has another xmin: rows of that time may carry an old transaction id.
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
# Documents without a row of their person: the source would remove them, or replace them with somebody else's.
MISSING = """
select count(*) from unnest(%(ids)s::bigint[], %(subjects)s::text[]) as stored (id, subject)
where not exists (select from {table} t join users on users.id = t.{person}
                  where t.id = stored.id and stored.subject in ('', users.subject::text))"""
PERSON = {"users": "id", "checkups": "patient_id"}
FEEDING = 6  # three triggers on each of two tables
RECORD = """
insert into sync_pass (began_at, problem, mark, done)
values (clock_timestamp() - %(secs)s * interval '1 second', %(problem)s, %(mark)s, %(done)s)
on conflict (one) do update set began_at = excluded.began_at, ended_at = clock_timestamp(), problem = excluded.problem,
    mark = coalesce(excluded.mark, sync_pass.mark), done = sync_pass.done || excluded.done"""
# Kept in the record of the last pass, whose own figures are others.
RECORD_SAMPLE = "update sync_pass set done = done || jsonb_build_object('verified', %s::jsonb)"
# One in a hundred deletes the old witnesses, because that reads the whole table.
WITNESS = """
with old as (delete from sync_witness where written_at < now() - interval '90 days' and (select random() < 0.01))
insert into sync_witness default values returning nonce::text"""


# The events that a patient finds in the access log: what shows the record or opens the account to somebody. A change
# shows all that it changes a part of. An event of an earlier user of the same id is not the patient's.
EVENTS = """
select e.id, e.at, e.actor_id, staff.subject::text, coalesce(e.actor, ''), coalesce(staff.role, ''), e.action,
       case when e.action = 'read' then e.details->>'what' when e.action = 'user.invite' then 'invitation'
            when e.action = 'checkup.change' then 'correction' when e.details->>'changed' = 'password' then 'password'
            else 'profile' end, e.subject_id, patient.subject::text, patient.username,
       case when e.details->>'checkup' ~ '^[0-9]{1,18}$' then (e.details->>'checkup')::bigint end, e.address
from audit_events e join users patient on patient.id = e.subject_id and patient.created_at <= e.at
    left join users staff on staff.id = e.actor_id and staff.created_at <= e.at
where e.id > %(after)s and e.outcome = 'done' and e.actor_id is distinct from e.subject_id
    and (e.action = 'read' and e.details ? 'what' or e.action in ('user.change', 'user.invite')
         or e.action = 'checkup.change' and not e.details ? 'by')
order by e.id limit %(limit)s"""
# An event may be committed after one with a higher id, but not this much later: it has a short transaction of its own.
SETTLED_EVENT = """
select coalesce(max(id), %(after)s) from audit_events where id > %(after)s and at < now() - interval '10 minutes'"""


class State(Struct, frozen=True):
    """The source at one moment. `next_xid`: the first transaction id that is not given out yet. `witnessed`: it has the
    witness that was asked for."""

    history: History
    horizon: int
    next_xid: int
    witnessed: bool


class Source:
    """The source of truth as the sync reads it. One runner at a time holds its lock.

    Rows may be read from a hot standby. The standby's horizon is right for its own snapshot: it counts a transaction as
    running if it has seen that id or a higher one, until it has replayed the end of that transaction
    (KnownAssignedXids in PostgreSQL's procarray.c). So every transaction below has ended and is visible there; the
    horizon is merely older than the primary's. The primary does what a standby cannot: it holds the lock, which each
    server has for itself, and it inserts the witnesses. A standby that has a witness follows this very history.
    """

    def __init__(self, url: str, primary: Connection, reader: Connection) -> None:
        self._url = url
        self._primary = primary
        self._reader = reader
        self._locked = False
        self._to_primary = {primary}

    @classmethod
    @contextlib.contextmanager
    def opened(cls, url: str, standby_url: str = "") -> Iterator[Source]:
        """Open the connections. This and every statement raise Unavailable if the server is unavailable."""
        with contextlib.ExitStack() as stack:
            primary = connect(url)
            stack.callback(primary.close)
            reader = connect(standby_url, "sync.source_url") if standby_url else primary
            stack.callback(reader.close)
            source = cls(url, primary, reader)
            stack.enter_context(broken_if_hanging(url, source._to_primary))
            if standby_url:
                stack.enter_context(broken_if_hanging(standby_url, (reader,)))
                source._check_standby()
            stack.callback(source._unlock)
            yield source

    def _check_standby(self) -> None:
        """Raise SettingsError if the server is not a standby, or belongs to another cluster."""
        sql = "select system_identifier::text, pg_is_in_recovery() from pg_control_system()"
        ours, (theirs, recovering) = self._one(sql, at=self._primary), self._one(sql)
        if theirs != ours[0]:
            raise SettingsError(
                "sync.source_url is a server of another cluster; it must be a standby of database_url's"
            )
        if not recovering:
            raise SettingsError("sync.source_url is not a standby, or not any more; leave it out, or name one")

    def lock(self) -> bool:
        """Take the lock, which lasts as long as the connection; return whether this is the only runner."""
        self._locked = bool(self._one("select pg_try_advisory_lock(%s)", (SYNC_LOCK,), at=self._primary)[0])
        return self._locked

    def _unlock(self) -> None:
        """Release the lock now: a closed session ends a moment later, and the next runner would find its lock."""
        if self._locked:
            with contextlib.suppress(Unavailable, psycopg2.Error):  # a broken session loses its lock soon
                self._one("select pg_advisory_unlock(%s)", (SYNC_LOCK,), at=self._primary)

    def state(self, witness: str = "") -> State:
        """Return the state of the source. With a standby, the horizon is the standby's, once it has the witness.

        Raises Unavailable if the standby is too far behind, or while the tables lack the triggers that make the feed.
        """
        found = self._one(STATE, {"witness": witness}, at=self._primary)
        system_identifier, timeline, tables, horizon, next_xid, witnessed, feeding = found
        if feeding != FEEDING:
            raise Unavailable("PostgreSQL's tables have no triggers, or they are off: perhaps it is being restored")
        if witnessed and self._reader is not self._primary:
            self.await_witness(witness)
            horizon = self._one("select pg_snapshot_xmin(pg_current_snapshot())::text::bigint")[0]
        return State(History(system_identifier, timeline, tables), horizon, next_xid, witnessed)

    def await_witness(self, witness: str) -> None:
        """Wait until the server that rows are read from has the witness. Raises Unavailable if it is too far behind.

        Do not call it within a slice: the standby may wait for the end of that slice's snapshot.
        """
        if self._reader is self._primary:
            return
        until = time.monotonic() + STANDBY_WAIT_S
        while not self._one("select exists (select from sync_witness where nonce::text = %s)", (witness,))[0]:
            if time.monotonic() > until:
                raise Unavailable(
                    f"the standby of sync.source_url is more than {STANDBY_WAIT_S:g} s behind, or no longer follows"
                )
            time.sleep(0.02)

    def insert_witness(self) -> str:
        """Insert a witness and return its name. A database that is later set back to before this moment lacks it.

        It is committed on a connection of its own, before anything that our connection has read is written. Our
        connection must have survived the insert: a witness from after a crash does not vouch for rows that were read
        before the crash.
        """
        connection = connect(self._url)
        self._to_primary.add(connection)
        try:
            with translate_source_errors(), connection.cursor() as cursor:
                cursor.execute(WITNESS)
                witness = str(cursor.fetchall()[0][0])
        finally:
            self._to_primary.discard(connection)
            connection.close()
        self._one("select true", at=self._primary)
        return witness

    def record_pass(self, secs: float, problem: str, checkpoint: dict[str, Any] | None, done: dict[str, Any]) -> None:
        """Record how a pass went, for readers of PostgreSQL alone; the sync itself never reads the record."""
        values = {"secs": secs, "problem": problem, "mark": checkpoint and _to_json(checkpoint), "done": _to_json(done)}
        with translate_source_errors(), self._primary.cursor() as cursor:
            try:
                cursor.execute(RECORD, values)
            except psycopg2.errors.InvalidColumnReference as error:
                raise Unavailable("sync_pass has no key yet: it is being restored") from error

    def settled_event(self, after: int) -> int:
        """Return the highest id of the audit, beyond `after`, below which no event can still appear."""
        return int(self._one(SETTLED_EVENT, {"after": after}, at=self._primary)[0])

    def read_events(self, after: int, limit: int) -> list[UploadEvent]:
        """Return the next events of the audit that concern a patient, in order of id."""
        rows = self._all(EVENTS, {"after": after, "limit": limit}, at=self._primary)
        return [UploadEvent(*row) for row in rows]

    def purge(self, retention: RetentionSettings) -> None:
        """Delete a bounded number of rows that are older than they are to be kept."""
        with translate_source_errors(), self._primary.cursor() as cursor:
            purge(cursor, retention)

    def count_missing(self, table: str, documents: Sequence[tuple[int, str]]) -> int:
        """Return how many of these documents, each (id, subject of its person or ""), have no row of that person."""
        ids, subjects = zip(*documents, strict=True)
        sql = MISSING.format(table=table, person=PERSON[table])
        return int(self._one(sql, {"ids": [*ids], "subjects": [*subjects]}, at=self._primary)[0])

    def highest_id(self, table: str) -> int:
        return int(self._one(f"select coalesce(max(id), 0) from {table}")[0])

    def record_sample(self, figures: dict[str, Any]) -> None:
        """Record the figures of a comparison of both stores, for readers of PostgreSQL alone."""
        with translate_source_errors(), self._primary.cursor() as cursor:
            cursor.execute(RECORD_SAMPLE, (_to_json(figures),))

    def pending(self, feeds: Mapping[str, Position], horizon: int) -> list[str]:
        """Return the feeds that have a row after their position and below the horizon, by one index look-up each."""
        checks: list[str] = []
        values: dict[str, int] = {}
        for feed, position in feeds.items():
            checks.append(PENDING.format(table=feed))
            values |= {f"{feed}_xid": position.xid, f"{feed}_id": position.id}
        found = self._one(f"select {', '.join(checks)}", {**values, "horizon": horizon})
        return [feed for feed, has in zip(feeds, found, strict=True) if has]

    def scan(self, table: str, after: int, batch_rows: int) -> Iterator[tuple[bool, list[Row]]]:
        """Yield the rows after the id `after`, in order of id, as `_slices` does."""
        return self._slices(SCAN, table, {"id": after}, batch_rows)

    def follow(self, table: str, after: Position, horizon: int, batch_rows: int) -> Iterator[tuple[bool, list[Row]]]:
        """Yield the rows of a feed after `after` and below `horizon`, in their order, as `_slices` does."""
        return self._slices(FEED, table, {"xid": after.xid, "id": after.id, "horizon": horizon}, batch_rows)

    def find(self, table: str, ids: Sequence[int], batch_rows: int) -> Iterator[list[Row]]:
        """Yield batches of those of these rows that exist."""
        return self._slice(BY_ID, table, {"ids": list(ids), "limit": len(ids)}, batch_rows)

    def tombstones_of(self, kind: str, ids: Sequence[int]) -> dict[int, Position]:
        """Return the feed position of the last deletion of each of these rows that was ever deleted."""
        rows = self._all(TOMBSTONES_SQL, {"kind": kind, "ids": list(ids)})
        return {row_id: Position(xid, id_) for row_id, xid, id_ in rows}

    def _slices(
        self, query: str, table: str, values: dict[str, Any], batch_rows: int
    ) -> Iterator[tuple[bool, list[Row]]]:
        """Yield batches of rows, slice by slice, each slice in one snapshot; with each, whether it begins a slice."""
        seen = SLICE_ROWS
        while seen >= SLICE_ROWS:
            seen = 0
            for rows in self._slice(query, table, values, batch_rows):
                yield not seen, rows
                seen += len(rows)
                values = {**values, "xid": rows[-1].xid, "id": rows[-1].id}

    def _slice(self, query: str, table: str, values: dict[str, Any], batch_rows: int) -> Iterator[list[Row]]:
        sql = query.format(columns=SELECTED[table], table=table, join=JOINS[table])
        with translate_source_errors():
            self._reader.autocommit = False
        left = False
        try:
            with self._reader, self._reader.cursor(name="slice") as cursor:
                cursor.itersize = batch_rows
                with translate_source_errors():
                    cursor.execute(sql, {"limit": SLICE_ROWS, **values})
                while rows := _fetch(cursor, batch_rows, ROWS[table]):
                    left = True
                    yield rows
                    left = False
        except (*UNAVAILABLE_ERRORS, *UNCLASSIFIED_ERRORS) as error:
            if not is_unavailable(error):
                raise
            if not left:  # a consumer that has left needs no error: it came up as the transaction was ended
                raise unavailable_error(error) from error
        finally:
            with contextlib.suppress(psycopg2.Error):  # the connection is broken
                self._reader.autocommit = True

    def _one(self, sql: str, values: Any = None, *, at: Connection | None = None) -> tuple[Any, ...]:
        return self._all(sql, values, at=at)[0]

    def _all(self, sql: str, values: Any = None, *, at: Connection | None = None) -> list[tuple[Any, ...]]:
        with translate_source_errors(), (at or self._reader).cursor() as cursor:
            cursor.execute(sql, values)
            return cursor.fetchall()


def count_at_most() -> int:
    """Return about how many rows a whole scan reads: at once, from the highest ids of the bound database."""
    with transaction() as cursor:
        cursor.execute(HIGHEST)
        return int(cursor.fetchone()[0])


def connect(url: str, key: str = "database_url") -> Connection:
    """Connect with autocommit. The connection notices within a minute that the server is gone."""
    with translate_source_errors():
        connection: Connection = psycopg2.connect(
            check_url(url, key),
            application_name="myhealth sync",
            options="-c timezone=UTC -c jit=off",
            connect_timeout=10,
            **NETWORK,
        )
        connection.autocommit = True
        psycopg2.extensions.register_type(MOMENT, connection)
        with connection.cursor() as cursor:
            cursor.execute(SESSION_SQL)
        return connection


def _moment(text: Any, cursor: Any) -> Any:
    """Read a timestamp without a zone in half of the driver's time. The driver reads what Python cannot (infinity)."""
    try:
        return text and datetime.fromisoformat(text)
    except ValueError:
        return psycopg2.extensions.PYDATETIME(text, cursor)


MOMENT = psycopg2.extensions.new_type((1114,), "MOMENT", _moment)


def _to_json(value: dict[str, Any]) -> str:
    return json.dumps(value, default=str)


def _fetch(cursor: Any, batch_rows: int, row: Any) -> list[Row]:
    with translate_source_errors():
        return [*map(partial(tuple.__new__, row), cursor.fetchmany(batch_rows))]  # what `_make` does, in C


@contextlib.contextmanager
def translate_source_errors() -> Iterator[None]:
    """Translate errors of the connection into Unavailable, and errors of a standby into a SettingsError."""
    with translate_driver_errors:
        try:
            yield
        except (psycopg2.errors.ObjectNotInPrerequisiteState, psycopg2.errors.ReadOnlySqlTransaction) as error:
            hint = "name the primary there, and the standby in sync.source_url"
            raise SettingsError("database_url is a standby in recovery", hint=hint) from error
