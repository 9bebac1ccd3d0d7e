"""Whether the report store says what PostgreSQL says, row by row, while writers and the sync go on; and its repair.

Both stores are read in order of id, batch by batch, and compared by the bytes of their documents. What does not agree
is only a suspect: it is looked at again, in an order that makes the verdict hold whoever writes meanwhile:

    1. the mark: how far the sync has come for sure
    2. the document
    3. the row, and the tombstone of one that is gone

A row whose place in the feed is not beyond the mark was carried before the document was read, and whatever was
carried since would show in the row, which was read later: so the document must be there in the row's revision, with
its content. Otherwise it is lost, stale or altered. A row beyond the mark may have an older document, or none; what has
its revision must have its content, and nothing can be newer. A document without a row is a ghost, unless its deletion
is on its way: a tombstone beyond the mark, or an earlier epoch whose removal is still to come.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from myhealth.common.concurrency import prefetch, relaxed_gc
from myhealth.common.errors import MyHealthError, Unavailable
from myhealth.reports.bson_compare import StoredBson
from myhealth.reports.writer import ReportWriter
from myhealth.sync.checkpoint import Checkpoint, Position, epoch_ended, from_document, to_document
from myhealth.sync.row_documents import KINDS, build_documents
from myhealth.sync.source import SLICE_ROWS, Row, Source

log = logging.getLogger(__name__)

# lost: no document; ghost: no row; stale: an older revision; altered: another content than its revision has;
# refused: MongoDB did not take it, and `myhealth status` says why.
DIFFERENCES = ("lost", "ghost", "stale", "altered", "refused")
NOT_YET = "not yet"
NO_EPOCH = "the report store cannot be compared yet: {reason}"
# Suspects that are looked at together.
LOOK_ROWS = 1000
SHOWN = 20


# What is wrong, the row, and the document.
Finding = tuple[str, Row | None, StoredBson | None]


@dataclass(frozen=True)
class Difference:
    """`id`: the row's; of a ghost it may be of any type. The revisions are None where there is no row or document."""

    what: str
    kind: str
    id: Any
    row_revision: int | None = None
    report_revision: int | None = None


@dataclass
class Comparison:
    """What was compared and what differs: how many of each, the first ones, and how many were mended."""

    rows: int = 0
    documents: int = 0
    not_yet: int = 0
    mended: int = 0
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(DIFFERENCES, 0))
    first: list[Difference] = field(default_factory=list)

    @property
    def differences(self) -> int:
        return sum(self.counts.values())

    def add(self, difference: Difference) -> None:
        self.counts[difference.what] += 1
        if self.counts[difference.what] <= SHOWN:
            self.first.append(difference)


def verify(source_url: str, writer: ReportWriter, batch_rows: int, *, repair: bool = False) -> Comparison:
    """Compares users and check-ups. `repair`: also mends what differs, as the sync's only runner meanwhile.

    Raises MyHealthError where there is nothing to go by: no mark, or one of another history of PostgreSQL; Unavailable
    where a store is away, or where a sync is at work that a repair would run into.
    """
    with Source.opened(source_url) as source, Source.opened(source_url) as second, relaxed_gc():
        if repair and not source.lock():
            raise Unavailable("a sync is at work, and a repair must be alone; try again when it has ended")
        verifier = _Verifier(source, second, writer, batch_rows, repair)
        return verifier.compare_and_mend() if repair else verifier.compare()


class _Verifier:
    """`source` reads the tables from end to end; `second` looks at suspects meanwhile."""

    def __init__(self, source: Source, second: Source, writer: ReportWriter, batch_rows: int, repair: bool) -> None:
        self.source = source
        self.second = second
        self.writer = writer
        self.batch_rows = batch_rows
        self.repair = repair
        self.found = Comparison()
        self.epoch = 0

    def check_epoch(self) -> Checkpoint:
        mark = from_document(self.writer.read_checkpoint())
        state = self.second.state(mark.witness if mark else "")
        # not the collections: one that was made anew can be compared, and filled, as well
        reason = epoch_ended(mark, state.history, state.next_xid, state.witnessed)
        if mark is None or reason:
            hint = "run `myhealth sync --once` first; it reads everything anew"
            raise MyHealthError(NO_EPOCH.format(reason=reason), code="epoch_ended", hint=hint)
        return mark

    def compare_and_mend(self) -> Comparison:
        """A repair counts as a pass of the sync: one that is killed leaves behind what the next pass must recheck."""
        mark = self.check_epoch().begun(uuid.uuid4().hex, datetime.now(UTC))
        self.writer.begin(to_document(mark))
        self.compare()
        self.writer.write_checkpoint(to_document(replace(mark, finished=True)), mark.run)
        return self.found

    def compare(self) -> Comparison:
        self.epoch = self.check_epoch().epoch
        for table, kind in KINDS.items():
            for suspects in _in_parts(self._suspects(table, kind), LOOK_ROWS):
                self._judge(table, kind, suspects)
        return self.found

    # -- both stores in order of id -----------------------------------------------------------------------------

    def _suspects(self, table: str, kind: str) -> Iterator[int]:
        """The ids whose row and document do not agree at the first glance."""
        for stored in self.writer.non_integer_ids(kind):
            self._note_stranger(table, kind, stored)
        low: float = -float("inf")
        with prefetch(self._rows(table)) as batches:
            for last, expected in batches:
                query = {"_id": {"$gte" if low < 0 else "$gt": low, "$lte": last}}
                for stored in self.writer.raw(kind, query):
                    self.found.documents += 1
                    if type(stored.id) is not int:
                        self._note_stranger(table, kind, stored)
                    elif expected.pop(stored.id, None) != stored.content:
                        yield stored.id
                yield from expected
                low = last
        for stored in self.writer.raw(kind, {"_id": {"$gt": low}}):
            if type(stored.id) is int:
                self.found.documents += 1
                yield stored.id
            else:
                self._note_stranger(table, kind, stored)

    def _rows(self, table: str) -> Iterator[tuple[int, dict[int, bytes]]]:
        """Batches of the table in order of id: the last id, and by id the BSON of what each row makes, nothing for a
        row that makes none."""
        position, seen = 0, SLICE_ROWS
        while seen >= SLICE_ROWS:
            seen = 0
            for rows in self.source.scan(table, position, self.batch_rows):
                seen += len(rows)
                self.found.rows += len(rows)
                position = rows[-1][0]
                documents, refused = build_documents(table, rows, self.epoch)
                encoded, unencodable = self.writer.encoded(documents)
                expected = {document["_id"]: b"" for document, _ in [*refused, *unencodable]}
                expected.update((document["_id"], content) for document, content in encoded)
                yield position, expected

    # -- the second look ----------------------------------------------------------------------------------------

    def _judge(self, table: str, kind: str, suspects: list[int]) -> None:
        """Looks at suspects in the order that the module's docstring gives, and mends what is wrong."""
        mark = self.check_epoch()
        aside = self.writer.aside(kind, suspects)
        there = {stored.id: stored for stored in self.writer.raw(kind, {"_id": {"$in": suspects}})}
        if any(stored.epoch > mark.epoch for stored in there.values()) and self.check_epoch().epoch > mark.epoch:
            self._judge(table, kind, suspects)  # a new epoch has begun in between
            return
        rows = self._read(table, suspects)
        buried = self.second.tombstones_of(kind, [id_ for id_ in there if id_ not in rows])
        wrong: list[Finding] = []
        for id_ in suspects:
            row, stored = rows.get(id_), there.get(id_)
            if row is not None:
                what = self._verdict_of_row(table, mark, row, stored, aside)
            else:
                what = self._verdict_of_ghost(mark, stored, buried.get(id_)) if stored is not None else ""
            if what == NOT_YET:
                self.found.not_yet += 1
            elif what:
                wrong.append((what, row, stored))
        self._note(table, kind, wrong, mark.epoch)

    def _read(self, table: str, ids: list[int]) -> dict[int, Row]:
        return {row[0]: row for rows in self.second.find(table, ids, self.batch_rows) for row in rows}

    def _verdict_of_row(
        self, table: str, mark: Checkpoint, row: Row, stored: StoredBson | None, aside: set[int]
    ) -> str:
        """What is wrong with a row's document, NOT_YET, or nothing."""
        revision: int = row[-1]
        if stored is not None and stored.epoch > mark.epoch:
            return "altered"
        if stored is not None and stored.epoch == mark.epoch and stored.revision >= revision:
            documents, _ = build_documents(table, [row], mark.epoch)
            return "" if documents and stored.equals_ignoring_epoch(documents[0]) else "altered"
        if not mark.covers(table, Position(row[1], row[0])):
            return NOT_YET
        if row[0] in aside:
            return "refused"
        return "lost" if stored is None else "stale"

    def _verdict_of_ghost(self, mark: Checkpoint, stored: StoredBson, buried: Position | None) -> str:
        """The same of a document without a row. `buried`: where the row's last deletion stands in the feed."""
        if buried is not None and not mark.covers("tombstones", buried):
            return NOT_YET
        return "ghost" if mark.phase == "steady" or stored.epoch >= mark.epoch else NOT_YET

    # -- the repair ---------------------------------------------------------------------------------------------

    def _note_stranger(self, table: str, kind: str, stored: StoredBson) -> None:
        """A document whose id is no row's: the sync has never written it."""
        self.found.documents += 1
        self._note(table, kind, [("ghost", None, stored)], self.epoch)

    def _note(self, table: str, kind: str, wrong: list[Finding], epoch: int) -> None:
        for what, row, stored in wrong:
            id_ = row[0] if row is not None else stored.id if stored is not None else None
            revisions = row[-1] if row is not None else None, stored.revision if stored is not None else None
            self.found.add(Difference(what, kind, id_, *revisions))
        if self.repair and wrong:
            self.found.mended += self._mend(table, kind, wrong, epoch)

    def _mend(self, table: str, kind: str, wrong: list[Finding], epoch: int) -> int:
        """What is too much goes, if it is still as it was seen; what is wrong is replaced on the same terms, at one
        stroke; what is lost is put as the sync does it. Gives how many are right now."""
        mended = self.writer.discard(kind, [stored for what, _, stored in wrong if what == "ghost" and stored])
        documents, refused = build_documents(table, [row for _, row, _ in wrong if row is not None], epoch)
        self.writer.quarantine(kind, refused)
        there = {row[0]: stored for _, row, stored in wrong if row is not None and stored is not None}
        pairs = [(there[document["_id"]], document) for document in documents if document["_id"] in there]
        mended += self.writer.overwrite(kind, pairs)
        put = self.writer.put(kind, [document for document in documents if document["_id"] not in there])
        return mended + put.written + put.unchanged


def _in_parts(items: Iterable[int], size: int) -> Iterator[list[int]]:
    items = iter(items)
    while part := list(islice(items, size)):
        yield part
