"""A measurement over time as an inline SVG: the dates at their true distances, the usual range as a band behind.

pygal draws it on the server. What it adds of scripts and styles is taken out, for the pages' policy lets neither in;
the colours are the style sheet's, so that the chart follows light, dark and paper. The band is made of what each
result said its range was at the time.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import groupby
from typing import Any
from xml.etree import ElementTree

import pygal

from myhealth.clinical.ranges import ABOVE, BELOW
from wsgi.browse_pages.dates import Dates
from wsgi.browse_pages.result_view import OUTSIDE

# pygal leaves a finder for its maps behind, of a kind that Python has given up: every later import that finds nothing
# would warn of it.
sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__module__ != "pygal"]

# So few units that letters and dots can be read where a phone presses them together.
WIDTH, HEIGHT = 400, 220
POINTS_MAX = 2000
DOT, REACH = 3.8, 6.5
AWAY = {ABOVE: "M{x} {t}l5.8 10h-11.6Z", BELOW: "M{x} {b}l5.8-10h-11.6Z", OUTSIDE: "M{x} {t}l6 6l-6 6l-6-6Z"}


@dataclass(frozen=True)
class Point:
    """One measured number: when, how much, its range then, and where it lies (wording.ABOVE and so on)."""

    at: datetime
    value: float
    low: float | None
    high: float | None
    place: str


def chart(points: Sequence[Point], dates: Dates, label: str) -> str:
    """The SVG of points that are in order of time. `label`: what it shows, for who cannot see it."""
    points = points[-POINTS_MAX:]
    plot = pygal.DateTimeLine(
        js=[],
        css=[],
        no_prefix=True,
        disable_xml_declaration=True,
        show_legend=False,
        width=WIDTH,
        height=HEIGHT,
        margin=8,
        margin_left=22,
        margin_right=10,
        show_dots=False,
        min_scale=3,
        max_scale=7,
        range=_span(points),
        x_labels=_ticks(points, dates),
        x_value_formatter=dates.short_day,
        truncate_label=-1,
        value_formatter=digits,
    )
    plot.add("", [(point.at.astimezone(dates.zone), point.value) for point in points])
    plot.add_xml_filter(lambda root: _redraw(root, points, plot.view))
    root = plot.render_tree()
    root.set("role", "img")
    root.set("aria-label", label)
    return ElementTree.tostring(root, encoding="unicode")


def digits(value: float) -> str:
    """5000000 and 0.000032, which %g would write as 5e+06 and 3.2e-05; that form is left to what no label can hold."""
    return f"{Decimal(f'{value:.6g}'):f}" if value == 0 or 1e-7 <= abs(value) < 1e9 else f"{value:.6g}"


def _redraw(root: Any, points: Sequence[Point], view: Any) -> Any:
    """The chart as the pages have it; `view` says where a moment and a value lie."""
    _strip(root)
    area = next(group for group in root.iter("g") if group.get("class") == "plot")
    for band in reversed(_bands(points, view)):
        area.insert(0, band)
    area.extend(_dots(points, view))
    _hold_ticks(root)
    return root


def _span(points: Sequence[Point]) -> tuple[float, float]:
    """From the lowest to the highest of values and ranges, with some air."""
    seen = [each for point in points for each in (point.value, point.low, point.high) if each is not None]
    low, high = min(seen), max(seen)
    air = (high - low) * 0.08 or abs(high) * 0.1 or 1
    return low - air, high + air


def _ticks(points: Sequence[Point], dates: Dates) -> list[datetime]:
    """Four days at even distances from the first to the last; the days themselves where there are few."""
    first, last = points[0].at.astimezone(dates.zone), points[-1].at.astimezone(dates.zone)
    if last - first < timedelta(days=3):
        return [first] if dates.day(first) == dates.day(last) else [first, last]
    return [first + (last - first) * part / 3 for part in range(4)]


def _bands(points: Sequence[Point], view: Any) -> list[Any]:
    """The usual range over the width of the chart, each change of it half-way between two points."""
    bands, begin = [], 0
    for (low, high), same in groupby(points, key=lambda point: (point.low, point.high)):
        end = begin + len(list(same))
        if (low, high) != (None, None):
            left = _edge(points, begin, view) if begin else 0
            right = _edge(points, end, view) if end < len(points) else view.width
            top = view.y(high) if high is not None else 0
            bottom = view.y(low) if low is not None else view.height
            bands.append(
                _element("rect", "band", x=left, y=top, width=max(right - left, 1), height=max(bottom - top, 1))
            )
        begin = end
    return bands


def _edge(points: Sequence[Point], i: int, view: Any) -> float:
    return float(view.x((points[i - 1].at.timestamp() + points[i].at.timestamp()) / 2))


def _hold_ticks(root: Any) -> None:
    """The first and the last day end where the chart does; between them are those that a phone has no room for."""
    (axis,) = [group for group in root.iter("g") if group.get("class") == "axis x"]
    texts = list(axis.iter("text"))
    for number, text in enumerate(texts):
        text.set("class", "first" if number == 0 else "last" if number == len(texts) - 1 else "between")


def _dots(points: Sequence[Point], view: Any) -> list[Any]:
    """One for each point; what lies outside its range has another shape. (pygal's own would take ten times as long.)"""
    dots = []
    for point in points:
        x, y = round(float(view.x(point.at.timestamp())), 2), round(float(view.y(point.value)), 2)
        if point.place in AWAY:
            shape = AWAY[point.place].format(x=x, t=round(y - REACH, 2), b=round(y + REACH, 2))
            dots.append(_element("path", "dot away", d=shape))
        else:
            dots.append(_element("circle", "dot", cx=x, cy=y, r=DOT))
    return dots


def _strip(root: Any) -> None:
    """Takes out scripts, styles, tooltips, and titles that would repeat each label; comments too."""
    for parent in list(root.iter()):
        for child in list(parent):
            of = child.get("class") or ""
            unwanted = child.tag in ("defs", "title", "desc", "script", "style") or not isinstance(child.tag, str)
            if unwanted or of == "tooltip" or "text-overlay" in of:
                parent.remove(child)
    root.attrib.pop("id", None)


def _element(tag: str, of: str, **attributes: Any) -> Any:
    texts = {name: str(round(each, 2) if isinstance(each, float) else each) for name, each in attributes.items()}
    return ElementTree.Element(tag, {"class": of, **texts})
