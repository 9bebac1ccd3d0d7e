"""What a check-up record must be. Pure: a decoded record goes in; what can be stored, or every fault with its place,
comes out. Values are never altered: units, numbers and ranges are kept as they were sent."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec

from myhealth.clinical.catalog import annotate
from myhealth.common.text import printable
from myhealth.intake.parsed_record import DuplicateKeyDict, UnrepresentableNumber
from myhealth.machines.services import serial_fault

# Characters. A report is a doctor's text; the whole record must fit in one MongoDB document (16 MiB).
REPORT_MAX = 1_000_000
TEXT_MAX = 500
VALUE_MAX = 10_000
RESULTS_MAX = 2_000
YEARS = range(1900, 2200)
OFFSET_MAX = timedelta(hours=14)
FRACTION = re.compile(r"(\.\d{6})\d+")
# Bytes of results as JSON: with the report they fit into one MongoDB document of 16 MiB, however BSON puts it.
RESULTS_MAX_BYTES = 8 * 1024 * 1024
FLAGS = ("L", "H", "LL", "HH", "N", "A")
REQUIRED = ("checkup_for", "checkup_type", "checkup_report", "disease")
RECORD_FIELDS = frozenset((*REQUIRED, "record_id", "machine", "taken_by", "taken_at", "results"))
# What a result may say beside: a code of another system than LOINC, why there is no value, a range in words, and what
# the catalogue adds. Text, and stored only where it was said.
RESULT_EXTRAS = ("code_system", "other_code", "absent_reason", "range_text", "range_source", "warning")
RESULT_FIELDS = frozenset(("code", "name", "value", "unit", "low", "high", "flag", *RESULT_EXTRAS))
UNSTORABLE = re.compile("[\0\ud800-\udfff]")

encode_results = msgspec.json.Encoder(decimal_format="number").encode
AddError = Callable[[str, str], None]


@dataclass(slots=True)
class Record:
    """A record that can be stored. `taken_at` is None where it was not sent; `results` is JSON text; `warnings` are
    (field, message) of what was taken as it is, and looks wrong."""

    checkup_for: str
    machine: str | None
    record_id: str | None
    checkup_type: str
    checkup_report: str
    disease: str
    taken_by: str | None
    taken_at: datetime | None
    results: str
    warnings: list[tuple[str, str]]

    def columns(self) -> tuple[Any, ...]:
        """What it says itself of its row, in the table's order: from `record_id` to `results`."""
        return (
            self.record_id,
            self.checkup_type,
            self.checkup_report,
            self.disease,
            self.taken_by,
            self.taken_at,
            self.results,
        )

    def content(self) -> str:
        """Everything but the record's number, as one text: like records have like contents."""
        taken_at = self.taken_at.isoformat() if self.taken_at else None
        texts = (self.checkup_for, self.machine, self.checkup_type, self.checkup_report, self.disease, self.taken_by)
        return encode_results([*texts, taken_at, self.results]).decode()


def validate_record(record: Any, machine: str | None = None) -> tuple[Record | None, list[tuple[str, str]]]:
    """The record, or None and its faults as (field, message), the field like `results[0].unit`.

    `machine`: the serial that holds for the whole source, where there is one.
    """
    faults: list[tuple[str, str]] = []
    warnings: list[tuple[str, str]] = []

    def add_error(field: str, message: str) -> None:
        faults.append((field, message))

    if not isinstance(record, dict):
        return None, [("", f"a record must be an object, not {kind(record)}")]
    _check_names(record, RECORD_FIELDS, "", add_error)
    for name in REQUIRED:
        if name not in record:
            add_error(name, "is missing")
    named = record.get("machine")
    if named is not None and machine is not None and named != machine:
        add_error("machine", f"is {_shown(named)}, but the whole dump is of {machine!r}")
    checked = Record(
        checkup_for=_text(record, "checkup_for", TEXT_MAX, add_error, needed=True),
        machine=machine if named is None else _serial(named, add_error),
        record_id=_record_id(record.get("record_id"), add_error),
        checkup_type=_text(record, "checkup_type", TEXT_MAX, add_error, needed=True),
        checkup_report=_text(record, "checkup_report", REPORT_MAX, add_error),
        disease=_text(record, "disease", TEXT_MAX, add_error),
        taken_by=None if record.get("taken_by") is None else _text(record, "taken_by", TEXT_MAX, add_error),
        taken_at=_taken_at(record.get("taken_at"), add_error, warnings),
        results=_results(record.get("results"), add_error, warnings),
        warnings=warnings,
    )
    return (None if faults else checked), faults


def kind(value: Any) -> str:
    """What sort of JSON value this is, in words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, (int, float, Decimal, UnrepresentableNumber)):
        return "a number"
    if isinstance(value, str):
        return "text"
    return "a list" if isinstance(value, list) else "an object"


def _check_names(found: dict[str, Any], known: frozenset[str], prefix: str, add_error: AddError) -> None:
    if isinstance(found, DuplicateKeyDict):
        add_error(f"{prefix}{printable(found.name, 60)}", "stands there twice")
    if not found.keys() <= known:
        for name in sorted(found.keys() - known):
            add_error(f"{prefix}{printable(name, 60)}", f"is not a field; the fields are {', '.join(sorted(known))}")


def _text(record: dict[str, Any], name: str, most: int, add_error: AddError, *, needed: bool = False) -> str:
    if name not in record:
        return ""  # told already where it is required
    value = record[name]
    if type(value) is not str:
        add_error(name, f"must be text, not {kind(value)}")
        return ""
    fault = _text_fault(value, most)
    if fault:
        add_error(name, fault)
    elif needed and not value.strip():
        add_error(name, "is empty")
    return value


def _text_fault(value: str, most: int) -> str:
    if len(value) > most:
        return f"has {len(value)} characters; at most {most} are allowed"
    found = UNSTORABLE.search(value)
    if found is None:
        return ""
    if found.group() == "\0":
        return f"holds a NUL character (at {found.start()})"
    return f"holds bytes that are not UTF-8, or half a character (at {found.start()})"


def _serial(value: Any, add_error: AddError) -> str | None:
    fault = serial_fault(value) if isinstance(value, str) else f"must be text, not {kind(value)}"
    if fault:
        add_error("machine", fault)
        return None
    return str(value)


def _record_id(value: Any, add_error: AddError) -> str | None:
    if value is None:
        return None
    if type(value) is int:  # a number says the same as its digits
        value = str(value)
    if type(value) is not str:
        add_error("record_id", f"must be text or a whole number, not {kind(value)}")
        return None
    fault = _text_fault(value, TEXT_MAX) or ("" if value.strip() else "is empty")
    if fault:
        add_error("record_id", fault)
    return value


def latest_moment() -> datetime:
    """The latest moment at which a check-up can have been taken: clocks and zones differ by a day at most."""
    return datetime.now(UTC) + timedelta(days=1)


def _taken_at(value: Any, add_error: AddError, warnings: list[tuple[str, str]]) -> datetime | None:
    if value is None:
        return None
    if type(value) is not str:
        add_error("taken_at", f"must be text like 2026-11-20T09:14:03+05:30, not {kind(value)}")
        return None
    try:
        # Digits beyond the microsecond are cut, as PostgreSQL has no place for them: rounding could reach another day.
        moment = msgspec.convert(FRACTION.sub(r"\1", value), datetime)
    except (msgspec.ValidationError, UnicodeEncodeError):  # the latter for half a character
        add_error("taken_at", f"{_shown(value)} is not a date and time like 2026-11-20T09:14:03+05:30")
        return None
    if moment.tzinfo is None:
        add_error("taken_at", f"{value} has no zone; add one, like +05:30 or Z")
        return None
    offset = moment.utcoffset()
    if offset is not None and abs(offset) > OFFSET_MAX:
        add_error("taken_at", f"{value} has a zone that is nowhere; none is further than 14 hours from UTC")
        return None
    if moment.year not in YEARS:
        add_error("taken_at", f"{value} is not between the years {YEARS[0]} and {YEARS[-1]}")
        return None
    if moment > latest_moment():
        warnings.append(("taken_at", f"{value} lies in the future; the machine's clock may be wrong"))
    return moment


def _results(value: Any, add_error: AddError, warnings: list[tuple[str, str]]) -> str:
    if value is None:
        return "[]"
    if not isinstance(value, list):
        add_error("results", f"must be a list, not {kind(value)}")
        return "[]"
    if len(value) > RESULTS_MAX:
        add_error("results", f"has {len(value)} entries; at most {RESULTS_MAX} are allowed")
        return "[]"
    faults: list[tuple[str, str]] = []
    checked = [_result(item, f"results[{i}]", lambda *fault: faults.append(fault)) for i, item in enumerate(value)]
    for field, message in faults:
        add_error(field, message)
    if faults:
        return "[]"
    for i, result in enumerate(checked):
        warning = annotate(result)
        if warning:
            warnings.append((f"results[{i}].value", warning))
    encoded = encode_results(checked)
    if len(encoded) > RESULTS_MAX_BYTES:
        add_error("results", f"has {len(encoded)} bytes; at most {RESULTS_MAX_BYTES} are allowed")
        return "[]"
    return encoded.decode()


def _result(item: Any, place: str, add_error: AddError) -> dict[str, Any]:
    """A result with every field of the contract, null where it was not sent."""
    if not isinstance(item, dict):
        add_error(place, f"must be an object, not {kind(item)}")
        return {}
    _check_names(item, RESULT_FIELDS, f"{place}.", add_error)
    result = {name: item.get(name) for name in ("code", "name", "value", "unit", "low", "high", "flag")}
    for name in item:
        if name in RESULT_EXTRAS and item[name] is not None:
            result[name] = item[name]
    _check_texts(result, place, add_error)
    _check_value(item, place, add_error)
    _check_range(result["low"], result["high"], place, add_error)
    flag = result["flag"]
    if flag is not None and (type(flag) is not str or flag not in FLAGS):
        add_error(f"{place}.flag", f"must be one of {', '.join(FLAGS)} or null, not {_shown(flag)}")
    return result


def _check_texts(result: dict[str, Any], place: str, add_error: AddError) -> None:
    name = result["name"]
    if name is None or (type(name) is str and not name.strip()):
        add_error(f"{place}.name", "is missing" if name is None else "is empty")
    for field, text in result.items():
        if text is None or field in ("value", "low", "high", "flag"):
            continue
        if type(text) is not str:
            add_error(f"{place}.{field}", f"must be text, not {kind(text)}")
        elif fault := _text_fault(text, TEXT_MAX):
            add_error(f"{place}.{field}", fault)


def _check_value(item: dict[str, Any], place: str, add_error: AddError) -> None:
    value = item.get("value")
    if type(value) is str:
        if fault := _text_fault(value, VALUE_MAX):
            add_error(f"{place}.value", fault)
    elif "value" not in item:
        add_error(f"{place}.value", "is missing")
    elif not is_number(value):
        add_error(f"{place}.value", f"must be a number or text, not {_what(value)}")


def _check_range(low: Any, high: Any, place: str, add_error: AddError) -> None:
    for field, bound in (("low", low), ("high", high)):
        if bound is not None and not is_number(bound):
            add_error(f"{place}.{field}", f"must be a number or null, not {_what(bound)}")
    if is_number(low) and is_number(high) and low > high:
        add_error(f"{place}.low", f"is {low}, above high, which is {high}")


def is_number(value: Any) -> bool:
    """Whether it is a number that can be kept; true and false are none."""
    return type(value) in (int, float, Decimal)


def _shown(value: Any) -> str:
    return f"'{printable(value, 40)}'" if isinstance(value, str) else kind(value)


def _what(value: Any) -> str:
    """What stands where a number is wanted; of one that cannot be kept exactly, why."""
    if not isinstance(value, UnrepresentableNumber):
        return kind(value)
    if value.text in ("NaN", "Infinity", "-Infinity"):
        return value.text
    return f"{value}, which cannot be kept exactly: 64-bit integers can, and 34 digits within a double's range"
