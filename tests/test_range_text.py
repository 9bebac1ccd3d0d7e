"""Reference ranges in plain words: read exactly, or not at all."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from myhealth.clinical.range_text import parse_range

PLAIN: list[tuple[str, Any, Any]] = [
    ("135 - 145", 135, 145),
    ("(135-145)", 135, 145),
    ("[4-10]", 4, 10),
    ("135–145", 135, 145),
    ("70_105", 70, 105),
    ("4..10", 4, 10),
    ("3.5 to 5.1", 3.5, 5.1),
    ("between 4 and 10", 4, 10),
    (">=3.5 and <5.1", 3.5, 5.1),
    ("Normal: 3.5-5.1", 3.5, 5.1),
    ("Reference range 4.0 - 10.0", 4.0, 10.0),
    ("> OR = 60", 60, None),
    (">= 60", 60, None),
    ("≥60", 60, None),
    ("60 or more", 60, None),
    ("at least 60", 60, None),
    ("up to 250", None, 250),
    ("<150", None, 150),
    ("< OR = 150", None, 150),
    ("less than 150", None, 150),
    ("150 or less", None, 150),
    ("<.5", None, 0.5),
    ("03.9-05.50", 3.9, Decimal("5.50")),
    ("-2.0 - +2.0", -2.0, 2.0),
    ("-5--1", -5, -1),
    ("-5 - -1", -5, -1),
    ("3,5-5,1", 3.5, 5.1),
    ("0,125 - 0,3", 0.125, 0.3),
    ("1e3-1e4", 1000, 10000),
    ("0.0-5.0 mg/L", 0.0, 5.0),
    ("0.0 mg/l - 5.0 MG/L", 0.0, 5.0),
    ("< 5 mg/L", None, 5),
]
REFUSED = (
    "M: 13-17 F: 12-15|see note|2026-11-20|05-2026|11/12-13|1:40|<1:64|1,000-2,000|12-16 (F)|70-99 fasting|5|5.|10-5|-||negative"
    "|Normal|<5-10|120/80|2.5-5.0 g/dL or 25-50|1.5-10,5|0-5 g/L|0-5 %|1-2-3|<5 <6|nan - inf|٣-٥|"
    + "9" * 40
    + "-"
    + "9" * 41
).split("|")


@pytest.mark.parametrize(("text", "low", "high"), PLAIN)
def test_a_plain_range_is_read_with_its_digits(text: str, low: Any, high: Any) -> None:
    assert parse_range(text, "mg/L") == (low, high)


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_not_plain_is_refused(text: str) -> None:
    assert parse_range(text, "mg/L") is None


def test_a_unit_that_is_not_the_results_is_refused() -> None:
    assert parse_range("3.5-5.1 mmol/L", "mmol/l") == (3.5, 5.1)
    assert parse_range("3.5-5.1 mmol/L", "mg/dL") is None
    assert parse_range("3.5-5.1 mmol/L") is None
    assert parse_range("4.0 - 10.0 x10^9/L", "10*9/L") == (4.0, 10.0)


def exact(found: tuple[Any, Any] | None) -> tuple[str, ...] | None:
    """Return the ends with the digits that they keep."""
    return None if found is None else tuple(str(end) for end in found)


numbers = st.decimals(-10_000, 10_000, places=3).filter(lambda n: str(n) != "-0.000") | st.integers(-10_000, 10_000)


@given(numbers, numbers, st.sampled_from(["-", " - ", " to ", "–", " – ", ".."]))
def test_two_numbers_in_order_are_read_as_they_stand(one: Any, other: Any, between: str) -> None:
    low, high = sorted((one, other))
    assert exact(parse_range(f"{low}{between}{high}")) == (str(low), str(high))
    assert exact(parse_range(f"({low}{between}{high})")) == (str(low), str(high))
    if low < high:
        assert parse_range(f"{high}{between}{low}") is None


@given(numbers, st.sampled_from(["<", "<=", "≤", "up to ", "< OR = "]), st.sampled_from([">", ">=", "≥", "> OR = "]))
def test_a_bound_is_one_end(number: Any, most: str, least: str) -> None:
    assert exact(parse_range(f"{most}{number}")) == ("None", str(number))
    assert exact(parse_range(f"{least}{number}")) == (str(number), "None")


@given(st.text(st.sampled_from("0123456789.,-<>=() :/toMF"), max_size=20), st.sampled_from([None, "mg/dL", "%"]))
def test_any_text_gives_a_range_in_order_or_none(text: str, unit: str | None) -> None:
    found = parse_range(text, unit)
    if found is not None:
        low, high = found
        assert low is not None or high is not None
        assert low is None or high is None or low <= high
