"""Validate a check-up record: accept it or explain every fault with its place. Pure.

The Structs of `record` accept, from JSON text (`accept_text`, plain records) or from a decoded record
(`validate_record`, also with further facts). `explain`
walks the types of the same Structs and says why a record is refused. Values are never altered: units, numbers and
ranges stay as they were sent.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from operator import attrgetter, itemgetter
from typing import Any

import msgspec
from msgspec import inspect
from msgspec.structs import astuple, replace

from myhealth.clinical.catalog import findings, first_findings, is_first
from myhealth.clinical.series import BLOOD_KIND, specimen_kind
from myhealth.intake.explanation import FRACTION, UNSTORABLE, Faults, alternatives, checks, explain, json_faults
from myhealth.intake.parsed_record import (
    UNREAD,
    DuplicateKeyDict,
    ParsedRecord,
    UnrepresentableNumber,
    parse_float,
)
from myhealth.intake.person_ranges import fit_to_person
from myhealth.intake.record import (
    DETAIL_COLUMNS,
    NOT_SENT,
    NUMBERS,
    DetailedRecord,
    DetailedResult,
    Record,
    Result,
    SentRecord,
    encode_json,
)
from myhealth.intake.record_ids import results_as_sent
from myhealth.intake.record_types import VALUE_MAX, Fault, is_number

# Bytes of results as JSON: with the report they fit into one MongoDB document of 16 MiB, however BSON encodes them.
RESULTS_MAX_BYTES = 8 * 1024 * 1024
DETAILS_MAX = 1024 * 1024
LONG_FRACTION = re.compile(r"\.[0-9]{7}")


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
    escaped = raw
    if "\\" in raw:  # without escaped backslashes, a backslash before a character escapes it
        escaped = raw.replace("\\\\", "")
        if "\\u0000" in escaped:
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
        first = record.results_as_sent
        record.results_as_sent = results_as_sent(raw, first or record.results) or first
    return record


def validate_record(record: Any, machine: str | None = None) -> tuple[Record | None, Faults]:
    """Validate a decoded record. Return it as it can be stored, or None and its faults as (field, message).

    A field is named like `results[0].unit`. `machine`: the serial that holds for the whole source. A patient with
    identifiers need not be named in `checkup_for`.
    """
    if type(record) is dict and record.get("checkup_for") is None and (number := _first_number(record.get("patient"))):
        record = {**record, "checkup_for": number}
    try:
        checked = _complete(_convert(record), machine)
    except _Refused as refused:
        return None, explain(record, machine) or [refused.args or ("", "it cannot be stored as it is")]
    except REFUSALS as error:
        return None, explain(record, machine) or [("", f"it is not a record: {error}")]
    if checked.taken_at is not None and checked.taken_at > latest_moment():
        message = f"{record['taken_at']} lies in the future; the machine's clock may be wrong"
        checked.warnings.insert(0, ("taken_at", message))
    return checked, []


def _first_number(patient: Any) -> Any:
    identifiers = patient.get("identifiers") if isinstance(patient, dict) else None
    first = identifiers[0] if isinstance(identifiers, list) and identifiers else None
    return first.get("value") if isinstance(first, dict) else None


def latest_moment() -> datetime:
    """Return the latest moment at which a check-up can have been taken: clocks and zones differ by a day at most."""
    return datetime.now(UTC) + timedelta(days=1)


def _convert(record: Any) -> DetailedRecord:
    """Convert a decoded record. Raises _Refused or msgspec.ValidationError."""
    if not _is_storable(record):
        raise _Refused
    if type(moment := record.get("taken_at")) is str:
        record = {**record, "taken_at": FRACTION.sub(r"\1", moment)}
    return msgspec.convert(record, DetailedRecord)


def _is_storable(record: Any) -> bool:
    """Return whether it is an object whose keys, numbers and texts can all be stored, at every depth."""
    if type(record) is not dict:
        return False
    waiting: list[Any] = [record]
    texts: list[str] = []
    while waiting:
        value = waiting.pop()
        kind = value.__class__
        if kind is str:
            texts.append(value)
        elif kind is dict:
            waiting += value.values()
        elif kind is list:
            waiting += value
        elif kind is UnrepresentableNumber or kind is DuplicateKeyDict:
            return False
    text = "".join(texts)
    return "\0" not in text and (text.isascii() or not UNSTORABLE.search(text))


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
    fields: list[Any] = [None if value is NOT_SENT else value for value in astuple(sent)[:PLAIN_FIELDS]]
    for value, fault in zip(_checked_values(fields), RECORD_FAULTS):  # noqa: B905 - strict costs time
        if value is not None and fault(value):
            raise _Refused
    warnings: Faults = []
    results = first = "[]"
    if sent.results and sent.results is not NOT_SENT:
        if sent.__class__ is DetailedRecord:
            _give_specimen(sent)
        changed = _complete_results(sent.results, warnings)
        encoded = encode_json(sent.results)
        if len(encoded) > RESULTS_MAX_BYTES:
            raise _Refused("results", f"has {len(encoded)} bytes; at most {RESULTS_MAX_BYTES} are allowed")
        results = first = encoded.decode()
        if changed:
            first = _first_results(sent.results, changed)
    fields[-2:] = [None if fields[-2] is None else str(fields[-2]), results, warnings]
    record = Record(*fields)
    if sent.__class__ is DetailedRecord:
        _add_details(sent, record)
        fit_to_person(record)
    if record.results is not first and record.record_id is None:
        record.results_as_sent = first
    if record.machine is None:
        record.machine = machine
    elif machine is not None and record.machine != machine:
        raise _Refused
    return record


def _add_details(sent: DetailedRecord, record: Record) -> None:
    """Check and add what only a DetailedRecord has. Raises _Refused."""
    if _has_fault(sent) or (sent.sent is not None and json_faults(sent.sent, "sent")):
        raise _Refused
    for name in DETAIL_COLUMNS:
        value = getattr(sent, name)
        if value is not None and name in ("details", "sent"):
            value = encode_json(value).decode()
            if len(value) > DETAILS_MAX:
                raise _Refused(name, f"has {len(value)} characters; at most {DETAILS_MAX} are allowed")
        setattr(record, name, value)
    record.patient = sent.patient


def _has_fault(part: Any) -> bool:
    """Return whether a Struct, or one within it, has a value that its type allows and a check of its Meta refuses."""
    read, faults = _partchecks(part.__class__)
    for value, fault in zip(read(part), faults):  # noqa: B905 - strict costs time
        if value is None or value is NOT_SENT:
            continue
        if fault is not None:
            if fault(value):
                return True
        else:
            for each in value if value.__class__ is list else (value,):
                if isinstance(each, msgspec.Struct) and _has_fault(each):
                    return True
    return False


def _first_results(results: list[Any], changed: dict[int, dict[str, Any]]) -> str:
    """Return the results as JSON text with what the catalogue found in them at first."""
    first = [replace(each, **changed[place]) if place in changed else each for place, each in enumerate(results)]
    return encode_json(first).decode()


def _give_specimen(sent: DetailedRecord) -> None:
    """Give the specimen of the check-up to each result that names none: a result is compared and drawn by it."""
    specimen = sent.details and sent.details.specimen
    if specimen:
        for result in sent.results or ():
            result.specimen = result.specimen or specimen


def _may_be_blood(specimen: Any) -> bool:
    return specimen is None or specimen_kind(msgspec.to_builtins(specimen)) in ("", BLOOD_KIND)


def _complete_results(results: Sequence[Result], warnings: Faults) -> dict[int, dict[str, Any]]:
    """Check what the Struct does not express, and add null for what was not sent and the catalogue's findings. Return
    the fields of results in which the catalogue found something else at first.

    Raises _Refused.
    """
    changed: dict[int, dict[str, Any]] = {}
    for index, result in enumerate(results):
        code, value, unit, low, high, flag = (
            result.code, result.value, result.unit, result.low, result.high, result.flag
        )  # fmt: skip
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
        if code is NOT_SENT:
            result.code = code = None
        if unit is NOT_SENT:
            result.unit = unit = None
        if flag is NOT_SENT:
            result.flag = flag = None
        if low is not None and not is_number(low):
            raise _Refused
        if high is not None and (not is_number(high) or (low is not None and low > high)):
            raise _Refused
        if code is not None and unit is not None:
            words = result.range_text
            if result.__class__ is DetailedResult:
                if not _may_be_blood(result.specimen):  # the catalogue's ranges are for blood
                    continue
                if words is None and result.ranges:
                    words = ""  # the source has a range, whether or not it holds for this patient
            found = findings(code, value, unit, low, high, flag, words)
            if not found:
                continue
            if "range_text" in found or "flag_source" in found or not is_first(code, unit):
                before = {name: getattr(result, name) for name in found}
                changed[index] = before | first_findings(code, value, unit, low, high, flag, words)
            for name, finding in found.items():
                setattr(result, name, finding)
            if "warning" in found:
                warnings.append((f"results[{index}].value", found["warning"]))
    return changed


@lru_cache(maxsize=64)
def _partchecks(cls: type[msgspec.Struct]) -> tuple[Callable[[Any], tuple[Any, ...]], list[Fault | None]]:
    """Return how to read the values of a Struct that need a check beyond their type, and the check of each: None if it
    is within the Structs of the value."""
    type_: Any = inspect.type_info(cls)
    inside = [(field.name, None) for field in type_.fields if _contains_struct(field.type)]
    inline = INLINE if issubclass(cls, Result) else ()
    found = [*((name, fault) for name, fault in checks(type_) if name not in inline), *inside]
    names = [name for name, _ in found]
    read = attrgetter(*names) if len(names) > 1 else lambda part: tuple(getattr(part, name) for name in names)
    return read, [fault for _, fault in found]


def _contains_struct(type_: inspect.Type) -> bool:
    kinds = [each.item_type if isinstance(each, inspect.ListType) else each for each, _ in alternatives(type_)]
    return any(isinstance(each, inspect.StructType) for kind in kinds for each, _ in alternatives(kind))


RECORD_CHECKS = checks(inspect.type_info(SentRecord))  # type: ignore[arg-type]
RECORD_FAULTS = [fault for _, fault in RECORD_CHECKS]
_checked_values = itemgetter(*(SentRecord.__struct_fields__.index(name) for name, _ in RECORD_CHECKS))
PLAIN_FIELDS = len(SentRecord.__struct_fields__)
INLINE = ("name", *NUMBERS)  # `_complete_results` checks these
