"""What a later version does not name any more: components, which it replaces as a whole, and results of a report. Pure.

A report that lacks a result says nothing of its withdrawal, so the result is still shown, with a note.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from myhealth.clinical.status import CORRECTED, WITHDRAWN
from myhealth.intake.content import (
    ENVELOPE,
    Content,
    Key,
    Matches,
    later,
    numbers_in,
    status_order,
    version_order,
)
from myhealth.intake.parsed_record import CONTAINED

DROPPED = "its later version has no {} any more: it is not shown"

NOT_REPEATED = "{}: the later version of its report does not name it; it is shown until its source withdraws it"
NOTICE = "The latest version of this report does not name: {}"
OURS = "MyHealth"  # the author of the notice
OF_ALL_RESULTS = ("performers", "category", "specimen", "device")


def says_all(sent: Content, order: int, *, partial: bool, repeated: bool) -> bool:
    """Return whether a record is a later version of a report that names all its results. `partial`: its format has
    messages with some of them; of these, a correction that repeats a result as it was has them all."""
    if order <= 0 or partial:
        return order > 0 and repeated and sent["status"] in CORRECTED
    beside = sent["sent"] or {}
    return "missing" not in beside and not _is_subset(sent)


def settle_left(
    stored: Content, left: Sequence[Key], results: dict[Key, Content]
) -> tuple[list[str], list[tuple[str, str, str]]]:
    """Withdraw those of the results that a later version does not name which its resource contained: they are nowhere
    else. Return the names of the others, and a note for each. `left`: their identities."""
    numbers, names, notes = dict(zip(results, numbers_in(stored), strict=False)), [], []
    for key in left:
        name = str(results[key].get("name"))
        if CONTAINED in numbers.get(key, ""):
            results[key] = {**results[key], "status": WITHDRAWN}
            notes.append(("results", DROPPED.format(name), "withdrawn"))
        else:
            names.append(name)
            notes.append(("results", NOT_REPEATED.format(name), "not_repeated"))
    return names, notes


def with_notice(notes: Sequence[Any], left: Sequence[str]) -> list[Any]:
    """Return notes with one that names the results that a later version of their report lacks."""
    found = [each for each in notes if each.get("author") != OURS or NOTICE[:-2] not in str(each.get("text"))]
    return [*found, {"text": NOTICE.format(", ".join(left)), "author": OURS}] if left else found


def without_notice(content: Content) -> Content:
    """Return a check-up without that note; the same one if it has none."""
    details = content["details"] or {}
    notes = with_notice(details.get("notes", ()), ())
    if len(notes) == len(details.get("notes", ())):
        return content
    rest = {name: value for name, value in details.items() if name != "notes"} | ({"notes": notes} if notes else {})
    return {**content, "details": rest or None}


def with_parts_of(new: Mapping[str, Any], old: Mapping[str, Any], left: Sequence[str]) -> dict[str, Any] | None:
    """Return the details of a later version with what the results that it lacks need of the earlier ones."""
    panels = [*new.get("panels", ()), *(each for each in old.get("panels", ()) if each not in new.get("panels", ()))]
    notes = with_notice(new.get("notes", ()), left)
    kept = {name: old[name] for name in OF_ALL_RESULTS if name in old}
    return {**kept, **new, **({"panels": panels} if panels else {}), **({"notes": notes} if notes else {})} or None


def settle_components(
    stored: Content, sent: Content, found: Matches, results: dict[Key, Content]
) -> tuple[Matches, dict[Key, tuple[str, str, str]]]:
    """Withdraw the stored components that the Observation of a record has no more, if that is a later version.

    `found`: the sent results with their identities; `results`: the stored ones, expanded. Return `found` without what a
    later stored version of its Observation has no more, and a note for each result that was withdrawn.
    """
    panels = {each["name"] for each in (stored["details"] or {}).get("panels", ()) if each.get("components")}
    if not panels or _is_subset(sent):
        return found, {}
    of_stored = dict(zip(results, numbers_in(stored), strict=True))
    components = {key: number for key, number in of_stored.items() if results[key].get("group") in panels}
    numbers = numbers_in(sent)
    news = dict(zip(numbers, (new for _, new in found), strict=True))
    mentioned = {key for key, _ in found}
    notes = {}
    for key, number in components.items():
        old = results[key]
        if number not in news or key in mentioned or old["status"] == WITHDRAWN:
            continue
        if _order(news[number], old, sent, stored) > 0:
            envelope = {name: news[number][name] for name in ENVELOPE if name in news[number]}
            results[key] = {**old, **envelope, "status": WITHDRAWN}
            notes[key] = ("results", DROPPED.format(old.get("name")), "withdrawn")
    kept = [
        (key, new)
        for (key, new), number in zip(found, numbers, strict=True)
        if key is None or key in results or not _is_former(number, new, components, results, sent, stored)
    ]
    return kept, notes


def _is_subset(sent: Content) -> bool:
    """Return whether the server of a FHIR resource left parts of it out."""
    return "'SUBSETTED'" in str(sent.get("sent"))


def _is_former(
    number: str,
    new: Content,
    components: Mapping[Key, str],
    results: Mapping[Key, Content],
    sent: Content,
    stored: Content,
) -> bool:
    """Return whether the stored components are of a later version of the Observation of a sent result."""
    return any(of == number and _order(new, results[key], sent, stored) < 0 for key, of in components.items())


def _order(new: Content, old: Content, sent: Content, stored: Content) -> int:
    """Return 1 if a sent result is of a later version of its Observation than a stored one, -1 if of an earlier one, 0
    if that is not certain."""
    order = version_order(new, old) if "version" in new else version_order(sent, stored)
    return order or status_order(new["status"], old["status"]) or later(new, old, "updated_at")
