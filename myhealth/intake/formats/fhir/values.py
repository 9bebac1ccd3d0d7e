"""Read the name, the codes, the value and the ranges of an Observation or of a component.

Source: HL7 FHIR R4 (4.0.1), "Observation", and "Data Types" for the kinds of values.
"""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from myhealth.clinical.absent_reasons import ABSENT_URI, NO_VALUE
from myhealth.clinical.coding_systems import LOINC, LOINC_CODE, MDC, is_local, uri_of, v2_name_of
from myhealth.clinical.interpretations import flag_of
from myhealth.clinical.mdc import device_name, is_mdc_reference, mdc_loinc
from myhealth.clinical.ranges import parse_measurement
from myhealth.common.text import printable
from myhealth.intake.formats.fhir.element import Element, compact, concept, kind, remembered, words
from myhealth.intake.formats.fhir.facts import interpretations_of
from myhealth.intake.formats.fhir.moments import is_moment
from myhealth.intake.formats.fhir.quantities import NO_UNIT, Unit, quantity_digits, quantity_of, read_unit, span
from myhealth.intake.formats.fhir.ranges import DOUBT, ends_of, read_ranges
from myhealth.intake.formats.terminology import Number
from myhealth.intake.parsed_record import NOT_TAKEN

TIME = re.compile(r"(?:[01][0-9]|2[0-3]):[0-5][0-9](?::(?:[0-5][0-9]|60)(?:\.[0-9]+)?)?")
ABSENT_EXTENSION = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"


class Value(NamedTuple):
    """A value: a number or words, None if absent. `exact`: the fields of a result with the parts that words cannot
    express. `doubt`: its element, why it is not taken, and NOT_TAKEN."""

    value: Number | str | None = None
    unit: Unit = NO_UNIT
    exact: Mapping[str, Any] = MappingProxyType({})
    doubt: tuple[str, str, str] | None = None


def lacks_own_value(observation: Element) -> bool:
    """Return whether an Observation only groups its components or members."""
    for name, value in observation.data.items():
        if (name.startswith(("value", "_value")) or name == "dataAbsentReason") and value is not None:
            return False
    return observation.has_parts("component") or observation.has_parts("hasMember")


@remembered("code")
def observation_name(part: Element) -> str:
    """Return the name of an Observation, a component or a report. Add a fault if it has none."""
    code = part.part("code")
    loinc = (coding for coding in code.parts("coding") if uri_of(coding.text("system")) == LOINC)
    display = next((found for coding in loinc if (found := coding.text("display"))), "")
    found = code.text("text").strip() or display or words(code)
    if not found.strip():
        part.add_error("code", "has no text, display or code")
    return found


def observation_result(part: Element) -> dict[str, Any]:
    """Return the result of an Observation or a component as a record has it, without the facts of its measurement; with
    DOUBT, if its units contradict each other."""
    value = _observed_value(part)
    if value.value is None and not value.unit.code:
        value = value._replace(unit=_unit_of_ranges(part))
    result = tested(part, value.unit.code) | {"value": value.value}
    ranges, interpretations = read_ranges(part, value.unit), interpretations_of(part)
    result |= {"unit": None, **value.unit.fields(), **ranges, "flag": flag_of(interpretations), **value.exact}
    if doubt := ranges.get(DOUBT):
        result[DOUBT] = (part.path + doubt[0], *doubt[1:])
    if interpretations:
        result["interpretations"] = interpretations
    return result | _read_absent_reason(part, value)


@remembered("code")
def tested(part: Element, unit: str = "") -> dict[str, Any]:
    """Return the codes and the name of what an Observation, a component or a report tells of."""
    codes = _observation_codes(part.part("code"), unit)
    return {**codes, "name": _shown_name(part, codes["code"])}


def _observation_codes(code: Element, unit: str = "") -> dict[str, Any]:
    """Return `code` if there is a LOINC code, or a device's code that stands for one; else `other_code` and
    `code_system`.

    `codings`: all as sent, if these do not express all.
    """
    found = code.codings()
    own = [each for each in found if "code" in each]
    of_loinc = [each["code"].strip() for each in own if uri_of(each.get("system", "")) == LOINC]
    loinc = next(filter(LOINC_CODE.fullmatch, of_loinc), None)
    devices = own or [{"code": code.text("text")}]
    loinc = loinc or next(filter(None, (_device_loinc(each, code.text("text"), unit) for each in devices)), None)
    result: dict[str, Any] = {"code": loinc}
    if loinc is None and own:
        result["other_code"] = own[0]["code"]
        named = own[0].get("system", "")
        result |= compact(code_system=v2_name_of(named) if is_local(named) else named)
    system = LOINC if loinc else own[0].get("system") if own else None
    told = compact(system=system, code=loinc or result.get("other_code"))
    return result if found in ([], [told]) else {**result, "codings": found}


def _device_loinc(coding: dict[str, Any], text: str, unit: str) -> str | None:
    reference = next(filter(is_mdc_reference, (coding.get("display", ""), text)), "")
    if uri_of(coding.get("system", "")) != MDC and not is_mdc_reference(coding["code"]):
        return None
    return mdc_loinc(coding["code"], reference, unit)


def _shown_name(part: Element, code: str | None) -> str:
    """Return the name; in place of a device's term or of a bare code, the catalogue's name."""
    name = observation_name(part)
    codes = {each["code"] for each in part.part("code").codings() if "code" in each}
    return (device_name(code) if is_mdc_reference(name) or name in codes else None) or name


def _read_absent_reason(part: Element, value: Value) -> dict[str, Any]:
    """Return the reason why a value is absent, as its own field and as the value; {} if there is a value.

    The reason may be in an extension in place of the value.
    """
    if value.doubt:
        return {"value": NO_VALUE, "absent_reason": value.doubt[1], DOUBT: value.doubt}
    reason, found = part.part("dataAbsentReason"), dict[str, Any]()
    text, code = "", ""
    if reason:
        text, code = words(reason), next(filter(None, (each.text("code") for each in reason.parts("coding"))), "")
    if not text:
        places = [part.part(name) for name in part.data if name[:6] == "_value"]
        if isinstance(sent := part.data.get("valueQuantity"), dict) and ("extension" in sent or "_value" in sent):
            quantity = part.part("valueQuantity")
            places += [quantity, quantity.part("_value")]
        extensions = [extension for place in places for extension in place.parts("extension")]
        given = (each.text("valueCode") for each in extensions if each.text("url") == ABSENT_EXTENSION)
        text = code = next(given, "") if extensions else ""
    if text or code:
        found = compact(absent_reason=text, absent_code=code)
    told = reason.codings() if reason else []
    if told and told != [{"system": ABSENT_URI, "code": code}]:
        found["absent_coded"] = concept(reason)
    if value.value is None:
        found["value"] = found.setdefault("absent_reason", NO_VALUE)
    return found


def _unit_of_ranges(part: Element) -> Unit:
    ends = (end for each in part.parts("referenceRange") for end in ends_of(each))
    return next((unit for end in ends if (unit := read_unit(end)).code), NO_UNIT)


def _observed_value(part: Element) -> Value:
    names = [name for name, value in part.data.items() if name[:5] == "value" and value is not None]
    if not names:
        return Value()
    if len(names) > 1:
        part.add_error(names[1], f"is beside {names[0]}: which value is meant?")
    name = names[0]
    if name[5:] not in READERS:
        part.add_error(name, "is of a kind that is not known")
        return Value()
    value = READERS[name[5:]](part, name)
    doubt = value.unit.doubt  # of a Quantity, which is read already
    if not doubt and name != "valueQuantity" and name[5:] in MEASURED:
        doubt = _unit_doubt(part.part(name))
    if value.value is not None and doubt:
        return Value(doubt=(f"{part.path}.{name}", f"{value.value} is not taken: {doubt}", NOT_TAKEN))
    return value


def _unit_doubt(quantity: Element) -> str:
    """Return how the units of a Quantity, or of the parts of a Range, a Ratio or samples, contradict their codes in
    words; "" if they do not."""
    ends = ("low", "high", "numerator", "denominator", "origin")
    units = map(read_unit, (quantity, *(quantity.part(name) for name in ends if name in quantity.data)))
    return next((unit.doubt for unit in units if unit.doubt), "")


def _read_quantity(part: Element, name: str) -> Value:
    quantity = part.part(name)
    value: Number | str | None = quantity.number("value")
    if value is not None and quantity.text("comparator"):
        value = quantity_digits(quantity)
    return Value(value, read_unit(quantity))


def _read_concept(part: Element, name: str) -> Value:
    coded = concept(part.part(name))
    return Value(words(part.part(name)) or None, exact=compact(value_coded=coded))


def _read_range_value(part: Element, name: str) -> Value:
    low, high = ends_of(part.part(name))
    units = read_unit(low), read_unit(high)
    own = units[0] if units[0].code else units[1]
    exact = compact(value_range=compact(low=quantity_of(low), high=quantity_of(high)) or None)
    if not units[1].is_same(own):  # 500 mg - 2 g
        return Value(span(low, high, units) or None, exact=exact)
    return Value(span(low, high) or None, own, exact)


def _read_ratio(part: Element, name: str) -> Value:
    over, under = part.part(name).part("numerator"), part.part(name).part("denominator")
    if not quantity_digits(over) and not quantity_digits(under):
        return Value()
    ends = [f"{quantity_digits(end)} {read_unit(end).code}".strip() for end in (over, under)]
    exact = compact(numerator=quantity_of(over), denominator=quantity_of(under))
    return Value(":".join(ends), exact={"value_ratio": exact})


def _read_period(part: Element, name: str) -> Value:
    start, end = (_moment(part.part(name), each) for each in ("start", "end"))
    text = f"{start} - {end}" if start and end else f"from {start}" if start else f"until {end}" if end else None
    return Value(text, exact=compact(value_period=compact(start=start, end=end) or None))


def _read_samples(part: Element, name: str) -> Value:
    """Return a series of samples as sent: numbers with blanks between them, which are the value.

    It has the unit of its origin only if no factor or offset applies to the numbers.
    """
    sampled = part.part(name)
    origin = sampled.part("origin")
    scaled = sampled.number("factor") not in (None, 1) or origin.number("value") not in (None, 0)
    names = {"period": "period", "factor": "factor", "lower": "lowerLimit", "upper": "upperLimit"}
    numbers = {ours: sampled.number(theirs) for ours, theirs in names.items()}
    dimensions = sampled.number("dimensions")
    exact = compact(origin=quantity_of(origin), **numbers, dimensions=dimensions if type(dimensions) is int else None)
    unit = NO_UNIT if scaled else read_unit(origin)
    return Value(sampled.text("data") or None, unit, compact(value_samples=exact or None))


def _read_boolean(part: Element, name: str) -> Value:
    value = part.data[name]
    if isinstance(value, bool):
        return Value("true" if value else "false", exact={"value_boolean": value})
    part.add_error(name, f"must be true or false, not {kind(value)}")
    return Value()


def _read_integer(part: Element, name: str) -> Value:
    value = part.number(name)
    return Value(value, exact={"value_type": "integer"} if type(value) is int else {})


def _read_string(part: Element, name: str) -> Value:
    """Return a text. `value_type` keeps it a text if it reads like a measurement."""
    text = part.text(name)
    return Value(text if text.strip() else None, exact={"value_type": "string"} if parse_measurement(text) else {})


def _read_moment(part: Element, name: str) -> Value:
    text = _moment(part, name)
    return Value(text or None, exact=compact(value_moment=text))


def _moment(part: Element, name: str) -> str:
    """Return a dateTime or a time as sent. Add a fault if it is not valid."""
    text = part.text(name)
    is_one = bool(TIME.fullmatch(text)) if name == "valueTime" else is_moment(text)
    if text and not is_one:
        part.add_error(name, f"is not a {'time' if name == 'valueTime' else 'date and time'}: '{printable(text, 40)}'")
    return text


MEASURED = ("Quantity", "Range", "Ratio", "SampledData")
READERS: dict[str, Callable[[Element, str], Value]] = {
    "Quantity": _read_quantity,
    "CodeableConcept": _read_concept,
    "Boolean": _read_boolean,
    "Integer": _read_integer,
    "Range": _read_range_value,
    "Ratio": _read_ratio,
    "SampledData": _read_samples,
    "Period": _read_period,
    "String": _read_string,
    "Time": _read_moment,
    "DateTime": _read_moment,
}
