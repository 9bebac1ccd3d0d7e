"""What browsing asks of the report store: a patient's reports, filtered, sorted, in keyset pages.

Every function takes the patient as `users` has him or her, and asks by (patient_id, subject): the id leads every
index, and the subject makes sure that it is still the same person's. A value that somebody sends is only ever compared
with, never part of a query's structure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Literal

from myhealth.common.errors import BadInput
from myhealth.reports.documents import Document
from myhealth.reports.repository import ReportRepository, restore_decimals, translate_mongo_errors

Sort = Literal["-taken_at", "taken_at"]
SORTS: tuple[Sort, ...] = ("-taken_at", "taken_at")
LIMIT_MAX = 500
TEXT_MAX = 200  # characters of a filter's value
ID_MAX = 2**63 - 1
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_MS, LAST_MS = -62_135_596_800_000, 253_402_300_799_999  # of the years 1 to 9999
WORDS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
# Date and time, seconds, fraction, zone, offset. Source: RFC 3339, 5.6.
MOMENT = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2})(:[0-9]{2})(\.[0-9]+)?([Zz]|([+-][0-9]{2}:[0-9]{2}))", re.ASCII
)


@dataclass(frozen=True)
class ReportFilter:
    """What a report must be like; None: whatever it is.

    `type`, `disease`, `machine` (serial), `taken_by`: equal to. `since` and `until`: taken at or after, and before.
    `code`: has a result of this LOINC code. `text`: stands somewhere in its words, case aside.
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


NO_FILTER = ReportFilter()
# Parameter of an address: the filter's field.
PARAMETERS = {"from": "since", "to": "until"} | {
    field.name: field.name for field in fields(ReportFilter) if field.name not in ("since", "until")
}


@dataclass(frozen=True)
class PageCursor:
    """Where a page begins: behind the report with this moment and id. As text: milliseconds since 1970, _, the id."""

    taken_at: datetime
    report_id: int

    @classmethod
    def of(cls, report: Mapping[str, Any]) -> PageCursor:
        """Where a report stands; `_id` as the store has it, or `id` as answers do."""
        return cls(report["taken_at"], report["_id"] if "_id" in report else report["id"])

    @classmethod
    def parse(cls, text: str) -> PageCursor | None:
        """None for "". Raises BadInput."""
        if not text:
            return None
        match = re.fullmatch(r"(-?[0-9]{1,15})_([0-9]{1,19})", text, re.ASCII)
        if match is None:
            raise BadInput("after must be the value that a Link header gave.")
        # A moment beyond these years is one that no report has; the first or the last one there is says the same.
        milliseconds = min(max(int(match[1]), FIRST_MS), LAST_MS)
        return cls(EPOCH + timedelta(milliseconds=milliseconds), min(int(match[2]), ID_MAX))

    def __str__(self) -> str:
        moment = (self.taken_at - EPOCH) // timedelta(milliseconds=1)
        return f"{moment}_{self.report_id}"


def read_filter(values: Mapping[str, str]) -> ReportFilter:
    """The filter that an address, a form or options ask for, by the names in PARAMETERS; what is empty asks nothing.

    `from` and `to`: RFC 3339 with a zone, or days (UTC), of which `to` is the last one. Raises BadInput naming it.
    """
    found: dict[str, Any] = {}
    for name, field in PARAMETERS.items():
        text = values.get(name) or ""
        if not text:
            continue
        if len(text) > TEXT_MAX or "\0" in text or not is_unicode(text):
            raise BadInput(f"{name} must be text of at most {TEXT_MAX} characters, without NUL.")
        found[field] = _read_value(name, text)
    return ReportFilter(**found)


def is_unicode(text: str) -> bool:
    """Whether it has no half characters, which no document can hold."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _read_value(name: str, text: str) -> Any:
    if name in ("from", "to"):
        return read_moment(name, text)
    if name == "abnormal":
        if text.lower() not in WORDS:
            raise BadInput("abnormal must be true or false.")
        return WORDS[text.lower()]
    return text


def read_moment(name: str, text: str) -> datetime:
    """A moment, or the beginning of a day; for `to` its end. Raises BadInput naming it."""
    try:
        if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text, re.ASCII):
            day = datetime.combine(date.fromisoformat(text), time(), UTC)
            return _moved(day, timedelta(days=name == "to"))
        # A + of a zone that nobody has escaped arrives as a blank.
        match = MOMENT.fullmatch(re.sub(r" (?=[0-9]{2}:[0-9]{2}$)", "+", text))
        if match is None:
            raise ValueError(text)
        leap = match[2] == ":60"  # the first second after it
        moment = datetime.fromisoformat(f"{match[1].upper()}{':59' if leap else match[2]}{match[3] or ''}")
        shift = timedelta(hours=int(match[5][1:3]), minutes=int(match[5][4:])) if match[5] else timedelta()
        offset = shift if (match[5] or "").startswith("-") else -shift
        return _moved(moment.replace(tzinfo=UTC), offset + timedelta(seconds=leap))
    except (ValueError, OverflowError) as error:
        raise BadInput(f"{name} must be a day (2026-11-20) or a moment with its zone (RFC 3339).") from error


def _moved(moment: datetime, by: timedelta) -> datetime:
    """What lies beyond the years that there are is the first or the last moment of them."""
    try:
        return moment + by
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC) if by > timedelta() else datetime.min.replace(tzinfo=UTC)


def read_sort(text: str) -> Sort:
    """`-taken_at`, the newest first, where nothing is asked. Raises BadInput."""
    for sort in SORTS:
        if text in (sort, ""):
            return sort
    raise BadInput(f"sort must be one of {', '.join(SORTS)}.")


def list_reports(
    store: ReportRepository,
    patient: Document,
    wanted: ReportFilter = NO_FILTER,
    *,
    sort: Sort = "-taken_at",
    limit: int = 50,
    after: PageCursor | None = None,
) -> list[Document]:
    """At most `limit` of a patient's reports, those behind `after`. A page stays what it is while reports arrive.

    Ask for one more than a page shows to learn whether there is another page. Raises Unavailable.
    """
    query = reports_query(patient, wanted, sort=sort, after=after)
    with translate_mongo_errors():
        found = store.quick_reports.find(query, sort=order(sort), limit=limit, batch_size=limit + 1).to_list()
    return [restore_decimals(report) for report in found]


def iterate_reports(
    store: ReportRepository, patient: Document, wanted: ReportFilter = NO_FILTER, *, sort: Sort = "-taken_at"
) -> Iterator[Document]:
    """All of them, in bounded memory. Raises Unavailable."""
    with translate_mongo_errors():
        yield from map(
            restore_decimals, store.quick_reports.find(reports_query(patient, wanted, sort=sort), sort=order(sort))
        )


def order(sort: Sort) -> list[tuple[str, int]]:
    direction = -1 if sort == "-taken_at" else 1
    return [("taken_at", direction), ("_id", direction)]


def reports_query(
    patient: Document, wanted: ReportFilter, *, sort: Sort = "-taken_at", after: PageCursor | None = None
) -> Document:
    """The query of a page. Its place bounds taken_at itself, so that the index begins there: the two hundredth page
    costs what the first does; the `$or` only parts reports of the same moment."""
    taken: Document = {}
    query: Document = {"patient_id": patient["_id"], "subject": patient["subject"]}
    if wanted.since is not None:
        taken["$gte"] = wanted.since
    if wanted.until is not None:
        taken["$lt"] = wanted.until
    if after is not None:
        beyond, bound, pick = ("$lt", "$lte", min) if sort == "-taken_at" else ("$gt", "$gte", max)
        taken[bound] = pick(after.taken_at, taken.get(bound, after.taken_at))
        query["$or"] = [{"taken_at": {beyond: after.taken_at}}, {"_id": {beyond: after.report_id}}]
    if taken:
        query["taken_at"] = taken
    for name, value in (
        ("checkup_type", wanted.type),
        ("disease", wanted.disease),
        ("machine", wanted.machine),
        ("taken_by", wanted.taken_by),
        ("abnormal", wanted.abnormal),
        ("results.code", wanted.code),
    ):
        if value is not None:
            query[name] = {"$eq": value}
    if wanted.text is not None:
        query["$and"] = [_mentions(wanted.text)]
    return query


def _mentions(text: str) -> Document:
    """Matches reports in whose words the text stands; nothing in it is a pattern."""
    pattern = {"$regex": re.escape(text), "$options": "i"}
    return {"$or": [{name: pattern} for name in ("checkup_report", "checkup_type", "disease", "results.name")]}


def find_report(store: ReportRepository, report_id: int) -> tuple[Document, Document] | None:
    """A report and its patient, or None. Whoever asks must still be allowed to see it; and for a report that is not
    there the store is asked as often, so that the time it takes does not tell. Raises Unavailable."""
    if not 0 <= report_id <= ID_MAX:
        return None
    report = store.report(report_id)
    patient = store.user_of(report["subject"] if report else "")
    if report is None or patient is None or patient["_id"] != report["patient_id"]:
        return None
    return report, patient
