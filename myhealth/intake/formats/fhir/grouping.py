"""Which resources make one record: a report with its results, a panel with its members, or an Observation alone.

Source: HL7 FHIR R4 (4.0.1), "Observation" (grouping) and "DiagnosticReport".
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from myhealth.intake.formats.fhir.bundle import Entry, Scope, contained_in, small_bundle
from myhealth.intake.formats.fhir.element import Element
from myhealth.intake.formats.terminology import FieldError

# More than a record may have results; without a bound, many reports that share one panel would make work without end.
MEMBERS_MAX = 2_000
RESULTS = ("Observation", "DiagnosticReport")


@dataclass(eq=False, slots=True)
class FhirGroup:
    """The resources of one record. `observations`: with their results, in order; the head is one of them if it is an
    Observation. `elsewhere`: what it refers to that did not come with it. `in_circle`: the head is itself a member of
    what it has as its member. `entries`: all that was looked at, and `faults`: both grow while the record is read."""

    scope: Scope
    head: Entry
    in_circle: bool = False
    faults: list[FieldError] = field(default_factory=list)
    observations: list[tuple[Entry, Element]] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    entries: dict[Entry, None] = field(default_factory=dict)

    def resolve(self, reference: Element, at: Entry) -> Entry | None:
        """Whom or what a Reference means. A result is neither a person nor a thing, whatever a reference says."""
        found = self.scope.resolve(reference, at)
        if found is None or found.kind in RESULTS:
            return None
        self.entries[found.outermost] = None
        return found

    def text(self) -> str:
        """A Bundle of all that was looked at, which gives this record again.

        The entries keep their order, for of two that have the same address the first is meant; but a circle is one
        record of the entry that comes first in it.
        """
        first = self.head if self.in_circle else None
        return small_bundle(sorted(self.entries, key=lambda entry: (entry is not first, self.scope.places[id(entry)])))

    @property
    def top(self) -> Element:
        return Element(self.head.resource, self.head.kind, self.faults)


def find_groups(scope: Scope, skipped: Counter[str]) -> dict[int, FhirGroup]:
    """The groups of a scope by the `id()` of their heads. Whatever is in no group is counted in `skipped`."""
    heads: dict[int, FhirGroup] = {}
    used: set[int] = set()
    good = [entry for entry in scope.entries if not _count(entry, skipped)]
    observations = [entry for entry in good if entry.kind == "Observation"]
    referred = {id(member) for entry in observations for member in _members(scope, entry) if member is not entry}
    order = [entry for entry in good if entry.kind == "DiagnosticReport"]
    order += [entry for entry in observations if id(entry) not in referred]
    order += [entry for entry in observations if id(entry) in referred]  # those that only refer to each other
    for entry in order:
        if id(entry) in used:
            continue
        heads[id(entry)] = group = _gather(scope, entry)
        group.in_circle = id(entry) in referred
        used |= {id(found) for found, _ in group.observations}
        for whole in {entry.outermost: None for entry, _ in group.observations} | {entry: None}:
            _count_contained(whole, used, skipped)
    return heads


def _count(entry: Entry, skipped: Counter[str]) -> bool:
    """Whether it is no result; then it is counted."""
    if not entry.resource:
        skipped["Bundle entry without a resource"] += 1
    elif entry.kind not in RESULTS:
        skipped[entry.kind] += 1
    elif entry.withdrawn:
        skipped[f"{entry.kind} entered in error"] += 1
    else:
        return False
    return True


def _count_contained(entry: Entry, used: set[int], skipped: Counter[str]) -> None:
    """Counts the contained Observations that are no result of the resource they are contained in."""
    for found in contained_in(entry):
        if found.kind == "Observation" and id(found) not in used:
            skipped["Observation entered in error" if found.withdrawn else "contained Observation of no result"] += 1


def _members(scope: Scope, entry: Entry) -> list[Entry]:
    """The Observations that an Observation names as its members, as far as they are here."""
    references = Element(entry.resource, "", []).parts("hasMember")
    found = [scope.resolve(reference, entry) for reference in references]
    return [member for member in found if member is not None and member.kind == "Observation"]


def _gather(scope: Scope, head: Entry) -> FhirGroup:
    """The group of a head: results and members in their order, each once, so that a circle ends."""
    group = FhirGroup(scope, head, entries={head.outermost: None})
    seen: set[int] = set()
    waiting = [(head, group.top)]
    while waiting and len(seen) <= MEMBERS_MAX:
        entry, part = waiting.pop()
        if id(entry) in seen:
            continue
        seen.add(id(entry))
        if entry.kind == "Observation":
            group.observations.append((entry, part))
        found = []
        for reference in part.parts("result" if entry.kind == "DiagnosticReport" else "hasMember"):
            member = scope.resolve(reference, entry)
            if member is None or member.kind != "Observation":
                group.elsewhere.append(label(reference))
                continue
            group.entries[member.outermost] = None
            if not member.withdrawn:
                found.append((member, Element(member.resource, f"{reference.path}.resolve()", group.faults)))
        waiting += reversed(found)
    if waiting:
        group.faults.append((head.kind, f"has more than {MEMBERS_MAX} results"))
    return group


def label(reference: Element) -> str:
    """A Reference in words."""
    told = (reference.text("display"), reference.part("identifier").text("value"), reference.text("reference"))
    return next((text for text in told if text.strip()), "")
