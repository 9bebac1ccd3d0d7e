"""Compare the report store with PostgreSQL, row by row, while writers and the sync go on; and repair it.

Both stores are read in order of id, batch by batch, and compared by the bytes of their documents. A row and a document
that disagree are only a suspect. Suspects are read again, in an order that makes the verdict right even
if rows change meanwhile:

    1. the checkpoint: how far the sync has certainly come
    2. the document
    3. the row, and the tombstone of a row that is gone

A row at or before the checkpoint was carried over before step 2. A change that was carried over later shows in the row,
which is read last. So the document must have the row's revision and content; otherwise it is lost, stale or altered.
A row after the checkpoint may have an older document or no document; a document of the row's revision must have its
content, and no document may be newer. A document without a row is a ghost, unless its deletion is still to come: its
tombstone is after the checkpoint, or it belongs to an earlier epoch that is still to be swept.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import uuid
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from myhealth.common.concurrency import prefetch, relaxed_gc
from myhealth.common.errors import MyHealthError, Unavailable
from myhealth.common.settings import Settings
from myhealth.reports.bson_documents import StoredBson, encodable
from myhealth.reports.writer import ReportWriter, WriteResult
from myhealth.sync.checkpoint import Checkpoint, Position, from_store, new_epoch_reason, to_document
from myhealth.sync.rows import KINDS, Row, build_documents
from myhealth.sync.source import Source

if TYPE_CHECKING:
    from myhealth.sync.targets import Target

log = logging.getLogger(__name__)

# lost: no document. ghost: no row. stale: an older revision. altered: the row's revision with other content.
# refused: quarantined; `myhealth status` has the reason.
DIFFERENCES = ("lost", "ghost", "stale", "altered", "refused")
NOT_YET = "not yet"
NOT_COMPARABLE = "the report store cannot be compared yet: {reason}"
# Suspects that are read again together.
SUSPECT_ROWS = 1000
SHOWN = 20

# A kind of difference, the row, and the document.
WrongDocument = tuple[str, Row | None, StoredBson | None]


class Difference(Struct, frozen=True):
    """One difference of the stores.

    `what`: one of DIFFERENCES. `id`: the row's, of a kept trend the patient's; a ghost's may be of any type. A revision
    is None without a row or document.
    """

    what: str
    kind: str
    id: Any
    row_revision: int | None = None
    report_revision: int | None = None


class StoreComparison(Struct):
    """The result of comparing both stores.

    `not_yet`: rows that the sync has yet to carry over. `counts`: differences by kind; `first`: some of each.
    """

    rows: int = 0
    documents: int = 0
    not_yet: int = 0
    mended: int = 0
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(DIFFERENCES, 0))
    first: list[Difference] = []

    @property
    def differences(self) -> int:
        return sum(self.counts.values())

    def add(self, difference: Difference) -> None:
        """Count a difference, and list it if it is one of the first."""
        self.counts[difference.what] += 1
        if self.counts[difference.what] <= SHOWN:
            self.first.append(difference)


def verify(
    source_url: str,
    writer: ReportWriter,
    batch_rows: int,
    *,
    repair: bool = False,
    found: StoreComparison | None = None,
) -> StoreComparison:
    """Compare users and check-ups. `repair`: also mend the differences, as the only runner of the sync meanwhile.
    `found`: the result, for a caller who watches it grow.

    Raises MyHealthError without a checkpoint of this history of PostgreSQL; Unavailable if a store is unavailable, or
    if a sync is at work beside a repair.
    """
    with Source.opened(source_url) as source, Source.opened(source_url) as second, relaxed_gc():
        if repair and not source.lock():
            raise Unavailable("a sync is at work, and a repair must be alone; try again when it has ended")
        verifier = _Verifier(source, second, writer, batch_rows, repair)
        verifier.found = found or verifier.found
        return verifier.compare_and_mend() if repair else verifier.compare()


def verify_sample(source_url: str, target: Target, settings: Settings, stop: threading.Event) -> StoreComparison:
    """Compare a share of the rows, picked at random, and the documents of their ids; mend nothing. `stop` ends it.

    Logs the differences and records the figures in PostgreSQL, for `myhealth status` and metrics. Raises as `verify`.
    """
    with Source.opened(source_url) as source:
        verifier = _Verifier(source, source, target, settings.sync.batch_rows, False)
        for table, kind in KINDS.items():
            top = source.highest_id(table)
            count = math.ceil(top * settings.sync.verify_share)
            for ids in _in_parts(sorted(random.sample(range(1, top + 1), count)), SUSPECT_ROWS):
                if not stop.is_set():
                    verifier.found.rows += len(ids)
                    verifier.judge(table, kind, ids)
        found = verifier.found
        source.record_sample({"at": datetime.now(UTC), "ids": found.rows, "differences": found.counts})
    for difference in found.first:
        log.warning("verify: %s %s is %s", difference.kind, difference.id, difference.what)
    log.info("verify ids=%s differences=%s", found.rows, found.differences)
    return found


class _Verifier:
    """`source` reads the tables from end to end while `second` reads the suspects again.

    `writer`: a ReportWriter; a Target is enough for `judge`.
    """

    def __init__(self, source: Source, second: Source, writer: Any, batch_rows: int, repair: bool) -> None:
        self.source = source
        self.second = second
        self.writer = writer
        self.batch_rows = batch_rows
        self.repair = repair
        self.found = StoreComparison()
        self.epoch = 0

    def load_checkpoint(self) -> Checkpoint:
        """Return the checkpoint. Raises MyHealthError if the next pass must begin a new epoch."""
        checkpoint = from_store(self.writer.read_checkpoint())
        state = self.second.state(checkpoint.witness if checkpoint else "")
        # The collections' UUIDs are left out: a collection that was made again can be compared, and filled, as well.
        reason = new_epoch_reason(checkpoint, state.history, state.next_xid, state.witnessed)
        if checkpoint is None or reason:
            hint = "run `myhealth sync --once` first; it reads everything anew"
            raise MyHealthError(NOT_COMPARABLE.format(reason=reason), code="epoch_ended", hint=hint)
        return checkpoint

    def compare_and_mend(self) -> StoreComparison:
        """Repair as a pass of the sync, so that the pass after a killed repair repeats the deletions."""
        checkpoint = self.load_checkpoint().with_new_run(uuid.uuid4().hex, datetime.now(UTC))
        self.writer.begin(to_document(checkpoint))
        self.compare()
        self.writer.write_checkpoint({**to_document(checkpoint), "finished": True}, checkpoint.run)
        return self.found

    def compare(self) -> StoreComparison:
        """Compare both kinds, and then the kept trends with their reports."""
        self.epoch = self.load_checkpoint().epoch
        for table, kind in KINDS.items():
            for suspects in _in_parts(self._suspects(table, kind), SUSPECT_ROWS):
                self.judge(table, kind, suspects)
        for key in self.writer.kept_trends.differing():
            self.found.add(Difference("altered", "trend", key["patient_id"]))
            if self.repair:
                self.writer.kept_trends.remove([key])
                self.found.mended += 1
        return self.found

    # -- both stores in order of id -----------------------------------------------------------------------------

    def _suspects(self, table: str, kind: str) -> Iterator[int]:
        """Yield the ids whose row and document disagree."""
        for stored in self.writer.non_integer_ids(kind):
            self._add_stranger(table, kind, stored)
        low: float = -float("inf")
        with prefetch(self._rows(table)) as batches:
            for last, expected in batches:
                query = {"_id": {"$gte" if low < 0 else "$gt": low, "$lte": last}}
                for stored in self.writer.raw(kind, query):
                    self.found.documents += 1
                    if type(stored.id) is not int:
                        self._add_stranger(table, kind, stored)
                    elif expected.pop(stored.id, None) != stored.content:
                        yield stored.id
                yield from expected
                low = last
        for stored in self.writer.raw(kind, {"_id": {"$gt": low}}):
            if type(stored.id) is int:
                self.found.documents += 1
                yield stored.id
            else:
                self._add_stranger(table, kind, stored)

    def _rows(self, table: str) -> Iterator[tuple[int, dict[int, bytes]]]:
        """Yield batches of the table in order of id: the last id, and the BSON of each row's document by id.

        The BSON is b"" for a row that cannot become a document.
        """
        for _, rows in self.source.scan(table, 0, self.batch_rows):
            self.found.rows += len(rows)
            documents, unreadable = build_documents(table, rows, self.epoch)
            encoded, unencodable = encodable(documents)
            expected = {document["_id"]: b"" for document, _ in [*unreadable, *unencodable]}
            expected.update((document["_id"], content) for document, content in encoded)
            yield rows[-1].id, expected

    # -- the verdict ----------------------------------------------------------------------------------------------

    def judge(self, table: str, kind: str, suspects: list[int]) -> None:
        """Read suspects again in the order of the module's docstring, and record the real differences."""
        checkpoint = self.load_checkpoint()
        quarantined = self.writer.quarantined_among(kind, suspects)
        documents: dict[Any, Any] = {stored.id: stored for stored in self.writer.find_stored(kind, suspects)}
        is_newer = any(stored.epoch > checkpoint.epoch for stored in documents.values())
        if is_newer and self.load_checkpoint().epoch > checkpoint.epoch:
            self.judge(table, kind, suspects)  # a new epoch has begun in between
            return
        rows = {row.id: row for batch in self.second.find(table, suspects, self.batch_rows) for row in batch}
        tombstones = self.second.tombstones_of(kind, [id_ for id_ in documents if id_ not in rows])
        wrong: list[WrongDocument] = []
        for id_ in suspects:
            row, stored = rows.get(id_), documents.get(id_)
            if row is not None:
                what = self._verdict_of_row(table, checkpoint, row, stored, quarantined)
            else:
                what = self._verdict_of_ghost(checkpoint, stored, tombstones.get(id_)) if stored is not None else ""
            if what == NOT_YET:
                self.found.not_yet += 1
            elif what:
                wrong.append((what, row, stored))
        self._add(table, kind, wrong, checkpoint.epoch)

    def _verdict_of_row(
        self, table: str, checkpoint: Checkpoint, row: Row, stored: StoredBson | None, quarantined: set[int]
    ) -> str:
        """Return the difference of a row's document, NOT_YET, or ""."""
        if stored is not None and stored.epoch > checkpoint.epoch:
            return "altered"
        if stored is not None and stored.epoch == checkpoint.epoch and stored.revision >= row.revision:
            documents, _ = build_documents(table, [row], checkpoint.epoch)
            return "" if documents and stored.equals_ignoring_epoch(documents[0]) else "altered"
        if not checkpoint.covers(table, Position(row.xid, row.id)):
            return NOT_YET
        if row.id in quarantined:
            return "refused"
        return "lost" if stored is None else "stale"

    def _verdict_of_ghost(self, checkpoint: Checkpoint, stored: StoredBson, tombstone: Position | None) -> str:
        """Return the difference of a document without a row, or NOT_YET. `tombstone`: of the row's last deletion."""
        if tombstone is not None and not checkpoint.covers("tombstones", tombstone):
            return NOT_YET
        return "ghost" if checkpoint.phase == "steady" or stored.epoch >= checkpoint.epoch else NOT_YET

    # -- the repair ---------------------------------------------------------------------------------------------

    def _add_stranger(self, table: str, kind: str, stored: StoredBson) -> None:
        """Record a document whose id cannot be a row's: the sync has never written it."""
        self.found.documents += 1
        self._add(table, kind, [("ghost", None, stored)], self.epoch)

    def _add(self, table: str, kind: str, wrong: list[WrongDocument], epoch: int) -> None:
        for what, row, stored in wrong:
            id_ = row.id if row is not None else stored.id if stored is not None else None
            revisions = row.revision if row is not None else None, stored.revision if stored is not None else None
            self.found.add(Difference(what, kind, id_, *revisions))
        if self.repair and wrong:
            self.found.mended += self._mend(table, kind, wrong, epoch)

    def _mend(self, table: str, kind: str, wrong: list[WrongDocument], epoch: int) -> int:
        """Remove ghosts and replace wrong documents, if they still have the version that was seen; put lost ones as the
        sync does. Return the number of documents that are right now."""
        mended: int = self.writer.discard(kind, [stored for what, _, stored in wrong if what == "ghost" and stored])
        documents, unreadable = build_documents(table, [row for _, row, _ in wrong if row is not None], epoch)
        self.writer.quarantine(kind, unreadable)
        stored_by_id = {row.id: stored for _, row, stored in wrong if row is not None and stored is not None}
        pairs = [(stored_by_id[document["_id"]], document) for document in documents if document["_id"] in stored_by_id]
        mended += self.writer.overwrite(kind, pairs)
        put: WriteResult = self.writer.put(
            kind, [document for document in documents if document["_id"] not in stored_by_id]
        )
        return mended + put.written + put.unchanged


def _in_parts(items: Iterable[int], size: int) -> Iterator[list[int]]:
    items = iter(items)
    while part := list(islice(items, size)):
        yield part
