"""Terms that FHIR, HL7 v2 and tables share: partial dates, zones, numbers in text, serials."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from msgspec import Struct

from myhealth.clinical.absent_reasons import NO_VALUE
from myhealth.common.errors import BadInput
from myhealth.common.spreadsheets import FAILED
from myhealth.intake.parsed_record import UnrepresentableNumber, parse_float, parse_int
from myhealth.intake.record_types import TEXT_MAX
from myhealth.machines.services import serial_fault

Number = int | float | Decimal
FieldError = tuple[str, str]  # (field, message)

NOON = 12
NOTHING = timedelta()

# What instruments and spreadsheets print where they have no number: ***.**, ##, #N/A, #DIV/0!, #WERT!.
UNMEASURED = re.compile(rf"(?=.*[*#])[*#.\s]{{2,}}|{FAILED.pattern}")
NOT_A_NUMBER = {
    "NAN": "not-a-number",
    **dict.fromkeys(("INF", "+INF", "INFINITY"), "positive-infinity"),
    **dict.fromkeys(("-INF", "-INFINITY"), "negative-infinity"),
}
# 1,000 may be a thousand or one: a decimal comma has one or two digits behind it, or a lone 0 before it.
DECIMAL_COMMA = re.compile(r"(?:[<>]=?\s*)?[+-]?(?:[0-9]{1,15},[0-9]{1,2}|0,[0-9]{3,15})")
# A number in HL7 (section 2.A, NM), also with an exponent, as some machines send it.
NUMBER = re.compile(r"([+-]?)(?=\.?[0-9])0*([0-9]*)(?:\.([0-9]*))?([eE][+-]?[0-9]+)?")


class PartialDateTime(Struct, frozen=True):
    """A moment as RFC 3339 text with a zone. `known`: its precision, if that is only "day", "month" or "year".

    The time of such a moment is noon UTC, so that it is the same day in nearly every zone. `doubt`: why the moment is
    not certain, if the clocks of its zone skipped or repeated it.
    """

    text: str
    known: str = ""
    doubt: str = ""

    def is_after(self, other: "PartialDateTime") -> bool:
        return datetime.fromisoformat(self.text) > datetime.fromisoformat(other.text)


def numbers_of(digits: Iterable[str | None]) -> tuple[int, ...]:
    """Return the parts of a moment that are given; an hour is completed by 0 minutes and seconds."""
    numbers = tuple(map(int, filter(None, digits)))
    return numbers + (0,) * (6 - len(numbers)) if len(numbers) > 3 else numbers


def microseconds(fraction: str | None) -> int:
    """Return the microseconds of a fraction such as .25."""
    return int(f"{fraction or '.'}000000"[1:7])


@lru_cache(maxsize=64)
def parse_offset(text: str) -> tzinfo:
    """Return +0530, +05:30 or Z as a zone. Raises ValueError if there is no such zone."""
    if text in ("Z", "z"):
        return UTC
    hours, minutes = int(text[1:3]), int(text[-2:])
    if minutes > 59:
        raise ValueError(text)
    shift = timedelta(hours=hours, minutes=minutes)
    return timezone(-shift if text[0] == "-" else shift)


def offset_of(moment: PartialDateTime) -> int:
    """Return the minutes by which a moment's zone is east of UTC."""
    shift = datetime.fromisoformat(moment.text).utcoffset() or NOTHING
    return int(shift.total_seconds() // 60)


FORMER_ALONE = "has only numbers that are not valid now: without a name or a birth date, they may be another holder's"


def parse_partial(digits: tuple[int, ...], microsecond: int, zone: tzinfo) -> PartialDateTime:
    """Return the moment of (year, month, day, hour, minute, second), of which one to three, or all six, are given.

    A leap second becomes the second after it. Raises ValueError if there is no such moment.
    """
    year, month, day, hour, minute, second = (*digits, *(1, 1, NOON, 0, 0)[len(digits) - 1 :])
    if len(digits) < 6:
        known = ("year", "month", "day")[len(digits) - 1]
        return PartialDateTime(datetime(year, month, day, hour, tzinfo=UTC).isoformat(), known)
    leap = second == 60
    found = datetime(year, month, day, hour, minute, 59 if leap else second, microsecond, tzinfo=zone)
    doubt = "" if zone.__class__ is timezone else _clock_doubt(found)
    try:
        return PartialDateTime(_rfc3339(found + timedelta(seconds=1) if leap else found), doubt=doubt)
    except OverflowError as error:
        raise ValueError(str(error)) from error


def _clock_doubt(found: datetime) -> str:
    """Return why a local time is not one certain moment (the clocks skip or repeat it); "" if it is one."""
    later = found.replace(fold=1)
    if found.utcoffset() == later.utcoffset():
        return ""
    shown = found.replace(tzinfo=None).isoformat(" ")
    if (found.utcoffset() or NOTHING) < (later.utcoffset() or NOTHING):
        return f"{shown} does not exist in the zone {found.tzinfo}: its clocks were put forward over it"
    return f"{shown} exists twice in the zone {found.tzinfo}, for its clocks were put back; the first is taken"


def _rfc3339(found: datetime) -> str:
    """Format as RFC 3339, which has no seconds in offsets; local mean times of 1900 have them (Asia/Kolkata:
    +05:53:28)."""
    offset = found.utcoffset() or NOTHING
    return (found.astimezone(UTC) if offset.seconds % 60 or offset.microseconds else found).isoformat()


def number(text: str) -> Number | None:
    """Parse exactly. Return None if the text is not a number or cannot be represented.

    Worked example: "007" is 7, ".5" is 0.5, "+5.10" is Decimal("5.10").
    """
    match = NUMBER.fullmatch(text.strip()) if len(text) < 400 else None
    if match is None:
        return None
    sign, whole, fraction, exponent = (group or "" for group in match.groups())
    plain = f"{sign.strip('+')}{whole or '0'}"
    rest = (f".{fraction}" if fraction else "") + exponent
    found: Any = parse_float(plain + rest) if rest else parse_int(plain)
    return None if isinstance(found, UnrepresentableNumber) else found


def absent_value(sent: str, code: str) -> dict[str, Any]:
    """Return a value that is absent. `sent`: what stands in its place; `code`: FHIR's code of the reason."""
    return {"value": NO_VALUE, "absent_reason": sent[:TEXT_MAX], "absent_code": code}


def in_order(low: Number | None, high: Number | None) -> bool:
    """Return whether the low end is not above the high end; either may be open."""
    return low is None or high is None or low <= high


def usable_serial(text: str) -> str:
    """Return the text if it can be a machine's serial, else ""."""
    return "" if serial_fault(text) else text


def joined_name(given: str, family: str) -> str:
    return " ".join(part for part in (given.strip(), family.strip()) if part)


def read_zone(name: str) -> tzinfo:
    """Return a zone by its name in the tz database (Asia/Kolkata) or its offset (+05:30). Raises BadInput."""
    if name.upper() in ("UTC", "Z"):
        return UTC
    if name[:1] in "+-":
        try:
            zone = datetime.fromisoformat(f"2000-01-01T00:00{name}").tzinfo
        except ValueError as error:
            raise BadInput(f"{name!r} is not a zone; one is like +05:30") from error
        return zone or UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise BadInput(f"{name!r} is not a zone; one is like Asia/Kolkata or +05:30") from error
