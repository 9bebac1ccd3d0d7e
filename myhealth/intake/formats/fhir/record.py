"""Make one record of a group of FHIR resources: patient, performer, machine, number, moment, and the report in words.

Source: HL7 FHIR R4 (4.0.1), "Observation", "DiagnosticReport", "References", "Patient", "Practitioner", "Device",
"Data Types" (dateTime, instant, Identifier).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, timedelta, timezone, tzinfo
from typing import Any

from myhealth.clinical.report_status import already_stated, status_line
from myhealth.common.text import printable
from myhealth.intake.formats.fhir.bundle import ADDRESS, Entry
from myhealth.intake.formats.fhir.element import Element, by_use, person_name, words
from myhealth.intake.formats.fhir.grouping import FhirGroup, label
from myhealth.intake.formats.fhir.values import interpretation, lacks_own_value, name_of, results_of
from myhealth.intake.formats.terminology import PartialDateTime, lines, parse_partial, usable_serial
from myhealth.intake.parsed_record import ParsedRecord

ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S+")
TWO = "([0-9]{2})"
DATE_TIME = re.compile(
    rf"([0-9]{{4}})(?:-{TWO}(?:-{TWO}(?:T{TWO}:{TWO}(?::{TWO}(\.[0-9]+)?)?(Z|[+-][0-9]{{2}}:[0-5][0-9])?)?)?)?"
)
# Statuses that the report does not mention: final, and final again after a correction.
SETTLED = ("", "final", "amended", "corrected", "appended")
# A conditional reference of a transaction: Patient?identifier=http://example.org/mrn|123
CONDITION = re.compile(r"Patient\?(?:.*&)?identifier=(?:[^|&]*\|)?([^|&]+)(?:&.*)?")
SERIAL_TYPES = ("SNO", "SER")  # HL7 table 0203


def read_group(group: FhirGroup, zone: tzinfo, *, alone: bool) -> ParsedRecord:
    """Return the record of a group. Its text contains every entry that was examined.

    `alone`: the text is that of the head, which was not in a Bundle.
    """
    patients, full_name = patient_of(group)
    machine, machines = machine_of(group)
    moment = taken_at_of(group, zone)
    record: dict[str, Any] = {
        "checkup_for": patients[0] if patients else None,
        "machine": machine,
        "record_id": record_id_of(group),
        "taken_at": moment.text if moment else None,
        "checkup_type": name_of(group.top),
        "disease": _category(group),
        "checkup_report": report_of(group, moment, machines),
        "results": [result for _, part in group.observations for result in results_of(part)],
    }
    record = {name: value for name, value in record.items() if value is not None}
    record["taken_by"] = performer_of(group)
    raw = group.head.raw if alone else group.text()
    faults = list(dict.fromkeys(group.faults))
    return ParsedRecord(0, group.head.line, raw, record, faults, tuple(patients), full_name)


def _category(group: FhirGroup) -> str:
    """Return the category of the report or the Observation in words; "" if it has none, or only a code."""
    for category in group.top.parts("category"):
        for text in (category.text("text"), *(coding.text("display") for coding in category.parts("coding"))):
            if text.strip():
                return text
    return ""


def patient_of(group: FhirGroup) -> tuple[list[str], str]:
    """Return the names that may identify the patient, best first, and the full name.

    Add a fault if a result is about another patient than its report.
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
    """Return the head and then every Observation, each once."""
    yield group.head, group.top
    yield from ((entry, part) for entry, part in group.observations if entry is not group.head)


def _reference_name(subject: Element) -> str:
    """Return the patient's name in a Reference: the id after "Patient/", a searched identifier, or a whole URN."""
    text = subject.text("reference").strip()
    condition = CONDITION.fullmatch(text)
    if condition:
        return condition[1]
    address = ADDRESS.fullmatch(text)
    if address:
        return address[3] if address[2] == "Patient" else ""
    return text if text.startswith("urn:") else ""


def _identity(subject: Element, entry: Entry | None) -> tuple[str, str, str]:
    """Return (kind of reference, system, value) of a subject; only two of the same kind can be compared."""
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
    """Return whether both certainly identify different patients; a missing system matches any."""
    systems_differ = bool(one[1] and other[1] and one[1] != other[1])
    return one[0] == other[0] and bool(one[2] and other[2]) and (one[2] != other[2] or systems_differ)


def performer_of(group: FhirGroup) -> str | None:
    """Return the first performer that has a name or at least an address; None if there is none."""
    for entry, part in _parts(group):
        for performer in part.parts("performer") + part.parts("resultsInterpreter"):
            reference = performer.part("actor") if "actor" in performer.data else performer  # STU3
            name = _name_behind(group, reference, entry).strip()
            if name:
                return name
    return None


def _name_behind(group: FhirGroup, reference: Element, at: Entry) -> str:
    """Return the name of the person or organisation of a Reference; a PractitionerRole leads to its Practitioner."""
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
    """Return the machine's serial and []; or None and all serials, if the results are of several machines."""
    found = (_serial(group, part.part("device"), entry) for entry, part in _parts(group))
    serials = list(dict.fromkeys(filter(None, found)))
    if len(serials) > 1:
        return None, serials
    return (usable_serial(serials[0]) or None if serials else None), []


def _serial(group: FhirGroup, reference: Element, at: Entry) -> str:
    """Return a device's serial number, its first identifier, or the id in the Reference."""
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
    serials = [each.text("value") for each in marked] + [device.text("serialNumber")]
    serials += [each.text("value") for each in identifiers]
    return next((text.strip() for text in serials if text.strip()), "")


def record_id_of(group: FhirGroup) -> str | None:
    """Return the record's number: its own identifier, else its address; None if it has neither.

    An identifier may be that of an order, which several resources share (Observations f001 and unsat among HL7's own
    examples), so a resource's id is a part of the number. Worked example: {"system": "http://acme.com/lab/reports",
    "value": "5234342"} of the resource with the id 101 is "http://acme.com/lab/reports|5234342#101".
    """
    identity = group.top.text("id")
    for identifier in by_use(group.top.parts("identifier")):
        if identifier.text("value").strip():
            number = "|".join(filter(None, (identifier.text("system"), identifier.text("value"))))
            return f"{number}#{identity}" if identity else number
    if ABSOLUTE.fullmatch(group.head.full_url):
        return group.head.full_url
    return f"{group.head.kind}/{identity}" if identity else None


def taken_at_of(group: FhirGroup, zone: tzinfo) -> PartialDateTime | None:
    """Return the moment of the report, else of its results, else of the issue; None if there is none."""
    parts = [group.top, *(part for entry, part in group.observations if entry is not group.head)]
    for times in (_effective, _issued):
        for part in parts:
            for place, text in times(part):
                return _moment(part, place, text, zone)
    return None


def _effective(part: Element) -> Iterator[tuple[str, str]]:
    """Return (name, text) of the clinically relevant moments."""
    period = part.part("effectivePeriod")
    found = [(name, part.text(name)) for name in ("effectiveDateTime", "effectiveInstant")]
    found += [(f"effectivePeriod.{name}", period.text(name)) for name in ("start", "end")]
    found += [("effectiveTiming.event", text) for text in part.part("effectiveTiming").texts("event")]
    return ((name, text) for name, text in found if text.strip())


def _issued(part: Element) -> Iterator[tuple[str, str]]:
    return (("issued", text) for text in [part.text("issued")] if text.strip())


def _moment(part: Element, place: str, text: str, zone: tzinfo) -> PartialDateTime | None:
    """Parse a dateTime or an instant. Return None and add a fault if it is not valid."""
    match = DATE_TIME.fullmatch(text.strip())
    if match is not None:
        *digits, fraction, offset = match.groups()
        numbers = tuple(int(each) for each in digits if each)
        numbers += (0,) * (6 - len(numbers)) if len(numbers) > 3 else ()
        try:
            found = parse_partial(numbers, int(f"{fraction or '.'}000000"[1:7]), _zone(offset, zone))
        except ValueError:
            match = None
        else:
            as_sent = offset and digits[5] not in (None, "60")
            return PartialDateTime(text.strip()) if as_sent else found
    part.add_error(place, f"is no date and time: '{printable(text, 40)}'")
    return None


def _zone(offset: str | None, zone: tzinfo) -> tzinfo:
    """Return the zone of an offset, else `zone`. Raises ValueError if there is no such zone."""
    if not offset or offset == "Z":
        return UTC if offset else zone
    shift = timedelta(hours=int(offset[1:3]), minutes=int(offset[4:]))
    return timezone(-shift if offset[0] == "-" else shift)


def report_of(group: FhirGroup, taken_at: PartialDateTime | None, machines: list[str]) -> str:
    """Return the report for people, one statement a line: conclusions, status, notes, missing results, machines."""
    top = group.top
    conclusion = top.text("conclusion")
    concluded = [text for name in ("conclusionCode", "codedDiagnosis") for text in map(words, top.parts(name))]
    statements = [*concluded]
    statements += [
        f"Attached: {title}." for form in top.parts("presentedForm") if (title := form.text("title").strip())
    ]
    statements += _remarks(top, "")
    for entry, part in group.observations:
        if entry is not group.head:
            statements += _remarks(part, name_of(part))
    elsewhere = ", ".join(filter(None, group.elsewhere))
    statements.append(f"Results that did not come along: {elsewhere}." if elsewhere else "")
    statements.append(f"Machines: {', '.join(machines)}." if machines else "")
    statements.append(f"Only the {taken_at.known} is known." if taken_at and taken_at.known else "")
    stated = conclusion.splitlines()  # a conclusion that we exported contains some of the statements already
    return lines(*dict.fromkeys([conclusion, *(each for each in statements if not already_stated(each, stated))]))


def _remarks(part: Element, name: str) -> Iterator[str]:
    """Return status, notes, body site, and an interpretation of no single value. `name`: of one result of several."""
    status = part.text("status")
    if status not in SETTLED:
        yield status_line(status, name)
    notes = [note.text("text") for note in part.parts("note")]
    notes += [part.text(old) for old in ("comment", "comments") if isinstance(part.data.get(old), str)]
    yield from (f"{name}: {note}" if name else note for note in notes if note.strip())
    site = words(part.part("bodySite"))
    if site:
        yield f"Body site of {name}: {site}." if name else f"Body site: {site}."
    judgement = interpretation(part)[1] if lacks_own_value(part) else ""
    if judgement:
        yield f"Interpretation of {name}: {judgement}." if name else f"Interpretation: {judgement}."
