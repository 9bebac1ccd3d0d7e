"""A measurement over time as an inline SVG: the dates at their true distances, the usual range as a band behind.

The style sheet gives the colours, so that the chart follows light, dark and paper. The SVG has no script and no style
of its own, for the pages' policy allows neither. The band shows the range that each result had at its time.
"""

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from html import escape
from itertools import groupby, pairwise
from operator import attrgetter
from statistics import median
from typing import NamedTuple

from msgspec import Struct

from myhealth.clinical.ranges import ABOVE, BELOW, Number, parse_measurement
from myhealth.reports.trends import TrendPoint
from wsgi.browse_pages.dates import Dates
from wsgi.browse_pages.result_view import OUTSIDE, ResultView

# So few units that letters and dots can be read on a phone.
WIDTH, HEIGHT = 400, 260
TOP, RIGHT, BOTTOM = 8, 390, 232  # the plot's edges; its left edge depends on the labels
INSET = 7  # between the plot's edges and the first and the last point
POINTS_MAX = 2000
VALUE = attrgetter("value")
DRAWN_MAX = 1e15
TICKS_MAX = 6
NICE_STEPS = (1, 2, 2.5, 5, 10)
DOT, SMALL_DOT, MANY_POINTS = 3.8, 2.4, 30
TINY_DOT, CROWDED = 1.2, 150
LONG_GAP = 3  # times the median distance of two points
# Steps of the time axis: days and months from one tick to the next. The first that gives few ticks is used.
DAYS, MONTHS = (1, 2, 7, 14), (1, 2, 3, 6, 12, 24, 60, 120, 240, 600, 1200, 6000, 24_000)
DAY_TICKS_MAX = 5
NEAR_EDGE = 30  # a label so near to the plot's edge begins or ends there


class Point(NamedTuple):
    """One measured number with its range at that time. `position`: ABOVE, BELOW, OUTSIDE or another one. `text`: what
    a pointer reads there; `path`: the address of its report."""

    at: datetime
    value: float
    low: float | None
    high: float | None
    position: str
    text: str = ""
    path: str = ""


class Scale(Struct, frozen=True):
    """The coordinates of moments (seconds since 1970) and values. The plot begins at `left`."""

    left: float
    first_s: float
    last_s: float
    low: float
    high: float

    def x(self, at_s: float) -> float:
        """Return the horizontal coordinate of a moment."""
        if self.last_s == self.first_s:
            return (self.left + RIGHT) / 2
        share = (at_s - self.first_s) / (self.last_s - self.first_s)
        return round(self.left + INSET + share * (RIGHT - self.left - 2 * INSET), 2)

    def y(self, value: float) -> float:
        """Return the vertical coordinate of a value."""
        return round(TOP + (self.high - value) / (self.high - self.low) * (BOTTOM - TOP), 2)


def chart(lines: Sequence[Sequence[Point]], dates: Dates) -> str:
    """Return the SVG of lines of points in order of time. Its links are for a pointer alone, so it is hidden from
    screen readers: a caption and the table beside it have all that it shows."""
    lines = [points[-POINTS_MAX:] for points in lines if points]
    points = sorted((point for line in lines for point in line), key=lambda point: point.at)
    low, high = _span(points)
    values = value_ticks(low, high)
    left = 32 + 6 * max(len(axis_number(value)) for value in values)
    scale = Scale(left, points[0].at.timestamp(), points[-1].at.timestamp(), low, high)
    drawn = [(line, [(scale.x(point.at.timestamp()), scale.y(point.value)) for point in line]) for line in lines]
    parts = [
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" aria-hidden="true" focusable="false">',
        *(band for line in lines for band in _bands(line, scale)),
        *_value_axis(values, scale),
        *_day_axis(points, dates, scale),
        *(part for line, places in drawn for part in _line(line, places)),
        *(dot for line, places in drawn for dot in _dots(line, places)),
        "</svg>",
    ]
    return "".join(parts)


def axis_number(value: float) -> str:
    """Return a number without an exponent if a label can hold it: 5000000 and 0.000032, not 5e+06 and 3.2e-05."""
    return f"{Decimal(f'{value:.6g}'):f}" if value == 0 or 1e-7 <= abs(value) < 1e9 else f"{value:.6g}"


def value_ticks(low: float, high: float) -> list[float]:
    """Return at most TICKS_MAX + 1 round numbers at even distances.

    value_ticks(67.2, 146.4) -> [80.0, 100.0, 120.0, 140.0]
    """
    least = (high - low) / TICKS_MAX
    power = 10.0 ** math.floor(math.log10(least))
    step = next(each * power for each in NICE_STEPS if each * power >= least * (1 - 1e-9))
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _span(points: Sequence[Point]) -> tuple[float, float]:
    """Return the least and the greatest of all values and ranges, with a margin."""
    drawn = [each for point in points for each in (point.value, point.low, point.high) if each is not None]
    low, high = min(drawn), max(drawn)
    margin = (high - low) * 0.08 or abs(high) * 0.1 or 1
    return low - margin, high + margin


def day_ticks(first: datetime, last: datetime) -> list[tuple[datetime, str]]:
    """Return a few days, or first days of months or years, at even steps, with their precision for `Dates.short_day`.
    Moments are in the reader's zone."""
    days = (last - first).days + 1
    for step in DAYS:
        if days / step <= DAY_TICKS_MAX:
            start = first.replace(hour=0, minute=0, second=0, microsecond=0)
            found = [start + timedelta(days=step * i) for i in range(days // step + 2)]
            return [(tick, "day") for tick in found if first <= tick <= last] or [(first, "day")]
    months = range(first.year * 12 + first.month - 1, last.year * 12 + last.month)
    step = next((step for step in MONTHS if len(months) / step <= DAY_TICKS_MAX), MONTHS[-1])
    starts = [month for month in months if month % step == 0 and month >= 12]
    ticks = [first.replace(year=at // 12, month=at % 12 + 1, day=1, hour=0, minute=0) for at in starts]
    return [(tick, "year" if step >= 12 else "month") for tick in ticks if tick >= first] or [(first, "day")]


def _value_axis(values: Sequence[float], scale: Scale) -> Iterator[str]:
    yield f'<g class="axis y"><path class="line" d="M{scale.left} {TOP}V{BOTTOM}"/>'
    for value in values:
        y = scale.y(value)
        yield f'<path class="guide" d="M{scale.left} {y}H{RIGHT}"/>'
        yield f'<text x="{scale.left - 5}" y="{y + 3.5:.2f}">{axis_number(value)}</text>'
    yield "</g>"


def _day_axis(points: Sequence[Point], dates: Dates, scale: Scale) -> Iterator[str]:
    """Draw the axis of dates. Every other label has a class of its own, because a phone has no room for it."""
    ticks = day_ticks(*(points[end].at.astimezone(dates.zone) for end in (0, -1)))
    yield f'<g class="axis x"><path class="line" d="M{scale.left} {BOTTOM}H{RIGHT}"/>'
    for number, (tick, precision) in enumerate(ticks):
        x = scale.x(tick.timestamp())
        edge = "first " if x < scale.left + NEAR_EDGE else "last " if x > RIGHT - NEAR_EDGE else ""
        name = f"{edge}{'between' if number % 2 else ''}".strip()
        # the label is of the day here, whatever its moment is in UTC
        text = dates.short_day(
            tick if precision == "day" else tick.replace(tzinfo=UTC), precision if precision != "day" else None
        )
        yield f'<path class="guide" d="M{x} {BOTTOM}v4"/><text class="{name}" x="{x}" y="{BOTTOM + 16}">{text}</text>'
    yield "</g>"


def _bands(points: Sequence[Point], scale: Scale) -> Iterator[str]:
    """Return the usual ranges over the width of the plot. Each change is half-way between two points."""
    begin = 0
    for (low, high), same in groupby(points, key=lambda point: (point.low, point.high)):
        end = begin + len(list(same))
        if (low, high) != (None, None):
            left = _between(points, begin, scale) if begin else scale.left
            right = _between(points, end, scale) if end < len(points) else RIGHT
            top = scale.y(high) if high is not None else TOP
            bottom = scale.y(low) if low is not None else BOTTOM
            width, height = round(max(right - left, 1), 2), round(max(bottom - top, 1), 2)
            yield f'<rect class="band" x="{left}" y="{top}" width="{width}" height="{height}"/>'
        begin = end


def _between(points: Sequence[Point], i: int, scale: Scale) -> float:
    return scale.x((points[i - 1].at.timestamp() + points[i].at.timestamp()) / 2)


def _line(points: Sequence[Point], places: Sequence[tuple[float, float]]) -> Iterator[str]:
    """Return the line through all points, dashed over long gaps."""
    gaps = [(last.at - first.at).total_seconds() for first, last in pairwise(points)]
    longest = LONG_GAP * median(gaps) if len(gaps) > LONG_GAP else math.inf
    for is_long, same in groupby(range(len(gaps)), key=lambda i: gaps[i] > longest):
        numbers = list(same)
        path = "L".join([f"{x} {y}" for x, y in places[numbers[0] : numbers[-1] + 2]])
        yield f'<path class="{"line gap" if is_long else "line"}" d="M{path}"/>'


def _dots(points: Sequence[Point], places: Sequence[tuple[float, float]]) -> Iterator[str]:
    """Return the marks of the points. Of many, only the last, the highest and the lowest are large."""
    many = len(points) >= MANY_POINTS
    chosen = (points[-1], *(end(points, key=lambda point: point.value) for end in (min, max)))
    small = TINY_DOT if len(points) >= CROWDED else SMALL_DOT
    for point, (x, y) in zip(points, places, strict=True):
        is_small = many and point not in chosen
        dot = _dot(point.position, x, y, small if is_small else DOT)
        told = f"{dot}<title>{escape(point.text)}</title></g>" if point.text else f"{dot}</g>"
        yield f'<a href="{escape(point.path)}" tabindex="-1">{told}</a>' if point.path else told


def _dot(position: str, x: float, y: float, size: float) -> str:
    """Return the mark of one point, in an open group; a value outside its range has a shape of its own."""
    if position not in (ABOVE, BELOW, OUTSIDE):
        return f'<g><circle class="dot" cx="{x}" cy="{y}" r="{size}"/>'
    reach, half, tall = round(1.7 * size, 2), round(1.53 * size, 2), round(2.63 * size, 2)
    if position == OUTSIDE:
        shape = f"M{x} {y - reach:.2f}l{reach} {reach}l-{reach} {reach}l-{reach}-{reach}Z"
    elif position == ABOVE:
        shape = f"M{x} {y - reach:.2f}l{half} {tall}h-{2 * half:.2f}Z"
    else:
        shape = f"M{x} {y + reach:.2f}l{half}-{tall}h-{2 * half:.2f}Z"
    return f'<g><path class="dot away" d="{shape}"/>'


def sparkline_svg(lines: Sequence[Sequence[TrendPoint]], views: Sequence[ResultView]) -> str:
    """Return a small SVG of lines, the newest point of each first, behind them the range of each one's newest value.

    It has no words: the page shows the latest value and its range beside it. "" if a line has not two numbers.
    """
    measured = [[*map(parse_measurement, map(VALUE, line))] for line in lines]
    drawn = [
        [
            (point.taken_at.timestamp(), value)
            for point, found in zip(reversed(line), reversed(values), strict=True)
            if found and point.taken_at and not point.warning and (value := drawable(found[1])) is not None
        ]
        for line, values in zip(lines, measured, strict=True)
    ]
    if any(len(line) < 2 for line in drawn):
        return ""
    bands = [(drawable(view.low), drawable(view.high)) for view in views]
    values = [value for line in drawn for _, value in line]
    values += [end for band in bands for end in band if end is not None]
    first, last = min(line[0][0] for line in drawn), max(line[-1][0] for line in drawn)
    low, high = min(values), max(values)

    def y(value: float) -> float:
        return round(3 + (high - value) / ((high - low) or 1) * 26, 1)

    def x(at_s: float) -> float:
        return round(4 + (at_s - first) / ((last - first) or 1) * 88, 1)

    parts = ['<svg class="spark" width="96" height="32" aria-hidden="true" focusable="false">']
    for bottom, top in bands:
        if (bottom, top) != (None, None):
            upper, lower = 0 if top is None else y(top), 32 if bottom is None else y(bottom)
            parts.append(f'<rect class="band" x="0" y="{upper}" width="96" height="{max(lower - upper, 1):.1f}"/>')
    for line, view in zip(drawn, views, strict=True):
        path = "L".join(f"{x(at_s)} {y(value)}" for at_s, value in line)
        away = " away" if view.is_unusual else ""
        parts.append(f'<path class="line" d="M{path}"/>')
        parts.append(f'<circle class="dot{away}" cx="{x(line[-1][0])}" cy="{y(line[-1][1])}" r="3"/>')
    return "".join([*parts, "</svg>"])


def drawable(found: Number | None) -> float | None:
    """Return a number that can be drawn, else None."""
    return float(found) if found is not None and -DRAWN_MAX < found < DRAWN_MAX else None
