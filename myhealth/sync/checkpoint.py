"""The checkpoint: how far the report store has come. It is kept in MongoDB beside the data that it describes. Pure.

The names of the fields below are the names in MongoDB's document `{"_id": "mark"}`, which existing stores hold.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Literal

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from myhealth.common.decoding import Count, Id, prepare
from myhealth.common.errors import SchemaMismatch
from myhealth.reports.bson_documents import EPOCH_MAX
from myhealth.reports.documents import FORM

FEEDS = ("tombstones", "users", "checkups")
TABLES = ("users", "checkups")
ID_MAX = 2**63 - 1
# A write of a pass that was killed may still arrive this long after the kill.
RECHECK = timedelta(hours=1)


class History(Struct, frozen=True):
    """The history of one cluster, within which a transaction id is given out once.

    `tables`: the object ids of the database and its tables, which change when a dump is loaded over them, and a hash of
    their triggers and foreign keys, which changes when triggers were off.
    """

    system_identifier: str
    timeline: int
    tables: str

    @property
    def system(self) -> str:
        """The cluster and its database, which a restore in place, another timeline and a failover leave as they are."""
        return f"database {self.tables.split('/')[0]} of PostgreSQL system {self.system_identifier}"


class Position(Struct, frozen=True):
    """A position in a feed: everything up to this (transaction id, row id) has been carried over."""

    xid: Id = 0
    id: Id = 0


class Recheck(Struct, frozen=True):
    """Work to repeat after a pass that was killed, because a write of that pass may arrive late.

    Each pass until `until` repeats the deletions after the position `tombstones`. `sweep`: it also repeats the removal
    of earlier epochs.
    """

    tombstones: Position
    until: datetime
    sweep: bool


class Checkpoint(Struct, frozen=True):
    """How far the sync has come.

    `phase`: "scan" while tables are read by id, up to `scanned`; "follow" while the feeds are read from `feeds` on;
    "steady" for the same when no document of an earlier epoch is left. The states are drawn in runner.py.
    `horizon`: the transaction id from which the feeds are read after the scan.
    `witness`: a row that PostgreSQL has had since before the checkpoint last moved. A database without it was set back.
    `last_checkup_id`: the highest check-up id stored, for people to read.
    `run`: the pass that holds the checkpoint; `finished`: that pass ended by itself; `began`: the position of the
    tombstone feed when that pass began.
    `store`: the UUIDs of the collections; a collection that was dropped and made again has another one.
    `form`: the form of the documents (documents.FORM).
    """

    history: History
    epoch: Count
    phase: Literal["scan", "follow", "steady"]
    horizon: Id
    witness: str
    scanned: dict[str, Id] = field(default_factory=lambda: dict.fromkeys(TABLES, 0))
    feeds: dict[str, Position] = field(default_factory=lambda: dict.fromkeys(FEEDS, Position()))
    last_checkup_id: Id = 0
    run: str = ""
    finished: bool = True
    began: Position = Position()
    recheck: Recheck | None = None
    store: str = ""
    form: int = FORM

    def with_new_run(self, run: str, now: datetime) -> Checkpoint:
        """Begin a pass. After a pass that did not finish, plan to repeat the work that its late writes may undo."""
        recheck = self.recheck
        if not self.finished:
            positions = [self.began, *([recheck.tombstones] if recheck else [])]
            since = min(positions, key=lambda position: (position.xid, position.id))
            recheck = Recheck(since, now + RECHECK, self.phase != "steady" or bool(recheck and recheck.sweep))
        elif recheck is not None and recheck.until < now:
            recheck = None
        return replace(self, run=run, finished=False, began=self.feeds["tombstones"], recheck=recheck)

    def with_scanned(self, table: str, last_id: int) -> Checkpoint:
        return replace(self, scanned={**self.scanned, table: last_id})

    def with_scan_done(self) -> Checkpoint:
        """Enter the phase "follow": the feeds go on from the horizon that was read before the scan began."""
        start = Position(self.horizon - 1, ID_MAX)
        return replace(self, phase="follow", feeds=dict.fromkeys(FEEDS, start), began=start)

    def with_run_done(self) -> Checkpoint:
        """Enter the phase "steady" and end the pass."""
        return replace(self, phase="steady", finished=True)

    def with_feed_position(self, feed: str, position: Position) -> Checkpoint:
        return replace(self, feeds={**self.feeds, feed: position})

    def with_last_id(self, checkup_id: int) -> Checkpoint:
        return replace(self, last_checkup_id=max(self.last_checkup_id, checkup_id))

    def covers(self, feed: str, position: Position) -> bool:
        """Return whether the row at this position of the feed has certainly been carried over."""
        if self.phase == "scan":
            return position.xid < self.horizon and position.id <= self.scanned.get(feed, ID_MAX)
        reached = self.feeds[feed]
        return (position.xid, position.id) <= (reached.xid, reached.id)


prepare(Checkpoint)


def to_document(checkpoint: Checkpoint) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(checkpoint, builtin_types=(datetime,))
    return found


def from_document(document: dict[str, Any] | None) -> Checkpoint | None:
    """Return the checkpoint that a document contains, or None if this program cannot read it."""
    known = {"form": 1, **(document or {})}  # the first version did not write its form
    if set(Checkpoint.__struct_fields__) - set(known):
        return None
    try:
        found = msgspec.convert(known, Checkpoint)
    except msgspec.ValidationError:
        return None
    return found if set(found.feeds) == set(FEEDS) and set(found.scanned) == set(TABLES) else None


def from_store(document: dict[str, Any] | None) -> Checkpoint | None:
    """Return the checkpoint as `from_document`. Raises SchemaMismatch if a newer program wrote the documents.

    This one would write them back in its own form, and the newer one would do the reverse at its next pass.
    """
    form = (document or {}).get("form", 1)
    if form > FORM:
        raise SchemaMismatch(
            f"the report store's documents have form {form}, newer than this program's ({FORM}): upgrade myhealth",
            code="form_newer",
            hint="to go back to this version for good: myhealth sync --once --restart",
        )
    return from_document(document)


def last_epoch(checkpoint: Checkpoint | None) -> int:
    """Return the epoch from which to count on; 0 without a checkpoint, or if its epoch is too high to be real."""
    return checkpoint.epoch if checkpoint is not None and checkpoint.epoch <= EPOCH_MAX else 0


def new_epoch_reason(
    checkpoint: Checkpoint | None, history: History, next_xid: int, witnessed: bool, store: str | None = None
) -> str:
    """Return why a new epoch must begin, or "" if the checkpoint holds.

    `next_xid`: the first transaction id that is not given out yet. `witnessed`: PostgreSQL has the checkpoint's
    witness. `store`: the UUIDs of the collections now, or None if unknown.
    """
    if checkpoint is None:
        return "there is no checkpoint"
    if checkpoint.history.system_identifier != history.system_identifier:
        return "it is another PostgreSQL cluster"
    if checkpoint.history.timeline != history.timeline:
        return "PostgreSQL's history has branched (a restore or a failover)"
    if checkpoint.history.tables != history.tables:
        return "the tables were made anew, or their triggers were off"
    if checkpoint.epoch > EPOCH_MAX:
        return "another program has changed the checkpoint"
    if checkpoint.form != FORM:
        return "the documents have the form of another version of MyHealth"
    if max(checkpoint.horizon - 1, *(position.xid for position in checkpoint.feeds.values())) >= next_xid:
        return "the checkpoint is in PostgreSQL's future"
    if not witnessed:
        return "PostgreSQL was set back to before the last pass"
    if store is not None and checkpoint.store != store:
        return "collections of the report store were dropped or made anew"
    return ""
