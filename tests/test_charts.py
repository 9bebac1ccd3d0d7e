"""The SVG of a chart: its ticks, its dots, its band and its label."""

from __future__ import annotations

import itertools
import re
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree

import pytest

from wsgi.browse_pages.charts import DOT, SMALL_DOT, TICKS_MAX, TINY_DOT, Point, chart, value_ticks
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


@pytest.mark.parametrize(("count", "large"), [(29, 29), (30, 3), (500, 3)])
def test_many_points_have_small_dots_but_for_the_last_and_the_outermost(count: int, large: int) -> None:
    values = [100.0 + i % 7 + (i == 3) - (i == 5) * 9 for i in range(count)]
    svg = chart([points(values)], Dates("UTC"))
    sizes = [float(text) for text in re.findall(r'class="dot" [^>]*r="([\d.]+)"', svg)]
    assert len(sizes) == count
    assert sizes.count(DOT) == large
    assert sizes.count(TINY_DOT if count == 500 else SMALL_DOT) == count - large


@pytest.mark.parametrize("count", [29, 30, 500])
@pytest.mark.parametrize("position", ["above", "below", "outside"])
def test_a_point_outside_its_range_has_a_shape_however_many_there_are(count: int, position: str) -> None:
    line = [
        Point(BEGIN + timedelta(days=i), 100.0 + i, None, None, position if i % 2 else "within", "", "")
        for i in range(count)
    ]
    root = ElementTree.fromstring(chart([line], Dates("UTC")))
    marks = [each.tag for each in root.iter() if "dot" in each.get("class", "")]
    assert marks == ["path" if i % 2 else "circle" for i in range(count)]


def test_a_long_gap_is_dashed_and_each_point_says_its_value_and_leads_to_its_report() -> None:
    at = [BEGIN + timedelta(days=days) for days in (0, 1, 2, 3, 4, 30, 31)]
    line = [Point(when, 100, None, None, "within", "100 <mmHg>", "/my/reports/1?a&b") for when in at]
    root = ElementTree.fromstring(chart([line], Dates("UTC")))
    lines = [path.get("class") for path in root.findall("path") if "line" in path.get("class", "")]
    assert lines == ["line", "line gap", "line"]
    assert {title.text for title in root.iter("title")} == {"100 <mmHg>"}
    assert {(link.get("href"), link.get("tabindex")) for link in root.iter("a")} == {("/my/reports/1?a&b", "-1")}
    assert root.get("aria-hidden") == "true"


@pytest.mark.parametrize("days", [0, 0.1, 1, 400])
def test_every_point_lies_in_the_plot_of_a_well_formed_svg(days: float) -> None:
    root = ElementTree.fromstring(chart([points([-5.0, 1e6, 3.0], days, None, 10.0)], Dates("UTC")))
    width, height = map(float, root.get("viewBox", "").split()[2:])
    dots = list(root.iter("circle"))
    assert len(dots) == 3
    for dot in dots:
        assert 0 < float(dot.get("cx", "")) < width
        assert 0 < float(dot.get("cy", "")) < height
    assert root.find("rect") is not None
