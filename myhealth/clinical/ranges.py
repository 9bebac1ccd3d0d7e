"""What a value measures, and where that lies in a range. Pure.

A value is a number, or text as instruments write it: of a number alone ("230"), or of a bound ("<3", ">= 14"), for what
lies beyond all that they can measure. Numbers are compared as they are written: 36.10 is no less than 36.1.
"""

import math
import re
from decimal import Decimal
from typing import Any

Number = int | float | Decimal

ADULT_AGE = 18  # years
PLAIN = (int, float)
ABOVE, BELOW, WITHIN = "above", "below", "within"
MEASUREMENT_PATTERN = re.compile(r"(<=?|>=?|≤|≥|) *([+-]?(?:[0-9]{1,9}(?:\.[0-9]{1,9})?|\.[0-9]{1,9}))", re.ASCII)


def as_number(value: Any) -> Number | None:
    """The value where it is a number that can be compared."""
    if value is None or type(value) is int:  # nearly all
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        return None
    if isinstance(value, int):
        return int(value)  # MongoDB gives those beyond 32 bits in a type of its own
    finite = value.is_finite() if isinstance(value, Decimal) else math.isfinite(value)
    return value if finite else None


def parse_measurement(value: Any) -> tuple[str, Number] | None:
    """What a value measures: ("", 230), or what it is beyond: ("<", 3); None where it measures nothing."""
    if type(value) is str:
        match = MEASUREMENT_PATTERN.fullmatch(value.strip(" "))
        return (match[1].replace("≤", "<=").replace("≥", ">="), Decimal(match[2])) if match else None
    found = as_number(value)
    return None if found is None else ("", found)


def classify(value: Any, low: Any, high: Any) -> str | None:
    """Where a value lies in its range, of which an end may be open (None): ABOVE, BELOW or WITHIN; None where there is
    no range, or where a bound does not tell. Nothing that begins at 0 goes below it.

    lies(128, 90, 120) is ABOVE, lies("<3", 70, 99) BELOW, lies("<3", 0, 5) WITHIN, lies("<100", 70, 99) None.
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
    itself = beyond.endswith("=")  # whether the bound is one of the values that it may be
    if beyond.startswith("<"):
        if least is not None and (at < least or (at == least and not itself)):
            return BELOW
        return WITHIN if not least and (most is None or at <= most) else None
    if most is not None and (at > most or (at == most and not itself)):
        return ABOVE
    return WITHIN if most is None and (least is None or at >= least) else None


def is_outside(value: Any, low: Any, high: Any) -> bool:
    """Whether a value is known to lie outside its range. (Most are plain numbers, and need no more than this.)"""
    if type(value) in PLAIN and type(low) in PLAIN and type(high) in PLAIN:
        return bool(value > high or value < low)
    return classify(value, low, high) in (ABOVE, BELOW)


def _as_decimal(value: float | Decimal) -> Decimal:
    """Return the number as it is written: 36.1 is Decimal("36.1"), not the nearest binary fraction."""
    return value if isinstance(value, Decimal) else Decimal(repr(value) if isinstance(value, float) else value)
