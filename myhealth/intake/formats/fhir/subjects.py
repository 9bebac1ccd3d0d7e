"""Who and what a record is about: the patient, whoever took it, and the machine, through references that resolve.

Source: HL7 FHIR R4 (4.0.1), "References", "Patient", "Practitioner", "Device".
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from myhealth.intake.formats.fhir.bundle import ADDRESS, Entry
from myhealth.intake.formats.fhir.element import Element, by_use, person_name
from myhealth.intake.formats.fhir.grouping import FhirGroup, label
from myhealth.intake.formats.terminology import usable_serial

# A conditional reference of a transaction: Patient?identifier=http://example.org/mrn|123
CONDITION = re.compile(r"Patient\?(?:.*&)?identifier=(?:[^|&]*\|)?([^|&]+)(?:&.*)?")
SERIAL_TYPES = ("SNO", "SER")  # HL7 table 0203


def patient_of(group: FhirGroup) -> tuple[list[str], str]:
    """The names that the patient may be known by, best first, and the full name.

    A result about somebody else than the report it stands in is a fault: nobody may get another one's values.
    """
    subjects = [(entry, part.part("subject")) for entry, part in _parts(group) if part.part("subject")]
    if not subjects:
        return [], ""
    found = [group.resolve(part, at) for at, part in subjects]
    identities = [_identity(part, entry) for (_, part), entry in zip(subjects, found, strict=True)]
    for identity, (_, part) in zip(identities[1:], subjects[1:], strict=True):
        if _differ(identities[0], identity):
            part.add_error("", "is another one than the record's")
    (_, subject), entry = subjects[0], found[0]
    names, full_name = [], ""
    if entry is not None and entry.kind == "Patient":
        patient = Element(entry.resource, "Patient", group.faults)
        names, full_name = [each.text("value") for each in by_use(patient.parts("identifier"))], person_name(patient)
        names.append(entry.id)
    names += [subject.part("identifier").text("value"), _reference_name(subject)]
    names = list(dict.fromkeys(name.strip() for name in names if name.strip()))
    return names, full_name or subject.text("display")


def _parts(group: FhirGroup) -> Iterator[tuple[Entry, Element]]:
    """The head and then every Observation, each once."""
    yield group.head, group.top
    yield from ((entry, part) for entry, part in group.observations if entry is not group.head)


def _reference_name(subject: Element) -> str:
    """What a Reference calls the patient: the id behind "Patient/", a searched identifier, or the whole of a URN."""
    text = subject.text("reference").strip()
    condition = CONDITION.fullmatch(text)
    if condition:
        return condition[1]
    address = ADDRESS.fullmatch(text)
    if address:
        return address[3] if address[2] == "Patient" else ""
    return text if text.startswith("urn:") else ""


def _identity(subject: Element, entry: Entry | None) -> tuple[str, str, str]:
    """(how it is told, by whom, what): only what is told in the same way can be compared."""
    if entry is not None:
        return "here", "", str(id(entry))
    text = subject.text("reference").strip()
    address = ADDRESS.fullmatch(text)
    if address:
        return "address", address[1] or "", f"{address[2]}/{address[3]}"
    if text:
        return "reference", "", text
    identifier = subject.part("identifier")
    return "identifier", identifier.text("system"), identifier.text("value")


def _differ(one: tuple[str, str, str], other: tuple[str, str, str]) -> bool:
    """Whether they are certainly two; where one does not say by whom it is told, the other's word is taken."""
    by_whom = one[1] and other[1] and one[1] != other[1]
    return one[0] == other[0] and bool(one[2] and other[2]) and (one[2] != other[2] or bool(by_whom))


def performer_of(group: FhirGroup) -> str | None:
    """Who took it: the first performer that has a name or at least an address; None where nobody is named."""
    for entry, part in _parts(group):
        for performer in part.parts("performer") + part.parts("resultsInterpreter"):
            reference = performer.part("actor") if "actor" in performer.data else performer  # STU3
            name = _name_behind(group, reference, entry).strip()
            if name:
                return name
    return None


def _name_behind(group: FhirGroup, reference: Element, at: Entry) -> str:
    """What people call whoever a Reference names; a PractitionerRole is followed to its Practitioner."""
    if reference.text("display").strip():
        return reference.text("display")
    found = group.resolve(reference, at)
    if found is not None and found.kind == "PractitionerRole":
        role = Element(found.resource, found.kind, group.faults).part("practitioner")
        if role.text("display").strip():
            return role.text("display")
        found = group.resolve(role, found)
    if found is not None:
        name = person_name(Element(found.resource, found.kind, group.faults))
        if name:
            return name
    return label(reference)


def machine_of(group: FhirGroup) -> tuple[str | None, list[str]]:
    """The serial of the machine, and the serials of all machines where there are several: then it is of none."""
    found = (_serial(group, part.part("device"), entry) for entry, part in _parts(group))
    serials = list(dict.fromkeys(filter(None, found)))
    if len(serials) > 1:
        return None, serials
    return (usable_serial(serials[0]) or None if serials else None), []


def _serial(group: FhirGroup, reference: Element, at: Entry) -> str:
    """A device's serial number, its first identifier, or the id that it is referred to by."""
    device = group.resolve(reference, at)
    if device is not None and device.kind == "DeviceMetric":
        metric = Element(device.resource, device.kind, group.faults)
        if metric.part("source"):
            reference, at = metric.part("source"), device
            device = group.resolve(reference, at)
    if device is not None and device.kind in ("Device", "DeviceMetric"):
        serial = _own_serial(Element(device.resource, device.kind, group.faults))
        if serial:
            return serial
    text = reference.text("reference").strip()
    address = ADDRESS.fullmatch(text)
    named = reference.part("identifier").text("value").strip()
    return named or (address[3] if address else "" if text.startswith("#") else text)


def _own_serial(device: Element) -> str:
    identifiers = by_use(device.parts("identifier"))
    marked = [
        each
        for each in identifiers
        if any(coding.text("code") in SERIAL_TYPES for coding in each.part("type").parts("coding"))
    ]
    told = [each.text("value") for each in marked] + [device.text("serialNumber")]
    told += [each.text("value") for each in identifiers]
    return next((text.strip() for text in told if text.strip()), "")
