"""Read the cells of a table: numbers and moments. What could mean two things is a fault, never a guess."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any, get_args

from myhealth.clinical.absent_reasons import NO_VALUE
from myhealth.clinical.status import ResultStatus, status_of_words
from myhealth.intake.formats.tables.layout import ORDERS, Layout
from myhealth.intake.formats.terminology import (
    NOT_A_NUMBER,
    NUMBER,
    UNMEASURED,
    Number,
    PartialDateTime,
    absent_value,
    number,
    parse_partial,
)
from myhealth.intake.parsed_record import UnrepresentableNumber
from myhealth.intake.record_types import refused_number
from myhealth.profiles.names import BIRTH_DATE

COMPARED = re.compile(r"([<>]=?|[≤≥~])\s*(.+)")
# A text such as 1,5 or 1'000 that is a number to some reader.
LIKE_A_NUMBER = re.compile(r"[+-]?[0-9][0-9.,' \u00a0]*")
TIME = (
    r"(?:[T\s,]+([0-9]{1,2})[:.]([0-9]{2})(?:[:.]([0-9]{2})(?:[.,]([0-9]+))?)?(?:\s*([ap])\.?m\.?)?)?"
    r"\s*(Z|[+-][0-9]{2}:?[0-9]{2})?"
)
YEAR_FIRST = re.compile(rf"([0-9]{{4}})[-/.]([0-9]{{1,2}})[-/.]([0-9]{{1,2}}){TIME}", re.IGNORECASE)
YEAR_LAST = re.compile(rf"([0-9]{{1,2}})[-/. ]([0-9]{{1,2}})[-/. ]([0-9]{{4}}|[0-9]{{2}}){TIME}", re.IGNORECASE)
HAS_TIME = re.compile(r"%[HIcXT]")
MINUS = re.compile(r"[\u2212\u2012\u2013](?=[0-9.,])")  # as word processors write it
BLANK = re.compile("(?<=[0-9])[\u00a0\u2009\u202f](?=[0-9])")  # between thousands
NO_NUMBER = re.compile(r"-{2,}")
TYPED_BLANK = re.compile(r"n/a|n\.a\.|null", re.IGNORECASE)
SHORT_YEAR = re.compile(r"[0-9]{1,2}[-/. ][0-9]{1,2}[-/. ][0-9]{2}(?![0-9])")
DAY_FIRST = "--date-format dmy or mdy, date_format= in the address, or date_format in the layout"
DECIMAL = "name another: --decimal, decimal= in the address, or decimal and thousands in the layout"
EITHER_FIRST = f"may be day first or month first; say which: {DAY_FIRST}"
CENTURY = 69  # the last two digits of years from here on are of 19..: POSIX, strptime


class AmbiguousDate(ValueError):
    """A day of which only a layout can say what it means."""


class NoZone(ValueError):
    """A time of which nothing says the zone."""


def read_number(text: str, layout: Layout) -> Number | None:
    """Return a number, None if the text is none. Raises ValueError if its separators may mean two things, or if it
    cannot be kept exactly."""
    plain = text = BLANK.sub(" ", MINUS.sub("-", text))
    if layout.thousands and re.fullmatch(rf"[+-]?[0-9]{{1,3}}(?:[{layout.thousands}][0-9]{{3}})+(?:[.,][0-9]+)?", text):
        plain = text.replace(layout.thousands, "")
    mark = layout.decimal or "."
    is_other = mark == "," and "." in plain
    found = None if is_other else number(plain.replace(mark, "."))
    if found is None and not is_other and NUMBER.fullmatch(plain.replace(mark, ".")):
        raise ValueError(f"must be a number, not {refused_number(UnrepresentableNumber(text))}")
    if found is None and LIKE_A_NUMBER.fullmatch(text):
        raise ValueError(f"'{text[:40]}' is no number with the decimal separator '{mark}'; {DECIMAL}")
    return found


def read_value(text: str, layout: Layout) -> Number | str:
    """Return a number, or words as they are: HI, LO, negative; of <3,5 the number is written with a point.

    Raises ValueError as `read_number` does.
    """
    found = read_number(text, layout)
    if found is not None:
        return found
    if match := COMPARED.fullmatch(text):
        bound = read_number(match[2], layout)
        return text if bound is None else f"{match[1]}{bound}"
    return text


def read_result(text: str, layout: Layout) -> dict[str, Any]:
    """Return the value of a cell, and the reason if what stands there says that there is none.

    Raises ValueError as `read_number` does.
    """
    if UNMEASURED.fullmatch(text) or NO_NUMBER.fullmatch(text):
        return absent_value(text, "error")
    if TYPED_BLANK.fullmatch(text):
        return {"value": NO_VALUE, "absent_reason": text}
    if code := NOT_A_NUMBER.get(text.upper()):
        return absent_value(text, code)
    return {"value": read_value(text, layout)}


def read_status(text: str) -> str:
    """Return the status of a result. Raises ValueError if the text is none."""
    found = status_of_words(text)
    if found is None:
        raise ValueError(f"'{text[:40]}' is no status; known are {', '.join(get_args(ResultStatus))}")
    return found


def read_birth_date(text: str, layout: Layout) -> str:
    """Return a birth date as YYYY-MM-DD, or the part of it that is given. Raises ValueError if it may mean two days."""
    if BIRTH_DATE.fullmatch(text):
        return text
    try:
        if SHORT_YEAR.match(text):
            raise ValueError(text)
        return read_moment(text, layout, UTC).text[:10]
    except AmbiguousDate:
        raise ValueError(f"'{text[:40]}' {EITHER_FIRST}") from None
    except ValueError:
        raise ValueError(f"is no birth date with a year of four digits: '{text[:40]}'") from None


def read_moment(text: str, layout: Layout, zone: tzinfo | None) -> PartialDateTime:
    """Return the moment of a text; its precision is the day if it has no time.

    Raises ValueError if it is none, AmbiguousDate if the layout must say which number is the month, NoZone if it has a
    time and neither an offset nor `zone`.
    """
    order = layout.date_format
    if order and order not in ORDERS:
        found = datetime.strptime(re.sub(r"\s+", " ", text), order)
        parts = (found.year, found.month, found.day, found.hour, found.minute, found.second)
        if not HAS_TIME.search(order):
            return parse_partial(parts[:3], 0, UTC)
        if not (zone := found.tzinfo or zone):
            raise NoZone(text)
        return parse_partial(parts, found.microsecond, zone)
    if match := YEAR_FIRST.fullmatch(text):
        return _moment_of(match, match.group(1, 2, 3), zone)
    match = YEAR_LAST.fullmatch(text)
    if match is None or order == "ymd":
        raise ValueError(text)
    if not order:
        raise AmbiguousDate(text)
    first, second, year = match.group(1, 2, 3)
    year = year if len(year) == 4 else f"{19 if int(year) >= CENTURY else 20}{year}"
    return _moment_of(match, (year, second, first) if order == "dmy" else (year, first, second), zone)


def _moment_of(match: re.Match[str], day: tuple[str, ...], zone: tzinfo | None) -> PartialDateTime:
    hour, minute, second, fraction, half, offset = match.groups()[3:]
    digits = tuple(map(int, day))
    if hour is None:
        return parse_partial(digits, 0, UTC)
    hours = int(hour)
    if half:
        if not 1 <= hours <= 12:
            raise ValueError(match[0])
        hours = hours % 12 + (12 if half in "pP" else 0)
    micro = int(f"{fraction or ''}000000"[:6])
    found = parse_partial((*digits, hours, int(minute), int(second or 0)), micro, _offset_zone(offset, zone or UTC))
    if not offset and zone is None:
        raise NoZone(match[0])
    return found


def _offset_zone(offset: str | None, zone: tzinfo) -> tzinfo:
    if not offset:
        return zone
    if offset in "zZ":
        return UTC
    hours, minutes = int(offset[1:3]), int(offset[-2:])
    shift = timedelta(hours=hours, minutes=minutes)
    if minutes > 59 or hours > 23:
        raise ValueError(offset)
    return timezone(-shift if offset[0] == "-" else shift)
