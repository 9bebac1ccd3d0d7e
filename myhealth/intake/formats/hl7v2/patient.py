"""Read who the patient is: numbers, name, birth date and sex. Source: HL7 v2.8, chapter 3 (PID), table 0203."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from myhealth.intake.formats.hl7v2.coded import Facts, authority_of, person_of, without_empty
from myhealth.intake.formats.hl7v2.grouping import OrderGroup
from myhealth.intake.formats.hl7v2.moments import birth_date_of
from myhealth.intake.formats.hl7v2.segments import Segment
from myhealth.intake.record_types import LIST_MAX, TEXT_MAX

# Kinds of numbers that name a person. An insurer's (HC, MC, SN …), an account's or a visit's number does not.
NAMING = re.compile(r"|MR[TN]?|P[IETN]|PNT|U|XX|EI|NI|NN\w*|SS|PPN|LR|RI|ANON|ID")
BEST = ("MR", "PI")
SEXES = {"M": "male", "F": "female", "O": "other", "A": "other"}


@dataclass(slots=True)
class PatientFacts:
    """The patient of a group. `number`: the best one; `field`: where it stands in the source."""

    facts: Facts = field(default_factory=dict)
    number: str = ""
    name: str = ""
    field: str = "PID-3"


def patient_of(group: OrderGroup) -> PatientFacts:
    """Return who the patient is. PID-2 counts only if PID-3 is empty; PID-4 may be a bed."""
    segment = group.first("PID")
    if segment is None:
        return PatientFacts()
    place = 3 if segment.repetitions(3) or not segment.repetitions(2) else 2
    found = _identifiers(segment, place)
    number = next((each["value"] for each in found if "system" not in each), found[0]["value"] if found else "")
    names = (person_of(each, segment.encoding, 0)[0] for each in segment.repetitions(5))
    name = next(filter(None, names), "")
    facts = without_empty(
        identifiers=found, name=name, birth_date=birth_date_of(segment, 7), sex=SEXES.get(segment.text(8)[:1].upper())
    )
    return PatientFacts(facts, number, name, f"PID-{place}")


def _identifiers(segment: Segment, place: int) -> list[Facts]:
    """Return the numbers (CX) that name a person, the best first."""
    encoding = segment.encoding
    found = []
    for text in segment.repetitions(place)[:LIST_MAX]:
        raw = [*encoding.components(text), *[""] * 5]
        value, kind = (encoding.plain(raw[at]).strip() for at in (0, 4))
        kind = "" if kind == '""' else kind.upper()
        if value and value != '""' and len(value) <= TEXT_MAX and NAMING.fullmatch(kind):
            authority = "" if raw[3] == '""' else authority_of(raw[3], encoding)
            each = without_empty(value=value, system=authority, type=kind)
            if each not in found:
                found.append(each)
    return sorted(found, key=lambda each: each.get("type") not in BEST)
