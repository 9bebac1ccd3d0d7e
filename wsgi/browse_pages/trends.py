"""The list of measurements, and each measurement over time: a chart and the table of its values."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import Any

import bottle

from myhealth.clinical.ranges import ABOVE, BELOW, WITHIN, Number, parse_measurement
from myhealth.clinical.report_status import NOON_TIME
from myhealth.common.errors import BadInput, NotFound
from myhealth.reports.filters import PageCursor
from myhealth.reports.trends import TrendPoint, TrendQuery
from wsgi.browse_api.cursors import format_page_cursor, parse_page_cursor
from wsgi.browse_pages import charts
from wsgi.browse_pages.dates import Dates
from wsgi.browse_pages.navigation import link
from wsgi.browse_pages.reports import PatientPage
from wsgi.browse_pages.result_view import (
    GENERAL,
    IMPOSSIBLE,
    MISTAKEN,
    OUTSIDE,
    UNKNOWN,
    WORDS,
    ResultView,
    name_text,
    present_results,
    unit_of,
)
from wsgi.browse_pages.summary import counted

REPORTS_MAX = 500
FEW = 12  # values that a reader sees at a glance
# Months before today, with their words; 0: all values.
PERIODS = {0: "All", 60: "5 years", 12: "12 months", 3: "3 months"}
NAME_MAX = 500
DRAWN_MAX = 1e15
SHOWN = ("name", "value", "unit", "low", "high", "flag", "range_source", "range_text", "warning")


# The shapes of the chart's legend.
LEGEND = ((ABOVE, "M7 1l6 12H1Z"), (BELOW, "M7 13l6-12H1Z"), (OUTSIDE, "M7 0l7 7-7 7-7-7Z"))


@dataclass(frozen=True)
class TrendRow:
    """One value: its day, the time if its day has several reports, and the address of its report."""

    path: str
    day: str
    clock: str
    result: ResultView


@dataclass(frozen=True)
class Series:
    """Values in one unit, the newest first. `svg` is "" if there are not two values to draw.

    `dot_text` and `shapes` (path, text) are the chart's legend; `count` is the number of values in words; `undrawn`
    says how many values are not drawn, for they are no numbers or too large; `bound` is an example of a value that
    is only a bound; `has_impossible`: a value is not drawn, for it would press all others flat.
    """

    number: int
    unit: str
    rows: list[TrendRow]
    count: str
    svg: str
    dot_text: str
    shapes: list[tuple[str, str]]
    has_band: bool
    has_impossible: bool
    undrawn: str
    bound: str
    has_general: bool


class TrendsPage(PatientPage):
    """The list of measurements; with `code` or `name` in the address, that measurement over time."""

    parameters = ("code", "name", "months", "after")

    def get(self, username: str = "") -> Any:
        code, name = (bottle.request.query.getunicode(field, "") or None for field in ("code", "name"))
        if len(code or name or "") > NAME_MAX or "\0" in (code or name or ""):
            raise BadInput("That is no measurement of anybody's.", code="no_measurement")
        months = read_months(bottle.request.query.get("months", ""))
        after = parse_page_cursor(bottle.request.query.getunicode("after", ""))
        person = self.read_person(username, "trends")
        if code is None and name is None:
            return self.overview(person)
        return self.one(person, {"code": code, "name": None if code else name}, months, after)

    def overview(self, person: dict[str, Any]) -> Any:
        """Return the list of measurements, the most frequent first."""
        found = sorted(self.context.measurements(person), key=lambda each: (-each.count, each.name or ""))
        path = self.path
        measured = [
            (
                path("trends", code=each.code, name=None if each.code else each.name),
                name_text(each.name) or each.code,
                "measured once, on" if each.count == 1 else f"measured {each.count} times, last on",
                self.dates.day(each.last_at),
            )
            for each in found
        ]
        title = "My trends" if self.patient is None else "Trends"
        return self.render("trends", title=title, measured=measured, here="trends")

    def one(self, person: dict[str, Any], what: dict[str, Any], months: int, after: PageCursor | None) -> Any:
        """Return the page of one measurement. Raises NotFound."""
        points, older = self.some(person, what, months, after)
        newest = points or self.context.reports.trend(person, TrendQuery(**what, coded=False), limit=1)
        if not newest:
            raise NotFound("Nothing of that kind was measured.")
        periods = [
            (words, self.path("trends", **what, months=each or ""), each == months) for each, words in PERIODS.items()
        ]
        title = name_text(newest[0].name) or what["code"]
        return self.render(
            "trend",
            title=title,
            series=series_of(points, self.dates, str(title)),
            older=older,
            periods=periods if months or older or len(points) > FEW else [],
            newest_day=self.dates.day(newest[0].taken_at),
            mistaken_note=MISTAKEN,
            general_note=GENERAL,
            up=self.path("trends"),
            here="trends",
        )

    def some(
        self, person: dict[str, Any], what: dict[str, Any], months: int, after: PageCursor | None
    ) -> tuple[list[TrendPoint], str]:
        """Return the values that the address asks for, and the address of earlier ones."""
        since = self.dates.begin_of(self.dates.now().date() - timedelta(days=months * 365 // 12)) if months else None
        wanted = TrendQuery(**what, coded=False, since=since, after=after)
        points = self.context.reports.trend(person, wanted, limit=REPORTS_MAX + 1)
        reports = list(dict.fromkeys(point.report_id for point in points))
        if len(reports) <= REPORTS_MAX:
            return points, ""
        points = [point for point in points if point.report_id != reports[-1]]
        place = format_page_cursor(PageCursor(points[-1].taken_at, points[-1].report_id))
        return points, self.path("trends", **what, months=months or "", after=place)


def read_months(text: str) -> int:
    """Return one of PERIODS. Raises BadInput."""
    if text and text not in map(str, PERIODS):
        raise BadInput("That is no period of ours.")
    return int(text or 0)


def series_of(points: list[TrendPoint], dates: Dates, title: str) -> list[Series]:
    """Return a series for each unit, that of the newest value first. One chart never mixes units."""
    by_unit: dict[str, list[TrendPoint]] = {}
    for point in points:
        by_unit.setdefault(unit_of({"unit": point.unit}), []).append(point)
    return [_series(number, unit, same, dates, title) for number, (unit, same) in enumerate(by_unit.items())]


def _series(number: int, unit: str, points: list[TrendPoint], dates: Dates, title: str) -> Series:
    views = present_results({"results": [{field: getattr(point, field) for field in SHOWN} for point in points]})
    clocks = clocks_of(points, dates)
    pairs = [(point, view) for point, view in zip(points, views, strict=True) if view.position != IMPOSSIBLE]
    drawn = [each for point, view in reversed(pairs) if (each := _drawn(point, view))]
    positions = {point.position for point in drawn}
    undrawn = counted(len(pairs) - len(drawn), "value is", "values are") if len(pairs) > len(drawn) else ""
    first, last = dates.day(points[-1].taken_at), dates.day(points[0].taken_at)
    label = f"Chart of {title}, {counted(len(drawn), 'value')} from {first} to {last}. The table below has them all."
    return Series(
        number=number,
        unit=unit,
        rows=[
            TrendRow(
                link("reports", point.report_id), dates.short_day(point.taken_at), clocks.get(point.report_id, ""), view
            )
            for point, view in zip(points, views, strict=True)
        ],
        count=counted(len(points), "value"),
        svg=charts.chart(drawn, dates, label) if len(drawn) > 1 else "",
        dot_text=WORDS[WITHIN] if WITHIN in positions else "no range given" if UNKNOWN in positions else "",
        shapes=[(shape, WORDS[position]) for position, shape in LEGEND if position in positions],
        has_band=any(point.low is not None or point.high is not None for point in drawn),
        has_impossible=len(pairs) < len(points),
        undrawn=undrawn,
        bound=next((view.value for point, view in pairs if (parse_measurement(point.value) or ("",))[0]), ""),
        has_general=any(view.is_general for view in views),
    )


def clocks_of(points: list[TrendPoint], dates: Dates) -> dict[int, str]:
    """Return the time of each report, by its number, if its day has several reports. Noon UTC has no time, for it may
    stand for a day alone (report_status.NOON_TIME)."""
    taken = {point.report_id: point.taken_at for point in points}
    reports = Counter(dates.short_day(at) for at in taken.values())
    return {
        number: dates.clock(at)
        for number, at in taken.items()
        if reports[dates.short_day(at)] > 1 and at.astimezone(UTC).time() != NOON_TIME
    }


def _drawn(point: TrendPoint, view: ResultView) -> charts.Point | None:
    """Return a point of the chart; None if the value is no number or too large. A bound is drawn at its number."""
    found = parse_measurement(point.value)
    value, low, high = map(_float, (found and found[1], view.low, view.high))
    return None if value is None else charts.Point(point.taken_at, value, low, high, view.position)


def _float(found: Number | None) -> float | None:
    return float(found) if found is not None and -DRAWN_MAX < found < DRAWN_MAX else None
