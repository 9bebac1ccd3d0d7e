"""Kept trends: one measurement of a patient with a long history, in one document beside the reports.

MongoDB and the driver take longer to read a thousand reports than the rest of an answer takes. So the first request for
such a trend stores it here. It is a copy of reports, and no one is shown an outdated one:

- Before reports change, the kept trends of their patients are deleted. Reports change only within a pass.
- A trend is kept only if no pass ran from before its reports were read until it was kept: the checkpoint is read before
  and after, and a pass that begins in between deletes the document that waits for the content.
- A trend counts only while the checkpoint has its generation. An older program that writes the report store knows of no
  trends and leaves no generation; a new epoch and an erasure begin another one.

`myhealth verify` compares each with its reports.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import pymongo
from msgspec.structs import replace
from pymongo import IndexModel
from pymongo.collection import Collection
from pymongo.errors import OperationFailure
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from myhealth.common.errors import MyHealthError, SettingsError
from myhealth.reports.connection import READ_CODEC, translate_mongo_errors
from myhealth.reports.documents import CHECKPOINT, Document

if TYPE_CHECKING:
    from myhealth.reports.trends import TrendPage, TrendQuery

KEPT_FROM = 200  # reports with the measurement; fewer are read as quickly
KEPT_MAX = 5_000
KEEP_S = 2.0
NO_SYNC: Document = {"finished": True, "trends": ""}  # in place of the checkpoint before the first pass
KEPT_MAX_BYTES = 4 * 1024 * 1024
# Returns at most this many reports with a measurement.
ReadReports = Callable[[Document, "TrendQuery", int], list[Document]]


class KeptTrends:
    """The collection of kept trends. `state`: the collection of the checkpoint. `read`: how reports are read."""

    def __init__(self, collection: Collection[Document], state: Collection[Document], read: ReadReports) -> None:
        self.collection = collection.with_options(codec_options=READ_CODEC)
        self._primary = self.collection.with_options(read_preference=ReadPreference.PRIMARY)
        self._state, self._read_state = state, state.with_options(read_preference=collection.read_preference)
        self._read = read

    # -- for readers --------------------------------------------------------------------------------------------

    def find(self, patient: Document, wanted: TrendQuery, limit: int) -> TrendPage | None:
        """Return a page of a kept trend, None if it is not kept."""
        from myhealth.reports.trend_pages import key_of, page_of, unpack

        found, checkpoint = None, None
        with contextlib.suppress(SettingsError), translate_mongo_errors():  # a role of before trends were kept
            found = self.collection.find_one({"_id": key_of(patient, wanted), "content": {"$exists": True}})
            checkpoint = self._read_state.find_one(CHECKPOINT, {"trends": 1}) if found else None
        if found is None or found["generation"] != (checkpoint or NO_SYNC).get("trends"):
            return None
        return page_of(unpack(found["content"]), wanted, limit)

    def keep(self, patient: Document, wanted: TrendQuery) -> None:
        """Keep a trend unless a pass of the sync is at work. A store that refuses it or hangs is no error, and
        only the primary must confirm the write, because the trend can be computed anew."""
        from myhealth.reports.trend_pages import key_of

        kept = self.collection.with_options(write_concern=WriteConcern(w=1))
        with contextlib.suppress(MyHealthError, OperationFailure), translate_mongo_errors(), pymongo.timeout(KEEP_S):
            begun = self._steady()
            content = self._content(patient, wanted) if begun else None
            if not begun or content is None:
                return
            key, token = {"_id": key_of(patient, wanted)}, uuid.uuid4().hex
            empty = {"patient_id": patient["_id"], "generation": begun["trends"], "token": token}
            kept.replace_one(key, empty, upsert=True)
            if self._steady() == begun:
                kept.update_one({**key, "token": token}, {"$set": {"content": content}})

    def differing(self) -> Iterator[Document]:
        """Yield the kept trends that differ from their reports, as their keys."""
        from myhealth.reports.trend_pages import FORM, question_of

        with translate_mongo_errors():
            generation = (self._state.find_one(CHECKPOINT) or NO_SYNC).get("trends")
            if generation is None:
                return  # nobody keeps any
            shown = {"generation": generation, "_id.form": FORM, "content": {"$exists": True}}
            for key in [each["_id"] for each in self._primary.find(shown, {"_id": 1})]:
                kept = self._primary.find_one({**shown, "_id": key})
                if kept is None or kept["content"] == self._content(*question_of(key)):
                    continue
                # Its reports were read after it. If it is still there, nobody has changed them meanwhile.
                if self._primary.find_one({"_id": key, "token": kept["token"]}, {"_id": 1}):
                    yield key

    def _content(self, patient: Document, wanted: TrendQuery) -> bytes | None:
        from myhealth.reports.trend_pages import pack

        everything = replace(wanted, since=None, until=None, after=None)
        reports = self._read(patient, everything, KEPT_MAX + 1)
        content = pack(reports, everything) if KEPT_FROM <= len(reports) <= KEPT_MAX else None
        return content if content and len(content) <= KEPT_MAX_BYTES else None

    def _steady(self) -> Document | None:
        """Return the checkpoint's pass and generation if that pass has finished and trends may be kept."""
        found = self._state.find_one(CHECKPOINT, {"run": 1, "trends": 1, "finished": 1}) or NO_SYNC
        return found if found.get("finished") and "trends" in found else None

    # -- for writers --------------------------------------------------------------------------------------------

    def is_empty(self) -> bool:
        """Return whether no trend is kept, or being made; also if our role may not see them, for then nobody may keep
        one (`begin_generation`)."""
        with contextlib.suppress(SettingsError), translate_mongo_errors():
            return self._primary.find_one({}, {"_id": 1}) is None
        return True

    def may_forget(self) -> bool:
        """Return whether our role may delete trends. A role of an earlier version of MyHealth may not."""
        with contextlib.suppress(SettingsError):
            self.forget(())
            return True
        return False

    def forget(self, patients: Iterable[int]) -> None:
        """Delete the trends of these patients, before their reports change."""
        with translate_mongo_errors():
            self.collection.delete_many({"patient_id": {"$in": [*patients]}})

    def remove(self, keys: Sequence[Document]) -> None:
        """Delete the trends with these keys."""
        with translate_mongo_errors():
            self.collection.delete_many({"_id": {"$in": [*keys]}})

    def begin_generation(self) -> None:
        """Delete all trends. Those that are being made now will not count. If our role may not delete trends, the
        checkpoint gets no generation, so nobody keeps any."""
        with translate_mongo_errors():
            self._state.update_one(CHECKPOINT, {"$unset": {"trends": 1}})
        with contextlib.suppress(SettingsError), translate_mongo_errors():
            self.collection.create_indexes([IndexModel([("patient_id", 1)])])
            self.collection.delete_many({})
            self._state.update_one(CHECKPOINT, {"$set": {"trends": uuid.uuid4().hex}})
