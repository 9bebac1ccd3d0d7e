"""The bar below a result: the usual range and the position of the value in it. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from myhealth.clinical.ranges import Number

EDGE = 1.5  # percent of the bar that a mark keeps to the bar's ends


@dataclass(frozen=True)
class Meter:
    """A bar from 0 to 100. The usual range is from `low` to `low + width`; the value is at `at`. If the range is open
    on a side, it reaches to that end of the bar."""

    low: float
    width: float
    at: float


def meter_of(value: Number | None, low: Number | None, high: Number | None) -> Meter | None:
    """Return the bar of a value, or None if there is no number, no range, or a number too large to draw.

    The range takes the middle third of the bar, or two thirds if it is open on a side. A value far out is at the end.
    """
    if value is None:
        return None
    try:
        at, bottom, top = float(value), _float(low), _float(high)
        if bottom is not None and top is not None:
            width = top - bottom
            share = (at - bottom) / width if width > 0 else 0.5 + (at > top) - (at < bottom)
            return _meter(100 / 3, 200 / 3, 100 / 3 + share * 100 / 3)
        if top is not None:
            return _meter(0, 200 / 3, 200 / 3 + (at - top) / (abs(top) or 1) * 200 / 3)
        if bottom is not None:
            return _meter(100 / 3, 100, 100 / 3 + (at - bottom) / (abs(bottom) or 1) * 200 / 3)
    except (OverflowError, ZeroDivisionError):
        pass  # no bar can show these numbers
    return None


def _meter(low: float, high: float, at: float) -> Meter:
    if math.isnan(at):
        raise OverflowError
    return Meter(round(low, 2), round(high - low, 2), round(min(max(at, EDGE), 100 - EDGE), 1))


def _float(value: Number | None) -> float | None:
    return None if value is None else float(value)
