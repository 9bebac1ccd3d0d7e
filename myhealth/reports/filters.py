"""Filters, sort orders and keyset cursors of report lists, and the MongoDB queries that they become. Pure.

A query names the patient by (patient_id, subject): the id leads every index, and the subject guards against an id that
was handed out again. Values that a client sends are only ever compared with, never part of a query's structure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from enum import Enum
from typing import Any, Final, Literal, NamedTuple

from msgspec import Struct

from myhealth.common.decoding import INT_MAX
from myhealth.common.errors import BadInput
from myhealth.common.text import UNSTORABLE
from myhealth.reports.documents import Document

Sort = Literal["-taken_at", "taken_at"]
SORTS: tuple[Sort, ...] = ("-taken_at", "taken_at")
FILTER_TEXT_MAX = 200  # characters
SEARCHED = ("checkup_report", "checkup_type", "disease", "results.name", "details.notes.text", "results.notes.text")
# Date and time, seconds, fraction, zone, offset. Source: RFC 3339, 5.6.
MOMENT_PATTERN = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2})(:[0-9]{2})(\.[0-9]+)?([Zz]|([+-][0-9]{2}:[0-9]{2}))", re.ASCII
)


class AllPatients(Enum):
    """The type of ALL_PATIENTS. A missing patient (None) must never mean every patient, so it is a type of its own."""

    ALL_PATIENTS = "all patients"


ALL_PATIENTS: Final = AllPatients.ALL_PATIENTS
Owner = Document | Literal[AllPatients.ALL_PATIENTS]


def check_filter_text(name: str, text: str) -> None:
    """Raise BadInput unless the text is short Unicode without NUL. `name`: the parameter, for the message."""
    if len(text) > FILTER_TEXT_MAX or UNSTORABLE.search(text):
        raise BadInput(f"{name} must be text of at most {FILTER_TEXT_MAX} characters, without NUL.")


class ReportFilter(Struct, frozen=True):
    """Conditions on a report; None is no condition.

    `type`, `disease`, `machine` (serial), `taken_by`: equal to. `since`: taken at or after; `until`: taken before.
    `code`: has a result of the test with this LOINC code. `text`: is part of its text, of a note or of a result's name,
    in any case.

    Raises BadInput naming a text that is too long, holds NUL or is not Unicode.
    """

    type: str | None = None
    disease: str | None = None
    machine: str | None = None
    taken_by: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    abnormal: bool | None = None
    code: str | None = None
    text: str | None = None

    def __post_init__(self) -> None:
        for name in ("type", "disease", "machine", "taken_by", "code", "text"):
            if text := getattr(self, name):
                check_filter_text(name, text)


NO_FILTER = ReportFilter()


class PageCursor(Struct, frozen=True):
    """The position behind the report with this moment and id: the next page begins there."""

    taken_at: datetime
    report_id: int

    @classmethod
    def of(cls, report: Mapping[str, Any]) -> PageCursor:
        """Return the position of a report; `_id` as in the store, or `id` as in answers."""
        return cls(report["taken_at"], report["_id"] if "_id" in report else report["id"])


class OwnReports(NamedTuple):
    """The query for some of a user's own reports, without the user; at most `limit` of them, in this order."""

    query: Document
    sort: list[tuple[str, int]]
    limit: int


def own_reports(
    wanted: ReportFilter = NO_FILTER, *, limit: int, sort: Sort = "-taken_at", after: PageCursor | None = None
) -> OwnReports:
    """Return the query for a page of a user's own reports, with the arguments of `ReportRepository.find`."""
    return OwnReports(reports_query(ALL_PATIENTS, wanted, sort=sort, after=after), sort_keys(sort), limit)


def own_report(report_id: int) -> OwnReports | None:
    """Return the query for one report, should it be the user's own; None if no report has this number."""
    return OwnReports({"_id": report_id}, [("_id", 1)], 1) if 0 <= report_id <= INT_MAX else None


def parse_moment(name: str, text: str) -> datetime:
    """Parse a moment (RFC 3339 with its zone), or a day (UTC): its start, or for `to` its end.

    Moments outside the years 1 to 9999 become the first or the last one. Raises BadInput with the parameter's name.
    """
    try:
        if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text, re.ASCII):
            day = datetime.combine(date.fromisoformat(text), time(), UTC)
            return _shifted(day, timedelta(days=name == "to"))
        # An unescaped + before the offset arrives as a space.
        match = MOMENT_PATTERN.fullmatch(re.sub(r" (?=[0-9]{2}:[0-9]{2}$)", "+", text))
        if match is None:
            raise ValueError(text)
        leap = match[2] == ":60"  # a leap second becomes the second after it
        moment = datetime.fromisoformat(f"{match[1].upper()}{':59' if leap else match[2]}{match[3] or ''}")
        shift = timedelta(hours=int(match[5][1:3]), minutes=int(match[5][4:])) if match[5] else timedelta()
        offset = shift if (match[5] or "").startswith("-") else -shift
        return _shifted(moment.replace(tzinfo=UTC), offset + timedelta(seconds=leap))
    except (ValueError, OverflowError) as error:
        raise BadInput(f"{name} must be a day (2026-11-20) or a moment with its zone (RFC 3339).") from error


def _shifted(moment: datetime, by: timedelta) -> datetime:
    """Add, and clamp to the years 1 to 9999."""
    try:
        return moment + by
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC) if by > timedelta() else datetime.min.replace(tzinfo=UTC)


def sort_keys(sort: Sort) -> list[tuple[str, int]]:
    """Return the order for MongoDB: by moment, then by id."""
    direction = -1 if sort == "-taken_at" else 1
    return [("taken_at", direction), ("_id", direction)]


def reports_query(
    owner: Owner, wanted: ReportFilter = NO_FILTER, *, sort: Sort = "-taken_at", after: PageCursor | None = None
) -> Document:
    """Return the query for one page of a patient's reports.

    The cursor bounds `taken_at` itself, so that the index scan starts there: page 200 costs no more than page 1. The
    `$nor` only separates reports of the same moment; with an `$or`, MongoDB may sort two scans in memory.
    """
    taken: Document = {}
    query: Document = {} if owner is ALL_PATIENTS else {"patient_id": owner["_id"], "subject": owner["subject"]}
    if wanted.since is not None:
        taken["$gte"] = wanted.since
    if wanted.until is not None:
        taken["$lt"] = wanted.until
    if after is not None:
        bound, pick, shown = ("$lte", min, "$gte") if sort == "-taken_at" else ("$gte", max, "$lte")
        taken[bound] = pick(after.taken_at, taken.get(bound, after.taken_at))
        query["$nor"] = [{"taken_at": after.taken_at, "_id": {shown: after.report_id}}]
    if taken:
        query["taken_at"] = taken
    for name, value in (
        ("checkup_type", wanted.type),
        ("disease", wanted.disease),
        ("machine", wanted.machine),
        ("taken_by", wanted.taken_by),
        ("abnormal", wanted.abnormal),
    ):
        if value is not None:
            query[name] = {"$eq": value}
    if wanted.code is not None:
        from myhealth.clinical.catalog import codes_of  # the sync, which loads this module, needs no catalogue

        query["results.code"] = {"$in": [*codes_of(wanted.code)]}
    if wanted.text is not None:
        contains = {"$regex": re.escape(wanted.text), "$options": "i"}  # literally, in any case
        query["$and"] = [{"$or": [{name: contains} for name in SEARCHED]}]
    return query
