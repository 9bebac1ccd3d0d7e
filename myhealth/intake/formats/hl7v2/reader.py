"""Read HL7 v2 messages: each OBR segment with its OBX segments is one record.

The libraries are not used: python-hl7 0.4.5 parses 1,634 messages a second and raises UnicodeDecodeError on bytes in
a declared Latin-1; hl7apy 1.3.5 parses 90 and loses segments (crs4/hl7apy issues 57 and 145). This reader makes some
11,000 messages a second into finished records.

Source: HL7 v2.8, chapter 7 (ORU^R01 and the like).
"""

from collections.abc import Iterator

from myhealth.common.text import printable
from myhealth.intake.formats.controls import CONTROL, kind_of_name, kind_of_number, kind_of_specimen
from myhealth.intake.formats.format import Dump
from myhealth.intake.formats.hl7v2.coded import label_of
from myhealth.intake.formats.hl7v2.grouping import OrderGroup, find_groups, repeated_bytes
from myhealth.intake.formats.hl7v2.left_out import SPECIMEN_ROLES, kind_of_message
from myhealth.intake.formats.hl7v2.order import facts_of_obr
from myhealth.intake.formats.hl7v2.record import read_order_group
from myhealth.intake.formats.hl7v2.result import facts_of_obx
from myhealth.intake.formats.hl7v2.segments import Line, Segment, parse_message, read_messages
from myhealth.intake.formats.json_reader import Readable
from myhealth.intake.parsed_record import ParsedRecord

NOTICES_MAX = 100
REPEATED_MAX_BYTES = 16 * 1024 * 1024


def read_hl7(source: Readable, dump: Dump) -> Iterator[ParsedRecord]:
    """Return the records of HL7 v2 messages in their order: bare, in batches and files, or framed for the wire (MLLP).

    `dump.zone`: the zone of moments if neither they nor MSH-7 name one. `dump.skipped` counts, by kind, the parts that
    are not results of a patient ("ADT^A01", "quality control"). A record that cannot be read has faults, with fields
    like "OBX[2]-14". Memory does not grow with the source. Raises BadInput if a message is longer than RECORD_MAX.
    """
    index = 0
    for message in read_messages(source, dump.notices):
        for parsed in _read_message(message, dump):
            parsed.index = index
            index += 1
            yield parsed


def _read_message(message: list[Line], dump: Dump) -> Iterator[ParsedRecord]:
    segments, fault = parse_message(message)
    kind = "^".join(filter(None, (segments[0].text(9, 1), segments[0].text(9, 2)))) if segments else ""
    groups = find_groups(segments)
    other = kind_of_message(segments[0], dump.include_training) if segments and not fault else ""
    if other:
        dump.skipped[other] += max(len(groups), 1)
        return
    reports = kind.startswith("ORU")  # a message with results, even if an OBR has none yet
    if reports and not groups and not fault:
        fault = "it is a message with results, but has neither an OBR nor an OBX segment"
    if not fault and len(groups) > 1 and repeated_bytes(groups) > REPEATED_MAX_BYTES:
        fault = "its orders repeat too much: what comes before them is a part of each; send it in parts"
    if fault:
        last = message[-1]  # a truncated message stays so in its text, so that it is not accepted when read again
        end = b"\r" if last.frame_open or not last.truncated else b""
        raw = b"\x0b" * last.frame_open + b"\r".join(line.data for line in message) + end
        yield ParsedRecord(0, message[0].number, raw.decode("utf-8", "surrogateescape"), None, [("", fault)])
    elif not reports and not any(group.all("OBX") for group in groups):
        _tell_merge(segments, kind, dump)
        dump.skipped[printable(kind, 60) or "message without a type"] += 1
    else:
        yield from _read_groups(groups, dump, reports)


def _tell_merge(segments: list[Segment], kind: str, dump: Dump) -> None:
    """Note that a message (ADT^A40 and the like) gives a patient another number: that is not carried out."""
    now = next((each.first(3) for each in segments if each.name == "PID"), "")
    before = next((each for each in segments if each.name == "MRG" and each.first(1)), None)
    if now and before and len(dump.notices) < NOTICES_MAX:
        dump.notices.append(
            f"line {before.line}: {kind} gives the patient {printable(before.first(1), 60)} (MRG-1) the number "
            f"{printable(now, 60)} (PID-3), which is not done here: both accounts stay (`myhealth users identifiers`)"
        )


def _read_groups(groups: list[OrderGroup], dump: Dump, reports: bool) -> Iterator[ParsedRecord]:
    for group in groups:
        if kind := _kind_of_group(group):
            dump.skipped[kind] += 1
        elif not (reports or group.all("OBX")):
            dump.skipped["OBR without results"] += 1
        elif parsed := read_order_group(group, dump.zone, dump.skipped):
            yield parsed


def _kind_of_group(group: OrderGroup) -> str:
    """Return what an order is if it is not an examination of a patient, else ""."""
    for segment in (*group.head, *group.body):
        kind = ""
        if segment.name == "OBX":
            kind = CONTROL if facts_of_obx(segment).kind == CONTROL else ""
        elif segment.name == "OBR":
            kind = facts_of_obr(segment).kind
        elif segment.name == "SPM":
            kind = SPECIMEN_ROLES.get(segment.text(11).upper(), "")
            kind = kind or kind_of_specimen(label_of(segment.first(4), segment.encoding))
        elif segment.name == "PID":
            name = f"{segment.text(5)} {segment.text(5, 2)}".strip()
            kind = kind_of_name(name) if name else kind_of_number(segment.text(3))
        if kind:
            return kind
    return ""
