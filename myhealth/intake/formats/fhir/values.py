"""Make results of an Observation: its value and its components.

Source: HL7 FHIR R4 (4.0.1), "Observation", and "Data Types" for the kinds of values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from myhealth.intake.formats.fhir.element import Element, kind, words
from myhealth.intake.formats.terminology import NO_VALUE, Number, in_order, interpretation_flag

LOINC = ("http://loinc.org", "https://loinc.org", "urn:oid:2.16.840.1.113883.6.1")
UCUM = ("http://unitsofmeasure.org", "https://unitsofmeasure.org", "urn:oid:2.16.840.1.113883.6.8")
# The ends of the systems whose codes `interpretation_flag` knows; a laboratory's own "A" may mean anything.
FLAG_SYSTEMS = ("v3-ObservationInterpretation", "0078", "2.16.840.1.113883.5.83", "2.16.840.1.113883.12.78")
ABSENT_EXTENSION = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"


@dataclass(frozen=True, slots=True)
class Value:
    """A value as it was sent: a number or text, None if absent. `units`: all spellings of its unit."""

    value: Number | str | None = None
    unit: str = ""
    units: frozenset[str] = frozenset()


def results_of(observation: Element) -> list[dict[str, Any]]:
    """Return the results of an Observation: its own value, if it has one, and those of its components.

    An Observation without value, components and members is one result with an absent value.
    """
    components = observation.parts("component")
    found = [] if lacks_own_value(observation) else [_result(observation)]
    return found + [_result(component) for component in components]


def lacks_own_value(observation: Element) -> bool:
    """Return whether it only groups its components or members."""
    names = [name for name, value in observation.data.items() if value is not None]
    if any(name.lstrip("_")[:5] == "value" or name == "dataAbsentReason" for name in names):
        return False
    return bool(observation.parts("component") or observation.parts("hasMember"))


def name_of(part: Element) -> str:
    """Return the name of an Observation, a component or a report. Add a fault if it has none."""
    code = part.part("code")
    system_name = next((found for coding in _loinc(code) if (found := coding.text("display"))), "")
    found = code.text("text").strip() or system_name or words(code)
    if not found.strip():
        part.add_error("code", "has no text, display or code")
    return found


def interpretation(part: Element) -> tuple[str | None, str]:
    """Return the flag of the first interpretation that has one, and the words of all."""
    concepts = part.parts("interpretation")
    codes = [_flag_code(coding) for concept in concepts for coding in concept.parts("coding")]
    codes += [concept.text("text") for concept in concepts]
    flag = next((found for code in codes if (found := interpretation_flag(code))), None)
    return flag, ", ".join(filter(None, map(words, concepts)))


def _flag_code(coding: Element) -> str:
    system = coding.text("system")
    return coding.text("code") if not system or system.endswith(FLAG_SYSTEMS) else ""


def _loinc(code: Element) -> list[Element]:
    return [coding for coding in code.parts("coding") if coding.text("system").rstrip("/") in LOINC]


def _result(part: Element) -> dict[str, Any]:
    """Return the result of an Observation or a component as a record has it."""
    name, value = name_of(part), _value(part)
    low, high, range_text, range_unit = _range(part, value)
    result: dict[str, Any] = {**_code(part.part("code")), "name": name, "value": value.value}
    result["unit"] = value.unit or (range_unit if value.value is None else "") or None
    result |= {"low": low, "high": high, "flag": interpretation(part)[0]}
    reason = _absent_reason(part)
    if value.value is None:
        reason = reason or NO_VALUE
        result["value"] = reason
    if reason:
        result["absent_reason"] = reason
    if range_text:
        result["range_text"] = range_text
    return result


def _code(code: Element) -> dict[str, str | None]:
    """Return `code` if there is a LOINC code, else `other_code` and `code_system`."""
    loinc = next((text for coding in _loinc(code) if (text := coding.text("code"))), None)
    other = next((coding for coding in code.parts("coding") if coding.text("code")), None)
    found: dict[str, str | None] = {"code": loinc}
    if loinc is None and other is not None:
        found["other_code"] = other.text("code")
        if other.text("system"):
            found["code_system"] = other.text("system")
    return found


def _value(part: Element) -> Value:
    names = [name for name, value in part.data.items() if name[:5] == "value" and value is not None]
    if not names:
        return Value()
    if len(names) > 1:
        part.add_error(names[1], f"is beside {names[0]}: which value is meant?")
    name = names[0]
    if name[5:] in READERS:
        return READERS[name[5:]](part, name)
    part.add_error(name, "is of a kind that is not known")
    return Value()


def _absent_reason(part: Element) -> str:
    """Return the reason for an absent value; it may be in an extension in place of the value."""
    reason = words(part.part("dataAbsentReason"))
    if reason:
        return reason
    places = [part.part(name) for name in part.data if name[:6] == "_value"]
    if isinstance(part.data.get("valueQuantity"), dict):
        quantity = part.part("valueQuantity")
        places += [quantity, quantity.part("_value")]
    extensions = [extension for place in places for extension in place.parts("extension")]
    return next((found.text("valueCode") for found in extensions if found.text("url") == ABSENT_EXTENSION), "")


def _unit(quantity: Element) -> str:
    """Return a Quantity's unit as sent: the code if it is UCUM, because that is exact, else the text."""
    unit, code = quantity.text("unit"), quantity.text("code")
    return (code if quantity.text("system").rstrip("/") in UCUM else "") or unit or code


def _units(*quantities: Element) -> frozenset[str]:
    """Return all spellings of the unit in lower case; mmol/l is the same unit as mmol/L."""
    return frozenset(found.lower() for each in quantities for name in ("unit", "code") if (found := each.text(name)))


def _digits(quantity: Element) -> str:
    """Return a Quantity's comparator and number as text, digit by digit; "" if it has no number."""
    value = quantity.number("value")
    if value is None:
        return ""
    return quantity.text("comparator") + (repr(value) if isinstance(value, float) else str(value))


def _quantity(part: Element, name: str) -> Value:
    quantity = part.part(name)
    value: Number | str | None = quantity.number("value")
    if value is not None and quantity.text("comparator"):
        value = _digits(quantity)
    return Value(value, _unit(quantity), _units(quantity))


def _span(low: Element, high: Element) -> str:
    """Return a range in words; either end may be open."""
    first, last = _digits(low), _digits(high)
    return f"{first} - {last}" if first and last else f">={first}" if first else f"<={last}" if last else ""


def _range_value(part: Element, name: str) -> Value:
    low, high = part.part(name).part("low"), part.part(name).part("high")
    return Value(_span(low, high) or None, _unit(low) or _unit(high), _units(low, high))


def _ratio(part: Element, name: str) -> Value:
    over, under = part.part(name).part("numerator"), part.part(name).part("denominator")
    if not _digits(over) and not _digits(under):
        return Value()
    ends = [f"{_digits(end)} {_unit(end)}".strip() for end in (over, under)]
    return Value(":".join(ends))


def _period(part: Element, name: str) -> Value:
    start, end = part.part(name).text("start"), part.part(name).text("end")
    return Value(f"{start} - {end}" if start and end else f"from {start}" if start else f"until {end}" if end else None)


def _sampled(part: Element, name: str) -> Value:
    """Return a series of samples as sent: numbers with blanks between them.

    It has the unit of its origin only if no factor or offset applies to the numbers.
    """
    sampled = part.part(name)
    origin = sampled.part("origin")
    scaled = sampled.number("factor") not in (None, 1) or origin.number("value") not in (None, 0)
    return Value(sampled.text("data") or None, "" if scaled else _unit(origin), _units(origin))


def _boolean(part: Element, name: str) -> Value:
    value = part.data[name]
    if isinstance(value, bool):
        return Value("true" if value else "false")
    part.add_error(name, f"must be true or false, not {kind(value)}")
    return Value()


def _text(part: Element, name: str) -> Value:
    return Value(part.text(name) or None)


READERS: dict[str, Callable[[Element, str], Value]] = {
    "Quantity": _quantity,
    "CodeableConcept": lambda part, name: Value(words(part.part(name)) or None),
    "Boolean": _boolean,
    "Integer": lambda part, name: Value(part.number(name)),
    "Range": _range_value,
    "Ratio": _ratio,
    "SampledData": _sampled,
    "Period": _period,
    **dict.fromkeys(("String", "Time", "DateTime"), _text),
}


def _range(part: Element, value: Value) -> tuple[Number | None, Number | None, str, str]:
    """Return the low and high end of the normal range, the other ranges in words, and the unit of the first range.

    The first normal range gives the ends. A range in another unit than the value's, or with its ends exchanged, stays
    in words, because it cannot be compared with the value.
    """
    ranges = part.parts("referenceRange")
    simple = next((i for i, each in enumerate(ranges) if _is_simple(each, value)), None)
    others = [_in_words(each) for i, each in enumerate(ranges) if i != simple]
    unit = next((found for each in ranges for end in _ends(each) if (found := _unit(end))), "")
    if simple is None:
        return None, None, "; ".join(filter(None, others)), unit
    low, high = (end.number("value") for end in _ends(ranges[simple]))
    return low, high, "; ".join(filter(None, others)), unit


def _ends(each: Element) -> tuple[Element, Element]:
    return each.part("low"), each.part("high")


def _is_simple(each: Element, value: Value) -> bool:
    ends = _ends(each)
    low, high = (end.number("value") for end in ends)
    meant = each.part("type")
    normal = not meant or any(coding.text("code") == "normal" for coding in meant.parts("coding"))
    normal = normal or meant.text("text").strip().lower() == "normal"
    comparable = all(not (units := _units(end)) or not value.units or units & value.units for end in ends)
    if any(end.text("comparator") for end in ends) or not normal or not comparable:
        return False
    return (low is not None or high is not None) and in_order(low, high)


def _in_words(each: Element) -> str:
    """Return a range in words: the group that it applies to, and its ends."""
    low, high = _ends(each)
    unit = _unit(low) or _unit(high)
    span = " ".join(filter(None, (_span(low, high), unit))) if _span(low, high) else ""
    age_low, age_high = _ends(each.part("age"))
    age = _span(age_low, age_high)
    group = [words(each.part("type")), *map(words, each.parts("appliesTo"))]
    if age:
        group.append(f"age {age} {_unit(age_low) or _unit(age_high)}".strip())
    text = each.text("text").strip() or span
    return ": ".join(filter(None, (", ".join(filter(None, group)), text)))
