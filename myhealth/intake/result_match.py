"""Find which stored result a result of a later message means, where their identities differ. Pure."""

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from myhealth.clinical.status import WITHDRAWN
from myhealth.clinical.units import series_unit
from myhealth.intake.content import LATER, Content, Key, Matches, as_moment, comparable, result_said
from myhealth.intake.parsed_record import CONTAINED


def by_code(found: Matches, stored: Mapping[Key, Content], without_original: Collection[Any]) -> Matches:
    """Return the sent results, each with the key of the stored result that it means.

    A correction or a withdrawal under a sub_id that is not stored means the only other result of its code, or else the
    only number of its name, moment and unit. Its key is None if there are several, or if texts may be distinguished by
    their sub_ids. The original of one that came first means that one; `without_original`: the codes of which only such
    results are stored.
    """
    mentioned, counts = {key for key, _ in found}, Counter(key[0] for key, _ in found if key)
    made: Matches = []
    for key, result in found:
        is_later = result.get("status") in LATER
        if key and key not in stored and (is_later or (key[0] in without_original and counts[key[0]] == 1)):
            free = [other for other in stored if other not in mentioned]
            of_code = [other for other in free if other[0] == key[0]]
            if not of_code and is_later:
                of_code = [other for other in free if _is_named_alike(result, stored[other])]
            same = [other for other in of_code if not is_later or stored[other].get("status") != WITHDRAWN]
            words = [_has_words(each) for each in (result, *(stored[other] for other in same))]
            is_certain = len(same) == 1 and (None in (key[1], same[0][1]) or not any(words))
            is_certain = is_certain and (is_later or _may_be_original(result, stored[same[0]]))
            key = same[0] if is_certain else None if same and is_later else key
            mentioned.add(key)
        made.append((key, result))
    return made


def _may_be_original(result: Content, later: Content) -> bool:
    """Return whether a correction or a withdrawal may be of this result: its moment, and a withdrawn value."""
    if as_moment(result.get("taken_at")) != as_moment(later.get("taken_at")):
        return False
    is_value = later.get("status") == WITHDRAWN and not later.get("absent_reason")
    return not is_value or comparable(result.get("value")) == comparable(later.get("value"))


def _is_named_alike(result: Content, other: Content) -> bool:
    """Return whether two results of different codes may be one: numbers of one name, moment and unit."""
    names, units = ([each.get(field) for each in (result, other)] for field in ("name", "unit"))
    same = len({" ".join(str(each).casefold().split()) for each in names}) == 1 and not _has_words(other)
    same = same and (series_unit(units[0]) == series_unit(units[1]) or bool(result.get("absent_reason")))
    return same and as_moment(result.get("taken_at")) == as_moment(other.get("taken_at")) and not _has_words(result)


def _has_words(result: Content) -> bool:
    return isinstance(result.get("value"), str) and not result.get("absent_reason")


def by_number(found: Matches, numbers: Sequence[str], stored: Mapping[Key, Content], known: Sequence[str]) -> Matches:
    """Return the sent results. A result whose key is not stored gets the key of the stored result with the same
    Observation number (that Observation has another code than before), else of one that differs by its number alone.
    `numbers`, `known`: the Observation numbers of the sent and of the stored results.
    """
    counts, others = Counter(numbers), Counter(known)
    used = {key for key, _ in found}
    left = {number: key for number, key in zip(known, stored, strict=True) if others[number] == 1 and key not in used}
    for number in numbers:  # earlier releases took the id of a contained resource for an address
        if CONTAINED in number and (former := f"Observation/{number.rpartition(CONTAINED)[2]}") not in numbers:
            left.update({number: left[former]} if former in left and number not in left else {})
    made = [
        (left.get(number, key) if number and key not in stored and counts[number] == 1 else key, result)
        for number, (key, result) in zip(numbers, found, strict=True)
    ]
    free = defaultdict[str, list[Key]](list)
    for key in stored.keys() - {key for key, _ in made}:
        free[_unnumbered(stored[key])].append(key)
    for place, (name, result) in enumerate(made) if free else ():
        if name not in stored and (same := free[_unnumbered(result)]):
            made[place] = same[0], stored[same.pop(0)]
    return made


def _unnumbered(result: Content) -> str:
    return json.dumps(comparable(result_said(result) | {"sub_id": None}), sort_keys=True, default=str)
