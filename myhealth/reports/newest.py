"""The newest values of each measurement of a patient, for overviews and for "last time". Pure.

Reports are read from the newest on, and only as long as they have a measurement of which too few values are known: a
person who measures the blood pressure every day may have a cholesterol of three years ago.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from myhealth.clinical.in_words import is_missing
from myhealth.reports.documents import Document
from myhealth.reports.filters import PageCursor, reports_query
from myhealth.reports.trends import EARLIEST, PLAIN_FIELDS, TrendPoint, point_of, readable_results, shared_facts

# The fields of a result that a point and its series need.
FIELDS = ("code", "name", "value", "unit", "unit_text", "low", "high", "flag", "range_source", "range_text", "warning")
OWN_FIELDS = ("taken_at", "taken_precision", "status", "specimen", "ranges")
PROJECTION = {"checkup_type": 1, "taken_at": 1, "taken_precision": 1, "status": 1, "details.specimen": 1} | {
    f"results.{name}": 1 for name in (*FIELDS, *OWN_FIELDS)
}
Measured = tuple[str, str]  # the test (a LOINC code or a name) and the kind of its specimen
Name = tuple[bool, str]  # whether it is a code, and the code or name


class Labels(NamedTuple):
    """What distinguishes measurements: the name of a result and its own specimen or, if it has none, its report's."""

    name: Name
    specimen: str | None
    report_specimen: str | None


class NewestPoints:
    """Collects at most `most` points of each measurement that have a value, all in the unit of the newest one.

    `only`: results whose measurements are wanted; None: all are. `any_unit`: points in other units too. `kinds`: how
    many reports of each kind were read.
    """

    def __init__(self, most: int, only: Iterable[Mapping[str, Any]] | None = None, any_unit: bool = False) -> None:
        self._most = most
        self._any_unit = any_unit
        self._found: dict[Measured, list[TrendPoint]] = {}
        self._units: dict[Measured, str] = {}
        self._labels: dict[Measured, set[Labels]] = {}
        self._known: dict[Any, tuple[Measured, str] | None] = {}
        self.kinds: Counter[str] = Counter()
        self._wanted = None if only is None else {name for each in only if (name := named(each))}

    def add(self, reports: Iterable[Document]) -> None:
        """Take the points of reports, the newest first."""
        for report in reports:
            shared = shared_facts(report) if len(report) > PLAIN_FIELDS + 1 else {}
            if isinstance(report.get("checkup_type"), str):
                self.kinds[report["checkup_type"]] += 1
            for result in readable_results(report):
                self._add(report, result, shared)

    def _add(self, report: Document, result: Document, shared: Document) -> None:
        series = self._series(result, shared.get("specimen"))
        if series is None:
            return
        measured, unit = series
        points = self._found.get(measured)
        if is_missing(result.get("value")):
            return
        if points and (len(points) >= self._most or not (self._any_unit or self._units[measured] == unit)):
            return
        if points is None:
            points = self._found[measured] = []
            self._units[measured] = unit
        points.append(point_of(report, result, shared, result.get("code")))

    def _series(self, result: Mapping[str, Any], of_report: Any) -> tuple[Measured, str] | None:
        """Return the measurement of a result and its unit, None for one that has no name or is not wanted.
        `of_report`: the specimen of its report."""
        from myhealth.clinical.series import series_key

        own = result.get("specimen") or None
        of_report = None if own else of_report or None
        parts = (result.get("code"), result.get("name"), result.get("unit"), own, of_report)
        try:
            return self._known[parts]
        except (KeyError, TypeError):  # TypeError: another program stored an object
            pass
        name, series = named(result), None
        if name and (self._wanted is None or name in self._wanted):
            code = name[1] if name[0] else None
            test, unit, kind = series_key({**result, "specimen": own or of_report, "code": code})
            series = (test, kind), unit
            labels = Labels(name, *(each if isinstance(each, str) else None for each in (own, of_report)))
            self._labels.setdefault((test, kind), set()).add(labels)
        if all(isinstance(part, str | None) for part in parts):
            self._known[parts] = series
        return series

    def lacking(self) -> Document | None:
        """Return the condition for reports with measurements that still have too few points; None if none can be left.

        One name may stand for several measurements, such as a local code used for serum and for urine. So a known name
        with a specimen that was not seen yet counts as a new measurement.
        """
        full: list[Labels] = []
        partial: list[Labels] = []
        for measured, several in self._labels.items():
            (full if len(self._found.get(measured, ())) >= self._most else partial).extend(several)
        if self._wanted is not None:
            names = self._wanted - ({each.name for each in full} - {each.name for each in partial})
            return {"results": {"$elemMatch": {"$or": _named_by(names)}}} if names else None
        of_reports = {each.report_specimen for each in full + partial} | {None}
        found: list[Document] = [{"details.specimen": {"$nin": [*of_reports]}}]
        for of_report in of_reports:
            by_specimen: dict[str | None, set[Name]] = {}
            for name, specimen, report_specimen in full:
                if specimen is not None or report_specimen == of_report:
                    by_specimen.setdefault(specimen, set()).add(name)
            known = [
                {**each, "specimen": specimen} for specimen, names in by_specimen.items() for each in _named_by(names)
            ]
            unnamed = {"code": None, "name": None}
            found.append({"details.specimen": of_report, "results": {"$elemMatch": {"$nor": [unnamed, *known]}}})
        return {"$or": found}

    def latest(self, result: Mapping[str, Any], specimen: Any) -> TrendPoint | None:
        """Return the newest point of a result's measurement, in whatever unit. `specimen`: that of its report."""
        series = self._series(result, specimen)
        points = self._found.get(series[0]) if series else None
        return points[0] if points else None

    def points(self) -> dict[Measured, list[TrendPoint]]:
        """Return the points of each measurement, the newest first; those of an unknown moment last."""
        found = self._found.items()
        return {
            each: sorted(points, key=lambda point: point.taken_at or EARLIEST, reverse=True) for each, points in found
        }


def _named_by(names: Iterable[Name]) -> list[Document]:
    """Return two conditions on a result, by code and by name; a result with one of these names meets one of them."""
    codes, words = ([text for coded, text in names if coded is which] for which in (True, False))
    return [{"code": {"$in": codes}}, {"code": None, "name": {"$in": words}}]


def named(result: Mapping[str, Any]) -> Name | None:
    """Return (True, the code) of a result, or (False, its name) if it has no code; None without both."""
    code, name = result.get("code"), result.get("name")
    if isinstance(code, str) and code:
        return True, code
    return (False, name) if code is None and isinstance(name, str) and name else None


def newest_query(patient: Document, lacking: Document | None, after: PageCursor | None) -> Document:
    query = reports_query(patient, after=after)
    return query if lacking is None else {"$and": [query, lacking]}
