"""The report store as a sync over HTTP may write it: within the bounds of what it has sent before.

The sync's own key signs every request, and even a request with that key can neither begin an epoch out of turn nor move
the checkpoint past something that was not sent in this pass. `myhealth verify` finds any other damage.
"""

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

from msgspec.structs import replace

from myhealth.common.errors import Conflict
from myhealth.reports.access_log import UploadEvent
from myhealth.reports.bson_documents import Fingerprint
from myhealth.reports.connection import translate_mongo_errors
from myhealth.reports.documents import CHECKPOINT, Document
from myhealth.reports.epochs import FIRST_ID, newest_epoch
from myhealth.reports.writer import LeaseLost, ReportWriter, WriteResult
from myhealth.sync.calls import Quarantined, UserDocument, document_of
from myhealth.sync.checkpoint import FEEDS, ID_MAX, TABLES, Checkpoint, Position, from_document, last_epoch, to_document
from myhealth.sync.rows import KINDS

FEED_OF = {kind: feed for feed, kind in KINDS.items()}
# The phase that a checkpoint may move to, beside its own.
NEXT_PHASE = {"scan": "follow", "follow": "steady"}


class BoundedWriter(ReportWriter):
    """The writer for one request. All methods raise Conflict with the code `out_of_bounds`."""

    def insert_users(self, users: Sequence[UserDocument]) -> WriteResult:
        return self.insert("user", _distinct(map(document_of, users)))

    def put_users(self, users: Sequence[UserDocument]) -> WriteResult:
        return self.put("user", _distinct(map(document_of, users)))

    def insert(self, kind: str, documents: Sequence[Document]) -> WriteResult:
        self._admit(FEED_OF[kind], (document["epoch"] for document in documents))
        return super().insert(kind, documents)

    def put(self, kind: str, documents: Sequence[Document]) -> WriteResult:
        self._admit(FEED_OF[kind], (document["epoch"] for document in documents))
        return super().put(kind, documents)

    def quarantine(self, kind: str, refused: Sequence[tuple[Any, str]]) -> WriteResult:
        versions = [(_version_fields(document), reason) for document, reason in refused]
        self._admit(FEED_OF[kind], (document["epoch"] for document, _ in versions))
        return super().quarantine(kind, versions)

    def remove(self, kind: str, deletions: Iterable[tuple[int, int]], epoch: int) -> int:
        self._admit("tombstones", [epoch])
        return super().remove(kind, deletions, epoch)

    def sweep(self, epoch: int, after: int = FIRST_ID) -> tuple[int, int | None]:
        self._admit("", [epoch])
        return super().sweep(epoch, after)

    def put_events(self, events: Sequence[UploadEvent], epoch: int, after: int) -> None:
        self._admit("", [epoch])
        sent = max(self.event_position(epoch), *(event.id for event in events), 0)
        _require(after <= sent, "No event with so high an id was sent.")
        super().put_events(events, epoch, after)

    def read_checkpoint(self) -> Document | None:
        found = super().read_checkpoint()
        return found and {name: value for name, value in found.items() if name != "_id"}

    def begin(self, checkpoint: Any) -> None:
        """Begin a pass where the last one ended, or the next epoch from its start."""
        stored = self._stored
        if stored is not None and checkpoint.epoch == stored.epoch:
            _require(_progress(checkpoint) == _progress(stored), "A pass begins where the last one ended.")
        else:
            start = Checkpoint(checkpoint.history, checkpoint.epoch, "scan", checkpoint.horizon, "")
            start = replace(start, store=checkpoint.store, form=checkpoint.form)
            _require(_progress(checkpoint) == start, "An epoch begins with a scan.")
            known = last_epoch(stored)
            if checkpoint.epoch != known + 1:  # the documents may be newer than the checkpoint
                known = max(known, newest_epoch(self))
            _require(checkpoint.epoch == known + 1, f"The next epoch is {known + 1}.")
        super().begin(to_document(checkpoint))

    def write_checkpoint(self, checkpoint: Any, run: str) -> None:
        """Move the checkpoint over what was sent since `begin`. Raises LeaseLost as well."""
        stored = self._stored
        if stored is None or stored.run != run or checkpoint.run != run:
            raise LeaseLost("another sync has taken over; this one ends")
        moving = {"phase", "scanned", "feeds", "last_checkup_id", "finished", "witness", "began", "recheck"}
        _require(from_document(to_document(checkpoint)) is not None, "That is not a checkpoint.")
        same = [name for name in Checkpoint.__struct_fields__ if name not in moving]
        _require(all(getattr(checkpoint, name) == getattr(stored, name) for name in same), "That is another epoch's.")
        _require(checkpoint.phase in (stored.phase, NEXT_PHASE.get(stored.phase)), "The phases have an order.")
        for table in TABLES:
            if checkpoint.scanned[table] != stored.scanned[table]:
                self._require_sent(table, checkpoint.scanned[table])
        start = Position(stored.horizon - 1, ID_MAX)
        for feed in FEEDS:
            begins = stored.phase == "scan" and checkpoint.phase == "follow" and checkpoint.feeds[feed] == start
            if checkpoint.feeds[feed] != stored.feeds[feed] and not begins:
                self._require_sent(feed, checkpoint.feeds[feed].id)
        if checkpoint.last_checkup_id > stored.last_checkup_id:
            self._require_sent("checkups", checkpoint.last_checkup_id)
        super().write_checkpoint(to_document(checkpoint), run)

    def fingerprints(self, kind: str, ids: Sequence[int]) -> list[Fingerprint]:
        """Return the fingerprints of the documents with these ids, as far as they are stored."""
        return [stored.fingerprint() for stored in self.find_stored(kind, ids)]

    # -- within -------------------------------------------------------------------------------------------------

    @cached_property
    def _document(self) -> Document:
        return super().read_checkpoint() or {}

    @cached_property
    def _stored(self) -> Checkpoint | None:
        return from_document(self._document)

    def _admit(self, feed: str, epochs: Iterable[int]) -> None:
        """Refuse epochs that have not begun; note that rows of this feed came in this pass."""
        current = self._stored.epoch if self._stored is not None else 1
        _require(max(epochs, default=0) <= current, f"The epoch is {current}; a later one has not begun.")
        received = self._document.setdefault("received", {})
        if feed and feed not in received:
            received[feed] = True
            with translate_mongo_errors():
                run = {**CHECKPOINT, "run": self._document.get("run")}
                self._state.update_one(run, {"$set": {f"received.{feed}": True}})

    def _require_sent(self, feed: str, id_: int) -> None:
        _require(feed in self._document.get("received", {}), f"No row of {feed} was sent in this pass.")
        if feed in KINDS:
            _require(id_ <= self._highest_id(KINDS[feed]), f"No row of {feed} with so high an id was sent.")

    def _highest_id(self, kind: str) -> int:
        """Return the highest id among the documents and the quarantined ones."""
        with translate_mongo_errors():
            stored = self._collections[kind].find({"_id": {"$lte": ID_MAX}}, {"_id": 1}).sort("_id", -1).limit(1)
            aside = self._quarantine.find({"kind": kind}, {"row_id": 1}).sort("row_id", -1).limit(1)
            return max(0, *(int(each["_id"]) for each in stored), *(int(each["row_id"]) for each in aside))


def _progress(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint without the values that the beginning of a pass may change."""
    return replace(checkpoint, run="", finished=True, began=Position(), recheck=None, witness="")


def _version_fields(document: Quarantined | Document) -> Document:
    if isinstance(document, Quarantined):
        return {"_id": document.id, "epoch": document.epoch, "revision": document.revision}
    return document


def _distinct(documents: Iterable[Document]) -> list[Document]:
    found = list(documents)
    _require(len({document["_id"] for document in found}) == len(found), "The list has two documents of one _id.")
    return found


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise Conflict(message, code="out_of_bounds")
