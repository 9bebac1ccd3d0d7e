"""One result of a report as the pages show it: its value, its usual range, its position in that range, in words, and
its bar; and measurements as people read them: a blood pressure is one, "128/82". Pure.

Nothing here judges a value: its range and its flag come with it. The range decides the position; without a range the
flag does. If the two disagree, the page shows both. A position outside its range makes a report `abnormal`. A value
that no living body has gets no position in a range, for it is more likely a mistake than a finding. Each position has a
shape beside its words, so that no meaning depends on colour. Another program may have stored results of any form.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, islice, repeat
from operator import attrgetter
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from myhealth.clinical import catalog, guide
from myhealth.clinical.catalog import codes_of
from myhealth.clinical.guide import BLOOD_PRESSURE, DIASTOLIC, SYSTOLIC
from myhealth.clinical.in_words import ResultTexts, is_missing, mappings, number_text, plain_text, result_texts
from myhealth.clinical.ranges import ABOVE, BELOW, WITHIN, Comparison, Number, compare
from myhealth.reports.facts import Facts, Write, results_facts
from myhealth.reports.trends import TrendPoint

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
IN_WORDS = "the usual range is given in words, so it is not compared here"
# A text that takes a unit: 5, <5, 5 - 10. Words that explain a missing value take none.
MEASURED = re.compile(r"(?:other than )?[<>≤≥~≈=+−-]*\s*\.?[0-9]")
TOO_FAR = {ABOVE: "too high to measure", BELOW: "too low to measure"}
SHORT = 60  # characters of a value in a list


class ResultView(msgspec.Struct, frozen=True, gc=False):
    """One result as it is shown, or both values of a blood pressure. (A Struct, for a trend makes hundreds of them.)

    `value`: digits or text; `short`: the same with its unit, cut for a list; `usual`: the range in words, "" without
    one; `is_general`: the range is our catalogue's, for the source gave none; `position`: one of WORDS; `mark`: its
    shape, but "" instead of a dash, which would read as a minus before a value; `note`: a sentence to show beside it,
    or ""; `is_far`: the value is far outside its range; `facts`: what else is known, (name, text). For drawing: `low`,
    `high`, and `number`, of a bound its own. `raw_name` and `raw_unit` are as stored: the name finds the trend of a
    result without a code. `pair`: the values of a blood pressure, each with its own words.
    """

    name: str
    value: str
    unit: str
    short: str
    usual: str
    is_general: bool
    position: str
    shape: str
    mark: str
    words: str
    note: str
    facts: Facts
    code: str
    raw_name: str
    raw_unit: str | None
    is_unusual: bool
    is_far: bool
    low: Number | None
    high: Number | None
    number: Number | None
    is_bound: bool
    pair: tuple[tuple[str, ResultView], ...] = ()

    @property
    def parts(self) -> tuple[tuple[str, ResultView], ...]:
        """(its own words, value) of each value: "" for a single one."""
        return self.pair or (("", self),)

    def trend(self, path: Callable[..., str]) -> str:
        """Return the address of the measurement's trend. `path`: `link` for the pages about the person."""
        return path("trends", code=self.code, name=None if self.code else self.raw_name)


def present_all(reports: Iterable[Mapping[str, Any]], write: Write) -> list[list[ResultView]]:
    """Return the views of each report's results, in the order that the source sent. `write`: writes a moment
    (Dates.moment)."""
    found = [*map(mappings, [report.get("results") for report in reports])]
    results = [*chain.from_iterable(found)]
    compared = [*map(compare, results)]
    texts = [*map(result_texts, results, compared)]
    degrees = [*map(guide.degree_of, results, compared)]
    facts = chain.from_iterable([*map(results_facts, found, repeat(write))])
    views = map(_result_view, results, compared, texts, degrees, facts)
    return [[*islice(views, len(each))] for each in found]


def _result_view(
    result: Mapping[str, Any], compared: Comparison, texts: ResultTexts, degree: str, facts: Facts
) -> ResultView:
    get, raw, number, value, unit = result.get, result.get("value"), compared.number, texts.value, texts.unit
    name, raw_unit = get("name"), get("unit")
    is_impossible = number is not None and get("warning") and catalog.IMPOSSIBLE in plain_text(get("warning"))
    position, note = (IMPOSSIBLE, MISTAKEN) if is_impossible else position_of(compared.position, get("flag"))
    words = _words(position, result, compared, texts.usual, degree)
    if beyond := guide.beyond_meter(raw, unit) if number is None else None:
        side, far = beyond
        value = TOO_FAR[side]
        if guide.is_beyond_meter(result):
            position, words, note = side, f"{far}{WORDS[side]}", ""
    if note == MARKED:
        words = f"marked as {words}"
    is_number = number is not None and not compared.is_bound
    takes_unit = is_number or beyond or (not is_missing(raw) and MEASURED.match(value))
    shown_unit, short, shape = unit if takes_unit else "", shortened(value), SHAPES[position]
    return ResultView(
        name=texts.name or "A measurement without a name",
        value=value,
        unit=shown_unit,
        short=f"{short} {shown_unit}" if shown_unit else short,
        usual=texts.usual,
        is_general=get("range_source") == catalog.SOURCE,
        position=position,
        shape=shape,
        mark="" if position == UNKNOWN else shape,
        words=words,
        note=note,
        facts=[*facts, ("Other ranges", texts.other_ranges)] if texts.other_ranges else facts,
        code=texts.code,
        raw_name=name if isinstance(name, str) else "",
        raw_unit=raw_unit if isinstance(raw_unit, str) else None,
        is_unusual=position in UNUSUAL,
        is_far=words.startswith("far "),
        low=compared.low,
        high=compared.high,
        number=number,
        is_bound=compared.is_bound,
    )


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


def _words(position: str, result: Mapping[str, Any], compared: Comparison, usual: str, degree: str) -> str:
    """Return the words for a position, and the reason if there is no position."""
    flag, has_bounds = result.get("flag"), compared.low is not None or compared.high is not None
    if isinstance(flag, str) and flag in FAR and FLAGS[flag] == position:
        return FAR[flag]
    if position in (ABOVE, BELOW) and compared.position == position:
        return f"{degree}{WORDS[position]}"
    if position == WITHIN and not has_bounds:
        return "marked as usual"
    if position != UNKNOWN or not usual:
        return WORDS[position]
    if is_missing(result.get("value")):
        return "there is no value to compare"
    if has_bounds or compared.number is None:
        return "cannot be compared with the range"
    return DEPENDS if result.get("ranges") or result.get("range_source") else IN_WORDS


def shortened(text: str, most: int = SHORT) -> str:
    """Return a text cut to so many characters for a list; the report has all of it."""
    return text if len(text) <= most else f"{text[:most].rstrip()}…"


EDGE = 1.5  # percent of the bar that a mark keeps to the bar's ends
NEAR_END = 12  # percent: a label nearer to an end begins or ends there
LABEL_MAX = 9  # characters


class Meter(Struct, frozen=True):
    """A bar from 0 to 100. The usual range is from `low` to `low + width`; the value is at `at`. If the range is open
    on a side, it reaches to that end of the bar. `low_text`, `high_text`: the bounds, "" for an open end."""

    low: float
    width: float
    at: float
    low_text: str
    high_text: str

    @property
    def anchor(self) -> str:
        """The part of the value's label that is placed at the value: its start, middle or end."""
        return "start" if self.at < NEAR_END else "end" if self.at > 100 - NEAR_END else "middle"


def meter_of(view: ResultView) -> Meter | None:
    """Return the bar of a value, or None if there is no number, no range, or a number too large to draw.

    The range takes the middle third of the bar, or two thirds if it is open on a side. A value far out is at the end.
    """
    found = _place(None if view.is_bound else view.number, view.low, view.high)
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


UPPER, LOWER = frozenset(codes_of(SYSTOLIC)), frozenset(codes_of(DIASTOLIC))
PRESSURE_NAME, ABSENT = "Blood pressure", "–"
FIELDS = ("name", "value", "unit", "low", "high", "flag", "range_source", "range_text", "warning", "status", "ranges")
values_of = attrgetter(*FIELDS)


def blocks_of(results: Sequence[ResultView]) -> list[ResultView]:
    """Return the results in their order, blood pressures as one; the n-th upper pressure takes the n-th lower one, if
    their units are the same."""
    lower = [each for each in results if each.code in LOWER]
    upper = [each for each in results if each.code in UPPER]
    if not (lower and upper):
        return [*results]
    pairs = {id(up): low for up, low in zip(upper, lower, strict=False) if up.unit == low.unit}
    taken = {id(low) for low in pairs.values()}
    return [pressure(each, pairs[id(each)]) if id(each) in pairs else each for each in results if id(each) not in taken]


def pressure(upper: ResultView | None, lower: ResultView | None) -> ResultView:
    """Return a blood pressure, of which one value may be absent. Its position is that of the value that is outside its
    range, if one is; its `usual` and `words` are of both."""
    parts = [(words, view) for words, view in (("upper", upper), ("lower", lower)) if view]
    unusual = [part for part in parts if part[1].is_unusual]
    told = unusual or parts
    chief, last = told[0][1], told[-1][1]
    same = len(told) == len(parts) and chief.words == last.words
    value = "/".join([shortened(view.value) if view else ABSENT for view in (upper, lower)])
    return replace(
        chief,
        name=PRESSURE_NAME,
        value=value,
        short=f"{shortened(value, SHORT)} {chief.unit}".rstrip(),
        usual="; ".join([f"{each} {view.usual}" for each, view in parts if view.usual]),
        words=chief.words if same else ", ".join([f"{each} value {view.words}" for each, view in told]),
        is_general=parts[0][1].is_general or parts[-1][1].is_general,
        is_far=parts[0][1].is_far or parts[-1][1].is_far,
        code=BLOOD_PRESSURE,
        raw_name="",
        pair=tuple(parts),
    )


def result_fields(point: TrendPoint, code: str | None = None) -> dict[str, Any]:
    """Return the fields of a trend's point as a result, without those that are None. `code`: what was asked for."""
    found = {name: value for name, value in zip(FIELDS, values_of(point), strict=True) if value is not None}
    found["code"] = point.code or code
    return found


def summary(results: Sequence[ResultView]) -> str:
    """Return the sentence: "1 of 2 results outside the usual range"; a blood pressure is one result."""
    impossible = sum(result.position == IMPOSSIBLE for result in results)
    unusual = sum(result.is_unusual for result in results) - impossible
    uncompared = [result for result in results if result.position == UNKNOWN]
    has_range = any(result.usual for result in uncompared)
    if not results:
        return "No single measurements in this report"
    if len(results) in (unusual, impossible):
        return _all_of(len(results), "outside {} usual range" if unusual else "hardly possible")
    if unusual or impossible:
        counts = (
            (unusual, "outside the usual range"),
            (impossible, "hardly possible"),
            (len(uncompared), "not compared"),
        )
        first, *rest = [f"{count} {words}" for count, words in counts if count]
        return ", ".join([first.replace(" ", f" of {counted(len(results), 'result')} ", 1), *rest])
    if not uncompared:
        return _all_of(len(results), "within {} usual range")
    if len(uncompared) == len(results):
        return f"{counted(len(results), 'result')}, {'not compared with' if has_range else 'without'} a usual range"
    others = "the rest is not compared with one" if has_range else "no range is given for the rest"
    return f"{len(results) - len(uncompared)} of {counted(len(results), 'result')} within the usual range; {others}"


def counted(count: int, one: str, many: str = "") -> str:
    """Return a count with its noun: 1 result, 2 results."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def _all_of(count: int, words: str) -> str:
    """Return a sentence about all results; {} in `words` is replaced by "its" or "their"."""
    subject = {1: "The result is", 2: "Both results are"}.get(count, f"All {count} results are")
    return f"{subject} {words.format('its' if count == 1 else 'their')}"
