"""Make one record of a group of HL7 v2 segments: patient, machine, number, moments, results and details.

Source: HL7 v2.8, chapter 2 (NTE), 3 (PID), 4 (OBR) and 7 (OBX, SPM), and the tables named below.
"""

import re
from collections import Counter
from datetime import tzinfo
from functools import partial

from myhealth.clinical.catalog import name_of
from myhealth.clinical.coding_systems import HL7_TABLE
from myhealth.clinical.status import WITHDRAWN, report_status, result_status
from myhealth.common.text import printable
from myhealth.intake.formats.hl7v2.coded import (
    Facts,
    coded_text,
    codings_of,
    field_concepts,
    field_identifiers,
    label_of,
    parse_code,
    person_of,
    practitioner_of,
    without_empty,
)
from myhealth.intake.formats.hl7v2.grouping import OrderGroup, text_of
from myhealth.intake.formats.hl7v2.moments import iso_moment, moment_of, named_offset, offset_of, zone_of
from myhealth.intake.formats.hl7v2.result import ObxResult, results_of
from myhealth.intake.formats.hl7v2.segments import Segment
from myhealth.intake.formats.hl7v2.subject import parse_notes, parse_patient, specimen_of
from myhealth.intake.formats.terminology import PartialDateTime, usable_serial
from myhealth.intake.parsed_record import ParsedRecord
from myhealth.intake.record_types import LIST_MAX

# The fields of a message, each with ours that come from it alone; a number is that of a field of an OBX segment.
_PLACES = """
MSH-3 machine
PID-5 patient.name
PID-7 patient.birth_date
PID-8 patient.sex
OBR-3 record_id
OBR-4 checkup_type details.codings
OBR-7 taken_at
OBR-8 taken_until
OBR-13 details.clinical_information
OBR-16 taken_by
OBR-22 issued_at
OBR-24 details.category
OBR-31 details.reasons
OBX-11 status results
NTE-3 details.notes
SPM-4 details.specimen
3 results.code results.name results.other_code results.code_system results.codings
4 results.sub_id
6 results.unit results.unit_text
7 results.low results.high results.range_text results.ranges
8 results.flag results.interpretations
11 results.status results.absent_reason results.absent_code
14 results.taken_at results.taken_precision
16 results.performers
17 results.method
18 results.device
20 results.body_site
"""
PLACES = {name: place for place, *names in map(str.split, _PLACES.strip().split("\n")) for name in names}
FIELD = re.compile(r"results\[([0-9]+)\](?:\.([a-z_]+))?.*|(details\.[a-z_]+|patient\.[a-z_]+|[a-z_]+).*")


def read_order_group(group: OrderGroup, zone: tzinfo, skipped: Counter[str]) -> ParsedRecord | None:
    """Return the record of a group, None if nothing in it is a result. Its text is the message without the other
    groups. A moment without a zone is in the zone of MSH-7, or else in `zone`."""
    _report_unreadable(group)
    zone = zone_of(group.head[0], 7, zone)
    results = results_of(group, zone, skipped)
    if not results and group.all("OBX"):
        return None
    patient = parse_patient(group)
    fields = {"checkup_for": patient.number, "machine": sending_machine(group), "record_id": record_id_of(group)}
    record = without_empty(**fields, patient=patient.facts)
    report = "\n".join(filter(None, dict.fromkeys(each.free_text() for each in results)))
    record |= {"checkup_type": checkup_type_of(group), "disease": "", "checkup_report": report}
    record["taken_by"] = taken_by_of(group)
    moments = _add_moments(record, group, zone)
    _add_details(record, group, results, zone)
    _finish_results(record, group, results, moments, zone)
    line = next((segment.line for segment in group.body if segment.name == "OBR"), group.body[0].line)
    parsed = ParsedRecord(0, line, text_of(group), record, list(dict.fromkeys(group.faults)), full_name=patient.name)
    parsed.patient_field, parsed.warnings = patient.field, group.warnings
    places = tuple(each.place for each in results if each.is_short())
    parsed.locate = partial(locate_field, places, patient.field)
    return parsed


def _report_unreadable(group: OrderGroup) -> None:
    """Add the faults of the segments to those of the group."""
    for segment in group.head:
        if segment.fault:
            group.faults.append((segment.name, segment.fault))
    counts: Counter[str] = Counter()
    for segment in group.body:
        counts[segment.name] += 1
        if segment.fault:
            name = f"{segment.name}[{counts[segment.name]}]" if segment.name else ""
            group.faults.append((name, segment.fault))


def taken_by_of(group: OrderGroup) -> str | None:
    """Return the name of the ordering provider (OBR-16), else of the interpreter (OBR-32); the number if unnamed."""
    for segment, place in ((each, place) for each in group.all("OBR") for place in (16, 32)):
        people = [person_of(each, segment.encoding, 1) for each in segment.repetitions(place)]
        if found := next(filter(None, (*(name for name, _ in people), *(number for _, number in people))), ""):
            return found
    return None


def sending_machine(group: OrderGroup) -> str:
    """Return the instrument (OBX-18) if all results have the same, else the sending application (MSH-3, MSH-4).

    Return "" if that cannot be a serial.
    """
    serials = list(dict.fromkeys(filter(None, (segment.text(18) for segment in group.all("OBX")))))
    if len(serials) == 1:
        return usable_serial(serials[0])
    application, facility = group.head[0].text(3), group.head[0].text(4)
    return usable_serial(f"{application}@{facility}" if facility else application) if application else ""


def record_id_of(group: OrderGroup) -> str:
    """Return the record's number.

    Worked example: 1045813^GHH LAB, for the second OBR of the same number 1045813^GHH LAB#2, else CNTRL-3456-2.
    """
    order, control = group.order(), group.head[0].text(10)
    if order:
        return f"{order}#{group.number}" if group.repeated else order
    return f"{control}-{group.number}" if control else ""


def checkup_type_of(group: OrderGroup) -> str:
    """Return the name of the order (OBR-4), else of the first result. Add a fault if neither has a name."""
    places = [*((each, 4) for each in group.all("OBR")), *((each, 3) for each in group.all("OBX"))]
    for segment, place in places:
        text = segment.first(place)
        code = parse_code(text, segment.encoding)["code"]
        if found := coded_text(text, segment.encoding) or name_of(code) or label_of(text, segment.encoding):
            return found
    group.faults.append(("OBR-4", "is empty: what was examined?"))
    return ""


def _add_moments(record: Facts, group: OrderGroup, zone: tzinfo) -> dict[int, PartialDateTime]:
    """Add when the check-up was taken: the moment of the first result (OBX-14), else of the order (OBR-7), else of the
    specimen (SPM-17), else it is unknown, for MSH-7 is only when the message was sent. Return the moments of the
    results, by the id of their segments. Add a fault if the check-up's moment is not valid.
    """
    results = [(at, each) for at, each in enumerate(group.all("OBX"), 1) if each.field(14)]
    moments: dict[int, PartialDateTime] = {}
    first: tuple[Segment, int, PartialDateTime] | None = None
    standing = next((each for each in group.all("OBX") if result_status(each.text(11)) != WITHDRAWN), None)
    for at, segment in results:
        found = _moment_in_field(group, segment, 14, zone, f"OBX[{at}]-14", is_fault=segment is standing)
        if found:
            moments[id(segment)] = found
            first = (segment, 14, found) if segment is standing else first
    others = [*((each, 7) for each in group.all("OBR")), *((each, 17) for each in group.all("SPM"))]
    for segment, field in others if first is None and not group.faults else ():
        found = _moment_in_field(group, segment, field, zone, f"{segment.name}-{field}", is_fault=segment.name == "OBR")
        first = (segment, field, found) if found else None
        if first or group.faults:
            break
    if first is None:
        record["taken_precision"] = "unknown"
        return moments
    segment, field, found = first
    record["taken_at"] = found.text
    if found.known:
        record["taken_precision"] = found.known
    elif named_offset(segment.text(field)) or named_offset(group.head[0].text(7)):
        record["taken_offset"] = offset_of(found)
    for order in group.all("OBR")[:1]:
        end = _moment_in_field(group, order, 8, zone, "OBR-8") if order.text(7) == segment.text(field) else None
        if end and not end.known and not found.known and end.is_after(found):
            record["taken_until"] = end.text
    return moments


def _moment_in_field(
    group: OrderGroup, segment: Segment, field: int, zone: tzinfo, place: str, *, is_fault: bool = False
) -> PartialDateTime | None:
    """Return the moment in a field; None if there is none. Add a fault or a warning if it is not valid, and a warning
    if the zone's clocks did not show it, or twice."""
    try:
        found = moment_of(segment, field, zone)
    except ValueError:
        message = f"is no date and time: '{printable(segment.text(field), 40)}'"
        (group.faults if is_fault else group.warnings).append((place, message))
        return None
    if found and found.doubt:
        group.warnings.append((place, found.doubt))
    return found


def _add_details(record: Facts, group: OrderGroup, results: list[ObxResult], zone: tzinfo) -> None:
    """Add the facts of the order: status, issued, and the details."""
    head = group.head[0]
    notes = parse_notes(group, zone)
    details: Facts = {}
    for order in group.all("OBR")[:1]:
        if codings := codings_of(order.first(4), order.encoding):
            details["codings"] = codings
        if len(order.fields) > 13:  # few have more
            details |= _order_facts(order, record["taken_by"])
        status = report_status(order.text(25))
        if status and status != "final":
            record["status"] = status
        issued = _moment_in_field(group, order, 22, zone, "OBR-22")
        if issued and not issued.known:
            record["issued_at"] = details["updated_at"] = issued.text
    details |= without_empty(
        notes=notes.get(0), identifiers=_order_numbers(group), specimen=specimen_of(group, zone, notes)
    )
    if "updated_at" not in details and (sent := _moment_in_field(group, head, 7, zone, "MSH-7")):
        details["updated_at"] = iso_moment(head.text(7), zone) if sent.known else sent.text
    if details:
        record["details"] = details
    for each in results:
        found = [note for segment in each.segments for note in notes.get(id(segment), ())]
        if found:
            each.result["notes"] = found[:LIST_MAX]


def _order_facts(order: Segment, taken_by: str | None) -> Facts:
    """Return why an order was given, by which section it is examined and by whom besides `taken_by`."""
    encoding = order.encoding
    people = [practitioner_of(each, encoding) for place in (32, 33, 34, 35) for each in order.repetitions(place)]
    section = order.text(24)
    coding = {"system": f"{HL7_TABLE}0074", "code": section}
    words = "; ".join(filter(None, (label_of(each, encoding) for each in order.repetitions(13))))
    return without_empty(
        performers=[each for each in people if each and each.get("name") != taken_by][:LIST_MAX],
        category=[{"codings": [coding]}] if 1 < len(section) < 20 else None,
        reasons=field_concepts(order, 31),
    ) | ({"clinical_information": words} if words else {})


def _order_numbers(group: OrderGroup) -> list[Facts]:
    """Return the numbers of the order: the placer's (OBR-2, else ORC-2) and the filler's (OBR-3, else ORC-3)."""
    found: list[Facts] = []
    for place, kind in ((2, "PLAC"), (3, "FILL")):
        segments = (*group.all("OBR"), *group.all("ORC"))
        found += next(filter(None, (field_identifiers(each, place, type=kind) for each in segments)), [])
    return found


def _finish_results(
    record: Facts, group: OrderGroup, results: list[ObxResult], moments: dict[int, PartialDateTime], zone: tzinfo
) -> None:
    """Add the results with what differs from their check-up: moment, status, device."""
    common = record.get("status", "final")
    for each in results:
        result, segment = each.finished(), each.segments[0]
        moment = moments.get(id(segment))
        if moment and (moment.text, moment.known) != (record.get("taken_at"), record.get("taken_precision", "")):
            result["taken_at"] = moment.text
            if moment.known:
                result["taken_precision"] = moment.known
        elif moment is None and segment.text(14).strip("0"):  # told with the moments
            result["taken_precision"] = "unknown"
        if result.get("status") == common:
            del result["status"]
        if "device" in result and segment.text(18) == record.get("machine"):
            del result["device"]
    record["results"] = [each.result for each in results if each.is_short()]


def locate_field(places: tuple[int, ...], patient: str, name: str) -> str:
    """Return the field of the message that a field of the record comes from; the same name if it is not one field.

    `places`: the numbers of the OBX segments of the results; `patient`: the field with the patient's number.
    Worked example: results[1].unit is OBX[3]-6 if places is (1, 3), checkup_for is PID-3.
    """
    match = FIELD.fullmatch(name)
    if match is None:
        return name
    if match[1] is None:
        return patient if match[3] in ("checkup_for", "patient.identifiers") else PLACES.get(match[3], name)
    index, part = int(match[1]), match[2] or ""
    segment = f"OBX[{places[index]}]" if index < len(places) else "OBX"
    number = "5" if part.startswith("value") else PLACES.get(f"results.{part}")
    return f"{segment}-{number}" if number else "NTE-3" if part == "notes" else segment
