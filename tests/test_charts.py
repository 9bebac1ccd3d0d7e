"""The SVG of a chart: its ticks, its dots, its band and its label."""

from __future__ import annotations

import itertools
import re
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree

import pytest

from wsgi.browse_pages.charts import DOT, SMALL_DOT, TICKS_MAX, Point, chart, value_ticks
from wsgi.browse_pages.dates import Dates

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def points(values: list[float], days: float = 1, low: float | None = 90, high: float | None = 120) -> list[Point]:
    """Points at even distances, all within their range."""
    return [Point(BEGIN + timedelta(days=days * i), value, low, high, "within") for i, value in enumerate(values)]


@pytest.mark.parametrize(
    ("low", "high"),
    [(67.2, 146.4), (0.0, 1.0), (-3.0, 7.0), (0.00001, 0.00002), (1e14, 9e14), (119.5, 120.5), (-1e15, 1e15)],
)
def test_ticks_are_round_even_and_within_the_span(low: float, high: float) -> None:
    ticks = value_ticks(low, high)
    assert 3 <= len(ticks) <= TICKS_MAX + 1
    assert low <= ticks[0]
    assert ticks[-1] <= high
    steps = [after - before for before, after in itertools.pairwise(ticks)]
    assert steps == pytest.approx([steps[0]] * len(steps))
    assert float(f"{steps[0]:.6e}".partition("e")[0]) in (1, 2, 2.5, 5)


@pytest.mark.parametrize(("count", "size"), [(29, DOT), (30, SMALL_DOT), (500, SMALL_DOT)])
def test_many_points_have_small_dots(count: int, size: float) -> None:
    svg = chart(points([100.0 + i % 7 for i in range(count)]), Dates("UTC"), "Pulse")
    assert {float(text) for text in re.findall(r'class="dot" [^>]*r="([\d.]+)"', svg)} == {size}
    assert svg.count('class="dot"') == count


@pytest.mark.parametrize("days", [0, 0.1, 1, 400])
def test_every_point_lies_in_the_plot_of_a_well_formed_svg(days: float) -> None:
    root = ElementTree.fromstring(chart(points([-5.0, 1e6, 3.0], days, None, 10.0), Dates("UTC"), '<"&> of Pulse'))
    assert root.get("aria-label") == '<"&> of Pulse'
    width, height = map(float, root.get("viewBox", "").split()[2:])
    dots = root.findall("circle")
    assert len(dots) == 3
    for dot in dots:
        assert 0 < float(dot.get("cx", "")) < width
        assert 0 < float(dot.get("cy", "")) < height
    assert root.find("rect") is not None
