"""Read the parts of a FHIR resource; a value of the wrong type becomes a fault with its place and is never converted.

Source: HL7 FHIR R4 (4.0.1), "JSON Representation" and "Data Types".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from myhealth.common.text import printable
from myhealth.intake.formats.terminology import FieldError, Number, joined_name
from myhealth.intake.parsed_record import DuplicateKeyDict, UnrepresentableNumber

RESULT_URL = re.compile(r"(?:https?://\S+/)?(?:Observation|DiagnosticReport)(?:[/?]|$)")
TYPE = re.compile(r"[A-Z][A-Za-z]{0,63}")
# The order of preference among identifiers or names; former ones come last (value sets identifier-use, name-use).
USES = ("usual", "official", "", "secondary", "nickname", "anonymous", "maiden", "temp", "old")

# FHIR forbids to use a resource in which one of these is not understood.
MODIFIERS = {"modifierExtension", "implicitRules"}


class Element:
    """A JSON object of a resource, and its place (`path`, in FHIRPath).

    Its methods return the value of a name, or an empty value if it is absent or null. A wrong type, or a name that
    occurs twice, is added to `faults`.
    """

    __slots__ = ("data", "faults", "path")

    def __init__(self, data: dict[str, Any], path: str, faults: list[FieldError]) -> None:
        self.data = data
        self.path = path
        self.faults = faults
        if isinstance(data, DuplicateKeyDict):
            self.add_error(printable(data.name, 60), "is there twice")
        for name in MODIFIERS & data.keys():
            if data[name]:
                self.add_error(name, "may change what the rest means, and is not known here")

    def __bool__(self) -> bool:
        return bool(self.data)

    def add_error(self, name: str, message: str) -> None:
        self.faults.append((f"{self.path}.{name}" if name else self.path, message))

    def text(self, name: str) -> str:
        value = self.data.get(name)
        if value is None or type(value) is str:
            return value or ""
        self.add_error(name, f"must be text, not {kind(value)}")
        return ""

    def texts(self, name: str) -> list[str]:
        """Return a list of texts; a single text is a list of one."""
        found = []
        for place, value in self._items(name):
            if type(value) is str:
                found.append(value)
            else:
                self.add_error(place, f"must be text, not {kind(value)}")
        return found

    def number(self, name: str) -> Number | None:
        value = self.data.get(name)
        if value is None or type(value) in (int, float, Decimal):
            return value
        shown = f"{value}, which cannot be kept" if isinstance(value, UnrepresentableNumber) else kind(value)
        self.add_error(name, f"must be a number, not {shown}")
        return None

    def part(self, name: str) -> Element:
        value = self.data.get(name)
        if value is None:
            return NOTHING
        if not isinstance(value, dict):
            self.add_error(name, f"must be an object, not {kind(value)}")
            return NOTHING
        return Element(value, f"{self.path}.{name}", self.faults)

    def parts(self, name: str) -> list[Element]:
        """Return a list of objects; a single object, as in older releases of FHIR, is a list of one."""
        found: list[Element] = []
        if self.data.get(name) is None:
            return found
        for place, value in self._items(name):
            if isinstance(value, dict):
                found.append(Element(value, f"{self.path}.{place}", self.faults))
            else:
                self.add_error(place, f"must be an object, not {kind(value)}")
        return found

    def _items(self, name: str) -> Iterator[tuple[str, Any]]:
        value = self.data.get(name)
        if isinstance(value, list):
            yield from ((f"{name}[{i}]", item) for i, item in enumerate(value) if item is not None)
        elif value is not None:
            yield name, value


NOTHING = Element({}, "", [])  # what is absent; nothing is wrong with it


def kind(value: Any) -> str:
    """Return the type of a JSON value in words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, str):
        return "text"
    return "a list" if isinstance(value, list) else "an object" if isinstance(value, dict) else "a number"


def words(concept: Element) -> str:
    """Return the text of a CodeableConcept, else the display of a coding, else a code."""
    text = concept.text("text")
    if text.strip():
        return text
    codings = concept.parts("coding")
    return next((found for name in ("display", "code") for coding in codings if (found := coding.text(name))), "")


def compact(**parts: Any) -> dict[str, Any]:
    """Return the parts that are not empty."""
    return {name: value for name, value in parts.items() if value is not None and value != "" and value != []}


def codings(part: Element) -> list[dict[str, Any]]:
    """Return the codings of a CodeableConcept with all that a record keeps of them."""
    names = ("system", "code", "display", "version")
    made = (compact(**{name: each.text(name) for name in names}) for each in part.parts("coding"))
    return [each for each in made if each]


def concept(part: Element) -> dict[str, Any] | str | None:
    """Return a CodeableConcept as a record has it: text, or text with codings; None if it is empty."""
    made = compact(text=part.text("text"), codings=codings(part))
    return made.get("text") if "codings" not in made else made


def concepts(part: Element, name: str) -> list[dict[str, Any] | str]:
    return [found for each in part.parts(name) if (found := concept(each))]


def by_use(parts: list[Element]) -> list[Element]:
    """Return identifiers or names, the usual and the official one first."""
    return sorted(parts, key=lambda part: USES.index(use) if (use := part.text("use")) in USES else USES.index(""))


def person_name(person: Element) -> str:
    """Return the name of a Patient, a Practitioner or the like; "" if it has none. An organisation's is text."""
    if isinstance(person.data.get("name"), str):
        return person.text("name")
    for name in by_use(person.parts("name")):
        family = " ".join(name.texts("family"))  # a list in DSTU2
        found = joined_name(" ".join(name.texts("given")), family) or name.text("text")
        if found:
            return found
    return ""


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


def untaken_request(method: str, url: str) -> tuple[str, str] | None:
    """Return the fault of a change of a result that cannot be carried out; None if it is about another resource."""
    todo = "send the whole resource" if method == "PATCH" else "name the resource by its id or its identifier"
    message = f"{method} {printable(url, 100)} is not carried out: {todo}"
    return ("Bundle.entry.request", message) if RESULT_URL.match(url) else None
