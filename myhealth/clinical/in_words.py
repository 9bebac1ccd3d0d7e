"""Values, units, ranges and coded texts in words for people. Pure. Another program may have stored values of any form.

Source of the units: ucum.org, "The Unified Code for Units of Measure", tables of units.
"""

import re
from collections.abc import Mapping
from decimal import Context, Decimal
from functools import lru_cache
from typing import Any

import msgspec

from myhealth.clinical import absent_reasons
from myhealth.clinical.range_choice import is_normal
from myhealth.clinical.ranges import ADULT_AGE, Comparison, Number, as_number
from myhealth.common.text import strip_unsafe

AGE_UNITS = {"a": "years", "y": "years", "mo": "months", "wk": "weeks", "d": "days", "h": "hours"}
ONE = re.compile(r"\b(?<![.0-9])1 (year|month|week|day|hour)s")
BETWEEN_RANGES = " · "
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
EXACT = Context(prec=5000)  # more digits than any value has
# Words in the text of a range, beside its numbers and its unit: "Desirable: <200", but not "135 - 145 mmol/L".
WORDS = re.compile(r"[^\W\d_]{3,}(?![\w/.*\[{])")
PLAIN_DIGITS = re.compile(r"-?[0-9.]{1,12}")
PROGRAM_NAME = re.compile(r"MDC(?:_[A-Z0-9]+)+")
NO_WORDS = re.compile(r"[\d_]")  # in what is a model or a program's name
CAPITALS = re.compile(r"(?<!\S)[A-Z]+(?![^\s,;:])")  # a word of letters alone
SPELLED_OUT = {"BP": "Blood pressure"}
NOT_EQUAL = re.compile(r"<>\s*(?=[-+.]?[0-9])")  # HL7 v2, the data type SN
PERSONS = "Practitioner|PractitionerRole|Organization|CareTeam|Patient|RelatedPerson|Device|Location"
REFERENCE = re.compile(rf"(?:https?://\S+/)?(?:{PERSONS})/[A-Za-z0-9.-]+|#\S+|urn:(?:uuid|oid):\S+")


class ResultTexts(msgspec.Struct, frozen=True, gc=False):
    """The texts of a result, each "" without one. `usual`: the range that it is compared with; `other_ranges`: the
    source's other ones."""

    code: str
    name: str
    value: str
    unit: str
    usual: str
    other_ranges: str


def result_texts(result: Mapping[str, Any], compared: Comparison) -> ResultTexts:
    """Return the texts of a result. `compared`: its value beside its range."""
    get = result.get
    value = value_text(get("value"), get("absent_reason"), get("absent_code"))
    code, name, unit = plain_text(get("code")), name_text(get("name")), unit_of(get("unit"))
    return ResultTexts(code, name, value, unit, *usual_range(result, compared))


def plain_text(value: Any) -> str:
    """Return a value as text without control characters and without those that turn the direction of the text after
    them; "" for None."""
    if value is None:
        return ""
    text = str(value)
    return (text if text.isprintable() else strip_unsafe(text)).strip()


def number_text(value: Number) -> str:
    """Return the digits as the source sent them: 5.10 stays 5.10. Decimals follow a full stop. A number beyond
    10¹⁹ or below 10⁻¹² is written without rows of zeros: -1.5 ×10²⁴⁵."""
    if PLAIN_DIGITS.fullmatch(text := str(value)):  # nearly all
        return text
    number = value if isinstance(value, Decimal) else Decimal(value if isinstance(value, int) else repr(value))
    power = number.adjusted()
    if not number or -12 <= power <= 18:
        return f"{number:f}"
    return f"{number.normalize(EXACT).scaleb(-power, EXACT):f} ×10{str(power).translate(RAISED)}"


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
    return NOT_EQUAL.sub("other than ", plain_text(value), 1)


def range_text(low: Number | None, high: Number | None, unit: str = "", *, is_open: bool = False) -> str:
    """Return the range in words, "90 to 120 mmHg"; "" without a range. `is_open`: its only end is not in it."""
    behind = f" {unit}" if unit else ""
    if low is not None and high is not None:
        return f"{number_text(low)} to {number_text(high)}{behind}"
    if high is not None:
        return f"{'below' if is_open else 'up to'} {number_text(high)}{behind}"
    if low is not None and is_open:
        return f"above {number_text(low)}{behind}"
    return f"{number_text(low)}{behind} or more" if low is not None else ""


def mappings(value: Any) -> list[Mapping[str, Any]]:
    """Return the objects of a list; [] if the value is not a list."""
    found = value if isinstance(value, list) else []
    return [each for each in found if type(each) is dict or isinstance(each, Mapping)]


def concept_text(concept: Any) -> str:
    """Return the words of a concept, a person or a device: a text itself; of an object
    (myhealth/intake/record_types.py) the first of its text, name, display, code, number and reference."""
    if not isinstance(concept, Mapping):
        return plain_text(concept)
    codings, identifiers = mappings(concept.get("codings")), mappings(concept.get("identifiers"))
    found = [concept.get("text"), concept.get("name"), *(each.get("display") for each in codings)]
    found += [*(each.get("code") for each in codings), *(each.get("value") for each in identifiers)]
    return next(filter(None, map(plain_text, [*found, concept.get("reference")])), "")


def known_name(name: str) -> str:
    """Return the name of a person or a device; "" for a FHIR reference, such as Practitioner/example."""
    return "" if REFERENCE.fullmatch(name) else name


def known_names(concepts: Any) -> str:
    """Return the names of persons, each once, with commas."""
    found = map(concept_text, concepts if isinstance(concepts, list) else [])
    return ", ".join(dict.fromkeys(filter(None, map(known_name, found))))


def concept_texts(concepts: Any) -> str:
    """Return the words of several concepts, each once, with commas."""
    found = map(concept_text, concepts if isinstance(concepts, list) else [])
    return ", ".join(dict.fromkeys(filter(None, found)))


def name_text(text: Any) -> str:
    """Return a name for people: MDC_FLOW_AWAY_EXP_FORCED_PEAK (ISO/IEEE 11073-10101): Flow away exp forced peak."""
    found = plain_text(text)
    return found.removeprefix("MDC_").replace("_", " ").capitalize() if PROGRAM_NAME.fullmatch(found) else found


def kind_text(text: Any) -> str:
    """Return a kind of check-up as a heading: BLOOD PRESSURE and BP read Blood pressure; ECG, BS-200E and MON_PARAM
    stay."""
    return _heading(name_text(text) or "Check-up")


@lru_cache(maxsize=1024)  # a page repeats a few kinds
def _heading(found: str) -> str:
    found = SPELLED_OUT.get(found, found)
    if not (found.isascii() and found.isupper() and len(found) > 4) or NO_WORDS.search(found):
        return found
    return CAPITALS.sub(lambda word: word[0].lower() if word.start() else word[0].capitalize(), found)


def usual_range(result: Mapping[str, Any], compared: Comparison) -> tuple[str, str]:
    """Return in words the reference range that a result is compared with, and the source's other ranges.

    If it is not known which range holds, the first text has all: "women: 12 to 16 g/dL · men: 14 to 18 g/dL".
    """
    low, high, unit = compared.low, compared.high, unit_text(plain_text(result.get("unit")))
    chosen, ranges = range_text(low, high, unit, is_open=compared.is_open), mappings(result.get("ranges"))
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


def unit_of(unit: Any) -> str:
    """Return a unit as people write it; "" unless it is text."""
    return unit_text(plain_text(unit)) if isinstance(unit, str) else ""


@lru_cache(maxsize=1024)  # a page repeats a few units for hundreds of results
def unit_text(unit: str) -> str:
    """Return a unit as people write it: mm[Hg] as mmHg, 10*3/uL as ×10³/µL, kg/m2 as kg/m². An unknown unit stays as it
    is."""
    unit = unit.strip()
    if unit in NAMES:
        return NAMES[unit]
    # The unit of a rate's denominator stays, and words without which a unit would begin with a slash, as of copies/mL.
    # UCUM's other annotations are no part of the unit.
    text = re.sub(r"(?<=/)\{([^{}]*)\}|^\{([^\W\d_][^{}]*)\}(?=/)", r"\1\2", unit)
    text = re.sub(r"\{[^{}]*\}", "", text).replace("_", " ") or unit.strip("{}")
    for code, name in PARTS.items():
        text = text.replace(code, name)
    text = MICRO.sub("µ", text)
    text = LEADING.sub("×", text)
    text = POWER.sub(lambda found: "10" + found.group(1).translate(RAISED), text)
    return SQUARE.sub(lambda found: found.group(1).translate(RAISED), text)
