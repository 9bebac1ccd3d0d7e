"""The newest values of each measurement of a patient: what an overview shows, and what "last time" means. Pure.

Reports are read from the newest on, and only as long as they have a measurement of which too few values are known:
somebody who measures the blood pressure every day has a cholesterol of three years ago too.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from myhealth.clinical.in_words import is_missing
from myhealth.reports.documents import Document
from myhealth.reports.filters import PageCursor, reports_query
from myhealth.reports.trends import EARLIEST, PLAIN_FIELDS, TrendPoint, point_of, readable_results, shared_facts

# Of each result, what a point and its series need.
FIELDS = ("code", "name", "value", "unit", "unit_text", "low", "high", "flag", "range_source", "range_text", "warning")
OWN_FIELDS = ("taken_at", "taken_precision", "status", "specimen", "ranges")
PROJECTION = {"checkup_type": 1, "taken_at": 1, "taken_precision": 1, "status": 1, "details.specimen": 1} | {
    f"results.{name}": 1 for name in (*FIELDS, *OWN_FIELDS)
}
Measured = tuple[str, str]  # the test (a LOINC code or a name) and the kind of its specimen


class NewestPoints:
    """Collects at most `most` points of each measurement that have a value, all in the unit of the newest one.

    `only`: results whose measurements are wanted; None: all are. `kinds`: how many reports of each kind were read.
    """

    def __init__(self, most: int, only: Iterable[Mapping[str, Any]] | None = None) -> None:
        self._most = most
        self._found: dict[Measured, list[TrendPoint]] = {}
        self._units: dict[Measured, str] = {}
        self._names: dict[Measured, set[tuple[bool, str]]] = {}  # (whether it is a code, it)
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
        series = self._series(result, result.get("specimen") or shared.get("specimen"))
        if series is None:
            return
        measured, unit = series
        points = self._found.get(measured)
        if (points and (len(points) >= self._most or self._units[measured] != unit)) or is_missing(result.get("value")):
            return
        if points is None:
            points = self._found[measured] = []
            self._units[measured] = unit
        points.append(point_of(report, result, shared, result.get("code")))

    def _series(self, result: Mapping[str, Any], specimen: Any) -> tuple[Measured, str] | None:
        """Return the measurement of a result and its unit, None for one that has no name or is not wanted."""
        from myhealth.clinical.series import series_key

        parts = (result.get("code"), result.get("name"), result.get("unit"), str(specimen or ""))
        try:
            return self._known[parts]
        except (KeyError, TypeError):  # TypeError: another program stored an object
            pass
        name, series = named(result), None
        if name and (self._wanted is None or name in self._wanted):
            test, unit, kind = series_key({**result, "specimen": specimen, "code": name[1] if name[0] else None})
            series = (test, kind), unit
            self._names.setdefault((test, kind), set()).add(name)
        if all(isinstance(part, str | None) for part in parts):
            self._known[parts] = series
        return series

    def lacking(self) -> Document | None:
        """Return the condition for measurements that still have too few points; None if no more can be found."""
        full, found = set(), {name: self._is_full(*each) for each in self._names.items() for name in each[1]}
        full = {name for name, is_full in found.items() if is_full}
        verb, names = ("$nin", full) if self._wanted is None else ("$in", self._wanted - full)
        codes, words = ([text for coded, text in names if coded is which] for which in (True, False))
        if self._wanted is not None and not names:
            return None
        none = [None] if self._wanted is None else []
        return {"$or": [{"code": {verb: [*codes, *none]}}, {"code": None, "name": {verb: [*words, *none]}}]}

    def _is_full(self, measured: Measured, _: Any) -> bool:
        return len(self._found.get(measured, ())) >= self._most

    def latest(self, result: Mapping[str, Any], specimen: Any) -> TrendPoint | None:
        """Return the newest point of a result's measurement in its unit. `specimen`: that of its report."""
        series = self._series(result, result.get("specimen") or specimen)
        points = self._found.get(series[0]) if series and self._units.get(series[0]) == series[1] else None
        return points[0] if points else None

    def points(self) -> dict[Measured, list[TrendPoint]]:
        """Return the points of each measurement, the newest first; those of an unknown moment last."""
        for points in self._found.values():
            points.sort(key=lambda point: point.taken_at or EARLIEST, reverse=True)
        return self._found


def named(result: Mapping[str, Any]) -> tuple[bool, str] | None:
    """Return (True, the code) of a result, or (False, its name) if it has no code; None without both."""
    code, name = result.get("code"), result.get("name")
    if isinstance(code, str) and code:
        return True, code
    return (False, name) if code is None and isinstance(name, str) and name else None


def newest_query(patient: Document, lacking: Document | None, after: PageCursor | None) -> Document:
    """Return the query for the next reports to read."""
    query = reports_query(patient, after=after)
    if lacking is not None:
        query["results"] = {"$elemMatch": lacking}
    return query
