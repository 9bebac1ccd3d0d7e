"""The resources of a Bundle, decoded when they are needed, within bounds of memory and work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from myhealth.common.errors import TooLarge
from myhealth.common.text import printable
from myhealth.intake.formats.fhir.element import Element
from myhealth.intake.parsed_record import decode_exactly

if TYPE_CHECKING:
    from myhealth.intake.formats.fhir.bundle import Entry

ENTRIES_MAX = 100_000  # entries of a Bundle, and resources contained in them
# The most characters that all records of a Bundle together examine: a multiple of its own, plus a minimum.
EXAMINED_FACTOR, EXAMINED_MIN = 20, 64 * 1024 * 1024
SHARED_TOO_OFTEN = "the records of the Bundle share too many of its entries; send it in parts"
DECODED_CHARACTERS = 1024 * 1024  # the text of the entries that stay decoded


class Resources:
    """The resources of a Bundle. They are decoded when they are needed; only the last ones stay in memory.

    `counted`: the records may examine only so many. `notes`: notices about the Bundle as a whole.
    """

    def __init__(self, *, counted: bool = True) -> None:
        self._counted = counted
        self.notes: list[str] = []
        self._subjects: dict[tuple[str | None, str | None], dict[str, str]] = {}
        self._decoded: dict[Entry, dict[str, Any]] = {}
        self._size = 0
        self._entries = 0
        self._characters = 0
        self._examined = 0
        self.nested = False  # whether the entries that come are parts of earlier ones

    def add(self, characters: int = 0) -> None:
        """Count an entry of so many characters. Raises TooLarge."""
        self._entries += 1
        self._characters += 0 if self.nested else characters
        if self._entries > ENTRIES_MAX:
            raise TooLarge(f"the Bundle has more than {ENTRIES_MAX} entries; send it in parts")

    def share(self, subject: Any) -> dict[str, str]:
        """Return the `reference` and the `type` of a subject: one object for the many entries that share it."""
        named = subject if isinstance(subject, dict) else {}
        kept = {name: text for name in ("reference", "type") if isinstance(text := named.get(name), str)}
        return self._subjects.setdefault((kept.get("reference"), kept.get("type")), kept)

    def examine(self, entry: Entry) -> None:
        """Count that a record examines the entry. Raises TooLarge if the records share too many entries, because time
        and rejected records would grow with the square of the Bundle."""
        self._examined += len(entry.raw)
        if self._counted and self._examined > EXAMINED_FACTOR * self._characters + EXAMINED_MIN:
            raise TooLarge(SHARED_TOO_OFTEN)

    def get(self, entry: Entry) -> dict[str, Any]:
        if (found := self._decoded.pop(entry, None)) is not None:
            self._decoded[entry] = found
            return found
        self.examine(entry)
        resource: dict[str, Any] = decode_exactly(entry.raw)["resource"]
        self.keep(entry, resource)
        return resource

    def keep(self, entry: Entry, resource: dict[str, Any]) -> None:
        """Keep a decoded resource, as long as there is room for it."""
        self._decoded[entry] = resource
        self._size += len(entry.raw)
        while self._size > DECODED_CHARACTERS and len(self._decoded) > 1:
            oldest = next(iter(self._decoded))
            del self._decoded[oldest]
            self._size -= len(oldest.raw)


def outcome_notes(entry: Entry) -> list[str]:
    """Return what a server says went wrong, such as results that it did not return."""
    issues = Element(entry.resource, "", []).parts("issue")
    told = [each for each in issues if each.text("severity") != "information"]
    words = (each.part("details").text("text") or each.text("diagnostics") or each.text("code") for each in told)
    return [f"line {entry.line}: the server says: {printable(each, 200)}" for each in dict.fromkeys(words) if each]


def page_note(bundle: dict[str, Any], entries: list[Entry]) -> str:
    """Return a note on the missing entries if the Bundle is one page of several, else ""."""
    links = bundle.get("link")
    relations = {each.get("relation") for each in links if isinstance(each, dict)} if isinstance(links, list) else set()
    total, here = bundle.get("total"), sum(not entry.included for entry in entries)
    missing = total - here if type(total) is int and bundle.get("type") in ("searchset", "history") else 0
    if missing <= 0 and "next" not in relations:
        return ""
    count = f"{here} of {total} entries; {missing} are missing" if missing > 0 else "one page; more are missing"
    return f"the Bundle has {count} (Bundle.total, Bundle.link): send the other pages too"
