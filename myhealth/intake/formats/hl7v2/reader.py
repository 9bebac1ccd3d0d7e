"""HL7 v2 messages as records: each OBR segment with its OBX segments is one.

Source: HL7 v2.8, chapter 7 (ORU^R01 and its kin); DESIGN.md, "Source of truth" and "A machine-memory dump" for what a
record is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from datetime import tzinfo
from typing import Any

from myhealth.common.text import printable
from myhealth.intake.formats.format import Format, RejectedLayout, encode_raw
from myhealth.intake.formats.hl7v2.grouping import OrderGroup, find_groups, text_of
from myhealth.intake.formats.hl7v2.report import checkup_type_of, record_id_of, report_of, results_of, taken_at_of
from myhealth.intake.formats.hl7v2.segments import Line, parse_message, read_messages
from myhealth.intake.formats.hl7v2.subjects import machine_of, patient_of, taken_by_of
from myhealth.intake.formats.json_reader import Readable
from myhealth.intake.parsed_record import ParsedRecord

START = re.compile(rb"(?:\xef\xbb\xbf)?\s*\x0b?\s*(MSH|FHS|BHS)[^\w\s]")


def read_hl7(source: Readable, zone: tzinfo, skipped: Counter[str]) -> Iterator[ParsedRecord]:
    """The records of HL7 v2 messages, in their order: bare, in batches and files, or framed as on the wire (MLLP).

    `zone`: what moments are in if neither they nor MSH-7 name a zone. `skipped` counts by kind what is no result
    ("ADT^A01"). What cannot be read is a reading with faults, their fields like "OBX[2]-14". Memory does not grow with
    the source. Raises BadInput where a message is longer than a record may be.
    """
    index = 0
    for message in read_messages(source):
        for reading in _read_message(message, zone, skipped):
            reading.index = index
            index += 1
            yield reading


def _read_message(message: list[Line], zone: tzinfo, skipped: Counter[str]) -> Iterator[ParsedRecord]:
    segments, fault = parse_message(message)
    kind = "^".join(filter(None, (segments[0].text(9, 1), segments[0].text(9, 2)))) if segments else ""
    groups = find_groups(segments)
    reports = kind.startswith("ORU")  # its type says that it has results, even if an OBR has none yet
    if reports and not groups:
        fault = "it is a message with results, but has neither an OBR nor an OBX segment"
    if fault:
        last = message[-1]  # what is cut short stays so in its text, lest it be taken for whole when it is read again
        raw = b"\x0b" * last.framed + b"\r".join(line.data for line in message) + b"\r" * (not last.cut or last.framed)
        yield ParsedRecord(0, message[0].number, raw.decode("utf-8", "surrogateescape"), None, [("", fault)])
    elif not reports and not any(group.all("OBX") for group in groups):
        skipped[printable(kind, 60) or "message without a type"] += 1
    else:
        for group in groups:
            if reports or group.all("OBX"):
                yield _read_group(group, zone, skipped)
            else:
                skipped["OBR without results"] += 1


def _read_group(group: OrderGroup, zone: tzinfo, skipped: Counter[str]) -> ParsedRecord:
    """The record of a group. Its text is the message without its other groups."""
    _tell_unreadable(group)
    patients, full_name = patient_of(group)
    results, texts = results_of(group, skipped)
    moment = taken_at_of(group, zone)
    told: dict[str, Any] = {
        "checkup_for": patients[0] if patients else "",
        "machine": machine_of(group),
        "record_id": record_id_of(group),
        "taken_at": moment.text if moment else "",
    }
    record = {name: text for name, text in told.items() if text}
    record |= {"checkup_type": checkup_type_of(group), "disease": "", "checkup_report": report_of(group, texts, moment)}
    record |= {"results": results, "taken_by": taken_by_of(group)}
    line = next((segment.line for segment in group.body if segment.name == "OBR"), group.body[0].line)
    return ParsedRecord(0, line, text_of(group), record, list(dict.fromkeys(group.faults)), tuple(patients), full_name)


def _tell_unreadable(group: OrderGroup) -> None:
    for segment in group.head:
        if segment.fault:
            group.faults.append((segment.name, segment.fault))
    counts: Counter[str] = Counter()
    for segment in group.body:
        counts[segment.name] += 1
        if segment.fault:
            name = f"{segment.name}[{counts[segment.name]}]" if segment.name else ""
            group.faults.append((name, segment.fault))


HL7 = Format(
    "hl7",
    "application/hl7-v2",
    detect=lambda source: bool(START.match(source.head())),
    read=lambda source, dump: read_hl7(source.stream(), dump.zone, dump.skipped),
    # a message has its ends in its text, unless it was cut short
    write_rejected=lambda dump: RejectedLayout(b"", b"", b"", encode_raw),
    has_record_numbers=True,
)
