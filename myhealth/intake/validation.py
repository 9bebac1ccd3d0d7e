"""Validate a check-up record: accept it or explain every fault with its place. Pure.

The Structs of `record` accept, from JSON text (`accept_text`) or from a decoded record (`validate_record`). `explain`
walks the types of the same Structs and says why a record is refused. Values are never altered: units, numbers and
ranges stay as they were sent.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any

import msgspec
from msgspec import inspect
from msgspec.structs import astuple

from myhealth.clinical.catalog import findings
from myhealth.common.text import printable
from myhealth.intake.parsed_record import (
    UNREAD,
    DuplicateKeyDict,
    ParsedRecord,
    UnrepresentableNumber,
    parse_float,
)
from myhealth.intake.record import (
    NOT_SENT,
    NUMBERS,
    VALUE_MAX,
    Fault,
    Record,
    Result,
    SentRecord,
    encode_json,
    is_number,
    json_kind,
)
from myhealth.intake.record_ids import results_as_sent
from myhealth.intake.results import FAULTS_MAX

YEARS = range(1900, 2200)
OFFSET_MAX = timedelta(hours=14)
# Bytes of results as JSON: with the report they fit into one MongoDB document of 16 MiB, however BSON encodes them.
RESULTS_MAX_BYTES = 8 * 1024 * 1024
# PostgreSQL has no digits beyond the microsecond. They are cut: rounding could reach another day.
FRACTION = re.compile(r"(\.\d{6})\d+")
LONG_FRACTION = re.compile(r"\.[0-9]{7}")
UNSTORABLE = re.compile("[\0\ud800-\udfff]")
NO_OFFSET = timedelta()
MOMENT_EXAMPLE = "2026-11-20T09:14:03+05:30"

Faults = list[tuple[str, str]]


class _Refused(Exception):
    """The record has a fault that the Structs do not express. Arguments: its field and message, if `explain` does not
    find it."""


def _refuse_unrepresentable(text: str) -> Any:
    number = parse_float(text)
    if number.__class__ is UnrepresentableNumber:
        raise _Refused
    return number


_decode = msgspec.json.Decoder(SentRecord, float_hook=_refuse_unrepresentable).decode
REFUSALS = (_Refused, msgspec.MsgspecError, UnicodeEncodeError, RecursionError)


def accept_text(parsed: ParsedRecord, machine: str | None, latest: datetime) -> Record | None:
    """Return the record if its text is the JSON of a valid record that needs no second look, else None.

    None does not mean that it is refused: `validate_record` decides. `machine`: the serial that holds for the whole
    source. `latest`: a record taken later needs a warning, and so a second look.
    """
    raw = parsed.raw
    if parsed.record is not UNREAD:
        return None
    # Without escaped backslashes, a backslash before a character escapes it.
    escaped = raw.replace("\\\\", "") if "\\" in raw else raw
    if "\\" in raw and "\\u0000" in escaped:
        return None
    try:
        sent = _decode(raw)
        if sent.taken_at.__class__ is datetime and (sent.taken_at > latest or _may_be_rounded(sent.taken_at, raw)):
            return None
        if not _has_unique_keys(sent, escaped):
            return None
        record = _complete(sent, machine)
    except REFUSALS:
        return None
    if record.record_id is None:
        record.results_as_sent = results_as_sent(raw, record.results)
    return record


def validate_record(record: Any, machine: str | None = None) -> tuple[Record | None, Faults]:
    """Validate a decoded record. Return it as it can be stored, or None and its faults as (field, message).

    A field is named like `results[0].unit`. `machine`: the serial that holds for the whole source.
    """
    try:
        checked = _complete(_convert(record), machine)
    except _Refused as refused:
        return None, explain(record, machine) or [refused.args]
    except REFUSALS as error:
        return None, explain(record, machine) or [("", f"it is not a record: {error}")]
    if checked.taken_at is not None and checked.taken_at > latest_moment():
        message = f"{record['taken_at']} lies in the future; the machine's clock may be wrong"
        checked.warnings.insert(0, ("taken_at", message))
    return checked, []


def latest_moment() -> datetime:
    """Return the latest moment at which a check-up can have been taken: clocks and zones differ by a day at most."""
    return datetime.now(UTC) + timedelta(days=1)


def _convert(record: Any) -> SentRecord:
    """Convert a decoded record. Raises _Refused or msgspec.ValidationError."""
    if not _is_storable(record):
        raise _Refused
    if type(moment := record.get("taken_at")) is str:
        record = {**record, "taken_at": FRACTION.sub(r"\1", moment)}
    return msgspec.convert(record, SentRecord)


def _is_storable(record: Any) -> bool:
    """Return whether it is an object whose keys, numbers and texts can all be stored, at every depth."""
    if type(record) is not dict:
        return False
    waiting: list[Any] = [record]
    while waiting:
        value = waiting.pop()
        kind = value.__class__
        if kind is dict:
            waiting += value.values()
        elif kind is list:
            waiting += value
        elif kind is str:
            if UNSTORABLE.search(value):
                return False
        elif kind is UnrepresentableNumber or kind is DuplicateKeyDict:
            return False
    return True


def _may_be_rounded(moment: datetime, raw: str) -> bool:
    """Return whether decoding may have rounded a moment that has more digits than a microsecond."""
    possible = moment.microsecond != 0 or ".000000" in raw or ".999999" in raw
    return possible and LONG_FRACTION.search(raw) is not None


def _has_unique_keys(sent: SentRecord, escaped: str) -> bool:
    """Return whether no key is repeated in the text of a record, given without its escaped backslashes.

    Of a repeated key one value is decoded, so the record encoded again has fewer quotes than the text.
    """
    encoded = encode_json(sent)
    count, kept = escaped.count('"'), encoded.count(b'"')
    if "\\" in escaped:
        count -= escaped.count('\\"')
    if b"\\" in encoded:
        kept -= encoded.replace(b"\\\\", b"").count(b'\\"')
    return count == kept


def _complete(sent: SentRecord, machine: str | None) -> Record:
    """Make the record that is stored: the catalogue's findings added, fields that were not sent None. Raises _Refused
    for a fault that the Structs do not express."""
    for value, fault in zip(_checked_values(sent), RECORD_FAULTS):  # noqa: B905 - strict costs time
        if value is not None and value is not NOT_SENT and fault(value):
            raise _Refused
    warnings: Faults = []
    results = "[]"
    if sent.results and sent.results is not NOT_SENT:
        _complete_results(sent.results, warnings)
        encoded = encode_json(sent.results)
        if len(encoded) > RESULTS_MAX_BYTES:
            raise _Refused("results", f"has {len(encoded)} bytes; at most {RESULTS_MAX_BYTES} are allowed")
        results = encoded.decode()
    fields: list[Any] = [None if value is NOT_SENT else value for value in astuple(sent)]
    fields[-2:] = [None if fields[-2] is None else str(fields[-2]), results, warnings]
    record = Record(*fields)
    if record.machine is None:
        record.machine = machine
    elif machine is not None and record.machine != machine:
        raise _Refused
    return record


def _complete_results(results: list[Result], warnings: Faults) -> None:
    """Check what the Struct does not express, and add null for what was not sent and the catalogue's findings.

    Raises _Refused.
    """
    for index, result in enumerate(results):
        value, low, high = result.value, result.low, result.high
        if result.name.isspace():
            raise _Refused
        if value.__class__ is str:
            if len(value) > VALUE_MAX:
                raise _Refused
        elif not is_number(value):
            raise _Refused
        if low is NOT_SENT:
            result.low = low = None
        if high is NOT_SENT:
            result.high = high = None
        if result.code is NOT_SENT:
            result.code = None
        if result.unit is NOT_SENT:
            result.unit = None
        if result.flag is NOT_SENT:
            result.flag = None
        if low is not None and not is_number(low):
            raise _Refused
        if high is not None and (not is_number(high) or (low is not None and low > high)):
            raise _Refused
        for name, fault in RESULT_CHECKS:
            if (further := getattr(result, name)) is not None and fault(further):
                raise _Refused
        if result.code is not None and result.unit is not None:
            found = findings(result.code, value, result.unit, low, high, result.flag, result.range_text)
            for name, finding in found.items() if found else ():
                setattr(result, name, finding)
            if found and "warning" in found:
                warnings.append((f"results[{index}].value", found["warning"]))


def explain(record: Any, machine: str | None = None) -> Faults:
    """Return the faults of a decoded record as (field, message), in the order of the Structs' fields. Of more than
    FAULTS_MAX the rest of the list that they are in is not examined."""
    faults: Faults = []
    _explain_struct(record, RECORD_TYPE, "", faults)
    named = record.get("machine") if isinstance(record, dict) else None
    if named is not None and machine is not None and named != machine:
        faults.append(("machine", f"is {_shown(named)}, but the whole dump is of {machine!r}"))
    return faults


def _explain_struct(found: Any, type_: inspect.StructType, place: str, faults: Faults) -> None:
    if not isinstance(found, dict):
        faults.append((place, f"{'' if place else 'a record '}must be an object, not {json_kind(found)}"))
        return
    prefix = f"{place}." if place else ""
    known = {field.encode_name for field in type_.fields}
    if isinstance(found, DuplicateKeyDict):
        faults.append((f"{prefix}{printable(found.name, 60)}", "stands there twice"))
    for name in sorted(found.keys() - known)[: FAULTS_MAX + 1]:
        message = f"is not a field; the fields are {', '.join(sorted(known))}"
        faults.append((f"{prefix}{printable(name, 60)}", message))
    for field in type_.fields:
        name = field.encode_name
        if name in found:
            _explain_value(found[name], field.type, f"{prefix}{name}", faults)
        elif field.required:
            faults.append((f"{prefix}{name}", "is missing"))
    low: Any = found.get("low")
    high: Any = found.get("high")
    if type_.cls is Result and is_number(low) and is_number(high) and low > high:
        faults.append((f"{prefix}low", f"is {low}, above high, which is {high}"))


def _explain_value(value: Any, type_: inspect.Type, place: str, faults: Faults) -> None:
    """Add the faults of a value. They name the field's first type; besides null, only `record_id` has two types."""
    (first, extra), *others = _alternatives(type_)
    if value is None and any(isinstance(other, inspect.NoneType) for other, _ in others):
        return
    if value is None and "null" in extra:
        faults.append((place, extra["null"]))
    elif isinstance(first, inspect.StructType):
        _explain_struct(value, first, place, faults)
    elif isinstance(first, inspect.ListType):
        _explain_list(value, first, place, faults)
    elif message := _scalar_fault(value, first, extra, {type(other) for other, _ in others}):
        faults.append((place, message))


def _explain_list(value: Any, type_: inspect.ListType, place: str, faults: Faults) -> None:
    if not isinstance(value, list):
        faults.append((place, f"must be a list, not {json_kind(value)}"))
    elif type_.max_length is not None and len(value) > type_.max_length:
        faults.append((place, f"has {len(value)} entries; at most {type_.max_length} are allowed"))
    else:
        for index, item in enumerate(value):
            if len(faults) > FAULTS_MAX:
                break
            _explain_value(item, type_.item_type, f"{place}[{index}]", faults)


def _scalar_fault(value: Any, type_: inspect.Type, extra: dict[str, Any], others: set[type]) -> str:
    if type(value) is str and "text_max" in extra:
        return _text_fault(value, extra["text_max"])
    if "fault" in extra and (type(value) is str or not isinstance(type_, inspect.StrType)):
        return str(extra["fault"](value))
    if isinstance(type_, inspect.DateTimeType):
        return _moment_fault(value)
    if isinstance(type_, inspect.LiteralType):
        values = extra.get("values", type_.values)
        return "" if value in values else f"must be one of {', '.join(values)} or null, not {_shown(value)}"
    if not isinstance(type_, inspect.StrType):
        return ""
    if inspect.IntType in others:
        if type(value) is int and is_number(value):
            return ""
        wanted = "text or a whole number"
    else:
        wanted = "text"
    if type(value) is not str:
        return f"must be {wanted}, not {json_kind(value)}"
    return _text_fault(value, type_.max_length) or ("is empty" if type_.min_length and not value.strip() else "")


def _text_fault(value: str, most: int | None) -> str:
    if most is not None and len(value) > most:
        return f"has {len(value)} characters; at most {most} are allowed"
    found = UNSTORABLE.search(value)
    if found is None:
        return ""
    if found.group() == "\0":
        return f"holds a NUL character (at {found.start()})"
    return f"holds bytes that are not UTF-8, or half a character (at {found.start()})"


def _moment_fault(value: Any) -> str:
    if type(value) is not str:
        return f"must be text like {MOMENT_EXAMPLE}, not {json_kind(value)}"
    try:
        moment = msgspec.convert(FRACTION.sub(r"\1", value), datetime)
    except (msgspec.ValidationError, UnicodeEncodeError):  # the latter for half a character
        return f"{_shown(value)} is not a date and time like {MOMENT_EXAMPLE}"
    if moment.tzinfo is None:
        return f"{value} has no zone; add one, like +05:30 or Z"
    fault = _calendar_fault(moment)
    return f"{value} {fault}" if fault else ""


def _calendar_fault(moment: datetime) -> str:
    """Return the fault of a time with a zone that no check-up can have, or ""."""
    if abs(moment.utcoffset() or NO_OFFSET) > OFFSET_MAX:
        return "has a zone that is nowhere; none is further than 14 hours from UTC"
    return "" if moment.year in YEARS else f"is not between the years {YEARS[0]} and {YEARS[-1]}"


def _blank_fault(value: Any) -> str:
    """Return the fault of blank text; a whole number in its place has none."""
    return "is empty" if isinstance(value, str) and value.isspace() else ""


def _shown(value: Any) -> str:
    return f"'{printable(value, 40)}'" if isinstance(value, str) else json_kind(value)


def _alternatives(type_: inspect.Type) -> list[tuple[inspect.Type, dict[str, Any]]]:
    """Return the types of a union, or the one type, each with the `extra` of its Meta."""
    if isinstance(type_, inspect.Metadata):
        return [(each, {**extra, **(type_.extra or {})}) for each, extra in _alternatives(type_.type)]
    if isinstance(type_, inspect.UnionType):
        return [found for each in type_.types for found in _alternatives(each)]
    return [(type_, {})]


def _checks(type_: inspect.StructType) -> list[tuple[str, Fault]]:
    """Return the fields of a Struct whose values need a check beyond their type, each with it."""
    checks: list[tuple[str, Fault]] = []
    for field in type_.fields:
        for each, extra in _alternatives(field.type):
            if isinstance(each, inspect.DateTimeType):
                checks.append((field.name, _calendar_fault))
            elif "fault" in extra:
                checks.append((field.name, extra["fault"]))
            elif isinstance(each, inspect.StrType) and each.min_length:
                checks.append((field.name, _blank_fault if len(_alternatives(field.type)) > 1 else str.isspace))
    return checks


RECORD_TYPE: Any = inspect.type_info(SentRecord)
RECORD_CHECKS = _checks(RECORD_TYPE)
RECORD_FAULTS = [fault for _, fault in RECORD_CHECKS]
_checked_values = attrgetter(*(name for name, _ in RECORD_CHECKS))
INLINE = ("name", *NUMBERS)
# The name and the numbers of a result are checked in `_complete_results`.
RESULT_CHECKS = [(name, fault) for name, fault in _checks(inspect.type_info(Result)) if name not in INLINE]  # type: ignore[arg-type]
