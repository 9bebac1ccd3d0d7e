"""The list of measurements, and each measurement over time: a chart and the table of its values."""

import re
from collections import Counter, deque
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import bottle
from msgspec import Struct

from myhealth.clinical.guide import BLOOD_PRESSURE, DIASTOLIC, SYSTOLIC, about, far_of, more_about
from myhealth.clinical.in_words import name_text, unit_of
from myhealth.clinical.ranges import ABOVE, BELOW, WITHIN
from myhealth.clinical.series import BLOOD_KIND
from myhealth.common.errors import BadInput, NotFound
from myhealth.reports.filters import PageCursor
from myhealth.reports.trends import EARLIEST, TrendPoint, TrendQuery, split_series
from wsgi.browse_api.parameters import format_page_cursor, parse_page_cursor
from wsgi.browse_pages import charts
from wsgi.browse_pages.dates import Dates
from wsgi.browse_pages.glance import POINTS, change_text, glance_groups, newest_results
from wsgi.browse_pages.navigation import link
from wsgi.browse_pages.reports import PatientPage
from wsgi.browse_pages.result_view import (
    GENERAL,
    IMPOSSIBLE,
    LOWER,
    MISTAKEN,
    OUTSIDE,
    PRESSURE_NAME,
    UNKNOWN,
    UPPER,
    WORDS,
    ResultView,
    counted,
    present_all,
    pressure,
    result_fields,
)

REPORTS_MAX = 500
FEW = 12  # values that a reader sees at a glance
# Months before today, with their words; 0: all values.
PERIODS = {0: "All", 60: "5 years", 12: "12 months", 3: "3 months"}
NAME_MAX = 500
LOINC = re.compile(r"[0-9]{1,7}-[0-9]")

REPORT = link("reports", "")
# The shapes of the chart's legend.
LEGEND = ((ABOVE, "M7 1l6 12H1Z"), (BELOW, "M7 13l6-12H1Z"), (OUTSIDE, "M7 0l7 7-7 7-7-7Z"))


class TrendRow(NamedTuple):
    """One value: its day, the time if its day has several values, and the address of its report."""

    path: str
    day: str
    clock: str
    block: ResultView


class Headline(NamedTuple):
    """The newest value, its day, the change since the one before; (words, value, day) of the lowest and the highest."""

    block: ResultView
    day: str
    change: str
    ends: list[tuple[str, str, str]]


Entry = tuple[TrendPoint, ...]  # one value, or both of a blood pressure


class Series(Struct, frozen=True):
    """Values in one unit and of one kind of specimen, the newest first. `specimen`: its words, if the test has several
    kinds. `svg` is "" if there are not two values to draw; `label` describes it.

    `dot_text` and `shapes` (path, text) are the chart's legend; `count` is the number of values in words; `usual`: the
    range of all rows, "" if they differ; `undrawn` says how many values are not drawn, for they are no numbers or too
    large; `undated` says how many are not drawn, for their moment is not known; `bound` is an example of a value that
    is only a bound; `has_impossible`: a value is not drawn, for it would press all others flat.
    """

    number: int
    unit: str
    specimen: str
    headline: Headline
    rows: list[TrendRow]
    count: str
    usual: str
    svg: str
    label: str
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
            raise BadInput("There is no such measurement.", code="no_measurement")
        months = read_months(bottle.request.query.get("months", ""))
        after = parse_page_cursor(bottle.request.query.getunicode("after", ""))
        person = self.read_person(username, "trends")
        if code is None and name is None:
            return self.overview(person)
        return self.one(person, {"code": code, "name": None if code else name}, months, after)

    def overview(self, person: dict[str, Any]) -> Any:
        """Return the page of all measurements with their latest values."""
        with self.context.long_reads.enter(self.user["subject"]):
            newest = self.context.reports.newest(person, POINTS)
        title = "My trends" if self.patient is None else "Trends"
        points = newest.points()
        views = present_all([newest_results(points)], self.dates.moment)[0]
        groups = glance_groups(points, views, self.dates, self.path)
        to_matrix = self.path("matrix")
        return self.render("trends", title=title, groups=groups, to_matrix=to_matrix, here="trends")

    def one(self, person: dict[str, Any], what: dict[str, Any], months: int, after: PageCursor | None) -> Any:
        """Return the page of one measurement. Raises NotFound."""
        points, older = self.some(person, what, months, after)
        newest = points or self.context.reports.trend(person, TrendQuery(**what, coded=False), limit=1).points
        if not newest:
            raise NotFound("Nothing of that kind was measured.")
        periods = [
            (words, self.path("trends", **what, months=each or ""), each == months) for each, words in PERIODS.items()
        ]
        code = what["code"]
        title = PRESSURE_NAME if code == BLOOD_PRESSURE else name_text(newest[0].name) or code
        parts = (SYSTOLIC, DIASTOLIC) if code == BLOOD_PRESSURE else (code,)
        # One chart never mixes units or specimens.
        split = split_series(points, code)
        series = [
            _series(number, same, self.dates, str(title), specimen, code)
            for number, (specimen, same) in enumerate(split)
        ]
        is_guided = not split or any(specimen in ("", BLOOD_KIND) for specimen, _ in split)  # the guide is of blood
        return self.render(
            "trend",
            title=title,
            series=series,
            older=older,
            periods=periods if months or older or len(points) > FEW else [],
            newest_day=self.dates.day(newest[0].taken_at),
            about=list(filter(None, map(about, parts))) if is_guided else [],
            far=far_texts(parts, newest[0].unit) if is_guided else [],
            more_about=more_about(code) if code and LOINC.fullmatch(code) else "",
            few=FEW,
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
        raise BadInput("There is no such period.")
    return int(text or 0)


def far_texts(codes: Sequence[str | None], unit: Any) -> list[str]:
    """Return in words which values of a result are called far outside its range, and the source of that."""
    found = [far_of(code, unit if isinstance(unit, str) else None) for code in codes]
    names = ("upper value ", "lower value ") if len(codes) > 1 else ("",)
    told = []
    for name, far in zip(names, found, strict=True):
        if far:
            ends = [f"{end:g} or {words}" for end, words in ((far.low, "less"), (far.high, "more")) if end is not None]
            text = f"{name}{', or '.join(ends)} {unit_of(unit)}"
            told.append(f"Called far outside: {text} ({far.source}).")
    return told


def _blocks(points: list[TrendPoint], dates: Dates, code: str | None) -> list[tuple[Entry, ResultView]]:
    """Return the values with their blocks; of blood pressures, both values of a check-up as one."""
    results = [result_fields(point, code) for point in points]
    views = present_all([{"results": results}], dates.moment)[0]
    if code != BLOOD_PRESSURE:
        return [((point,), view) for point, view in zip(points, views, strict=True)]
    return _pressures(list(zip(points, views, strict=True)))


def _pressures(found: list[tuple[TrendPoint, ResultView]]) -> list[tuple[Entry, ResultView]]:
    """Return blood pressures, the upper and the lower value of one check-up as one; either may be absent."""
    lower: dict[int, deque[tuple[TrendPoint, ResultView]]] = {}
    for point, view in found:
        if view.code in LOWER:
            lower.setdefault(point.report_id, deque()).append((point, view))
    made: list[tuple[Entry, ResultView]] = []
    for point, view in found:
        if view.code in UPPER:
            rest = lower.get(point.report_id)
            partner = rest.popleft() if rest else None
            entry = (point, partner[0]) if partner else (point,)
            made.append((entry, pressure(view, partner[1] if partner else None)))
    alone = [(point, view) for rest in lower.values() for point, view in rest]
    made += [((point,), pressure(None, view)) for point, view in alone]
    return sorted(made, key=lambda each: each[0][0].taken_at or EARLIEST, reverse=True) if alone else made


def _series(number: int, points: list[TrendPoint], dates: Dates, title: str, specimen: str, code: str | None) -> Series:
    entries = _blocks(points, dates, code)
    days = days_of([entry[0] for entry, _ in entries], dates)
    found = list(zip(entries, days, strict=True))
    rows = [TrendRow(f"{REPORT}{entry[0].report_id}", *day, block) for (entry, block), day in found]
    views = [
        (point, words, view, row)
        for (entry, block), row in zip(entries, rows, strict=True)
        for point, (words, view) in zip(entry, block.parts, strict=True)
    ]
    possible = [each for each in views if each[2].position != IMPOSSIBLE]
    dated = [each for each in possible if each[0].taken_at]
    lines: dict[str, list[charts.Point]] = {}
    numbers = [[*map(charts.drawable, (view.number, view.low, view.high))] for _, _, view, _ in dated]
    for (point, words, view, row), (value, low, high) in zip(reversed(dated), reversed(numbers), strict=True):
        if value is not None and point.taken_at:
            text = f"{row.block.short}, {row.day} {row.clock}".rstrip()
            drawn = charts.Point(point.taken_at, value, low, high, view.position, text, row.path)
            lines.setdefault(words, []).append(drawn)
    drawn_points = [point for line in lines.values() for point in line]
    positions = {point.position for point in drawn_points}
    title = f"{title}, {specimen}" if specimen else title
    return Series(
        number=number,
        unit=unit_of(points[0].unit),
        specimen=specimen,
        headline=_headline(entries, rows, lines, dates),
        rows=rows,
        count=counted(len(rows), "value"),
        usual=_common_range(rows),
        svg=charts.chart([*lines.values()], dates) if len(drawn_points) > len(lines) else "",
        label=_label(title, lines, dates) if lines else "",
        dot_text=WORDS[WITHIN] if WITHIN in positions else "no range given" if UNKNOWN in positions else "",
        shapes=[(shape, WORDS[position]) for position, shape in LEGEND if position in positions],
        has_band=any(point.low is not None or point.high is not None for point in drawn_points),
        has_impossible=len(possible) < len(views),
        undrawn=_values_are(len(dated) - len(drawn_points)),
        undated=_values_are(len(possible) - len(dated)),
        bound=next((view.value for _, _, view, _ in dated if view.is_bound), ""),
        has_general=any(view.is_general for _, _, view, _ in views),
    )


def _common_range(rows: list[TrendRow]) -> str:
    """Return the usual range of all rows in words, "" if they differ."""
    told = {f"{row.block.usual}{' (general)' if row.block.is_general else ''}" for row in rows}
    return told.pop() if len(told) == 1 else ""


def _headline(
    entries: list[tuple[Entry, ResultView]], rows: list[TrendRow], lines: dict[str, list[charts.Point]], dates: Dates
) -> Headline:
    """Return the headline of a series; of blood pressures, the lowest and the highest are by the upper value."""
    newest = [entry for entry, _ in entries[:2]]
    both = len({len(entry) for entry in newest}) == 1
    change = change_text([list(part) for part in zip(*newest, strict=True)], dates) if both else ""
    line = lines.get("upper") or next(iter(lines.values()), [])
    ends = []
    if len(line) > 2:
        for words, end in (("Lowest", min), ("Highest", max)):
            point = end(line, key=lambda each: each.value)
            row = next((row for row in rows if row.path == point.path), rows[0])
            ends.append((words, row.block.short, dates.day_of_value(point.at)))
    return Headline(rows[0].block, rows[0].day, change, ends)


def _label(title: str, lines: dict[str, list[charts.Point]], dates: Dates) -> str:
    longest = max(lines.values(), key=len)
    first, last = (dates.day(longest[end].at) for end in (0, -1))
    count = counted(len(longest), "value")
    return f"Chart of {title}, {count} from {first} to {last}. The table below has them all."


def _values_are(count: int) -> str:
    return counted(count, "value is", "values are") if count else ""


def days_of(points: list[TrendPoint], dates: Dates) -> list[tuple[str, str]]:
    """Return the day of each point, and its time if its day has several and it is known."""
    days = [dates.day_of_value(point.taken_at, point.taken_precision) for point in points]
    moments = {(day, point.taken_at, point.report_id) for day, point in zip(days, points, strict=True)}
    many = Counter(day for day, *_ in moments)
    return [
        (day, dates.clock(point.taken_at) if many[day] > 1 and not point.taken_precision else "")
        for day, point in zip(days, points, strict=True)
    ]
