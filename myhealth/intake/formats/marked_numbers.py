"""Read a number that stands in a text with its mark: "7.2 H", "H 7.2", "7,2 (H)", "7.2*", "<5 LL"."""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from msgspec import to_builtins

from myhealth.clinical.interpretations import PLAIN_WORDS, flag_of, read_mark
from myhealth.clinical.ranges import ABOVE, BELOW, WITHIN, classify, parse_measurement
from myhealth.clinical.unit_sizes import size_of
from myhealth.intake.formats.terminology import DECIMAL_COMMA, Number, number
from myhealth.intake.parsed_record import ParsedRecord

_OTHERS = ("POS", "NEG")  # three positive lymph nodes
_WORDS = "|".join(
    re.escape(word)
    for word in sorted(PLAIN_WORDS, key=len, reverse=True)
    if not word.isdigit() and PLAIN_WORDS[word] not in _OTHERS
)
_MARK = rf"(?i:HH|LL|[HLNA]|{_WORDS})|\*{{1,3}}|!{{1,2}}"
_NUMBER = r"(?:[<>]=?\s*)?[+-]?[0-9]{1,15}(?:[.,][0-9]{1,15})?"
MARKED = re.compile(
    rf"(?P<number>{_NUMBER})(?:\s*(?P<mark>{_MARK})|\s*[(\[]\s*(?P<inside>{_MARK})\s*[)\]])"
    rf"|(?:(?P<first>{_MARK})\s*[:\s]\s*|[(\[](?P<first_inside>{_MARK})[)\]]\s*|(?P<star>[*↑↓]{{1,3}}))(?P<second>{_NUMBER})"
)
# Also units, or parts of a name: litre, newton, ampere, hour; the lumbar vertebra L 5, the left eye.
UNIT_LIKE = ("L", "l", "N", "n", "A", "a", "h")
TIME = re.compile(r"time|dur|hours?|hrs?\b|collect|period|fasting|stund|dauer|zeit", re.IGNORECASE)  # 24 H is a day
AGREEING = {ABOVE: ("H", "HH", "A"), BELOW: ("L", "LL", "A"), WITHIN: ("N",)}


def read_marked_numbers(parsed: ParsedRecord) -> None:
    """Part the numbers in the texts of a record from their marks, where no other reading is possible. Earlier releases
    did not: `parsed.before_marks` has the results as they read them."""
    parsed.before_marks = part_marks(parsed.record)


def part_marks(record: Any, parse: Callable[[str], Any] | None = None) -> list[Any]:
    """Part the numbers in a decoded record's results from their marks, and return the results as they were; [] if
    nothing is parted. `parse`: as in `read_marked`."""
    results = record.get("results") if isinstance(record, dict) else None
    if not isinstance(results, list):
        return []
    read = [isinstance(each, dict) and read_marked(each, parse or plain_number) for each in results]
    if not any(read):
        return []
    record["results"] = [new or old for new, old in zip(read, results, strict=True)]
    return results


def plain_number(text: str) -> Number | str | None:
    """Return the number, or the bound, that a text is; one or two digits behind a comma are decimals."""
    digits = re.sub(r"\s", "", text)
    digits = digits.replace(",", ".") if DECIMAL_COMMA.fullmatch(digits) else digits
    return number(digits) if digits[0] not in "<>" else digits if parse_measurement(digits) else None


@lru_cache(maxsize=1024)
def find_mark(text: str) -> tuple[str, str, bool, bool] | None:
    """Return the number in a text, the mark beside it, whether that stands in brackets, and whether it comes first."""
    if not (match := MARKED.fullmatch(text.strip())):
        return None
    inside = match["inside"] or match["first_inside"]
    mark = inside or match["mark"] or match["first"] or match["star"]
    return match["number"] or match["second"], mark, inside is not None, match["second"] is not None


def read_marked(
    result: dict[str, Any], parse: Callable[[str], Number | str | None] = plain_number
) -> dict[str, Any] | None:
    """Return the result with its number and its flag; None if its value is not a number with a mark. `parse`: returns
    the number, or the bound, that a text is, or None."""
    text = result.get("value")
    if type(text) is not str or not (found := find_mark(text)):
        return None
    if "absent_reason" in result or any(name.startswith("value_") for name in result):
        return None
    digits, mark, is_inside, is_first = found
    value = parse(digits)
    flag, interpretation = read_mark(mark)
    if value is None or not _means_mark(result, value, mark, flag, is_inside=is_inside, is_first=is_first):
        return None
    told = result.get("interpretations") or []
    if told or interpretation:
        told = [*told, interpretation or {"code": mark}]
        result = {**result, "interpretations": told}
    return {**result, "value": value, "flag": flag_of(told) if told else flag}


def is_marked(result: Any) -> bool:
    """Return whether the value of a Result is a number with a mark."""
    value = result.value
    return value.__class__ is str and find_mark(value) is not None and read_marked(to_builtins(result)) is not None


def _means_mark(
    result: dict[str, Any], value: Number | str, mark: str, flag: str | None, *, is_inside: bool, is_first: bool
) -> bool:
    """Return whether the mark beside a number cannot be a unit, and does not contradict the source's own flag."""
    unit, own = str(result.get("unit") or ""), result.get("flag")
    kind, other = size_of(mark), size_of(unit) if unit else None
    if own not in (None, flag) or (kind and other and kind[1] == other[1]):  # 5 L of mL, 24 H of minutes
        return False
    if own or (is_inside and not is_first):
        return True
    position = classify(value, result.get("low"), result.get("high"))
    if position and not unit:
        return flag in AGREEING[position] or flag is None
    if mark not in UNIT_LIKE:
        return unit != "" or not (mark == "H" and TIME.search(str(result.get("name"))))
    return unit != "" and (not is_first or "/" in unit or "%" in unit)
