"""What was measured, and each measurement over time: a chart, and the table of its values beside it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import Any

import bottle

from myhealth.clinical.ranges import Number, number, parse_measurement
from myhealth.clinical.report_status import NOON_TIME
from myhealth.common.errors import BadInput, NotFound
from myhealth.reports.filters import PageCursor
from myhealth.reports.trends import TrendPoint, TrendQuery
from wsgi.browse_api.cursors import format_page_cursor, parse_page_cursor
from wsgi.browse_pages import charts, result_view
from wsgi.browse_pages.dates import Dates
from wsgi.browse_pages.reports import PatientPage
from wsgi.browse_pages.units import unit_text

REPORTS_MAX = 500
FEW = 12  # values that one sees at a glance
# Months before today: the words for them; 0 is all that there is.
PERIODS = {0: "All", 60: "5 years", 12: "12 months", 3: "3 months"}
NAME_MAX = 500
DRAWN_MAX = 1e15
SHOWN = ("name", "value", "unit", "low", "high", "flag", "range_source", "range_text", "warning")


@dataclass(frozen=True)
class Series:
    """Values in one unit, the newest first, each as it is shown; `clocks`: the time of each report of a day that has
    several; `svg` is "" where no two can be drawn. `impossible`: how many are, and so are not drawn: one would press
    all others flat. `undrawn`: how many others are not, for they are no numbers, or too large ones.
    `bounds`: those that say only what a value lies beyond."""

    number: int
    unit: str
    rows: list[tuple[TrendPoint, result_view.ResultView]]
    clocks: dict[int, str]
    svg: str
    positions: set[str]
    band: bool
    impossible: int
    undrawn: int
    bounds: list[str]
    general: bool


class TrendsPage(PatientPage):
    """The list of what was measured; with `code` or `name` in the address, that measurement over time."""

    def get(self, username: str = "") -> Any:
        code, name = (bottle.request.query.getunicode(field, "") or None for field in ("code", "name"))
        if len(code or name or "") > NAME_MAX or "\0" in (code or name or ""):
            raise BadInput("That is no measurement of anybody's.", code="no_measurement")
        months = read_months(bottle.request.query.get("months", ""))
        after = parse_page_cursor(bottle.request.query.getunicode("after", ""))
        person = self.whose(username, "trends")
        if code is None and name is None:
            return self.overview(person)
        return self.one(person, {"code": code, "name": None if code else name}, months, after)

    def overview(self, person: dict[str, Any]) -> Any:
        found = sorted(self.context.reports.measurements(person), key=lambda each: (-each.count, each.name or ""))
        measured = [
            (each, self.path("trends", code=each.code, name=None if each.code else each.name)) for each in found
        ]
        title = "My trends" if self.patient is None else "Trends"
        return self.render("trends", title=title, measured=measured, patient=self.patient, here=self.tab("trends"))

    def one(self, person: dict[str, Any], what: dict[str, Any], months: int, after: PageCursor | None) -> Any:
        points, older = self.some(person, what, months, after)
        newest = points or self.context.reports.trend(person, TrendQuery(**what, coded=False), limit=1)
        if not newest:
            raise NotFound("Nothing of that kind was measured.")
        periods = [
            (words, self.path("trends", **what, months=each or ""), each == months) for each, words in PERIODS.items()
        ]
        title = result_view.name_text(newest[0].name) or what["code"]
        return self.render(
            "trend",
            title=title,
            series=series_of(points, self.dates, str(title)),
            older=older,
            periods=periods if months or older or len(points) > FEW else [],
            newest=newest[0],
            up=self.path("trends"),
            patient=self.patient,
            here=self.tab("trends"),
        )

    def some(
        self, person: dict[str, Any], what: dict[str, Any], months: int, after: PageCursor | None
    ) -> tuple[list[TrendPoint], str]:
        """The page of values that the address asks for, and the address of earlier ones."""
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
    """One of PERIODS. Raises BadInput."""
    if text and text not in map(str, PERIODS):
        raise BadInput("That is no period of ours.")
    return int(text or 0)


def series_of(points: list[TrendPoint], dates: Dates, title: str) -> list[Series]:
    """One series a unit, that of the newest value first: values in different units are never drawn together."""
    by_unit: dict[str, list[TrendPoint]] = {}
    for point in points:
        by_unit.setdefault(unit_text(point.unit), []).append(point)
    return [_series(number, unit, same, dates, title) for number, (unit, same) in enumerate(by_unit.items())]


def _series(number: int, unit: str, points: list[TrendPoint], dates: Dates, title: str) -> Series:
    rows = [(point, result_view.present({field: getattr(point, field) for field in SHOWN})) for point in points]
    possible = [(point, shown.place) for point, shown in reversed(rows) if shown.place != result_view.IMPOSSIBLE]
    drawn = [each for point, place in possible if (each := _drawn(point, place))]
    first, last = dates.day(points[-1].taken_at), dates.day(points[0].taken_at)
    values = result_view.counted(len(drawn), "value")
    label = f"Chart of {title}, {values} from {first} to {last}. The table below has them all."
    return Series(
        number,
        unit,
        rows,
        clocks=clocks_of(points, dates),
        svg=charts.chart(drawn, dates, label) if len(drawn) > 1 else "",
        positions={point.position for point in drawn},
        band=any(point.low is not None or point.high is not None for point in drawn),
        impossible=len(rows) - len(possible),
        undrawn=len(possible) - len(drawn),
        bounds=[shown.value for point, shown in rows if (parse_measurement(point.value) or ("",))[0]],
        general=any(shown.general for _, shown in rows),
    )


def clocks_of(points: list[TrendPoint], dates: Dates) -> dict[int, str]:
    """The time of each report, by its number, where several are of one day and would else look the same. That of noon
    UTC has none: it may stand for a day alone (remarks.NOON)."""
    taken = {point.report_id: point.taken_at for point in points}
    reports = Counter(dates.short_day(at) for at in taken.values())
    return {
        number: dates.clock(at)
        for number, at in taken.items()
        if reports[dates.short_day(at)] > 1 and at.astimezone(UTC).time() != NOON_TIME
    }


def _drawn(point: TrendPoint, place: str) -> charts.Point | None:
    """A point of the chart; None for a value that is no number, or none that a chart can hold."""
    found = parse_measurement(point.value)
    value, low, high = map(_float, (found and found[1], number(point.low), number(point.high)))
    return None if value is None else charts.Point(point.taken_at, value, low, high, place)


def _float(found: Number | None) -> float | None:
    return float(found) if found is not None and -DRAWN_MAX < found < DRAWN_MAX else None
