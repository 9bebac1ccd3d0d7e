"""The usual record, checked at the speed of C. Anything unusual is left to `records`, which tells every fault.

What this takes in, `records.check_record` takes in too, and makes the same of it; a test holds one against the other.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from myhealth.checkups.catalog import BY_CODE, WRITTEN
from myhealth.checkups.records import (
    OFFSET_MAX,
    REPORT_MAX,
    RESULTS_MAX,
    RESULTS_MAX_BYTES,
    TEXT_MAX,
    VALUE_MAX,
    YEARS,
    Record,
)
from myhealth.machines.readings import INT_MAX, INT_MIN, Reading
from myhealth.machines.services import serial_fault

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
    record_id: Needed | None = None
    machine: str | None = None
    taken_by: Text | None = None
    taken_at: Annotated[datetime, Meta(tz=True)] | None = None
    results: msgspec.Raw = msgspec.Raw(b"[]")


_decode_record = msgspec.json.Decoder(_Record).decode
_decode_results = msgspec.json.Decoder(Annotated[list[_Result], Meta(max_length=RESULTS_MAX)]).decode


def usual_record(reading: Reading, machine: str | None) -> Record | None:
    """The record, if there is nothing unusual about it; None leaves it to `check_record`."""
    raw = reading.raw
    if not reading.distinct or ("\\u" in raw and UNSTORABLE.search(raw)):
        return None
    try:
        record = _decode_record(raw)
        results = _decode_results(record.results)
    except (msgspec.MsgspecError, UnicodeEncodeError):
        return None
    if record.machine is not None and (serial_fault(record.machine) or machine not in (None, record.machine)):
        return None
    taken_at = record.taken_at
    if taken_at is not None and (
        taken_at.year not in YEARS or abs(taken_at.utcoffset() or ZERO) > OFFSET_MAX or LONG_FRACTION.search(raw)
    ):
        return None
    if len(record.results) > RESULTS_MAX_BYTES:
        return None
    if not all(map(_is_usual, results)) or (any(map(_is_broken, results)) and MANY_DIGITS.search(raw)):
        return None
    texts = (record.checkup_for, record.checkup_type, record.record_id or "-")
    if any(text.isspace() for text in texts):
        return None
    return Record(
        record.checkup_for,
        record.machine or machine,
        record.record_id,
        record.checkup_type,
        record.checkup_report,
        record.disease,
        record.taken_by,
        record.taken_at,
        bytes(record.results).decode(),
        [],
    )


def _is_usual(result: _Result) -> bool:
    """Whether the catalogue has nothing to add, and the range is one."""
    value, low, high = result.value, result.low, result.high
    if result.name.isspace() or (low is not None and high is not None and low > high):
        return False
    if any(number == 0 and type(number) is float for number in (value, low, high)):  # 1e-999 is not 0, but reads so
        return False
    if result.unit is None or isinstance(value, str) or result.code not in BY_CODE:
        return True
    found = BY_CODE[result.code].ranges.get(WRITTEN.get(result.unit.replace(" ", "").lower(), ""))
    if found is None:
        return True
    ranged = low is not None or high is not None or (found.low is None and found.high is None)
    return ranged and found.least <= value <= found.most


def _is_broken(result: _Result) -> bool:
    """Whether it holds a number with a fraction or an exponent."""
    return float in (type(result.value), type(result.low), type(result.high))
