"""The list of measurements, and each measurement over time: a chart and the table of its values."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import bottle

from myhealth.clinical.ranges import ABOVE, BELOW, WITHIN, Number, parse_measurement
from myhealth.common.errors import BadInput, NotFound
from myhealth.reports.filters import PageCursor
from myhealth.reports.trends import Measurement, TrendPoint, TrendQuery, split_series
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
    present_all,
    unit_of,
)
from wsgi.browse_pages.summary import counted

REPORTS_MAX = 500
FEW = 12  # values that a reader sees at a glance
# Months before today, with their words; 0: all values.
PERIODS = {0: "All", 60: "5 years", 12: "12 months", 3: "3 months"}
NAME_MAX = 500
DRAWN_MAX = 1e15
SHOWN = ("name", "value", "unit", "low", "high", "flag", "range_source", "range_text", "warning", "status", "ranges")


# The shapes of the chart's legend.
LEGEND = ((ABOVE, "M7 1l6 12H1Z"), (BELOW, "M7 13l6-12H1Z"), (OUTSIDE, "M7 0l7 7-7 7-7-7Z"))


@dataclass(frozen=True)
class TrendRow:
    """One value: its day, the time if its day has several values, and the address of its report."""

    path: str
    day: str
    clock: str
    result: ResultView


@dataclass(frozen=True)
class Series:
    """Values in one unit and of one kind of specimen, the newest first. `specimen`: its words, if the test has several
    kinds. `svg` is "" if there are not two values to draw.

    `dot_text` and `shapes` (path, text) are the chart's legend; `count` is the number of values in words; `undrawn`
    says how many values are not drawn, for they are no numbers or too large; `undated` says how many are not drawn, for
    their moment is not known; `bound` is an example of a value that
    is only a bound; `has_impossible`: a value is not drawn, for it would press all others flat.
    """

    number: int
    unit: str
    specimen: str
    rows: list[TrendRow]
    count: str
    svg: str
    dot_text: str
    shapes: list[tuple[str, str]]
    has_band: bool
    has_impossible: bool
    undrawn: str
    undated: str
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
                times_text(each, self.dates),
            )
            for each in found
        ]
        title = "My trends" if self.patient is None else "Trends"
        return self.render("trends", title=title, measured=measured, here="trends")

    def one(self, person: dict[str, Any], what: dict[str, Any], months: int, after: PageCursor | None) -> Any:
        """Return the page of one measurement. Raises NotFound."""
        points, older = self.some(person, what, months, after)
        newest = points or self.context.reports.trend(person, TrendQuery(**what, coded=False), limit=1).points
        if not newest:
            raise NotFound("Nothing of that kind was measured.")
        periods = [
            (words, self.path("trends", **what, months=each or ""), each == months) for each, words in PERIODS.items()
        ]
        title = name_text(newest[0].name) or what["code"]
        return self.render(
            "trend",
            title=title,
            series=series_of(points, self.dates, str(title), what["code"]),
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
        points, behind = self.context.reports.trend(person, wanted, limit=REPORTS_MAX)
        place = format_page_cursor(behind) if behind else ""
        return points, self.path("trends", **what, months=months or "", after=place) if place else ""


def read_months(text: str) -> int:
    """Return one of PERIODS. Raises BadInput."""
    if text and text not in map(str, PERIODS):
        raise BadInput("That is no period of ours.")
    return int(text or 0)


def times_text(measured: Measurement, dates: Dates) -> str:
    """Return how often and when something was measured."""
    times = "measured once" if measured.count == 1 else f"measured {measured.count} times"
    if measured.last_at is None:
        return f"{times}, time not known"
    return f"{times}, {'on' if measured.count == 1 else 'last on'} {dates.day(measured.last_at)}"


def series_of(points: list[TrendPoint], dates: Dates, title: str, code: str | None) -> list[Series]:
    """Return the series, that of the newest value first. One chart never mixes units or specimens."""
    found = enumerate(split_series(points, code))
    return [_series(number, same, dates, title, specimen) for number, (specimen, same) in found]


def _series(number: int, points: list[TrendPoint], dates: Dates, title: str, specimen: str) -> Series:
    views = present_all(
        [{"results": [{field: getattr(point, field) for field in SHOWN} for point in points]}], dates.moment
    )[0]
    days = days_of(points, dates)
    pairs = [(point, view) for point, view in zip(points, views, strict=True) if view.position != IMPOSSIBLE]
    dated = [(point, view) for point, view in pairs if point.taken_at]
    drawn = [each for point, view in reversed(dated) if (each := _drawn(point, view))]
    positions = {point.position for point in drawn}
    first, last = (dates.day(drawn[end].at) if drawn else "" for end in (0, -1))
    title = f"{title}, {specimen}" if specimen else title
    label = f"Chart of {title}, {counted(len(drawn), 'value')} from {first} to {last}. The table below has them all."
    return Series(
        number=number,
        unit=unit_of({"unit": points[0].unit}),
        specimen=specimen,
        rows=[
            TrendRow(link("reports", point.report_id), *day, view)
            for point, day, view in zip(points, days, views, strict=True)
        ],
        count=counted(len(points), "value"),
        svg=charts.chart(drawn, dates, label) if len(drawn) > 1 else "",
        dot_text=WORDS[WITHIN] if WITHIN in positions else "no range given" if UNKNOWN in positions else "",
        shapes=[(shape, WORDS[position]) for position, shape in LEGEND if position in positions],
        has_band=any(point.low is not None or point.high is not None for point in drawn),
        has_impossible=len(pairs) < len(points),
        undrawn=_values_are(len(dated) - len(drawn)),
        undated=_values_are(len(pairs) - len(dated)),
        bound=next((view.value for point, view in dated if (parse_measurement(point.value) or ("",))[0]), ""),
        has_general=any(view.is_general for view in views),
    )


def _values_are(count: int) -> str:
    return counted(count, "value is", "values are") if count else ""


def days_of(points: list[TrendPoint], dates: Dates) -> list[tuple[str, str]]:
    """Return the day of each point, and its time if its day has several and it is known."""
    days = [dates.short_day(point.taken_at, point.taken_precision) for point in points]
    moments = {(day, point.taken_at, point.report_id) for day, point in zip(days, points, strict=True)}
    many = Counter(day for day, *_ in moments)
    return [
        (day, dates.clock(point.taken_at) if many[day] > 1 and not point.taken_precision else "")
        for day, point in zip(days, points, strict=True)
    ]


def _drawn(point: TrendPoint, view: ResultView) -> charts.Point | None:
    """Return a point of the chart; None if the value is no number or too large, or its moment is not known. A bound is
    drawn at its number."""
    found = parse_measurement(point.value)
    value, low, high = map(_float, (found and found[1], view.low, view.high))
    return (
        None if value is None or not point.taken_at else charts.Point(point.taken_at, value, low, high, view.position)
    )


def _float(found: Number | None) -> float | None:
    return float(found) if found is not None and -DRAWN_MAX < found < DRAWN_MAX else None
