"""HL7 v2 messages, and their reading as records."""

import io
import re
from collections import Counter
from datetime import UTC, timedelta, timezone, tzinfo
from typing import Any

from myhealth.intake.formats.format import Dump
from myhealth.intake.formats.hl7v2.reader import read_hl7
from myhealth.intake.formats.registry import HL7
from myhealth.intake.parsed_record import ParsedRecord
from myhealth.intake.validation import validate_record
from support.paths import DATA

SAMPLE = DATA / "hl7v2" / "oru_r01_glucose.hl7"
INDIA = timezone(timedelta(hours=5, minutes=30))

MSH = r"MSH|^~\&|HC9000|PUNE|||20261120091500||ORU^R01^ORU_R01|MSG1|P|2.5.1"
PID = "PID|1||M100^^^HOSP^MR||Kulkarni^Bholanath^V^^^^L"
OBR = "OBR|1|P1^ORD|F1^LAB|24331-1^Lipid panel^LN|||20261120090000"
OBX = "OBX|1|NM|2093-3^Cholesterol^LN||5.10|mmol/L|3.0-5.2|N|||F"
R = {"low": None, "high": None, "flag": None, "unit": None}


class Pipe:
    """A stream that returns a few bytes at a time."""

    def __init__(self, data: bytes, size: int) -> None:
        self._data = io.BytesIO(data)
        self._size = size

    def read(self, size: int, /) -> bytes:
        return self._data.read(min(size, self._size))


def read_bytes(data: bytes, zone: tzinfo = UTC, size: int = 10**6) -> tuple[list[ParsedRecord], Counter[str]]:
    dump = Dump(HL7, zone=zone)
    return list(read_hl7(Pipe(data, size), dump)), dump.skipped


def read(*segments: str, zone: tzinfo = UTC) -> list[ParsedRecord]:
    return read_bytes("".join(f"{segment}\r" for segment in segments).encode(), zone)[0]


def record_of(*segments: str, zone: tzinfo = UTC) -> dict[str, Any]:
    """Return the only record of these segments; it must be valid."""
    (reading,) = read(*segments, zone=zone)
    assert reading.faults == []
    assert validate_record(reading.record)[1] == []
    return reading.record


def results_of(*segments: str) -> list[dict[str, Any]]:
    return record_of(MSH, PID, OBR, *segments)["results"]


def result_of(obx: str) -> dict[str, Any]:
    (result,) = results_of(obx)
    return result


def obx(kind: str, value: str, **fields: str) -> str:
    """Return an OBX segment with this value; further fields by number, like f8="H"."""
    parts = {"2": kind, "3": "T^Test^L", "5": value, "11": "F", **{name[1:]: text for name, text in fields.items()}}
    return "|".join(["OBX", "1", *(parts.get(str(number), "") for number in range(2, 19))])


def at(record: Any, place: str) -> Any:
    """Return what stands at a place of a record; None if it has no such place."""
    for step in re.findall(r"[a-z_]+|\d+", place):
        if step.isdigit():
            record = record[int(step)] if record is not None and int(step) < len(record) else None
        else:
            record = record.get(step) if record is not None else None
    return record
