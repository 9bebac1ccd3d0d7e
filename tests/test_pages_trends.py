"""The pages of trends: their charts, windows and notes."""

import html
import re
from datetime import UTC, datetime, timedelta

import pytest
from support.factories import record, take
from support.page_client import Browser, plain
from support.page_data import history, result, temperatures

from myhealth.reports.writer import ReportWriter
from myhealth.sync.runner import run_pass
from wsgi.browse_pages import charts, trends


def test_a_long_trend_goes_on_to_its_first_value(browser: Browser, people, settings, reports, monkeypatch) -> None:
    monkeypatch.setattr(trends, "REPORTS_MAX", 2)
    take(*history("bholanath", 4))
    run_pass(settings.database_url, ReportWriter(reports), settings)
    browser.log_in("bholanath")
    seen, path = [], "/my/trends?code=8480-6"
    while path:
        page = browser.get(path).text
        seen.append(re.findall(r'<th scope="row"><a class="nowrap" href="/my/reports/(\d+)"', page))
        found = re.search(r'href="([^"]+)" rel="next"', page)
        assert ("2 values, the newest first; there are earlier ones" in page) == (found is not None)
        path = html.unescape(found.group(1)) if found else ""
    assert [len(page) for page in seen] == [2, 2]
    assert len({number for page in seen for number in page}) == 4


def test_values_of_one_day_are_told_apart_by_their_time(browser: Browser, people, settings, reports) -> None:
    times = ("2026-11-20T03:44:00Z", "2026-11-20T12:00:00Z", "2026-11-20T14:05:00Z", "2026-11-21T09:00:00Z")
    known = (None, "day", None, None)
    take(*[record(i, taken_at=at, taken_precision=known[i]) for i, at in enumerate(times)])
    run_pass(settings.database_url, ReportWriter(reports), settings)
    browser.log_in("bholanath")
    rows = re.findall(r'<th scope="row"><a [^>]*>(.*?)</a>', browser.get("/my/trends?code=8480-6").text)
    assert [" ".join(re.sub("<[^>]+>", "", row).split()) for row in rows] == ["21 Nov 2026", "20 Nov 2026 14:05", "20 Nov 2026", "20 Nov 2026 03:44"]  # fmt: skip


def test_a_long_trend_is_shown_for_some_time_only(browser: Browser, people, settings, reports) -> None:
    now = datetime.now(UTC)
    ages = [*range(5, 75, 10), 200, 300, 700, 800, 3000, 4000]
    take(*[record(i, taken_at=(now - timedelta(days=days)).isoformat()) for i, days in enumerate(ages)])
    take(record("old", taken_at="2020-01-01T00:00:00Z", results=[result("Grip", 40, "kg")]))
    run_pass(settings.database_url, ReportWriter(reports), settings)
    browser.log_in("bholanath")
    whole = browser.get("/my/trends?code=8480-6").text
    nav = re.search(r'<nav class="screen" aria-label="Which values">.*?</nav>', whole, re.DOTALL).group()
    counts = {}
    for path in map(html.unescape, re.findall(r'href="([^"]+)"', nav)):
        counts[path] = browser.get(path).text.count('<th scope="row">')
    assert list(counts.values()) == [13, 11, 9, 7]
    assert "Which values" not in browser.get("/my/trends?name=Grip").text, "few values need no choice"
    none = browser.get("/my/trends?name=Grip&months=3")
    assert none.status_code == 200
    assert "The newest value is of 1 January 2020." in none.text
    assert browser.get("/my/trends?name=Nothing&months=3").status_code == 404
    for wrong in ("x", "-3", "4", "3.0"):
        assert browser.get(f"/my/trends?code=8480-6&months={wrong}").status_code == 400


def test_a_trend_draws_its_values_at_their_true_distances(browser: Browser, people, settings, reports) -> None:
    days = ("2026-01-01", "2026-01-11", "2026-04-11")
    take(*[record(i, taken_at=f"{day}T00:00:00Z", results=[{"code": "8480-6", "name": "Systolic", "value": value, "unit": "mm[Hg]", "low": 90, "high": 120}]) for i, (day, value) in enumerate(zip(days, (100, 130, 80), strict=True))])  # fmt: skip
    run_pass(settings.database_url, ReportWriter(reports), settings)
    browser.log_in("bholanath")
    text = browser.get("/my/trends?code=8480-6").text
    svg = re.search(r"<svg[^>]*plot.*?</svg>", text, re.DOTALL).group()
    for forbidden in ("<script", "<style", "style=", "http://www.w3.org/1999/xlink", "onload"):
        assert forbidden not in svg
    line = re.search(r'<path class="line" d="M([^"]+ [^"]+L[^"]+)"', svg).group(1)
    points = [tuple(map(float, pair.split())) for pair in re.findall(r"[\d.]+ [\d.]+", line)]
    assert len(points) == 3, line
    assert (points[2][0] - points[1][0]) / (points[1][0] - points[0][0]) == pytest.approx(9, rel=0.01)
    assert svg.count("dot away") == 2
    band = re.search(r'class="band" x="[\d.]+" y="([\d.]+)" width="[\d.]+" height="([\d.]+)"', svg)
    top, height = map(float, band.groups())
    assert points[1][1] < top < points[0][1] < top + height < points[2][1]
    assert text.count('<th scope="row">') == 3


def test_what_no_living_body_has_is_called_hardly_possible_and_presses_no_chart_flat(
    browser: Browser, people, settings, reports
) -> None:
    take(*temperatures("bholanath"))
    run_pass(settings.database_url, ReportWriter(reports), settings)
    browser.log_in("bholanath")
    listed = browser.get("/my/")
    assert "◆Body temperature 366 °C, hardly possible" in plain(listed)
    assert "+1.3 since 10 Nov 2026" in plain(listed), "an impossible value is no last time"
    newest, number = re.findall(r'"/my/reports/(\d+)"', listed.text)[:2]
    assert "366" not in plain(browser.get(f"/my/reports/{newest}")), "an impossible value is no last time"
    report = browser.get(f"/my/reports/{number}")
    assert "Please ask the place where it was measured." in plain(report)
    assert "above" not in plain(report)
    assert "meter" not in report.text
    assert "◆ hardly possible. No living body" in plain(browser.get("/my/print"))
    trend = browser.get("/my/trends?code=8310-5")
    assert "and not drawn in the chart" in plain(trend)
    assert "366" in plain(trend)
    svg = re.search(r"<svg[^>]*plot.*?</svg>", trend.text, re.DOTALL).group()
    assert ", 2 values from 10 November 2026" in trend.text
    scale = [float(text) for text in re.findall(r">(\d+(?:\.\d+)?)</text>", svg)]
    assert scale
    assert max(scale) < 45


def test_what_a_chart_does_not_draw_is_told(browser: Browser, people, settings, reports) -> None:
    values = [5.1, "<3", "trace", "5.4", 10**18]
    records = [
        record(f"g{i}", "bholanath", taken_at=f"2026-11-1{i}T08:00:00Z", results=[result("Glucose", value, "mmol/L", 3.9, 6.1)])
        for i, value in enumerate(values)
    ]  # fmt: skip
    take(*records)
    run_pass(settings.database_url, ReportWriter(reports), settings)
    browser.log_in("bholanath")
    trend = browser.get("/my/trends?name=Glucose")
    assert "2 values are not drawn in the chart" in plain(trend)
    assert "A value such as <3 is drawn at its number; it lies beyond it." in plain(trend)
    (svg,) = re.findall(r"<svg[^>]*plot.*?</svg>", trend.text, re.DOTALL)
    assert svg.count('class="dot"') == 2, "5.1, and 5.4, which was sent as text"
    assert svg.count('class="dot away"') == 1, "<3, below"
    for expected in (
        "<3▼ below the usual range",
        "trace– cannot be compared with the range",
        "5.4✓ within",
        f"{10**18}▲ above",
    ):
        assert expected in plain(trend), expected


@pytest.mark.parametrize(
    ("value", "label"),
    [(0.0, "0"), (120.0, "120"), (37.2, "37.2"), (0.1 + 0.2, "0.3"), (4.6e6, "4600000"), (-2e6, "-2000000"), (3.2e-5, "0.000032"), (1e12, "1e+12")],
)  # fmt: skip
def test_the_axis_of_a_chart_has_digits_and_no_exponents(value: float, label: str) -> None:
    assert charts.axis_number(value) == label


def test_a_trend_by_name_is_of_what_has_no_code(browser: Browser, people, settings, reports) -> None:
    """As many as the list of measurements tells."""
    results = [
        {"name": "Grip", "value": 40, "unit": "kg"},
        {"code": "83174-9", "name": "Grip", "value": 41, "unit": "kg"},
    ]
    take(record(1, results=results))
    run_pass(settings.database_url, ReportWriter(reports), settings)
    browser.log_in("bholanath")
    for asked, value in (("name=Grip", "40"), ("code=83174-9", "41")):
        assert re.findall(r'<td dir="auto">(\d+)</td>', browser.get(f"/my/trends?{asked}").text) == [value]


def test_a_trend_is_of_one_test_in_one_unit_of_one_specimen(browser: Browser, people, settings, reports) -> None:
    """All codes of a test, all spellings of a unit; urine is another thing than blood."""
    sent = [("2345-7", "mg/dL", None, 90), ("2339-0", "mg/dl", "Serum", 95), ("2345-7", "mmol/L", None, 5), ("2345-7", "mg/dL", "Urine", 3)]  # fmt: skip
    results = [{**result("Glucose", value, unit, code=code), "specimen": kind} for code, unit, kind, value in sent]
    take(*[record(i, taken_at=f"2026-11-0{i + 1}T09:00:00Z", results=[each]) for i, each in enumerate(results)])
    run_pass(settings.database_url, ReportWriter(reports), settings)
    browser.log_in("bholanath")
    overview = plain(browser.get("/my/trends"))
    for latest in ("Glucose, urine 3 mg/dL", "Glucose ✓5 mmol/L"):
        assert latest in overview, "each specimen once, in the unit of its latest value"
    pages = [browser.get(f"/my/trends?code={code}").text for code in ("2345-7", "2339-0")]
    for page in pages:
        sections = page.split("<section")[1:4]
        assert [re.findall(r'<td dir="auto">(\d+)</td>', section) for section in sections] == [
            ["3"],
            ["5"],
            ["95", "90"],
        ]
        assert "In <bdi>mg/dL</bdi>, urine" in page
    assert len(re.findall(r'class="row" href="/my/reports/', browser.get("/my/?code=2339-0").text)) == 4


def test_a_value_is_drawn_at_its_own_moment_and_an_undated_one_not_at_all(
    browser: Browser, people, settings, reports
) -> None:
    grip = result("Grip", 40, "kg")
    profile = [{**grip, "value": value, "taken_at": f"2026-11-0{day}T09:00:00Z"} for value, day in ((41, 3), (42, 1))]
    take(
        record(1, taken_at="2026-11-02T09:00:00Z", results=[grip, *profile]),
        record(2, taken_at=None, taken_precision="unknown", results=[{**grip, "value": 99}]),
    )
    run_pass(settings.database_url, ReportWriter(reports), settings)
    browser.log_in("bholanath")
    page = browser.get("/my/trends?name=Grip").text
    rows = [" ".join(re.sub("<[^>]+>", " ", row).split()) for row in re.findall(r"<tr>(<th scope=.row.*?</td>)", page)]
    assert rows == ["3 Nov 2026 41", "2 Nov 2026 40", "1 Nov 2026 42", "time not known 99"]
    svg = re.search(r"<svg[^>]*plot.*?</svg>", page, re.DOTALL).group()
    assert svg.count('class="dot"') == 3
    assert "1 Nov 2026" in svg
    assert "1 value is not drawn in the chart, for it is not known when" in plain(browser.get("/my/trends?name=Grip"))
