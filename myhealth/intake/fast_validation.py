"""The usual record, checked at the speed of C. Anything unusual is left to `records`, which tells every fault.

What this takes in, `records.check_record` takes in too, and makes the same of it; a test holds one against the other.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from myhealth.clinical.catalog import BY_CODE, UNIT_SPELLINGS, Range
from myhealth.clinical.ranges import parse_measurement
from myhealth.intake.formats.json_reader import SCANNER, has_unique_keys
from myhealth.intake.parsed_record import INT_MAX, INT_MIN, ParsedRecord
from myhealth.intake.validation import (
    OFFSET_MAX,
    REPORT_MAX,
    RESULTS_MAX,
    RESULTS_MAX_BYTES,
    TEXT_MAX,
    VALUE_MAX,
    YEARS,
    Record,
)
from myhealth.machines.services import serial_fault

T = TypeVar("T")
Text = Annotated[str, Meta(max_length=TEXT_MAX)]
Needed = Annotated[str, Meta(min_length=1, max_length=TEXT_MAX)]
Whole = Annotated[int, Meta(ge=INT_MIN, le=INT_MAX)]
# NUL or half a character as an escape, and a number of more digits than a double holds.
UNSTORABLE = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")
LONG_FRACTION = re.compile(r"\.[0-9]{7}")
ZERO = timedelta(0)
MANY_DIGITS = re.compile(r"[0-9.eE+-]{18}")


class _Result(msgspec.Struct, forbid_unknown_fields=True):
    """A result that says everything, so that it can be stored as it was sent."""

    code: Text | None
    name: Needed
    value: Whole | float | Annotated[str, Meta(max_length=VALUE_MAX)]
    unit: Text | None
    low: Whole | float | None
    high: Whole | float | None
    flag: Literal["L", "H", "LL", "HH", "N", "A"] | None


class _Record(msgspec.Struct, forbid_unknown_fields=True):
    checkup_for: Needed
    checkup_type: Needed
    checkup_report: Annotated[str, Meta(max_length=REPORT_MAX)]
    disease: Text
    record_id: Needed | UnsetType | None = UNSET
    machine: str | UnsetType | None = UNSET
    taken_by: Text | UnsetType | None = UNSET
    taken_at: Annotated[datetime, Meta(tz=True)] | UnsetType | None = UNSET
    results: msgspec.Raw | UnsetType = UNSET


NONE_SENT = msgspec.Raw(b"[]")
RESULT_NAMES = _Result.__struct_fields__
_decode_record = msgspec.json.Decoder(_Record).decode
_decode_results = msgspec.json.Decoder(Annotated[list[_Result], Meta(max_length=RESULTS_MAX)]).decode


def usual_record(reading: ParsedRecord, machine: str | None, soon: datetime) -> Record | None:
    """The record, if there is nothing unusual about it; None leaves it to `check_record`. `soon`: what lies behind it
    is the future."""
    raw = reading.raw
    if reading.distinct is False or ("\\u" in raw and UNSTORABLE.search(raw)):
        return None
    try:
        record = _decode_record(raw)
        sent = NONE_SENT if record.results is UNSET else record.results
        results = _decode_results(sent)
    except (msgspec.MsgspecError, UnicodeEncodeError):
        return None
    if not _is_distinct(reading, record, results) or len(sent) > RESULTS_MAX_BYTES:
        return None
    record_id, serial = _given(record.record_id), _given(record.machine)
    taken_by, taken_at = _given(record.taken_by), _given(record.taken_at)
    if serial is not None and (serial_fault(serial) or machine not in (None, serial)):
        return None
    if taken_at is not None and (
        taken_at.year not in YEARS
        or taken_at > soon
        or abs(taken_at.utcoffset() or ZERO) > OFFSET_MAX
        or ((taken_at.microsecond or ".000000" in raw or ".999999" in raw) and LONG_FRACTION.search(raw))
    ):
        return None
    if record.checkup_for.isspace() or record.checkup_type.isspace() or (record_id is not None and record_id.isspace()):
        return None
    if not _are_usual(results, raw):
        return None
    return Record(
        record.checkup_for,
        serial or machine,
        record_id,
        record.checkup_type,
        record.checkup_report,
        record.disease,
        taken_by,
        taken_at,
        str(sent, "utf-8"),
        [],
    )


def _given(value: T | UnsetType) -> T | None:
    return None if value is UNSET else value


def _is_distinct(reading: ParsedRecord, record: _Record, results: list[_Result]) -> bool:
    """Whether no name stands twice in the record or a result. Where nothing is escaped, two quotes stand around every
    name and every text, so that one more name would show; else it is read once more."""
    if reading.distinct is None:
        raw = reading.raw
        if "\\" in raw:
            reading.distinct = has_unique_keys(SCANNER.decode(raw))
        else:
            optional = (record.record_id, record.machine, record.taken_by, record.taken_at)
            names = 4 + len(RESULT_NAMES) * len(results) + (record.results is not UNSET)
            texts = 4
            for value in optional:
                names += value is not UNSET
                texts += value is not UNSET and value is not None
            for result in results:
                texts += 1 + (result.code is not None) + (result.unit is not None) + (result.flag is not None)
                texts += type(result.value) is str
            reading.distinct = raw.count('"') == 2 * (names + texts)
    return reading.distinct


def _are_usual(results: list[_Result], raw: str) -> bool:
    """Whether the catalogue has nothing to add to any, every range is one, and every number says what it seems to."""
    broken = False  # whether one has a number with a fraction or an exponent
    for result in results:
        value, low, high = result.value, result.low, result.high
        if result.name.isspace() or (low is not None and high is not None and low > high):
            return False
        if type(value) is float or type(low) is float or type(high) is float:
            broken = True
            if value == 0 or low == 0 or high == 0:  # 1e-999 is not 0, but reads so
                return False
        found = _known_range(result.code, result.unit)
        if found is None:
            continue
        if isinstance(value, str):
            if parse_measurement(value) is not None:
                return False
            continue
        ranged = low is not None or high is not None or (found.low is None and found.high is None)
        if not ranged or not found.least <= value <= found.most:
            return False
    return not broken or not MANY_DIGITS.search(raw)


@lru_cache(maxsize=1024)
def _known_range(code: str | None, unit: str | None) -> Range | None:
    """What the catalogue knows of a code in a unit."""
    if unit is None or code not in BY_CODE:
        return None
    return BY_CODE[code].ranges.get(UNIT_SPELLINGS.get(unit.replace(" ", "").lower(), ""))
