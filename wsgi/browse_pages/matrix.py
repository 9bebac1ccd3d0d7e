"""A patient's values as a table: a row for each measurement, a column for each of the newest days."""

from __future__ import annotations

from datetime import date, datetime
from itertools import groupby
from typing import Any, NamedTuple

import bottle

from myhealth.clinical.catalog import codes_of
from myhealth.clinical.guide import DIASTOLIC, NAMES, SYSTOLIC, group_of
from myhealth.reports.filters import PageCursor
from myhealth.reports.newest import Measured
from myhealth.reports.trends import TrendPoint
from wsgi.browse_api.parameters import format_page_cursor, parse_page_cursor
from wsgi.browse_pages.blocks import Block, pressure, result_fields, single
from wsgi.browse_pages.dates import Dates
from wsgi.browse_pages.glance import SHOWN
from wsgi.browse_pages.navigation import link
from wsgi.browse_pages.reports import PatientPage
from wsgi.browse_pages.result_view import present_all

DAYS_SHOWN, POINTS_READ, QUERIES = 8, 24, 2
Cells = dict[date, tuple[str, Block]]  # by day: the address of the report, and what was measured


class MatrixRow(NamedTuple):
    """A measurement. `cells`: for each column the report's address and the value, or None."""

    path: str
    name: str
    unit: str
    cells: list[tuple[str, Block] | None]


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
            days=[self.dates.short_day(self.dates.begin_of(day)) for day in days],
            groups=self.groups(found, days),
            older=self.path("matrix", after=format_page_cursor(behind)) if behind and has_older else "",
            first=self.path("matrix") if after else "",
            up=self.path(),
        )

    def _points(self, person: dict[str, Any], after: PageCursor | None) -> dict[Measured, list[TrendPoint]]:
        return self.context.reports.newest(person, POINTS_READ, after=after, rounds=QUERIES).points()

    def groups(self, found: dict[Measured, list[TrendPoint]], days: list[date]) -> list[tuple[str, list[MatrixRow]]]:
        """Return (group, its rows) in the order of the guide."""
        rows = []
        for group, cells in _rows(found, self.dates):
            shown = [cells.get(day) for day in days]
            if any(shown):
                _, newest = next(cell for cell in shown if cell)
                rows.append((group, MatrixRow(newest.trend(self.path), newest.name, newest.unit, shown)))
        rows.sort(key=lambda row: NAMES.index(row[0]))
        return [(group, [row for _, row in same]) for group, same in groupby(rows, key=lambda row: row[0])]


def newest_days(found: dict[Measured, list[TrendPoint]], dates: Dates) -> list[date]:
    """Return the newest days that have values, the newest first, and none of which values may have been left out."""
    days = [{_day(point, dates) for point in points if point.taken_at} for points in found.values()]
    full = [each for each, points in zip(days, found.values(), strict=True) if len(points) == POINTS_READ and each]
    whole = max(map(min, full), default=date.min)
    return sorted((day for day in set().union(*days) if day >= whole), reverse=True)[:DAYS_SHOWN]


def _day(point: TrendPoint, dates: Dates) -> date:
    moment: datetime = point.taken_at  # type: ignore[assignment]
    return moment.date() if point.taken_precision else moment.astimezone(dates.zone).date()


def _rows(found: dict[Measured, list[TrendPoint]], dates: Dates) -> list[tuple[str, Cells]]:
    """Return (group, cells) of each measurement; both values of a blood pressure are one row."""
    results = [result_fields(point, SHOWN) for points in found.values() for point in points]
    views = iter(present_all([{"results": results}], dates.moment)[0])
    cells: dict[Measured, dict[date, Any]] = {}
    for measured, points in found.items():
        for point in points:
            view = next(views)
            if point.taken_at:
                cells.setdefault(measured, {}).setdefault(_day(point, dates), (point, view))
    upper, lower = ((codes_of(code)[0], "") for code in (SYSTOLIC, DIASTOLIC))
    rows: list[tuple[str, Cells]] = []
    if upper in cells and lower in cells:
        high, low = cells.pop(upper), cells.pop(lower)
        both = {}
        for day in high.keys() | low.keys():
            pair = high.get(day), low.get(day)
            point = next(each[0] for each in pair if each)
            both[day] = link("reports", point.report_id), pressure(*(each and each[1] for each in pair))
        rows.append((NAMES[0], both))
    for each in cells.values():
        point = next(iter(each.values()))[0]
        group = group_of({"code": point.code, "name": point.name})
        rows.append(
            (group, {day: (link("reports", point.report_id), single(view)) for day, (point, view) in each.items()})
        )
    return rows
