"""The bar below a result: the usual range with its bounds, and the value at its place. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from myhealth.clinical.in_words import number_text
from myhealth.clinical.ranges import Number
from wsgi.browse_pages.result_view import ResultView

EDGE = 1.5  # percent of the bar that a mark keeps to the bar's ends
NEAR_END = 12  # percent: a label nearer to an end begins or ends there
LABEL_MAX = 9  # characters


@dataclass(frozen=True)
class Meter:
    """A bar from 0 to 100. The usual range is from `low` to `low + width`; the value is at `at`. If the range is open
    on a side, it reaches to that end of the bar. `low_text`, `high_text`: the bounds, "" for an open end."""

    low: float
    width: float
    at: float
    low_text: str
    high_text: str

    @property
    def anchor(self) -> str:
        """The end of the value's label that stands at the value."""
        return "start" if self.at < NEAR_END else "end" if self.at > 100 - NEAR_END else "middle"


def meter_of(view: ResultView) -> Meter | None:
    """Return the bar of a value, or None if there is no number, no range, or a number too large to draw.

    The range takes the middle third of the bar, or two thirds if it is open on a side. A value far out is at the end.
    """
    found = _place(view.number, view.low, view.high)
    if found is None:
        return None
    low, high, at = found
    texts = [
        "" if end is None or len(number_text(end)) > LABEL_MAX else number_text(end) for end in (view.low, view.high)
    ]
    return Meter(round(low, 2), round(high - low, 2), round(min(max(at, EDGE), 100 - EDGE), 1), *texts)


def _place(value: Number | None, low: Number | None, high: Number | None) -> tuple[float, float, float] | None:
    """Return where the range begins and ends, and where the value is; None if they cannot be drawn."""
    if value is None:
        return None
    try:
        at, bottom, top = float(value), _float(low), _float(high)
        found = None
        if bottom is not None and top is not None:
            width = top - bottom
            share = (at - bottom) / width if width > 0 else 0.5 + (at > top) - (at < bottom)
            found = (100 / 3, 200 / 3, 100 / 3 + share * 100 / 3)
        elif top is not None:
            found = (0.0, 200 / 3, 200 / 3 + (at - top) / (abs(top) or 1) * 200 / 3)
        elif bottom is not None:
            found = (100 / 3, 100.0, 100 / 3 + (at - bottom) / (abs(bottom) or 1) * 200 / 3)
        return None if found is None or math.isnan(found[2]) else found
    except (OverflowError, ZeroDivisionError):
        return None  # no bar can show these numbers


def _float(value: Number | None) -> float | None:
    return None if value is None else float(value)
