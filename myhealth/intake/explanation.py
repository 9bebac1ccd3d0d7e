"""Explain why a record is rejected: every fault with its place, from the types of the Structs that accept. Pure."""

import re
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import msgspec
from msgspec import inspect

from myhealth.common.text import printable, unstorable_fault
from myhealth.intake.parsed_record import DuplicateKeyDict
from myhealth.intake.record import DetailedRecord, DetailedResult
from myhealth.intake.record_types import Fault, is_number, json_kind, refused_number
from myhealth.intake.results import FAULTS_MAX

YEARS = range(1900, 2200)
OFFSET_MAX = timedelta(hours=14)
NO_OFFSET = timedelta()
MOMENT_EXAMPLE = "2026-11-20T09:14:03+05:30"
# PostgreSQL has no digits beyond the microsecond. They are cut: rounding could reach another day.
FRACTION = re.compile(r"(\.\d{6})\d+")
Faults = list[tuple[str, str]]


def explain(record: Any, machine: str | None = None) -> Faults:
    """Return the faults of a decoded record as (field, message), in the order of the Structs' fields. Of more than
    FAULTS_MAX the rest of the list that they are in is not examined."""
    faults: Faults = []
    _explain_struct(record, _record_type(), "", faults)
    named = record.get("machine") if isinstance(record, dict) else None
    if named is not None and machine is not None and named != machine:
        faults.append(("machine", f"is {_quoted(named)}, but the whole dump is of {machine!r}"))
    return faults


@cache
def _record_type() -> Any:
    return inspect.type_info(DetailedRecord)


def _explain_struct(found: Any, type_: inspect.StructType, place: str, faults: Faults) -> None:
    if not isinstance(found, dict):
        faults.append((place, f"{'' if place else 'a record '}must be an object, not {json_kind(found)}"))
        return
    prefix = f"{place}." if place else ""
    known = {field.encode_name for field in type_.fields}
    if isinstance(found, DuplicateKeyDict):
        faults.append((f"{prefix}{printable(found.name, 60)}", "occurs twice"))
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
    if type_.cls is DetailedResult and is_number(low) and is_number(high) and low > high:
        faults.append((f"{prefix}low", f"is {low}, above high, which is {high}"))


def _explain_value(value: Any, type_: inspect.Type, place: str, faults: Faults) -> None:
    """Add the faults of a value. If several types are allowed, explain it by the type that fits the value's JSON type,
    else by the first one."""
    choices = alternatives(type_)
    if value is None and any(isinstance(each, inspect.NoneType) for each, _ in choices):
        return
    fitting: dict[type, Any] = {
        dict: inspect.StructType | inspect.DictType,
        list: inspect.ListType,
        str: inspect.StrType,
    }
    wanted = fitting.get(dict if isinstance(value, dict) else type(value), ())
    first, extra = next((each for each in choices if isinstance(each[0], wanted)), choices[0])
    if value is None and "null" in extra:
        faults.append((place, extra["null"]))
    elif isinstance(first, inspect.StructType):
        _explain_struct(value, first, place, faults)
    elif isinstance(first, inspect.ListType):
        _explain_list(value, first, place, faults)
    elif isinstance(first, inspect.DictType) and isinstance(value, dict):
        faults += json_faults(value, place)
    elif message := _scalar_fault(value, first, extra, {type(other) for other, _ in choices}):
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


def json_faults(found: dict[str, Any], place: str) -> Faults:
    """Return the faults of an object of any form: repeated or unstorable names, texts and numbers, at every depth."""
    faults: Faults = []
    waiting: list[tuple[Any, str]] = [(found, place)]
    while waiting and len(faults) <= FAULTS_MAX:
        value, at = waiting.pop()
        if isinstance(value, dict):
            if isinstance(value, DuplicateKeyDict):
                faults.append((f"{at}.{printable(value.name, 60)}", "occurs twice"))
            faults += [(at, f"a name {message}") for name in value if (message := _text_fault(name, None))]
            waiting += [(each, f"{at}.{printable(name, 60)}") for name, each in value.items()]
        elif isinstance(value, list):
            waiting += [(each, f"{at}[{index}]") for index, each in enumerate(value)]
        elif isinstance(value, str):
            faults += [(at, message)] if (message := _text_fault(value, None)) else []
        elif not (value is None or isinstance(value, bool) or is_number(value)):
            faults.append((at, f"is {refused_number(value)}"))
    return faults


def _scalar_fault(value: Any, type_: inspect.Type, extra: dict[str, Any], others: set[type]) -> str:
    if type(value) is str and "text_max" in extra:
        return _text_fault(value, extra["text_max"])
    if "fault" in extra and (type(value) is str or not isinstance(type_, inspect.StrType)):
        return str(extra["fault"](value))
    if isinstance(type_, inspect.DateTimeType):
        return _moment_fault(value)
    if isinstance(type_, inspect.LiteralType):
        values = extra.get("values", type_.values)
        return "" if value in values else f"must be one of {', '.join(values)} or null, not {_quoted(value)}"
    if isinstance(type_, inspect.DictType):
        return "" if isinstance(value, dict) else f"must be an object, not {json_kind(value)}"
    if isinstance(type_, inspect.BoolType):
        return "" if isinstance(value, bool) else f"must be true or false, not {json_kind(value)}"
    if isinstance(type_, inspect.IntType) and inspect.StrType not in others:
        return _whole_number_fault(value, type_)
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


def _whole_number_fault(value: Any, type_: inspect.IntType) -> str:
    if type(value) is not int:
        return f"must be a whole number, not {json_kind(value)}"
    low, high = type_.ge, type_.le
    beyond = (low is not None and value < low) or (high is not None and value > high)
    return f"is {value}; it must be {low} to {high}" if beyond else ""


def _text_fault(value: str, most: int | None) -> str:
    if most is not None and len(value) > most:
        return f"has {len(value)} characters; at most {most} are allowed"
    return unstorable_fault(value)


def _moment_fault(value: Any) -> str:
    if type(value) is not str:
        return f"must be text like {MOMENT_EXAMPLE}, not {json_kind(value)}"
    try:
        moment = msgspec.convert(FRACTION.sub(r"\1", value), datetime)
    except (msgspec.ValidationError, UnicodeEncodeError):  # the latter for half a character
        return f"{_quoted(value)} is not a date and time like {MOMENT_EXAMPLE}"
    if moment.tzinfo is None:
        return f"{value} has no zone; add one, like +05:30 or Z"
    fault = _calendar_fault(moment)
    return f"{value} {fault}" if fault else ""


def _calendar_fault(moment: datetime) -> str:
    """Return the fault of a time with a zone that no check-up can have, or ""."""
    if abs(moment.utcoffset() or NO_OFFSET) > OFFSET_MAX:
        return "has an impossible zone; none is further than 14 hours from UTC"
    return "" if moment.year in YEARS else f"is not between the years {YEARS[0]} and {YEARS[-1]}"


def _blank_fault(value: Any) -> str:
    """Return the fault of a text of blanks; "" for any other value, such as a whole number in its place."""
    return "is empty" if isinstance(value, str) and value.isspace() else ""


def _quoted(value: Any) -> str:
    return f"'{printable(value, 40)}'" if isinstance(value, str) else json_kind(value)


def alternatives(type_: inspect.Type) -> list[tuple[inspect.Type, dict[str, Any]]]:
    """Return the types of a union, or the one type, each with the `extra` of its Meta."""
    if isinstance(type_, inspect.Metadata):
        return [(each, {**extra, **(type_.extra or {})}) for each, extra in alternatives(type_.type)]
    if isinstance(type_, inspect.UnionType):
        return [found for each in type_.types for found in alternatives(each)]
    return [(type_, {})]


def checks(type_: inspect.StructType) -> list[tuple[str, Fault]]:
    """Return (field, check) for the fields of a Struct whose values need a check beyond their type."""
    checks: list[tuple[str, Fault]] = []
    for field in type_.fields:
        for each, extra in alternatives(field.type):
            if isinstance(each, inspect.DateTimeType):
                checks.append((field.name, _calendar_fault))
            elif "fault" in extra:
                checks.append((field.name, extra["fault"]))
            elif isinstance(each, inspect.StrType) and each.min_length:
                checks.append((field.name, _blank_fault if len(alternatives(field.type)) > 1 else str.isspace))
    return checks
