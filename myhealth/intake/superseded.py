"""Find the results that another one of the same record corrects, withdraws or completes. Pure."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from myhealth.clinical.ranges import parse_measurement
from myhealth.clinical.status import CORRECTED, RANKS, WITHDRAWN, compare_status
from myhealth.common.text import printable
from myhealth.intake.record import NOT_SENT, Record, encode_json

SUPERSEDED = "superseded"  # the code of a warning
# What tells two measurements of one test apart.
IDENTITY = ("sub_id", "taken_at", "taken_precision", "specimen", "body_site", "group", "device", "identifiers")


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
