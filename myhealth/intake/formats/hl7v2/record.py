"""Make one record of a group of HL7 v2 segments: patient, machine, number, moment, results, and the report in words.

Source: HL7 v2.8, chapter 2 (NTE), 3 (PID), 7 (OBR, OBX) and 2.A (CX, XPN, XCN, NDL), and the tables named below.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import tzinfo
from typing import Any

from myhealth.clinical.report_status import status_line
from myhealth.common.text import printable
from myhealth.intake.formats.hl7v2.grouping import OrderGroup, text_of
from myhealth.intake.formats.hl7v2.segments import Segment
from myhealth.intake.formats.hl7v2.values import TEXT_TYPES, moment_of, result_of, words_of, zone_of
from myhealth.intake.formats.terminology import NO_VALUE, PartialDateTime, joined_name, lines, usable_serial
from myhealth.intake.parsed_record import ParsedRecord
from myhealth.intake.record_types import VALUE_MAX

WITHDRAWN = ("D", "W")  # table 0085: the result is deleted, or was wrong (of another patient, say)
# Tables 0085 (OBX-11) and 0123 (OBR-25); final, corrected and the like are not mentioned.
STATUSES = {"P": "preliminary", "R": "not verified", "S": "partial", "I": "pending", "N": "not asked"}
ORDER_STATUSES = {"P": "preliminary", "R": "not verified", "A": "some results only", "I": "pending", "X": "cancelled"}


@dataclass(eq=False, slots=True)
class ObxResult:
    """A result and its OBX segment. `texts`: its text, one for each OBX that continues it."""

    segment: Segment
    result: dict[str, Any]
    texts: list[str]


def read_group(group: OrderGroup, zone: tzinfo, skipped: Counter[str]) -> ParsedRecord:
    """Return the record of a group. Its text is the message without the other groups."""
    _report_unreadable(group)
    patients, full_name = patient_of(group)
    results, texts = results_of(group, skipped)
    moment = taken_at_of(group, zone)
    fields: dict[str, Any] = {
        "checkup_for": patients[0] if patients else "",
        "machine": machine_of(group),
        "record_id": record_id_of(group),
        "taken_at": moment.text if moment else "",
    }
    record = {name: text for name, text in fields.items() if text}
    record |= {"checkup_type": checkup_type_of(group), "disease": "", "checkup_report": report_of(group, texts, moment)}
    record |= {"results": results, "taken_by": taken_by_of(group)}
    line = next((segment.line for segment in group.body if segment.name == "OBR"), group.body[0].line)
    return ParsedRecord(0, line, text_of(group), record, list(dict.fromkeys(group.faults)), tuple(patients), full_name)


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


def patient_of(group: OrderGroup) -> tuple[list[str], str]:
    """Return the numbers that may identify the patient, best first, and the full name."""
    segment = group.first("PID")
    if segment is None:
        return [], ""
    coded = [_coded(segment, each) for each in segment.repetitions(3)]
    coded.sort(key=lambda parts: parts[4] not in ("MR", "PI"))  # table 0203: medical record, patient internal
    coded += [_coded(segment, each) for place in (2, 4) for each in segment.repetitions(place)]
    names = dict.fromkeys(parts[0] for parts in coded if parts[0])
    full = (_person(segment, each, 0)[0] for each in segment.repetitions(5))
    return list(names), next(filter(None, full), "")


def _coded(segment: Segment, text: str) -> list[str]:
    """Return the components of a repetition, unescaped; at least nine."""
    parts = [segment.encoding.plain(each).strip() for each in segment.encoding.components(text)]
    return ["" if part == '""' else part for part in parts] + [""] * 9


def _person(segment: Segment, text: str, family: int) -> tuple[str, str]:
    """Return (name, number) of a person. `family`: the index of the component with the family name (XPN: 0; XCN: 1)."""
    encoding = segment.encoding
    parts = encoding.components(text)
    inner = encoding.subcomponents(parts[0])
    if family and len(inner) > 1:  # NDL: the first component has the whole person
        parts = inner
    parts = [*parts, "", "", ""]
    names = (encoding.subcomponents(parts[family + 1])[0], encoding.subcomponents(parts[family])[0])
    found = joined_name(*(encoding.plain("" if name == '""' else name) for name in names))
    return found, "" if family == 0 else encoding.plain(parts[0]).strip()


def taken_by_of(group: OrderGroup) -> str | None:
    """Return the name of the ordering provider (OBR-16), else of the interpreter (OBR-32); the number if unnamed."""
    for segment in group.all("OBR"):
        for place in (16, 32):
            people = [_person(segment, each, 1) for each in segment.repetitions(place)]
            labels = [name for name, _ in people] + [number for _, number in people]
            if any(labels):
                return next(filter(None, labels))
    return None


def machine_of(group: OrderGroup) -> str:
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
    found = [words_of(segment, 4) for segment in group.all("OBR")]
    found += [words_of(segment, 3) for segment in group.all("OBX")]
    name = next(filter(None, found), "")
    if not name:
        group.faults.append(("OBR-4", "is empty: what was examined?"))
    return name


def taken_at_of(group: OrderGroup, zone: tzinfo) -> PartialDateTime | None:
    """Return the moment of the first result (OBX-14), else of the order (OBR-7), else of the message (MSH-7).

    A moment without a zone is in the zone of MSH-7, or else in `zone`. Add a fault if the moment is not valid.
    """
    head = group.head[0]
    zone = zone_of(head, 7, zone)
    results = [segment for segment in group.all("OBX") if segment.text(11).upper() not in WITHDRAWN]
    places = [*((each, 14) for each in results[:1]), *((each, 7) for each in group.all("OBR")), (head, 7)]
    for segment, place in places:
        if not segment.text(place).strip("0"):  # 00000000 is not a day
            continue
        try:
            return moment_of(segment, place, zone)
        except ValueError:
            name = f"{segment.name}[1]-{place}" if segment.name == "OBX" else f"{segment.name}-{place}"
            group.faults.append((name, f"is no date and time: '{printable(segment.text(place), 40)}'"))
            return None
    return None


def results_of(group: OrderGroup, skipped: Counter[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the results in file order, and the texts of free-text results, which belong in the report.

    The lines of a text, each an OBX of its own with the same code, are one result. A result without a name gets the
    name of the order; add a fault if that has no name either. Deleted and wrong results are counted in `skipped`.
    """
    found: list[ObxResult] = []
    for place, segment in enumerate(group.all("OBX"), 1):
        if segment.text(11).upper() in WITHDRAWN:
            skipped["OBX deleted or wrong"] += 1
            continue
        current = ObxResult(segment, result_of(segment), [])
        current.result["name"] = current.result["name"] or next((words_of(each, 4) for each in group.all("OBR")), "")
        if not current.result["name"]:
            group.faults.append((f"OBX[{place}]-3", "is empty: what was measured?"))
        if found and _continues(found[-1], current):
            found[-1].texts.append(_text(current))
        else:
            current.texts.append(_text(current))
            found.append(current)
    texts = [text for each in found if (text := _free_text(each))]
    return [result for each in found if (result := _finished(each)) is not None], texts


def _text(obx: ObxResult) -> str:
    return "" if "absent_reason" in obx.result else str(obx.result["value"])


def _continues(before: ObxResult, current: ObxResult) -> bool:
    """Return whether this is the next line of a text: with the same code, and different only in the text."""
    types = {before.segment.text(2).upper(), current.segment.text(2).upper()}
    if not types <= set(TEXT_TYPES) or current.segment.text(11) == "X" or before.segment.text(11) == "X":
        return False
    own = ("value", "absent_reason")
    one, other = ({name: each for name, each in of.result.items() if name not in own} for of in (before, current))
    return one == other


def _finished(obx: ObxResult) -> dict[str, Any] | None:
    """Return the result with its whole text; None if that is too long for a value. Then it is in the report only."""
    if len(obx.texts) > 1:
        text = "\n".join(obx.texts).strip("\n")
        obx.result["value"] = text or NO_VALUE
        if text:
            obx.result.pop("absent_reason", None)
    value = obx.result["value"]
    return None if isinstance(value, str) and len(value) > VALUE_MAX else obx.result


def _free_text(obx: ObxResult) -> str:
    """Return a free text for the report; "" for any other result, and for a text (ST) of one line."""
    text = "\n".join(obx.texts).strip()
    short = len(obx.texts) == 1 and len(text) <= VALUE_MAX
    if not text or (short and obx.segment.text(2).upper() not in ("TX", "FT")):
        return ""
    return f"{obx.result['name']}:{chr(10) if chr(10) in text else ' '}{text}"


def report_of(group: OrderGroup, texts: list[str], taken_at: PartialDateTime | None) -> str:
    """Return the report for people, one statement a line: order status, free texts, notes, precision of the moment."""
    statements = [
        status_line(ORDER_STATUSES[status]) for each in group.all("OBR") if (status := each.text(25)) in ORDER_STATUSES
    ]
    statements += [*texts, *_remarks(group)]
    statements.append(f"Only the {taken_at.known} is known." if taken_at and taken_at.known else "")
    return lines(*dict.fromkeys(statements))


def _remarks(group: OrderGroup) -> Iterator[str]:
    """Return the notes, and the status of results that are not final, each with the name of its result."""
    name = ""
    for segment in group.body:
        if segment.name == "OBR":
            name = ""
        elif segment.name == "OBX":
            name = words_of(segment, 3)
            status = STATUSES.get(segment.text(11).upper())
            if status:
                yield status_line(status, name)
        elif segment.name == "NTE":
            note = "\n".join(segment.encoding.plain(each) for each in segment.repetitions(3)).strip()
            if note:
                yield f"{name}: {note}" if name else note
