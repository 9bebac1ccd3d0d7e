"""The value, the codes, the interpretations and the ranges of a result, as FHIR. Pure.

Marks and ranges that our catalogue added are not the source's, so they stay here. Source: HL7 FHIR R4 (4.0.1),
"Observation".
"""

import json
import re
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

from myhealth.clinical.absent_reasons import ABSENT_URI, NO_VALUE, absent_code
from myhealth.clinical.catalog import source_flag
from myhealth.clinical.coding_systems import LOINC, LOINC_CODE, UCUM, uri_of
from myhealth.clinical.interpretations import V3_URI
from myhealth.clinical.range_text import parse_range
from myhealth.clinical.units import is_ucum
from myhealth.common.decoding import exact_number

Element = dict[str, Any]
CODE_PATTERN = re.compile(r"\S+(?: \S+)*")
URI_PATTERN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S+")  # absolute, as FHIR requires
CONTROL_PATTERN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")  # not allowed in FHIR's strings
IDENTIFIER_TYPES = "http://terminology.hl7.org/CodeSystem/v2-0203"
DATE_TIME_PATTERN = re.compile(
    r"[0-9]{4}(?:-(?:0[1-9]|1[0-2])(?:-(?:0[1-9]|[12][0-9]|3[01])"
    r"(?:T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]+)?(?:Z|[+-](?:0[0-9]|1[0-3]):[0-5][0-9]|[+-]14:00))?)?)?"
)
TIME_PATTERN = re.compile(r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]+)?")


def details_of(report: Element) -> Element:
    """Return the details of a report, {} if it has none."""
    details = report.get("details")
    return details if isinstance(details, dict) else {}


def compact(**parts: Any) -> Element:
    """Return the parts that are not empty. FHIR has no empty elements."""
    return {name.rstrip("_"): value for name, value in parts.items() if value not in (None, "", [], {})}


def clean(value: Any) -> str:
    """Return the stripped text, "" for anything else."""
    return without_controls(value.strip()) if isinstance(value, str) else ""


def without_controls(text: str) -> str:
    return CONTROL_PATTERN.sub("\ufffd", text)


def parts(value: Any) -> list[Any]:
    """Return the entries of a list that are objects or texts, none for anything else."""
    return [each for each in value if isinstance(each, (dict, str))] if isinstance(value, list) else []


def code(value: Any) -> str:
    return found if CODE_PATTERN.fullmatch(found := clean(value)) else ""


def uri(value: Any) -> str:
    return found if URI_PATTERN.fullmatch(found := clean(value)) else ""


def date_time(value: Any) -> str:
    """Return a moment as it was sent, if it is one of FHIR's."""
    return found if DATE_TIME_PATTERN.fullmatch(found := clean(value)) else ""


def coding_element(value: Any) -> Element:
    """Return a Coding; a system by a name of HL7 v2 gets its URI."""
    if not isinstance(value, dict):
        return {}
    return compact(
        system=system_of(value.get("system")),
        version=clean(value.get("version")),
        code=code(value.get("code")),
        display=clean(value.get("display")),
    )


def coding_elements(value: Any) -> list[Element]:
    return [found for each in parts(value) if (found := coding_element(each))]


def concept_element(value: Any) -> Element:
    if not isinstance(value, dict):
        return compact(text=clean(value))
    return compact(coding=coding_elements(value.get("codings")), text=clean(value.get("text")))


def concept_elements(value: Any) -> list[Element]:
    return [found for each in parts(value) if (found := concept_element(each))]


def identifier_elements(value: Any) -> list[Element]:
    found = []
    for each in parts(value):
        if isinstance(each, dict) and clean(each.get("value")):
            kind = code(each.get("type"))
            type_ = {"coding": [{"system": IDENTIFIER_TYPES, "code": kind}]} if kind else {}
            found.append(compact(type=type_, system=system_of(each.get("system")), value=clean(each["value"])))
    return found


def system_of(value: Any) -> str:
    return uri(value) or uri(uri_of(clean(value)))


def is_finite_number(value: Any) -> bool:
    if isinstance(value, Decimal):
        return value.is_finite()
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def quantity(number: Any, unit: Any, text: Any = None, unit_coding: Any = None) -> Element:
    """Return a number with its unit: as it was sent, and coded if it is UCUM or was coded otherwise."""
    unit = clean(unit)
    coded: Element = {"system": UCUM, "code": unit} if is_ucum(unit) else {}
    if isinstance(unit_coding, dict):
        coded = compact(system=uri(unit_coding.get("system")), code=code(unit_coding.get("code")))
    return compact(unit=clean(text) or unit, **coded) | ({"value": number} if is_finite_number(number) else {})


def stored_quantity(value: Any) -> Element:
    """Return a Quantity that is a part of a value."""
    if not isinstance(value, dict):
        return {}
    found = quantity(*(value.get(name) for name in ("value", "unit", "unit_text", "unit_coding")))
    comparator = value.get("comparator")
    return found | ({"comparator": comparator} if comparator in ("<", "<=", ">", ">=") else {})


def notes(value: Any) -> list[Element]:
    return [
        compact(authorString=clean(each.get("author")), time=date_time(each.get("at")), text=clean(each["text"]))
        for each in parts(value)
        if isinstance(each, dict) and clean(each.get("text"))
    ]


def party(value: Any) -> Element:
    """Return a Reference to a person or an organisation. A relative address of the source's means nothing here."""
    if not isinstance(value, dict):
        return compact(display=clean(value))
    return compact(
        reference=uri(value.get("reference")),
        type=code(value.get("kind")),
        identifier=next(iter(identifier_elements(value.get("identifiers"))), None),
        display=clean(value.get("name")) or clean(value.get("reference")),
    )


def has_role(value: Any) -> bool:
    """Return whether a party interpreted the results, rather than produced them."""
    return isinstance(value, dict) and value.get("role") == "resultsInterpreter"


def instant(value: Any, offset: Any = None) -> str:
    """Return an instant, in the zone that is so many minutes east of UTC; "" if the value is not a moment."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return ""
    if not isinstance(value, datetime) or value.tzinfo is None:
        return ""
    if isinstance(offset, int) and abs(offset) < 14 * 60:
        value = value.astimezone(timezone(timedelta(minutes=offset)))
    found: str = value.isoformat(timespec="milliseconds" if value.microsecond else "seconds")
    return found.replace("+00:00", "Z")


def moment(value: Any, precision: Any, offset: Any = None) -> str:
    """Return a moment with only the precision that is known; "" if it is not known at all."""
    found = "" if precision == "unknown" else instant(value, None if precision else offset)
    return found[: {"year": 4, "month": 7, "day": 10}.get(str(precision), 40)]


def effective(source: Element, offset: Any = None) -> Element:
    """Return effectiveDateTime or effectivePeriod of a check-up or a result; {} if its moment is not known."""
    precision = source.get("taken_precision")
    start, end = (moment(source.get(name), precision, offset) for name in ("taken_at", "taken_until"))
    if start and end:
        return {"effectivePeriod": {"start": start, "end": end}}
    return compact(effectiveDateTime=start)


GENDER_URI = "http://hl7.org/fhir/administrative-gender"
FLAG_WORDS = {"L": "Low", "H": "High", "LL": "Critical low", "HH": "Critical high", "N": "Normal", "A": "Abnormal"}
DECIMAL_PATTERN = r"-?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
BOUND_PATTERN = re.compile(rf" *(<=|>=|<|>|≤|≥) *({DECIMAL_PATTERN}) *")
RANGE_PATTERN = re.compile(rf"({DECIMAL_PATTERN}) - ({DECIMAL_PATTERN})")
INT32 = 2**31


def measured(result: Element) -> Element:
    return {
        "code": code_element(result),
        **value_of(result),
        **compact(interpretation=interpretation_elements(result), referenceRange=ranges_of(result)),
    }


def code_element(result: Element) -> Element:
    """Return all codes as they were sent; of a device's code also the LOINC code that it means here."""
    name, loinc, other = clean(result.get("name")), code(result.get("code")), code(result.get("other_code"))
    found = coding_elements(result.get("codings"))
    system = LOINC if loinc and LOINC_CODE.fullmatch(loinc) else result.get("code_system")  # GLU is no code of LOINC
    own = coding_element({"system": system, "code": loinc or other})
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
    if not isinstance(flag, str) or flag not in FLAG_WORDS:
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
        text = clean(result.get("range_text"))
        if not chosen:
            unit = clean(result.get("unit_text") or result.get("unit"))
            is_meant = text and parse_range(text, unit) == (own["low"], own["high"])
            found.insert(0, _range_element(own, result) | ({"text": text} if is_meant else {}))
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
