"""Who and what a group of HL7 v2 segments is about: the patient, whoever took it, and the machine.

Source: HL7 v2.8, chapter 3 (PID), chapter 7 (OBR, OBX) and chapter 2.A (CX, XPN, XCN, NDL).
"""

from __future__ import annotations

from myhealth.intake.formats.hl7v2.grouping import OrderGroup
from myhealth.intake.formats.hl7v2.segments import Segment
from myhealth.intake.formats.terminology import joined_name, usable_serial


def patient_of(group: OrderGroup) -> tuple[list[str], str]:
    """The numbers that the patient may be known by, best first, and the full name."""
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
    """The components of a repetition, nine at least, unescaped."""
    parts = [segment.encoding.plain(each).strip() for each in segment.encoding.components(text)]
    return ["" if part == '""' else part for part in parts] + [""] * 9


def _person(segment: Segment, text: str, family: int) -> tuple[str, str]:
    """(name, number) of a person; `family`: which component the family name is, from 0 (XPN: 0; XCN: 1)."""
    encoding = segment.encoding
    parts = encoding.components(text)
    inner = encoding.subcomponents(parts[0])
    if family and len(inner) > 1:  # NDL: the whole person stands in the first component
        parts = inner
    parts = [*parts, "", "", ""]
    names = (encoding.subcomponents(parts[family + 1])[0], encoding.subcomponents(parts[family])[0])
    found = joined_name(*(encoding.plain("" if name == '""' else name) for name in names))
    return found, "" if family == 0 else encoding.plain(parts[0]).strip()


def taken_by_of(group: OrderGroup) -> str | None:
    """The name of who ordered it (OBR-16), else of who judged it (OBR-32); the number of one without a name."""
    for segment in group.all("OBR"):
        for place in (16, 32):
            people = [_person(segment, each, 1) for each in segment.repetitions(place)]
            told = [name for name, _ in people] + [number for _, number in people]
            if any(told):
                return next(filter(None, told))
    return None


def machine_of(group: OrderGroup) -> str:
    """The instrument (OBX-18) if all results are of one, else the sending application; "" if that is no serial."""
    serials = list(dict.fromkeys(filter(None, (segment.text(18) for segment in group.all("OBX")))))
    if len(serials) == 1:
        return usable_serial(serials[0])
    application, facility = group.head[0].text(3), group.head[0].text(4)
    return usable_serial(f"{application}@{facility}" if facility else application) if application else ""
