"""The value, the codes, the interpretations and the ranges of a result, as FHIR. Pure.

Marks and ranges that our catalogue added are not the source's, so they stay here. Source: HL7 FHIR R4 (4.0.1),
"Observation".
"""

import json
import re
from typing import Any

from myhealth.clinical.absent_reasons import ABSENT_URI, NO_VALUE, absent_code
from myhealth.clinical.catalog import source_flag
from myhealth.clinical.coding_systems import LOINC, uri_of
from myhealth.clinical.interpretations import V3_URI
from myhealth.common.exact_numbers import exact_number
from myhealth.reports.export.fhir_types import (
    TIME_PATTERN,
    Element,
    clean,
    code,
    coding_element,
    coding_elements,
    compact,
    concept_element,
    concept_elements,
    date_time,
    is_finite_number,
    parts,
    quantity,
    stored_quantity,
    without_controls,
)

GENDER_URI = "http://hl7.org/fhir/administrative-gender"
FLAG_WORDS = {"L": "Low", "H": "High", "LL": "Critical low", "HH": "Critical high", "N": "Normal", "A": "Abnormal"}
DECIMAL_PATTERN = r"-?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
BOUND_PATTERN = re.compile(rf" *(<=|>=|<|>|≤|≥) *({DECIMAL_PATTERN}) *")
RANGE_PATTERN = re.compile(rf"({DECIMAL_PATTERN}) - ({DECIMAL_PATTERN})")
INT32 = 2**31


def measured(result: Element) -> Element:
    """Return what an Observation and a component have alike."""
    return {
        "code": code_element(result),
        **value_of(result),
        **compact(interpretation=interpretation_elements(result), referenceRange=ranges_of(result)),
    }


def code_element(result: Element) -> Element:
    """Return all codes as they were sent; of a device's code also the LOINC code that it means here."""
    name, loinc, other = clean(result.get("name")), code(result.get("code")), code(result.get("other_code"))
    found = coding_elements(result.get("codings"))
    own = (
        {"system": LOINC, "code": loinc}
        if loinc
        else coding_element({"system": result.get("code_system"), "code": other})
    )
    if own.get("code") and not any(_same(each, own) for each in found):
        found.append(own)  # a display would have to be the system's own name
    return compact(coding=found, text=name or clean(result.get("code")) or other or "Result")


def _same(one: Element, other: Element) -> bool:
    return one.get("code") == other["code"] and uri_of(one.get("system", "")) == uri_of(other.get("system", ""))


def interpretation_elements(result: Element) -> list[Element]:
    sent = parts(result.get("interpretations"))
    if sent:
        found = ({"codings": [each], "text": each.get("text")} for each in sent if isinstance(each, dict))
        return [element for each in found if (element := concept_element(each))]
    flag = source_flag(result)
    if flag not in FLAG_WORDS:
        return []
    return [{"coding": [{"system": V3_URI, "code": flag, "display": FLAG_WORDS[flag]}]}]


def value_of(result: Element) -> Element:
    """Return the value in the type in which it was sent, or the reason of its absence."""
    for name, write in WRITERS.items():
        if name in result and (found := write(result)):
            return dict(found)
    value, unit = result.get("value"), clean(result.get("unit"))
    if is_finite_number(value):
        if result.get("value_type") == "integer" and isinstance(value, int) and abs(value) < INT32:
            return {"valueInteger": value}
        return {"valueQuantity": _amount(value, result)}
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    reason = result.get("absent_reason")
    if value is None or not text.strip() or (reason and value in (reason, NO_VALUE)):
        return {"dataAbsentReason": _absent_reason(result)}
    bound = None if result.get("value_type") == "string" else BOUND_PATTERN.fullmatch(text)
    if bound:
        comparator = bound[1].replace("≤", "<=").replace("≥", ">=")
        return {"valueQuantity": {**_amount(_json_number(bound[2]), result), "comparator": comparator}}
    if unit and (match := RANGE_PATTERN.fullmatch(text)):
        return {
            "valueRange": {
                "low": _amount(_json_number(match[1]), result),
                "high": _amount(_json_number(match[2]), result),
            }
        }
    return {"valueString": without_controls(text), **({"note": [{"text": f"Unit: {unit}"}]} if unit else {})}


def _amount(value: Any, result: Element) -> Element:
    return quantity(value, *(result.get(name) for name in ("unit", "unit_text", "unit_coding")))


def _absent_reason(result: Element) -> Element:
    if found := concept_element(result.get("absent_coded")):
        return found
    reason, sent = clean(result.get("absent_reason")), clean(result.get("absent_code"))
    known = absent_code(sent) if sent else None
    return compact(coding=[{"system": ABSENT_URI, "code": known}] if known else [], text=reason or "no value")


def _json_number(text: str) -> Any:
    return int(text) if re.fullmatch(r"-?[0-9]{1,15}", text) else exact_number(text)


def _pair(value: Any, *names: str) -> Element:
    """Return the Quantities of a Ratio or a Range."""
    return compact(**{name: stored_quantity(value.get(name)) for name in names}) if isinstance(value, dict) else {}


def _moment_value(result: Element) -> Element:
    text = result["value_moment"]
    is_time = isinstance(text, str) and TIME_PATTERN.fullmatch(text)
    return {"valueTime": text} if is_time else compact(valueDateTime=date_time(text))


def _period_value(result: Element) -> Element:
    value = result["value_period"]
    ends = {name: date_time(value.get(name)) for name in ("start", "end")} if isinstance(value, dict) else {}
    return compact(valuePeriod=compact(**ends))


def _samples_value(result: Element) -> Element:
    """Return the series whose numbers are the value."""
    value = result["value_samples"]
    origin = {"value": 0} | stored_quantity(value.get("origin")) if isinstance(value, dict) else {}
    if not origin or not is_finite_number(value.get("period")):
        return {}
    names = {"factor": "factor", "lower": "lowerLimit", "upper": "upperLimit"}
    numbers = {theirs: value[ours] for ours, theirs in names.items() if is_finite_number(value.get(ours))}
    dimensions = value.get("dimensions")
    whole = {"origin": origin, "period": value["period"], **numbers, "dimensions": dimensions or 1}
    return {"valueSampledData": whole | compact(data=clean(result.get("value")))}


WRITERS: dict[str, Any] = {
    "value_coded": lambda result: compact(valueCodeableConcept=concept_element(result["value_coded"])),
    "value_boolean": lambda result: (
        {"valueBoolean": result["value_boolean"]} if isinstance(result["value_boolean"], bool) else {}
    ),
    "value_ratio": lambda result: compact(valueRatio=_pair(result["value_ratio"], "numerator", "denominator")),
    "value_range": lambda result: compact(valueRange=_pair(result["value_range"], "low", "high")),
    "value_moment": _moment_value,
    "value_period": _period_value,
    "value_samples": _samples_value,
}


def ranges_of(result: Element) -> list[Element]:
    """Return all ranges of the source, with the conditions under which each holds."""
    sent = [each for each in parts(result.get("ranges")) if isinstance(each, dict)]
    found = [_range_element(each, result) for each in sent]
    own = {name: result.get(name) for name in ("low", "high")}
    chosen = any({name: each.get(name) for name in own} == own for each in sent)
    if "range_source" not in result:
        if not chosen:
            found.insert(0, _range_element(own, result))
        text = clean(result.get("range_text"))
        if text and text not in (each.get("text") for each in found):
            found.append({"text": text})
    return [each for each in found if each]


def _range_element(each: Element, result: Element) -> Element:
    """Return one range. Without a unit of its own it has the result's."""
    source = each if each.get("unit") else result | {"unit_text": each.get("unit_text") or result.get("unit_text")}
    ends = {name: _amount(each[name], source) for name in ("low", "high") if is_finite_number(each.get(name))}
    applies = concept_elements(each.get("applies_to"))
    if each.get("sex") in ("male", "female", "other", "unknown"):
        sex = concept_element(each.get("sex_coded")) or {"coding": [{"system": GENDER_URI, "code": each["sex"]}]}
        applies.insert(0, sex)
    years = clean(each.get("age_unit")) or "a"
    units = {"low": clean(each.get("age_low_unit")) or years, "high": years}
    ages = {end: quantity(age, unit) for end, unit in units.items() if is_finite_number(age := each.get(f"age_{end}"))}
    return ends | compact(
        type=concept_element(each.get("type")), appliesTo=applies, age=ages, text=clean(each.get("text"))
    )
