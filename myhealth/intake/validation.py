"""Validate a check-up record: accept it or explain every fault with its place. Pure.

The Structs of `record` accept, from JSON text (`accept_text`, plain records) or from a decoded record
(`validate_record`, also with further facts). `explain` walks the types of the same Structs and says why a record is
rejected. Values are never altered: units, numbers and ranges stay as they were sent.
"""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from operator import attrgetter
from typing import Any

import msgspec
from msgspec import inspect
from msgspec.structs import replace

from myhealth.clinical.catalog import findings, first_findings, is_of_first
from myhealth.clinical.range_choice import age_at, for_person
from myhealth.clinical.series import BLOOD_KIND, specimen_kind
from myhealth.common.decoding import INT_MAX, INT_MIN
from myhealth.common.text import unstorable_fault
from myhealth.intake.explanation import (
    FRACTION,
    NO_OFFSET,
    OFFSET_MAX,
    YEARS,
    Faults,
    alternatives,
    checks,
    explain,
    json_faults,
)
from myhealth.intake.formats.marked_numbers import is_marked
from myhealth.intake.parsed_record import UNREAD, DuplicateKeyDict, ParsedRecord, UnrepresentableNumber, parse_float
from myhealth.intake.record import (
    DETAIL_COLUMNS,
    NOT_SENT,
    NUMBERS,
    DetailedRecord,
    DetailedResult,
    Record,
    Result,
    SentRecord,
    decode_json,
    encode_json,
)
from myhealth.intake.record_ids import results_as_sent
from myhealth.intake.record_types import VALUE_MAX, Fault
from myhealth.intake.result_facts import (
    as_judged,
    doubtful_moments,
    drop_superseded,
    read_words,
    says_more,
    tells_range,
)
from myhealth.machines.services import serial_fault

# Bytes of results as JSON: with the report they fit into one MongoDB document of 16 MiB, however BSON encodes them.
RESULTS_MAX_BYTES = 8 * 1024 * 1024
DETAILS_MAX = 1024 * 1024
RESULTS = b'"results":'
FIRST_DAY = datetime(YEARS[1], 1, 1).toordinal()
# A backslash that makes a NUL or a comma, in JSON text without escaped backslashes.
MISLEADING = re.compile(r"\\u00(?:00|2[cC])")
Findings = dict[str, Any]
LONG_FRACTION = re.compile(r"\.[0-9]{7}")
INLINE = ("name", *NUMBERS)  # `_check_results` checks these


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


def accept_text(
    parsed: ParsedRecord, machine: str | None, latest: datetime, *, with_marks: bool = False
) -> Record | None:
    """Return the record if its text is the JSON of a valid record that needs no further check, else None.

    None does not mean that it is rejected: `validate_record` decides. `machine`: the serial that holds for the whole
    source. `latest`: of `latest_moment`. `with_marks`: leave values such as 7.2 H as they are. A repeated key is found
    by the commas: only one of its values is decoded, so the record encoded again has fewer commas than the text.
    """
    raw = parsed.raw
    if parsed.record is not UNREAD or ("\\" in raw and MISLEADING.search(raw.replace("\\\\", ""))):
        return None
    try:
        sent = _decode(raw)
        if not _is_plain(sent, machine, raw, latest):
            return None
        if '"range_text"' in raw and any(map(tells_range, sent.results or ())):
            return None
        if not with_marks and any(map(is_marked, sent.results or ())):
            return None
        added, found = _check_results(sent.results or ())
        encoded = encode_json(sent)
        if encoded.count(b",") != raw.count(",") + added:
            return None
        record = _make_record(sent, machine)
        as_sent = ""
        if record.record_id is None and not added and sent.results is not None:
            as_sent = results_as_sent(sent.results or (), found, raw)
        if sent.results:
            _add_results(record, sent.results, encoded[encoded.find(RESULTS) + len(RESULTS) : -1], found)
    except REFUSALS:
        return None
    if as_sent != (record.results_as_sent or record.results):
        record.results_text = as_sent
    return record


def _is_plain(sent: SentRecord, machine: str | None, raw: str, latest: datetime) -> bool:
    """Return whether nothing about a record but its results needs a second look."""
    serial, moment, record_id = sent.machine, sent.taken_at, sent.record_id
    is_blank = sent.checkup_for.isspace() or sent.checkup_type.isspace()
    if is_blank or (record_id.__class__ is str and record_id.isspace()):
        return False
    if serial and serial != machine and (machine is not None or serial_fault(serial)):
        return False
    if not moment:
        return True
    day = moment.toordinal()  # to compare whole moments of two zones takes long
    if day < FIRST_DAY or (day >= latest.toordinal() - 1 and moment > latest):
        return False
    if abs(moment.utcoffset() or NO_OFFSET) > OFFSET_MAX:
        return False
    may_be_rounded = moment.microsecond != 0 or ".000000" in raw or ".999999" in raw
    return not may_be_rounded or LONG_FRACTION.search(raw) is None


def validate_record(record: Any, machine: str | None = None) -> tuple[Record | None, Faults]:
    """Validate a decoded record. Return it as it can be stored, or None and its faults as (field, message).

    A field is named like `results[0].unit`. `machine`: the serial that holds for the whole source. A patient with
    identifiers need not be named in `checkup_for`.
    """
    if type(record) is dict and record.get("checkup_for") is None and (number := _first_number(record.get("patient"))):
        record = {**record, "checkup_for": number}
    try:
        checked = _complete(_to_struct(record), machine)
    except _Refused as refused:
        return None, explain(record, machine) or [refused.args or ("", "it cannot be stored as it is")]
    except REFUSALS as error:
        return None, explain(record, machine) or [("", f"it is not a record: {error}")]
    checked.warnings[:0] = doubtful_moments(record, checked.taken_at, latest_moment())
    return checked, []


def _first_number(patient: Any) -> Any:
    identifiers = patient.get("identifiers") if isinstance(patient, dict) else None
    first = identifiers[0] if isinstance(identifiers, list) and identifiers else None
    return first.get("value") if isinstance(first, dict) else None


def latest_moment() -> datetime:
    """Return the latest moment at which a check-up can have been taken: clocks and zones differ by a day at most."""
    return datetime.now(UTC) + timedelta(days=1)


def _to_struct(record: Any) -> DetailedRecord:
    """Convert a decoded record. Raises _Refused or msgspec.ValidationError."""
    if not _can_be_stored(record):
        raise _Refused
    if type(moment := record.get("taken_at")) is str and "." in moment:
        record = {**record, "taken_at": FRACTION.sub(r"\1", moment)}
    return msgspec.convert(record, DetailedRecord)


def _can_be_stored(record: Any) -> bool:
    """Return whether it is an object whose keys, numbers and texts can all be stored, at every depth."""
    if type(record) is not dict:
        return False
    values: list[Any] = [record]
    texts: list[str] = []
    for value in values:  # it grows
        kind = value.__class__
        if kind is str:
            texts.append(value)
        elif kind is dict:
            values += value.values()
        elif kind is list:
            values += value
        elif kind is UnrepresentableNumber or kind is DuplicateKeyDict:
            return False
    return not unstorable_fault("".join(texts))


def _make_record(sent: SentRecord, machine: str | None) -> Record:
    """Make the record that is stored, without its results; fields that were not sent are None. Raises _Refused."""
    if sent.machine and sent.machine != machine:
        if machine is not None:
            raise _Refused
        machine = sent.machine
    record_id = sent.record_id
    return Record(
        None if record_id is None or record_id is NOT_SENT else str(record_id),
        sent.checkup_type,
        sent.checkup_report,
        sent.disease,
        None if sent.taken_by is NOT_SENT else sent.taken_by,
        sent.taken_at or None,
        "[]",
        checkup_for=sent.checkup_for,
        machine=machine,
    )


def _complete(sent: DetailedRecord, machine: str | None) -> Record:
    """Check what the Structs do not express, and make the record that is stored. Raises _Refused."""
    if _has_fault(sent) or (sent.sent is not None and json_faults(sent.sent, "sent")):
        raise _Refused
    record, may_change = _make_record(sent, machine), False
    if sent.results:
        specimen = sent.details.specimen if sent.details else None
        for result in sent.results if specimen else ():  # a result is compared and drawn by its specimen
            result.specimen = result.specimen or specimen
        if any(map(says_more, sent.results)):
            record.results_as_sent = _results_before(sent.results, record)
            for result in sent.results:
                read_words(result)
        _, found = _check_results(sent.results)
        may_change = any(each.ranges or each.range_source for each in sent.results)
        _add_results(record, sent.results, encode_json(sent.results), found)
        drop_superseded(record, sent.results, sent.status)
    for name in DETAIL_COLUMNS:
        value = getattr(sent, name)
        if value is None:
            continue
        if name in ("details", "sent"):
            value = encode_json(value).decode()
            if len(value) > DETAILS_MAX:
                raise _Refused(name, f"has {len(value)} characters; at most {DETAILS_MAX} are allowed")
        setattr(record, name, value)
    first, record.patient = record.results, sent.patient
    is_known = any(getattr(sent.patient, name, None) not in (None, "") for name in ("sex", "birth_date", "age"))
    if is_known or may_change or '"warning"' in first:  # else each result has the range for somebody unknown
        fit_to_person(record)
    if record.record_id is None and record.results is not first:
        record.results_as_sent = record.results_as_sent or first
    return record


def _has_fault(part: Any) -> bool:
    """Return whether a Struct, or one within it, has a value that its type allows and a check of its Meta refuses."""
    read, faults, absent = _partchecks(part.__class__)
    values = read(part)
    for value, fault in zip(values, faults) if values != absent else ():  # noqa: B905 - strict costs time
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


def _check_results(results: Sequence[Result]) -> tuple[int, list[tuple[int, Findings]]]:
    """Check what the Structs do not express, and add null for what was not sent. Return the number of fields that were
    added, and what the catalogue finds in results, by their index.

    Raises _Refused. It calls no functions where it can do without: this loop is most of the time of a plain record.
    """
    added, all_found = 0, []
    specimen, may_be_blood = None, True  # of the result before: they share one
    for place, result in enumerate(results):
        code, value, unit, low, high = result.code, result.value, result.unit, result.low, result.high
        if code is NOT_SENT or unit is NOT_SENT or low is NOT_SENT or high is NOT_SENT or result.flag is NOT_SENT:
            added += _add_nulls(result)
            code, unit, low, high = result.code, result.unit, result.low, result.high
        is_text = value.__class__ is str
        if value is None or (is_text and len(value) > VALUE_MAX) or result.name.isspace():
            raise _Refused
        for number in (low, high) if is_text else (value, low, high):
            kind = number.__class__
            if kind is int:
                if not INT_MIN <= number <= INT_MAX:
                    raise _Refused
            elif number is not None and kind is not float and kind is not Decimal:
                raise _Refused
        if low is not None and high is not None and low > high:
            raise _Refused
        if isinstance(result, DetailedResult) and result.specimen is not specimen:
            specimen = result.specimen  # the catalogue's ranges are for blood
            may_be_blood = specimen is None or specimen_kind(msgspec.to_builtins(specimen)) in ("", BLOOD_KIND)
        if code is not None and unit is not None and may_be_blood:
            words = result.range_text if result.__class__ is Result else _words_of_range(result)
            found = findings(code, value, unit, low, high, result.flag, words)
            if found:
                all_found.append((place, found if result.__class__ is Result else as_judged(result, found)))
    return added, all_found


def _add_nulls(result: Result) -> int:
    """Set fields that were not sent, and are always stored, to None; return their number."""
    names = [name for name in ("code", "unit", "low", "high", "flag") if getattr(result, name) is NOT_SENT]
    for name in names:
        setattr(result, name, None)
    return len(names)


def _add_results(record: Record, results: list[Any], encoded: bytes, all_found: list[tuple[int, Findings]]) -> None:
    """Add the results to the record, with the catalogue's findings. `encoded`: their JSON without the findings.

    If the first catalogue would have found something else, store the results with that in `results_as_sent`: the number
    of a record without one is derived from it. Raises _Refused.
    """
    first = results[:]
    for place, found in all_found:
        result = results[place]
        if not is_of_first(found, result.code, result.unit):
            words = result.range_text if result.__class__ is Result else _words_of_range(result)
            values = (result.code, result.value, result.unit, result.low, result.high, result.flag, words)
            first[place] = replace(result, **first_findings(*values))
        for name, finding in found.items():
            setattr(result, name, finding)
        if "warning" in found:
            record.warnings.append((f"results[{place}].value", found["warning"]))
    if all_found:
        encoded = encode_json(results)
    if len(encoded) > RESULTS_MAX_BYTES:
        raise _Refused("results", f"has {len(encoded)} bytes; at most {RESULTS_MAX_BYTES} are allowed")
    record.results = encoded.decode()
    if record.record_id is None and first != results and not record.results_as_sent:
        record.results_as_sent = encode_json(first).decode()


def _results_before(results: Sequence[Result], record: Record) -> str:
    """Return the results from which the number of a record is derived, as JSON: without the facts read from their
    words."""
    copies, made = [replace(result) for result in results], replace(record)
    _, found = _check_results(copies)
    _add_results(made, copies, encode_json(copies), found)
    return made.results_as_sent or made.results


def _words_of_range(result: Any) -> str | None:
    """Return the range in words; "" if the source gave ranges without words, even if none of them holds for this
    patient."""
    return "" if result.range_text is None and result.ranges else result.range_text


@lru_cache(maxsize=64)
def _partchecks(
    cls: type[msgspec.Struct],
) -> tuple[Callable[[Any], tuple[Any, ...]], list[Fault | None], tuple[None, ...]]:
    """Return a getter for the fields of a Struct that need a check beyond their type, the check of each field, None if
    the value contains Structs, which have the checks, and what it gets if the Struct has none of the fields."""
    type_: Any = inspect.type_info(cls)
    inside = [(field.name, None) for field in type_.fields if _contains_checks(field.type)]
    inline = INLINE if issubclass(cls, Result) else ()
    found = [*((name, fault) for name, fault in checks(type_) if name not in inline), *inside]
    names = [name for name, _ in found]
    read = attrgetter(*names) if len(names) > 1 else lambda part: (getattr(part, names[0]),)
    return read, [fault for _, fault in found], (None,) * len(found)


def _contains_checks(type_: inspect.Type) -> bool:
    """Return whether a value of the type contains Structs with fields that need a check beyond their type."""
    kinds = [each.item_type if isinstance(each, inspect.ListType) else each for each, _ in alternatives(type_)]
    structs = [each for kind in kinds for each, _ in alternatives(kind) if isinstance(each, inspect.StructType)]
    return any(_partchecks(each.cls)[1] for each in structs)


def fit_to_person(record: Record, sex: str | None = None, birth_date: str | None = None) -> None:
    """Choose the range of each result by the facts known of the patient.

    `sex`, `birth_date`: those stored of the patient; the source's own, in `record.patient`, come first. The number of a
    record without one stays the same: it is derived from `results_as_sent`.
    """
    text = record.results
    if '"range' not in text or ('"ranges"' not in text and '"range_source"' not in text):
        return
    if record.patient is not None:
        sex, birth_date = record.patient.sex or sex, record.patient.birth_date or birth_date
    on = (record.taken_at or datetime.now(UTC)).date()
    age, oldest = age_at(birth_date, on), age_at(birth_date, on, oldest=True)
    if age is None and record.patient is not None:
        age = record.patient.age
    results = decode_json(text)
    fitted = [for_person(result, sex, age, oldest) for result in results]
    if fitted != results:
        record.results = encode_json(fitted).decode()
