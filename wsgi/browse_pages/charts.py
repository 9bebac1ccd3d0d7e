"""A measurement over time as an inline SVG: the dates at their true distances, the usual range as a band behind.

The style sheet gives the colours, so that the chart follows light, dark and paper. The SVG has no script and no style
of its own, for the pages' policy allows neither. The band shows the range that each result had at its time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from html import escape
from itertools import groupby

from myhealth.clinical.ranges import ABOVE, BELOW
from wsgi.browse_pages.dates import Dates
from wsgi.browse_pages.result_view import OUTSIDE

# So few units that letters and dots can be read on a phone.
WIDTH, HEIGHT = 400, 220
TOP, RIGHT, BOTTOM = 8, 390, 192  # the plot's edges; its left edge depends on the labels
INSET = 7  # between the plot's edges and the first and the last point
POINTS_MAX = 2000
TICKS_MAX = 6
NICE_STEPS = (1, 2, 2.5, 5, 10)
DOT, SMALL_DOT, MANY_POINTS = 3.8, 2.4, 30


@dataclass(frozen=True)
class Point:
    """One measured number with its range at that time. `position`: ABOVE, BELOW, OUTSIDE or another one."""

    at: datetime
    value: float
    low: float | None
    high: float | None
    position: str


@dataclass(frozen=True)
class Scale:
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


def chart(points: Sequence[Point], dates: Dates, label: str) -> str:
    """Return the SVG of points in order of time. `label`: a description for readers who cannot see the chart."""
    points = points[-POINTS_MAX:]
    low, high = _span(points)
    values = value_ticks(low, high)
    left = 32 + 6 * max(len(digits(value)) for value in values)
    scale = Scale(left, points[0].at.timestamp(), points[-1].at.timestamp(), low, high)
    size = DOT if len(points) < MANY_POINTS else SMALL_DOT
    parts = [
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">',
        *_bands(points, scale),
        *_value_axis(values, scale),
        *_day_axis(points, dates, scale),
        _line(points, scale),
        *(_dot(point, scale, size) for point in points),
        "</svg>",
    ]
    return "".join(parts)


def digits(value: float) -> str:
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


def _day_ticks(points: Sequence[Point], dates: Dates) -> list[datetime]:
    """Return four days at even distances from the first to the last; within three days only these two."""
    first, last = points[0].at.astimezone(dates.zone), points[-1].at.astimezone(dates.zone)
    if last - first < timedelta(days=3):
        return [first] if dates.day(first) == dates.day(last) else [first, last]
    return [first + (last - first) * part / 3 for part in range(4)]


def _value_axis(values: Sequence[float], scale: Scale) -> Iterator[str]:
    yield f'<g class="axis y"><path class="line" d="M{scale.left} {TOP}V{BOTTOM}"/>'
    for value in values:
        y = scale.y(value)
        yield f'<path class="guide" d="M{scale.left} {y}H{RIGHT}"/>'
        yield f'<text x="{scale.left - 5}" y="{y + 3.5:.2f}">{digits(value)}</text>'
    yield "</g>"


def _day_axis(points: Sequence[Point], dates: Dates, scale: Scale) -> Iterator[str]:
    """The first and the last label end at the plot's edges. A phone has no room for those between."""
    ticks = _day_ticks(points, dates)
    yield f'<g class="axis x"><path class="line" d="M{scale.left} {BOTTOM}H{RIGHT}"/>'
    for number, tick in enumerate(ticks):
        name = "first" if number == 0 else "last" if number == len(ticks) - 1 else "between"
        yield f'<text class="{name}" x="{scale.x(tick.timestamp())}" y="{BOTTOM + 15}">{dates.short_day(tick)}</text>'
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


def _line(points: Sequence[Point], scale: Scale) -> str:
    """Return the line through all points."""
    path = "L".join(f"{scale.x(point.at.timestamp())} {scale.y(point.value)}" for point in points)
    return f'<path class="line" d="M{path}"/>'


def _dot(point: Point, scale: Scale, size: float) -> str:
    """Return the mark of one point; a value outside its range has a shape of its own."""
    x, y = scale.x(point.at.timestamp()), scale.y(point.value)
    reach, half, tall = round(1.7 * size, 2), round(1.53 * size, 2), round(2.63 * size, 2)
    shapes = {
        ABOVE: f"M{x} {y - reach:.2f}l{half} {tall}h-{2 * half:.2f}Z",
        BELOW: f"M{x} {y + reach:.2f}l{half}-{tall}h-{2 * half:.2f}Z",
        OUTSIDE: f"M{x} {y - reach:.2f}l{reach} {reach}l-{reach} {reach}l-{reach}-{reach}Z",
    }
    shape = shapes.get(point.position)
    return f'<path class="dot away" d="{shape}"/>' if shape else f'<circle class="dot" cx="{x}" cy="{y}" r="{size}"/>'
