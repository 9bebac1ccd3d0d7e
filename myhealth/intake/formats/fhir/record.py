"""Make one record of a group of FHIR resources.

Source: HL7 FHIR R4 (4.0.1), "Observation", "DiagnosticReport", "References", "Device", "Data Types" (Identifier).
"""

import re
from collections.abc import Sequence
from datetime import tzinfo
from functools import partial
from typing import Any

from myhealth.clinical.coding_systems import OUR_DISEASE
from myhealth.clinical.status import WITHDRAWN
from myhealth.common.text import printable
from myhealth.intake.formats.fhir.bundle import MEMBERS, Entry, small_bundle
from myhealth.intake.formats.fhir.element import Element, by_use, codings_of, compact, concepts, parse_address
from myhealth.intake.formats.fhir.facts import INHERITED_STATUS, Place, facts_of, read_version_id
from myhealth.intake.formats.fhir.grouping import FhirGroup
from myhealth.intake.formats.fhir.leftovers import sent_of
from myhealth.intake.formats.fhir.moments import Moments, is_moment
from myhealth.intake.formats.fhir.panels import PanelCollector
from myhealth.intake.formats.fhir.patients import subject_of
from myhealth.intake.formats.fhir.ranges import DOUBT
from myhealth.intake.formats.fhir.values import lacks_own_value, tested
from myhealth.intake.formats.marked_numbers import read_marked_numbers
from myhealth.intake.formats.terminology import usable_serial
from myhealth.intake.parsed_record import CONTAINED, FILE_NOT_KEPT, MISSING, ParsedRecord

# The address of a resource on a server. An identifier may be of resources of several, a URN of one Bundle alone.
LASTING = re.compile(r"https?://(?!.*[|#])|[A-Z][A-Za-z]+/")
ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S+")
SERIAL_TYPES = ("SNO", "SER")  # HL7 table 0203
# What a check-up has for all its results, in `details`; a result repeats it only where it differs.
SHARED_DETAILS = ("performers", "category", "specimen", "device")
SHARED = (*SHARED_DETAILS, "updated_at", "taken_at", "taken_precision", "taken_until", "issued_at")
# Our fields with the elements of a resource that they come from alone.
_OF_CHECKUP = """
checkup_for subject, patient.identifiers subject, record_id identifier, checkup_type code, taken_at effective,
taken_until effective, taken_precision effective, issued_at issued, status status, order_status status,
checkup_report conclusion
"""
_OF_RESULT = """
name code, code code, codings code, other_code code, code_system code, unit value[x].unit, unit_text value[x].unit,
low referenceRange, high referenceRange, range_text referenceRange, ranges referenceRange, flag interpretation,
interpretations interpretation, status status, taken_at effective, taken_until effective, issued_at issued,
sub_id identifier, identifiers identifier, specimen specimen, method method, body_site bodySite, device device,
performers performer, category category, notes note, absent_reason dataAbsentReason, absent_code dataAbsentReason
"""
OF_CHECKUP, OF_RESULT = (
    dict(each.split() for each in table.replace("\n", " ").split(",")) for table in (_OF_CHECKUP, _OF_RESULT)
)
OF_PATIENT = {"patient.name": "name", "patient.birth_date": "birthDate", "patient.sex": "gender"}
RESULT = re.compile(r"results\[([0-9]+)\](?:\.([a-z_]+))?.*")


def read_deleted(entry: Entry) -> ParsedRecord:
    """Return the record of a resource that a transaction only reports as deleted."""
    is_named = ABSOLUTE.fullmatch(entry.full_url) or not entry.id  # a condition has no id
    url = entry.full_url if is_named else f"{entry.kind}/{entry.id}"
    answer = Element(entry.response or {}, "", [])
    details = compact(version=read_version_id(answer.text("etag")), updated_at=answer.text("lastModified"))
    record = {"record_id": url, "status": WITHDRAWN} | ({"details": details} if details else {})
    return ParsedRecord(0, entry.line, small_bundle([entry]), record, entries={entry.number: ""})


def read_group(group: FhirGroup, zone: tzinfo, *, alone: str) -> ParsedRecord:
    """Return the record of a group. Its text contains every entry that was examined.

    `alone`: the text of the head if it was not in a Bundle; it is the record's if no other entry was examined.
    """
    moments, subject = Moments(zone), subject_of(group)
    machine, serials = machine_of(group)
    shared = _shared_facts(group, moments)
    of_specimen = {} if "taken_at" in shared else _times_of_specimen(group, shared, moments)
    shared |= of_specimen
    record: dict[str, Any] = {
        "checkup_for": subject.names[0] if subject.names else None,
        "machine": machine,
        "record_id": record_id(group.head, group.top),
        "checkup_type": tested(group.top)["name"],
        **_conclusions(group.top),
        **_checkup_facts(shared),
        "patient": subject.facts or None,
    }
    collected = _collect(group, moments, shared, serials)
    details = _details(group, shared) | compact(panels=collected.panels)
    sent, too_long = sent_of(group)
    record |= {"results": collected.results, "details": details or None, "sent": sent or None}
    record = {name: value for name, value in record.items() if value is not None}
    record["taken_by"] = _taken_by(shared, collected.results)
    raw = alone if alone and len(group.entries) == 1 else group.text()
    faults = list(dict.fromkeys(group.faults))
    found = ParsedRecord(0, group.head.line, raw, record, faults, full_name=subject.facts.get("name", ""))
    read_marked_numbers(found)
    found.former = dict.fromkeys(of_specimen) | {"taken_precision": "unknown"} if of_specimen else {}
    found.patient_field, found.patient_reference = f"{group.head.kind}.subject", subject.reference
    found.patient_doubt, found.warnings = subject.doubt, [*subject.warnings, *_subset_warnings(group)]
    unclear = (result.pop(DOUBT) for result in collected.results if DOUBT in result)
    found.warnings += (*_replaced_warnings(group), *unclear, *_absent_warnings(collected.parts))
    found.warnings += (*_file_warnings(group), *too_long, *dict.fromkeys(moments.doubts))
    found.unnumbered = not LASTING.match(record.get("record_id", ""))
    paths = [each.path for each in collected.parts]
    found.locate, found.elsewhere = partial(locate_element, group.head.kind, paths), group.addresses
    if not alone:
        found.entries = dict.fromkeys((entry.number for entry in (group.head.outermost, *group.entries)), "")
        results = (each for each in group.observations if each[0].container is None and each[0] is not group.head)
        found.entries |= {entry.number: record_id(entry, part) or "" for entry, part in results}
    return found


def _subset_warnings(group: FhirGroup) -> list[tuple[str, str]]:
    """Return a warning where the server says that it left out parts of a resource."""
    parts = [(group.head, group.top), *group.observations]
    tags = [(entry.kind, tag) for entry, part in parts for tag in part.part("meta").parts("tag")]
    kinds = dict.fromkeys(kind for kind, tag in tags if tag.text("code") == "SUBSETTED")
    return [(f"{kind}.meta.tag", "its server left parts of it out (SUBSETTED)") for kind in kinds]


def _replaced_warnings(group: FhirGroup) -> list[tuple[str, str]]:
    """Return a warning for each resource that another one replaces (observation-replaces and the like)."""
    parts = [(group.head, group.top), *(each for each in group.observations if each[0] is not group.head)]
    found = ((entry.kind, each) for entry, part in parts for each in part.parts("extension"))
    named = [(kind, each.part("valueReference")) for kind, each in found if each.text("url").endswith("-replaces")]
    said = "replaces {}, which is shown until its source withdraws it"
    return [(f"{kind}.extension", said.format(printable(each.text("reference"), 100))) for kind, each in named]


def _absent_warnings(parts: list[Element]) -> list[tuple[str, str]]:
    """Return a warning for each result that has both a value and a reason why it has none (FHIR's obs-6)."""
    absent = [part.data for part in parts if "dataAbsentReason" in part.data]
    both = [data for data in absent if any(data[name] is not None for name in data if name.startswith("value"))]
    return [("Observation.dataAbsentReason", "there is a value too, which is shown")] * len(both)


def _file_warnings(group: FhirGroup) -> list[tuple[str, str]]:
    """Return a warning for each attached file."""
    files = enumerate(group.top.parts("presentedForm"))
    return [
        (f"{group.head.kind}.presentedForm[{at}].data", FILE_NOT_KEPT) for at, each in files if each.data.get("data")
    ]


def _shared_facts(group: FhirGroup, moments: Moments) -> dict[str, Any]:
    """Return the facts of the head, which are those of the check-up; its moment may be that of a result."""
    found = facts_of(Place(group, group.head, group.top), moments)
    for _, part in group.observations if "taken_at" not in found else ():
        times = {name: value for name, value in moments.of(part).items() if name.startswith("taken")}
        if times:
            return found | times
    return found


def _times_of_specimen(group: FhirGroup, shared: dict[str, Any], moments: Moments) -> dict[str, Any]:
    """Return when the specimen of a check-up without a moment was taken, as HL7 v2 has it too (SPM-17)."""
    parts = (facts_of(Place(group, *each), moments) for each in group.observations if "specimen" in each[1].data)
    for specimen in (each.get("specimen") for each in (shared, *parts)):
        collected = specimen.get("collected_at", "") if isinstance(specimen, dict) else ""
        if is_moment(collected):
            return moments.of(Element({"effectiveDateTime": collected}, "Specimen.collection", group.faults))
    return {}


def _checkup_facts(shared: dict[str, Any]) -> dict[str, Any]:
    names = ("taken_at", "taken_precision", "taken_offset", "taken_until", "issued_at", "status")
    found: dict[str, Any] = {name: shared.get(name) for name in names}
    if found["status"] == "final":
        found["status"] = None
    return found if found["taken_at"] else found | {"taken_precision": "unknown"}


def _conclusions(top: Element) -> dict[str, Any]:
    """Return the conclusion as `checkup_report`, and the `disease` that MyHealth's own export coded in it."""
    codes = [coding for each in top.parts("conclusionCode") for coding in each.parts("coding")]
    disease = next((each.text("display") for each in codes if each.text("system") == OUR_DISEASE), "")
    return {"disease": disease, "checkup_report": top.text("conclusion")}


def _details(group: FhirGroup, shared: dict[str, Any]) -> dict[str, Any]:
    top = group.top
    found = {name: shared[name] for name in (*SHARED_DETAILS, "identifiers", "updated_at", "version") if name in shared}
    if [set(each) for each in found.get("performers", ())] == [{"name"}]:
        del found["performers"]  # `taken_by` says it
    if group.head.kind == "DiagnosticReport":
        found |= compact(notes=shared.get("notes"), codings=codings_of(top, "code"))
    elif lacks_own_value(top):
        found |= compact(codings=codings_of(top, "code"))
    found |= _order(group)
    concluded = [*concepts(top, "conclusionCode"), *concepts(top, "codedDiagnosis")]
    concluded = [each for each in concluded if OUR_DISEASE not in str(each)]
    return found | compact(conclusion_codes=concluded)


def _order(group: FhirGroup) -> dict[str, Any]:
    """Return the reason of the order, and the information for the laboratory, if the order is here."""
    if not (references := group.top.parts("basedOn")):
        return {}
    place = Place(group, group.head, group.top)
    orders = [found.part for each in references if (found := place.resolve(each))]
    orders = [each for each in orders if each.path == "ServiceRequest"]
    said = [note.text("text") for each in orders for note in each.parts("note") if note.text("text").strip()]
    reasons = [reason for each in orders for reason in concepts(each, "reasonCode")]
    return compact(reasons=reasons, clinical_information="\n".join(said))


def _collect(group: FhirGroup, moments: Moments, shared: dict[str, Any], serials: list[str]) -> PanelCollector:
    """Return the results and panels of all Observations of the group."""
    status = shared.get("status")
    inherited = {name: shared[name] for name in SHARED if name in shared}
    inherited |= compact(status=INHERITED_STATUS.get(status or "", status))
    collected = PanelCollector(inherited)
    for entry, part in group.observations:
        facts = dict(shared) if entry is group.head else facts_of(Place(group, entry, part), moments)
        facts.pop("taken_offset", None)
        if entry is group.head:
            facts = {name: value for name, value in facts.items() if name not in ("identifiers", "version")}
        elif number := record_id(entry, part):
            facts["sub_id"] = number
        if serials and (serial := serial_of(group, part.part("device"), entry)):
            facts.setdefault("device", serial)
        collected.add(part, facts, group.parents.get(id(entry)), id(entry))
    return collected


def _taken_by(shared: dict[str, Any], results: list[dict[str, Any]]) -> str | None:
    """Return the first performer that has a name or at least an address; None if there is none."""
    every = [shared, *results]
    return next((each["name"] for facts in every for each in facts.get("performers", ()) if "name" in each), None)


def machine_of(group: FhirGroup) -> tuple[str | None, list[str]]:
    """Return the machine's serial and []; or None and all serials, if the results are of several machines."""
    parts = [(group.head, group.top), *group.observations]
    found = (serial_of(group, part.part("device"), entry) for entry, part in parts)
    serials = list(dict.fromkeys(filter(None, found)))
    if len(serials) > 1:
        return None, serials
    return (usable_serial(serials[0]) or None if serials else None), []


def serial_of(group: FhirGroup, reference: Element, at: Entry) -> str:
    """Return a device's serial number, its first identifier, or the id in the Reference."""
    if not reference.data:
        return ""
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
    address = parse_address(text)
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


def record_id(entry: Entry, part: Element) -> str | None:
    """Return a resource's number: its own identifier, else its address; None if it has neither.

    An identifier may be that of an order, which several resources share (Observations f001 and unsat among HL7's own
    examples), so a resource's id is a part of the number. Worked example: {"system": "http://acme.com/lab/reports",
    "value": "5234342"} of the resource with the id 101 is "http://acme.com/lab/reports|5234342#101".

    The id of a contained resource means nothing outside: DiagnosticReport/r1/contained/1 is not Observation/1.
    """
    identity = part.text("id")
    if entry.container is not None:
        whole = record_id(entry.container, Element(entry.container.resource, "", []))
        return f"{whole}{CONTAINED}{identity}" if whole else None
    for identifier in by_use(part.parts("identifier")):
        if identifier.text("value").strip():
            number = "|".join(filter(None, (identifier.text("system"), identifier.text("value"))))
            return f"{number}#{identity}" if identity else number
    if ABSOLUTE.fullmatch(entry.full_url):
        return entry.full_url
    return f"{entry.kind}/{identity}" if identity else None


def locate_element(kind: str, paths: Sequence[str], name: str) -> str:
    """Return the element of a resource of this kind that a field of the record comes from; else the field's name.

    `paths`: those of the results. Worked example: results[1].unit is Observation.component[0].value[x].unit if the
    second path is Observation.component[0].
    """
    if name == MISSING:
        return f"{kind}.{MEMBERS[kind]}"
    if name in OF_PATIENT:
        return f"Patient.{OF_PATIENT[name]}"
    if element := OF_CHECKUP.get(name):
        return f"{kind}.{element}"
    match = RESULT.fullmatch(name)
    if match is None or int(match[1]) >= len(paths):
        return kind if name in ("details", "results") else name
    field = match[2] or ""
    element = "value[x]" if field.startswith("value") else OF_RESULT.get(field, "")
    return ".".join(filter(None, (paths[int(match[1])], element)))
