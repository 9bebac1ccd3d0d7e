"""The content of a check-up as its source says it: the columns by name, JSON decoded with every digit. Pure.

A result's identity is its code or name, its sub_id, its first identifier, and its occurrence among those that share
them. What the intake adds, and the versions and moments of sending, do not count as content.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count
from typing import Any

from myhealth.clinical import status
from myhealth.clinical.catalog import as_sent
from myhealth.clinical.range_text import conditional_ranges, parse_range
from myhealth.clinical.status import WITHDRAWN
from myhealth.intake.formats.marked_numbers import read_marked
from myhealth.intake.record import encode_json

Content = dict[str, Any]
Key = tuple[Any, ...]  # the identity of a result: code, sub_id, identifier, occurrence
Matches = list[tuple[Key | None, Content]]

UNKNOWN = "unknown"
# The fields that the intake adds to a stored result: they are not the source's.
ADDED = ("number", "updated_at", "corrected_at", "previous_value", "previous_unit")
# The moment and the version of the source's writing: a difference in these alone is no other content.
ENVELOPE = ("updated_at", "version")
# Earlier readers kept ".5" and "5,1" as texts, and the formatting commands of HL7.
DECIMAL_COMMA = re.compile(r"(?<=[0-9]),(?=[0-9]{1,2}$)")
LEADING_POINT = re.compile(r"(?<![0-9])\.(?=[0-9])")
COMMAND = re.compile(r"\\\.[a-z]+[0-9+-]*\\")
NO_WORD = re.compile(r"[^\w.<>=+-]")
TEMPORARY = re.compile(r"urn:uuid:[0-9A-Za-z-]+")  # an address that a Bundle gives a resource for a time
LATER = (*status.CORRECTED, WITHDRAWN)  # the statuses of a result that takes the place of another one
RACK_DIGITS = 3  # a number of no more digits may be a place in an analyser's rack


def is_same(one: Content, other: Content) -> bool:
    """Return whether two contents are equal but for versions and moments of sending."""
    return _said(one) == _said(other)


def said_text(content: Content) -> str:
    """Return what `is_same` compares as text, which is quicker to compare with many: equal for equal contents."""
    return json.dumps(_said(content), sort_keys=True, default=lambda moment: moment.astimezone(UTC).isoformat())


def is_version(sent: Content, stored: Content, *, marked: bool, later: bool) -> bool:
    """Return whether a record is a version of a check-up: each result of both is equal, or marked in one as later
    (a correction, a withdrawal, or final after preliminary). `marked`: one must be, and none be cancelled, which may be
    for another sample; `later`: in the record."""
    ours, theirs = _with_status(stored), _with_status(sent)
    pairs = [(theirs[key], ours[key]) for key in ours.keys() & theirs.keys()]
    if marked and "cancelled" in {each["status"] for pair in pairs for each in pair}:
        return False
    after = [_is_marked(*pair) for pair in pairs]
    before = [old["status"] != WITHDRAWN and _is_marked(old, new) for new, old in pairs]
    if not any(after) and (later or (marked and not any(before))):
        return False
    decided = (one or other or same_result(*pair) for one, other, pair in zip(after, before, pairs, strict=True))
    return bool(pairs) and all(decided)


def _with_status(content: Content) -> dict[Key, Content]:
    return {
        key: {**each, "status": each.get("status") or content["status"]} for key, each in keyed(results_in(content))
    }


def _is_marked(new: Content, old: Content) -> bool:
    return new["status"] in LATER or status.compare_status(new["status"], old["status"]) > 0


def differing(one: Content, other: Content) -> list[str]:
    """Return the names of the columns in which two contents differ."""
    ours, theirs = _said(one), _said(other)
    return [name for name in ours if ours[name] != theirs[name]]


def same_result(one: Content, other: Content) -> bool:
    """Return whether two results are equal but for versions and moments of sending."""
    ours, theirs = result_said(one), result_said(other)
    if not (ours.get("identifiers") and theirs.get("identifiers")):  # what one of them lacks does not differ
        ours, theirs = ours | {"identifiers": None}, theirs | {"identifiers": None}
    return bool(comparable(ours) == comparable(theirs))


def is_known_before(stored: Content, sent: Content) -> bool:
    """Return whether a check-up stored by an earlier release, which kept fewer facts, has the record's moment and
    values."""
    if sent["taken_at"] not in (None, stored["taken_at"]) and sent["taken_precision"] != UNKNOWN:
        return False
    shown = {key for key, each in keyed(results_in(stored)) if each.get("status") != WITHDRAWN}
    if any(key in shown and each.get("status") == WITHDRAWN for key, each in keyed(results_in(sent))):
        return False
    return not _current_values(sent) - _current_values(stored)


def is_other_sample(stored: Content, sent: Content, *, same_patient: bool) -> bool:
    """Return whether an analyser used the number, a place in its rack, for another sample.

    The sample's own number (OBR-2) decides if both have one. Else the moment decides, or the patient if the number has
    at most three digits.
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
    moved = moved and moment_json(sent["taken_at"]) not in [each.get("taken_at") for each in results_in(stored)]
    same_status = not status.compare_status(sent["status"], stored["status"]) and sent["status"] not in status.CORRECTED
    same_status = same_status and not all(each.get("status") in LATER for each in results_in(sent))
    is_next = moved and WITHDRAWN == stored["status"] != sent["status"] and moments[1] > moments[0]  # taken once more
    return moved and (same_status or in_rack or is_next)


def sample_of(sent: Content, patient_id: int) -> str:
    """Return what distinguishes the sample of a record from others of its number."""
    moment = sent["taken_at"] if sent["taken_precision"] != UNKNOWN else None
    return _placer(sent) or (moment.astimezone(UTC).isoformat() if moment else f"patient {patient_id}")


def renumbered(results: list[Any], before: list[Any]) -> list[Any]:
    """Return results with the numbers that the same results had before; new ones get numbers that were never used. A
    number that equals the position (from 1) is left out."""
    numbers = {key: int(result.get("number") or place) for place, (key, result) in enumerate(keyed(before), 1)}
    free = max(numbers.values(), default=0)
    found = []
    for place, (key, result) in enumerate(keyed(results), 1):
        number = numbers.pop(key, None)
        if number is None:
            number = free = free + 1
        rest = {name: value for name, value in result.items() if name != "number"}
        found.append(rest if number == place else {**rest, "number": number})
    return found


def with_previous(new: Content, old: Content, at: str) -> Content:
    """Return a result with the value that it replaces, if that is another one; `at`: when it was corrected. A value
    that its source withdrew may be another person's: it is not shown here either."""
    if old.get("status") == WITHDRAWN:
        return {**new}
    pairs = [(comparable(result.get("value")), result.get("unit")) for result in (new, old)]
    if pairs[0] == pairs[1] or old.get("absent_reason"):
        return new | {name: old[name] for name in ADDED if name in old and name not in ("number", "updated_at")}
    found = {**new, "corrected_at": at, "previous_value": old.get("value")}
    return found if pairs[0][1] == pairs[1][1] else {**found, "previous_unit": old.get("unit")}


def comparable(value: Any) -> Any:
    """Return a JSON value by the digits of its numbers."""
    if isinstance(value, dict):
        return {name: comparable(each) for name, each in value.items() if each is not None}
    if isinstance(value, list):
        return [comparable(each) for each in value]
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        return "number", digits(str(value))
    return value


def digits(text: str) -> str:
    """Return a number by its digits, as jsonb writes them: 5.10 is not 5.1, but 1E5 is 100000."""
    written = format(Decimal(text), "f")
    return written.lstrip("-") if not Decimal(text) else written


def results_in(content: Content) -> list[Content]:
    found = content["results"]
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def keyed(results: Sequence[Any], *, named: bool = True) -> list[tuple[Key, Content]]:
    """Return the results with their identities. `named`: by their identifiers too."""
    seen: Counter[Key] = Counter()
    found = []
    for result in results:
        identifiers = (named and result.get("identifiers")) or [{}]
        code = result.get("code") or result.get("other_code") or result.get("name")
        key = (code, result.get("sub_id"), identifiers[0].get("value"))
        seen[key] += 1
        found.append(((*key, seen[key]), result))
    return found


def matched(sent: Sequence[Any], stored: Sequence[Any]) -> Matches:
    """Return the sent results with the identities of the stored ones; None where it is not certain which one is meant.

    If only one of two has an identifier, their place among the results of the same code and sub_id decides. Of several
    results of one identity the moment decides, else their order if none is missing. A result that lost or got its LOINC
    code is found by another code.
    """
    known = dict(zip((key for key, _ in keyed(stored, named=False)), (key for key, _ in keyed(stored)), strict=True))
    names = dict(keyed(stored))
    found: Matches = []
    for (key, result), (place, _) in zip(keyed(sent), keyed(sent, named=False), strict=True):
        other = known.get(place)
        is_other = key not in names and other is not None and (other[2] is None) != (key[2] is None)
        found.append((other if is_other and other else key, result))
    for identity in {name[:3] for name, _ in found if name}:
        several = [key for key in names if key[:3] == identity]
        if len(several) > 1:
            at = [index for index, (name, _) in enumerate(found) if name and name[:3] == identity]
            for index, one in zip(at, _among([found[each][1] for each in at], several, names), strict=True):
                found[index] = one, found[index][1]
    return _recoded(found, names)


def _among(sent: Sequence[Content], keys: Sequence[Key], stored: Mapping[Key, Content]) -> list[Key | None]:
    """Return which of several stored results of one identity each sent one is."""
    moments = [stored[key].get("taken_at") for key in keys]
    wanted = [each.get("taken_at") for each in sent]
    if None not in moments and len({*moments}) == len(moments) and len({*wanted}) == len(wanted):
        at, new = dict(zip(moments, keys, strict=True)), count(len(keys) + 1)
        if len(sent) < len(keys) or not at.keys().isdisjoint(wanted):
            changes = [each.get("status") in LATER for each in sent]
            found = zip((at.get(moment) for moment in wanted), changes, strict=True)
            return [key or (None if changed else (*keys[0][:3], next(new))) for key, changed in found]
    if len(sent) >= len(keys):
        return [(*keys[0][:3], place) for place in range(1, len(sent) + 1)]
    live = [key for key in keys if stored[key].get("status") != WITHDRAWN]
    if len(sent) == len(live):
        return [*live]
    return [next((key for key in keys if same_result(stored[key], each)), None) for each in sent]


def _recoded(found: Matches, stored: Mapping[Key, Content]) -> Matches:
    """Return the sent results. A result whose codes changed gets the key of the stored result with which it shares a
    code."""
    left = {key: each for key, each in stored.items() if key not in {name for name, _ in found}}
    made: Matches = []
    for key, result in found:
        if key and key not in stored:
            same = [
                other
                for other, each in left.items()
                if other[1:3] == key[1:3] and None in (each.get("code"), result.get("code"))
                if not _codes_of(each).isdisjoint(_codes_of(result))
            ]
            key = same[0] if len(same) == 1 else key
            left.pop(key, None)
        made.append((key, result))
    return made


def _codes_of(result: Content) -> set[Any]:
    codings = [(each.get("system"), each.get("code")) for each in result.get("codings") or () if isinstance(each, dict)]
    own = (result.get("code_system"), result.get("other_code"))
    return {*codings, own} - {(None, None)}


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
    """Return a content without versions and moments of sending, in a form for comparison."""
    found = {name: value for name, value in content.items() if name not in ("issued_at", "record_id")}
    if content["taken_precision"] == UNKNOWN or content["taken_at"] is None:
        found["taken_at"] = None
    details = {name: value for name, value in (content["details"] or {}).items() if name not in ENVELOPE}
    found["details"] = details or None
    found["results"] = [result_said(each) for each in results_in(content)]
    return {name: comparable(value) for name, value in found.items()}


def moment_json(moment: datetime) -> str:
    """Return a moment as the JSON of a result has it."""
    return encode_json(moment.astimezone(UTC)).decode().strip('"')


def _placer(content: Content) -> str:
    found = (content["details"] or {}).get("identifiers") or ()
    return next((str(each["value"]) for each in found if each.get("type") == "PLAC"), "")


def _current_values(content: Content) -> Counter[str]:
    """Return the values of the results that are not withdrawn: numbers by their digits, words by their letters."""
    return Counter(_letters_of(each.get("value")) for each in results_in(content) if each.get("status") != WITHDRAWN)


def holds_results(content: Content, sent: Content) -> bool:
    """Return whether a content has every result of another one, in whatever version."""
    names = {key for key, _ in keyed(results_in(sent))}
    return bool(names) and names <= {key for key, _ in keyed(results_in(content))}


def came_with(content: Content, sent: Content) -> bool:
    """Return whether `sent` has values, and `content` has all of them."""
    values = _current_values(sent)
    return bool(values) and not values - _current_values(content)


def has_value(content: Content) -> bool:
    return any(not each.get("absent_reason") for each in results_in(content))


def _letters_of(value: Any) -> str:
    if not isinstance(value, str):
        return str(comparable(value)[1]) if isinstance(value, int | float | Decimal) else str(value)
    text = LEADING_POINT.sub("0.", DECIMAL_COMMA.sub(".", COMMAND.sub("", value)))
    return NO_WORD.sub("", text).casefold()


def result_said(result: Content) -> Content:
    said = as_sent(read_marked(result) or result)  # earlier releases kept 7.2 H as text
    if words := result.get("range_text"):  # earlier releases did not read them
        unit = result.get("unit_text") or result.get("unit")
        if (said.get("low"), said.get("high")) == parse_range(words, unit):
            said |= {"low": None, "high": None}
        elif said.get("ranges") == conditional_ranges(words, unit):
            said["ranges"] = None
    return {name: value for name, value in said.items() if name not in (*ADDED, "issued_at", "version")}


def version_order(new: Content, old: Content) -> int:
    """Return the order of the source's own numbers of two versions, of check-ups or of results."""
    versions = [str((content.get("details") or content).get("version", "")) for content in (new, old)]
    if not all(each.isdecimal() for each in versions):
        return 0
    return sign(int(versions[0]), int(versions[1]))


def status_order(new: str | None, old: str | None) -> int:
    """Return the order of two statuses; nothing is later than a withdrawal."""
    return ((new == WITHDRAWN) > (old == WITHDRAWN)) - (
        (new == WITHDRAWN) < (old == WITHDRAWN)
    ) or status.compare_status(new, old)


def as_moment(text: Any) -> datetime | None:
    """Return the moment that a text names, in UTC if it names no zone; None if it is not a moment."""
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def later(new: Content, old: Content, name: str) -> int:
    """Return the order of a moment of two results."""
    return sign(as_moment(new.get(name)), as_moment(old.get(name)))


def sign(new: Any, old: Any) -> int:
    return 0 if new is None or old is None else (new > old) - (new < old)


def moment_order(new: Content, old: Content) -> int:
    order = sign(as_moment(updated_moment(new)), as_moment(updated_moment(old)))
    return order or sign(new["issued_at"], old["issued_at"])


def updated_moment(content: Content) -> str | None:
    found = (content["details"] or {}).get("updated_at")
    return None if found is None else str(found)
