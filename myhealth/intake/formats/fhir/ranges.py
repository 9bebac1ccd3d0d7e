"""Read the reference ranges of an Observation, with the conditions under which each holds.

Source: HL7 FHIR R4 (4.0.1), "Observation.referenceRange".
"""

from typing import Any

from myhealth.clinical.range_choice import sex_named
from myhealth.clinical.range_text import completed, conditional_ranges
from myhealth.common.text import printable
from myhealth.intake.formats.fhir.element import Element, compact, concept, remembered
from myhealth.intake.formats.fhir.quantities import NO_UNIT, Unit, read_unit, span
from myhealth.intake.formats.terminology import in_order
from myhealth.intake.parsed_record import NOT_TAKEN

DOUBT = "doubt"
GENDER_URI = "http://hl7.org/fhir/administrative-gender"


@remembered("referenceRange")
def read_ranges(part: Element, unit: Unit) -> dict[str, Any]:
    """Return `low` and `high` of a single plain range, or its words; else all in `ranges`, of which validation chooses
    the one that holds for the patient. `unit`: the value's. DOUBT: (element in `part`, why it is not compared, code).
    """
    ranges: list[dict[str, Any]] = []
    found: dict[str, Any] = {"low": None, "high": None}
    for each in part.parts("referenceRange"):
        read = _read_range(each, unit)
        if doubt := _doubt(each, unit):
            found[DOUBT] = each.path.removeprefix(part.path), f"it is not compared: {doubt}", NOT_TAKEN
        told = conditional_ranges(read["text"], unit.code or None) if read.keys() == {"text"} else []
        ranges += told or [read]
        if len(told) > 1:
            found["range_text"] = read["text"]
    one = ranges[0] if len(ranges) == 1 else {}
    if one.keys() == {"text"}:
        return found | {"range_text": one["text"]}
    if one and one.keys() <= {"low", "high"} and in_order(one.get("low"), one.get("high")):
        return found | one
    return found | compact(ranges=ranges)


def _read_range(each: Element, unit: Unit) -> dict[str, Any]:
    low, high = ends_of(each)
    plain = not low.text("comparator") and not high.text("comparator")
    units, doubt = (read_unit(low), read_unit(high)), _doubt(each, unit)
    own = units[0] if units[0].code else units[1]
    if (units[1].code and not units[1].is_same(own)) or doubt:  # 120 g/L to 16 g/dL
        plain, own = False, NO_UNIT
    ends = (low.number("value"), high.number("value")) if plain else (None, None)
    told = f"{span(low, high)} ({doubt})" if doubt else span(low, high, units if own is NO_UNIT else ())
    words = each.text("text")
    text = words if words and printable(words, 40) not in doubt else "" if plain else told
    if not doubt:
        ends = completed(*ends, text, unit.code or None) or ends
    age_low, age_high = ages = ends_of(each.part("age"))
    low_unit, high_unit = (end.text("code") or end.text("unit") for end in ages)
    age_unit = high_unit or low_unit
    return compact(
        low=ends[0],
        high=ends[1],
        unit=own.code if not own.is_same(unit) else None,
        unit_text=own.text if own.text and (own.text != unit.text or not own.is_same(unit)) else None,
        text=text,
        type=concept(each.part("type")),
        age_low=age_low.number("value"),
        age_high=age_high.number("value"),
        age_unit=age_unit if age_unit != "a" else "",
        age_low_unit=low_unit if low_unit != age_unit else "",
        **_conditions(each),
    )


def _doubt(each: Element, unit: Unit) -> str:
    """Return why a range is not certain: its unit, or its words, which say other numbers; "" if it is."""
    ends, units = ends_of(each), [*map(read_unit, ends_of(each))]
    if doubt := next((end.doubt for end in units if end.doubt), ""):
        return doubt
    in_unit = all(end.is_same(unit) for end in units if end.code)
    low, high = (end.number("value") if in_unit and not end.text("comparator") else None for end in ends)
    words = each.text("text")
    return "" if completed(low, high, words, unit.code or None) else f"its words are {printable(words, 40)}"


def _conditions(each: Element) -> dict[str, Any]:
    """Return the sex that a range is for, and the other groups. `sex_coded`: the sex as sent, if it is not FHIR's own
    code alone."""
    found: dict[str, Any] = {"applies_to": []}
    for group in each.parts("appliesTo"):
        coded = group.codings()
        told = [coding.get("code", "") for coding in coded] + [group.text("text")]
        sexes = {sex for text in told if (sex := sex_named(text))}
        if len(sexes) == 1 and "sex" not in found:
            found["sex"] = sexes.pop()
            if group.text("text") or coded != [{"system": GENDER_URI, "code": found["sex"]}]:
                found["sex_coded"] = concept(group)
        elif made := concept(group):
            found["applies_to"].append(made)
    return found


def ends_of(each: Element) -> tuple[Element, Element]:
    return each.part("low"), each.part("high")
