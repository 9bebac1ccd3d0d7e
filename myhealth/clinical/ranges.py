"""The number that a value stands for, and its position in a range. Pure.

A value is a number, or text as instruments write it: a number alone ("230"), or a bound ("<3", ">= 14") for anything
beyond what they can measure. Numbers are compared as they are written: 36.10 is no less than 36.1.
"""

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec

Number = int | float | Decimal

ADULT_AGE = 18  # years
PLAIN = (int, float)
ABOVE, BELOW, WITHIN = "above", "below", "within"
MEASUREMENT_PATTERN = re.compile(r"(<=?|>=?|≤|≥|) *([+-]?(?:[0-9]{1,9}(?:\.[0-9]{1,9})?|\.[0-9]{1,9}))", re.ASCII)

# The words of a range that exclude its end.
OPEN = re.compile(
    r"\s*[(\[]?\s*(?:<(?!\s*(?:or\b|=))|>(?!\s*(?:or\b|=))|(?:below|under|above|over)\b|(?:less|more|greater|higher|lower)"
    r" than\b(?!\s+or\b))",
    re.IGNORECASE,
)


def as_number(value: Any) -> Number | None:
    """Return the value if it is a number that can be compared, else None."""
    if value is None or type(value) is int:  # nearly all
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        return None
    if isinstance(value, int):
        return int(value)  # MongoDB gives those beyond 32 bits in a type of its own
    finite = value.is_finite() if isinstance(value, Decimal) else math.isfinite(value)
    return value if finite else None


def parse_measurement(value: Any) -> tuple[str, Number] | None:
    """Return what a value measures: a number as ("", 230), a bound as ("<", 3); None if it measures nothing."""
    if type(value) is str:
        match = MEASUREMENT_PATTERN.fullmatch(value.strip(" "))
        return (match[1].replace("≤", "<=").replace("≥", ">="), Decimal(match[2])) if match else None
    found = as_number(value)
    return None if found is None else ("", found)


class Comparison(msgspec.Struct, frozen=True, gc=False):
    """A result's value beside its range. `number`: the value as a number, of a bound its number, None if it is text;
    `position`: ABOVE, BELOW, WITHIN, or None if they cannot be compared; `is_open`: the range has one end, which its
    source's words exclude."""

    low: Number | None
    high: Number | None
    number: Number | None
    is_bound: bool
    position: str | None
    is_open: bool = False


def compare(result: Mapping[str, Any]) -> Comparison:
    """Compare the value of a result with its range. A value at an end that the range's words exclude, such as 150 in
    "<150", is outside, unless its source calls it normal."""
    value, low, high = result.get("value"), as_number(result.get("low")), as_number(result.get("high"))
    beyond, number = parse_measurement(value) or ("", None)
    position = classify(value, low, high)
    is_open = (low is None) != (high is None) and OPEN.match(_words_of_range(result)) is not None
    is_number = number is not None and not beyond and result.get("flag") is None
    if is_open and is_number and WITHIN == position == classify(number, high, low):  # it is the end itself
        position = ABOVE if low is None else BELOW
    return Comparison(low, high, number, beyond != "", position, is_open)


def _words_of_range(result: Mapping[str, Any]) -> str:
    """Return the words of the range that counts, "" if its source has none."""
    if type(text := result.get("range_text")) is str:
        return text
    sent = result.get("ranges")
    ends = [each for each in sent if isinstance(each, dict)] if isinstance(sent, list) else []
    texts = (each.get("text") for each in ends if all(each.get(end) == result.get(end) for end in ("low", "high")))
    return next((each for each in texts if type(each) is str), "")


def classify(value: Any, low: Any, high: Any) -> str | None:
    """Return the position of a value in its range: ABOVE, BELOW or WITHIN. An end may be open (None).

    Return None without a range, or if a bound such as "<100" cannot be classified. A range from 0 has no BELOW.
    classify(128, 90, 120) is ABOVE, classify("<3", 70, 99) BELOW, classify("<3", 0, 5) WITHIN, classify("<100", 70, 99)
    None.
    """
    if type(value) in PLAIN and type(low) in PLAIN and type(high) in PLAIN:  # nearly all, in a tenth of the time
        if low <= value <= high:
            return WITHIN
        if value - value == 0 and low <= high:  # none is infinite or no number
            return ABOVE if value > high else BELOW
    found, bottom, top = parse_measurement(value), as_number(low), as_number(high)
    if found is None or (bottom is None and top is None):
        return None
    beyond, at = found[0], _as_decimal(found[1])
    least, most = (None if end is None else _as_decimal(end) for end in (bottom, top))
    if not beyond:
        too_high, too_low = most is not None and at > most, least is not None and at < least
        return ABOVE if too_high else BELOW if too_low else WITHIN
    itself = beyond.endswith("=")  # whether the bound itself is a possible value
    if beyond.startswith("<"):
        if least is not None and (at < least or (at == least and not itself)):
            return BELOW
        return WITHIN if not least and (most is None or at <= most) else None
    if most is not None and (at > most or (at == most and not itself)):
        return ABOVE
    return WITHIN if most is None and (least is None or at >= least) else None


def is_outside(value: Any, low: Any, high: Any) -> bool:
    """Return whether a value is known to be outside its range. (Most values are plain numbers, which need no more than
    this.)"""
    if type(value) in PLAIN and type(low) in PLAIN and type(high) in PLAIN:
        return bool(value > high or value < low)
    return classify(value, low, high) in (ABOVE, BELOW)


def _as_decimal(value: float | Decimal) -> Decimal:
    """Return the number as it is written: 36.1 is Decimal("36.1"), not the nearest binary fraction."""
    return value if isinstance(value, Decimal) else Decimal(repr(value) if isinstance(value, float) else value)
