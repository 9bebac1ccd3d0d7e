"""What was measured of a patient, and how it went over time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import msgspec
from bson.decimal128 import Decimal128

from myhealth.clinical.ranges import Number
from myhealth.reports.documents import Document
from myhealth.reports.filters import NO_FILTER, PageCursor, ReportFilter, order, reports_query
from myhealth.reports.repository import ReportRepository, decimal_of, translate_mongo_errors

POINTS_MAX = 5000


class Point(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One result: of which report and when, as it was measured. A value may be text; units may differ. (A Struct, for
    a trend makes a thousand of them.)"""

    report_id: int
    taken_at: datetime
    name: str | None
    value: Any
    unit: str | None
    low: Number | None
    high: Number | None
    flag: str | None
    # What the catalogue of usual tests added, where it did: the range, or that no living body has such a value.
    range_source: str | None = None
    warning: str | None = None
    range_text: str | None = None  # a range in words, where that is what came
    code: str | None = None  # where a name was asked for, which may be that of several codes


@dataclass(frozen=True, slots=True)
class Measurement:
    """What was measured of a patient at least once: `code` (LOINC) or None, the name it last had, the units it came in,
    how often, and when first and last."""

    code: str | None
    name: str | None
    units: tuple[str, ...]
    count: int
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True, slots=True)
class Known:
    """What a patient's reports have to be filtered by."""

    types: tuple[str, ...]
    diseases: tuple[str, ...]
    machines: tuple[str, ...]
    takers: tuple[str, ...]


def trend_points(
    store: ReportRepository,
    patient: Document,
    code: str | None = None,
    *,
    name: str | None = None,
    coded: bool = True,
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int = 1000,
    after: PageCursor | None = None,
) -> list[Point]:
    """The results of one measurement, the newest first: of a LOINC code; or without one, of a name.

    `coded`: of that name also those that have a code. `limit`: out of at most so many reports, those behind `after`.
    Raises Unavailable.
    """
    query = reports_query(patient, replace(NO_FILTER, since=since, until=until), after=after)
    query["results"] = {"$elemMatch": _has(code, name, coded)}
    with translate_mongo_errors():
        found = store.quick_reports.find(
            query, _only_results_of(code, name), sort=order("-taken_at"), limit=limit, batch_size=limit + 1
        )
        return _points_of(found.to_list(), code, name, coded)


def _has(code: str | None, name: str | None, coded: bool) -> Document:
    """What a result of the measurement is like. None that has a list there: a report that is found without a point
    would count for `limit`, and a page seem to be the last one."""
    field, sought = ("name", name) if code is None else ("code", code)
    uncoded = {} if coded or code is not None else {"code": {"$eq": None, "$not": {"$type": "array"}}}
    return {field: {"$eq": sought, "$not": {"$type": "array"}}, **uncoded}


def _only_results_of(code: str | None, name: str | None) -> Document:
    """Of each report its moment and the results that are asked for: a laboratory's have twenty others beside them. A
    value is never taken for the name of a field."""
    field, sought = ("name", name) if code is None else ("code", code)
    wanted = {"$filter": {"input": "$results", "cond": {"$eq": [f"$$this.{field}", {"$literal": sought}]}}}
    return {"taken_at": 1, "results": {"$cond": [{"$isArray": "$results"}, wanted, []]}}


def _points_of(reports: Iterable[Document], code: str | None, name: str | None, coded: bool) -> list[Point]:
    """One loop, and no function called in it: it runs for a thousand results and more."""
    points: list[Point] = []
    field, sought = ("name", name) if code is None else ("code", code)
    coded = coded or code is not None
    for report in reports:
        results = report["results"]
        for result in results if type(results) is list else ():
            if type(result) is not dict:
                continue
            get = result.get
            if get(field) == sought and (coded or get("code") is None):
                value, low, high = get("value"), get("low"), get("high")
                if Decimal128 in (type(value), type(low), type(high)):
                    value, low, high = decimal_of(value), decimal_of(low), decimal_of(high)
                said = get("unit"), low, high, get("flag"), get("range_source"), get("warning"), get("range_text")
                points.append(
                    Point(report["_id"], report["taken_at"], get("name"), value, *said, None if code else get("code"))
                )
    return points


def readable_results(report: Document) -> list[Document]:
    """A report's results that are any; programs that write to the source themselves may have stored others."""
    results = report["results"]
    return [result for result in results if isinstance(result, dict)] if isinstance(results, list) else []


def measured_codes(store: ReportRepository, patient: Document) -> list[Measurement]:
    """Everything that was measured, by name; a measurement without a code is known by its name. Raises Unavailable."""
    key = {"code": {"$ifNull": ["$results.code", None]}, "name": _where_uncoded("$results.name")}
    stages: list[Document] = [
        {"$match": reports_query(patient, ReportFilter())},
        {"$project": {"taken_at": 1, "results.code": 1, "results.name": 1, "results.unit": 1}},
        {"$unwind": "$results"},
        {
            "$group": {
                "_id": key,
                "name": {"$top": {"sortBy": {"taken_at": -1, "_id": -1}, "output": "$results.name"}},
                "units": {"$addToSet": "$results.unit"},
                "count": {"$sum": 1},
                "first_at": {"$min": "$taken_at"},
                "last_at": {"$max": "$taken_at"},
            }
        },
    ]
    with translate_mongo_errors():
        found = [_measurement(each) for each in store.reports.aggregate(stages)]
    kept = (each for each in found if each.code is not None or each.name is not None)
    return sorted(kept, key=lambda each: (each.name or "", each.code or ""))


def _where_uncoded(field: str) -> Document:
    return {"$cond": [{"$eq": [{"$ifNull": ["$results.code", None]}, None]}, field, None]}


def _measurement(group: Document) -> Measurement:
    name = group["name"] if isinstance(group["name"], str) else None
    code = group["_id"].get("code")
    units = tuple(sorted(unit for unit in group["units"] if isinstance(unit, str)))
    known = code if isinstance(code, str) else None
    return Measurement(known, name, units, group["count"], group["first_at"], group["last_at"])


def known_values(store: ReportRepository, patient: Document) -> Known:
    """The types, diseases, machines and takers that a patient's reports have, for a form to offer. Raises
    Unavailable."""
    names = ("checkup_type", "disease", "machine", "taken_by")
    group: Document = {"_id": None, **{name: {"$addToSet": f"${name}"} for name in names}}
    with translate_mongo_errors():
        found = list(store.reports.aggregate([{"$match": reports_query(patient, ReportFilter())}, {"$group": group}]))
    sets = found[0] if found else dict.fromkeys(names, ())
    return Known(*(tuple(sorted(text for text in sets[name] if isinstance(text, str) and text)) for name in names))
