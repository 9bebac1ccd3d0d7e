"""A patient's values as a table: a row for each measurement and unit, a column for each of the newest days."""

from collections import Counter
from datetime import date, datetime
from itertools import chain, groupby, zip_longest
from typing import Any, NamedTuple

import bottle

from myhealth.clinical.catalog import codes_of
from myhealth.clinical.guide import DIASTOLIC, NAMES, SYSTOLIC, group_of
from myhealth.clinical.in_words import plain_text
from myhealth.clinical.units import series_unit
from myhealth.reports.filters import PageCursor
from myhealth.reports.newest import Measured
from myhealth.reports.trends import TrendPoint
from wsgi.browse_api.parameters import format_page_cursor, parse_page_cursor
from wsgi.browse_pages.dates import Dates
from wsgi.browse_pages.glance import with_specimen
from wsgi.browse_pages.navigation import link
from wsgi.browse_pages.reports import PatientPage
from wsgi.browse_pages.result_view import IMPOSSIBLE, ResultView, present_all, pressure, result_fields, shortened

DAYS_SHOWN, POINTS_READ, QUERIES = 8, 24, 2
CELL_MAX = 20  # characters of a value


class Cell(NamedTuple):
    """The value of a day that is the most unusual, of such the newest; the address of its report, and how many `more`
    values the day has."""

    path: str
    block: ResultView
    more: int

    @property
    def value(self) -> str:
        """The value, cut if it is long; its report has all of it."""
        return shortened(self.block.value, CELL_MAX)

    @property
    def title(self) -> str:
        """The whole value if it is cut, else ""."""
        return "" if self.value == self.block.value else self.block.value


Cells = dict[date, Cell]


class MatrixRow(NamedTuple):
    """A measurement in one unit. `cells`: one for each column, or None."""

    path: str
    name: str
    unit: str
    cells: list[Cell | None]


class MatrixPage(PatientPage):
    """The values of the newest days, or of those before the day that the address names."""

    parameters = ("after",)

    def get(self, username: str = "") -> Any:
        after = parse_page_cursor(bottle.request.query.getunicode("after", ""))
        person = self.read_person(username, "trends")
        found = self._points(person, after)
        days = newest_days(found, self.dates)
        behind = PageCursor(self.dates.begin_of(days[-1]), 0) if days else None
        has_older = behind and any(
            point.taken_at for points in self._points(person, behind).values() for point in points
        )
        return self.render(
            "matrix",
            title="All values",
            days=[self.dates.day_of_value(self.dates.begin_of(day)) for day in days],
            groups=self.groups(found, days),
            older=self.path("matrix", after=format_page_cursor(behind)) if behind and has_older else "",
            has_undated=any(point.taken_at is None for points in found.values() for point in points),
            first=self.path("matrix") if after else "",
            up=self.path(),
            here="trends",
        )

    def _points(self, person: dict[str, Any], after: PageCursor | None) -> dict[Measured, list[TrendPoint]]:
        return self.context.reports.newest(person, POINTS_READ, after=after, rounds=QUERIES, any_unit=True).points()

    def groups(self, found: dict[Measured, list[TrendPoint]], days: list[date]) -> list[tuple[str, list[MatrixRow]]]:
        """Return (group, its rows) in the order of the guide."""
        rows = []
        for group, cells in _rows(found, self.dates):
            shown = [cells.get(day) for day in days]
            if any(shown):
                newest = next(cell for cell in shown if cell).block
                rows.append((group, MatrixRow(newest.trend(self.path), newest.name, newest.unit, shown)))
        rows.sort(key=lambda row: NAMES.index(row[0]))
        return [(group, [row for _, row in same]) for group, same in groupby(rows, key=lambda row: row[0])]


def _pressure_cell(high: list[Any], low: list[Any]) -> Cell:
    """Return the cell of a day's blood pressures out of (point, view) of their values; a pair is of one report."""
    reports: dict[int, tuple[list[Any], list[Any]]] = {}
    for number, values in enumerate((high, low)):
        for each in values:
            reports.setdefault(each[0].report_id, ([], []))[number].append(each)
    found = []
    for pair in chain.from_iterable(zip_longest(*values) for values in reports.values()):
        upper, lower = (each and each[1] for each in pair)
        found.append((next(filter(None, pair))[0], pressure(upper, lower)))
    return _cell(sorted(found, key=lambda each: each[0].taken_at, reverse=True))


def _cell(found: list[Any]) -> Cell:
    """Return the cell of a day out of (point, view) of its values, the newest first."""
    point, view = max(found, key=lambda each: _rank(each[1]))
    return Cell(link("reports", point.report_id), view, len(found) - 1)


def _rank(view: ResultView) -> tuple[bool, ...]:
    """Return how much a value asks to be seen: one far outside, one outside, one that is hardly possible, and a whole
    blood pressure before a single value of one."""
    return view.is_far, view.is_unusual and view.position != IMPOSSIBLE, view.is_unusual, len(view.pair) > 1


def newest_days(found: dict[Measured, list[TrendPoint]], dates: Dates) -> list[date]:
    """Return the newest days that have values, the newest first; no day some of whose values may be missing here."""
    days = [{_day(point, dates) for point in points if point.taken_at} for points in found.values()]
    full = [each for each, points in zip(days, found.values(), strict=True) if len(points) == POINTS_READ and each]
    whole = max(map(min, full), default=date.min)
    return sorted((day for day in set().union(*days) if day >= whole), reverse=True)[:DAYS_SHOWN]


def _day(point: TrendPoint, dates: Dates) -> date:
    moment: datetime = point.taken_at  # type: ignore[assignment]
    return moment.date() if point.taken_precision else moment.astimezone(dates.zone).date()


def _rows(found: dict[Measured, list[TrendPoint]], dates: Dates) -> list[tuple[str, Cells]]:
    """Return (group, cells) of each measurement and unit; both values of a blood pressure are one row."""
    results = [result_fields(point) for points in found.values() for point in points]
    views = iter(present_all([{"results": results}], dates.moment)[0])
    kinds = Counter(test for test, _ in found)
    cells: dict[tuple[Measured, str], dict[date, list[Any]]] = {}
    for measured, points in found.items():
        for point in points:
            view = with_specimen(next(views), measured, kinds)
            if point.taken_at:
                line = cells.setdefault((measured, series_unit(plain_text(point.unit))), {})
                line.setdefault(_day(point, dates), []).append((point, view))
    upper, lower = ((codes_of(code)[0], "") for code in (SYSTOLIC, DIASTOLIC))
    rows: list[tuple[str, Cells]] = []
    for unit in [unit for measured, unit in cells if measured == upper and (lower, unit) in cells]:
        high, low = cells.pop((upper, unit)), cells.pop((lower, unit))
        days = high.keys() | low.keys()
        rows.append((NAMES[0], {day: _pressure_cell(high.get(day, []), low.get(day, [])) for day in days}))
    for line in cells.values():
        point = next(iter(line.values()))[0][0]
        group = group_of({"code": point.code, "name": point.name})
        rows.append((group, {day: _cell(same) for day, same in line.items()}))
    return rows
