"""Read the notes of a group (NTE), each to what it stands behind. Source: HL7 v2.8, chapter 2, and table 0105."""

from __future__ import annotations

from datetime import tzinfo

from myhealth.intake.formats.hl7v2.coded import Facts, person_of, without_empty
from myhealth.intake.formats.hl7v2.grouping import OrderGroup
from myhealth.intake.formats.hl7v2.moments import iso_moment
from myhealth.intake.formats.hl7v2.segments import Segment
from myhealth.intake.record_types import LIST_MAX

AUTHORS = {"L": "laboratory", "P": "orderer"}  # the source of a comment
CHECKUP = 0  # the key of the notes of the check-up


def notes_of(group: OrderGroup, zone: tzinfo) -> dict[int, list[Facts]]:
    """Return the notes by the id of the OBX or SPM segment that they stand behind; those of the patient, the order and
    the message under CHECKUP. The segments of one author, behind each other, are the lines of one note."""
    found: dict[int, list[Facts]] = {}
    owner = CHECKUP
    for segment in (*group.head, *group.body):
        if segment.name in ("OBX", "SPM"):
            owner = id(segment)
        elif segment.name in ("OBR", "ORC", "PID", "PV1"):
            owner = CHECKUP
        elif segment.name == "NTE" and (note := _note(segment, zone)):
            notes = found.setdefault(owner, [])
            if notes and {**notes[-1], "text": ""} == {**note, "text": ""}:
                notes[-1]["text"] += f"\n{note['text']}"
            elif len(notes) < LIST_MAX:
                notes.append(note)
    return found


def _note(segment: Segment, zone: tzinfo) -> Facts | None:
    encoding = segment.encoding
    text = "\n".join(map(encoding.plain, segment.repetitions(3))).strip()
    if not text:
        return None
    name, number = person_of(next(iter(segment.repetitions(5)), ""), encoding, 1)
    author = name or number or AUTHORS.get(segment.text(2).upper(), "")
    return {"text": text} | without_empty(author=author, at=iso_moment(segment.text(6), zone))
