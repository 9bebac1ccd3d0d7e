"""Read what an order (OBR) says of its check-up, beside its numbers and its moments.

Source: HL7 v2.8, chapter 4 (OBR), and tables 0070 and 0074.
"""

from msgspec import Struct

from myhealth.clinical.coding_systems import HL7_TABLE
from myhealth.clinical.in_words import concept_text
from myhealth.clinical.status import report_status
from myhealth.intake.formats.controls import CONTROL, kind_of_examination, kind_of_specimen
from myhealth.intake.formats.hl7v2.coded import (
    Facts,
    codings_of,
    concept_of,
    field_concepts,
    label_of,
    name_of_coded,
    person_of,
    practitioner_of,
    without_empty,
)
from myhealth.intake.formats.hl7v2.segments import Fields, cached_without
from myhealth.intake.record_types import LIST_MAX, TEXT_MAX

_SOURCES = """BLD Whole blood, BLDV Blood venous, BLDC Blood capillary, BLDA Blood arterial, SER Serum, PLAS Plasma,
PLR Plasma, UR Urine, CSF Cerebral spinal fluid, SAL Saliva, SPT Sputum, STL Stool, THRT Throat, NOS Nose"""
SOURCES = dict(each.split(maxsplit=1) for each in _SOURCES.split(","))


class ObrFacts(Struct, frozen=True):
    """What an OBR segment says. Constant.

    `kind`: what it orders if that is not an examination of a patient, else ""; `name`: what it orders, "" if it has no
    name; `taken_by`: the name of the ordering provider, else of the interpreter, the number if unnamed; `details`: the
    facts of CheckupDetails; `specimen`: that of OBR-15.
    """

    kind: str
    name: str
    taken_by: str | None
    status: str | None
    details: Facts
    specimen: Facts | str | None


@cached_without(1, 2, 3, 6, 7, 8, 14, 22, 27, 36)
def facts_of_obr(segment: Fields) -> ObrFacts:
    encoding, ordered = segment.encoding, segment.first(4)
    control = CONTROL if segment.text(11).upper() == "Q" else ""
    taken_by, specimen = _taken_by(segment), _specimen_source(segment)
    return ObrFacts(
        kind_of_examination(label_of(segment.field(4), encoding))
        or control
        or kind_of_specimen(concept_text(specimen)),
        name_of_coded(ordered, encoding),
        taken_by,
        report_status(segment.text(25)),
        without_empty(codings=codings_of(ordered, encoding)) | _order_facts(segment, taken_by),
        specimen,
    )


def _taken_by(segment: Fields) -> str | None:
    for place in (16, 32):
        people = [person_of(each, segment.encoding, 1) for each in segment.repetitions(place)]
        if found := next(filter(None, (*(name for name, _ in people), *(number for _, number in people))), ""):
            return found
    return None


def _order_facts(order: Fields, taken_by: str | None) -> Facts:
    """Return the reasons of an order, the section that examines it, the performers besides `taken_by`, and the clinical
    information."""
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


def _specimen_source(segment: Fields) -> Facts | str | None:
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
