"""What a report says, in plain words. Nothing here judges a value: its range and its flag come with it.

A value is placed by its own range where it has one, by the machine's flag else; where the two disagree, both are told.
What is placed outside is what makes a report `abnormal`.
What no living body has is not placed by a range: it is more likely a mistake than a finding. Shapes go with the words,
so that no meaning hangs on colour. Results that another program wrote may be of any form.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from myhealth.clinical import catalog
from myhealth.clinical.ranges import ABOVE, BELOW, WITHIN, Number, classify, number, parse_measurement
from wsgi.browse_pages.units import unit_text

OUTSIDE, IMPOSSIBLE, UNKNOWN = "outside", "impossible", "unknown"
SHAPES = {ABOVE: "▲", BELOW: "▼", OUTSIDE: "◆", IMPOSSIBLE: "◆", WITHIN: "✓", UNKNOWN: "–"}
WORDS = {
    ABOVE: "above the usual range",
    BELOW: "below the usual range",
    OUTSIDE: "not what is usual",
    IMPOSSIBLE: "hardly possible",
    WITHIN: "within the usual range",
    UNKNOWN: "no usual range given",
}
FLAGS = {"H": ABOVE, "HH": ABOVE, "L": BELOW, "LL": BELOW, "A": OUTSIDE, "N": WITHIN}
ACCESS_WORDS = {
    "reports": "the list of reports",
    "reports to print": "reports, to print them",
    "export": "reports, to download them",
    "access log": "who looked",
    "profile": "name and account",
}
MISTAKEN = (
    "No living body is known to have such a value, so it was probably measured or written down wrongly. Please ask the"
    " place where it was measured."
)
MARKED = "The value lies within the range shown here, but it was marked when it was measured."
BACKWARDS = "The first day that you asked for comes after the last one. Perhaps they are swapped."
GENERAL = "A range marked “general” is what is usual for adults; the machine itself gave none for that result."
# A text that a unit belongs behind: 5, <5, 5 - 10, not what explains why there is no value.
MEASURED = re.compile(r"[<>≤≥~≈=+−-]*\s*[0-9]")
PROGRAM_NAME = re.compile(r"[A-Z0-9]+(?:_[A-Z0-9]+)+")
SHORT = 60  # characters
FAR = {"HH": "far above the usual range", "LL": "far below the usual range"}


@dataclass(frozen=True)
class ResultView:
    """One result as it is shown. `general`: its usual range is our catalogue's, for its source gave none; `place`: one
    of the words above; `note`: what must be said beside it; `meter`: where the value lies, or None where that cannot be
    drawn."""

    name: str
    value: str
    unit: str
    usual: str
    general: bool
    place: str
    words: str
    note: str
    code: str
    meter: Meter | None

    @property
    def shape(self) -> str:
        return SHAPES[self.place]

    @property
    def is_unusual(self) -> bool:
        return self.place in (ABOVE, BELOW, OUTSIDE, IMPOSSIBLE)


@dataclass(frozen=True)
class Meter:
    """A bar of 0 to 100, on which the usual range lies from `low` to `high` and the value at `at`. An open end of the
    range is the bar's own."""

    low: float
    high: float
    at: float


def present_results(report: dict[str, Any]) -> list[ResultView]:
    """The results of a report, in the order that they were sent in."""
    results = report.get("results")
    return [present(each) for each in results if isinstance(each, dict)] if isinstance(results, list) else []


def present(result: dict[str, Any]) -> ResultView:
    value, low, high = result.get("value"), number(result.get("low")), number(result.get("high"))
    flag = result.get("flag")
    unit = unit_text(result.get("unit"))
    usual = range_text(low, high, unit) or _text(result.get("range_text"))
    place, note = (IMPOSSIBLE, MISTAKEN) if is_impossible(result) else place_of(value, low, high, flag)
    return ResultView(
        name=name_text(result.get("name")) or "A measurement without a name",
        value=value_text(value, result.get("absent_reason")),
        unit=unit if MEASURED.match(value_text(value)) else "",
        usual=usual,
        general=result.get("range_source") == catalog.SOURCE,
        place=place,
        words=("marked as " if note == MARKED else "") + _words(place, flag, value, low, high, usual),
        note=note,
        code=_text(result.get("code")),
        meter=None if place == IMPOSSIBLE else meter_of(plain_number(value), low, high),
    )


def is_impossible(result: dict[str, Any]) -> bool:
    """Whether the value came with the catalogue's warning that no living body has it."""
    return parse_measurement(result.get("value")) is not None and catalog.IMPOSSIBLE in _text(result.get("warning"))


def place_of(value: Any, low: Number | None, high: Number | None, flag: Any) -> tuple[str, str]:
    """Where a value lies, and what must be said of it.

    place_of(128, 90, 120, "N") -> ("above", "The machine itself marked this value as usual.")
    """
    flagged = FLAGS.get(flag) if isinstance(flag, str) else None
    place = classify(value, low, high)
    if place is None:
        return flagged or UNKNOWN, ""
    if place == WITHIN and flagged and flagged != place:
        return flagged, MARKED
    if flagged in (ABOVE, BELOW, WITHIN) and flagged != place:
        marked = "usual" if flagged == WITHIN else WORDS[flagged]
        return place, f"The machine itself marked this value as {marked}."
    return place, ""


def range_text(low: Number | None, high: Number | None, unit: str = "") -> str:
    """90 to 120 mmHg; "" where there is no range."""
    behind = f" {unit}" if unit else ""
    if low is not None and high is not None:
        return f"{number_text(low)} to {number_text(high)}{behind}"
    if high is not None:
        return f"up to {number_text(high)}{behind}"
    return f"{number_text(low)}{behind} or more" if low is not None else ""


def value_text(value: Any, absent_reason: Any = None) -> str:
    """A value as it was sent: its digits, or its text; where there is none, "not given", and why if that was told."""
    if is_missing(value):
        return ": ".join(filter(None, ("not given", _text(absent_reason))))
    found = number(value)
    return number_text(found) if found is not None else _text(value)


def is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def number_text(value: Number) -> str:
    """The digits as they were sent: 5.10 stays 5.10; a full stop for the decimals."""
    if isinstance(value, Decimal):
        return f"{value:f}" if -12 <= value.adjusted() <= 18 else str(value)
    return repr(value)


def plain_number(value: Any) -> Number | None:
    """The number that a value is, also where it was sent as text; None where it only has a bound."""
    found = parse_measurement(value)
    return None if found is None or found[0] else found[1]


def meter_of(value: Number | None, low: Number | None, high: Number | None) -> Meter | None:
    """Where a value lies: the usual range in the middle third of the bar (two thirds where it is open on a side), and
    whatever lies far out at the bar's end."""
    if value is None:
        return None
    try:
        at, bottom, top = float(value), _float(low), _float(high)
        if bottom is not None and top is not None:
            width = top - bottom
            share = (at - bottom) / width if width > 0 else 0.5 + (at > top) - (at < bottom)
            return Meter(100 / 3, 200 / 3, _clip(100 / 3 + share * 100 / 3))
        if top is not None:
            return Meter(0, 200 / 3, _clip(200 / 3 + (at - top) / (abs(top) or 1) * 200 / 3))
        if bottom is not None:
            return Meter(100 / 3, 100, _clip(100 / 3 + (at - bottom) / (abs(bottom) or 1) * 200 / 3))
    except (OverflowError, ZeroDivisionError):
        pass  # numbers that no bar can hold
    return None


def kind_text(text: Any) -> str:
    """A kind of check-up as a heading: BLOOD PRESSURE reads Blood pressure; ECG stays."""
    found = name_text(text) or "Check-up"
    return found.capitalize() if found.isascii() and found.isupper() and len(found) > 4 else found


def name_text(text: Any) -> str:
    """What something is called; a name for programs as words: MDC_FLOW_AWAY_EXP_FORCED_PEAK (ISO/IEEE 11073-10101) is
    Flow away exp forced peak."""
    found = _text(text)
    return found.removeprefix("MDC_").replace("_", " ").capitalize() if PROGRAM_NAME.fullmatch(found) else found


def display_name(person: dict[str, Any]) -> str:
    """What somebody is called: the full name where there is one."""
    return person["full_name"].strip() or str(person["username"])


def second_name(person: dict[str, Any]) -> str:
    """The username of somebody who is called by a full name; "" where it would say the same twice."""
    full_name, username = person["full_name"].strip(), str(person["username"])
    return "" if full_name.casefold() in ("", username.casefold()) else username


def counted(count: int, one: str, many: str = "") -> str:
    """1 result, 2 results"""
    return f"{count} {one if count == 1 else many or one + 's'}"


def summary(results: list[ResultView]) -> str:
    """How a report's results stand, in one sentence."""
    impossible = sum(result.place == IMPOSSIBLE for result in results)
    unusual = sum(result.is_unusual for result in results) - impossible
    unplaced = [result for result in results if result.place == UNKNOWN]
    ranged = any(result.usual for result in unplaced)  # which they could not be compared with
    if not results:
        return "No single measurements in this report"
    if len(results) in (unusual, impossible):
        return _all_of(results, "outside {} usual range" if unusual else "hardly possible")
    if unusual or impossible:
        told = [(unusual, "outside the usual range"), (impossible, "hardly possible"), (len(unplaced), "not compared")]
        first, *rest = [f"{count} {words}" for count, words in told if count]
        return ", ".join([first.replace(" ", f" of {counted(len(results), 'result')} ", 1), *rest])
    if not unplaced:
        return _all_of(results, "within {} usual range")
    if len(unplaced) == len(results):
        return f"{counted(len(results), 'result')}, {'not compared with' if ranged else 'without'} a usual range"
    others = "the rest is not compared with one" if ranged else "no range is given for the rest"
    return f"{len(results) - len(unplaced)} of {counted(len(results), 'result')} within the usual range; {others}"


def access_text(what: str) -> str:
    """What was looked at, for whom it is about."""
    return ACCESS_WORDS.get(what, what)


def plain_text(text: Any) -> str:
    return _text(text)


def short(text: str) -> str:
    """A value in a list of reports; the report has it whole."""
    return text if len(text) <= SHORT else f"{text[:SHORT].rstrip()}…"


def _all_of(results: list[ResultView], words: str) -> str:
    """What holds of every result, with its, or their, range."""
    who = {1: "The result is", 2: "Both results are"}.get(len(results), f"All {len(results)} results are")
    return f"{who} {words.format('its' if len(results) == 1 else 'their')}"


def _words(place: str, flag: Any, value: Any, low: Number | None, high: Number | None, usual: str) -> str:
    if isinstance(flag, str) and flag in FAR and FLAGS[flag] == place:
        return FAR[flag]
    if place == WITHIN and low is None and high is None:
        return "marked as usual"
    if place == UNKNOWN and usual and is_missing(value):
        return "there is no value to compare"
    if place == UNKNOWN and (low is not None or high is not None):
        return "cannot be compared with the range"
    if place == UNKNOWN and usual:
        return "the usual range is told in words, so it is not compared here"
    return WORDS[place]


def _text(value: Any) -> str:
    """Text of one kind or another, without what would turn the direction of the text behind it."""
    if value is None:
        return ""
    return re.sub(r"[\u202a-\u202e\u2066-\u2069\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", "", str(value)).strip()


def _float(value: Number | None) -> float | None:
    return None if value is None else float(value)


def _clip(at: float) -> float:
    if math.isnan(at):
        raise OverflowError
    return round(min(max(at, 1.5), 98.5), 1)
