"""Read the units and reference ranges of HL7 v2 (OBX-6, OBX-7). Source: HL7 v2.8, chapter 7."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from myhealth.clinical.mdc import is_mdc_reference, mdc_unit
from myhealth.clinical.range_choice import sex_named
from myhealth.clinical.range_text import parse_range
from myhealth.clinical.units import ucum_unit
from myhealth.intake.formats.hl7v2.coded import cached
from myhealth.intake.formats.hl7v2.encoding import Encoding
from myhealth.intake.record_types import TEXT_MAX

# 10^3/uL and m^2, where the sender did not escape the power although ^ parts the components.
POWER = re.compile(r"((?<![0-9.])10|(?<![A-Za-z])[cdkm]?m)\^(-?[0-9]{1,2})(?![0-9A-Za-z.])")
RAISED = "\x1a"
RANGE_MAX = 200  # characters; what is longer is words
SIMPLE = re.compile(r"[-+]?[0-9.]+\s*(?:[-–_]|to|\.\.+)\s*[-+]?[0-9.]+", re.IGNORECASE)
# A part of a range for people of one sex or age: "M: 13-17", "Women 12 - 16", "0-1 years: 5-10", "Adults < 5".
AGE = r"[0-9]{1,3}(?:\.[0-9])?"
WHO = (
    r"(?P<sex>(?:fe)?males?|(?:wo)?m[ae]n|[mf])"
    rf"|(?P<low>{AGE})\s*(?:-|–|to)\s*(?P<high>{AGE})\s*(?P<between>years?|yrs?|y|months?|mo|weeks?|wk|days?|d)"
    rf"|(?P<beyond>[<>]=?|≥|≤|over|under)\s*(?P<age>{AGE})\s*(?P<unit>years?|yrs?|y|months?|mo|weeks?|wk|days?|d)"
    r"|(?P<group>adults?|child(?:ren)?)"
)
PART = re.compile(rf"\(?\s*(?:{WHO})\s*\)?\s*[:=]?\s*(?P<range>[-+0-9.<>≤≥].*)", re.IGNORECASE)
SEPARATOR = re.compile(
    r"\s*[;,/|\n](?!\s*[0-9.]+\s*$)\s*|\s+(?=(?:fe)?males?\b|(?:wo)?m[ae]n\b|[mf]\s*:)", re.IGNORECASE
)
AGE_UNITS = {"y": "a", "m": "mo", "w": "wk", "d": "d"}


@cached
def unit_of(text: str, encoding: Encoding) -> tuple[str | None, str | None]:
    """Return the unit (OBX-6) in UCUM if that is certain, else as sent; and as sent, if that differs.

    Worked examples: "266016^MDC_DIM_MMHG^MDC^mm[Hg]^mm[Hg]^UCUM" is mm[Hg], "mmol/L^^ISO+" mmol/L, "10^3/uL" 10*3/uL.
    """
    if encoding.component == "^" and "^" in text:
        text = POWER.sub(rf"\1{RAISED}\2", text)
    coded = [part.replace(RAISED, "^") for part in (*encoding.parts(text), *[""] * 6)]
    first = "" if len(coded[0]) > 2 and coded[0].isdigit() and coded[1] else coded[0]  # a code in numbers is no unit
    sent = first or coded[1] or coded[3] or coded[4]
    for code, words, system in (coded[:3], coded[3:6]):
        if code and system.upper() == "UCUM":
            return code, _differing(words or sent, code)
    for code, words, system in (coded[:3], coded[3:6]):
        if (system.upper() == "MDC" or is_mdc_reference(words or code)) and (found := mdc_unit(code, words)):
            return found, _differing(words or code, found)
    found = ucum_unit(sent) or sent
    return found or None, _differing(sent, found)


def _differing(sent: str, unit: str) -> str | None:
    return sent[:TEXT_MAX] if sent and sent != unit else None


def range_of(text: str, unit: str | None) -> dict[str, Any]:
    """Return `low` and `high` of a reference range in words, and `range_text` where the numbers do not say it all;
    `ranges`, where it differs by sex or age.

    Worked examples: "70_105" is 70 to 105, "<5" has high 5 and its text, "negative" only its text, "M: 13-17; F: 12-16"
    two ranges, one of each sex, and its text.
    """
    text = text.strip()
    if len(text) > RANGE_MAX:
        return {"low": None, "high": None, "range_text": text}
    return _range_of(text, unit)


@lru_cache(maxsize=2048)
def _range_of(text: str, unit: str | None) -> dict[str, Any]:
    found: dict[str, Any] = {"low": None, "high": None}
    if not text or not any(map(str.isalnum, text)):  # "-" stands for none
        return found
    plain = parse_range(text, unit)
    if plain is not None:
        found["low"], found["high"] = plain
        if SIMPLE.fullmatch(text.removesuffix(unit or "").strip()):
            return found
    elif parts := conditional_ranges(text, unit):
        found["ranges"] = parts
    return found | {"range_text": text}


def conditional_ranges(text: str, unit: str | None) -> list[dict[str, Any]]:
    """Return the ranges of people of one sex or age that a text lists; none if a part of it is anything else."""
    found = []
    for part in SEPARATOR.split(text.strip(" ;,")):
        match = PART.fullmatch(part.strip())
        bounds = parse_range(match["range"].strip(" ()"), unit) if match else None
        if match is None or bounds is None:
            return []
        ends = {name: end for name, end in zip(("low", "high"), bounds, strict=True) if end is not None}
        found.append({**ends, "text": part.strip(), **_condition(match)})
    return found


def _condition(match: re.Match[str]) -> dict[str, Any]:
    if match["sex"]:
        return {"sex": sex_named(match["sex"])}
    if match["group"]:
        return {"age_low": 18} if match["group"].lower().startswith("adult") else {"age_high": 17}
    unit = AGE_UNITS[(match["between"] or match["unit"])[0].lower()]
    if match["between"]:
        return {"age_low": _age(match["low"]), "age_high": _age(match["high"]), "age_unit": unit}
    older = match["beyond"][0] in ">≥" or match["beyond"].lower() == "over"
    return {"age_low" if older else "age_high": _age(match["age"]), "age_unit": unit}


def _age(text: str) -> int | float:
    return int(text) if text.isdigit() else float(text)
