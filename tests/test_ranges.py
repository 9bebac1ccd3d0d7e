"""Where values lie in their reference ranges."""

from decimal import Decimal
from typing import Any

import pytest
from support.factories import document
from support.page_data import present

from myhealth.clinical import catalog
from myhealth.clinical.in_words import usual_range
from myhealth.clinical.ranges import ABOVE, BELOW, WITHIN, classify, compare, is_outside, parse_measurement
from myhealth.reports.documents import finish_results
from wsgi.browse_pages.result_view import meter_of

PLACES: list[tuple[Any, Any, Any, str | None]] = [
    (128, 90, 120, ABOVE),
    (120, 90, 120, WITHIN),
    (90.0, 90, 120, WITHIN),
    (89.9, 90, None, BELOW),
    (5, None, 5, WITHIN),
    (5, None, 4.9, ABOVE),
    (5, None, None, None),
    # As they are written: the binary fraction of 36.1 is a hair above it.
    (Decimal("36.10"), 36.1, 37.2, WITHIN),
    (36.1, Decimal("36.10"), None, WITHIN),
    (Decimal("37.20"), 36.1, 37.2, WITHIN),
    (Decimal("37.21"), 36.1, 37.2, ABOVE),
    (10**30, 1, 2, ABOVE),
    (Decimal("1E+999"), 1, 1e308, ABOVE),
    # Numbers that were sent as text.
    ("230", 90, 120, ABOVE),
    (" 2 ", 4, 6, BELOW),
    ("+5.0", 4, 6, WITHIN),
    # What lies beyond all that an instrument can measure.
    ("<3", 70, 99, BELOW),
    ("< 70", 70, 99, BELOW),
    ("<=70", 70, 99, None),
    ("≤69", 70, 99, BELOW),
    ("<71", 70, 99, None),
    ("<0.5", 0, 5, WITHIN),
    ("<5", None, 5, WITHIN),
    ("<=5", 0, 5, WITHIN),
    ("<5.1", None, 5, None),
    (">14", 4, 5.6, ABOVE),
    (">5.6", 4, 5.6, ABOVE),
    (">=5.6", 4, 5.6, None),
    ("≥5.7", 4, 5.6, ABOVE),
    (">60", 60, None, WITHIN),
    (">60", 60, 90, None),
    (">59", 60, None, None),
    # Nothing that can be compared.
    ("positive", 0, 1, None),
    ("120/80", 90, 120, None),
    ("5 - 10", 1, 2, None),
    ("1e9", 0, 1, None),
    ("", 0, 1, None),
    (None, 0, 1, None),
    (True, 0, 0, None),
    ([5], 0, 1, None),
    (float("nan"), 0, 1, None),
    (5, "1", "2", None),
    (5, float("nan"), None, None),
    (Decimal("sNaN"), 0, 1, None),
]  # fmt: skip


@pytest.mark.parametrize(("value", "low", "high", "place"), PLACES)
def test_a_value_lies_where_its_range_says(value: Any, low: Any, high: Any, place: str | None) -> None:
    assert classify(value, low, high) == place
    assert is_outside(value, low, high) == (place in (ABOVE, BELOW))


def test_what_a_value_measures() -> None:
    assert parse_measurement(5.1) == ("", 5.1)
    assert parse_measurement("5.10") == ("", Decimal("5.10"))
    assert parse_measurement("≥ 14") == (">=", Decimal(14))
    assert parse_measurement("12345678901") is None
    assert parse_measurement("<") is None


@pytest.mark.parametrize(
    ("result", "abnormal"),
    [
        ('"value": 130, "low": 90, "high": 120, "flag": null', True),
        ('"value": 130, "low": 90, "high": 120', True),
        ('"value": 130, "low": 90, "high": 120, "flag": "N"', True),  # what a page marks, a filter finds
        ('"value": 110, "low": 90, "high": 120, "flag": null', False),
        ('"value": 110, "low": 90, "high": 120, "flag": "H"', True),
        ('"value": "<3", "low": 70, "high": 99, "flag": null', True),
        ('"value": "2", "low": 4, "high": null', True),
        ('"value": 36.10, "low": 36.1, "high": 37.2', False),
        ('"value": 130', False),
        ('"value": {"odd": 1}, "low": [], "high": "x"', False),
    ],
)
def test_a_report_is_abnormal_where_a_result_is_flagged_or_lies_outside_its_range(result: str, abnormal: bool) -> None:
    assert document(1, results="[null, {" + result + "}]")["abnormal"] is abnormal


@pytest.mark.parametrize("low", [None, 0, -1e308, 1e308, Decimal("1E+999"), Decimal("-1E+999")])
@pytest.mark.parametrize("high", [None, 1, 1e308, Decimal("1E+999")])
@pytest.mark.parametrize("value", [0, 1e308, -1e308, 10**400, Decimal("1E+999"), Decimal("-1E+999"), "999999999"])
def test_a_meter_has_no_value_that_a_page_cannot_draw(value: Any, low: Any, high: Any) -> None:
    shown = present({"name": "x", "value": value, "low": low, "high": high})
    found = meter_of(shown)
    assert found is None or 0 <= found.at <= 100


def test_the_catalogue_judges_a_bound_too_where_it_tells() -> None:
    def judged(value: Any) -> tuple[Any, ...]:
        found = catalog.findings("2339-0", value, "mg/dL", None, None, None, None)
        assert "warning" not in found
        return value, found["low"], found["high"], found["flag"], found["range_source"]

    assert judged("<3") == ("<3", 70, 139, "L", "catalogue")
    assert judged(">600") == (">600", 70, 139, "H", "catalogue")
    assert judged(">99999") == (">99999", 70, 139, "H", "catalogue"), "who knows how far beyond; no warning"
    assert judged("<80") == ("<80", 70, 139, None, "catalogue"), "it may lie within or below"


OPEN_ENDS = [
    ("<150", None, 150, ABOVE), ("< 150 mg/dL", None, 150, ABOVE), ("less than 150", None, 150, ABOVE),
    ("Below 150", None, 150, ABOVE), (">60", 60, None, BELOW), ("greater than 60", 60, None, BELOW),
    ("<=150", None, 150, WITHIN), ("< = 150", None, 150, WITHIN), ("< or = 150", None, 150, WITHIN),
    ("\u2264150", None, 150, WITHIN), ("less than or equal to 150", None, 150, WITHIN), ("up to 150", None, 150, WITHIN),
    ("> OR = 60", 60, None, WITHIN), ("60 or more", 60, None, WITHIN), (None, None, 150, WITHIN),
    ("<150", 0, 150, WITHIN),
]  # fmt: skip


@pytest.mark.parametrize(("text", "low", "high", "position"), OPEN_ENDS)
def test_an_end_that_the_words_exclude_is_outside(text, low, high, position) -> None:
    end = high if low is None or high is not None else low
    found = {"value": end, "low": low, "high": high, "range_text": text, "flag": None}
    assert compare(found).position == position
    assert finish_results([dict(found)])[0] is (position != WITHIN)
    assert compare({**found, "flag": "N"}).position == WITHIN  # its source knows
    assert compare({**found, "value": end - 1 if high is not None else end + 1}).position == WITHIN
    assert compare({**found, "value": Decimal(f"{end}.0")}).position == position
    usual, _ = usual_range({**found, "unit": "mg/dL"}, compare(found))
    assert usual.startswith(("below ", "above ")) is (position != WITHIN)
