"""The entries of a Bundle, and the references between them.

Source: HL7 FHIR R4 (4.0.1), "Bundle" (resolving references in Bundles) and "References" (contained resources).
"""

from __future__ import annotations

import io
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from myhealth.clinical.status import WITHDRAWN
from myhealth.common.errors import BadInput, TooLarge
from myhealth.common.text import printable
from myhealth.intake.formats.fhir.element import (
    Element,
    bundle_fault,
    kind,
    parse_address,
    resource_fault,
    untaken_request,
    wrapping_fault,
)
from myhealth.intake.formats.fhir.left_out import focus_of, kind_of_resource
from myhealth.intake.formats.fhir.resources import Resources, page_note
from myhealth.intake.formats.json_reader import LINE_REST, JsonBuffer, read_list, read_members
from myhealth.intake.parsed_record import DuplicateKeyDict, ParsedRecord

MEMBERS = {"Observation": "hasMember", "DiagnosticReport": "result"}
RESULTS = (*MEMBERS,)
# A deletion of the one resource with an identifier.
CONDITION = re.compile(r"(Observation|DiagnosticReport)\?identifier=([^&]+)")
OTHER_RESOURCE = re.compile(r'\{\s*"resourceType"\s*:\s*"(?!Bundle")')


@dataclass(eq=False, slots=True)
class Entry:
    """One resource. `raw`: the text of its entry as sent; `container`: the resource that contains it, at `position`.

    `fault`: the reason why it is not a resource, as (field, message). `kind` is "" if the entry has no resource.
    `grouped`: it is an Observation with members. `alone`: the resource itself, if it was not in a Bundle. `subject`:
    the reference and the type of whom it is about; `focus`: whom or what it is about instead. `deleted`: it only
    reports that the resource `kind`/`id` was deleted. `included`: a search added it to what it found. `number`: its
    place in its Bundle, from 0. `response`: the answer that a history has for its deletion. `left_out`: its kind
    if it is nobody's.
    """

    resources: Resources = field(repr=False)
    raw: str = ""
    line: int = 1
    full_url: str = ""
    container: Entry | None = None
    position: int = 0
    fault: tuple[str, str] | None = None
    contained: dict[str, Entry] | None = field(default=None, repr=False)
    alone: dict[str, Any] | None = field(default=None, repr=False)
    kind: str = ""
    id: str = ""
    withdrawn: bool = False
    grouped: bool = False
    subject: dict[str, str] = field(default_factory=dict, repr=False)
    focus: str = ""
    deleted: bool = False
    included: bool = False
    number: int = 0
    response: dict[str, Any] | None = None
    left_out: str = ""

    def describe(self, resource: dict[str, Any]) -> Entry:
        """Note the parts of the resource that references and groups need, and return the entry."""
        found = resource.get("id")
        self.kind, self.id = sys.intern(str(resource.get("resourceType"))), found if isinstance(found, str) else ""
        self.withdrawn = str(resource.get("status")).strip().lower() == WITHDRAWN
        self.grouped = self.kind == "Observation" and bool(resource.get("hasMember"))
        self.subject = self.resources.share(resource.get("subject"))
        self.focus = focus_of(resource) if "focus" in resource else ""
        self.left_out = kind_of_resource(resource)
        return self

    @property
    def resource(self) -> dict[str, Any]:
        if self.alone is not None:
            return self.alone
        if self.container is not None:
            found: dict[str, Any] = _inside(self.container)[self.position]
            return found
        return self.resources.get(self)

    @property
    def outermost(self) -> Entry:
        return self.container or self


class KnownPatients(dict[str, "Entry | None"]):
    """Patient resources of earlier parts of a source, by the references to them; None for a reference to several."""

    def __init__(self) -> None:
        super().__init__()
        self.resources = Resources(counted=False)


def url_key(url: str) -> str:
    """Return a fullUrl or a reference as it is compared: the case of a URN of a UUID or an OID means nothing."""
    return url.lower() if url[:9].lower().startswith(("urn:uuid:", "urn:oid:")) else url


class Scope:
    """The entries among which references resolve, in their order. `places`: the position of each by its `id()`.
    `known`: patients of earlier parts of the source. `subjects`: whom the References of records mean, as
    patients.subject_of found it."""

    def __init__(self, entries: list[Entry], known: KnownPatients | None = None) -> None:
        self.known: dict[str, Entry | None] = known or {}
        self.subjects: dict[tuple[Any, ...], Any] = {}
        self.entries = [entry for entry in entries if entry.fault is None]
        self.places = {id(entry): place for place, entry in enumerate(self.entries)}
        self._by_url: dict[str, list[Entry]] = {}
        self._by_type: dict[tuple[str, str], list[Entry]] = {}
        self._by_root: dict[tuple[str, ...], defaultdict[str, list[Entry]]] = {}
        self._doubles: dict[tuple[str, int], Entry | None] = {}
        self._indexes: dict[int, dict[tuple[str | None, str], Entry]] = {}
        for entry in self.entries:
            if entry.full_url:
                self._by_url.setdefault(url_key(entry.full_url), []).append(entry)
            address = parse_address(entry.full_url)
            if entry.id:
                self._by_type.setdefault((entry.kind, entry.id), []).append(entry)
            if address and address[2] == entry.kind and address[3] != entry.id:
                self._by_type.setdefault((entry.kind, address[3]), []).append(entry)

    def resolve(self, reference: Element, at: Entry) -> Entry | None:
        """Return the entry that a Reference in the resource `at` refers to; None if it is not here."""
        text = reference.text("reference").strip()
        if not text or text.startswith("#"):
            return _contained(at.outermost).get(text[1:]) if text else None
        address = parse_address(text)
        if address is None:
            return next(iter(self._by_url.get(url_key(text), [])), None) or self.known.get(url_key(text))
        return self._find(address, at, text) or self._known(address, at)

    def double(self, reference: Element, found: Entry, may_be_one: Callable[[Entry, Entry], bool]) -> Entry | None:
        """Return another entry that a Reference may mean as well as `found`, and that is certainly another resource."""
        text = reference.text("reference").strip()
        address = parse_address(text)
        if (key := (text, id(found))) not in self._doubles:
            same = self._by_url.get(url_key(text), [])
            if address and not address[1]:
                same = [] if address[4] else self._at_root(address[2], address[3]).get(root_of(found), [])
            others = (each for each in same if each is not found)
            self._doubles[key] = next((each for each in others if not may_be_one(found, each)), None)
        return self._doubles[key]

    def _at_root(self, *name: str) -> dict[str, list[Entry]]:
        if name not in self._by_root:
            by_root = self._by_root[name] = defaultdict(list)
            for each in self._by_type.get((name[0], name[1]), []):
                by_root[root_of(each)].append(each)
        return self._by_root[name]

    @staticmethod
    def address_of(reference: Element, at: Entry) -> str:
        """Return the address that a Reference in the resource `at` names; one without a server is on that resource's
        server."""
        address = parse_address(text := reference.text("reference").strip())
        return f"{root_of(at.outermost)}{address[2]}/{address[3]}" if address and not address[1] else text

    def about(self, entry: Entry) -> tuple[str, Entry | None]:
        """Return the type of resource that an entry is about, by default "Patient", and the resource if it is here."""
        subject = Element(entry.subject, "", [])
        found = self.resolve(subject, entry) if subject.text("reference") else None
        if found is not None and found.kind not in RESULTS and (found.kind != "Patient" or not entry.focus):
            return found.kind, found
        if entry.focus:
            return entry.focus, None
        address = parse_address(subject.text("reference").strip())
        return (address[2] if address else subject.text("type") or "Patient"), None

    def _known(self, address: re.Match[str], at: Entry) -> Entry | None:
        """Return the patient whom an address means in an earlier part of the source. An address without a server may be
        of any server."""
        root = address[1] or root_of(at.outermost)
        name = f"{address[2]}/{address[3]}"
        return self.known.get(f"{root}{name}") or self.known.get(name)

    def _find(self, address: re.Match[str], at: Entry, text: str) -> Entry | None:
        root, name, version = address[1], (address[2], address[3]), address[4] or ""
        if root:
            found = self._by_url.get(f"{root}{name[0]}/{name[1]}") or self._by_url.get(text, [])
            return self._pick(found, None, version)
        home = root_of(at.outermost)
        found = self._by_type.get(name, [])
        # The same id on another server is another resource; an entry without a server may be of any.
        return self._pick(found, home, version) or self._pick(found, "" if home else None, version)

    def _pick(self, entries: list[Entry], root: str | None, version: str) -> Entry | None:
        """Return the entry of this server and version, else the first of this server: a history begins with the newest.
        `root`: None for any server."""
        if not version and (root is None or len(entries) == 1):
            return next((entry for entry in entries if root is None or root_of(entry) == root), None)
        index = self._indexes.get(id(entries))
        if index is None:
            index = self._indexes[id(entries)] = {}
            for entry in entries:
                at, of = root_of(entry), _entry_version(entry)
                for key in ((at, ""), (at, of), (None, ""), (None, of)):
                    index.setdefault(key, entry)
        return index.get((root, version)) or index.get((root, ""))


def _entry_version(entry: Entry) -> str:
    return Element(entry.resource, "", []).part("meta").text("versionId") if entry.kind else ""


def root_of(entry: Entry) -> str:
    """Return the server of an entry: the beginning of its fullUrl; "" if it names none."""
    address = parse_address(entry.full_url)
    return (address[1] or "") if address else ""


def _inside(container: Entry) -> list[Any]:
    inside = container.resource.get("contained")
    return inside if isinstance(inside, list) else [inside]


def _contained(container: Entry) -> dict[str, Entry]:
    """Return the resources contained in another one, by their ids."""
    if container.contained is None:
        container.contained = {}
        for i, resource in enumerate(_inside(container)):
            name = resource.get("id") if isinstance(resource, dict) else None
            if isinstance(name, str) and name not in container.contained:
                container.resources.add()
                found = Entry(container.resources, line=container.line, container=container, position=i)
                container.contained[name] = found.describe(resource)
    return container.contained


def contained_in(container: Entry) -> list[Entry]:
    return list(_contained(container).values())


def read_bundle(window: JsonBuffer, resources: Resources) -> list[Entry] | None:
    """Consume the Bundle at the window's position, which ends its line, and return its entries.

    Return None, with nothing consumed, if it is another resource, or broken and not longer than RECORD_MAX. Raises
    BadInput if it is broken and longer, TooLarge if it has too many entries.
    """
    if OTHER_RESOURCE.match(window.text, window.position):
        return None
    window.hold()
    try:
        entries = _read_entries(window, resources)
        while not window.text[window.position :].strip(" \t\r") and window.read_more():
            pass
        if window.is_held and not LINE_REST.match(window.text, window.position):
            raise BadInput(f"line {window.line}: something follows the Bundle on its line")
    except TooLarge:
        raise
    except BadInput:
        if not window.is_held:
            raise
        window.rewind()
        return None
    window.release()
    return entries


def slice_bundle(raw: str, first_line: int, resources: Resources) -> list[Entry]:
    """Return the entries of a well-formed Bundle, each with its part of the text `raw` that begins at `first_line`."""
    return _moved(_read_entries(JsonBuffer(_as_stream(raw)), resources), first_line)


def slice_nested(entry: Entry) -> list[Entry]:
    """Return the entries of a Bundle that is itself the resource of an entry. Raises TooLarge."""
    entry.resources.examine(entry)
    entry.resources.nested = True
    window = JsonBuffer(_as_stream(entry.raw))
    found: list[Entry] = []
    for name, _ in read_members(window):
        if name == "resource":
            found = _moved(_read_entries(window, entry.resources), entry.line)
        else:
            window.read_value()
    return found


def _as_stream(raw: str) -> io.BytesIO:
    return io.BytesIO(raw.encode("utf-8", "surrogateescape"))


def _moved(entries: list[Entry], first_line: int) -> list[Entry]:
    for entry in entries:
        entry.line += first_line - 1
    return entries


def _read_entries(window: JsonBuffer, resources: Resources) -> list[Entry]:
    """Read past the Bundle at the window's position and return its entries. Raises BadInput if it is not a Bundle or is
    malformed, and TooLarge."""
    entries: list[Entry] = []
    members: dict[str, Any] = {}
    for name, line in read_members(window):
        if name in members:
            raise BadInput(f"line {line}: the Bundle has two members named {printable(name, 60)}")
        if name == "entry" and window.peek() == "[":
            entries = list(_list_entries(window, resources))
            members[name] = None
            continue
        members[name] = value = window.read_value()
        if (name == "resourceType" and value != "Bundle") or (name == "entry" and value is not None):
            raise BadInput(f"line {line}: a Bundle with a list named entry is expected")
    if "resourceType" not in members:
        raise BadInput(f"line {window.line}: a Bundle is expected")
    if note := page_note(members, entries):
        resources.notes.append(note)
    return entries


def _list_entries(window: JsonBuffer, resources: Resources) -> Iterator[Entry]:
    for number, parsed in enumerate(read_list(window)):
        parsed.decoded()
        if parsed.faults:
            raise BadInput(f"line {parsed.line}: {parsed.faults[0][1]}")
        resources.add(len(parsed.raw))
        entry = entry_of(parsed, resources)
        entry.number = number
        yield entry


def entry_of(parsed: ParsedRecord, resources: Resources) -> Entry:
    """Parse a Bundle entry; sets `fault` if invalid, leaves `kind` empty if it has no resource."""
    value = parsed.decoded()
    found = Entry(resources, parsed.raw, parsed.line)
    if value is None:
        return found
    if not isinstance(value, dict):
        found.fault = ("Bundle.entry", f"must be an object, not {kind(value)}")
    elif isinstance(value, DuplicateKeyDict):
        found.fault = (f"Bundle.entry.{printable(value.name, 60)}", "is there twice")
    elif not isinstance(value.get("fullUrl", ""), str):
        found.fault = ("Bundle.entry.fullUrl", f"must be text, not {kind(value['fullUrl'])}")
    elif value.get("resource") is not None:
        fault = resource_fault(value["resource"])
        if fault:
            found.fault = (".".join(filter(None, ("Bundle.entry.resource", fault[0]))), fault[1])
        elif value["resource"]["resourceType"] == "Bundle" and (fault := bundle_fault(value["resource"])):
            found.fault = (f"Bundle.entry.resource: {fault[0]}", fault[1])
        else:
            found.full_url = value.get("fullUrl", "")
            found.describe(value["resource"])
            resources.keep(found, value["resource"])
            found.included = isinstance(search := value.get("search"), dict) and search.get("mode", "match") != "match"
    if found.fault is None and isinstance(value, dict):
        faults: list[tuple[str, str]] = []
        Element(value, "Bundle.entry", faults)
        found.fault = next(iter(faults), None)
    if found.fault is None and isinstance(request := value.get("request"), dict):
        if request.get("method") == "DELETE":
            _note_deletion(found, request, value.get("fullUrl", ""))
            found.response = answer if isinstance(answer := value.get("response"), dict) else None
        if not found.deleted:
            found.fault = untaken_request(
                str(request.get("method") or ""), str(request.get("url", "")).strip(), found.id
            )
    if found.fault is None and found.kind and not found.deleted and (fault := wrapping_fault(found.resource)):
        found.fault = f"Bundle.entry.resource: {fault[0]}", fault[1]
    return found


def _note_deletion(entry: Entry, request: dict[str, Any], full_url: str) -> None:
    """Note which resource a transaction or a history reports as deleted, if that is known."""
    url = request.get("url")
    if isinstance(url, str) and (condition := CONDITION.fullmatch(url.strip())):
        entry.kind, entry.full_url, entry.deleted, entry.withdrawn = condition[1], unquote(condition[2]), True, True
    address = parse_address(url.strip()) if isinstance(url, str) else None
    if address and address[2] in RESULTS:
        entry.kind, entry.id, entry.deleted, entry.withdrawn = address[2], address[3], True, True
        entry.full_url = full_url or (address[0] if address[1] else "")


def small_bundle(entries: list[Entry]) -> str:
    """Return a Bundle of these entries alone, each with its text as sent, so that numbers stay exact."""
    return f'{{"resourceType":"Bundle","type":"collection","entry":[{",".join(entry.raw for entry in entries)}]}}'
