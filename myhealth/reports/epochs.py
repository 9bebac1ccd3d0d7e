"""Earlier epochs in the report store: which there are, and their removal, slice by slice.

No index leads to an epoch: in one piece it would take longer than a call may, at many millions of reports.
"""

from __future__ import annotations

from typing import Any

from myhealth.reports.connection import translate_mongo_errors
from myhealth.reports.documents import Document

FIRST_ID = -(2**63)
# Ids that one step looks at: a step must stay far below the timeout of a call.
SWEEP_IDS = 100_000


class Epochs:
    """The part of `Mirror` that works on all documents."""

    _collections: dict[str, Any]
    _failures: Any

    def remove_older_epochs(self, epoch: int) -> int:
        """Removes what an earlier history of the source left behind; gives how many reports."""
        removed, after = self.sweep(epoch)
        while after is not None:
            found, after = self.sweep(epoch, after)
            removed += found
        return removed

    def sweep(self, epoch: int, after: int = FIRST_ID) -> tuple[int, int | None]:
        """The same, of one slice of the ids beyond `after`: how many reports went, and where the next slice begins,
        None behind the last."""
        older = {"epoch": {"$lt": epoch}}
        beyond, last = self._slice_of_reports(after)
        with translate_mongo_errors():
            removed = int(self._collections["checkup"].delete_many({"_id": beyond, **older}).deleted_count)
            if last is None:  # what somebody else put there
                odd = {"_id": {"$not": {"$type": "number"}}, **older}
                removed += int(self._collections["checkup"].delete_many(odd).deleted_count)
                self._collections["user"].delete_many(older)
                self._failures.delete_many(older)
        return removed, last

    def newest_epoch(self) -> int:
        """The highest epoch that any document carries; 0 without documents. Reads everything: for a new epoch only."""
        highest, after = self.newest_epoch_of_slice()
        while after is not None:
            found, after = self.newest_epoch_of_slice(after)
            highest = max(highest, found)
        return highest

    def newest_epoch_of_slice(self, after: int = FIRST_ID) -> tuple[int, int | None]:
        """The same of one slice, as in `sweep`, and of all users."""
        beyond, last = self._slice_of_reports(after)
        users = self._highest_epoch("user", {}) if last is None else 0
        return max(users, self._highest_epoch("checkup", {"_id": beyond})), last

    def _highest_epoch(self, kind: str, query: Document) -> int:
        with translate_mongo_errors():
            newest = self._collections[kind].find({**query, "epoch": {"$type": ["int", "long"]}}, {"epoch": 1})
            return max((int(found["epoch"]) for found in newest.sort("epoch", -1).limit(1)), default=0)

    def _slice_of_reports(self, after: int) -> tuple[Document, int | None]:
        """The condition on ids of a slice beyond `after`, and its last id; None where it is the last one."""
        beyond = {"$gt": after}
        with translate_mongo_errors():
            found = self._collections["checkup"].find({"_id": beyond}, {"_id": 1}).sort("_id", 1)
            last = [int(each["_id"]) for each in found.skip(SWEEP_IDS).limit(1)]
        return ({**beyond, "$lte": last[0]}, last[0]) if last else (beyond, None)
