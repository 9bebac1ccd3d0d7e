"""The epochs in the report store: the newest one, and the removal of earlier ones, slice by slice; and the upload API's
events.

No index covers the epoch, so one operation over many millions of reports would run into a call's timeout.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from pymongo.errors import BulkWriteError

from myhealth.reports.access_log import AccessLog, UploadEvent
from myhealth.reports.bson_documents import EPOCH_MAX, other_epochs
from myhealth.reports.connection import DUPLICATE_KEY, translate_mongo_errors
from myhealth.reports.documents import CHECKPOINT, Document
from myhealth.reports.kept_trends import KeptTrends

FIRST_ID = -(2**63)
# Documents of a slice: it must take far less than the timeout of a call.
SWEEP_IDS = 100_000
SUBJECTS = 10_000  # of one call of list_subjects
# The document in `sync_state` with the position in PostgreSQL's audit.
EVENT_POSITION = {"_id": "events"}


def newest_epoch(store: Any) -> int:
    """Return the highest epoch that a sync has given to a document of a report store (a ReportWriter, or the sync's
    target), 0 without any. It reads everything: for a new epoch only."""
    highest, after = 0, FIRST_ID
    while after is not None:
        found, after = store.newest_epoch_of_slice(after)
        highest = max(highest, found)
    return highest


class Epochs:
    """The part of `ReportWriter` that works on all documents."""

    _collections: dict[str, Any]
    _quarantine: Any
    _state: Any
    _access_log: AccessLog
    _audit_days: int
    kept_trends: KeptTrends
    _may_keep_trends: bool  # False within a pass that began a generation: no trend can be kept before it ends

    def begin(self, checkpoint: Document) -> None:
        """Replace the checkpoint, whichever pass holds it: a pass or an epoch begins."""
        with translate_mongo_errors():
            known = self._state.find_one({**CHECKPOINT, "epoch": checkpoint.get("epoch")}) or {}
            kept = {name: known[name] for name in ("trends",) if name in known}
            self._state.replace_one(CHECKPOINT, {**checkpoint, **kept, **CHECKPOINT}, upsert=True)
        self._may_keep_trends = bool(kept) and self.kept_trends.may_forget()
        if not self._may_keep_trends:
            self.kept_trends.begin_generation()
        self._access_log.purge(self._audit_days)

    def event_position(self, epoch: int) -> int:
        """Return the id up to which the upload API's events are stored, 0 in a new epoch: ids may begin anew."""
        with translate_mongo_errors():
            found = self._state.find_one(EVENT_POSITION)
        return int(found["after"]) if found and found["epoch"] == epoch else 0

    def put_events(self, events: Sequence[UploadEvent], epoch: int, after: int) -> None:
        """Store events of the upload API, then the id up to which they are stored."""
        try:
            if events:
                with translate_mongo_errors():
                    self._access_log.collection.insert_many([event.document() for event in events], ordered=False)
        except BulkWriteError as error:
            if any(each["code"] != DUPLICATE_KEY for each in error.details["writeErrors"]):
                raise
        with translate_mongo_errors():
            position = {**EVENT_POSITION, "epoch": epoch, "after": after}
            self._state.replace_one(EVENT_POSITION, position, upsert=True)

    def erase_person(self, user_id: int, subject: str) -> None:
        """Remove the reports of a person whom PostgreSQL has deleted, before the sync does."""
        self._access_log.pseudonymise([{"_id": user_id, "subject": subject}])
        with translate_mongo_errors():
            self._collections["checkup"].delete_many({"patient_id": user_id, "subject": subject})
        self.kept_trends.begin_generation()

    def _forget_people(self, kind: str, query: Document) -> None:
        """Give the users that are about to be removed a pseudonym in the access log."""
        if kind == "user":
            with translate_mongo_errors():
                found = list(self._collections["user"].find(query, {"subject": 1}))
            self._access_log.pseudonymise(found)

    def _forget_trends(self, kind: str, documents: Iterable[Document], ids: Iterable[int] = ()) -> None:
        """Delete the kept trends of the patients of these documents, and of the stored reports `ids`.

        Call it before the reports change: if the pass ends in between, the next one changes them.
        """
        if kind == "checkup" and self._may_keep_trends and not self.kept_trends.is_empty():
            patients = {document["patient_id"] for document in documents}
            with translate_mongo_errors():
                stored = self._collections[kind].find({"_id": {"$in": [*ids]}}, {"patient_id": 1})
                patients.update(each.get("patient_id") for each in stored)
            self.kept_trends.forget(patients)

    def sweep(self, epoch: int, after: int = FIRST_ID) -> tuple[int, int | None]:
        """Remove the documents of earlier epochs in the slice after the id `after`.

        Return the number of reports removed and the last id of the slice, or None after the last slice, which also
        removes earlier epochs among the users and the quarantined documents.
        """
        older = {"$or": other_epochs(epoch)}
        beyond, last = self._slice_of_reports(after)
        with translate_mongo_errors():
            removed = int(self._collections["checkup"].delete_many({"_id": beyond, **older}).deleted_count)
            if last is None:  # ids that are not numbers, which another program stored
                odd = {"_id": {"$not": {"$type": "number"}}, **older}
                removed += int(self._collections["checkup"].delete_many(odd).deleted_count)
                self._forget_people("user", older)
                self._collections["user"].delete_many(older)
                self._quarantine.delete_many(older)
        if removed:
            self.kept_trends.begin_generation()
        return removed, last

    def newest_epoch_of_slice(self, after: int) -> tuple[int, int | None]:
        """Return the highest epoch of a slice and its last id, as `sweep` does. The last slice includes users."""
        beyond, last = self._slice_of_reports(after)
        users = self._highest_epoch("user", {}) if last is None else 0
        return max(users, self._highest_epoch("checkup", {"_id": beyond})), last

    def _highest_epoch(self, kind: str, query: Document) -> int:
        with translate_mongo_errors():
            ours = {"$type": ["int", "long"], "$lte": EPOCH_MAX}
            newest = self._collections[kind].find({**query, "epoch": ours}, {"epoch": 1})
            return max((int(found["epoch"]) for found in newest.sort("epoch", -1).limit(1)), default=0)

    def list_subjects(self, kind: str, after: int) -> list[tuple[int, str]]:
        """Return (id, the person's subject) of the next documents after the id `after`, in order of id."""
        query = {"_id": {"$gt": after, "$type": ["int", "long"]}}
        with translate_mongo_errors():
            found = self._collections[kind].find(query, {"subject": 1}).sort("_id", 1).limit(SUBJECTS)
            return [(int(each["_id"]), str(each.get("subject") or "")) for each in found]

    def _slice_of_reports(self, after: int) -> tuple[Document, int | None]:
        """Return the query for the next slice of ids above `after`, and its last id (None in the last slice)."""
        beyond = {"$gt": after}
        with translate_mongo_errors():
            found = self._collections["checkup"].find({"_id": beyond}, {"_id": 1}).sort("_id", 1)
            last = [int(each["_id"]) for each in found.skip(SWEEP_IDS).limit(1)]
        return ({**beyond, "$lte": last[0]}, last[0]) if last else (beyond, None)
