"""Bring together the Observations that FHIR sends both alone and as results of a report or a panel.

An Observation's number is the record_id of its check-up if it was sent alone, else the `sub_id` of its result, or of
its panel if it has components.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from myhealth.clinical.status import WITHDRAWN
from myhealth.intake.content import (
    ENVELOPE,
    Content,
    as_moment,
    comparable,
    held_in,
    keyed,
    numbers_in,
    results_in,
    with_previous,
)
from myhealth.intake.deletions import is_number_of, parts_of
from myhealth.intake.merge import MOMENT, WAS_WITHDRAWN, Facts, Merge, merge, shared_facts
from myhealth.intake.results import Pending

UUID_LENGTH = 32
SHARED = ("category", "device", "performers", "specimen")  # a result does not repeat those of its report


def is_alone(row: Pending) -> bool:
    """Return whether the record is that of an Observation, not of a report."""
    return row.item.parsed.patient_field.startswith("Observation.")


def contains(whole: Content, alone: Content) -> bool:
    """Return whether a check-up has the Observation of another record, or every one of its members."""
    held = held_in(whole)
    return alone["record_id"] in held or bool(results_in(alone) and held.issuperset(numbers_in(alone)))


def is_member(whole: Content, elsewhere: Sequence[str], number: str) -> bool:
    """Return whether a check-up of this number is a result of the record, or one that it only refers to."""
    if number == whole["record_id"]:
        return False
    return number in numbers_in(whole) or any(is_number_of(name, number, {"Observation"}) for name in elsewhere)


class KnownAddresses:
    """The numbers of the resources of stored check-ups: the check-ups by number, and the `numbers` by the id in
    them."""

    def __init__(self, stored: Iterable[Content]) -> None:
        self._facts: dict[int, dict[str, set[Any]]] = {}
        self.stored: dict[str, list[Content]] = {}
        for content in stored:
            for number in _numbers(content):
                self.stored.setdefault(number, []).append(content)
        self.numbers: dict[str, list[str]] = {}
        for number in self.stored:
            self.numbers.setdefault(parts_of(number)[1], []).append(number)

    def facts(self, number: str) -> set[Any]:
        """Return the facts of the stored resources of this number."""
        for content in self.stored[number]:
            if id(content) not in self._facts:
                self._facts[id(content)] = _occasions(content)
        return set().union(*(self._facts[id(content)][number] for content in self.stored[number]))


def known_addresses(sent: Content, known: KnownAddresses) -> dict[str, str]:
    """Return the stored addresses of a record's resources, by the numbers of these in the record.

    It compares two addresses only if one of them names no server. Two servers may give the same id, so the resource
    must also have the same code at the same instant (or the same value on the same day), or an id as long as a UUID;
    and only one stored resource may match.
    """
    found = {}
    new = [each for each in _numbers(sent) if each not in known.stored and parts_of(each)[1] in known.numbers]
    facts = _occasions(sent) if new else {}
    for number in new:
        others = [each for each in known.numbers[parts_of(number)[1]] if is_number_of(number, each, set())]
        same = [other for other in others if facts[number] & known.facts(other)]
        if len(same) == 1:
            found[number] = same[0]
    return found


def _numbers(content: Content) -> dict[str, None]:
    """Return the numbers of the resources of a check-up, each once."""
    return dict.fromkeys((*numbers_in(content), str(content["record_id"] or "")))


def _occasions(content: Content) -> dict[str, set[Any]]:
    """Return for each resource of a check-up, by its number, the facts by which two servers' resources of one id
    differ."""
    whole, found, values = shared_facts(content), dict[str, set[Any]](), []
    for number, result in zip(numbers_in(content), results_in(content), strict=True):
        values.append(str(comparable(result.get("value"))))
        code = result.get("code") or result.get("other_code") or result.get("name")
        found.setdefault(number, set()).add(_occasion(code, result if result.get("taken_at") else whole, values[-1]))
    own = found.setdefault(str(content["record_id"] or ""), set())
    own.add(_occasion(content["checkup_type"], whole, " ".join(values)))
    for number, facts in found.items():
        if len(id_ := parts_of(number)[1]) >= UUID_LENGTH:
            facts.add(id_)
    return found


def _occasion(code: Any, facts: Content, value: str) -> tuple[Any, ...]:
    is_instant = facts.get("taken_at") and not facts.get("taken_precision")
    return code, as_moment(facts.get("taken_at")), "" if is_instant else value


def merge_part(whole: Content, alone: Content, *, legacy: bool = False) -> Merge:
    """Return what an Observation does to the check-up that contains it: to its results and their status only.

    `legacy`: as in `merge`.
    """
    places = _places(whole, alone)
    results = results_in(whole)
    if whole["status"] == WITHDRAWN and not all(each.get("status") == WITHDRAWN for each in results):
        return Merge(whole, notes=[WAS_WITHDRAWN])
    ours = {**whole, "results": [results[place] for place in places]}
    ours["status"] = None if whole["status"] == WITHDRAWN else whole["status"]
    part = _part(whole, ours["results"], alone)
    done = merge(ours, {**ours, "results": part}, by_result=True, legacy=legacy)
    if done.effect in ("", "none"):
        return Merge(whole, done.effect, done.notes, done.places)
    return Merge(_spliced(whole, places, results_in(done.content)), done.effect, done.notes)


def take_in(whole: Content, alone: Content, *, forced: bool = False) -> Content:
    """Return a report that takes over the history of an Observation stored alone.

    `whole`: the report after both were merged. `forced`: take the Observation's results even if they are earlier.
    """
    places = _places(whole, alone)
    ours = [results_in(whole)[place] for place in places]
    part = dict(keyed(_part(whole, ours, alone)))
    if forced:
        return _spliced(whole, places, [*(dict(keyed(ours)) | part).values()])
    at = str((whole["details"] or {}).get("updated_at") or datetime.now(UTC).isoformat(timespec="seconds"))
    made = [
        with_previous(each, part[key], each.get("updated_at") or at) if key in part else each
        for key, each in keyed(ours)
    ]
    return _spliced(whole, places, made)


def _places(whole: Content, alone: Content) -> list[int]:
    names = {str(alone["record_id"]), *numbers_in(alone)}
    return [place for place, number in enumerate(numbers_in(whole)) if number in names]


def _spliced(whole: Content, places: Sequence[int], made: Sequence[Content]) -> Content:
    """Return the check-up with these results in the places, and any further ones at the end."""
    results = [*results_in(whole)]
    for place, result in zip(places, made, strict=False):
        results[place] = result
    results += made[len(places) :]
    gone = bool(results) and all(each.get("status") == WITHDRAWN for each in results)
    status = WITHDRAWN if gone else None if whole["status"] == WITHDRAWN else whole["status"]
    return {**whole, "results": results, "status": status}


def _part(whole: Content, ours: list[Content], alone: Content) -> list[Content]:
    """Return the results of an Observation as they would be in the check-up that contains it."""
    if alone["status"] == WITHDRAWN:
        told = {name: (alone["details"] or {}).get(name) for name in ENVELOPE}
        said = {name: value for name, value in told.items() if value} | {"status": WITHDRAWN}
        return [each | said for each in ours or _own_results(alone)]
    known, found = dict(keyed(ours)), []
    for key, result in keyed(_own_results(alone)):
        old = known.get(key)
        found.append(result if old is None else _as_in(whole, old, result))
    return found


def _own_results(alone: Content) -> list[Content]:
    """Return the results, each with the facts that their own check-up states for all."""
    details = alone["details"] or {}
    shared: Facts = shared_facts(alone) | {name: details[name] for name in SHARED if name in details}
    if alone["taken_by"] and "performers" not in shared:
        shared["performers"] = [{"name": alone["taken_by"]}]
    components = {each["name"] for each in details.get("panels", ()) if each.get("components")}
    found = []
    for each in results_in(alone):
        made = {**shared, **{name: value for name, value in each.items() if name != "number"}}
        if each.get("taken_at"):
            made = {name: value for name, value in made.items() if name not in MOMENT or name in each}
        if "sub_id" not in each and "version" in details:
            made["version"] = details["version"]
        if "sub_id" not in each and each.get("group") not in components:
            made["sub_id"] = alone["record_id"]
            if "identifiers" in details:
                made.setdefault("identifiers", details["identifiers"])
        found.append(made)
    return found


def _as_in(whole: Content, old: Content, result: Content) -> Content:
    """Return a result without the facts that are the same as its check-up's."""
    made = {**result, "group": old.get("group")}
    shared = {**shared_facts(whole), **(whole["details"] or {})}
    if whole["taken_by"]:
        shared.setdefault("performers", [{"name": whole["taken_by"]}])
    for name in SHARED:
        if name not in old and made.get(name) == shared.get(name):
            made.pop(name, None)
    for name in ("taken_at", "taken_until"):
        said = old.get(name) or shared.get(name)
        if said and as_moment(made.get(name)) == as_moment(said):
            made[name] = said
    return {name: value for name, value in made.items() if value is not None}
