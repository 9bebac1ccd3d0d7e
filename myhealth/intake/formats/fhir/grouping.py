"""Group resources into records: a report with its results, a panel with its members, or an Observation alone.

Source: HL7 FHIR R4 (4.0.1), "Observation" (grouping) and "DiagnosticReport".
"""

from collections import Counter, deque
from dataclasses import dataclass, field

from myhealth.common.errors import TooLarge
from myhealth.intake.formats.fhir.bundle import MEMBERS, RESULTS, Entry, Scope, contained_in, small_bundle
from myhealth.intake.formats.fhir.element import Element
from myhealth.intake.formats.fhir.resources import SHARED_TOO_OFTEN
from myhealth.intake.formats.json_reader import PARTS_MAX, RECORD_MAX, count_parts
from myhealth.intake.formats.terminology import FieldError

# As many results as a record may have. Without a bound, many reports that share one panel would take unbounded time.
MEMBERS_MAX = 2_000
PATH_MAX = 1_000  # characters
# The most results of all records of a Bundle: a multiple of its entries, plus a minimum.
SHARED_FACTOR, SHARED_MIN = 4, 10_000


@dataclass(eq=False, slots=True)
class FhirGroup:
    """The resources of one record.

    `observations`: those with its results, in order; the head is one of them if it is an Observation. `elsewhere`: its
    results that are not in the source; `addresses`: the addresses of these. `parents`: the panel of each member, by the
    `id()` of both. `rest`: members beyond MEMBERS_MAX. `in_circle`: the head is a member of one of its own members.
    `entries`: all entries examined; it grows while the record is read, as `faults` does.
    """

    scope: Scope
    head: Entry
    in_circle: bool = False
    faults: list[FieldError] = field(default_factory=list)
    observations: list[tuple[Entry, Element]] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    parents: dict[int, int] = field(default_factory=dict)
    entries: dict[Entry, None] = field(default_factory=dict)
    characters: int = 0
    parts: int = 0
    uncounted: list[str] = field(default_factory=list)
    rest: list[Entry] = field(default_factory=list)
    top: Element = field(init=False)

    def __post_init__(self) -> None:
        self.top = Element(self.head.resource, self.head.kind, self.faults)

    def examine(self, entry: Entry) -> None:
        """Add the entry to `entries`. Raises TooLarge if the records of the Bundle share too many."""
        if entry not in self.entries:
            self.entries[entry] = None
            entry.resources.examine(entry)
            self.characters += len(entry.raw)
            self.uncounted.append(entry.raw)

    def resolve(self, reference: Element, at: Entry) -> Entry | None:
        """Return the resource of a Reference; None if it is not here, or is a result."""
        found = self.scope.resolve(reference, at)
        if found is None or found.kind in RESULTS:
            return None
        self.examine(found.outermost)
        return found

    def text(self) -> str:
        """Return a Bundle of all entries examined; reading it gives this record again.

        The entries keep their order, because an address means the first of two entries that have it. But the head of a
        circle comes first, because the first entry of a circle becomes its head.
        """
        first = self.head if self.in_circle else None
        places = self.scope.places  # patients of earlier parts of the source have no place
        return small_bundle(sorted(self.entries, key=lambda entry: (entry is not first, places.get(id(entry), -1))))


def find_heads(scope: Scope, skipped: Counter[str]) -> dict[int, bool]:
    """Return the heads of the groups of a scope by their `id()`, and whether each is in a circle. Count the entries in
    no group in `skipped`."""
    heads: dict[int, bool] = {}
    used: set[int] = set()
    mark_left_out(scope)
    good = [entry for entry in scope.entries if not _skip(scope, entry, skipped)]
    observations = [entry for entry in good if entry.kind == "Observation"]
    grouped = [entry for entry in observations if entry.grouped and not entry.withdrawn]
    referred = {id(member) for entry in grouped for member in _members(scope, entry) if member is not entry}
    order = [entry for entry in good if entry.kind == "DiagnosticReport"]
    order += [entry for entry in observations if id(entry) not in referred]
    order += [entry for entry in observations if id(entry) in referred]  # members of a circle
    waiting, results = deque(order), 0
    while waiting:
        entry = waiting.popleft()
        if id(entry) in used:
            continue
        heads[id(entry)] = id(entry) in referred
        found = [entry]
        if not entry.deleted and (entry.kind == "DiagnosticReport" or entry.grouped):
            group = gather(scope, entry)
            found = [each for each, _ in group.observations]
            # the next record continues where a long chain was cut, or each of its members would be read for the others
            waiting.extendleft(each for each in reversed(group.rest) if each.container is None)
        used |= set(map(id, found))
        results += len(found)
        if results > SHARED_FACTOR * len(scope.entries) + SHARED_MIN:
            raise TooLarge(SHARED_TOO_OFTEN)
    return heads


def count_contained(group: FhirGroup, skipped: Counter[str]) -> None:
    """Count the contained Observations that are not results of the group whose resources contain them."""
    used = {id(entry) for entry, _ in group.observations}
    for whole in {entry.outermost: None for entry, _ in group.observations} | {group.head: None}:
        for found in contained_in(whole):
            if found.kind == "Observation" and id(found) not in used:
                skipped["contained Observation of no result"] += 1


def _skip(scope: Scope, entry: Entry, skipped: Counter[str]) -> bool:
    """Return whether an entry is not a result, and count it then."""
    if not entry.kind:
        skipped["Bundle entry without a resource"] += 1
    elif entry.kind not in RESULTS:
        skipped[entry.kind] += 1
    elif not entry.deleted and (about := scope.about(entry))[0] != "Patient":
        skipped[f"{entry.kind} about a {about[0]}"] += 1
    elif not entry.deleted and (kind := entry.left_out or (about[1].left_out if about[1] else "")):
        skipped[kind] += 1
    else:
        return False
    return True


def mark_left_out(scope: Scope) -> None:
    """Leave out the results of reports that are left out, and those of specimens of no patient."""
    for entry in scope.entries if any(each.left_out for each in scope.entries) else ():
        if entry.kind not in RESULTS or entry.deleted:
            continue
        for each in _members(scope, entry) if entry.left_out else ():
            each.left_out = each.left_out or entry.left_out
        for reference in Element(entry.resource, "", []).parts("specimen"):
            found = scope.resolve(reference, entry)
            entry.left_out = entry.left_out or (found.left_out if found else "")


def _members(scope: Scope, entry: Entry) -> list[Entry]:
    """Return the Observations that a report or an Observation names, as far as they are here."""
    references = Element(entry.resource, "", []).parts(MEMBERS[entry.kind])
    found = [scope.resolve(reference, entry) for reference in references]
    return [member for member in found if member is not None and member.kind == "Observation"]


def gather(scope: Scope, head: Entry, *, in_circle: bool = False) -> FhirGroup:
    """Return the group of a head: results and members in their order, each once, so that a circle ends."""
    group = FhirGroup(scope, head, in_circle)
    group.examine(head.outermost)
    seen: set[int] = set()
    waiting = [(head, group.top, head)]
    while waiting and len(seen) <= MEMBERS_MAX and not (fault := _size_fault(group)):
        entry, part, parent = waiting.pop()
        if id(entry) in seen:
            continue
        seen.add(id(entry))
        if entry.kind == "Observation":
            group.observations.append((entry, part))
            group.parents[id(entry)] = id(parent)
        found = []
        # Of a report that is withdrawn, the results may stay.
        for reference in part.parts(MEMBERS[entry.kind]) if not entry.withdrawn else ():
            member = scope.resolve(reference, entry)
            if member is None or member.kind != "Observation":
                group.elsewhere.append(label(reference))
                group.addresses += filter(None, [scope.address_of(reference, entry)])
                continue
            group.examine(member.outermost)
            if _size_fault(group):
                break
            about, subject = scope.about(member)
            if about != "Patient" and subject is not None:
                group.examine(subject.outermost)
            if about == "Patient" and not member.left_out:
                found.append((member, Element(member.resource, _path(head, reference), group.faults), entry))
        waiting += reversed(found)
    if waiting:
        group.rest = [entry for entry, *_ in reversed(waiting)]
        group.faults.append((head.kind, fault or f"has more than {MEMBERS_MAX} results"))
    return group


def _path(head: Entry, reference: Element) -> str:
    """Return the place of a referenced resource, shortened: in a chain, each place contains those before it."""
    path = f"{reference.path}.resolve()"
    return path if len(path) <= PATH_MAX else f"{head.kind}…{path[-PATH_MAX // 2 :]}"


def _size_fault(group: FhirGroup) -> str:
    """Return why the group is larger than a record may be, or ""."""
    if group.characters > RECORD_MAX:
        return f"has more than {RECORD_MAX} characters with its results"
    while group.characters > PARTS_MAX and group.uncounted:  # a text has no more parts than characters
        group.parts += count_parts(group.uncounted.pop())
    return f"has more than {PARTS_MAX} parts with its results" if group.parts > PARTS_MAX else ""


def label(reference: Element) -> str:
    """Return a Reference in words."""
    texts = (reference.text("display"), reference.part("identifier").text("value"), reference.text("reference"))
    return next((text for text in texts if text.strip()), "")
