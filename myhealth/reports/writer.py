"""Write the report store, as the sync does.

Writing is idempotent. A document carries (`epoch`, `revision`), and a write never replaces a newer one: so a batch
may be written twice, late, or by two runners at once. A document that MongoDB refuses is quarantined: its reason is
kept, and an older version of it is removed, because an outdated report is worse than a missing one.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct
from pymongo import DeleteOne, ReplaceOne
from pymongo.errors import BulkWriteError, DocumentTooLarge, OperationFailure

from myhealth.common.errors import MyHealthError, Unavailable
from myhealth.reports.bson_documents import (
    EPOCH_MAX,
    UNENCODABLE,
    SameContent,
    StoredBson,
    among,
    compare,
    encodable,
    ends_with_version,
    insert_batch,
    not_after,
    older_than,
    older_version,
    read_ids,
    read_int32,
    same_version,
    split,
)
from myhealth.reports.connection import DUPLICATE_KEY, translate_mongo_errors
from myhealth.reports.documents import CHECKPOINT, Document
from myhealth.reports.epochs import Epochs
from myhealth.reports.repository import ReportRepository

KINDS = ("checkup", "user")


class QuarantinedDocument(Struct, frozen=True):
    """A document that MongoDB refused. `id`: of its row."""

    kind: str
    id: int
    reason: str


class WriteResult(Struct):
    """The result of a batch. `unchanged`: documents that were there already, in this version or a newer one."""

    written: int = 0
    unchanged: int = 0
    removed: int = 0
    quarantined: list[QuarantinedDocument] = []

    def __add__(self, other: WriteResult) -> WriteResult:
        return WriteResult(
            self.written + other.written,
            self.unchanged + other.unchanged,
            self.removed + other.removed,
            [*self.quarantined, *other.quarantined],
        )


class LeaseLost(Unavailable):
    """Another runner has begun a pass; this one must not move the checkpoint any more."""

    status, code = 409, "taken_over"


class ReportWriter(Epochs):
    """Writes reports and users of one MongoDB database, the checkpoint and the quarantine.

    One pass at a time uses it, which may write several batches at once.
    """

    def __init__(self, repository: ReportRepository, *, audit_days: int = 0) -> None:
        """`audit_days`: a pass that begins removes a bounded number of access events that are older; 0: none."""
        self._repository = repository
        self.kept_trends, self._may_keep_trends = repository.kept_trends, True
        self._access_log, self._audit_days = repository.access_log, audit_days
        self._collections: dict[str, Any] = {"checkup": repository.reports, "user": repository.users}
        self._state = repository.state
        self._quarantine = repository.failures
        self._quarantined_keys: set[str] | None = None
        self._keys_lock = threading.Lock()

    # -- documents ----------------------------------------------------------------------------------------------

    def insert(self, kind: str, documents: Sequence[Document]) -> WriteResult:
        """Insert documents that are expected to be new; `put` those that are there already."""
        if not documents:
            return WriteResult()
        self._forget_trends(kind, documents)
        try:
            errors = insert_batch(self._collections[kind], documents)
        except DocumentTooLarge:
            half = len(documents) // 2
            if not half:
                return self.put(kind, documents)
            return self.insert(kind, documents[:half]) + self.insert(kind, documents[half:])
        except (OperationFailure, *UNENCODABLE):
            return self.put(kind, documents)
        existing = [documents[error["index"]] for error in errors if error["code"] == DUPLICATE_KEY]
        refused = [(documents[e["index"]], e["errmsg"]) for e in errors if e["code"] != DUPLICATE_KEY]
        failed = {error["index"] for error in errors}
        new = [document for i, document in enumerate(documents) if i not in failed]
        self._release(kind, new)
        return WriteResult(len(new)) + self.quarantine(kind, refused) + self.put(kind, existing)

    def put(self, kind: str, documents: Sequence[Document]) -> WriteResult:
        """Write each document unless the store has a newer (epoch, revision) of it."""
        if not documents:
            return WriteResult()
        self._forget_trends(kind, documents, (document["_id"] for document in documents))
        good, refused = encodable(documents)
        try:
            result = self._refresh_epoch(kind, good)
        except (OperationFailure, *UNENCODABLE) as error:
            result = self._put_one_by_one(kind, [document for document, _ in good], error)
        return result + self.quarantine(kind, refused)

    def remove(self, kind: str, deletions: Iterable[tuple[int, int]], epoch: int) -> int:
        """Remove documents by (id, revision of the deletion) unless a newer version is there; return how many."""
        queries = {id_: not_after(id_, epoch, revision) for id_, revision in deletions}
        if not queries:
            return 0
        self._forget_people(kind, {"$or": [*queries.values()]})
        self._forget_trends(kind, (), queries)
        removed = self._delete(kind, queries.values())
        self._release_ids(kind, queries)
        return removed

    def prepare(self) -> str:
        """Make the missing collections and indexes; return what `identity` does."""
        self._repository.make_indexes()
        return self.identity()

    def defer_index(self) -> None:
        """Drop the index of an empty store until the next `prepare`: it is quicker to build after the documents."""
        self._repository.defer_index()

    def identity(self) -> str:
        """Return the UUIDs of the collections; a collection that was dropped and made again has another one."""
        return self._repository.identity()

    def has_documents_after(self, kind: str, id_: int) -> bool:
        with translate_mongo_errors():
            return self._collections[kind].find_one({"_id": {"$gt": id_}}, {"_id": 1}) is not None

    def raw(self, kind: str, query: Document, **options: Any) -> Iterator[StoredBson]:
        """Yield the documents that a query finds, not decoded, in order of id, in constant memory. `options`: those of
        PyMongo's `find`."""
        with translate_mongo_errors():
            for batch in self._collections[kind].find_raw_batches(query, sort=[("_id", 1)], **options):
                yield from map(StoredBson, split(batch))

    def find_stored(self, kind: str, ids: Sequence[int]) -> Iterator[StoredBson]:
        """Yield those of the documents that are stored."""
        return self.raw(kind, {"_id": {"$in": list(ids)}})

    def non_integer_ids(self, kind: str) -> Iterator[StoredBson]:
        """Yield the documents whose id is not a finite number: those that sort before and after all numbers."""
        for bounds in ({"max": {"_id": -float("inf")}}, {"min": {"_id": float("inf")}}):
            yield from self.raw(kind, {}, hint=[("_id", 1)], **bounds)

    def discard(self, kind: str, seen: Sequence[StoredBson]) -> int:
        """Remove documents that still have the version that was seen; return how many."""
        self._forget_people(kind, {"_id": {"$in": [stored.id for stored in seen]}})
        self._forget_trends(kind, (), (stored.id for stored in seen))
        return self._delete(kind, map(same_version, seen))

    def overwrite(self, kind: str, pairs: Sequence[tuple[StoredBson, Document]]) -> int:
        """Replace documents whose version has not changed; return how many. Quarantine those that MongoDB refuses."""
        replaced = 0
        self._forget_trends(kind, [document for _, document in pairs], (stored.id for stored, _ in pairs))
        for stored, document in pairs:
            try:
                with translate_mongo_errors():
                    replaced += self._collections[kind].replace_one(same_version(stored), document).modified_count
            except (OperationFailure, *UNENCODABLE) as error:
                self.quarantine(kind, [(document, str(error))])
        return replaced

    # -- the checkpoint -----------------------------------------------------------------------------------------

    def read_checkpoint(self) -> Document | None:
        with translate_mongo_errors():
            found: Document | None = self._state.find_one(CHECKPOINT)
        return found

    def write_checkpoint(self, checkpoint: Document, run: str) -> None:
        """Move the checkpoint if the pass `run` still holds it. Raises LeaseLost otherwise."""
        with translate_mongo_errors():
            result = self._state.update_one({**CHECKPOINT, "run": run}, {"$set": checkpoint})
        if not result.matched_count:
            raise LeaseLost("another sync has taken over; this one ends")

    # -- the quarantine -----------------------------------------------------------------------------------------

    def quarantine(self, kind: str, refused: Sequence[tuple[Document, str]]) -> WriteResult:
        """Quarantine (document, reason), and remove older versions of the documents."""
        if not refused:
            return WriteResult()
        self._forget_trends(kind, (), (document["_id"] for document, _ in refused))
        now = datetime.now(UTC)
        keys = [f"{kind}:{document['_id']}" for document, _ in refused]
        with translate_mongo_errors():
            for key, (document, reason) in zip(keys, refused, strict=True):
                version = {"row_id": document["_id"], "epoch": document["epoch"], "revision": document["revision"]}
                entry = {"kind": kind, **version, "reason": reason[:500], "at": now}
                update = {"$set": entry, "$setOnInsert": {"since": now}, "$inc": {"tries": 1}}
                self._quarantine.update_one({"_id": key}, update, upsert=True)
        self._delete(kind, (older_version(document) for document, _ in refused))
        self._known_keys().update(keys)
        return WriteResult(
            quarantined=[QuarantinedDocument(kind, document["_id"], reason) for document, reason in refused]
        )

    def quarantined_ids(self, kind: str) -> list[int]:
        """Return the ids of the quarantined documents of one kind, in order."""
        with translate_mongo_errors():
            return [found["row_id"] for found in self._quarantine.find({"kind": kind}, {"row_id": 1}).sort("row_id", 1)]

    def count(self) -> tuple[int, int]:
        return self._repository.count()

    def count_quarantined(self) -> int:
        with translate_mongo_errors():
            return int(self._quarantine.count_documents({}))

    def quarantined_among(self, kind: str, ids: Sequence[int]) -> set[int]:
        """Return those of the ids that are quarantined now."""
        with translate_mongo_errors():
            found = self._quarantine.find({"kind": kind, "row_id": {"$in": list(ids)}}, {"row_id": 1})
            return {entry["row_id"] for entry in found}

    def list_quarantined(self, limit: int = 0) -> list[Document]:
        """Return the quarantine's entries (kind, row_id, reason, since, at, tries), at most `limit`, 0 for all."""
        with translate_mongo_errors():
            return list(self._quarantine.find({}, {"_id": 0}).sort([("kind", 1), ("row_id", 1)]).limit(limit))

    # -- within -------------------------------------------------------------------------------------------------

    def _delete(self, kind: str, queries: Iterable[Document]) -> int:
        """Remove the document of each of these queries; return how many there were."""
        operations = [*map(DeleteOne, queries)]
        with translate_mongo_errors():
            return int(self._collections[kind].bulk_write(operations, ordered=False).deleted_count) if operations else 0

    def _refresh_epoch(self, kind: str, encoded: Sequence[tuple[Document, bytes]]) -> WriteResult:
        """Replace the documents that differ, and only set the epoch of those that have the same content already.

        Setting the epoch is one update for many documents, several times quicker than replacing them, and a new epoch
        finds nearly all documents unchanged.
        """
        same, outdated, elsewhere = self._same_content(kind, encoded)
        self._remove_elsewhere(kind, elsewhere)
        settled: list[Document] = []
        unchanged = 0
        for (epoch_value, version), documents in same.items():
            epoch = read_int32(epoch_value)[0]
            if not ends_with_version(version) or epoch > EPOCH_MAX:
                outdated += documents
            elif epoch >= documents[0]["epoch"]:
                settled += documents
                unchanged += len(documents)
            elif self._set_epoch(kind, documents, epoch):
                settled += documents
            else:  # one was changed since it was read
                outdated += documents
        self._release(kind, settled)
        return WriteResult(len(settled) - unchanged, unchanged) + self._replace(kind, outdated)

    def _set_epoch(self, kind: str, documents: Sequence[Document], stored: int) -> bool:
        """Set the epoch of documents of one revision; return whether all were still there, of the epoch `stored`."""
        first, ids = documents[0], among([each["_id"] for each in documents])
        same = {"_id": ids, "epoch": stored, "revision": first["revision"]}
        with translate_mongo_errors():
            result = self._collections[kind].update_many(same, {"$set": {"epoch": first["epoch"]}})
        return bool(result.matched_count == len(documents))

    def _same_content(
        self, kind: str, encoded: Sequence[tuple[Document, bytes]]
    ) -> tuple[SameContent, list[Document], list[Document]]:
        """Return the documents whose content is stored already, those whose content is not, and of these, those that
        are stored as another patient's."""
        ids = sorted(document["_id"] for document, _ in encoded)
        same, outdated, differing = compare(encoded, read_ids(self._collections[kind], ids))
        if kind != "checkup":
            return same, outdated, []
        patients = {each.id: each.document().get("patient_id") for each in differing}
        elsewhere = [each for each in outdated if patients.get(each["_id"], each["patient_id"]) != each["patient_id"]]
        return same, outdated, elsewhere

    def _replace(self, kind: str, documents: Sequence[Document]) -> WriteResult:
        """Replace each document by an upsert that matches only an older version.

        A duplicate key therefore means that a newer version is there, or that the document was another patient's.
        """
        if not documents:
            return WriteResult()
        operations = [ReplaceOne(older_than(document), document, upsert=True) for document in documents]
        errors: list[Any] = []
        try:
            with translate_mongo_errors():
                self._collections[kind].bulk_write(operations, ordered=False)
        except BulkWriteError as error:
            errors = error.details["writeErrors"]
        refused = {error["index"]: error["errmsg"] for error in errors if error["code"] != DUPLICATE_KEY}
        existing = [documents[error["index"]] for error in errors if error["code"] == DUPLICATE_KEY]
        quarantined = self.quarantine(kind, [(documents[i], reason) for i, reason in refused.items()])
        if self._remove_elsewhere(kind, existing):
            quarantined, existing = quarantined + self._replace(kind, existing), []
        self._release(kind, [document for i, document in enumerate(documents) if i not in refused])
        return WriteResult(len(documents) - len(errors), len(existing)) + quarantined

    def _remove_elsewhere(self, kind: str, documents: Sequence[Document]) -> int:
        """Remove older versions of these reports that belong to another patient; return how many there were.

        `_replace` finds a report by its patient too, because on a sharded cluster the patient determines the shard.
        """
        found = documents if kind == "checkup" else ()
        return self._delete(
            kind, ({**older_version(each), "patient_id": {"$ne": each["patient_id"]}} for each in found)
        )

    def _put_one_by_one(self, kind: str, documents: Sequence[Document], batch_error: Exception) -> WriteResult:
        """Write the documents of a batch that MongoDB refused as a whole; quarantine those that it refuses alone."""
        result, refused = WriteResult(), []
        for document in documents:
            try:
                result += self._replace(kind, [document])
            except (OperationFailure, *UNENCODABLE) as error:
                refused.append((document, str(error)))
        if len(refused) == len(documents) > 1:
            raise MyHealthError(f"MongoDB refuses every write: {batch_error}") from batch_error
        return result + self.quarantine(kind, refused)

    def _release(self, kind: str, documents: Sequence[Document]) -> None:
        """Take documents that are stored now out of the quarantine."""
        if self._known_keys():
            self._release_ids(kind, [document["_id"] for document in documents])

    def _release_ids(self, kind: str, ids: Iterable[int]) -> None:
        known = self._known_keys()
        keys = [key for key in (f"{kind}:{id_}" for id_ in ids) if key in known]
        if keys:
            with translate_mongo_errors():
                self._quarantine.delete_many({"_id": {"$in": keys}})
            known.difference_update(keys)

    def _known_keys(self) -> set[str]:
        with self._keys_lock:
            if self._quarantined_keys is None:
                with translate_mongo_errors():
                    self._quarantined_keys = {found["_id"] for found in self._quarantine.find({}, {"_id": 1})}
            return self._quarantined_keys
