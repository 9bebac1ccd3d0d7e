"""What the results of one record say together. Pure.

Read the facts that a record of ours states in words or codes alone: a range, a LOINC code among others, a mark. Drop
the results that another one of the record corrects, withdraws or completes. Warn of moments in the future and before
the birth.
"""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from msgspec.structs import replace

from myhealth.clinical.coding_systems import LOINC, uri_of
from myhealth.clinical.in_words import concept_text
from myhealth.clinical.interpretations import flag_of, is_understood
from myhealth.clinical.range_text import conditional_ranges, parse_range
from myhealth.clinical.ranges import parse_measurement
from myhealth.clinical.status import CORRECTED, RANKS, WITHDRAWN, compare_status
from myhealth.common.text import printable
from myhealth.intake.record import NOT_SENT, Record, encode_json
from myhealth.intake.record_types import TEXT_MAX, ReferenceRange

ABSENT = (None, NOT_SENT)
SUPERSEDED = "superseded"  # the code of a warning
# What tells two measurements of one test apart.
IDENTITY = ("sub_id", "taken_at", "taken_precision", "specimen", "body_site", "group", "device", "identifiers")
PRECISION = {"year": 4, "month": 7}  # the length of a date that is known to the year or the month


def tells_range(result: Any) -> bool:
    """Return whether a Result gives its range only in words, and these can be read."""
    if result.range_text is None or result.low not in ABSENT or result.high not in ABSENT or result.range_source:
        return False
    unit = _unit_of(result)
    return bool(parse_range(result.range_text, unit) or conditional_ranges(result.range_text, unit))


def says_more(result: Any) -> bool:
    """Return whether a DetailedResult has words or codes from which a missing field can be filled."""
    if result.ranges and result.low in ABSENT and result.high in ABSENT:
        if any(each.text and each.low is None and each.high is None for each in result.ranges):
            return True
    elif tells_range(result):
        return True
    if result.value == "" and _value_words(result):
        return True
    return bool((result.interpretations and result.flag in ABSENT) or (result.codings and result.code is NOT_SENT))


def as_judged(result: Any, found: dict[str, Any]) -> dict[str, Any]:
    """Return what the catalogue finds in a DetailedResult, without its range where the source judged the value in words
    that are not known: "within the usual range" might contradict them."""
    if not result.interpretations or all(is_understood(msgspec.to_builtins(each)) for each in result.interpretations):
        return found
    return {name: found[name] for name in ("flag", "warning") if "warning" in found}


def read_words(result: Any) -> None:
    """Fill the missing fields of a DetailedResult from its words and codes, and leave these as they are; see
    `says_more`."""
    if result.codings and result.code is NOT_SENT:
        result.code = next((each.code for each in result.codings if uri_of(each.system or "") == LOINC), None)
    if result.interpretations and result.flag in ABSENT:
        result.flag = flag_of(map(msgspec.to_builtins, result.interpretations))
    if result.value == "":
        result.value = _value_words(result)
    unit = _unit_of(result)
    if not result.ranges and tells_range(result):
        if plain := parse_range(result.range_text, unit):
            result.low, result.high = plain
        else:
            told = conditional_ranges(result.range_text, unit)
            result.ranges = [msgspec.convert(each, ReferenceRange) for each in told]
    for each in result.ranges or ():
        if each.text and each.low is None and each.high is None and (plain := parse_range(each.text, unit)):
            each.low, each.high = plain


def _value_words(result: Any) -> str:
    """Return in words a value that was sent only in the field for its type; "" if there is none."""
    if result.value_boolean is not None:
        return "true" if result.value_boolean else "false"
    if result.value_coded is not None:
        return concept_text(msgspec.to_builtins(result.value_coded))[:TEXT_MAX]
    ratio, span = result.value_ratio, result.value_range
    ends = (ratio.numerator, ratio.denominator) if ratio else (span.low, span.high) if span else (None, None)
    words = [f"{each.comparator or ''}{each.value}" for each in ends if each is not None and each.value is not None]
    return (":" if ratio else " - ").join(words) if len(words) == 2 else result.value_moment or ""


def doubtful_moments(record: Any, taken_at: datetime | None, latest: datetime) -> list[tuple[str, str]]:
    """Return a warning for each moment of a valid record that is in the future, or before the patient's birth.
    `taken_at`: the record's."""
    born = (record.get("patient") or {}).get("birth_date") or ""
    length = min(len(born), PRECISION.get(record.get("taken_precision"), 10))
    if taken_at is not None and (taken_at + timedelta(days=1)).date().isoformat()[:length] < born[:length]:
        return [("taken_at", f"{record['taken_at']} lies before the patient's birth on {born}")]
    found = [("taken_at", record["taken_at"])] if taken_at is not None and taken_at > latest else []
    for place, result in enumerate(record.get("results") or ()):
        own = result.get("taken_at")
        if own and msgspec.convert(own, datetime) > latest:
            found.append((f"results[{place}].taken_at", own))
    return [(name, f"{text} lies in the future; the machine's clock may be wrong") for name, text in found]


def _unit_of(result: Any) -> str | None:
    return None if result.unit in ABSENT else getattr(result, "unit_text", None) or result.unit


def drop_superseded(record: Record, results: Sequence[Any], status: str | None) -> None:
    """Take from a record the results that do not count any more: 6.9 preliminary, 6.1 final and 5.1 corrected are 5.1.
    What comes in their stead has the value before. `status`: that of results without one."""
    if not (found := find_superseded([each.status or status or "final" for each in results], results)):
        return
    made = [*results]
    gone = {(each.value, each.unit) for each in results if (each.status or status) == WITHDRAWN}
    for place, by in sorted(found.items(), key=lambda each: each[1]):
        old, new = made[place], made[by]
        if (new.status or status) == WITHDRAWN:
            made[by] = replace(old, status=new.status)
        elif not old.absent_reason and (old.value, old.unit) not in {*gone, (new.value, new.unit)}:
            made[by] = replace(new, previous_value=old.value)
        message = f"{printable(str(old.value), 40)} is not shown: a later version of this result came with it"
        record.warnings.append((f"results[{place}].status", message, SUPERSEDED))
    record.all_results = record.results
    if record.record_id is None:
        record.results_as_sent = record.results_as_sent or record.results
    record.results = encode_json([each for place, each in enumerate(made) if place not in found]).decode()


def find_superseded(statuses: Sequence[str], results: Sequence[Any]) -> dict[int, int]:
    """Return by their places the DetailedResults that do not count any more, each with the place of the one in its
    stead.

    Only what is certain: a withdrawal means the same value or names none; other values must be numbers of one unit, and
    only one may be meant.
    """
    found: dict[int, int] = {}
    if len({*statuses}) < 2:
        return found
    same = defaultdict[str, list[int]](list)
    for place, each in enumerate(results):
        same[str(msgspec.to_builtins([_test(each), *(getattr(each, name) for name in IDENTITY)]))].append(place)
    for places in same.values():
        for place in sorted(places, key=lambda each: RANKS.get(statuses[each], 0)):
            before = [
                each for each in places if each not in found and compare_status(statuses[place], statuses[each]) > 0
            ]
            if statuses[place] == "final":  # of several final values, the last may be another one
                before = [each for each in before if each < place]
            meant = [each for each in before if _may_replace(results[place], results[each], statuses[place])]
            if len(meant) == 1:
                found[meant[0]] = place
    return found


def _test(result: Any) -> Any:
    codings = [(each.system, each.code) for each in result.codings or ()]
    return (result.code if result.code is not NOT_SENT else None) or codings or (result.other_code, result.name)


def _may_replace(new: Any, old: Any, status: str) -> bool:
    if status not in (*CORRECTED, WITHDRAWN, "final"):
        return False
    same_unit = old.unit == new.unit
    if status == WITHDRAWN:
        return bool(new.absent_reason) or (same_unit and new.value == old.value)
    numbers = parse_measurement(new.value) and (old.absent_reason or parse_measurement(old.value))
    return bool(numbers) and (same_unit or bool(old.absent_reason))
