"""Trends: one measurement of a patient over time, and the list of measurements. Queries and their results. Pure."""

from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from myhealth.common.decoding import StoredMoment
from myhealth.reports.connection import TO_RESTORE, restore_value
from myhealth.reports.documents import Document
from myhealth.reports.filters import NO_FILTER, PageCursor, ReportFilter, reports_query


class TrendQuery(Struct, frozen=True):
    """Which measurement: a LOINC code and those of the same test, or a name if there is no code. `coded`: include
    results of that name that have a code. `since`, `until`: as ReportFilter has them. `after`: only reports behind this
    position."""

    code: str | None = None
    name: str | None = None
    coded: bool = True
    since: datetime | None = None
    until: datetime | None = None
    after: PageCursor | None = None

    @property
    def key(self) -> tuple[str, tuple[str | None, ...]]:
        """The field of a result that names the measurement, and its values."""
        from myhealth.clinical.guide import codes_asked  # the sync, which loads this module, needs no catalogue

        return ("name", (self.name,)) if self.code is None else ("code", codes_asked(self.code))


class TrendPoint(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One result of one report, as it was measured: a value may be text, and units may differ between points.
    `taken_at`: the result's own moment, else the report's; None if it is not known.

    Fields of results are of any type, because another program may have stored them. A Struct, because a trend has a
    thousand of them.
    """

    report_id: int
    taken_at: StoredMoment | None
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
    code: Any = None  # where it is not the one that was asked for
    # The result's, else the report's; None is an instant, a final result, an unknown specimen.
    taken_precision: Any = None
    status: Any = None
    specimen: Any = None
    ranges: Any = None  # all reference ranges of the source


class TrendPage(NamedTuple):
    """The results of one measurement, the newest first, from a limited number of reports. `after`: the position behind
    the last of these reports; None on the last page."""

    points: list[TrendPoint]
    after: PageCursor | None


class Measurement(Struct, frozen=True):
    """A measurement that a patient has at least one result of.

    `code` (LOINC, the newest of the test's) or None; `name`: the newest; `units`: all of them; the number of results,
    the first and last moment of the reports, None if none is known.
    """

    code: str | None
    name: str | None
    units: tuple[str, ...]
    count: int
    first_at: StoredMoment | None
    last_at: StoredMoment | None


MEASUREMENT_COLUMNS = Measurement.__struct_fields__


UNKNOWN = "unknown"  # the precision of a moment that only sorts
EARLIEST = datetime.min.replace(tzinfo=UTC)
NOTHING: Document = {}
PLAIN_FIELDS = 3  # of a report with plain results in `trend_projection`
OWN = frozenset({"taken_at", "taken_precision", "status", "specimen", "ranges"})


def trend_query(patient: Document, wanted: TrendQuery) -> Document:
    """Return the query for the reports that have a result of the measurement.

    Results whose field is a list are left out here: such a report would count for the page's limit without giving a
    point, and the page would look like the last one.
    """
    field, sought = wanted.key
    uncoded = {} if wanted.coded or field == "code" else {"code": {"$eq": None, "$not": {"$type": "array"}}}
    query = reports_query(patient, ReportFilter(since=wanted.since, until=wanted.until), after=wanted.after)
    query["results"] = {"$elemMatch": {field: {"$in": [*sought], "$not": {"$type": "array"}}, **uncoded}}
    return query


def trend_projection(wanted: TrendQuery) -> Document:
    """Return the projection to the moment and the results of the measurement: laboratory reports have twenty others.

    `$literal` keeps a client's value from being read as a field's name.
    """
    field, sought = wanted.key
    matching = {"$filter": {"input": "$results", "cond": {"$in": [f"$$this.{field}", {"$literal": [*sought]}]}}}
    shared = {"taken_at": 1, "taken_precision": 1, "status": 1, "details.specimen": 1}
    return {**shared, "results": {"$cond": [{"$isArray": "$results"}, matching, []]}}


def trend_points(reports: Iterable[Document], wanted: TrendQuery) -> list[TrendPoint]:
    """Return the points of reports whose results were read with REPORT_CODEC.

    One loop with few function calls: it runs for a thousand results and more.
    """
    points: list[TrendPoint] = []
    field, sought = wanted.key
    any_code, asked, in_order = wanted.coded or field == "code", wanted.code, True
    for report in reports:
        results, shared = report["results"], shared_facts(report) if len(report) > PLAIN_FIELDS else NOTHING
        for result in results if type(results) is list else ():
            if type(result) is not dict:
                continue
            code = result.get("code")
            if (code if field == "code" else result.get(field)) in sought and (any_code or code is None):
                point = point_of(report, result, shared, None if code == asked else code)
                in_order = in_order and point.taken_at is report["taken_at"]
                points.append(point)
    if not in_order:
        points.sort(key=lambda point: point.taken_at or EARLIEST, reverse=True)
    return points


def point_of(report: Document, result: Document, shared: Document, code: Any) -> TrendPoint:
    """Return the point of a result. `shared`: the facts that its report states for all results; `code`: the point's
    code."""
    if not TO_RESTORE.isdisjoint(map(type, result.values())):
        result = restore_value(result)
    get = result.get
    taken_at, more = report["taken_at"], NOTHING
    if shared or not OWN.isdisjoint(result):
        taken_at, more = _own_facts(result, taken_at, shared)
    return TrendPoint(
        report["_id"],
        taken_at,
        get("name"),
        get("value"),
        get("unit"),
        get("low"),
        get("high"),
        get("flag"),
        get("range_source"),
        get("warning"),
        get("range_text"),
        code,
        **more,
    )


def split_series(points: Iterable[TrendPoint], code: str | None) -> list[tuple[str, list[TrendPoint]]]:
    """Return (kind of specimen, points) of each series, because values in different units or of different specimens
    are not comparable; the kind is "" if there is only blood. `code`: what was asked for."""
    from myhealth.clinical.series import BLOOD_KIND, series_key

    found: dict[tuple[str, str], list[TrendPoint]] = {}
    for (own_code, unit, specimen), same in groupby(points, key=attrgetter("code", "unit", "specimen")):
        key = series_key({"code": own_code or code, "unit": unit, "specimen": specimen})
        found.setdefault((key.unit, key.specimen), []).extend(same)
    kinds = {specimen for _, specimen in found}
    is_told = len(kinds) > 1 or kinds - {"", BLOOD_KIND}
    return [(specimen if is_told else "", same) for (_, specimen), same in found.items()]


def shared_facts(report: Document) -> Document:
    """Return the facts that a report states for all its results."""
    details = report.get("details")
    specimen = details.get("specimen") if isinstance(details, dict) else None
    found = {name: report.get(name) for name in ("taken_precision", "status")} | {"specimen": specimen}
    return {name: value for name, value in found.items() if value is not None}


def _own_facts(result: Document, taken_at: datetime, shared: Document) -> tuple[datetime | None, Document]:
    """Return the moment of a result, and its further fields of a TrendPoint."""
    more = shared | {name: result[name] for name in OWN if result.get(name) is not None}
    try:
        own = datetime.fromisoformat(more.pop("taken_at", ""))
        taken_at = own if own.tzinfo else taken_at
        more["taken_precision"] = result.get("taken_precision")
    except (TypeError, ValueError):
        pass  # it has none of its own
    return None if more.get("taken_precision") == UNKNOWN else taken_at, more


def readable_results(report: Document) -> list[Document]:
    """Return the results that are objects. Programs that write to PostgreSQL directly may have stored other values."""
    results = report.get("results")
    return [result for result in results if isinstance(result, dict)] if isinstance(results, list) else []


def measurements_pipeline(patient: Document) -> list[Document]:
    """Return the aggregation of all results by code; results without a code are grouped by name. `first_at` and
    `last_at` are of known moments."""
    uncoded_name = {"$cond": [{"$eq": [{"$ifNull": ["$results.code", None]}, None]}, "$results.name", None]}
    known_at = {"$cond": [{"$eq": ["$taken_precision", UNKNOWN]}, None, "$taken_at"]}
    return [
        {"$match": reports_query(patient, NO_FILTER)},
        {"$project": {"taken_at": known_at, "results.code": 1, "results.name": 1, "results.unit": 1}},
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
    """Return the groups of `measurements_pipeline` by name, those of one test as one, without those that have neither
    code nor name."""
    from myhealth.clinical.catalog import codes_of

    tests: dict[Any, list[Measurement]] = {}
    for each in map(_measurement, groups):
        if each.code is not None or each.name is not None:
            tests.setdefault((each.name,) if each.code is None else codes_of(each.code), []).append(each)
    return sorted(map(_join_measurements, tests.values()), key=lambda each: (each.name or "", each.code or ""))


def _join_measurements(same: list[Measurement]) -> Measurement:
    """Return the measurements of one test as one; its name and code are those of the newest."""
    newest = max(same, key=lambda each: (each.last_at or EARLIEST, each.code or ""))
    first, last = ([at for each in same if (at := getattr(each, name))] for name in ("first_at", "last_at"))
    return replace(
        newest,
        units=tuple(sorted({unit for each in same for unit in each.units})),
        count=sum(each.count for each in same),
        first_at=min(first, default=None),
        last_at=max(last, default=None),
    )


def _measurement(group: Document) -> Measurement:
    name = group["name"] if isinstance(group["name"], str) else None
    code = group["_id"].get("code")
    units = tuple(sorted(unit for unit in group["units"] if isinstance(unit, str)))
    return Measurement(
        code if isinstance(code, str) else None, name, units, group["count"], group["first_at"], group["last_at"]
    )
