"""Make a result of an OBX segment: a value with its code, unit, range and flag.

Source: HL7 v2.8, chapter 7 (OBX), chapter 2.A (data types), and the tables named below.
"""

from __future__ import annotations

import re
from datetime import timedelta, timezone, tzinfo
from typing import Any

from myhealth.intake.formats.hl7v2.segments import Segment
from myhealth.intake.formats.terminology import (
    NO_VALUE,
    Number,
    PartialDateTime,
    in_order,
    interpretation_flag,
    number,
    parse_partial,
)

LOINC_SYSTEMS = ("LN", "LNC", "LOINC", "HTTP://LOINC.ORG", "2.16.840.1.113883.6.1")
# Coding systems of table 0396 whose codes may look like LOINC; L and 99… are local ones.
OTHER_SYSTEM = re.compile(
    r"L|99.*|LB|LCL|LOCAL|SCT|SNM|SNM3|SRT|SNOMED.*|C4|CPT.*|I9.*|I10.*|MDC|NPU|HL7.*|ICD.*|AS4E?|NCID"
)
LOINC_CODE = re.compile(r"([0-9]{1,7})-([0-9])")
TEXT_TYPES = ("ST", "TX", "FT")
CODED_TYPES = ("CE", "CWE", "CNE", "CF")
# Types whose values are text even if they look like a number. A value of any other type is a number if it looks so.
OTHER_TYPES = re.compile("D[TR]|T[MSNQ]|DTM|I[DS]|SI|C[KNMPQ]|MO|X[CP]N|P?PN|X?AD|XTN|XON|PL|R[PI]")
# A structured number (SN): comparator, number, separator or suffix, number.
STRUCTURED = re.compile(r"(<>|[<>]=?|=)?\^?([+-]?[0-9]*\.?[0-9]+)?(?:\^([-+/.:]?)(?:\^([+-]?[0-9]*\.?[0-9]+)?)?)?")
DIGITS = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)"
BETWEEN = re.compile(rf"({DIGITS})\s*(?:-|–|—|_|to|\.\.\.?)\s*({DIGITS})", re.IGNORECASE)
BEYOND = re.compile(rf"(<=?|>=?|≤|≥)\s*({DIGITS})")
TWO = "([0-9]{2})"
TIME = re.compile(rf"([0-9]{{4}})(?:{TWO}(?:{TWO}(?:{TWO}(?:{TWO}(?:{TWO}(\.[0-9]+)?)?)?)?)?)?([+-][0-9]{{4}})?")
PRECISIONS = {"Y": 1, "L": 2, "D": 3}  # of the older TS, in its second component


def is_loinc(code: str) -> bool:
    """Return whether it has the shape and the check digit of a LOINC code.

    Mod 10 (loinc.org, Users' Guide): 12345 has 5, for 5, 3 and 1 are doubled as 531 to 1062, and the digits of 42 and
    1062 add up to 15, which lacks 5 to 20.
    """
    match = LOINC_CODE.fullmatch(code)
    if match is None:
        return False
    digits = match[1][::-1]
    total = sum(map(int, digits[1::2])) + sum(map(int, str(2 * int(digits[::2][::-1]))))
    return -total % 10 == int(match[2])


def code_of(segment: Segment, field: int) -> dict[str, str | None]:
    """Return `code` if a coded field has a LOINC code, first or alternate; else `other_code` and `code_system`."""
    coded = [*segment.components(field), *[""] * 6]
    pairs = [(coded[0], coded[2]), (coded[3], coded[5])]
    for code, system in pairs:
        if LOINC_CODE.fullmatch(code) and system.upper() in LOINC_SYSTEMS:  # WBC^White cells^LN is not one
            return {"code": code}
    for code, system in pairs:
        if is_loinc(code) and not OTHER_SYSTEM.fullmatch(system.upper()):
            return {"code": code}
    code, system = next((pair for pair in pairs if pair[0]), ("", ""))
    found: dict[str, str | None] = {"code": None}
    return found | ({"other_code": code} if code else {}) | ({"code_system": system} if code and system else {})


def words_of(segment: Segment, field: int) -> str:
    """Return the text of a coded field, its original or alternate text, or its code."""
    coded = [*segment.components(field), *[""] * 9]
    return next((text for text in (coded[1], coded[8], coded[4], coded[0], coded[3]) if text), "")


def result_of(segment: Segment) -> dict[str, Any]:
    """Return the result of an OBX segment as a record has it; numbers as they were sent."""
    value = value_of(segment)
    unit = unit_of(segment)
    low, high, range_text = range_of(segment.encoding.plain(segment.field(7)), unit or "")
    flags = (segment.encoding.components(each)[0] for each in segment.repetitions(8))
    flag = next((found for each in flags if (found := interpretation_flag(segment.encoding.plain(each)))), None)
    result: dict[str, Any] = {**code_of(segment, 3), "name": words_of(segment, 3)}
    result |= {"value": NO_VALUE if value is None else value, "unit": unit, "low": low, "high": high, "flag": flag}
    if value is None or segment.text(11).upper() == "X":  # results cannot be obtained (table 0085)
        result["absent_reason"] = NO_VALUE
    if range_text:
        result["range_text"] = range_text
    return result


def unit_of(segment: Segment) -> str | None:
    """Return the unit (OBX-6): the UCUM code if there is one, else the first text; a bare numeric code is not a unit.

    Worked example: "266016^MDC_DIM_MMHG^MDC^mm[Hg]^mm[Hg]^UCUM" is mm[Hg], "mmol/L^^ISO+" is mmol/L.
    """
    coded = [*segment.components(6), *[""] * 6]
    for code, system in ((coded[0], coded[2]), (coded[3], coded[5])):
        if code and system.upper() == "UCUM":
            return code
    first = "" if len(coded[0]) > 2 and coded[0].isdigit() and coded[1] else coded[0]
    return first or coded[1] or coded[3] or coded[4] or None


def value_of(segment: Segment) -> Number | str | None:
    """Return the value of an OBX: an exact number if it is one, else text; None if it is empty."""
    kind = segment.text(2).upper()
    if kind in ("TX", "FT"):  # free text: a repetition is a new line; it has no components
        return "\n".join(segment.encoding.plain(each) for each in segment.repetitions(5)) or None
    values = [_single(segment, kind, each) for each in segment.repetitions(5)]
    found = [each for each in values if each not in (None, "")]
    if len(found) == 1:
        return found[0]
    return ", ".join(map(str, found)) or None


def _single(segment: Segment, kind: str, text: str) -> Number | str:
    """Return one repetition of OBX-5, read by its type (OBX-2)."""
    encoding = segment.encoding
    if kind in TEXT_TYPES:
        return encoding.plain(text).strip()
    parts = [encoding.plain(each).strip() for each in encoding.components(text)]
    if kind in CODED_TYPES:
        coded = [*parts, *[""] * 9]
        return next((each for each in (coded[1], coded[8], coded[4], coded[0]) if each), "")
    if kind == "ED":  # a document in base64; a result cannot contain it
        return f"document ({'/'.join(filter(None, parts[1:3]))})"
    if kind == "NA":
        return ", ".join(parts)
    if kind in ("CX", "EI"):
        return parts[0] or encoding.plain(text)
    plain = parts[0] if len(parts) == 1 else "^".join(parts)
    if OTHER_TYPES.fullmatch(kind):
        return plain
    found = number(plain) if len(parts) == 1 else None if kind == "NM" else _structured(parts)
    return plain if found is None else found


def _structured(parts: list[str]) -> Number | str | None:
    """Read a structured number (SN): a number if it has no other part, else text; None if it is not an SN.

    Worked example: ["", "182"] is 182, [">", "100"] is ">100", ["", "1", ":", "128"] is "1:128".
    """
    if len(parts) > 4 or not STRUCTURED.fullmatch("^".join(parts)) or not any(map(str.isdigit, "".join(parts))):
        return None
    comparator, first, *rest = (*parts, "")
    if comparator in ("", "=") and not any(rest):
        found = number(first)
        return first if found is None else found
    return "".join(parts)


def range_of(text: str, unit: str) -> tuple[Number | None, Number | None, str]:
    """Return (low, high, text) of a reference range; the text only if the range is not a simple one.

    Worked example: "70_105" is (70, 105, ""), "<=5" is (None, 5, ""), "negative" is (None, None, "negative").
    """
    text = text.strip()
    bare = text.removesuffix(unit).strip() if unit else text
    if match := BETWEEN.fullmatch(bare):
        low, high = number(match[1]), number(match[2])
        if low is not None and high is not None and in_order(low, high):
            return low, high, ""
    elif (match := BEYOND.fullmatch(bare)) and (bound := number(match[2])) is not None:
        return (None, bound, "") if match[1][0] in "<≤" else (bound, None, "")
    return None, None, text


def moment_of(segment: Segment, field: int, zone: tzinfo) -> PartialDateTime | None:
    """Return the moment in a field; None if it is empty. Raises ValueError if it is not a moment."""
    text, precision = segment.text(field), segment.text(field, 2)
    if not text:
        return None
    match = TIME.fullmatch(text)
    if match is None:
        raise ValueError(text)
    *digits, fraction, offset = match.groups()
    numbers = tuple(int(each) for each in digits if each)
    numbers = numbers[: PRECISIONS.get(precision.upper(), 6)]
    numbers += (0,) * (6 - len(numbers)) if len(numbers) > 3 else ()
    return parse_partial(numbers, int(f"{fraction or '.'}000000"[1:7]), _offset(offset) if offset else zone)


def zone_of(segment: Segment, field: int, zone: tzinfo) -> tzinfo:
    """Return the zone that a moment names; else `zone`."""
    match = TIME.fullmatch(segment.text(field))
    try:
        return _offset(match[8]) if match and match[8] else zone
    except ValueError:
        return zone


def _offset(text: str) -> tzinfo:
    """Return +0530 as a zone. Raises ValueError if there is no such zone."""
    if int(text[3:]) > 59:
        raise ValueError(text)
    shift = timedelta(hours=int(text[1:3]), minutes=int(text[3:]))
    return timezone(-shift if text[0] == "-" else shift)
