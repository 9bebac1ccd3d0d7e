"""Values, units, ranges and coded texts in words for people. Pure. Another program may have stored values of any form.

Source of the units: ucum.org, "The Unified Code for Units of Measure", tables of units.
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any

from myhealth.clinical import absent_reasons
from myhealth.clinical.range_choice import is_normal
from myhealth.clinical.ranges import ADULT_AGE, Number, as_number
from myhealth.common.text import strip_unsafe

AGE_UNITS = {"a": "years", "y": "years", "mo": "months", "wk": "weeks", "d": "days", "h": "hours"}
ONE = re.compile(r"\b(?<![.0-9])1 (year|month|week|day|hour)s")
BETWEEN_RANGES = " · "
# Words in the text of a range, beside its numbers and its unit: "Desirable: <200", but not "135 - 145 mmol/L".
WORDS = re.compile(r"[^\W\d_]{3,}(?![\w/.*\[{])")


def plain_text(value: Any) -> str:
    """Return a value as text without control characters and without those that turn the direction of the text after
    them; "" for None."""
    if value is None:
        return ""
    text = str(value)
    return (text if text.isprintable() else strip_unsafe(text)).strip()


def number_text(value: Number) -> str:
    """Return the digits as the source sent them: 5.10 stays 5.10. Decimals follow a full stop."""
    if isinstance(value, Decimal):
        return f"{value:f}" if -12 <= value.adjusted() <= 18 else str(value)
    return repr(value)


def is_missing(value: Any) -> bool:
    """Return whether a value is None or blank text."""
    return value is None or (isinstance(value, str) and not value.strip())


def value_text(value: Any, absent_reason: Any = None, absent_code: Any = None) -> str:
    """Return a value with its digits as the source sent them, or its text. A value that is missing, or only
    repeats the reason of its absence, is "not given", with the reason if there is one."""
    if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
        return number_text(value)
    reason = plain_text(absent_reason)
    if is_missing(value) or (reason and value in (reason, absent_reasons.NO_VALUE)):
        code = plain_text(absent_code)
        told = absent_reasons.absent_reason_text(code, reason)
        if reason not in (absent_reasons.NO_VALUE, code, told) and WORDS.search(reason):
            told = f"{told} ({reason})"  # in the source's words too
        return "not given" if told == absent_reasons.NO_VALUE else f"not given: {told}"
    return plain_text(value)


def range_text(low: Number | None, high: Number | None, unit: str = "") -> str:
    """Return the range in words, "90 to 120 mmHg"; "" without a range."""
    behind = f" {unit}" if unit else ""
    if low is not None and high is not None:
        return f"{number_text(low)} to {number_text(high)}{behind}"
    if high is not None:
        return f"up to {number_text(high)}{behind}"
    return f"{number_text(low)}{behind} or more" if low is not None else ""


def mappings(value: Any) -> list[Mapping[str, Any]]:
    """Return the objects of a list; none if it is no list."""
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def concept_text(concept: Any) -> str:
    """Return the words of a concept, a person or a device: text, or an object (myhealth/intake/record_types.py), of
    which the first of its text, its name, its display, its code, its number and its reference is told."""
    if not isinstance(concept, Mapping):
        return plain_text(concept)
    codings, identifiers = mappings(concept.get("codings")), mappings(concept.get("identifiers"))
    found = [concept.get("text"), concept.get("name"), *(each.get("display") for each in codings)]
    found += [*(each.get("code") for each in codings), *(each.get("value") for each in identifiers)]
    return next(filter(None, map(plain_text, [*found, concept.get("reference")])), "")


def concept_texts(concepts: Any) -> str:
    """Return the words of several concepts, each once, with commas."""
    found = map(concept_text, concepts if isinstance(concepts, list) else [])
    return ", ".join(dict.fromkeys(filter(None, found)))


def usual_range(result: Mapping[str, Any]) -> tuple[str, str]:
    """Return in words the reference range that a result is compared with, and the source's other ranges.

    If it is not known which one holds, all are in the first text: "women: 12 to 16 g/dL · men: 14 to 18 g/dL".
    """
    low, high = as_number(result.get("low")), as_number(result.get("high"))
    unit = unit_text(plain_text(result.get("unit")))
    chosen, ranges = range_text(low, high, unit), mappings(result.get("ranges"))
    if not ranges:
        text = plain_text(result.get("range_text"))
        return chosen or (f"{text} {unit}".strip() if text and result.get("range_source") else text), ""
    texts = list(dict.fromkeys(filter(None, (range_words(each, unit) for each in ranges))))
    if not chosen:
        return BETWEEN_RANGES.join(texts), ""
    same = next(
        (each for each in ranges if (as_number(each.get("low")), as_number(each.get("high"))) == (low, high)), None
    )
    own = range_words(same, unit) if same else chosen
    return own, BETWEEN_RANGES.join(text for text in texts if text != own)


def range_words(each: Mapping[str, Any], unit: str = "") -> str:
    """Return a reference range with its condition: "women, 18 years and older: 12 to 16 g/dL"."""
    text, own_unit = plain_text(each.get("text")), plain_text(each.get("unit"))
    numbers = range_text(
        as_number(each.get("low")), as_number(each.get("high")), unit_text(own_unit) if own_unit else unit
    )
    condition = condition_words(each)
    if WORDS.search(text) and text.casefold() != condition.casefold():
        has_digits = any(character.isdigit() for character in text)
        numbers = text if has_digits or not numbers else f"{text}: {numbers}"
    return ": ".join(filter(None, (condition, numbers or text)))


def condition_words(each: Mapping[str, Any]) -> str:
    """Return the condition of a reference range: "treatment", "women", "men, 18 years and older"; "" without one."""
    low, high = as_number(each.get("age_low")), as_number(each.get("age_high"))
    unit = AGE_UNITS.get(plain_text(each.get("age_unit")) or "a", plain_text(each.get("age_unit")))
    low_unit = plain_text(each.get("age_low_unit"))
    is_child = high is not None and (unit != "years" or high < ADULT_AGE)
    who = {"female": "girls" if is_child else "women", "male": "boys" if is_child else "men"}
    age = range_text(low, high, unit)
    if low is not None and high is not None and low_unit:
        age = f"{number_text(low)} {AGE_UNITS.get(low_unit, low_unit)} to {number_text(high)} {unit}"
    if low is not None and high is None:
        age = f"{number_text(low)} {unit} and older"
    age = ONE.sub(r"1 \1", age)
    sex = plain_text(each.get("sex"))
    kind = "" if is_normal(each.get("type")) else concept_text(each.get("type"))
    return ", ".join(filter(None, (kind, who.get(sex, sex), age, concept_texts(each.get("applies_to")))))


# Names of whole units.
NAMES = {
    "mm[Hg]": "mmHg",
    "Cel": "°C",
    "[degF]": "°F",
    "/min": "per minute",
    "{beats}/min": "per minute",
    "1": "",
    "[in_i]": "in",
    "[ft_i]": "ft",
    "[lb_av]": "lb",
    "[oz_av]": "oz",
    "[pH]": "pH",
    "[iU]": "IU",
    "[IU]": "IU",
    "cm[H2O]": "cmH₂O",
    "mo": "months",
    "a": "years",
}
PARTS = {"[iU]": "IU", "[IU]": "IU", "[Hg]": "Hg"}
MICRO = re.compile(r"(?<![A-Za-z])u(?=(?:mol|g|L|m|IU|U)\b)")
POWER = re.compile(r"10[*^](\d+)")
LEADING = re.compile(r"^(?=10[*^]\d)")  # a value comes before it: 6.8 ×10³/µL, not 6.8 10³/µL
SQUARE = re.compile(r"(?<=[a-zA-Z])([23])\b")
RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


@lru_cache(maxsize=1024)  # a page repeats a few units for hundreds of results
def unit_text(unit: str) -> str:
    """Return a unit as people write it: mm[Hg] as mmHg, 10*3/uL as ×10³/µL, kg/m2 as kg/m². An unknown unit stays as it
    is."""
    unit = unit.strip()
    if unit in NAMES:
        return NAMES[unit]
    # The unit of a rate's denominator stays. UCUM's other annotations are no part of the unit.
    text = re.sub(r"(?<=/)\{([^{}]*)\}", r"\1", unit)
    text = re.sub(r"\{[^{}]*\}", "", text).replace("_", " ") or unit.strip("{}")
    for code, name in PARTS.items():
        text = text.replace(code, name)
    text = MICRO.sub("µ", text)
    text = LEADING.sub("×", text)
    text = POWER.sub(lambda found: "10" + found.group(1).translate(RAISED), text)
    return SQUARE.sub(lambda found: found.group(1).translate(RAISED), text)
