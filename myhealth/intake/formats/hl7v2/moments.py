"""Read the moments of HL7 v2: DT, TM, TS and DTM. Source: HL7 v2.8, chapter 2.A."""

import re
from datetime import date, tzinfo
from functools import lru_cache

from myhealth.intake.formats.hl7v2.segments import Fields, Segment
from myhealth.intake.formats.terminology import (
    PartialDateTime,
    microseconds,
    numbers_of,
    parse_offset,
    parse_partial,
)

TWO = "([0-9]{2})"
TIME = re.compile(rf"([0-9]{{4}})(?:{TWO}(?:{TWO}(?:{TWO}(?:{TWO}(?:{TWO}(\.[0-9]+)?)?)?)?)?)?([+-][0-9]{{4}})?")
ISO_BASIC = re.compile(r"([0-9]{8})T?([0-9]{2,6}(?:\.[0-9]+)?)(Z|[+-][0-9]{2}(?::?[0-9]{2})?)?")
ISO = re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ][0-9]{2}:|$)")
OF_DAY = re.compile(rf"{TWO}(?:{TWO}(?:{TWO}(\.[0-9]+)?)?)?([+-][0-9]{{4}})?")
PRECISIONS = {"Y": 1, "L": 2, "D": 3}  # of the older TS, in its second component


def moment_of(segment: Segment, field: int, zone: tzinfo) -> PartialDateTime | None:
    """Return the moment in a field; None if it is empty or 0. Raises ValueError if it is not a moment."""
    text = segment.text(field)
    if not text.strip("0"):  # 00000000 is not a day
        return None
    return parse_hl7_moment(text, segment.text(field, 2), zone)


@lru_cache(maxsize=1024)
def parse_hl7_moment(text: str, precision: str, zone: tzinfo) -> PartialDateTime:
    """Return the moment of a text such as 20261120091403.25+0530. Raises ValueError if the text is not one."""
    match = _match(text)
    if match is None:
        raise ValueError(text)
    *digits, fraction, offset = match.groups()
    numbers = numbers_of(digits[: PRECISIONS.get(precision.upper(), 6)])
    return parse_partial(numbers, microseconds(fraction) if fraction else 0, parse_offset(offset) if offset else zone)


@lru_cache(maxsize=1024)
def _match(text: str) -> re.Match[str] | None:
    return TIME.fullmatch(text) or TIME.fullmatch(_without_iso_marks(text))


def _without_iso_marks(text: str) -> str:
    """Return a moment in the form of HL7 v2. Some senders write ISO 8601: 2026-11-20T09:14:03Z, 20261120T0914Z."""
    if not ISO.match(text):
        basic = ISO_BASIC.fullmatch(text)
        if basic is None:
            return text
        offset = (basic[3] or "").replace("Z", "+0000").replace(":", "")
        return f"{basic[1]}{basic[2]}{offset:0<5}" if offset else basic[1] + basic[2]
    return re.sub(r"[T: ]", "", text[:10].replace("-", "") + text[10:].replace("Z", "+0000"))


def zone_of(segment: Segment, field: int, zone: tzinfo) -> tzinfo:
    """Return the zone that a moment names; else `zone`."""
    offset = named_offset(segment.text(field))
    try:
        return parse_offset(offset) if offset else zone
    except ValueError:
        return zone


def named_offset(text: str) -> str:
    """Return the offset that a moment names, such as +0530; "" if it names none."""
    match = None if text.isdigit() else _match(text)
    return match[8] or "" if match else ""


def iso_moment(text: str, zone: tzinfo) -> str:
    """Return a day, a month, a year or a moment as ISO 8601 writes it, with its precision; "" if the text is not one.

    Worked examples: 201612 is 2016-12, 20161230 is 2016-12-30, 201612300915+0100 is 2016-12-30T09:15:00+01:00.
    """
    try:
        found = parse_hl7_moment(text, "", zone)
    except ValueError:
        return ""
    return found.text[: {"year": 4, "month": 7, "day": 10}.get(found.known)]


def iso_time(text: str) -> str:
    """Return a time of day as ISO 8601 writes it; "" if the text is not one. Worked examples: 0915 is 09:15:00, and
    0915+0530 09:15:00+05:30."""
    match = OF_DAY.fullmatch(text)
    if match is None or int(match[1]) > 23 or int(match[2] or 0) > 59 or int(match[3] or 0) > 59:
        return ""
    offset = f"{match[5][:3]}:{match[5][3:]}" if match[5] else ""
    return f"{match[1]}:{match[2] or '00'}:{match[3] or '00'}{match[4] or ''}{offset}"


def birth_date_of(segment: Fields, field: int) -> str:
    """Return a birth date as YYYY-MM-DD, YYYY-MM or YYYY; "" if there is none, or no such day."""
    match = _match(segment.text(field))
    if match is None or not match[1].strip("0"):
        return ""
    parts = [each for each in match.groups()[:3] if each and each != "00"]
    try:
        date(*map(int, (*parts, 1, 1)[:3]))
    except ValueError:
        return ""
    return "-".join(parts)
