"""Read a reference range that is given in plain words. Pure.

Only text with one possible meaning is read: two numbers with a dash or "to", or a number with a bound. "M: 13-17 F:
12-15", "see note", a titre (1:40) and a date are refused, and so is a unit that is not the result's.
"""

import re
from functools import lru_cache
from typing import Any

from myhealth.clinical.range_choice import sex_named
from myhealth.clinical.ranges import Number
from myhealth.clinical.units import series_unit
from myhealth.common.decoding import exact_number

TEXT_MAX = 100  # characters; what is longer is not plain
POINT = r"[+-]?(?:[0-9]{1,15}(?:\.(?!\.)[0-9]{0,15})?|\.[0-9]{1,15})(?:[eE][+-]?[0-9]{1,2})?"
# 1,000 may be a thousand or one: a decimal comma has one or two digits behind it, or a lone 0 before it.
COMMA = r"[+-]?(?:[0-9]{1,15},[0-9]{1,2}|0,[0-9]{3,15})(?![0-9])"
DASH = r"[-–—−‐‑_~…]|\.{2,3}|to|through"
LEAST = r">\s*(?:or)?\s*=?|=>|≥|from|at least|min(?:imum)?\.?|above|over|(?:more|greater) than(?: or equal to)?"
MOST = r"<\s*(?:or)?\s*=?|=<|≤|up ?to|at most|max(?:imum)?\.?|below|under|less than(?: or equal to)?|not more than"
LABEL = re.compile(r"(?:(?:normal|reference|ref\.?)(?: (?:range|interval|values?))?|range)\s*:?\s*", re.IGNORECASE)
MONTH = re.compile(r"0[1-9][-_](?:19|20)[0-9]{2}")


def _patterns(number: str) -> tuple[re.Pattern[str], ...]:
    """Return the patterns of two numbers, and of one. Groups `low`, `high`, and the words behind each number."""
    low, high = rf"(?P<low>{number})\s*", rf"(?P<high>{number})\s*(?P<behind>.*)"
    between = rf"(?:>=?|≥)?\s*{low}(?P<amid>\D*?|[^\s-]*?)\s*(?:{DASH}|and)\s*(?:<=?|≤)?\s*{high}"
    return tuple(
        re.compile(pattern, re.IGNORECASE)
        for pattern in (
            rf"(?:from |between )?{between}",
            rf"(?:{MOST})\s*{high}",
            rf"(?:{LEAST})\s*{low}(?P<behind>.*)",
            rf"{low}(?P<amid>\S*)\s*(?:or|and) (?:more|higher|above|over|greater)(?P<behind>)",
            rf"(?P<high>{number})\s*(?P<amid>\S*)\s*(?:or|and) (?:less|lower|below|under)(?P<behind>)",
        )
    )


RANGE_MAX = 200  # characters; what is longer is words
SIMPLE = re.compile(r"[-+]?[0-9.]+\s*(?:[-–_]|to|\.\.+)\s*[-+]?[0-9.]+", re.IGNORECASE)
PATTERNS = (*_patterns(POINT), *_patterns(COMMA))
# A part of a range for people of one sex or age: "M: 13-17", "Women 12 - 16", "0-1 years: 5-10", "Adults < 5".
AGE = r"[0-9]{1,3}(?:\.[0-9])?"
WHO = (
    r"(?P<sex>(?:fe)?males?|(?:wo)?m[ae]n|[mf])"
    rf"|(?:(?P<low>{AGE})\s*(?:-|–|to)\s*(?P<high>{AGE})|(?P<beyond>[<>]=?|≥|≤|over|under)\s*(?P<age>{AGE}))"
    r"\s*(?P<unit>years?|yrs?|y|months?|mo|weeks?|wk|days?|d)"
    r"|(?P<group>adults?|child(?:ren)?)"
)
PART = re.compile(rf"\(?\s*(?:{WHO})\s*\)?\s*[:=]?\s*(?P<range>[-+0-9.<>≤≥].*)", re.IGNORECASE)
SEPARATOR = re.compile(
    r"\s*[;,/|\n](?!\s*[0-9.]+\s*$)\s*|\s+(?=(?:fe)?males?\b|(?:wo)?m[ae]n\b|[mf]\s*:)", re.IGNORECASE
)
AGE_UNITS = {"y": "a", "m": "mo", "w": "wk", "d": "d"}


@lru_cache(maxsize=1024)
def parse_range(text: str, unit: str | None = None) -> tuple[Number | None, Number | None] | None:
    """Return (low, high), of which one may be open (None); None if the text is not a plain range. Digits are exact.

    `unit`: the result's; a unit in the text must be the same. The ends are inclusive: `<150` gives (None, 150), as all
    sources do with that text, so keep the text beside them.
    Worked examples: "(135-145)" is (135, 145), "> OR = 60" (60, None), "up to 250 mg/dl" (None, 250) of mg/dL.
    """
    plain = " ".join(text.split())
    if len(plain) > TEXT_MAX or MONTH.fullmatch(plain):
        return None
    plain = LABEL.sub("", plain, count=1) if LABEL.match(plain) else plain
    if plain[:1] + plain[-1:] in ("()", "[]"):
        plain = plain[1:-1].strip()
    for pattern in PATTERNS:
        found = pattern.fullmatch(plain)
        if found and all(_is_unit(words, unit) for name, words in found.groupdict().items() if name in WORDS):
            low, high = (_parse_bound(found.groupdict().get(end)) for end in ("low", "high"))
            return (low, high) if low is None or high is None or low <= high else None
    return None


def completed(
    low: Number | None, high: Number | None, text: str, unit: str | None
) -> tuple[Number | None, Number | None] | None:
    """Return the ends of a range with those that only its words give; None if the words say other ends.

    Worked examples: 135 and None with "135-145" are (135, 145), 4 and 6 with "3.0-4.5" contradict each other.
    """
    told = parse_range(text, unit) if text else None
    if told is None:
        return low, high
    pairs = ((low, told[0]), (high, told[1]))
    if any(None not in pair and float(pair[0]) != float(pair[1]) for pair in pairs):  # type: ignore[arg-type]
        return None
    return tuple(words if end is None else end for end, words in pairs)  # type: ignore[return-value]


WORDS = ("amid", "behind")


def _is_unit(words: str | None, unit: str | None) -> bool:
    """Return whether the words behind a number are empty, or a spelling of the unit."""
    found = (words or "").strip()
    return not found or (unit is not None and series_unit(found) == series_unit(unit))


def _parse_bound(text: str | None) -> Number | None:
    if text is None:
        return None
    sign, digits = ("-" if text[0] == "-" else ""), text.lstrip("+-").replace(",", ".")
    whole, point, fraction = digits.partition(".")
    whole = re.sub(r"^0+(?=[0-9])", "", whole) or "0"
    plain = sign + whole + (point + fraction if fraction and fraction[0] not in "eE" else fraction)
    return int(plain) if re.fullmatch("-?[0-9]+", plain) else exact_number(plain)


def conditional_ranges(text: str, unit: str | None) -> list[dict[str, Any]]:
    """Return the ranges of people of one sex or age that a text lists; [] if any part of it is something else."""
    found = []
    for part in SEPARATOR.split(text.strip(" ;,")):
        match = PART.fullmatch(part.strip())
        bounds = parse_range(match["range"].strip(" ()"), unit) if match else None
        if match is None or bounds is None:
            return []
        ends = {name: end for name, end in zip(("low", "high"), bounds, strict=True) if end is not None}
        found.append({**ends, "text": part.strip(), **_range_condition(match)})
    return found


def _range_condition(match: re.Match[str]) -> dict[str, Any]:
    if match["sex"]:
        return {"sex": sex_named(match["sex"])}
    if match["group"]:
        return {"age_low": 18} if match["group"].lower().startswith("adult") else {"age_high": 17}
    unit = AGE_UNITS[match["unit"][0].lower()]
    if match["low"]:
        return {"age_low": _parse_bound(match["low"]), "age_high": _parse_bound(match["high"]), "age_unit": unit}
    age = _parse_bound(match["age"])
    if match["beyond"][0] in ">≥" or match["beyond"].lower() == "over":
        return {"age_low": age, "age_unit": unit}
    if unit == "a" and type(age) is int and age > 1 and match["beyond"].lower() in ("<", "under"):
        return {"age_high": age - 1, "age_unit": unit} if age > 2 else {"age_high": 12 * age, "age_unit": "mo"}
    return {"age_high": age, "age_unit": unit}


def range_facts(text: str, unit: str | None) -> dict[str, Any]:
    """Return `low` and `high` of a reference range in words, and `range_text` where the numbers do not say it all;
    `ranges`, where it differs by sex or age.

    Worked examples: "70_105" is 70 to 105, "<5" has high 5 and its text, "negative" only its text, "M: 13-17; F: 12-16"
    two ranges, one of each sex, and its text.
    """
    text = text.strip()
    if len(text) > RANGE_MAX:
        return {"low": None, "high": None, "range_text": text}
    return _parse_reference_range(text, unit)


@lru_cache(maxsize=2048)
def _parse_reference_range(text: str, unit: str | None) -> dict[str, Any]:
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
