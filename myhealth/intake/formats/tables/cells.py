"""Read the cells of a table: numbers, moments, and results with their codes and units.

A text with two possible meanings is a fault, never a guess.
"""

import contextlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, tzinfo
from typing import Any, Literal, get_args

from msgspec.structs import replace

from myhealth.clinical.absent_reasons import NO_VALUE
from myhealth.clinical.catalog import name_of
from myhealth.clinical.coding_systems import is_loinc
from myhealth.clinical.guide import BLOOD_PRESSURE, DIASTOLIC, SYSTOLIC
from myhealth.clinical.range_choice import YEARS_OF
from myhealth.clinical.ranges import parse_measurement
from myhealth.clinical.status import ResultStatus, status_of_words
from myhealth.clinical.unit_sizes import size_of
from myhealth.clinical.units import series_unit, ucum_unit
from myhealth.intake.formats.marked_numbers import plain_number
from myhealth.intake.formats.tables.layout import ORDERS, FittedLayout, Layout
from myhealth.intake.formats.terminology import (
    NOT_A_NUMBER,
    NUMBER,
    UNMEASURED,
    Number,
    PartialDateTime,
    absent_value,
    microseconds,
    number,
    parse_offset,
    parse_partial,
)
from myhealth.intake.parsed_record import ParsedRecord, UnrepresentableNumber
from myhealth.intake.record_types import refused_number
from myhealth.profiles.names import BIRTH_DATE, names_nobody

COMPARED = re.compile(r"([<>]=?|[≤≥~])\s*(.+)")
# A text such as 1,5 or 1'000 that is a number to some reader.
LIKE_A_NUMBER = re.compile(r"[+-]?[0-9][0-9.,' \u00a0]*(?:[eE][+-]?[0-9]+)?")
GROUPED = re.compile(r"[+-]?[1-9][0-9]{0,2}(?:\.[0-9]{3})+")  # 1.234
DECIMAL_POINT = re.compile(r"[<>]?=?\s*[+-]?(?:0\.[0-9]+|[0-9]+\.(?:[0-9]{1,2}|[0-9]{4,})|[0-9]{4,}\.[0-9]+)")
# A number and its unit: 5.5 %, < 5 mg/dL. Words without a per cent or a slash may be others: 5 L is low, 5 pm a time.
WITH_UNIT = re.compile(
    r"((?:[<>]=?|[\u2264\u2265~])?\s*[+-]?[0-9][0-9.,' ]*?)\s*"
    r"(%|\u00b0[CF]|/?[^\W\d_]\S*|(?<=\s)(?:10[*^]|1/)\S+)"
)
CERTAIN_UNIT = re.compile(r"%|\u00b0[CF]|[^\W\d_][^/]*/.+|/[^\W\d_].*|mm\s?Hg", re.IGNORECASE)
# Beside the unit of a column: 154 lb under kg, 98 F under Cel.
OTHER_UNIT = re.compile(r"%|\S{2,}")
TIME_OF_DAY = re.compile(r"[ap]m|h[0-9]+", re.IGNORECASE)  # 98 pm, 7h30: neither picometres nor a power of hours
DEGREES = frozenset(("Cel", "[degF]"))
TIME = (
    r"(?:[T\s,]+([0-9]{1,2})[:.]([0-9]{2})(?:[:.]([0-9]{2})(?:[.,]([0-9]+))?)?(?:\s*([ap])\.?m\.?)?)?"
    r"\s*(Z|[+-][0-9]{2}:?[0-9]{2})?"
)
YEAR_FIRST = re.compile(rf"([0-9]{{4}})[-/.]([0-9]{{1,2}})[-/.]([0-9]{{1,2}}){TIME}", re.IGNORECASE)
YEAR_LAST = re.compile(rf"([0-9]{{1,2}})[-/. ]([0-9]{{1,2}})[-/. ]([0-9]{{4}}|[0-9]{{2}}){TIME}", re.IGNORECASE)
# 20-Nov-2026 and Nov 20, 2026, in English; a year of two digits may be a day.
DAY, MONTH = r"(?P<day>[0-9]{1,2})(?:st|nd|rd|th)?", r"(?P<month>[A-Z]{3,9})\.?"
NAMED_MONTH = [
    re.compile(rf"{first}[-/. ]\s*{second}[-/, ]\s*([0-9]{{4}}){TIME}", re.IGNORECASE)
    for first, second in ((DAY, MONTH), (MONTH, DAY))
]
_MONTHS = "january february march april may june july august september october november december"
MONTHS = {word: at for at, name in enumerate(_MONTHS.split(), 1) for word in (name, name[:3])} | {"sept": 9}
HAS_TIME = re.compile(r"%[HIcXT]")
MINUS = re.compile(r"[\u2212\u2012\u2013](?=[0-9.,])")  # as word processors write it
BLANK = re.compile("(?<=[0-9])[\u00a0\u2009\u202f](?=[0-9])")  # between thousands
PLAIN = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,15})?")
STRAY = re.compile(r'[0-9][0-9.,]*"')
# An age, also with the sex behind it (45Y/M); its parts; units in other languages.
AGE_WHOLE = re.compile(
    r"[<>~]?=?\s*(?:[0-9]+(?:[.,][0-9]+)?\s*[^\W\d_]*\.?,?\s*){1,3}(?:old|\+|/\s*[mf])?", re.IGNORECASE
)
AGE_PARTS = re.compile(r"[0-9]+(?:[.,][0-9]+)?\s*(?:(?!old)[^\W\d_])*")
AGE = re.compile(r"([0-9]{1,5}(?:[.,][0-9]+)?)\s*([^\W\d_]+)?")
AGE_WORDS = {
    word: unit
    for unit, words in (
        ("a", "ans an jahre jahr j lj a\u00f1os a\u00f1o anos ano anni anno"),
        ("mo", "m mois monate monat mon meses mes mesi mese"),
        ("wk", "semaines semaine wochen woche semanas semana"),
        ("d", "jours jour tage tag t d\u00edas dias"),
    )
    for word in words.split()
}
MONTHS_OR_MALE = re.compile(r"[^a-z/]*m", re.IGNORECASE)
ADULT = ("adult", "adulte", "adulto", "erwachsen", "erwachsener", "erwachsene")
AGE_EXAMPLE = "write it as 45, 6 months or 3 days, or leave it empty"
NO_NUMBER = re.compile(r"-{2,}")
TYPED_BLANK = re.compile(r"n/a|n\.a\.|null", re.IGNORECASE)
SHORT_YEAR = re.compile(r"[0-9]{1,2}[-/. ][0-9]{1,2}[-/. ][0-9]{2}(?![0-9])")
DAY_FIRST = "--date-format dmy or mdy, date_format= in the address, or date_format in the layout"
# Marks of other scripts and of the Swiss for a decimal point, thousands, signs, comparisons, per cent.
MARKS = str.maketrans("\u066b\u066c\uff0e\uff0c\uff0d\uff0b\uff1c\uff1e\uff05\u2019", ".'.,-+<>%'")
ONE_UNIT = "write it in that unit, or take the unit out of the column's name"
DECIMAL = "name another: --decimal, decimal= in the address, or decimal and thousands in the layout"
EITHER_POINT = "if decimals, say --decimal . or decimal=. in the address; if thousands, name both in a layout"
EITHER_FIRST = f"may be day first or month first; say which: {DAY_FIRST}"
CENTURY = 69  # the last two digits of years from here on are of 19..: POSIX, strptime
CODED = re.compile(r"(?:(?:LOINC|LN|http://loinc\.org)[\s:|]*)?([1-9][0-9]{0,6}-[0-9])", re.IGNORECASE)
PRESSURE = re.compile(r"([0-9]{2,3})\s*/\s*([0-9]{2,3})(?:\s*mm\s?Hg)?", re.IGNORECASE)
PRESSURES = frozenset(("bp", "blood pressure", "nibp"))
MMHG = "mm[Hg]"


class AmbiguousDate(ValueError):
    """A date that may mean two days, unless a layout decides."""


class NoZone(ValueError):
    """A time whose zone is not known."""


def read_number(text: str, layout: Layout) -> Number | None:
    """Return a number, None if the text is not one. Raises ValueError if its separators may mean two things, or if it
    cannot be kept exactly."""
    plain = text = BLANK.sub(" ", MINUS.sub("-", _in_ascii(text, layout)))
    if layout.thousands and re.fullmatch(rf"[+-]?[0-9]{{1,3}}(?:[{layout.thousands}][0-9]{{3}})+(?:[.,][0-9]+)?", text):
        plain = text.replace(layout.thousands, "")
    mark = layout.decimal or "."
    is_other = mark == "," and "." in plain
    found = None if is_other else number(plain.replace(mark, "."))
    if found is None and not is_other and NUMBER.fullmatch(plain.replace(mark, ".")):
        raise ValueError(f"must be a number, not {refused_number(UnrepresentableNumber(text))}")
    if found is None and LIKE_A_NUMBER.fullmatch(text):
        raise ValueError(f"'{text[:40]}' is not a number with the decimal separator '{mark}'; {DECIMAL}")
    if found is not None and layout.delimiter == ";" and not layout.decimal and GROUPED.fullmatch(text):
        raise ValueError(f"'{text[:40]}' may have decimals or thousands behind its point; {EITHER_POINT}")
    return found


def has_decimal_points(table: FittedLayout, rows: Iterable[Sequence[str]]) -> bool:
    """Return whether a number in the rows of a table has a point that parts no thousands, as 98.5 and 0.985 have: then
    1.234 has decimals too."""
    fields = [place for field in ("value", "low", "high") for place in table.places.get(field, ())]
    places = [*table.results, *fields]
    return any(DECIMAL_POINT.fullmatch(row[place].strip()) for row in rows for place in places if place < len(row))


def _in_ascii(text: str, layout: Layout) -> str:
    """Return a number in the digits and marks of ASCII, from those of any script."""
    if text.isascii():
        return text
    decimal = layout.decimal or "."
    digits = (str(unicodedata.decimal(each, each)) for each in text.replace("\u066b", decimal))
    return "".join(digits).translate(MARKS)


def read_value(text: str, layout: Layout) -> Number | str:
    """Return a number, or words as they are: HI, LO, negative. The number of a bound gets a point: <3,5 becomes <3.5.

    Raises ValueError as `read_number` does.
    """
    found = read_number(text, layout)
    if found is not None:
        return found
    if match := COMPARED.fullmatch(text if text.isascii() else _in_ascii(text, layout)):
        bound = read_number(match[2], layout)
        return text if bound is None else f"{match[1]}{bound}"
    return text


def read_marked_number(text: str, layout: Layout) -> Number | str | None:
    """Return the number, or the bound, beside a mark; None if it may be another one."""
    if "," in text and not (layout.decimal or layout.thousands):
        return plain_number(text)
    try:
        found = read_value(text, layout)
    except ValueError:
        return None
    return found if parse_measurement(found) else None


def read_result(text: str, layout: Layout, unit: str = "") -> dict[str, Any]:
    """Return the value of a cell, or the reason that the cell gives for its absence. `unit`: of its column or row. If
    the cell has a unit too (5.5 %), it must be the same.

    Raises ValueError as `read_number` does.
    """
    if PLAIN.fullmatch(text):  # as most cells are
        return {"value": read_number(text, layout)}
    if UNMEASURED.fullmatch(text) or NO_NUMBER.fullmatch(text):
        return absent_value(text, "error")
    if TYPED_BLANK.fullmatch(text):
        return {"value": NO_VALUE, "absent_reason": text}
    if code := NOT_A_NUMBER.get(text.upper()):
        return absent_value(text, code)
    if (match := WITH_UNIT.fullmatch(text)) and (own := _own_unit(text, match[2], unit)):
        return {"value": read_value(match[1].strip(), layout), "unit": own}
    if STRAY.fullmatch(text):
        raise ValueError(f"'{text[:40]}' ends with a quote that does not begin; remove it, or write inches as in")
    return {"value": read_value(text, layout)}


def _own_unit(text: str, in_cell: str, unit: str) -> str:
    """Return the unit behind the number in a cell, "" if that text is not a unit. `unit`: as in `read_result`. Raises
    ValueError if the two differ in size: 2.1 mIU/L and uIU/mL do not."""
    named, expected = series_unit(in_cell), series_unit(unit)
    if named == expected:
        return unit
    both_degrees = {named, expected} == DEGREES
    may_be = OTHER_UNIT if unit else CERTAIN_UNIT
    is_unit = may_be.fullmatch(in_cell) and not TIME_OF_DAY.fullmatch(in_cell) and ucum_unit(in_cell)
    if not both_degrees and not is_unit:
        return ""
    if not unit:
        return in_cell
    if size_of(named) != size_of(expected) or size_of(named) is None:
        raise ValueError(f"'{text[:40]}' is in {in_cell[:20]}, and its column or row in {unit[:20]}; {ONE_UNIT}")
    return unit if ("eq" in named) == ("eq" in expected) else in_cell  # 1 mmol of calcium is 2 meq


def read_status(text: str) -> str:
    """Return the status of a result. Raises ValueError if the text is not a status."""
    found = status_of_words(text)
    if found is None:
        raise ValueError(f"'{text[:40]}' is not a status; known are {', '.join(get_args(ResultStatus))}")
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
        raise ValueError(f"is not a birth date with a year of four digits: '{text[:40]}'") from None


def read_age(text: str) -> int | float | None:
    """Return an age in years, from one such as 45, 6 months or 4Y 6M; None for words that say none: adult, unknown.
    Raises ValueError for any other text, such as 6 M: M may be months or male."""
    parts = [_age_part(each) for each in AGE_PARTS.findall(text)]
    if not parts and (names_nobody(text) or text.casefold() in ADULT):
        return None
    if not parts or 0 in parts or not AGE_WHOLE.fullmatch(text) or MONTHS_OR_MALE.fullmatch(text):
        raise ValueError(f"is not an age in years, months, weeks or days: '{text[:40]}'; {AGE_EXAMPLE}")
    years = sum((each[0] * each[1] for each in parts if each), 0.0)
    return int(years) if years.is_integer() else years


def _age_part(text: str) -> tuple[float, float] | Literal[0]:
    """Return a part of an age as a number and its unit in years; 0 if the unit is not known."""
    match = AGE.fullmatch(text)
    unit = (match[2] or "a").lower() if match else ""
    years = YEARS_OF.get(AGE_WORDS.get(unit, unit))
    return (float(match[1].replace(",", ".")), years) if match and years else 0


def read_moment(text: str, layout: Layout, zone: tzinfo | None) -> PartialDateTime:
    """Return the moment of a text; its precision is the day if it has no time.

    Raises ValueError if the text is not a moment, AmbiguousDate if the layout must say which number is the month,
    NoZone if it has a time and neither an offset nor `zone`.
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
    for pattern in NAMED_MONTH:
        if match := pattern.fullmatch(text):
            return _moment_of(match, (match[3], str(MONTHS.get(match["month"].lower(), 0)), match["day"]), zone)
    match = YEAR_LAST.fullmatch(text)
    if match is None or order == "ymd":
        raise ValueError(text)
    if not order:
        raise AmbiguousDate(text)
    first, second, year = match.group(1, 2, 3)
    year = year if len(year) == 4 else f"{19 if int(year) >= CENTURY else 20}{year}"
    return _moment_of(match, (year, second, first) if order == "dmy" else (year, first, second), zone)


def fits_other_order(text: str, layout: Layout) -> bool:
    """Return whether a text is no moment with day and month in the order of the layout, but one in the other order."""
    orders = {"dmy": "mdy", "mdy": "dmy"}
    if layout.date_format not in orders:
        return False
    for order in (layout.date_format, orders[layout.date_format]):
        with contextlib.suppress(ValueError):
            read_moment(text, replace(layout, date_format=order), UTC)
            return order != layout.date_format
    return False


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
    micro = microseconds(f".{fraction or ''}")
    own = parse_offset(offset) if offset else zone or UTC
    found = parse_partial((*digits, hours, int(minute), int(second or 0)), micro, own)
    if not offset and zone is None:
        raise NoZone(match[0])
    return found


def table_results(
    name: str, code: str, unit: str, value: dict[str, Any], parsed: ParsedRecord, column: str
) -> list[dict[str, Any]]:
    """Return a result, or the two of a blood pressure such as 128/82; what they lack is left out.

    Anything else in the place of a blood pressure, such as 95/101, stays as it is, and `parsed` gets a warning."""
    text = str(value["value"])
    if code == BLOOD_PRESSURE or (not code and name.casefold() in PRESSURES):
        pressure = PRESSURE.fullmatch(text) if series_unit(unit) in ("", MMHG) else None
        if pressure and int(pressure[1]) > int(pressure[2]):
            both = zip((SYSTOLIC, DIASTOLIC), pressure.groups(), strict=True)
            return [table_result(name_of(code) or code, code, MMHG, {"value": int(digits)}) for code, digits in both]
        if text[:1].isdecimal():
            parsed.warnings.append(
                (column, f"'{text[:40]}' is no blood pressure in mm[Hg] with the upper value first, as in 128/82")
            )
    return [table_result(name, code, unit, value)]


def table_result(name: str, code: str, unit: str, value: dict[str, Any]) -> dict[str, Any]:
    """Return a result with its code, which may be LOINC or another one, and its unit in UCUM if that is known."""
    found: dict[str, Any] = {"name": name, **value}
    unit = found.pop("unit", unit)
    if code:
        coded = CODED.fullmatch(code)
        found |= {"code": coded[1]} if coded and is_loinc(coded[1]) else {"other_code": code}
    if unit:
        found["unit"] = ucum_unit(unit) or unit
        if found["unit"] != unit:
            found["unit_text"] = unit
    return found
