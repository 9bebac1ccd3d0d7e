"""Read the facts of an Observation or a report, beside its value, into the fields of a result.

Source: HL7 FHIR R4 (4.0.1), "Observation", "DiagnosticReport", "Specimen", "Device", "Data Types".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, get_args

from myhealth.clinical.coding_systems import OUR_REPORT, OUR_SERIAL
from myhealth.clinical.in_words import concept_text
from myhealth.clinical.series import specimen_kind
from myhealth.clinical.status import WITHDRAWN, ReportStatus, ResultStatus
from myhealth.intake.formats.fhir.bundle import Entry
from myhealth.intake.formats.fhir.element import (
    Element,
    by_use,
    compact,
    concept,
    concepts,
    parse_address,
    person_name,
    remembered,
)
from myhealth.intake.formats.fhir.grouping import FhirGroup, label
from myhealth.intake.formats.fhir.moments import Moments
from myhealth.intake.identity import may_name_patient

# The status of a result that has none of its own, by that of its report.
INHERITED_STATUS = {"partial": "preliminary", "appended": "amended"}
STATUSES = {"DiagnosticReport": get_args(ReportStatus), "Observation": get_args(ResultStatus)}
# The systems of our own export for a check-up and a machine: numbers that the record has elsewhere.
OURS = (OUR_REPORT, OUR_SERIAL)
ETAG = re.compile(r'(?:W/)?"(.*)"')
NOTE_EXTENSION = "http://hl7.org/fhir/5.0/StructureDefinition/extension-DiagnosticReport.note"


class Place(NamedTuple):
    """A resource as a part of a group, with what is needed to resolve its references."""

    group: FhirGroup
    entry: Entry
    part: Element

    def resolve(self, reference: Element) -> Place | None:
        """Return the resource of a Reference if it is here, and add it to the record's text."""
        found = self.group.resolve(reference, self.entry)
        if found is None:
            return None
        return Place(self.group, found, Element(found.resource, found.kind, self.part.faults))


def facts_of(place: Place, moments: Moments) -> dict[str, Any]:
    """Return the facts that results, panels and check-ups have alike, by the names of a result's fields."""
    part, meta = place.part, place.part.part("meta")
    found = moments.of(part) | {"status": _known_status(place)}
    sent = part.data.keys()
    for name, elements, read in FACTS:
        if not elements.isdisjoint(sent) and (fact := read(place)):
            found[name] = fact
    if meta:
        found |= compact(updated_at=meta.text("lastUpdated"), version=read_version_id(meta.text("versionId")))
    return found


def read_version_id(sent: str) -> str:
    """Return a versionId; some servers send the ETag of the same, W/"3"."""
    tag = ETAG.fullmatch(sent)
    return tag[1] if tag else sent


def _known_status(place: Place) -> str:
    status = place.part.text("status").strip().lower()
    return status if status in STATUSES[place.entry.kind] else "unknown"


def identifiers_of(part: Element) -> list[dict[str, Any]]:
    """Return the identifiers of a resource, the usual one first, without those that MyHealth's own export adds.

    `type`: the first code of an identifier's type, or words that say that it is not a patient's.
    """
    found = []
    for each in by_use(part.parts("identifier")) if "identifier" in part.data else ():
        if each.text("value").strip() and each.text("system") not in OURS:
            types = (coding.text("code") for coding in each.part("type").parts("coding"))
            words = each.part("type").text("text")
            kind = next(filter(None, types), None) or (None if may_name_patient(words) else words)
            found.append(compact(system=each.text("system"), value=each.text("value"), type=kind))
    return found


@remembered("interpretation")
def interpretations_of(part: Element) -> list[dict[str, Any]]:
    """Return an entry for each coding of each interpretation; its text goes with the first coding."""
    found: list[dict[str, Any]] = []
    for each in part.parts("interpretation"):
        entries = each.codings() or [{}]
        entries[0] |= compact(text=each.text("text"))
        found += filter(None, entries)
    return found


def _notes(place: Place) -> Iterator[dict[str, Any]]:
    part = place.part
    extensions = [each for each in part.parts("extension") if each.text("url") == NOTE_EXTENSION]
    for note in (*part.parts("note"), *(each.part("valueAnnotation") for each in extensions)):
        if note.text("text").strip():
            author = note.text("authorString") or name_behind(place, note.part("authorReference"))
            yield compact(text=note.text("text"), author=author, at=note.text("time"))
    for old in ("comment", "comments"):  # DSTU2 and STU3
        if isinstance(part.data.get(old), str) and part.text(old).strip():
            yield {"text": part.text(old)}


def _performers(place: Place) -> Iterator[dict[str, Any]]:
    for name in ("performer", "resultsInterpreter"):
        for each in place.part.parts(name):
            reference = each.part("actor") if "actor" in each.data else each  # STU3
            found = place.resolve(reference)
            address = parse_address(reference.text("reference").strip())
            kind = (found.entry.kind if found else "") or reference.text("type") or (address[2] if address else "")
            parts = [*reference.parts("identifier"), *(found.part.parts("identifier") if found else ())]
            yield compact(
                name=name_behind(place, reference).strip(),
                kind=kind,
                role="" if name == "performer" else name,
                reference=reference.text("reference"),
                identifiers=identifiers_of(Element({"identifier": [each.data for each in parts]}, "", [])),
            )


def name_behind(place: Place, reference: Element) -> str:
    """Return the name of the person or organisation of a Reference; a PractitionerRole leads to its Practitioner."""
    if not reference or reference.text("display").strip():
        return reference.text("display")
    found = place.resolve(reference)
    if found is not None and found.entry.kind == "PractitionerRole":
        role = found.part.part("practitioner")
        if role.text("display").strip():
            return role.text("display")
        found = found.resolve(role)
    return (person_name(found.part) if found else "") or label(reference)


def _read_specimen(place: Place) -> dict[str, Any] | str | None:
    """Return the specimen; of several the first, or the names of all if they are of different kinds: which one a result
    is of is not said."""
    found = [*_specimens(place)]
    if len({*map(specimen_kind, found)} - {""}) > 1:
        return ", ".join(dict.fromkeys(map(concept_text, found)))
    return found[0] if found else None


def _specimens(place: Place) -> Iterator[dict[str, Any] | str]:
    """Yield each specimen: its type, when and where it was taken, its numbers."""
    for reference in place.part.parts("specimen"):
        found = place.resolve(reference)
        if found and found.part.text("status") == WITHDRAWN:
            continue
        if found is None or found.entry.kind != "Specimen":
            parts: dict[str, Any] = {"identifiers": identifiers_of(reference)}
        else:
            collection = found.part.part("collection")
            period = collection.part("collectedPeriod")
            parts = {
                "text": found.part.part("type").text("text"),
                "codings": found.part.part("type").codings(),
                "collected_at": collection.text("collectedDateTime") or period.text("start") or period.text("end"),
                "body_site": concept(collection.part("bodySite")),
                "identifiers": identifiers_of(found.part),
                "notes": [*_notes(found), *_flaws(found.part)],
            }
        made = compact(**parts)
        if not made.get("codings"):
            made |= compact(text=made.get("text") or reference.text("display").strip())
        if made:
            yield made["text"] if [*made] == ["text"] else made


def _flaws(specimen: Element) -> Iterator[dict[str, Any]]:
    """Yield notes of what a result of a specimen may suffer from: its condition, and a status that is not available."""
    if (status := specimen.text("status")) not in ("", "available"):
        yield {"text": f"status: {status}"}
    yield from ({"text": f"condition: {concept_text(each)}"} for each in concepts(specimen, "condition"))


def _read_device(place: Place) -> dict[str, Any] | str | None:
    """Return what measured: its type or name, and its numbers. A serial alone is the record's machine."""
    reference = place.part.part("device")
    found = place.resolve(reference) if reference else None
    if found and found.part.text("status") == WITHDRAWN:
        return None
    if found is None or found.entry.kind not in ("Device", "DeviceMetric"):
        made = compact(text=reference.text("display").strip(), identifiers=identifiers_of(reference))
    else:
        names = [each.text("name") for each in found.part.parts("deviceName")]
        kind = found.part.part("type")
        model = " ".join(filter(None, (found.part.text(name) for name in ("manufacturer", "modelNumber"))))
        text = next(filter(None, [reference.text("display"), *names, kind.text("text"), model]), "")
        made = compact(text=text, codings=kind.codings(), identifiers=identifiers_of(found.part))
    if made.keys() == {"identifiers"} and not any("system" in each for each in made["identifiers"]):
        return None  # it is the serial
    return made["text"] if made.keys() == {"text"} else made or None


# The facts beside status and moments: their names, the elements that they come from, and how they are read.
FACTS: tuple[tuple[str, frozenset[str], Callable[[Place], Any]], ...] = (
    ("category", frozenset({"category"}), lambda place: concepts(place.part, "category")),
    ("specimen", frozenset({"specimen"}), _read_specimen),
    ("method", frozenset({"method"}), lambda place: concept(place.part.part("method"))),
    ("body_site", frozenset({"bodySite"}), lambda place: concept(place.part.part("bodySite"))),
    ("device", frozenset({"device"}), _read_device),
    ("performers", frozenset({"performer", "resultsInterpreter"}), lambda place: [*_performers(place)]),
    ("interpretations", frozenset({"interpretation"}), lambda place: interpretations_of(place.part)),
    ("notes", frozenset({"note", "extension", "comment", "comments"}), lambda place: [*_notes(place)]),
    ("identifiers", frozenset({"identifier"}), lambda place: identifiers_of(place.part)),
)
