"""The stored form of a trend (its points by report, as MessagePack), and the pages made of it. Pure."""

import zlib
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec
from bson.int64 import Int64

from myhealth.reports.documents import Document
from myhealth.reports.filters import PageCursor
from myhealth.reports.trends import EARLIEST, TrendPage, TrendPoint, TrendQuery, trend_points


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


def unpack(content: bytes) -> KeptTrend:
    """Return a kept trend."""
    return _decoder.decode(content)


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
