"""Trends: one measurement of a patient over time, and the list of measurements. Queries and their results. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

import msgspec
from bson.decimal128 import Decimal128

from myhealth.common.stored_types import StoredMoment
from myhealth.reports.connection import restore_decimal
from myhealth.reports.documents import Document
from myhealth.reports.filters import NO_FILTER, PageCursor, ReportFilter, reports_query

TREND_LIMIT, TREND_LIMIT_MAX = 1000, 5000  # reports of one trend


@dataclass(frozen=True)
class TrendQuery:
    """Which measurement: a LOINC code, or a name if there is no code. `coded`: include results of that name that have
    a code. `since`, `until`: as ReportFilter has them. `after`: only reports behind this position."""

    code: str | None = None
    name: str | None = None
    coded: bool = True
    since: datetime | None = None
    until: datetime | None = None
    after: PageCursor | None = None

    @property
    def key(self) -> tuple[str, str | None]:
        """The field of a result that names the measurement, and its value."""
        return ("name", self.name) if self.code is None else ("code", self.code)


class TrendPoint(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One result of one report, as it was measured: a value may be text, and units may differ between points.

    Fields of results are of any type, because another program may have stored them. A Struct, because a trend has a
    thousand of them.
    """

    report_id: int
    taken_at: StoredMoment
    name: Any
    value: Any
    unit: Any
    low: Any
    high: Any
    flag: Any
    # Added by the catalogue of common tests: the source of the range, or a warning of an impossible value.
    range_source: Any = None
    warning: Any = None
    range_text: Any = None  # a range in words, as the machine sent it
    code: Any = None  # only in answers to a name, which several codes may share


@dataclass(frozen=True, slots=True)
class Measurement:
    """A measurement that a patient has at least one result of.

    `code` (LOINC) or None; `name`: the newest; `units`: all of them; the number of results, the first and last moment.
    """

    code: str | None
    name: str | None
    units: tuple[str, ...]
    count: int
    first_at: StoredMoment
    last_at: StoredMoment


MEASUREMENT_COLUMNS = tuple(field.name for field in fields(Measurement))


@dataclass(frozen=True, slots=True)
class FilterChoices:
    """The values that occur in a patient's reports, for a filter form to offer."""

    types: tuple[str, ...]
    diseases: tuple[str, ...]
    machines: tuple[str, ...]
    takers: tuple[str, ...]


CHOICE_FIELDS = ("checkup_type", "disease", "machine", "taken_by")


def trend_query(patient: Document, wanted: TrendQuery) -> Document:
    """Return the query for the reports that have a result of the measurement.

    Results whose field is a list are left out here: such a report would count for the page's limit without giving a
    point, and the page would look like the last one.
    """
    field, sought = wanted.key
    uncoded = {} if wanted.coded or field == "code" else {"code": {"$eq": None, "$not": {"$type": "array"}}}
    query = reports_query(patient, ReportFilter(since=wanted.since, until=wanted.until), after=wanted.after)
    query["results"] = {"$elemMatch": {field: {"$eq": sought, "$not": {"$type": "array"}}, **uncoded}}
    return query


def trend_projection(wanted: TrendQuery) -> Document:
    """Return the projection to the moment and the results of the measurement: laboratory reports have twenty others.

    `$literal` keeps a client's value from being read as a field's name.
    """
    field, sought = wanted.key
    matching = {"$filter": {"input": "$results", "cond": {"$eq": [f"$$this.{field}", {"$literal": sought}]}}}
    return {"taken_at": 1, "results": {"$cond": [{"$isArray": "$results"}, matching, []]}}


def trend_points(reports: Iterable[Document], wanted: TrendQuery) -> list[TrendPoint]:
    """Return the points of reports that were read with READ_CODEC.

    One loop without function calls: it runs for a thousand results and more.
    """
    points: list[TrendPoint] = []
    field, sought = wanted.key
    any_code, by_code = wanted.coded or field == "code", field == "code"
    for report in reports:
        results = report["results"]
        for result in results if type(results) is list else ():
            if type(result) is not dict:
                continue
            get = result.get
            if get(field) == sought and (any_code or get("code") is None):
                value, low, high = get("value"), get("low"), get("high")
                if Decimal128 in (type(value), type(low), type(high)):
                    value, low, high = restore_decimal(value), restore_decimal(low), restore_decimal(high)
                rest = get("unit"), low, high, get("flag"), get("range_source"), get("warning"), get("range_text")
                code = None if by_code else get("code")
                points.append(TrendPoint(report["_id"], report["taken_at"], get("name"), value, *rest, code))
    return points


def readable_results(report: Document) -> list[Document]:
    """Return the results that are objects. Programs that write to PostgreSQL directly may have stored other values."""
    results = report["results"]
    return [result for result in results if isinstance(result, dict)] if isinstance(results, list) else []


def measurements_pipeline(patient: Document) -> list[Document]:
    """Return the aggregation of all results by code; results without a code are grouped by name."""
    uncoded_name = {"$cond": [{"$eq": [{"$ifNull": ["$results.code", None]}, None]}, "$results.name", None]}
    return [
        {"$match": reports_query(patient, NO_FILTER)},
        {"$project": {"taken_at": 1, "results.code": 1, "results.name": 1, "results.unit": 1}},
        {"$unwind": "$results"},
        {
            "$group": {
                "_id": {"code": {"$ifNull": ["$results.code", None]}, "name": uncoded_name},
                "name": {"$top": {"sortBy": {"taken_at": -1, "_id": -1}, "output": "$results.name"}},
                "units": {"$addToSet": "$results.unit"},
                "count": {"$sum": 1},
                "first_at": {"$min": "$taken_at"},
                "last_at": {"$max": "$taken_at"},
            }
        },
    ]


def measurements(groups: Iterable[Document]) -> list[Measurement]:
    """Return the groups of `measurements_pipeline`, sorted by name, without those that have neither code nor name."""
    found = [_measurement(group) for group in groups]
    named = (each for each in found if each.code is not None or each.name is not None)
    return sorted(named, key=lambda each: (each.name or "", each.code or ""))


def _measurement(group: Document) -> Measurement:
    name = group["name"] if isinstance(group["name"], str) else None
    code = group["_id"].get("code")
    units = tuple(sorted(unit for unit in group["units"] if isinstance(unit, str)))
    return Measurement(
        code if isinstance(code, str) else None, name, units, group["count"], group["first_at"], group["last_at"]
    )


def choices_pipeline(patient: Document) -> list[Document]:
    """Return the aggregation of all values of the fields that a form offers."""
    group: Document = {"_id": None, **{name: {"$addToSet": f"${name}"} for name in CHOICE_FIELDS}}
    return [{"$match": reports_query(patient, NO_FILTER)}, {"$group": group}]


def filter_choices(groups: Iterable[Document]) -> FilterChoices:
    """Return the one group of `choices_pipeline`; empty without reports."""
    sets: Document = next(iter(groups), dict.fromkeys(CHOICE_FIELDS, ()))
    found = (tuple(sorted(text for text in sets[name] if isinstance(text, str) and text)) for name in CHOICE_FIELDS)
    return FilterChoices(*found)
