"""Read the reference ranges of an Observation, with the conditions under which each holds.

Source: HL7 FHIR R4 (4.0.1), "Observation.referenceRange".
"""

from typing import Any

from myhealth.clinical.range_choice import sex_named
from myhealth.clinical.range_text import conditional_ranges, parse_range
from myhealth.intake.formats.fhir.element import Element, codings, compact, concept
from myhealth.intake.formats.fhir.quantities import NO_UNIT, Unit, read_unit, span
from myhealth.intake.formats.terminology import in_order

GENDER_URI = "http://hl7.org/fhir/administrative-gender"


def read_ranges(part: Element, unit: Unit) -> dict[str, Any]:
    """Return `low` and `high` of a single plain range, or its words; else all in `ranges`, of which validation chooses
    the one that holds for the patient. `unit`: the value's."""
    ranges: list[dict[str, Any]] = []
    found: dict[str, Any] = {"low": None, "high": None}
    for each in part.parts("referenceRange"):
        read = _read_range(each, unit)
        told = conditional_ranges(read["text"], unit.code or None) if read.keys() == {"text"} else []
        ranges += told or [read]
        if len(told) > 1:
            found["range_text"] = read["text"]
    one = ranges[0] if len(ranges) == 1 else {}
    if one.keys() == {"text"}:
        return found | {"range_text": one["text"]}
    if one and one.keys() <= found.keys() and in_order(one.get("low"), one.get("high")):
        return found | one
    return found | compact(ranges=ranges)


def _read_range(each: Element, unit: Unit) -> dict[str, Any]:
    low, high = ends_of(each)
    plain = not low.text("comparator") and not high.text("comparator")
    units = read_unit(low), read_unit(high)
    own = units[0] if units[0].code else units[1]
    if units[1].code and not units[1].is_same(own):  # 120 g/L to 16 g/dL
        plain, own = False, NO_UNIT
    ends = (low.number("value"), high.number("value")) if plain else (None, None)
    text = each.text("text") or ("" if plain else span(low, high, units if own is NO_UNIT else ()))
    if ends == (None, None):
        ends = parse_range(text, unit.code or None) or ends
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


def _conditions(each: Element) -> dict[str, Any]:
    """Return the sex that a range is for, and the other groups. `sex_coded`: the sex as sent, if it is not FHIR's own
    code alone."""
    found: dict[str, Any] = {"applies_to": []}
    for group in each.parts("appliesTo"):
        coded = codings(group)
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
