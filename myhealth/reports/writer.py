"""The report store as the sync writes it.

Writing is idempotent. A document carries (`epoch`, `revision`), and a write never replaces a newer one: so a batch
may be written twice, late, or by two runners at once. What MongoDB refuses is set aside with its reason, and what it
had of the same document before is removed: an outdated report is worse than a missing one.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from bson.errors import InvalidDocument
from pymongo import DeleteOne, ReplaceOne
from pymongo.errors import BulkWriteError, DocumentTooLarge, OperationFailure

from myhealth.common.errors import MyHealthError, Unavailable
from myhealth.reports.bson_compare import StoredBson, encode, split
from myhealth.reports.connection import TRANSIENT_CODES, translate_mongo_errors
from myhealth.reports.documents import Document
from myhealth.reports.epochs import Epochs
from myhealth.reports.inserts import insert_batch
from myhealth.reports.repository import ReportRepository

DUPLICATE_KEY = 11000
DOCUMENT_MAX = 16 * 1024 * 1024  # bytes; MongoDB manual, "MongoDB Limits and Thresholds"
# What BSON cannot hold: too large, an integer or a decimal beyond its range, an object of no known type.
UNENCODABLE = (InvalidDocument, DocumentTooLarge, OverflowError, ArithmeticError, ValueError)
KINDS = ("checkup", "user")


@dataclass(frozen=True)
class QuarantinedDocument:
    """A document that MongoDB refused: of which row, and why."""

    kind: str
    id: int
    reason: str


@dataclass
class WriteResult:
    """What became of a batch: documents written, those that were there already or newer, those that were removed, and
    what MongoDB refused."""

    written: int = 0
    unchanged: int = 0
    removed: int = 0
    failed: list[QuarantinedDocument] = field(default_factory=list)

    def __add__(self, other: WriteResult) -> WriteResult:
        return WriteResult(
            self.written + other.written,
            self.unchanged + other.unchanged,
            self.removed + other.removed,
            [*self.failed, *other.failed],
        )


class LeaseLost(Unavailable):
    """Another runner has begun a pass meanwhile; this one moves the mark no more."""


class ReportWriter(Epochs):
    """Reports and users of one MongoDB database, the mark, and what was set aside. Used by one pass at a time,
    which may write several batches at once."""

    def __init__(self, repository: ReportRepository) -> None:
        self._repository = repository
        self._collections: dict[str, Any] = {"checkup": repository.reports, "user": repository.users}
        self._state = repository.state
        self._failures = repository.failures
        self._set_aside: set[str] | None = None
        self._looking = threading.Lock()

    # -- documents ----------------------------------------------------------------------------------------------

    def insert(self, kind: str, documents: Sequence[Document]) -> WriteResult:
        """Writes documents that are believed to be new; those that turn out to be there are put."""
        if not documents:
            return WriteResult()
        try:
            faults = insert_batch(self._collections[kind], documents)
        except DocumentTooLarge:
            half = len(documents) // 2
            if not half:
                return self.put(kind, documents)
            return self.insert(kind, documents[:half]) + self.insert(kind, documents[half:])
        except (OperationFailure, *UNENCODABLE):
            return self.put(kind, documents)
        _check_transient(faults)
        there = [documents[fault["index"]] for fault in faults if fault["code"] == DUPLICATE_KEY]
        refused = [(documents[f["index"]], f["errmsg"]) for f in faults if f["code"] != DUPLICATE_KEY]
        failed = {fault["index"] for fault in faults}
        new = [document for i, document in enumerate(documents) if i not in failed] if failed else documents
        written = self._done(kind, new, WriteResult(len(new)))
        return written + self.quarantine(kind, refused) + self.put(kind, there)

    def put(self, kind: str, documents: Sequence[Document]) -> WriteResult:
        """Writes each document unless a newer (epoch, revision) of it is there."""
        if not documents:
            return WriteResult()
        good, refused = _encodable(documents)
        try:
            return self._refresh_epoch(kind, good) + self.quarantine(kind, refused)
        except (OperationFailure, *UNENCODABLE) as error:
            return self._put_one_by_one(kind, [document for document, _ in good], error) + self.quarantine(
                kind, refused
            )

    def remove(self, kind: str, dead: Iterable[tuple[int, int]], epoch: int) -> int:
        """Removes documents by (id, revision of the deletion), unless something newer is there; gives how many."""
        dead = list(dead)
        operations = [DeleteOne(_not_after(id_, epoch, revision)) for id_, revision in dead]
        if not operations:
            return 0
        with translate_mongo_errors():
            removed = self._collections[kind].bulk_write(operations, ordered=False).deleted_count
        self._forget(kind, [id_ for id_, _ in dead])
        return int(removed)

    def prepare(self) -> str:
        """Makes the collections and indexes that are not there, and gives what `identity` does."""
        self._repository.make_indexes()
        return self.identity()

    def defer_index(self) -> None:
        """Before a first sync: a store that is empty does without its index until `prepare` is called again."""
        self._repository.defer_index()

    def identity(self) -> str:
        """Names the collections that there are: one that was dropped and made anew has another name here."""
        return self._repository.identity()

    def raw(self, kind: str, query: Document) -> Iterator[StoredBson]:
        """The documents that a query finds, not decoded, in order of id; memory does not grow with their number."""
        with translate_mongo_errors():
            for batch in self._collections[kind].find_raw_batches(query, sort=[("_id", 1)]):
                yield from split(batch)

    def non_integer_ids(self, kind: str) -> Iterator[StoredBson]:
        """The documents whose id is no number, or no finite one: what sorts before all numbers and behind them."""
        collection = self._collections[kind]
        for bounds in ({"max": {"_id": -float("inf")}}, {"min": {"_id": float("inf")}}):
            with translate_mongo_errors():
                for batch in collection.find_raw_batches({}, hint=[("_id", 1)], **bounds):
                    yield from split(batch)

    def encoded(self, documents: Sequence[Document]) -> tuple[list[tuple[Document, bytes]], list[tuple[Document, str]]]:
        """Documents with the BSON that they are stored as, and those that cannot be, with the reason."""
        return _encodable(documents)

    def discard(self, kind: str, seen: Sequence[StoredBson]) -> int:
        """Removes documents, if they are still in the version that was seen; gives how many."""
        if not seen:
            return 0
        operations = [DeleteOne(_just_as(stored)) for stored in seen]
        with translate_mongo_errors():
            return int(self._collections[kind].bulk_write(operations, ordered=False).deleted_count)

    def overwrite(self, kind: str, pairs: Sequence[tuple[StoredBson, Document]]) -> int:
        """Puts documents in the place of those that were seen, if they are still in that version; gives how many.
        What MongoDB refuses is set aside."""
        done = 0
        for stored, document in pairs:
            try:
                with translate_mongo_errors():
                    done += self._collections[kind].replace_one(_just_as(stored), document).modified_count
            except (OperationFailure, *UNENCODABLE) as error:
                self.quarantine(kind, [(document, str(error))])
        return done

    # -- the mark -----------------------------------------------------------------------------------------------

    def read_checkpoint(self) -> Document | None:
        with translate_mongo_errors():
            found: Document | None = self._state.find_one({"_id": "mark"})
        return found

    def begin(self, mark: Document) -> None:
        """Puts a mark in the place of whatever is there: a new epoch."""
        with translate_mongo_errors():
            self._state.replace_one({"_id": "mark"}, {**mark, "_id": "mark"}, upsert=True)

    def write_checkpoint(self, mark: Document, run: str) -> None:
        """Moves the mark, if `run` is still the one that has it. Raises TakenOver otherwise."""
        with translate_mongo_errors():
            done = self._state.replace_one({"_id": "mark", "run": run}, {**mark, "_id": "mark"})
        if not done.matched_count:
            raise LeaseLost("another sync has taken over; this one ends")

    # -- what was set aside -------------------------------------------------------------------------------------

    def quarantine(self, kind: str, refused: Sequence[tuple[Document, str]]) -> WriteResult:
        """Keeps the reason, and removes what was there of the same document before."""
        if not refused:
            return WriteResult()
        now = datetime.now(UTC)
        notes, outdated = [], []
        for document, reason in refused:
            key, epoch, revision = f"{kind}:{document['_id']}", document["epoch"], document["revision"]
            what = {"kind": kind, "row_id": document["_id"], "epoch": epoch, "revision": revision}
            note = {"$set": {**what, "reason": reason[:500], "at": now}, "$setOnInsert": {"since": now}}
            notes.append((key, {**note, "$inc": {"tries": 1}}))
            outdated.append(DeleteOne(_not_after(document["_id"], epoch, revision - 1)))
        with translate_mongo_errors():
            for key, note in notes:
                self._failures.update_one({"_id": key}, note, upsert=True)
            self._collections[kind].bulk_write(outdated, ordered=False)
        self._known_quarantined().update(key for key, _ in notes)
        failed = [QuarantinedDocument(kind, document["_id"], reason) for document, reason in refused]
        return WriteResult(failed=failed)

    def failed_ids(self, kind: str) -> list[int]:
        with translate_mongo_errors():
            return [found["row_id"] for found in self._failures.find({"kind": kind}, {"row_id": 1}).sort("row_id", 1)]

    def count(self) -> tuple[int, int]:
        """How many reports and users there are."""
        return self._repository.count()

    def count_quarantined(self) -> int:
        with translate_mongo_errors():
            return int(self._failures.count_documents({}))

    def aside(self, kind: str, ids: Sequence[int]) -> set[int]:
        """Which of these are set aside now."""
        with translate_mongo_errors():
            found = self._failures.find({"kind": kind, "row_id": {"$in": list(ids)}}, {"row_id": 1})
            return {failure["row_id"] for failure in found}

    def failures(self, limit: int = 0) -> list[Document]:
        """What is set aside: kind, row_id, reason, since, tries."""
        with translate_mongo_errors():
            return list(self._failures.find({}, {"_id": 0}).sort([("kind", 1), ("row_id", 1)]).limit(limit))

    # -- within -------------------------------------------------------------------------------------------------

    def _refresh_epoch(self, kind: str, encoded: Sequence[tuple[Document, bytes]]) -> WriteResult:
        """Replaces what differs; of what is there already with the same content, only moves the epoch, many at once:
        several times quicker than to replace it, and nearly all that a new epoch finds is like that."""
        there, elsewhere = self._same_content(kind, encoded)
        self._remove_elsewhere(kind, elsewhere)
        moving: dict[tuple[int, int], list[Document]] = {}
        for document, _ in encoded:
            stored = there.get(document["_id"])
            if stored is not None and stored < document["epoch"]:
                moving.setdefault((stored, document["revision"]), []).append(document)
        # Whatever has become of them since they were looked at is no longer of this epoch and revision.
        behind, moved = [document for document, _ in encoded if document["_id"] not in there], 0
        for (epoch, revision), documents in moving.items():
            same = {"_id": {"$in": [document["_id"] for document in documents]}, "epoch": epoch, "revision": revision}
            with translate_mongo_errors():
                done = self._collections[kind].update_many(same, {"$set": {"epoch": documents[0]["epoch"]}})
            if done.matched_count == len(documents):
                moved += done.matched_count
            else:
                behind += documents
        unchanged = [document for document, _ in encoded if there.get(document["_id"], -1) >= document["epoch"]]
        renewed = [document for documents in moving.values() for document in documents]
        self._done(kind, [*unchanged, *renewed], WriteResult())
        return WriteResult(moved, len(unchanged)) + self._replace(kind, behind)

    def _same_content(
        self, kind: str, encoded: Sequence[tuple[Document, bytes]]
    ) -> tuple[dict[int, int], list[Document]]:
        """Of the documents that are there with the very same content, epoch aside: the epoch by id; and those that are
        there as another patient's."""
        ours = {document["_id"]: (document, content) for document, content in encoded}
        found, elsewhere = {}, []
        for stored in self.raw(kind, {"_id": {"$in": list(ours)}}):
            if stored.id not in ours:
                continue
            document, content = ours[stored.id]
            if stored.equals(content):
                found[stored.id] = stored.epoch
            elif kind == "checkup" and stored.document().get("patient_id") != document["patient_id"]:
                elsewhere.append(document)
        return found, elsewhere

    def _replace(self, kind: str, documents: Sequence[Document]) -> WriteResult:
        """Guarded replaces. An upsert whose guard says that a newer one is there runs into the unique _id: that is
        what a duplicate key means here, or that it was another patient's."""
        if not documents:
            return WriteResult()
        operations = [ReplaceOne(_older_than(document), document, upsert=True) for document in documents]
        faults: list[Any] = []
        try:
            with translate_mongo_errors():
                self._collections[kind].bulk_write(operations, ordered=False)
        except BulkWriteError as error:
            faults = _faults(error)
        refused = {fault["index"]: fault["errmsg"] for fault in faults if fault["code"] != DUPLICATE_KEY}
        there = [documents[fault["index"]] for fault in faults if fault["code"] == DUPLICATE_KEY]
        aside = self.quarantine(kind, [(documents[i], reason) for i, reason in refused.items()])
        if self._remove_elsewhere(kind, there):
            aside, there = aside + self._replace(kind, there), []
        kept = [document for i, document in enumerate(documents) if i not in refused]
        return self._done(kind, kept, WriteResult(len(documents) - len(faults), len(there))) + aside

    def _remove_elsewhere(self, kind: str, documents: Sequence[Document]) -> int:
        """Removes older versions of these reports that are another patient's; gives how many there were.

        The patient is part of what finds a report to replace: on a sharded cluster it says where the report lies.
        """
        if kind != "checkup" or not documents:
            return 0
        operations = [
            DeleteOne(
                {
                    **_not_after(each["_id"], each["epoch"], each["revision"] - 1),
                    "patient_id": {"$ne": each["patient_id"]},
                }
            )
            for each in documents
        ]
        with translate_mongo_errors():
            return int(self._collections[kind].bulk_write(operations, ordered=False).deleted_count)

    def _put_one_by_one(self, kind: str, documents: Sequence[Document], error: Exception) -> WriteResult:
        """MongoDB refuses the whole batch: finds out which of its documents it means."""
        done, refused = WriteResult(), []
        for document in documents:
            try:
                done += self._replace(kind, [document])
            except (OperationFailure, *UNENCODABLE) as fault:
                refused.append((document, str(fault)))
        if len(refused) == len(documents) > 1:
            raise MyHealthError(f"MongoDB refuses every write: {error}") from error
        return done + self.quarantine(kind, refused)

    def _done(self, kind: str, documents: Sequence[Document], written: WriteResult) -> WriteResult:
        if self._known_quarantined():
            self._forget(kind, [document["_id"] for document in documents])
        return written

    def _forget(self, kind: str, ids: Sequence[int]) -> None:
        known = self._known_quarantined()
        keys = [key for key in (f"{kind}:{id_}" for id_ in ids) if key in known]
        if keys:
            with translate_mongo_errors():
                self._failures.delete_many({"_id": {"$in": keys}})
            known.difference_update(keys)

    def _known_quarantined(self) -> set[str]:
        with self._looking:
            if self._set_aside is None:
                with translate_mongo_errors():
                    self._set_aside = {found["_id"] for found in self._failures.find({}, {"_id": 1})}
            return self._set_aside


def _faults(error: BulkWriteError) -> list[Any]:
    """The writes that failed. Raises Unavailable where one of them may succeed later."""
    faults: list[Any] = error.details["writeErrors"]
    _check_transient(faults)
    return faults


def _check_transient(faults: Sequence[Any]) -> None:
    for fault in faults:
        if fault["code"] in TRANSIENT_CODES:
            raise Unavailable(f"MongoDB cannot do it now: {fault['errmsg']}")


def _older_than(document: Document) -> Document:
    """Matches this document in an older version: an earlier epoch, or the same epoch and a lower revision."""
    older = _not_after(document["_id"], document["epoch"], document["revision"] - 1)
    return {**older, "patient_id": document["patient_id"]} if "patient_id" in document else older


def _not_after(id_: int, epoch: int, revision: int) -> Document:
    """Matches this document in a version up to (epoch, revision)."""
    return {"_id": id_, "$or": [{"epoch": {"$lt": epoch}}, {"epoch": epoch, "revision": {"$lte": revision}}]}


def _just_as(stored: StoredBson) -> Document:
    """Matches a document in the version that was seen, whatever that is."""
    document = stored.document()
    return {"_id": stored.id, "epoch": document.get("epoch"), "revision": document.get("revision")}


def _encodable(documents: Sequence[Document]) -> tuple[list[tuple[Document, bytes]], list[tuple[Document, str]]]:
    """The documents that BSON can hold and MongoDB takes, with their BSON, and the others with the reason."""
    good, refused = [], []
    for document in documents:
        try:
            content = encode(document)
        except UNENCODABLE as error:
            refused.append((document, f"BSON cannot hold it: {error}"))
            continue
        if len(content) > DOCUMENT_MAX:
            refused.append((document, f"it has {len(content)} bytes; MongoDB holds at most {DOCUMENT_MAX}"))
        else:
            good.append((document, content))
    return good, refused
