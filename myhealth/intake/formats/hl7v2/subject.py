"""Read who and what was examined, and what was noted: the patient, the specimen and the notes of a group.

Source: HL7 v2.8, chapter 2 (NTE), 3 (PID) and 7 (SPM), tables 0105, 0203 and 0487, and table 0070 of earlier versions.
"""

import re
from dataclasses import dataclass, field
from datetime import tzinfo

from myhealth.clinical.coding_systems import HL7_TABLE
from myhealth.clinical.range_choice import YEARS_OF
from myhealth.common.text import printable
from myhealth.intake.formats.hl7v2.coded import (
    Facts,
    authority_of,
    concept_of,
    field_concept,
    identifier_of,
    label_of,
    person_of,
    without_empty,
)
from myhealth.intake.formats.hl7v2.grouping import OrderGroup
from myhealth.intake.formats.hl7v2.left_out import AGE_KIND, kind_of_result
from myhealth.intake.formats.hl7v2.moments import birth_date_of, iso_moment
from myhealth.intake.formats.hl7v2.segments import Segment
from myhealth.intake.formats.terminology import Number, number
from myhealth.intake.record_types import LIST_MAX, TEXT_MAX

# Kinds of numbers that name a person. An insurer's (HC, MC, SN …), an account's or a visit's number does not.
NAMING = re.compile(r"|MR[TN]?|P[IETN]|U|EI|NI|NN\w*|SS|PPN|LR|RI|ID")
BEST = ("MR", "PI")
SEXES = {"M": "male", "F": "female", "O": "other", "A": "other"}
AUTHORS = {"L": "laboratory", "P": "orderer"}  # the source of a comment
NOBODYS = "has only numbers that are not a patient's, such as an insurer's"
AGE_MAX = 150  # years
CHECKUP = 0  # the key of the notes of the check-up
_SOURCES = """BLD Whole blood, BLDV Blood venous, BLDC Blood capillary, BLDA Blood arterial, SER Serum, PLAS Plasma,
PLR Plasma, UR Urine, CSF Cerebral spinal fluid, SAL Saliva, SPT Sputum, STL Stool, THRT Throat, NOS Nose"""
SOURCES = dict(each.split(maxsplit=1) for each in _SOURCES.split(","))


@dataclass(slots=True)
class PatientFacts:
    """The patient of a group. `number`: the best one; `field`: where it stands in the source."""

    facts: Facts = field(default_factory=dict)
    number: str = ""
    name: str = ""
    field: str = "PID-3"


def parse_patient(group: OrderGroup) -> PatientFacts:
    """Return who the patient is. PID-2 counts only if PID-3 is empty; PID-4 may be a bed."""
    segment = group.first("PID")
    if segment is None:
        return PatientFacts()
    place = 3 if segment.repetitions(3) or not segment.repetitions(2) else 2
    found = _identifiers(segment, place)
    if not found and segment.text(place):
        group.faults.append((f"PID-{place}", NOBODYS))
    number = next((each["value"] for each in found if "system" not in each), found[0]["value"] if found else "")
    name = next(filter(None, (person_of(each, segment.encoding, 0)[0] for each in segment.repetitions(5))), "")
    born = birth_date_of(segment, 7)
    if not born and segment.text(7).strip("0"):
        group.warnings.append(("PID-7", f"is no date, so it is not compared: '{printable(segment.text(7), 40)}'"))
    facts = without_empty(identifiers=found, name=name, birth_date=born, sex=SEXES.get(segment.text(8)[:1].upper()))
    if "birth_date" not in facts and (age := _age(group)) is not None:
        facts["age"] = age
    return PatientFacts(facts, number, name, f"PID-{place}")


def _age(group: OrderGroup) -> Number | None:
    """Return the age in years that an OBX segment tells; None if none does."""
    for segment in group.all("OBX"):
        if kind_of_result(segment.field(3), segment.encoding) == AGE_KIND:
            value, unit = number(segment.text(5) or segment.text(5, 2)), YEARS_OF.get(segment.text(6).lower() or "a")
            return float(value) * unit if value is not None and unit and 0 <= float(value) * unit <= AGE_MAX else None
    return None


def _identifiers(segment: Segment, place: int) -> list[Facts]:
    """Return the numbers (CX) that name a person, the best first."""
    found = []
    for text in segment.repetitions(place)[:LIST_MAX]:
        raw = [*segment.encoding.components(text), *[""] * 5]
        value, kind = (segment.encoding.unquoted(raw[at]) for at in (0, 4))
        if value and len(value) <= TEXT_MAX and NAMING.fullmatch(kind.upper()):
            authority = "" if raw[3] == '""' else authority_of(raw[3], segment.encoding)
            each = without_empty(value=value, system=authority, type=kind.upper())
            if each not in found:
                found.append(each)
    return sorted(found, key=lambda each: each.get("type") not in BEST)


def specimen_of(group: OrderGroup, zone: tzinfo, notes: dict[int, list[Facts]]) -> Facts | str | None:
    """Return the specimen: SPM, else OBR-15; None if none is named. `notes`: those of each segment by its id."""
    inside = group.all("SPM")
    segment = inside[0] if inside else next((each for each in reversed(group.head) if each.name == "SPM"), None)
    if segment is None:
        return next((found for each in group.all("OBR") if (found := _specimen_source(each))), None)
    encoding, type_ = segment.encoding, field_concept(segment, 4)
    # An EI whose parts are subcomponents.
    sent = (encoding.subcomponents(each) for each in encoding.components(segment.first(2)))
    numbers = (identifier_of(encoding.component.join(each), encoding) for each in sent)
    return (type_ if isinstance(type_, dict) else without_empty(text=type_)) | without_empty(
        collected_at=iso_moment(segment.text(17), zone),
        body_site=field_concept(segment, 8),
        identifiers=[each for each in numbers if each],
        notes=notes.get(id(segment)),
    )


def _specimen_source(segment: Segment) -> Facts | str | None:
    """Return the specimen source of OBR-15: a code whose parts are subcomponents, else free text."""
    encoding = segment.encoding
    raw = [*encoding.components(segment.first(15)), *[""] * 3]
    text = encoding.component.join(encoding.subcomponents(raw[0]))
    label = label_of(text, encoding)
    if words := SOURCES.get(code := label.upper()):
        return {"text": words, "codings": [{"system": f"{HL7_TABLE}0070", "code": code}]}
    parts = encoding.parts(text)
    found = concept_of(text, encoding) if len(parts) > 2 and parts[2] else None
    words = label or encoding.plain(raw[2]).strip()
    return found or (words[:TEXT_MAX] if any(map(str.isalpha, words)) else None)


def parse_notes(group: OrderGroup, zone: tzinfo) -> dict[int, list[Facts]]:
    """Return the notes (NTE) by the id of the OBX or SPM segment that they stand behind; those of the patient, the
    order and the message under CHECKUP. The segments of one author, behind each other, are the lines of one note."""
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
    text = "\n".join(map(segment.encoding.plain, segment.repetitions(3))).strip()
    if not text:
        return None
    name, number = person_of(segment.first(5), segment.encoding, 1)
    author = name or number or AUTHORS.get(segment.text(2).upper(), "")
    return {"text": text} | without_empty(author=author, at=iso_moment(segment.text(6), zone))
