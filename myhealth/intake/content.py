"""The content of a check-up as its source says it: the columns by name, JSON decoded with every digit. Pure.

A result's identity is its code or name, its sub_id, its first identifier, and its occurrence among those that share
them. What the intake adds, and the versions and moments of sending, make no other content.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC
from decimal import Decimal
from typing import Any

from myhealth.clinical import status
from myhealth.clinical.catalog import as_sent
from myhealth.clinical.status import WITHDRAWN
from myhealth.intake.parsed_record import DECODER
from myhealth.intake.record import Record

Content = dict[str, Any]

UNKNOWN = "unknown"
# What the intake adds to a stored result: it is not a part of what the source says.
ADDED = ("number", "updated_at", "corrected_at", "previous_value", "previous_unit")
# The names that say when or as which version the source wrote; they alone make no other content.
ENVELOPE = ("updated_at", "version")
# Earlier readers kept ".5" and "5,1" as texts, and the formatting commands of HL7.
DECIMAL_COMMA = re.compile(r"(?<=[0-9]),(?=[0-9]{1,2}$)")
LEADING_POINT = re.compile(r"(?<![0-9])\.(?=[0-9])")
COMMAND = re.compile(r"\\\.[a-z]+[0-9+-]*\\")
NO_WORD = re.compile(r"[^\w.<>=+-]")
RACK_DIGITS = 3  # a number of no more digits may be a place in an analyser's rack


def warn_of_withdrawn(record: Record) -> None:
    """Add a warning of what the source withdrew. A record whose every result is withdrawn is withdrawn itself."""
    results = DECODER.decode(record.results)
    count = sum(isinstance(each, dict) and each.get("status") == WITHDRAWN for each in results)
    if count and count == len(results):
        record.status = WITHDRAWN
    if record.status == WITHDRAWN:
        record.warnings.append(("status", "withdrawn by its source: it is not shown", "withdrawn"))
    elif count:
        record.warnings.append(("results", f"{count} withdrawn by the source: not shown", "withdrawn"))


def is_same(one: Content, other: Content) -> bool:
    """Return whether two contents say the same; versions and moments of sending alone do not differ."""
    return _said(one) == _said(other)


def differing(one: Content, other: Content) -> list[str]:
    """Return the names of the columns in which two contents say something else."""
    ours, theirs = _said(one), _said(other)
    return [name for name in ours if ours[name] != theirs[name]]


def same_result(one: Content, other: Content) -> bool:
    """Return whether two results say the same."""
    ours, theirs = _result_said(one), _result_said(other)
    if not (ours.get("identifiers") and theirs.get("identifiers")):  # what one of them lacks does not differ
        ours, theirs = ours | {"identifiers": None}, theirs | {"identifiers": None}
    return bool(comparable(ours) == comparable(theirs))


def is_known_before(stored: Content, sent: Content) -> bool:
    """Return whether a check-up of an earlier reader, which kept fewer facts, has the record's moment and values."""
    if sent["taken_at"] not in (None, stored["taken_at"]) and sent["taken_precision"] != UNKNOWN:
        return False
    shown = {key for key, each in keyed(results_in(stored)) if each.get("status") != WITHDRAWN}
    if any(key in shown and each.get("status") == WITHDRAWN for key, each in keyed(results_in(sent))):
        return False
    return not _current_values(sent) - _current_values(stored)


def is_other_sample(stored: Content, sent: Content, *, same_patient: bool) -> bool:
    """Return whether an analyser used the number, a place in its rack, for another sample.

    The sample's own number (OBR-2) decides where both have one; else the moment, or of a number of at most three
    digits the patient.
    """
    ours, theirs = _placer(stored), _placer(sent)
    if ours and theirs:
        return ours != theirs
    number = str(sent["record_id"])
    in_rack = number.isdecimal() and len(number) <= RACK_DIGITS
    if not same_patient:
        return in_rack
    moments = [content["taken_at"] for content in (stored, sent) if content["taken_precision"] != UNKNOWN]
    moved = len(moments) == 2 and None not in moments and moments[0] != moments[1]
    same_status = not status.compare_status(sent["status"], stored["status"]) and sent["status"] not in status.CORRECTED
    return moved and (same_status or in_rack)


def sample_of(sent: Content, patient_id: int) -> str:
    """Return what distinguishes the sample of a record from others of its number."""
    moment = sent["taken_at"] if sent["taken_precision"] != UNKNOWN else None
    return _placer(sent) or (moment.astimezone(UTC).isoformat() if moment else f"patient {patient_id}")


def renumbered(results: list[Any], before: list[Any]) -> list[Any]:
    """Return results with the numbers that the same ones had before; new ones get numbers that none had. A number
    that is the position is left out."""
    numbers = {key: number_of(result, place) for place, (key, result) in enumerate(keyed(before), 1)}
    free = max(numbers.values(), default=0)
    found = []
    for place, (key, result) in enumerate(keyed(results), 1):
        number = numbers.pop(key, None)
        if number is None:
            number = free = free + 1
        rest = {name: value for name, value in result.items() if name != "number"}
        found.append(rest if number == place else {**rest, "number": number})
    return found


def number_of(result: Mapping[str, Any], place: int) -> int:
    """Return a result's number: its own, else its position from 1."""
    return int(result.get("number") or place)


def comparable(value: Any) -> Any:
    """Return a JSON value by the digits of its numbers, as jsonb writes them: 5.10 is not 5.1, but 1E5 is 100000."""
    if isinstance(value, dict):
        return {name: comparable(each) for name, each in value.items() if each is not None}
    if isinstance(value, list):
        return [comparable(each) for each in value]
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        written = format(Decimal(str(value)), "f")
        return ("number", written.lstrip("-") if not Decimal(written) else written)
    return value


def results_in(content: Content) -> list[Content]:
    found = content["results"]
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def keyed(results: Sequence[Any], *, named: bool = True) -> list[tuple[tuple[Any, ...], Content]]:
    """Return the results with their identities. `named`: by their identifiers too."""
    seen: Counter[tuple[Any, ...]] = Counter()
    found = []
    for result in results:
        identifiers = (named and result.get("identifiers")) or [{}]
        code = result.get("code") or result.get("other_code") or result.get("name")
        key = (code, result.get("sub_id"), identifiers[0].get("value"))
        seen[key] += 1
        found.append(((*key, seen[key]), result))
    return found


def matched(sent: Sequence[Any], stored: Sequence[Any]) -> list[tuple[tuple[Any, ...], Content]]:
    """Return the sent results with the identities of the stored ones. If only one of two has an identifier, their
    place among those of the same code and sub_id tells."""
    known = dict(zip((key for key, _ in keyed(stored, named=False)), (key for key, _ in keyed(stored)), strict=True))
    found, names = [], {*known.values()}
    for (key, result), (place, _) in zip(keyed(sent), keyed(sent, named=False), strict=True):
        other = known.get(place)
        is_other = key not in names and other is not None and (other[2] is None) != (key[2] is None)
        found.append((other if is_other and other else key, result))
    return found


def numbers_in(content: Content) -> list[str]:
    """Return the number of the Observation of each result; "" if it has none."""
    panels = (content["details"] or {}).get("panels", ())
    known = {each["name"]: each.get("sub_id") for each in panels if each.get("components")}
    own = str(content["record_id"] or "")
    return [str(each.get("sub_id") or known.get(each.get("group")) or own) for each in results_in(content)]


def held_in(content: Content) -> set[str]:
    """Return the numbers of the Observations that a check-up contains."""
    return {number for number in numbers_in(content) if number not in ("", content["record_id"])}


def _said(content: Content) -> Content:
    """Return what a content says, without versions and moments of sending, in a form to be compared."""
    found = {name: value for name, value in content.items() if name not in ("issued_at", "record_id")}
    if content["taken_precision"] == UNKNOWN or content["taken_at"] is None:
        found["taken_at"] = None
    details = {name: value for name, value in (content["details"] or {}).items() if name not in ENVELOPE}
    found["details"] = details or None
    found["results"] = [_result_said(each) for each in results_in(content)]
    return {name: comparable(value) for name, value in found.items()}


def _placer(content: Content) -> str:
    found = (content["details"] or {}).get("identifiers") or ()
    return next((str(each["value"]) for each in found if each.get("type") == "PLAC"), "")


def _current_values(content: Content) -> Counter[str]:
    """Return the values of the results that are not withdrawn: numbers by their digits, of words the letters."""
    return Counter(_letters_of(each.get("value")) for each in results_in(content) if each.get("status") != WITHDRAWN)


def _letters_of(value: Any) -> str:
    if not isinstance(value, str):
        return str(comparable(value)[1]) if isinstance(value, int | float | Decimal) else str(value)
    text = LEADING_POINT.sub("0.", DECIMAL_COMMA.sub(".", COMMAND.sub("", value)))
    return NO_WORD.sub("", text).casefold()


def _result_said(result: Content) -> Content:
    return {name: value for name, value in as_sent(result).items() if name not in (*ADDED, "issued_at", "version")}
