"""Read a number that stands in a text with its mark: "7.2 H", "H 7.2", "7,2 (H)", "7.2*", "<5 LL"."""

import re
from typing import Any

from myhealth.clinical.interpretations import PLAIN_WORDS, flag_of, read_mark
from myhealth.clinical.ranges import ABOVE, BELOW, WITHIN, classify
from myhealth.intake.formats.terminology import DECIMAL_COMMA, number
from myhealth.intake.parsed_record import ParsedRecord

_OTHERS = ("POS", "NEG")  # three positive lymph nodes
_WORDS = "|".join(
    re.escape(word)
    for word in sorted(PLAIN_WORDS, key=len, reverse=True)
    if not word.isdigit() and PLAIN_WORDS[word] not in _OTHERS
)
_MARK = rf"HH|LL|[HLNA]|\*{{1,3}}|!{{1,2}}|(?i:{_WORDS})"
_NUMBER = r"(?:[<>]=?\s*)?[+-]?[0-9]{1,15}(?:[.,][0-9]{1,15})?"
MARKED = re.compile(
    rf"(?P<number>{_NUMBER})(?:\s*(?P<mark>{_MARK})|\s*[(\[]\s*(?P<inside>{_MARK})\s*[)\]])"
    rf"|(?:(?P<first>{_MARK})\s+|(?P<star>\*{{1,3}}))(?P<second>{_NUMBER})"
)
# Also units, or parts of a name: litre, newton, ampere; the lumbar vertebra L 5.
UNIT_LIKE = ("L", "N", "A")
TIME = re.compile(r"time|dur|hours?|hrs?\b|collect|period|fasting|stund|dauer|zeit", re.IGNORECASE)  # 24 H is a day
AGREEING = {ABOVE: ("H", "HH", "A"), BELOW: ("L", "LL", "A"), WITHIN: ("N",)}


def read_marked_numbers(parsed: ParsedRecord) -> None:
    """Part the numbers in the texts of a record from their marks, where no other reading is possible. Earlier releases
    did not: `parsed.former` has the results as they read them."""
    results = parsed.record.get("results", ())
    read = [_read(each) for each in results]
    if any(read):
        parsed.former = {"results": results}
        parsed.record["results"] = [new or old for new, old in zip(read, results, strict=True)]


def _read(result: dict[str, Any]) -> dict[str, Any] | None:
    """Return the result with its number and its flag; None if its value is not a number with a mark."""
    text = result.get("value")
    if type(text) is not str or not (match := MARKED.fullmatch(text.strip())):
        return None
    if "absent_reason" in result or any(name.startswith("value_") for name in result):
        return None
    digits = re.sub(r"\s", "", match["number"] or match["second"])
    if "," in digits:
        digits = digits.replace(",", ".") if DECIMAL_COMMA.fullmatch(digits) else "a"
    found = number(digits.lstrip("<>="))
    mark = match["mark"] or match["inside"] or match["first"] or match["star"]
    flag, interpretation = read_mark(mark)
    if found is None or not _means_mark(result, digits, mark, flag, is_lone=match["inside"] is None):
        return None
    told = result.get("interpretations") or []
    if told or interpretation:
        told = [*told, interpretation or {"code": mark}]
        result = {**result, "interpretations": told}
    value = digits if digits[0] in "<>" else found
    return {**result, "value": value, "flag": flag_of(told) if told else flag}


def _means_mark(result: dict[str, Any], digits: str, mark: str, flag: str | None, *, is_lone: bool) -> bool:
    """Return whether the mark beside a number cannot be a unit, and does not contradict the source's own flag."""
    unit, own = result.get("unit"), result.get("flag")
    if own not in (None, flag) or (unit or "").casefold() == mark.casefold():
        return False
    if unit or own or not is_lone:
        return True
    position = classify(digits, result.get("low"), result.get("high"))
    if position:
        return flag in AGREEING[position] or flag is None
    return mark not in UNIT_LIKE and not (mark == "H" and TIME.search(str(result.get("name"))))
