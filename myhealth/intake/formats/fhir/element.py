"""Read the parts of a FHIR resource; a value of the wrong type becomes a fault with its place and is never converted.

Source: HL7 FHIR R4 (4.0.1), "JSON Representation" and "Data Types".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache, wraps
from typing import Any, TypeVar, cast

from myhealth.common.text import printable, unstorable_fault
from myhealth.intake.formats.terminology import FieldError, Number, joined_name
from myhealth.intake.parsed_record import DuplicateKeyDict, UnrepresentableNumber

READ_OR_MADE = ("", "GET", "HEAD", "POST")  # methods that change no result
UNTAKEN = {
    "PATCH": "send the whole resource",
    "DELETE": "name the resource by its id or its identifier",
    "PUT": "the resource has another id",
}
RESULT_URL = re.compile(r"(?:https?://\S+/)?(?:Observation|DiagnosticReport)(?:[/?]|$)")
# The root and the version may be missing.
ADDRESS = re.compile(r"(https?://\S+/)?([A-Z][A-Za-z]{0,63})/([^/\s?#|]+)(?:/_history/([^/\s]+))?")
TYPE = re.compile(r"[A-Z][A-Za-z]{0,63}")
# The order of preference among identifiers or names; former ones come last (value sets identifier-use, name-use).
USES = ("usual", "official", "", "secondary", "nickname", "anonymous", "maiden", "temp", "old")

WRAPPED = "is not read: send each resource by itself, or as an entry of a Bundle"
CODING = ("system", "code", "display", "version")
# FHIR forbids to use a resource in which one of these is not understood.
MODIFIERS = ("modifierExtension", "implicitRules")


class Element:
    """A JSON object of a resource, and its place (`path`, in FHIRPath).

    Its methods return the value of a name, or an empty value if it is absent or null. A wrong type, a text that cannot
    be stored, or a name that occurs twice, is added to `faults`.
    """

    __slots__ = ("data", "faults", "path")

    def __init__(self, data: dict[str, Any], path: str, faults: list[FieldError]) -> None:
        self.data = data
        self.path = path
        self.faults = faults
        if type(data) is DuplicateKeyDict:
            self.add_error(printable(data.name, 60), "is there twice")
        if "modifierExtension" in data or "implicitRules" in data:
            for name in MODIFIERS:
                if data.get(name):
                    self.add_error(name, "may change what the rest means, and is not known here")

    def __bool__(self) -> bool:
        return bool(self.data)

    def add_error(self, name: str, message: str) -> None:
        self.faults.append((f"{self.path}.{name}" if name else self.path, message))

    def text(self, name: str) -> str:
        value: Any = self.data.get(name)
        if value.__class__ is str and value.isascii() and "\0" not in value:  # nearly all
            return value
        return "" if value is None else self._text(name, value)

    def texts(self, name: str) -> list[str]:
        """Return a list of texts; a single text is a list of one."""
        return [self._text(place, value) for place, value in self._items(name)]

    def _text(self, place: str, value: Any) -> str:
        if type(value) is not str:
            self.add_error(place, f"must be text, not {kind(value)}")
        elif fault := unstorable_fault(value):
            self.add_error(place, fault)
        else:
            return value
        return ""

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
        if isinstance(value, dict):
            return Element(value, f"{self.path}.{name}", self.faults)
        self.add_error(name, f"must be an object, not {kind(value)}")
        return NOTHING

    def parts(self, name: str) -> tuple[Element, ...]:
        """Return the objects of a list; a single object, as in older releases of FHIR, is a list of one."""
        if self.data.get(name) is None:
            return ()
        found: list[Element] = []
        for place, value in self._items(name):
            if isinstance(value, dict):
                found.append(Element(value, f"{self.path}.{place}", self.faults))
            else:
                self.add_error(place, f"must be an object, not {kind(value)}")
        return tuple(found)

    def codings(self) -> list[dict[str, Any]]:
        """Return the codings of a CodeableConcept with all that a record keeps of them."""
        made = [compact(**{name: each.text(name) for name in CODING}) for each in self.parts("coding")]
        return [each for each in made if each]

    def has_parts(self, name: str) -> bool:
        """Return whether `parts` of this name gives any object, without a look for faults."""
        value = self.data.get(name)
        return any(isinstance(each, dict) for each in (value if isinstance(value, list) else [value]))

    def _items(self, name: str) -> list[tuple[str, Any]]:
        value = self.data.get(name)
        if isinstance(value, list):
            return [(f"{name}[{i}]", item) for i, item in enumerate(value) if item is not None]
        return [] if value is None else [(name, value)]


NOTHING = Element({}, "", [])  # what is absent; nothing is wrong with it

Reader = TypeVar("Reader", bound=Callable[..., Any])
NESTED = (dict, list)
ANSWERS_MAX, CONTENT_MAX = 1024, 1000  # answers that are kept, and characters of the content of each


def remembered(name: str = "") -> Callable[[Reader], Reader]:
    """Decorate a function of one part of an Element, which reads nothing else of it: equal contents, such as the code
    of a test, are read once, and so is what is absent. Each caller gets an answer of its own. A content with a fault is
    read anew. `name`: the part's, if it is not the function's second argument."""

    def decorate(read: Reader) -> Reader:
        answers: dict[Any, Any] = {}

        @wraps(read)
        def remembering(part: Element, *more: Any) -> Any:
            value = part.data.get(name or more[0])
            key = "" if value is None else repr(value), more
            if key in answers:
                return own_copy(answers[key])
            found = read(part, *more)
            if not part.faults and len(key[0]) <= CONTENT_MAX:
                if len(answers) >= ANSWERS_MAX:
                    answers.clear()
                answers[key] = own_copy(found)
            return found

        return cast(Reader, remembering)

    return decorate


def own_copy(value: Any) -> Any:
    """Return a copy of decoded JSON that shares no list and no object with it."""
    if value.__class__ is dict:
        return {name: own_copy(each) if each.__class__ in NESTED else each for name, each in value.items()}
    return [own_copy(each) for each in value] if value.__class__ is list else value


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
    if text.strip() or not concept.data:
        return text
    codings = concept.parts("coding")
    return next((found for name in ("display", "code") for coding in codings if (found := coding.text(name))), "")


def compact(**parts: Any) -> dict[str, Any]:
    """Return the parts that are not empty."""
    return {name: value for name, value in parts.items() if value or (value is not None and value not in ("", []))}


def concept(part: Element) -> dict[str, Any] | str | None:
    """Return a CodeableConcept as a record has it: text, or text with codings; None if it is empty."""
    made = compact(text=part.text("text"), codings=part.codings()) if part.data else {}
    return made.get("text") if "codings" not in made else made


@remembered()
def codings_of(part: Element, name: str) -> list[dict[str, Any]]:
    return part.part(name).codings()


@remembered()
def concepts(part: Element, name: str) -> list[dict[str, Any] | str]:
    return [found for each in part.parts(name) if (found := concept(each))]


def by_use(parts: Iterable[Element]) -> list[Element]:
    """Return identifiers or names, the usual and the official one first, those that are no longer valid last."""
    found = [*parts]
    says_use = any("use" in each.data or "period" in each.data for each in found)
    return sorted(found, key=_place_of_use) if says_use else found


def _place_of_use(part: Element) -> int:
    use = "old" if is_former(part) else part.text("use")
    return USES.index(use if use in USES else "")


def is_former(part: Element) -> bool:
    """Return whether an identifier or a name is not valid now: its use is old, or its period has ended or not begun."""
    period = part.part("period") if "period" in part.data else NOTHING
    start, end, today = period.text("start")[:10], period.text("end")[:10], datetime.now(UTC).date()
    latest = (today + timedelta(days=1)).isoformat()  # today's date in the east
    is_over = end != "" and end < today.isoformat()[: len(end)]
    return part.text("use") == "old" or is_over or start > latest[: len(start)]


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


@lru_cache(maxsize=4096)
def parse_address(text: str) -> re.Match[str] | None:
    """Return [root, type, id, version] of an address on a FHIR server; None if it is not one. Many are in a source
    again and again."""
    return ADDRESS.fullmatch(text)


def resource_fault(resource: Any) -> tuple[str, str] | None:
    """Return the reason why a JSON value is not a FHIR resource; None if it is one."""
    if not isinstance(resource, dict):
        return "", f"must be an object, not {kind(resource)}"
    if isinstance(resource, DuplicateKeyDict) and resource.name == "resourceType":
        return "resourceType", "is there twice"
    if "resourceType" not in resource:
        return "resourceType", "is missing: it is not a FHIR resource"
    if not isinstance(resource["resourceType"], str) or not TYPE.fullmatch(resource["resourceType"]):
        return "resourceType", "does not name a type of FHIR resource"
    return None


def wrapping_fault(resource: dict[str, Any]) -> tuple[str, str] | None:
    """Return the fault of a resource that wraps results where they are not looked for; None if it does not."""
    whole = Element(resource, str(resource["resourceType"]), [])
    found = []
    if whole.path == "Parameters":
        waiting = [*whole.parts("parameter")]
        for each in waiting:  # it grows
            waiting += each.parts("part")
        found = [f"{each.path}.resource" for each in waiting if "resource" in each.data]
    elif whole.path == "Composition":
        results = ("Observation", "DiagnosticReport")
        found = [each.path for each in whole.parts("contained") if each.text("resourceType") in results]
    return (found[0], WRAPPED) if found else None


def bundle_fault(bundle: dict[str, Any]) -> tuple[str, str] | None:
    """Return the reason why the entries of a Bundle cannot be read; None if they can."""
    if isinstance(bundle, DuplicateKeyDict):
        return f"Bundle.{printable(bundle.name, 60)}", "is there twice"
    entries = bundle.get("entry")
    if entries is not None and not isinstance(entries, list):
        return "Bundle.entry", f"must be a list, not {kind(entries)}"
    return None


def untaken_request(method: str, url: str, identity: str) -> tuple[str, str] | None:
    """Return the fault of a change of a result that cannot be carried out; None if it can, or is about another
    resource. `identity`: the id in the resource."""
    address = parse_address(url) if method == "PUT" else None
    if (
        not RESULT_URL.match(url)
        or method in READ_OR_MADE
        or (method == "PUT" and not (address and address[3] != identity))
    ):
        return None
    todo = UNTAKEN.get(method, "its method is not one of FHIR")
    return "Bundle.entry.request", f"{printable(method, 20)} {printable(url, 100)} is not carried out: {todo}"
