"""Read who and what was examined, and what was noted: the patient, the specimen and the notes of a group.

Source: HL7 v2.8, chapter 2 (NTE), 3 (PID) and 7 (SPM), tables 0105, 0203 and 0487, and table 0070 of earlier versions.
"""

import re
from datetime import UTC, datetime, timedelta, tzinfo

from msgspec import Struct

from myhealth.clinical.in_words import concept_text
from myhealth.clinical.range_choice import YEARS_OF
from myhealth.clinical.series import specimen_kind
from myhealth.common.text import printable
from myhealth.intake.formats.hl7v2.coded import (
    Facts,
    authority_of,
    field_concept,
    identifier_of,
    person_of,
    without_empty,
)
from myhealth.intake.formats.hl7v2.encoding import Encoding
from myhealth.intake.formats.hl7v2.grouping import OrderGroup
from myhealth.intake.formats.hl7v2.left_out import AGE_KIND
from myhealth.intake.formats.hl7v2.moments import birth_date_of, iso_moment
from myhealth.intake.formats.hl7v2.order import facts_of_obr
from myhealth.intake.formats.hl7v2.result import facts_of_obx
from myhealth.intake.formats.hl7v2.segments import Fields, Segment, cached_without
from myhealth.intake.formats.terminology import FORMER_ALONE, Number, number
from myhealth.intake.record_types import LIST_MAX, TEXT_MAX

# Kinds of numbers that name a person. An insurer's (HC, MC, SN …), an account's or a visit's number does not.
NAMING = re.compile(r"|MR[TN]?|P[IETN]|U|EI|NI|NN\w*|SS|PPN|LR|RI|ID")
BEST = ("MR", "PI")
SEXES = {"M": "male", "F": "female", "O": "other", "A": "other"}
FORMER_NAMES = ("A", "B", "M", "N", "S", "P", "BAD", "NOUSE", "TEMP")  # table 0200: aliases, maiden names and the like
AUTHORS = {"L": "laboratory", "P": "orderer"}  # the source of a comment
NOBODYS = "has only numbers that are not a patient's, such as an insurer's; their kinds: "
AGE_MAX = 150  # years
FLAWS = (("rejected", 21), ("condition", 24))  # what a result of a specimen (SPM) may suffer from
CHECKUP = 0  # the key of the notes of the check-up


class PidFacts(Struct, frozen=True):
    """What a PID segment says. Constant.

    `field`: that of the numbers; `numbers`: those that name a person, each with its first and last day, "" if not said;
    `kinds`: those of all numbers; `unread`: a birth date that is not a date.
    """

    field: str
    numbers: list[tuple[Facts, str, str]]
    kinds: str
    name: str
    birth_date: str
    unread: str
    sex: str | None


class PatientFacts(Struct):
    """The patient of a group. `number`: the best one; `field`: its field in the source."""

    facts: Facts = {}
    number: str = ""
    name: str = ""
    field: str = "PID-3"


@cached_without(1)
def facts_of_pid(segment: Fields) -> PidFacts:
    """Return what a PID segment says. PID-2 counts only if PID-3 is empty; PID-4 may be a bed.

    PID-32 (table 0445) may say that the birth date (UD) or the social security number (US) is a default, and the name
    an alias (AL): these say nothing of the person.
    """
    encoding, doubts = segment.encoding, {each.upper() for each in segment.repetitions(32)}
    born = "" if "UD" in doubts else birth_date_of(segment, 7)
    names = [(encoding.parts(each, 7)[6].upper(), person_of(each, encoding, 0)[0]) for each in segment.repetitions(5)]
    names = sorted((each for each in names if each[1]), key=lambda each: each[0] in FORMER_NAMES)
    place = 3 if segment.repetitions(3) or not segment.repetitions(2) else 2
    sent = segment.repetitions(place)
    return PidFacts(
        f"PID-{place}",
        [
            found
            for each in sent[:LIST_MAX]
            if (found := _number(each, encoding)) and not ("US" in doubts and found[0].get("type") == "SS")
        ],
        ", ".join(dict.fromkeys([encoding.parts(each, 5)[4] for each in sent])),
        "" if "AL" in doubts or not names else names[0][1],
        born,
        "" if born or "UD" in doubts else segment.text(7),
        SEXES.get(segment.text(8)[:1].upper()),
    )


def parse_patient(group: OrderGroup) -> PatientFacts:
    """Return who the patient is."""
    named = [each for each in group.head if each.name == "PID"]
    if not named:
        return PatientFacts()
    segment = named[0]
    if len(named) > 1:
        group.faults.append(("PID", "is there for two patients before the order: whose it is, is not said"))
    told = facts_of_pid(segment)
    found = _identifiers(segment, told)
    if not found and segment.text(int(told.field[-1])):
        group.faults.append((told.field, FORMER_ALONE if told.numbers else NOBODYS + printable(told.kinds, 60)))
    number = next((each["value"] for each in found if "system" not in each), found[0]["value"] if found else "")
    if told.unread.strip("0"):
        group.warnings.append(("PID-7", f"is not a date, so it is not compared: '{printable(told.unread, 40)}'"))
    facts = without_empty(identifiers=found, name=told.name, birth_date=told.birth_date, sex=told.sex)
    if "birth_date" not in facts and (age := _age(group)) is not None:
        facts["age"] = age
    return PatientFacts(facts, number, told.name, told.field)


def _age(group: OrderGroup) -> Number | None:
    """Return the age in years that an OBX segment states; None if none does."""
    for segment in group.all("OBX"):
        if facts_of_obx(segment).kind == AGE_KIND:
            value, unit = number(segment.text(5) or segment.text(5, 2)), YEARS_OF.get(segment.text(6).lower() or "a")
            return float(value) * unit if value is not None and unit and 0 <= float(value) * unit <= AGE_MAX else None
    return None


def _number(text: str, encoding: Encoding) -> tuple[Facts, str, str] | None:
    """Return a number (CX) with its first and last day, "" if not said; None if it does not name a person."""
    raw = [*encoding.components(text), *[""] * 7]
    value, kind = encoding.unquoted(raw[0]), encoding.unquoted(raw[4]).upper()
    if not value or len(value) > TEXT_MAX or not NAMING.fullmatch(kind):
        return None
    # The facility (CX-6) stands in for the authority (CX-4), as before version 2.3.
    assigned = next((each for each in (raw[3], raw[5]) if each not in ("", '""')), "")
    authority = authority_of(assigned, encoding) if assigned else ""
    start, end = (each if each.isdigit() else "" for each in (encoding.unquoted(part)[:8] for part in raw[6:8]))
    return without_empty(value=value, system=authority, type=kind), start, end


def _identifiers(segment: Segment, told: PidFacts) -> list[Facts]:
    """Return the numbers that name a person: the best first, those not valid now last. Leave these out if nothing
    else could tell this person from a later holder of such a number."""
    found: list[Facts] = []
    former: list[Facts] = []
    today = datetime.now(UTC)
    latest = f"{today + timedelta(days=1):%Y%m%d}"  # today's date in the east
    for each, start, end in told.numbers:
        is_over = end != "" and end < f"{today:%Y%m%d}"[: len(end)]
        kept = former if is_over or start > latest[: len(start)] else found
        if each not in kept:
            kept.append(each)
    found.sort(key=lambda each: each.get("type") not in BEST)
    is_checked = former and (segment.text(5) or segment.text(5, 2) or segment.text(7))
    return [*found, *former] if is_checked else found


def specimen_of(group: OrderGroup, zone: tzinfo, notes: dict[int, list[Facts]]) -> Facts | str | None:
    """Return the specimen: SPM, else OBR-15; None if none is named. `notes`: those of each segment by its id."""
    inside = group.all("SPM")
    segment = inside[0] if inside else next((each for each in reversed(group.head) if each.name == "SPM"), None)
    if segment is None:
        return facts_of_obr(group.obr).specimen if group.obr else None
    encoding, type_ = segment.encoding, field_concept(segment, 4)
    types = [found for each in inside if (found := field_concept(each, 4))]
    if len({*map(specimen_kind, types)}) > 1:  # which one a result is of is not said
        return {"text": ", ".join(dict.fromkeys(map(concept_text, types)))[:TEXT_MAX]}
    # An EI whose parts are subcomponents.
    sent = (encoding.subcomponents(each) for each in encoding.components(segment.first(2)))
    numbers = (identifier_of(encoding.component.join(each), encoding) for each in sent)
    told = [f"{name}: {concept_text(each)}" for name, at in FLAWS for each in [field_concept(segment, at)] if each]
    return (type_ if isinstance(type_, dict) else without_empty(text=type_)) | without_empty(
        collected_at=iso_moment(segment.text(17), zone),
        body_site=field_concept(segment, 8),
        identifiers=[each for each in numbers if each],
        notes=[*notes.get(id(segment), ()), *({"text": each} for each in told)],
    )


def parse_notes(group: OrderGroup, zone: tzinfo) -> dict[int, list[Facts]]:
    """Return the notes (NTE) by the id of the OBX or SPM segment that they follow; those of the patient, the order and
    the message under CHECKUP. Consecutive segments of one author are the lines of one note."""
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
                notes.append({**note})
    return found


def _note(segment: Segment, zone: tzinfo) -> Facts:
    """Return a note; {} if it has no text. It is read once: a note before the orders of a message belongs to each."""
    if segment.told is None:
        segment.told = _read_note(segment, zone)
    return segment.told  # type: ignore[no-any-return]


def _read_note(segment: Segment, zone: tzinfo) -> Facts:
    text = "\n".join(map(segment.encoding.plain, segment.repetitions(3))).strip()
    if not text:
        return {}
    name, number = person_of(segment.first(5), segment.encoding, 1)
    author = name or number or AUTHORS.get(segment.text(2).upper(), "")
    return {"text": text} | without_empty(author=author, at=iso_moment(segment.text(6), zone))
