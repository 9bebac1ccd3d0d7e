"""The task runner: one pass carries over everything that is new and moves the checkpoint after it is stored.

The checkpoint's `phase` is the state; a pass that is killed leaves it as it is, and the next pass goes on from there:

    no checkpoint, or another history, or --restart
          |
          v
        scan ---------> follow ---------> steady <--+
          tables by id    feeds from the    feeds   |  every further pass
                          horizon on, then   |      |
                          the sweep          +------+

    scan()    reads the tables in order of id.
    follow()  reads the change feeds up to the horizon of this pass.
    sweep()   removes the documents of earlier epochs.

A new epoch can begin in any state. Why no row is lost: source.py and checkpoint.py.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, cast

from msgspec import Struct
from msgspec.structs import replace

from myhealth.common.concurrency import parallel_map, prefetch, relaxed_gc
from myhealth.common.errors import MissingPrivilege, MyHealthError, SettingsError, Unavailable
from myhealth.common.settings import Settings
from myhealth.reports.documents import Document
from myhealth.reports.epochs import FIRST_ID
from myhealth.reports.writer import LeaseLost, WriteResult
from myhealth.sync.checkpoint import (
    FEEDS,
    ID_MAX,
    Checkpoint,
    Position,
    from_document,
    from_store,
    new_epoch_reason,
    to_document,
)
from myhealth.sync.new_epoch import begin_epoch, check_removals
from myhealth.sync.pass_result import Backoff, Pass
from myhealth.sync.rows import KINDS, Row, TombstoneRow, build_documents
from myhealth.sync.source import Source

if TYPE_CHECKING:
    from myhealth.sync.targets import Target

log = logging.getLogger(__name__)

# The checkpoint is written at most this often; batches after it are merely written again after a kill.
CHECKPOINT_EVERY_S = 1.0
EVENTS_BATCH = 1000


def run_pass(
    source_url: str,
    target: Target,
    settings: Settings,
    *,
    retry_quarantined: bool = False,
    stop: threading.Event | None = None,
    done: Pass | None = None,
) -> Pass:
    """Run one pass. `retry_quarantined`: write the quarantined documents again. `stop`: ends the pass between two
    batches when set, with the same guarantees as a killed pass. `done`: the result, for a caller who watches it grow.

    A store that becomes unavailable within the pass is retried for a minute, from the checkpoint on. Raises Unavailable
    if it stays unavailable, or was so at the start: nothing is lost, and the next pass goes on from the checkpoint.
    """
    started, done, stop = time.monotonic(), done or Pass(), stop or threading.Event()
    backoff = Backoff(stop)
    while True:
        try:
            with Source.opened(source_url, settings.sync.source_url) as source:
                runner = _Runner(source, target, settings.sync.batch_rows, stop, done)
                _attempt(runner, retry_quarantined, started)
                if not done.locked_out:
                    source.purge(settings.retention)
            break
        except (LeaseLost, MissingPrivilege):
            raise
        except Unavailable as error:
            if not done.begun or not backoff.wait(done.read, error):
                raise
    done.secs = time.monotonic() - started
    return done


def _attempt(runner: _Runner, retry_quarantined: bool, started: float) -> None:
    if runner.source.lock():
        with _pass_recorded(runner, started), contextlib.suppress(_Stopped):
            runner.run(retry_quarantined)
    elif runner.done.begun:  # perhaps our own former session, which PostgreSQL does not know to be dead yet
        raise Unavailable("another session holds the sync's lock")
    else:
        runner.done.locked_out = True


@contextlib.contextmanager
def _pass_recorded(runner: _Runner, started: float) -> Iterator[None]:
    """Record in PostgreSQL how the pass went and how far it came, also if it ends with an error."""
    problem = ""
    try:
        yield
    except MyHealthError as error:
        problem = error.message
        raise
    finally:
        done = runner.done
        done.secs = time.monotonic() - started
        figures = done.figures()
        with contextlib.suppress(Unavailable, SettingsError):  # an unavailable PostgreSQL can record nothing
            figures["set_aside"] = None if problem else runner.target.count_quarantined()
            checkpoint = to_document(runner.checkpoint) if runner.checkpoint else None
            runner.source.record_pass(done.secs, problem, checkpoint, figures)


def restart_epoch(source_url: str, target: Target, reader_url: str = "", expected: int | None = None) -> bool:
    """Begin a new epoch, so that the next pass reads everything anew. Return False if another runner is at work.

    `expected`: how many documents it may remove; None allows as many as a pass may. Raises SettingsError for more.
    """
    with Source.opened(source_url, reader_url) as source:
        if not source.lock():
            return False
        found = from_document(target.read_checkpoint())
        check_removals(source, target, found, source.state().history, expected)
        begin_epoch(source, target, found, "it was asked for")
    return True


class _Stopped(Exception):
    """The pass was asked to stop."""


class _Batch(Struct):
    """A batch of rows between reading and writing.

    `documents`: the rows' documents; `unreadable`: (identity, reason) of rows that become no document; `is_new`: no
    document of these rows is expected in the store; `advance`: moves the checkpoint once the batch is stored.
    """

    table: str
    rows: Sequence[Row]
    documents: list[Document]
    unreadable: list[tuple[Document, str]]
    is_new: bool
    advance: Callable[[Checkpoint], Checkpoint]


class _Runner:
    """One attempt at a pass, which holds the sync's lock."""

    def __init__(self, source: Source, target: Target, batch_rows: int, stop: threading.Event, done: Pass) -> None:
        self.source = source
        self.target = target
        self.batch_rows = batch_rows
        self.stop = stop
        self.done = done
        self.checkpoint: Checkpoint = None  # type: ignore[assignment] # until _load_checkpoint
        self.checkpoint_lock = threading.RLock()
        self.checkpoint_written_at = time.monotonic()
        self.was_empty = False  # True: this pass began the first epoch, so no reports are of earlier ones

    def run(self, retry_quarantined: bool) -> None:
        """Go through the phases that the checkpoint leaves to do."""
        horizon = self._load_checkpoint()
        checkpoint = self.checkpoint
        self.done.begun, self.done.epoch = True, checkpoint.epoch
        self.done.last_checkup_id = checkpoint.last_checkup_id
        self._carry_events()
        pending = self.source.pending(checkpoint.feeds, horizon) if checkpoint.phase != "scan" else list(FEEDS)
        is_clean = checkpoint.phase == "steady" and checkpoint.finished and checkpoint.recheck is None
        if is_clean and not pending and not retry_quarantined:
            return
        self.checkpoint = checkpoint.with_new_run(uuid.uuid4().hex, datetime.now(UTC))
        self.target.begin(to_document(self.checkpoint))
        if checkpoint.phase == "scan":
            self.scan()
            horizon = self.source.state(self.checkpoint.witness).horizon
            pending = self.source.pending(self.checkpoint.feeds, horizon)
        if pending or retry_quarantined or self.checkpoint.recheck is not None:
            self._leave_witness()
            self.source.await_witness(self.checkpoint.witness)
        self.follow(pending, horizon)
        if retry_quarantined:
            self._retry_quarantined()
        self.sweep()
        self._write_checkpoint(self.checkpoint.with_run_done())
        self.done.last_checkup_id = self.checkpoint.last_checkup_id

    def _carry_events(self) -> None:
        """Carry over who has read patients' records at the upload API. An event that is stored stays as it is, so the
        last minutes are read again each time: an event may be committed after one with a higher id."""
        epoch = self.checkpoint.epoch
        position = self.target.event_position(epoch)
        settled = self.source.settled_event(position)
        while events := self.source.read_events(position, EVENTS_BATCH):
            position = events[-1].id
            self.target.put_events(events, epoch, min(settled, position))

    # -- the phases -----------------------------------------------------------------------------------------------

    def scan(self) -> None:
        """Read the tables in order of id, then enter the phase "follow"."""
        self._write_all(self._scan_batches())
        self.target.prepare()  # makes the index that begin_epoch deferred
        self._write_checkpoint(self.checkpoint.with_scan_done())

    def follow(self, pending: Sequence[str], horizon: int) -> None:
        """Read the feeds that have something new, deletions first, up to the horizon."""
        if self.checkpoint.recheck is not None:
            self._repeat_deletions(self.checkpoint.recheck.tombstones, horizon)
        for feed in (feed for feed in FEEDS if feed in pending):
            self._write_all(self._feed_batches(feed, horizon))

    def sweep(self) -> None:
        """Remove the documents of earlier epochs, slice by slice: a sweep of many millions can be stopped too."""
        recheck = self.checkpoint.recheck
        if self.checkpoint.phase != "follow" and not (recheck is not None and recheck.sweep):
            return
        after: int | None = ID_MAX if self.was_empty else FIRST_ID
        while after is not None:
            if self.stop.is_set():
                raise _Stopped
            removed, after = self.target.sweep(self.checkpoint.epoch, after)
            self.done.removed += removed

    # -- the checkpoint -------------------------------------------------------------------------------------------

    def _load_checkpoint(self) -> int:
        """Load the checkpoint, or begin a new epoch if transaction ids have another meaning now; return the horizon."""
        found = from_store(self.target.read_checkpoint())
        state = self.source.state(found.witness if found else "")
        store = self.target.identity()
        reason = new_epoch_reason(found, state.history, state.next_xid, state.witnessed, store)
        if found is not None and not reason:
            self.checkpoint = found
        else:
            check_removals(self.source, self.target, found, state.history)
            self.done.new_epoch = reason
            self.checkpoint = begin_epoch(self.source, self.target, found, reason)
            is_first = self.checkpoint.epoch == 1
            self.was_empty = is_first and not self.target.has_documents_after("checkup", FIRST_ID)
        return state.horizon

    def _write_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Move the checkpoint; MongoDB has acknowledged everything before it."""
        with self.checkpoint_lock:
            self.target.write_checkpoint(to_document(checkpoint), checkpoint.run)
            self.checkpoint, self.checkpoint_written_at = checkpoint, time.monotonic()
        if self.stop.is_set() and not checkpoint.finished:
            raise _Stopped

    def _leave_witness(self) -> None:
        """Insert a witness before anything that was read so far is used.

        A database that is later set back to before this moment lacks the witness; so does one that crashed while its
        writers did not wait for the disk.
        """
        witness = self.source.insert_witness()
        with self.checkpoint_lock:
            self._write_checkpoint(replace(self.checkpoint, witness=witness))

    # -- reading --------------------------------------------------------------------------------------------------

    def _scan_batches(self) -> Iterator[_Batch]:
        """Yield the tables in order of id from the checkpoint on."""
        for table, kind in KINDS.items():
            is_new = False
            for begins_slice, rows in self.source.scan(table, self.checkpoint.scanned[table], self.batch_rows):
                if begins_slice:
                    # Inserts are several times quicker than the guarded replace of documents that may be there.
                    is_new = self.checkpoint.epoch == 1 or not self.target.has_documents_after(kind, rows[0].id - 1)
                    self._leave_witness()
                advance = partial(Checkpoint.with_scanned, table=table, last_id=rows[-1].id)
                yield self._batch(table, rows, is_new, advance)

    def _feed_batches(self, feed: str, horizon: int) -> Iterator[_Batch]:
        """Yield the feed from the checkpoint to the horizon."""
        for begins_slice, rows in self.source.follow(feed, self.checkpoint.feeds[feed], horizon, self.batch_rows):
            if begins_slice:
                self._leave_witness()
            position = Position(rows[-1].xid, rows[-1].id)
            yield self._batch(feed, rows, True, partial(Checkpoint.with_feed_position, feed=feed, position=position))

    def _batch(
        self, table: str, rows: Sequence[Row], is_new: bool, advance: Callable[[Checkpoint], Checkpoint]
    ) -> _Batch:
        return _Batch(table, rows, *build_documents(table, rows, self.checkpoint.epoch), is_new, advance)

    # -- writing --------------------------------------------------------------------------------------------------

    def _write_all(self, batches: Iterator[_Batch]) -> None:
        """Read, write and move the checkpoint, each in threads of its own: while one waits, the others work.

        Two batches are written at once, in no order, because a pass has no row twice; the checkpoint moves in order.
        """

        def write(batch: _Batch) -> tuple[_Batch, WriteResult]:
            return batch, self._write(batch)

        with relaxed_gc(), prefetch(batches) as read, parallel_map(write, read) as written:
            for batch, result in written:
                self.done.add(len(batch.rows), result)
                with self.checkpoint_lock:
                    self.checkpoint = batch.advance(self.checkpoint)
                    if batch.table == "checkups":
                        self.checkpoint = self.checkpoint.with_last_id(max(row.id for row in batch.rows))
                if time.monotonic() - self.checkpoint_written_at > CHECKPOINT_EVERY_S or self.stop.is_set():
                    self._write_checkpoint(self.checkpoint)
        self._write_checkpoint(self.checkpoint)

    def _write(self, batch: _Batch) -> WriteResult:
        if batch.table == "tombstones":
            return self._delete(batch.rows)
        kind = KINDS[batch.table]
        result = self.target.quarantine(kind, batch.unreadable)
        if not batch.is_new or kind == "user":
            return result + self.target.put(kind, batch.documents)
        # `insert` also handles documents that are there, but a changed row's document surely is.
        new = [document for document in batch.documents if document["revision"] == 1]
        changed = [document for document in batch.documents if document["revision"] != 1]
        return result + self.target.insert(kind, new) + self.target.put(kind, changed)

    def _delete(self, rows: Sequence[Row]) -> WriteResult:
        removed, tombstones = 0, cast("Sequence[TombstoneRow]", rows)
        for kind in KINDS.values():
            # Revision by row: an unordered bulk must not hold two operations on one document.
            newest: dict[int, int] = {}
            for tombstone in tombstones:
                if tombstone.kind == kind:
                    newest[tombstone.row_id] = max(tombstone.revision, newest.get(tombstone.row_id, 0))
            if newest:
                removed += self.target.remove(kind, list(newest.items()), self.checkpoint.epoch)
        return WriteResult(removed=removed)

    def _repeat_deletions(self, position: Position, horizon: int) -> None:
        """Repeat the deletions that a late write of a killed pass may have undone; see `Recheck`."""
        for _, rows in self.source.follow("tombstones", position, horizon, self.batch_rows):
            self.done.removed += self._delete(rows).removed

    def _retry_quarantined(self) -> None:
        for table, kind in KINDS.items():
            ids = self.target.quarantined_ids(kind)
            for start in range(0, len(ids), self.batch_rows):
                for rows in self.source.find(table, ids[start : start + self.batch_rows], self.batch_rows):
                    self._leave_witness()
                    documents, _ = build_documents(table, rows, self.checkpoint.epoch)
                    self.done.add(len(rows), self.target.put(kind, documents))
