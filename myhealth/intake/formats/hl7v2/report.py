"""What a group of HL7 v2 segments says: its number, when it was taken, its results, and its report in words.

Source: HL7 v2.8, chapter 7 (OBR, OBX) and chapter 2 (NTE), and the tables named below.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import tzinfo
from typing import Any

from myhealth.clinical.report_status import status_line
from myhealth.common.text import printable
from myhealth.intake.formats.hl7v2.grouping import OrderGroup
from myhealth.intake.formats.hl7v2.segments import Segment
from myhealth.intake.formats.hl7v2.values import TEXT_TYPES, moment_of, result_of, words_of, zone_of
from myhealth.intake.formats.terminology import NO_VALUE, PartialDateTime, lines

GONE = ("D", "W")  # table 0085: the result is deleted, or was wrong (of another patient, say)
# Tables 0085 (OBX-11) and 0123 (OBR-25); what is final, corrected or the like needs no word.
STATUSES = {"P": "preliminary", "R": "not verified", "S": "partial", "I": "pending", "N": "not asked"}
ORDER_STATUSES = {"P": "preliminary", "R": "not verified", "A": "some results only", "I": "pending", "X": "cancelled"}
# A longer text is no value that could be stored (checkups/records.py); it stands in the report.
VALUE_MAX = 10_000


@dataclass(eq=False, slots=True)
class ObxResult:
    """A result as an OBX says it; a text may go on in further ones. `value`: None where it has none so far."""

    segment: Segment
    result: dict[str, Any]
    texts: list[str]


def record_id_of(group: OrderGroup) -> str:
    """Worked example: 1045813^GHH LAB, for the second OBR of the same number 1045813^GHH LAB#2, else CNTRL-3456-2."""
    order, control = group.order(), group.head[0].text(10)
    if order:
        return f"{order}#{group.number}" if group.repeated else order
    return f"{control}-{group.number}" if control else ""


def checkup_type_of(group: OrderGroup) -> str:
    """What was ordered (OBR-4), else what the first result is called. A fault where neither says anything."""
    found = [words_of(segment, 4) for segment in group.all("OBR")]
    found += [words_of(segment, 3) for segment in group.all("OBX")]
    name = next(filter(None, found), "")
    if not name:
        group.faults.append(("OBR-4", "is empty: what was examined?"))
    return name


def taken_at_of(group: OrderGroup, zone: tzinfo) -> PartialDateTime | None:
    """When it was taken: what the first result says (OBX-14), else the order (OBR-7), else the message (MSH-7).

    A moment without a zone is in that of MSH-7, or else in `zone`. A fault where a moment is none.
    """
    head = group.head[0]
    zone = zone_of(head, 7, zone)
    results = [segment for segment in group.all("OBX") if segment.text(11).upper() not in GONE]
    places = [*((each, 14) for each in results[:1]), *((each, 7) for each in group.all("OBR")), (head, 7)]
    for segment, place in places:
        if not segment.text(place).strip("0"):  # 00000000 is no day
            continue
        try:
            return moment_of(segment, place, zone)
        except ValueError:
            name = f"{segment.name}[1]-{place}" if segment.name == "OBX" else f"{segment.name}-{place}"
            group.faults.append((name, f"is no date and time: '{printable(segment.text(place), 40)}'"))
            return None
    return None


def results_of(group: OrderGroup, skipped: Counter[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """The results in their order, and those of them that are free text in words.

    The lines of a text, each an OBX of its own with the same code, are one result. A result that is not called
    anything is called what was ordered; a fault where that is not called anything either. What was deleted or was
    wrong is counted in `skipped`.
    """
    found: list[ObxResult] = []
    for place, segment in enumerate(group.all("OBX"), 1):
        if segment.text(11).upper() in GONE:
            skipped["OBX deleted or wrong"] += 1
            continue
        said = ObxResult(segment, result_of(segment), [])
        said.result["name"] = said.result["name"] or next((words_of(each, 4) for each in group.all("OBR")), "")
        if not said.result["name"]:
            group.faults.append((f"OBX[{place}]-3", "is empty: what was measured?"))
        if found and _goes_on(found[-1], said):
            found[-1].texts.append(_text(said))
        else:
            said.texts.append(_text(said))
            found.append(said)
    texts = [text for said in found if (text := _in_words(said))]
    return [result for said in found if (result := _whole(said)) is not None], texts


def _text(said: ObxResult) -> str:
    return "" if "absent_reason" in said.result else str(said.result["value"])


def _goes_on(before: ObxResult, said: ObxResult) -> bool:
    """Whether this is the next line of a text: of the same code, and with nothing of its own but the text."""
    types = {before.segment.text(2).upper(), said.segment.text(2).upper()}
    if not types <= set(TEXT_TYPES) or said.segment.text(11) == "X" or before.segment.text(11) == "X":
        return False
    own = ("value", "absent_reason")
    one, other = ({name: each for name, each in of.result.items() if name not in own} for of in (before, said))
    return one == other


def _whole(said: ObxResult) -> dict[str, Any] | None:
    """The result with its whole text; None where that is too long for a value."""
    if len(said.texts) > 1:
        text = "\n".join(said.texts).strip("\n")
        said.result["value"] = text or NO_VALUE
        if text:
            said.result.pop("absent_reason", None)
    value = said.result["value"]
    return None if isinstance(value, str) and len(value) > VALUE_MAX else said.result


def _in_words(said: ObxResult) -> str:
    """A free text as a part of the report; "" for any other result, and for a text of one word or line."""
    text = "\n".join(said.texts).strip()
    short = len(said.texts) == 1 and len(text) <= VALUE_MAX
    if not text or (short and said.segment.text(2).upper() not in ("TX", "FT")):
        return ""
    return f"{said.result['name']}:{chr(10) if chr(10) in text else ' '}{text}"


def report_of(group: OrderGroup, texts: list[str], taken_at: PartialDateTime | None) -> str:
    """The report for people: free texts and notes, and whatever else they should know, one thing a line."""
    said = [
        status_line(ORDER_STATUSES[status]) for each in group.all("OBR") if (status := each.text(25)) in ORDER_STATUSES
    ]
    said += [*texts, *_remarks(group)]
    said.append(f"Only the {taken_at.known} is known." if taken_at and taken_at.known else "")
    return lines(*dict.fromkeys(said))


def _remarks(group: OrderGroup) -> Iterator[str]:
    """The notes, and what results are not final, each with the name of the result that it belongs to."""
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
