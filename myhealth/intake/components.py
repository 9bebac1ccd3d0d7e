"""The components of an Observation, which a later version of it replaces as a whole. Pure."""

from collections.abc import Mapping

from myhealth.clinical.status import WITHDRAWN
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

DROPPED = "its later version has no {} any more: it is not shown"


def settle_components(
    stored: Content, sent: Content, found: Matches, results: dict[Key, Content]
) -> tuple[Matches, dict[Key, tuple[str, str, str]]]:
    """Withdraw the stored components that the Observation of a record has no more, if that is a later version.

    `found`: the sent results with their identities; `results`: the stored ones, expanded. Return `found` without what a
    later stored version of its Observation has no more, and a note for each result that was withdrawn.
    """
    panels = {each["name"] for each in (stored["details"] or {}).get("panels", ()) if each.get("components")}
    if not panels or "'SUBSETTED'" in str(sent.get("sent")):  # its server left parts of it out
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
