"""The task runner: one pass takes over everything that is new, and moves the mark behind what is stored.

An epoch begins with a scan of the tables by id; then the feeds are followed; then what an earlier epoch left is
removed. A pass may be killed anywhere: the next one goes on from the mark.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial

from myhealth.common.concurrency import parallel_map, prefetch, relaxed_gc
from myhealth.common.errors import MyHealthError, SettingsError, Unavailable
from myhealth.common.settings import Settings
from myhealth.reports.documents import Document
from myhealth.reports.writer import LeaseLost, QuarantinedDocument, WriteResult
from myhealth.sync.checkpoint import FEEDS, TABLES, Checkpoint, Position, epoch_ended, from_document, to_document
from myhealth.sync.retry import Backoff
from myhealth.sync.row_documents import KINDS, build_documents
from myhealth.sync.source import SLICE_ROWS, Row, Source, State
from myhealth.sync.targets import Target

log = logging.getLogger(__name__)

# The mark is written at most so often: what is written behind it is only written again.
MARK_EVERY_S = 1.0
FAILED_SHOWN = 100
# What is noted of a pass, besides what it is asked for at the end.
NOTED = ("read", "written", "unchanged", "removed", "failures", "new_epoch")


@dataclass
class Pass:
    """What one pass did. `failed`: what MongoDB refused, and how many in all; `locked_out`: another runner is at work,
    and nothing was done; `begun`: both stores have answered."""

    read: int = 0
    written: int = 0
    unchanged: int = 0
    removed: int = 0
    failures: int = 0
    failed: list[QuarantinedDocument] = field(default_factory=list)
    mark: int = 0
    epoch: int = 0
    new_epoch: str = ""
    secs: float = 0.0
    locked_out: bool = False
    begun: bool = False

    def line(self) -> str:
        """One line with fixed keys, for the log."""
        return (
            f"sync read={self.read} written={self.written} unchanged={self.unchanged} removed={self.removed}"
            f" failed={self.failures} mark={self.mark} secs={self.secs:.2f}"
        )


def run_pass(
    source_url: str,
    writer: Target,
    settings: Settings,
    *,
    retry_failed: bool = False,
    ending: threading.Event | None = None,
) -> Pass:
    """One pass. `retry_failed`: tries what MongoDB refused earlier again. `ending`: set, it ends the pass between two
    batches, as whole as a pass is that was killed.

    A store that goes away within the pass is tried again for a minute, from the mark on. Raises Unavailable where it
    stays away, or was so from the start: nothing is lost, the next pass goes on from the mark.
    """
    started, done, ending = time.monotonic(), Pass(), ending or threading.Event()
    waits = Backoff(ending)
    while True:
        try:
            with Source.opened(source_url, settings.sync.source_url) as source:
                runner = _Runner(source, writer, settings.sync.batch_rows, ending, done)
                _attempt(runner, retry_failed, started)
            break
        except LeaseLost:
            raise
        except Unavailable as error:
            if not done.begun or not waits.wait(done.read, error):
                raise
    done.secs = time.monotonic() - started
    return done


def _attempt(runner: _Runner, retry_failed: bool, started: float) -> None:
    if runner.source.lock():
        with _noted(runner, started), contextlib.suppress(_Ended):
            runner.run(retry_failed)
    elif runner.done.begun:  # perhaps by our own session, which PostgreSQL does not know to be dead yet
        raise Unavailable("another session holds the sync's lock")
    else:
        runner.done.locked_out = True


@contextlib.contextmanager
def _noted(runner: _Runner, started: float) -> Iterator[None]:
    """Notes in PostgreSQL how the pass went and how far it came; also of one that a store which is away ends."""
    problem = ""
    try:
        yield
    except MyHealthError as error:
        problem = error.message
        raise
    finally:
        done = runner.done
        done.secs = time.monotonic() - started
        figures = {name: getattr(done, name) for name in NOTED}
        with contextlib.suppress(Unavailable, SettingsError):  # if PostgreSQL is what is away, nobody can ask it either
            figures["set_aside"] = None if problem else runner.writer.count_quarantined()
            runner.source.note_pass(done.secs, problem, to_document(runner.mark) if runner.mark else None, figures)


def restart_epoch(source_url: str, writer: Target, reader_url: str = "") -> bool:
    """Begins a new epoch whatever the mark says: the next pass reads everything anew. False where a runner is at
    work."""
    with Source.opened(source_url, reader_url) as source:
        if not source.lock():
            return False
        found = from_document(writer.read_checkpoint())
        _begin_epoch(source, writer, found, "it was asked for")
    return True


class _Ended(Exception):
    """The pass was told to end."""


@dataclass
class _Batch:
    """Rows on their way: the documents they make, what can be made no document of, and the mark that holds once they
    are stored."""

    table: str
    rows: list[Row]
    documents: list[Document]
    refused: list[tuple[Document, str]]
    move: Callable[[Checkpoint], Checkpoint]


class _Runner:
    def __init__(self, source: Source, writer: Target, batch_rows: int, ending: threading.Event, done: Pass) -> None:
        self.source = source
        self.writer = writer
        self.batch_rows = batch_rows
        self.ending = ending
        self.done = done
        self.mark: Checkpoint = None  # type: ignore[assignment] # until the pass has found or begun one
        self.marking = threading.RLock()
        self.kept_at = time.monotonic()

    def run(self, retry_failed: bool) -> None:
        self.mark, state = self._start()
        self.done.begun, mark = True, self.mark
        self.done.epoch, self.done.mark = mark.epoch, mark.last_checkup_id
        pending = self.source.pending(mark.feeds, state.horizon) if mark.phase != "scan" else list(FEEDS)
        if mark.phase == "steady" and mark.finished and mark.recheck is None and not pending and not retry_failed:
            return
        self.mark = mark.begun(uuid.uuid4().hex, datetime.now(UTC))
        self.writer.begin(to_document(self.mark))
        if mark.phase == "scan":
            for table in TABLES:
                self._write_all(self._scan(table), fresh=mark.epoch == 1)
            if mark.epoch == 1:
                self.writer.prepare()  # the index that was left for now
            self._keep(self.mark.following())
            state = self.source.state(self.mark.witness)
            pending = self.source.pending(self.mark.feeds, state.horizon)
        if pending or retry_failed or self.mark.recheck is not None:
            self._witness()
            self.source.await_marker_row(self.mark.witness)
        if self.mark.recheck is not None:
            self._recheck(self.mark.recheck.tombstones, state.horizon)
        for feed in (feed for feed in FEEDS if feed in pending):
            self._write_all(self._follow(feed, state.horizon), fresh=True)
        if retry_failed:
            self._retry()
        if self.mark.phase == "follow" or (self.mark.recheck is not None and self.mark.recheck.sweep):
            self._sweep()
        self._keep(replace(self.mark.steady(), finished=True))
        self.done.mark = self.mark.last_checkup_id

    def _sweep(self) -> None:
        """Removes what an earlier epoch left, step by step: a sweep of many millions can be ended too."""
        removed, after = self.writer.sweep(self.mark.epoch)
        self.done.removed += removed
        while after is not None:
            if self.ending.is_set():
                raise _Ended
            removed, after = self.writer.sweep(self.mark.epoch, after)
            self.done.removed += removed

    def _start(self) -> tuple[Checkpoint, State]:
        """The mark that holds, which begins a new epoch where transaction ids have come to mean something else."""
        found = from_document(self.writer.read_checkpoint())
        state = self.source.state(found.witness if found else "")
        store = self.writer.identity()
        reason = epoch_ended(found, state.history, state.next_xid, state.witnessed, store)
        if found is not None and not reason:
            return found, state
        self.done.new_epoch = reason
        return _begin_epoch(self.source, self.writer, found, reason), state

    def _witness(self) -> None:
        """Before anything is made of what was read up to now: a database that is set back to before that shows by it,
        also by a crash, where a writer did not wait for the disk."""
        witness = self.source.insert_marker_row()
        with self.marking:
            self._keep(replace(self.mark, witness=witness))

    def _scan(self, table: str) -> Iterator[_Batch]:
        """The table by id, from where the mark says, slice by slice."""
        position, seen = self.mark.scanned[table], SLICE_ROWS
        while seen >= SLICE_ROWS:
            seen = 0
            for rows in self.source.scan(table, position, self.batch_rows):
                if not seen:
                    self._witness()
                seen += len(rows)
                position = rows[-1][0]
                yield self._batch(table, rows, partial(Checkpoint.scanning, table=table, position=position))

    def _follow(self, feed: str, horizon: int) -> Iterator[_Batch]:
        """The feed from where the mark says to the horizon, slice by slice."""
        position, seen = self.mark.feeds[feed], SLICE_ROWS
        while seen >= SLICE_ROWS:
            seen = 0
            for rows in self.source.follow(feed, position, horizon, self.batch_rows):
                if not seen:
                    self._witness()
                seen += len(rows)
                position = Position(rows[-1][1], rows[-1][0])
                yield self._batch(feed, rows, partial(Checkpoint.moved, feed=feed, position=position))

    def _batch(self, table: str, rows: list[Row], move: Callable[[Checkpoint], Checkpoint]) -> _Batch:
        if table not in KINDS:
            return _Batch(table, rows, [], [], move)
        documents, refused = build_documents(table, rows, self.mark.epoch)
        return _Batch(table, rows, documents, refused, move)

    def _write_all(self, batches: Iterator[_Batch], *, fresh: bool) -> None:
        """Reads, writes and moves the mark, each in threads of its own: while one waits for its store, others work.

        Two batches are written at once, in no order, for a pass has no row twice; the mark moves in order.
        """

        def write(batch: _Batch) -> tuple[_Batch, WriteResult]:
            return batch, self._write(batch, fresh)

        with relaxed_gc(), prefetch(batches) as read, parallel_map(write, read) as written:
            for batch, result in written:
                self._count(batch, result)
                with self.marking:
                    self.mark = batch.move(self.mark)
                    if batch.table == "checkups":
                        self.mark = self.mark.holding(max(row[0] for row in batch.rows))
                if time.monotonic() - self.kept_at > MARK_EVERY_S or self.ending.is_set():
                    self._keep(self.mark)
        self._keep(self.mark)

    def _write(self, batch: _Batch, fresh: bool) -> WriteResult:
        if batch.table == "tombstones":
            return self._bury(batch.rows)
        kind = KINDS[batch.table]
        aside = self.writer.quarantine(kind, batch.refused)
        if not fresh or kind == "user":
            return aside + self.writer.put(kind, batch.documents)
        # New rows go in by insert, which is several times quicker than the guarded replace of known ones.
        new = [document for document in batch.documents if document["revision"] == 1]
        known = [document for document in batch.documents if document["revision"] != 1]
        return aside + self.writer.insert(kind, new) + self.writer.put(kind, known)

    def _bury(self, rows: list[Row]) -> WriteResult:
        removed = 0
        for kind in KINDS.values():
            newest: dict[int, int] = {}  # of each row: an unordered bulk must not hold two operations on one document
            for _, _, of, row_id, revision in rows:
                if of == kind:
                    newest[row_id] = max(revision, newest.get(row_id, 0))
            removed += self.writer.remove(kind, newest.items(), self.mark.epoch)
        return WriteResult(removed=removed)

    def _recheck(self, position: Position, horizon: int) -> None:
        """Carries deletions out again that a write under way may have undone; see `Recheck`."""
        seen = SLICE_ROWS
        while seen >= SLICE_ROWS:
            seen = 0
            for rows in self.source.follow("tombstones", position, horizon, self.batch_rows):
                seen += len(rows)
                position = Position(rows[-1][1], rows[-1][0])
                self.done.removed += self._bury(rows).removed

    def _retry(self) -> None:
        for table, kind in KINDS.items():
            ids = self.writer.failed_ids(kind)
            for start in range(0, len(ids), self.batch_rows):
                for rows in self.source.find(table, ids[start : start + self.batch_rows], self.batch_rows):
                    self._witness()
                    batch = self._batch(table, rows, lambda mark: mark)
                    self._count(batch, self.writer.put(kind, batch.documents))

    def _count(self, batch: _Batch, result: WriteResult) -> None:
        self.done.read += len(batch.rows)
        self.done.written += result.written
        self.done.unchanged += result.unchanged
        self.done.removed += result.removed
        self.done.failures += len(result.failed)
        self.done.failed = [*self.done.failed, *result.failed][:FAILED_SHOWN]

    def _keep(self, mark: Checkpoint) -> None:
        """Moves the mark, behind what MongoDB has acknowledged."""
        with self.marking:
            self.writer.write_checkpoint(to_document(mark), mark.run)
            self.mark, self.kept_at = mark, time.monotonic()
        if self.ending.is_set() and not mark.finished:
            raise _Ended


def _begin_epoch(source: Source, writer: Target, found: Checkpoint | None, reason: str) -> Checkpoint:
    """Notes the horizon before anything is scanned: whatever is not visible to the scan comes by the feeds. The mark's
    witness is later than that: no crash that it outlives lets a transaction id below the horizon come again."""
    store = writer.prepare()
    # Also beyond what a mark says that is older than the documents: a write never replaces a newer epoch.
    epoch = max(found.epoch if found else 0, writer.newest_epoch()) + 1
    if epoch > 1:
        log.warning("sync begins epoch %s, reading everything anew: %s", epoch, reason)
    if epoch == 1:
        writer.defer_index()
    state = source.state(source.insert_marker_row())
    mark = Checkpoint(state.history, epoch, "scan", state.horizon, source.insert_marker_row(), store=store)
    writer.begin(to_document(mark))
    return mark
