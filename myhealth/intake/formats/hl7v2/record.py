"""Make one record of a group of HL7 v2 segments: patient, machine, number, moments, results and details.

Source: HL7 v2.8, chapter 2 (NTE), 3 (PID), 4 (OBR) and 7 (OBX, SPM), and the tables named below.
"""

import re
from collections import Counter
from datetime import tzinfo
from functools import partial

from myhealth.clinical.status import WITHDRAWN
from myhealth.common.text import printable
from myhealth.intake.formats.hl7v2.coded import Facts, field_identifiers, label_of, name_of_coded, without_empty
from myhealth.intake.formats.hl7v2.encoding import WESTERN, is_misnamed
from myhealth.intake.formats.hl7v2.grouping import OrderGroup, order_number, text_of
from myhealth.intake.formats.hl7v2.moments import iso_moment, moment_of, named_offset, zone_of
from myhealth.intake.formats.hl7v2.order import facts_of_obr
from myhealth.intake.formats.hl7v2.result import ObxResult, facts_of_obx, results_of
from myhealth.intake.formats.hl7v2.segments import Segment
from myhealth.intake.formats.hl7v2.subject import parse_notes, parse_patient, specimen_of
from myhealth.intake.formats.marked_numbers import read_marked_numbers
from myhealth.intake.formats.terminology import PartialDateTime, offset_of, usable_serial
from myhealth.intake.parsed_record import ParsedRecord
from myhealth.intake.record_types import LIST_MAX, TEXT_MAX

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
OBR-25 order_status
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
    record |= {"checkup_type": checkup_type_of(group), "disease": ""}
    record["checkup_report"] = "\n".join(filter(None, dict.fromkeys([each.free_text() for each in results])))
    record["taken_by"] = facts_of_obr(group.obr).taken_by if group.obr else None
    moments = _add_moments(record, group, zone)
    _add_details(record, group, results, zone)
    places = _finish_results(record, results, moments)
    line = (group.obr or group.body[0]).line
    parsed = ParsedRecord(0, line, text_of(group), record, list(dict.fromkeys(group.faults)), full_name=patient.name)
    parsed.patient_field, parsed.warnings = patient.field, group.warnings
    parsed.unnumbered = not group.order
    if group.all("ORC") and not parsed.unnumbered and not order_number(group.all("OBR")):
        parsed.former_id = _number_of_message(group)
    parsed.locate = partial(locate_field, places, patient.field)
    read_marked_numbers(parsed)
    if parent := _parent_result(group):  # earlier releases did not read it
        notes = [each for each in record["details"]["notes"] if each not in parent]
        parsed.former = {"details": record["details"] | {"notes": notes or None}}
    return parsed


CONTINUED = ("ADD", "DSC")  # the rest of a segment, and where the rest of a message will be


def _report_unreadable(group: OrderGroup) -> None:
    """Add the faults of the segments to those of the group."""
    continued = [each.name for each in (*group.head, *group.body) if each.name in CONTINUED and each.text(1)]
    group.faults += [(name, "continues a message, which is not put together here: send it whole") for name in continued]
    for segment in group.head:
        if segment.fault:
            group.faults.append((segment.name, segment.fault))
    codec = group.head[0].encoding.codec
    if codec in WESTERN and any(is_misnamed(each.raw, codec) for each in (*group.head, *group.body)):
        named = printable(group.head[0].text(18), 40)
        group.warnings.append(("MSH-18", f"names {named}, but the text is UTF-8, as which it is read"))
    if not any(each.fault for each in group.body):
        return
    counts: Counter[str] = Counter()
    for segment in group.body:
        counts[segment.name] += 1
        if segment.fault:
            name = f"{segment.name}[{counts[segment.name]}]" if segment.name else ""
            group.faults.append((name, segment.fault))


def sending_machine(group: OrderGroup) -> str:
    """Return the instrument (OBX-18) if all results have the same, else the sending application (MSH-3, MSH-4).

    Return "" if that cannot be a serial.
    """
    serials = {facts_of_obx(segment).device for segment in group.all("OBX")} - {""}
    if len(serials) == 1:
        return usable_serial(*serials)
    application, facility = group.head[0].text(3), group.head[0].text(4)
    return usable_serial(f"{application}@{facility}" if facility else application) if application else ""


def record_id_of(group: OrderGroup) -> str:
    """Return the record's number.

    Worked example: 1045813^GHH LAB, for the second OBR of the same number 1045813^GHH LAB#2, else CNTRL-3456-2.
    """
    if group.order:
        return f"{group.order}#{group.number}" if group.repeated else group.order
    return _number_of_message(group)


def _number_of_message(group: OrderGroup) -> str:
    control = group.head[0].text(10)
    return f"{control}-{group.number}" if control else ""


def checkup_type_of(group: OrderGroup) -> str:
    """Return the name of the order (OBR-4), else of the first result. Add a fault if neither has a name."""
    if group.obr and (name := facts_of_obr(group.obr).name):
        return name
    for segment in group.all("OBX"):
        if name := name_of_coded(segment.first(3), segment.encoding):
            return name
    group.faults.append(("OBR-4", "is empty: what was examined?"))
    return ""


def _add_moments(record: Facts, group: OrderGroup, zone: tzinfo) -> dict[int, PartialDateTime]:
    """Add when the check-up was taken: the moment of the first result (OBX-14), else of the order (OBR-7), else of the
    specimen (SPM-17), else unknown (MSH-7 is only when the message was sent).

    Return the moments of the results, by the id of their segments. Add a fault if the check-up's moment is not valid.
    """
    results = group.all("OBX")
    moments: dict[int, PartialDateTime] = {}
    first: tuple[Segment, int, PartialDateTime] | None = None
    standing = next((each for each in results if facts_of_obx(each).facts.get("status") != WITHDRAWN), None)
    for at, segment in enumerate(results, 1):
        if not segment.field(14):
            continue
        found = _moment_in_field(group, segment, 14, zone, f"OBX[{at}]-14", is_fault=segment is standing)
        if found:
            moments[id(segment)] = found
            first = (segment, 14, found) if segment is standing else first
    others = [(group.obr, 7)] if group.obr else []
    others += [(each, 17) for each in group.all("SPM")]
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
    if group.obr and group.obr.text(7) == segment.text(field):
        end = _moment_in_field(group, group.obr, 8, zone, "OBR-8")
        if end and not end.known and not found.known and end.is_after(found):
            record["taken_until"] = end.text
    return moments


def _moment_in_field(
    group: OrderGroup, segment: Segment, field: int, zone: tzinfo, place: str, *, is_fault: bool = False
) -> PartialDateTime | None:
    """Return the moment in a field; None if there is none. Add a fault or a warning if it is not valid, and a warning
    if the zone's clocks skipped or repeated it."""
    try:
        found = moment_of(segment, field, zone)
    except ValueError:
        message = f"is not a date and time: '{printable(segment.text(field), 40)}'"
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
    if group.obr:
        told = facts_of_obr(group.obr)
        details |= told.details
        is_cancelled = not told.status and any(map(_is_cancelled, group.all("ORC")))
        status = "cancelled" if is_cancelled else told.status
        if status and status != "final":
            record["status"] = status
        issued = _moment_in_field(group, group.obr, 22, zone, "OBR-22")
        if issued and not issued.known:
            record["issued_at"] = details["updated_at"] = issued.text
    details |= without_empty(
        notes=[*notes.get(0, ()), *_parent_result(group)],
        identifiers=_order_numbers(group),
        specimen=specimen_of(group, zone, notes),
    )
    if "updated_at" not in details and (sent := _moment_in_field(group, head, 7, zone, "MSH-7")):
        details["updated_at"] = iso_moment(head.text(7), zone) if sent.known else sent.text
    if details:
        record["details"] = details
    for each in results if notes else ():
        found = [note for segment in each.segments for note in notes.get(id(segment), ())]
        if found:
            each.result["notes"] = found[:LIST_MAX]


def _parent_result(group: OrderGroup) -> list[Facts]:
    """Return a note of the result that an order belongs to (OBR-26), such as the organism of susceptibilities."""
    if not group.obr or not (sent := group.obr.first(26)):
        return []
    encoding = group.obr.encoding
    test, place, value = (*encoding.components(sent), "", "", "")[:3]
    name = label_of(encoding.component.join(encoding.subcomponents(test)), encoding)
    named = " ".join(filter(None, (name, encoding.unquoted(place))))
    words = ": ".join(filter(None, (named, encoding.unquoted(encoding.subcomponents(value)[-1]))))
    return [{"text": f"Belongs to the result {words}"[:TEXT_MAX]}] if words else []


def _is_cancelled(control: Segment) -> bool:
    """Return whether an ORC segment says that its order was cancelled: ORC-5 (table 0038), or ORC-1 (0119)."""
    return control.text(5).upper() in ("CA", "DC") or control.text(1).upper() in ("CA", "OC", "CR", "DC", "DR")


def _order_numbers(group: OrderGroup) -> list[Facts]:
    """Return the numbers of the order: the placer's (OBR-2, else ORC-2) and the filler's (OBR-3, else ORC-3)."""
    found: list[Facts] = []
    segments = (*group.all("OBR"), *group.all("ORC"))
    for place, kind in ((2, "PLAC"), (3, "FILL")):
        for segment in segments:
            if numbers := field_identifiers(segment, place, type=kind):
                found += numbers
                break
    return found


def _finish_results(record: Facts, results: list[ObxResult], moments: dict[int, PartialDateTime]) -> tuple[int, ...]:
    """Add the results with what differs from their check-up: moment, status, device. Return the numbers of their
    segments."""
    common = record.get("status", "final")
    for each in results:
        result, segment = each.finished(), each.segments[0]
        moment = moments.get(id(segment))
        if moment and (moment.text, moment.known) != (record.get("taken_at"), record.get("taken_precision", "")):
            result["taken_at"] = moment.text
            if moment.known:
                result["taken_precision"] = moment.known
        elif moment is None and segment.text(14).strip("0"):  # reported with the moments
            result["taken_precision"] = "unknown"
        if result.get("status") == common:
            del result["status"]
        if "device" in result and each.told.device == record.get("machine"):
            del result["device"]
    results = [each for each in results if each.is_short()]
    record["results"] = [each.result for each in results]
    return tuple([each.place for each in results])


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
