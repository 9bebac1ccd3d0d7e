"""Read what was examined: SPM, else OBR-15. Source: HL7 v2.8, chapter 7 (SPM), and table 0070 of earlier versions."""

from __future__ import annotations

from datetime import tzinfo
from typing import Any

from myhealth.clinical.coding_systems import HL7_TABLE
from myhealth.intake.formats.hl7v2.coded import Facts, concept, concept_of, identifier_of, label_of, without_empty
from myhealth.intake.formats.hl7v2.grouping import OrderGroup
from myhealth.intake.formats.hl7v2.moments import iso_moment
from myhealth.intake.formats.hl7v2.segments import Segment
from myhealth.intake.record_types import TEXT_MAX

SOURCES = {
    "BLD": "Whole blood",
    "BLDV": "Blood venous",
    "BLDC": "Blood capillary",
    "BLDA": "Blood arterial",
    "SER": "Serum",
    "PLAS": "Plasma",
    "PLR": "Plasma",
    "UR": "Urine",
    "CSF": "Cerebral spinal fluid",
    "SAL": "Saliva",
    "SPT": "Sputum",
    "STL": "Stool",
    "THRT": "Throat",
    "NOS": "Nose",
}


def specimen_of(group: OrderGroup, zone: tzinfo, notes: dict[int, list[Facts]]) -> Facts | str | None:
    """Return the specimen; None if the source names none. `notes`: those of each segment, by its id."""
    inside = group.all("SPM")
    segment = inside[0] if inside else next((each for each in reversed(group.head) if each.name == "SPM"), None)
    if segment is None:
        return next((found for each in group.all("OBR") if (found := _source(each))), None)
    type_ = concept(segment, 4)
    facts: dict[str, Any] = dict(type_) if isinstance(type_, dict) else without_empty(text=type_)
    numbers = [
        each
        for text in segment.encoding.components(next(iter(segment.repetitions(2)), ""))
        if (each := _number(text, segment))
    ]
    return facts | without_empty(
        collected_at=iso_moment(segment.text(17), zone),
        body_site=concept(segment, 8),
        identifiers=numbers,
        notes=notes.get(id(segment)),
    )


def _number(text: str, segment: Segment) -> Facts | None:
    """Return a specimen's number: an EI whose parts are subcomponents."""
    encoding = segment.encoding
    found = identifier_of(encoding.component.join(encoding.subcomponents(text)), encoding) if text else None
    return found if found is None else dict(found)


def _source(segment: Segment) -> Facts | str | None:
    """Return the specimen source of OBR-15: a code whose parts are subcomponents, else free text."""
    encoding = segment.encoding
    raw = [*encoding.components(next(iter(segment.repetitions(15)), "")), *[""] * 3]
    text = encoding.component.join(encoding.subcomponents(raw[0]))
    label = label_of(text, encoding)
    if label.upper() in SOURCES:
        code = label.upper()
        return {"text": SOURCES[code], "codings": [{"system": f"{HL7_TABLE}0070", "code": code}]}
    parts = encoding.parts(text)
    found = concept_of(text, encoding) if len(parts) > 2 and parts[2] else None
    words = label or encoding.plain(raw[2]).strip()
    return found or (words[:TEXT_MAX] if any(map(str.isalpha, words)) else None)
