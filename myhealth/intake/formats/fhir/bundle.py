"""The entries of a Bundle, and the references between them.

Source: HL7 FHIR R4 (4.0.1), "Bundle" (resolving references in Bundles) and "References" (contained resources).
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from myhealth.common.errors import BadInput
from myhealth.common.text import printable
from myhealth.intake.formats.fhir.element import Element, kind
from myhealth.intake.formats.json_reader import JsonBuffer, read_list, read_members
from myhealth.intake.parsed_record import DuplicateKeyDict, ParsedRecord

TYPE = re.compile(r"[A-Z][A-Za-z]{0,63}")
# [root, type, id, version] of an address on a FHIR server; the root and the version may be missing.
ADDRESS = re.compile(r"(https?://\S+/)?([A-Z][A-Za-z]{0,63})/([^/\s?#|]+)(?:/_history/([^/\s]+))?")


@dataclass(eq=False, slots=True)
class Entry:
    """One resource. `raw`: the text of its entry as sent; `container`: the resource that contains it.

    `fault`: the reason why it is not a resource, as (field, message).
    """

    resource: dict[str, Any]
    raw: str = ""
    line: int = 1
    full_url: str = ""
    container: Entry | None = None
    fault: tuple[str, str] | None = None
    contained: dict[str, Entry] | None = field(default=None, repr=False)

    @property
    def kind(self) -> str:
        return str(self.resource.get("resourceType"))

    @property
    def id(self) -> str:
        found = self.resource.get("id")
        return found if isinstance(found, str) else ""

    @property
    def outermost(self) -> Entry:
        return self.container or self

    @property
    def withdrawn(self) -> bool:
        return self.resource.get("status") == "entered-in-error"


class Scope:
    """The entries among which references resolve, in their order. `places`: the position of each by its `id()`."""

    def __init__(self, entries: list[Entry]) -> None:
        self.entries = [entry for entry in entries if entry.fault is None]
        self.places = {id(entry): place for place, entry in enumerate(self.entries)}
        self._by_url: dict[str, list[Entry]] = {}
        self._by_type: dict[tuple[str, str], list[Entry]] = {}
        for entry in self.entries:
            if entry.full_url:
                self._by_url.setdefault(entry.full_url, []).append(entry)
            address = ADDRESS.fullmatch(entry.full_url)
            names = {(entry.kind, entry.id)} | ({(address[2], address[3])} if address else set())
            for name in names:
                if name[1]:
                    self._by_type.setdefault(name, []).append(entry)

    def resolve(self, reference: Element, at: Entry) -> Entry | None:
        """Return the entry that a Reference in the resource `at` refers to; None if it is not here."""
        text = reference.text("reference").strip()
        if text.startswith("#"):
            return _contained(at.outermost).get(text[1:])
        address = ADDRESS.fullmatch(text)
        if address is None:
            return _pick(self._by_url.get(text, []))
        root, name, version = address[1], (address[2], address[3]), address[4] or ""
        if root:
            found = self._by_url.get(f"{root}{name[0]}/{name[1]}") or self._by_url.get(text, [])
            return _pick(found, version)
        home = _root(at.outermost)
        found = self._by_type.get(name, [])
        # The same id on another server is another resource; an entry without a server may be of any.
        near = [entry for entry in found if _root(entry) == home]
        return _pick(near or [entry for entry in found if not (home and _root(entry))], version)


def _pick(entries: list[Entry], version: str = "") -> Entry | None:
    """Return the entry of this version, else the first: a history begins with the newest."""
    wanted = (
        entry
        for entry in entries
        if version and Element(entry.resource, "", []).part("meta").text("versionId") == version
    )
    return next(wanted, next(iter(entries), None))


def _root(entry: Entry) -> str:
    """Return the server of an entry: the beginning of its fullUrl; "" if it names none."""
    address = ADDRESS.fullmatch(entry.full_url)
    return (address[1] or "") if address else ""


def _contained(container: Entry) -> dict[str, Entry]:
    """Return the resources contained in another one, by their ids."""
    if container.contained is None:
        container.contained = {}
        inside = container.resource.get("contained")
        for resource in inside if isinstance(inside, list) else [inside]:
            if isinstance(resource, dict) and isinstance(name := resource.get("id"), str):
                container.contained.setdefault(name, Entry(resource, line=container.line, container=container))
    return container.contained


def contained_in(container: Entry) -> list[Entry]:
    return list(_contained(container).values())


def resource_fault(resource: Any) -> tuple[str, str] | None:
    """Return the reason why a JSON value is not a FHIR resource; None if it is one."""
    if not isinstance(resource, dict):
        return "", f"must be an object, not {kind(resource)}"
    if "resourceType" not in resource:
        return "resourceType", "is missing: it is no FHIR resource"
    if not isinstance(resource["resourceType"], str) or not TYPE.fullmatch(resource["resourceType"]):
        return "resourceType", "does not name a type of FHIR resource"
    return None


def bundle_fault(bundle: dict[str, Any]) -> tuple[str, str] | None:
    """Return the reason why the entries of a Bundle cannot be read; None if they can."""
    if isinstance(bundle, DuplicateKeyDict):
        return f"Bundle.{printable(bundle.name, 60)}", "is there twice"
    entries = bundle.get("entry")
    if entries is not None and not isinstance(entries, list):
        return "Bundle.entry", f"must be a list, not {kind(entries)}"
    return None


def slice_bundle(bundle: dict[str, Any], raw: str, first_line: int) -> Iterator[Entry]:
    """Return the entries of a well-formed Bundle, each with its part of the text `raw` that begins at `first_line`."""
    yield from _slices(bundle, JsonBuffer(_source(raw)), first_line)


def slice_nested(entry: Entry) -> Iterator[Entry]:
    """Return the entries of a Bundle that is itself the resource of an entry."""
    window = JsonBuffer(_source(entry.raw))
    for name, _ in read_members(window):
        if name == "resource":
            yield from _slices(entry.resource, window, entry.line)
        else:
            window.read_value()


def _source(raw: str) -> io.BytesIO:
    return io.BytesIO(raw.encode("utf-8", "surrogateescape"))


def _slices(bundle: dict[str, Any], window: JsonBuffer, first_line: int) -> Iterator[Entry]:
    for parsed, value in zip(read_entries(window), bundle.get("entry") or [], strict=True):
        parsed.record = value
        parsed.line += first_line - 1
        yield entry_of(parsed)


def read_entries(window: JsonBuffer) -> Iterator[ParsedRecord]:
    """Read past the Bundle at the window's position and return its entries. Raises BadInput if it is broken."""
    seen = False
    for name, line in read_members(window):
        if name != "entry" or window.peek() != "[":
            window.read_value()
            continue
        if seen:
            raise BadInput(f"line {line}: the Bundle has two lists named entry")
        seen = True
        for parsed in read_list(window):
            if parsed.faults:
                raise BadInput(f"line {parsed.line}: {parsed.faults[0][1]}")
            yield parsed


def entry_of(parsed: ParsedRecord) -> Entry:
    """Parse a Bundle entry; sets `fault` if invalid, leaves `resource` empty if absent."""
    value = parsed.decoded()
    found = Entry({}, parsed.raw, parsed.line)
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
            found.resource, found.full_url = value["resource"], value.get("fullUrl", "")
    return found


def small_bundle(entries: list[Entry]) -> str:
    """Return a Bundle of these entries alone, each with its text as sent, so that numbers stay exact."""
    return f'{{"resourceType":"Bundle","type":"collection","entry":[{",".join(entry.raw for entry in entries)}]}}'
