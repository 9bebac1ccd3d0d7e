"""Group resources into records: a report with its results, a panel with its members, or an Observation alone.

Source: HL7 FHIR R4 (4.0.1), "Observation" (grouping) and "DiagnosticReport".
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from myhealth.intake.formats.fhir.bundle import Entry, Scope, contained_in, small_bundle
from myhealth.intake.formats.fhir.element import Element
from myhealth.intake.formats.terminology import FieldError

# As many results as a record may have. Without a bound, many reports that share one panel would take unbounded time.
MEMBERS_MAX = 2_000
RESULTS = ("Observation", "DiagnosticReport")


@dataclass(eq=False, slots=True)
class FhirGroup:
    """The resources of one record.

    `observations`: those with its results, in order; the head is one of them if it is an Observation. `elsewhere`: its
    results that are not in the source. `in_circle`: the head is a member of one of its own members. `entries`: all
    entries examined; it grows while the record is read, as `faults` does.
    """

    scope: Scope
    head: Entry
    in_circle: bool = False
    faults: list[FieldError] = field(default_factory=list)
    observations: list[tuple[Entry, Element]] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    entries: dict[Entry, None] = field(default_factory=dict)

    def resolve(self, reference: Element, at: Entry) -> Entry | None:
        """Return the person or device of a Reference; None if it is not here, or is a result."""
        found = self.scope.resolve(reference, at)
        if found is None or found.kind in RESULTS:
            return None
        self.entries[found.outermost] = None
        return found

    def text(self) -> str:
        """Return a Bundle of all entries examined; reading it gives this record again.

        The entries keep their order, because of two with the same address the first is meant. But the head of a circle
        comes first, because the first entry of a circle becomes its head.
        """
        first = self.head if self.in_circle else None
        return small_bundle(sorted(self.entries, key=lambda entry: (entry is not first, self.scope.places[id(entry)])))

    @property
    def top(self) -> Element:
        return Element(self.head.resource, self.head.kind, self.faults)


def find_groups(scope: Scope, skipped: Counter[str]) -> dict[int, FhirGroup]:
    """Return the groups of a scope by the `id()` of their heads. Count entries in no group in `skipped`."""
    heads: dict[int, FhirGroup] = {}
    used: set[int] = set()
    good = [entry for entry in scope.entries if not _skip(entry, skipped)]
    observations = [entry for entry in good if entry.kind == "Observation"]
    referred = {id(member) for entry in observations for member in _members(scope, entry) if member is not entry}
    order = [entry for entry in good if entry.kind == "DiagnosticReport"]
    order += [entry for entry in observations if id(entry) not in referred]
    order += [entry for entry in observations if id(entry) in referred]  # members of a circle
    for entry in order:
        if id(entry) in used:
            continue
        heads[id(entry)] = group = _gather(scope, entry)
        group.in_circle = id(entry) in referred
        used |= {id(found) for found, _ in group.observations}
        for whole in {entry.outermost: None for entry, _ in group.observations} | {entry: None}:
            _count_contained(whole, used, skipped)
    return heads


def _skip(entry: Entry, skipped: Counter[str]) -> bool:
    """Return whether it is not a result; then count it."""
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
    """Count the contained Observations that are not results of the resource that contains them."""
    for found in contained_in(entry):
        if found.kind == "Observation" and id(found) not in used:
            skipped["Observation entered in error" if found.withdrawn else "contained Observation of no result"] += 1


def _members(scope: Scope, entry: Entry) -> list[Entry]:
    """Return the Observations that an Observation names as its members, as far as they are here."""
    references = Element(entry.resource, "", []).parts("hasMember")
    found = [scope.resolve(reference, entry) for reference in references]
    return [member for member in found if member is not None and member.kind == "Observation"]


def _gather(scope: Scope, head: Entry) -> FhirGroup:
    """Return the group of a head: results and members in their order, each once, so that a circle ends."""
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
    """Return a Reference in words."""
    texts = (reference.text("display"), reference.part("identifier").text("value"), reference.text("reference"))
    return next((text for text in texts if text.strip()), "")
