"""Kept trends: one measurement of a patient with a long history, in one document beside the reports.

MongoDB and the driver take longer to read a thousand reports than the rest of an answer takes. So the first request for
such a trend stores it here. It is a copy of reports, and no one is shown an outdated one:

- Before reports change, the kept trends of their patients are deleted. Reports change only within a pass.
- A trend is kept only if no pass ran from before its reports were read until it was kept: the checkpoint is read before
  and after, and a pass that begins in between deletes the document that waits for the content.
- A trend counts only while the checkpoint has its generation. An older program that writes the report store knows of no
  trends and leaves no generation; a new epoch and an erasure begin another one.

Its content is the points by report, as MessagePack. `myhealth verify` compares each with its reports.
"""

import contextlib
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec
import pymongo
from bson.int64 import Int64
from msgspec.structs import replace
from pymongo import IndexModel
from pymongo.collection import Collection
from pymongo.errors import OperationFailure
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from myhealth.common.errors import MyHealthError, SettingsError
from myhealth.reports.connection import READ_CODEC, translate_mongo_errors
from myhealth.reports.documents import CHECKPOINT, Document
from myhealth.reports.filters import PageCursor
from myhealth.reports.trends import EARLIEST, TrendPage, TrendPoint, TrendQuery, trend_points

KEPT_FROM = 200  # reports with the measurement; fewer are read as quickly
KEPT_MAX = 5_000
KEEP_S = 2.0
NO_SYNC: Document = {"finished": True, "trends": ""}  # in place of the checkpoint before the first pass
KEPT_MAX_BYTES = 4 * 1024 * 1024
# Returns at most this many reports with a measurement.
ReadReports = Callable[[Document, TrendQuery, int], list[Document]]


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
        found, checkpoint = None, None
        with contextlib.suppress(SettingsError), translate_mongo_errors():  # a role of before trends were kept
            found = self.collection.find_one({"_id": key_of(patient, wanted), "content": {"$exists": True}})
            checkpoint = self._read_state.find_one(CHECKPOINT, {"trends": 1}) if found else None
        if found is None or found["generation"] != (checkpoint or NO_SYNC).get("trends"):
            return None
        return page_of(_decoder.decode(found["content"]), wanted, limit)

    def keep(self, patient: Document, wanted: TrendQuery) -> None:
        """Keep a trend unless a pass of the sync is at work. A store that refuses it or hangs is no error, and
        only the primary must confirm the write, because the trend can be computed anew."""
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


class ReportPoints(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The points of one report, and its position among the reports."""

    taken_at: datetime
    report_id: int
    points: list[TrendPoint]


class KeptTrend(msgspec.Struct, array_like=True, frozen=True):
    """All reports with a measurement, the newest first. `in_order`: all points have the moments of their reports."""

    in_order: bool
    reports: list[ReportPoints]


# Another layout of the points makes other keys, so that no program reads what it does not know. Change the number when
# points of the same reports become other ones.
FORM = zlib.crc32(repr((1, TrendPoint.__struct_fields__)).encode())
DECIMAL = 1  # the code of a decimal among MessagePack's extensions


def key_of(patient: Document, wanted: TrendQuery) -> Document:
    """Return the `_id` of a patient's trend."""
    asked = {"code": wanted.code, "name": wanted.name, "coded": wanted.coded, "values": [*wanted.key[1]]}
    return {"patient_id": patient["_id"], "subject": patient["subject"], **asked, "form": FORM}


def question_of(key: Document) -> tuple[Document, TrendQuery]:
    """Return the patient and the question of a key."""
    patient = {"_id": key["patient_id"], "subject": key["subject"]}
    return patient, TrendQuery(key["code"], key["name"], key["coded"])


def pack(reports: Sequence[Document], wanted: TrendQuery) -> bytes | None:
    """Return the trend of these reports; None if it has a value of a type that only another program can have stored."""
    kept = [
        ReportPoints(each["taken_at"], each["_id"], [_packed(point) for point in trend_points([each], wanted)])
        for each in reports
    ]
    in_order = all(point.taken_at == report.taken_at for report in kept for point in report.points)
    try:
        return msgspec.msgpack.encode(KeptTrend(in_order, kept))
    except (TypeError, ValueError, OverflowError):
        return None


def page_of(kept: KeptTrend, wanted: TrendQuery, limit: int) -> TrendPage:
    """Return the page that reading the reports would give."""
    reports = kept.reports
    if wanted.since is not None:
        since = _stored_moment(wanted.since)
        reports = [each for each in reports if each.taken_at >= since]
    if wanted.until is not None:
        until = _stored_moment(wanted.until)
        reports = [each for each in reports if each.taken_at < until]
    if wanted.after is not None:
        behind = _stored_moment(wanted.after.taken_at), wanted.after.report_id
        reports = [each for each in reports if (each.taken_at, each.report_id) < behind]
    points = [point for each in reports[:limit] for point in each.points]
    if not kept.in_order:
        points.sort(key=lambda point: point.taken_at or EARLIEST, reverse=True)
    last = reports[limit - 1] if len(reports) > limit else None
    return TrendPage(points, PageCursor(last.taken_at, last.report_id) if last else None)


def _stored_moment(moment: datetime) -> datetime:
    """Cut a moment to the millisecond, as MongoDB does."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def _packed(point: TrendPoint) -> TrendPoint:
    return TrendPoint(*(_storable(each) for each in msgspec.structs.astuple(point)))


def _storable(value: Any) -> Any:
    """Return a value in types that MessagePack keeps exactly, at any depth; a decimal becomes an extension."""
    kind = type(value)
    if kind is Decimal:
        return msgspec.msgpack.Ext(DECIMAL, str(value).encode())
    if kind is Int64:
        return int(value)
    if kind is datetime and value.tzinfo is not UTC:  # a result's own: MessagePack's moments have no offset
        return value.isoformat()
    if kind is list:
        return [_storable(each) for each in value]
    return {name: _storable(each) for name, each in value.items()} if kind is dict else value


def _extension(code: int, content: memoryview) -> Decimal:
    if code != DECIMAL:
        raise InvalidOperation
    return Decimal(bytes(content).decode())


_decoder = msgspec.msgpack.Decoder(KeptTrend, ext_hook=_extension)
