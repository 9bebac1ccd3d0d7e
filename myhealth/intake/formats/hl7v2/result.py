"""Make the results of a group: an OBX segment with every fact that it has; the lines of a text are one result.

Source: HL7 v2.8, chapter 7 (OBX), and the tables named below.
"""

from collections import Counter
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import Any

from myhealth.clinical.absent_reasons import NO_VALUE
from myhealth.clinical.catalog import name_of
from myhealth.clinical.coding_systems import LOINC, MDC, uri_of
from myhealth.clinical.interpretations import flag_of
from myhealth.clinical.mdc import device_name, is_mdc_reference, mdc_loinc
from myhealth.clinical.range_text import range_facts
from myhealth.clinical.status import WITHDRAWN, result_status
from myhealth.intake.formats.hl7v2.coded import (
    Facts,
    cached,
    coded_text,
    codings_of,
    field_concept,
    field_identifiers,
    label_of,
    organization_of,
    parse_code,
    practitioner_of,
    without_empty,
)
from myhealth.intake.formats.hl7v2.encoding import Encoding
from myhealth.intake.formats.hl7v2.grouping import OrderGroup
from myhealth.intake.formats.hl7v2.left_out import kind_of_result
from myhealth.intake.formats.hl7v2.segments import Segment
from myhealth.intake.formats.hl7v2.values import TEXT_TYPES, parse_unit, parse_value
from myhealth.intake.formats.terminology import number
from myhealth.intake.parsed_record import FILE_NOT_KEPT
from myhealth.intake.record_types import LIST_MAX, TEXT_MAX, VALUE_MAX

PANEL = "85354-9"  # a blood pressure as a whole


@dataclass(eq=False, slots=True)
class ObxResult:
    """A result and its OBX segments, of which the first is number `place`. `texts`: the text of each."""

    place: int
    result: Facts
    segments: list[Segment] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def finished(self) -> Facts:
        """Return the result with its whole text."""
        if len(self.texts) > 1:
            text = "\n".join(self.texts).strip("\n")
            self.result["value"] = text or NO_VALUE
            if text:
                self.result.pop("absent_reason", None)
        return self.result

    def is_short(self) -> bool:
        """Return whether the text of the finished result is not too long for a value; it is in the report too."""
        value = self.result["value"]
        return not isinstance(value, str) or len(value) <= VALUE_MAX

    def free_text(self) -> str:
        """Return a free text for the report; "" for any other result, and for a text (ST) of one line."""
        short = len(self.texts) == 1 and len(self.texts[0]) <= VALUE_MAX
        if short and self.segments[0].text(2).upper() not in ("TX", "FT"):
            return ""
        text = "\n".join(self.texts).strip()
        if not text or self.result.get("status") == WITHDRAWN:
            return ""
        return f"{self.result['name']}:{chr(10) if chr(10) in text else ' '}{text}"


def results_of(group: OrderGroup, zone: tzinfo, skipped: Counter[str]) -> list[ObxResult]:
    """Return the results in file order.

    The lines of a text, each an OBX of its own with the same code, are one result. A result without a name gets the
    name of the order; add a fault if that has no name either. What is no result of a patient is counted in `skipped`.
    """
    found: list[ObxResult] = []
    for place, segment in enumerate(group.all("OBX"), 1):
        if kind := kind_of_result(segment.field(3), segment.encoding):
            skipped[kind] += 1
            continue
        current = ObxResult(place, parse_result(segment, zone), [segment])
        result = current.result
        if segment.text(2).upper() == "ED" and "absent_reason" not in result:
            group.warnings.append((f"OBX[{place}]-5", FILE_NOT_KEPT))
        if not result["name"]:
            orders = (label_of(each.field(4), each.encoding) for each in group.all("OBR"))
            result["name"] = next(orders, "")
        if not result["name"]:
            group.faults.append((f"OBX[{place}]-3", "is empty: what was measured?"))
        text = "" if "absent_reason" in result else str(result["value"])
        if result["code"] == PANEL and "absent_reason" in result:
            skipped["heading"] += 1  # of the values that follow it
        elif found and _continues(found[-1], current):
            found[-1].texts.append(text)
            found[-1].segments.append(segment)
        else:
            current.texts.append(text)
            found.append(current)
    return found


def _continues(before: ObxResult, current: ObxResult) -> bool:
    """Return whether this is the next line of a text: with the same code, and different only in the text. The lines of
    a long text may have numbers (OBX-4)."""
    types = {each.segments[0].text(2).upper() for each in (before, current)}
    if not types <= set(TEXT_TYPES) or "X" in (before.segments[0].text(11), current.segments[0].text(11)):
        return False
    own = ("value", "absent_reason", *(() if "ST" in types else ("sub_id", "identifiers")))
    one, other = ({name: each for name, each in of.result.items() if name not in own} for of in (before, current))
    return one == other


def parse_result(segment: Segment, zone: tzinfo) -> Facts:
    """Return the result of an OBX segment as a record has it; numbers as they were sent."""
    encoding = segment.encoding
    value = parse_value(segment, zone)
    unit, unit_text = parse_unit(segment.first(6), encoding)
    if unit is None:
        unit, unit_text = value.get("unit"), value.get("unit_text")
    for end in value.get("value_range", {}).values():
        end |= without_empty(unit=unit, unit_text=unit_text)
    observed, mdc = observed_of(segment.first(3), encoding)
    result: dict[str, Any] = {**observed, **value, "unit": unit}
    if mdc and (loinc := mdc_loinc(mdc[0], mdc[1], unit)):
        result["code"] = loinc
        for name in ("other_code", "code_system"):
            result.pop(name, None)
    if is_mdc_reference(result["name"]) or (mdc and result["name"] == mdc[0]):
        result["name"] = device_name(result["code"]) or result["name"]
    sub_id = segment.text(4)
    if sub_id:
        result["sub_id"] = sub_id[:TEXT_MAX]
        if _names_the_result(observed, sub_id):
            result["name"] = sub_id
    result |= range_facts(_range_words(segment.repetitions(7), encoding), unit_text or unit)
    result["flag"], interpretations = parse_interpretations(segment.field(8), encoding)
    if interpretations:
        result["interpretations"] = interpretations
    if unit_text:
        result["unit_text"] = unit_text
    if status := result_status(segment.text(11)):
        result["status"] = status
    if segment.text(11).upper() == "X":
        result.setdefault("absent_reason", NO_VALUE)
    return result | _circumstances(segment) if len(segment.fields) > 15 else result


def _range_words(repetitions: list[str], encoding: Encoding) -> str:
    """Return OBX-7 as one text. Two bare numbers are the ends of a range: 3.5~5.1 with ~ as the repetition mark, and
    3.5^5.1; other components are words beside each other: 3.5-5.1^mmol/L."""
    found = []
    for each in repetitions:
        parts = [part for part in encoding.parts(each) if part]
        found.append(("-" if len(parts) == 2 and None not in map(number, parts) else " ").join(parts))
    return ("-" if len(found) == 2 and None not in map(number, found) else "; ").join(found)


@cached
def observed_of(text: str, encoding: Encoding) -> tuple[Facts, tuple[str, str] | None]:
    """Return code, name and codings of what was observed (OBX-3), and its code of IEEE 11073 if LOINC's is not given.

    A code without words is named as the catalogue names it. `codings` are left out where they are LOINC's alone.
    """
    found, codings = parse_code(text, encoding), codings_of(text, encoding)
    code = found["code"]
    words = coded_text(text, encoding)
    name = words or name_of(code) or label_of(text, encoding)
    facts = {**found, "name": name}
    lone = len(codings) == 1 and codings[0].get("system") == LOINC and codings[0].get("display", name) == name
    if codings and not (lone and code):
        facts["codings"] = codings
    mdc = next(
        (
            (each["code"], each.get("display", ""))
            for each in codings
            if each.get("system") == MDC or is_mdc_reference(each.get("display") or each["code"])
        ),
        None,
    )
    return facts, None if code else mdc


def _names_the_result(observed: Facts, sub_id: str) -> bool:
    """Return whether OBX-4 has the name, as some analyzers send it: OBX-3 is empty or a bare number."""
    bare = observed["name"] in ("", observed.get("other_code"))
    return bare and not any(map(str.isalpha, observed["name"])) and any(map(str.isalpha, sub_id))


@cached
def parse_interpretations(text: str, encoding: Encoding) -> tuple[str | None, list[Facts] | None]:
    """Return our flag, and the interpretations (OBX-8, table 0078) as sent, if the flag does not say it all.

    Worked examples: "H" is (H, None), "H~U" (H, both), "<" (None, that one), for off the scale is not low.
    """
    found = []
    for each in encoding.repetitions(text)[:LIST_MAX]:
        parts = encoding.parts(each, 9)
        code, words, own = parts[0], parts[1], parts[8] or ("" if parts[0] else parts[1])
        system = uri_of(parts[2]) if code else ""
        found.append(without_empty(system=system, code=code, display=words if code else "", text=own))
    found = [each for each in found if each]
    flag = flag_of(found)
    plain = len(found) == 1 and found[0].keys() == {"code"} and found[0]["code"].upper() == flag
    return flag, None if plain or not found else found


def _circumstances(segment: Segment) -> Facts:
    """Return who produced a result, how, with what and where (OBX-15 to OBX-23).

    Some senders shift these fields: what the name of a method or a laboratory stands in decides for them.
    """
    encoding = segment.encoding
    producers = [organization_of(each, encoding) for place in (15, 23) for each in segment.repetitions(place)]
    method, observers = field_concept(segment, 17), segment.repetitions(16)
    if not method and len(observers) == 1 and _is_coded(observers[0], encoding):
        method, observers = field_concept(segment, 16), []
    instance = field_identifiers(segment, 21)
    if instance and not any(producers) and len(encoding.components(segment.field(22))) > 2:
        producers, instance = [organization_of(segment.repetitions(21)[0], encoding)], []
    people = [practitioner_of(each, encoding) for each in observers]
    numbers = field_identifiers(segment, 18)
    performers = [each for each in (*producers, *people) if each]
    unique = [each for at, each in enumerate(performers) if each not in performers[:at]]
    return without_empty(
        performers=unique[:LIST_MAX],
        method=method,
        device=without_empty(identifiers=numbers),
        body_site=field_concept(segment, 20),
        identifiers=instance,
    )


def _is_coded(text: str, encoding: Encoding) -> bool:
    """Return whether what should be a person is a coded text without a code, such as ^Hexokinase^L."""
    parts = encoding.parts(text)
    return len(parts) == 3 and not parts[0] and (parts[2] in ("L", "LN") or parts[2].startswith("99"))
