"""One result of a report as the pages show it: its value, its usual range, and its position in that range, in words.

Nothing here judges a value: its range and its flag come with it. The range decides the position; without a range the
flag does. If the two disagree, the page shows both. A position outside its range makes a report `abnormal`. A value
that no living body has gets no position in a range, for it is more likely a mistake than a finding. Each position has a
shape beside its words, so that no meaning depends on colour. Another program may have stored results of any form.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from myhealth.clinical import catalog, guide
from myhealth.clinical.in_words import is_missing, mappings, plain_text, unit_text, usual_range, value_text
from myhealth.clinical.ranges import ABOVE, BELOW, WITHIN, Number, as_number, classify, parse_measurement
from myhealth.reports.facts import Facts, Write, results_facts

OUTSIDE, IMPOSSIBLE, UNKNOWN = "outside", "impossible", "unknown"
UNUSUAL = frozenset((ABOVE, BELOW, OUTSIDE, IMPOSSIBLE))
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
FAR = {"HH": "far above the usual range", "LL": "far below the usual range"}
MISTAKEN = (
    "No living body is known to have such a value, so it was probably measured or written down wrongly. Please ask the"
    " place where it was measured."
)
MARKED = "The value lies within the range shown here, but it was marked when it was measured."
GENERAL = "A range marked “general” is what is usual for adults; the machine itself gave none for that result."
DEPENDS = "not compared: which range holds is not known"
IN_WORDS = "the usual range is told in words, so it is not compared here"
# A text that takes a unit: 5, <5, 5 - 10. Words that explain a missing value take none.
MEASURED = re.compile(r"[<>≤≥~≈=+−-]*\s*[0-9]")
PROGRAM_NAME = re.compile(r"[A-Z0-9]+(?:_[A-Z0-9]+)+")
SPELLED_OUT = {"BP": "Blood pressure"}
# What a meter shows instead of a number beyond what it can measure.
# HIGH and LOW may be what somebody thinks of the value, so these are not far.
METER_WORDS = {"HI": (ABOVE, "far "), "HIGH": (ABOVE, ""), "LO": (BELOW, "far "), "LOW": (BELOW, "")}
TOO_FAR = {ABOVE: "too high to measure", BELOW: "too low to measure"}
# Glucose: all that a meter can measure includes all that is usual. Of other tests, too low to measure may be usual.
GLUCOSE = {*catalog.codes_of("2345-7"), *catalog.codes_of("1558-6"), "99504-3"}
SHORT = 60  # characters of a value in a list


class Comparison(msgspec.Struct, frozen=True, gc=False):
    """A result's value beside its range. `number`: the value as a number, None if it is text or a bound; `measured`:
    whether it is a number or a bound; `position`: ABOVE, BELOW, WITHIN, or None if they cannot be compared."""

    low: Number | None
    high: Number | None
    number: Number | None
    measured: bool
    position: str | None


class ResultView(msgspec.Struct, frozen=True, gc=False):
    """One result as it is shown. (A Struct, for a trend makes hundreds of them.)

    `value`: digits or text; `short`: the same with its unit, cut for a list; `usual`: the range in words, "" without
    one; `is_general`: the range is our catalogue's, for the source gave none; `position`: one of WORDS; `note`: a
    sentence to show beside it, or "". `facts`: what else is known, (name, text). `low`, `high` and `number` are for
    drawing. `raw_name` and `raw_unit` are as stored: the name finds the trend of a result without a code.
    """

    name: str
    value: str
    unit: str
    short: str
    usual: str
    is_general: bool
    position: str
    shape: str
    words: str
    note: str
    facts: Facts
    code: str
    raw_name: str
    raw_unit: str | None
    is_unusual: bool
    low: Number | None
    high: Number | None
    number: Number | None


def present_all(reports: Iterable[Mapping[str, Any]], write: Write) -> list[list[ResultView]]:
    """Return the views of each report's results, in the order that the source sent. `write`: writes a moment
    (Dates.moment)."""
    found = [mappings(report.get("results")) for report in reports]
    return [list(map(_result_view, results, results_facts(results, write))) for results in found]


def compare(result: Mapping[str, Any]) -> Comparison:
    """Compare the value of a result with its range."""
    value, low, high = result.get("value"), as_number(result.get("low")), as_number(result.get("high"))
    found = parse_measurement(value)
    number = found[1] if found and not found[0] else None
    return Comparison(low, high, number, found is not None, classify(value, low, high))


def _result_view(result: Mapping[str, Any], facts: Facts) -> ResultView:
    get, compared = result.get, compare(result)
    low, high, number, raw = compared.low, compared.high, compared.number, get("value")
    unit, value = unit_of(result), value_text(raw, get("absent_reason"), get("absent_code"))
    usual, other_ranges = usual_range(result)
    is_impossible = compared.measured and get("warning") and catalog.IMPOSSIBLE in plain_text(get("warning"))
    position, note = (IMPOSSIBLE, MISTAKEN) if is_impossible else position_of(compared.position, get("flag"))
    words = _words(position, result, compared, usual)
    if beyond := beyond_meter(raw, unit):
        side, far = beyond
        value = TOO_FAR[side]
        if get("code") in GLUCOSE:
            position, words, note = side, f"{far}{WORDS[side]}", ""
    takes_unit = number is not None or beyond or (not is_missing(raw) and MEASURED.match(value))
    shown_unit, short = unit if takes_unit else "", shortened(value)
    name, raw_unit = get("name"), get("unit")
    return ResultView(
        name=name_text(name) or "A measurement without a name",
        value=value,
        unit=shown_unit,
        short=f"{short} {shown_unit}" if shown_unit else short,
        usual=usual,
        is_general=get("range_source") == catalog.SOURCE,
        position=position,
        shape=SHAPES[position],
        words=f"marked as {words}" if note == MARKED else words,
        note=note,
        facts=[*facts, ("Other ranges", other_ranges)] if other_ranges else facts,
        code=plain_text(get("code")),
        raw_name=name if isinstance(name, str) else "",
        raw_unit=raw_unit if isinstance(raw_unit, str) else None,
        is_unusual=position in UNUSUAL,
        low=low,
        high=high,
        number=number,
    )


def beyond_meter(value: Any, unit: str) -> tuple[str, str] | None:
    """Return ABOVE or BELOW, and how far, for the word that a meter shows for what it cannot measure, else None."""
    return METER_WORDS.get(value.strip().upper()) if isinstance(value, str) and unit else None


def position_of(compared: str | None, flag: Any) -> tuple[str, str]:
    """Return the position that the page shows, and a note if range and flag disagree. `compared`: the range's answer.

    position_of("above", "N") -> ("above", "The machine itself marked this value as usual.")
    """
    flagged = FLAGS.get(flag) if isinstance(flag, str) else None
    if compared is None:
        return flagged or UNKNOWN, ""
    if compared == WITHIN and flagged and flagged != compared:
        return flagged, MARKED
    if flagged in (ABOVE, BELOW, WITHIN) and flagged != compared:
        marked = "usual" if flagged == WITHIN else WORDS[flagged]
        return compared, f"The machine itself marked this value as {marked}."
    return compared, ""


def _words(position: str, result: Mapping[str, Any], compared: Comparison, usual: str) -> str:
    """Return the words for a position, and the reason if there is no position."""
    flag, has_bounds = result.get("flag"), compared.low is not None or compared.high is not None
    if isinstance(flag, str) and flag in FAR and FLAGS[flag] == position:
        return FAR[flag]
    if position in (ABOVE, BELOW) and compared.position == position:
        bound = compared.high if position == ABOVE else compared.low
        far = guide.degree(result.get("code"), result.get("unit"), compared.number, position, bound)
        return f"{far}{WORDS[position]}"
    if position == WITHIN and not has_bounds:
        return "marked as usual"
    if position != UNKNOWN or not usual:
        return WORDS[position]
    if is_missing(result.get("value")):
        return "there is no value to compare"
    if has_bounds or not compared.measured:
        return "cannot be compared with the range"
    return DEPENDS if result.get("ranges") or result.get("range_source") else IN_WORDS


def unit_of(result: Mapping[str, Any]) -> str:
    """Return the unit as people write it; "" without one."""
    unit = result.get("unit")
    return unit_text(plain_text(unit)) if isinstance(unit, str) else ""


def kind_text(text: Any) -> str:
    """Return a kind of check-up as a heading: BLOOD PRESSURE and BP read Blood pressure; ECG stays."""
    found = name_text(text) or "Check-up"
    found = SPELLED_OUT.get(found, found)
    return found.capitalize() if found.isascii() and found.isupper() and len(found) > 4 else found


def name_text(text: Any) -> str:
    """Return a name for people: MDC_FLOW_AWAY_EXP_FORCED_PEAK (ISO/IEEE 11073-10101): Flow away exp forced peak."""
    found = plain_text(text)
    return found.removeprefix("MDC_").replace("_", " ").capitalize() if PROGRAM_NAME.fullmatch(found) else found


def shortened(text: str, most: int = SHORT) -> str:
    """Return a text cut to so many characters for a list; the report has all of it."""
    return text if len(text) <= most else f"{text[:most].rstrip()}…"
