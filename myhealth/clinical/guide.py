"""The tests of the catalogue in plain words of our own; which values are far outside their range; and the groups in
which people look for measurements. Pure.

Nothing here is a diagnosis: a second threshold only separates a value that is a little outside its range from one that
is far outside. Each has its source, which the pages name.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from myhealth.clinical.catalog import BY_CODE, IMPOSSIBLE, codes_of
from myhealth.clinical.ranges import ABOVE, BELOW, WITHIN, Comparison, Number, as_number, compare, parse_measurement
from myhealth.clinical.units import series_unit

SYSTOLIC, DIASTOLIC, BLOOD_PRESSURE = "8480-6", "8462-4", "85354-9"
OTHER = "Other"
LITTLE, FAR = "a little ", "far "  # how far a value is outside its range
FAR_FLAGS = {"HH": ABOVE, "LL": BELOW}
MARKED_FAR = (*FAR_FLAGS,)
# What a meter shows instead of a number beyond what it can measure.
# HIGH and LOW may be what somebody thinks of the value, so these are not far.
METER_WORDS = {"HI": (ABOVE, "far "), "HIGH": (ABOVE, ""), "LO": (BELOW, "far "), "LOW": (BELOW, "")}
# A glucose meter can measure all usual values. For other tests, a value too low to measure may be usual.
GLUCOSE = {*codes_of("2345-7"), *codes_of("1558-6"), "99504-3"}
# The first group whose words are in the name of a measurement. The catalogue's names come first, which are English.
GROUPS = (
    ("Pressure and pulse", r"pressure|pulse|heart rate|respiratory rate|breath|oxygen|spo2"),
    ("Urine", r"urin|urobilin"),
    ("Sugar", r"glucose|sugar|a1c|insulin"),
    ("Fats", r"cholest|\b[hl]dl\b|triglycerid|lipid|apolipo"),
    ("Blood", r"ha?emoglobin|ha?ematocrit|leu[ck]ocyt|erythrocyt|platelet|thrombocyt|lymphocyt|neutrophil|monocyt"
     r"|eosino|basophil|\bmch?c?v?\b|\b[wr]bc\b|ferritin|\biron\b|sedimentation|prothrombin|\binr\b"),
    ("Kidney", r"creatinin|\burea|e?gfr|glomerular|uric|urate|sodium|potassium|chloride"),
    ("Liver", r"\bal[tp]\b|\bast\b|alanine|aspartate|bilirubin|phosphatase|\bggt\b|glutamyl|albumin"),
    ("Thyroid", r"thyr|\btsh\b|\bf?t[34]\b"),
    ("Body", r"weight|height|bmi|body mass|temperature|waist|circumference"),
)  # fmt: skip
NAMES = ("Pressure and pulse", "Sugar", "Fats", "Blood", "Kidney", "Liver", "Thyroid", "Urine", "Body", OTHER)
PATTERNS = [(name, re.compile(words, re.IGNORECASE)) for name, words in GROUPS]

# Each test: what it is, then for each unit from which value on a result is far below and far above (- is never), and
# the source of these two.
_TABLE = Path(__file__).with_name("guide.txt").read_text(encoding="utf-8")


class Far(NamedTuple):
    """The bounds beyond which a result is far below (`low`) or far above (`high`) its range; None: no such bound."""

    low: float | None
    high: float | None
    source: str


class Guide(NamedTuple):
    """A test in plain words, and its second thresholds by unit."""

    about: str
    far: dict[str, Far]


def _parse_guide(block: str) -> tuple[str, Guide]:
    name, *lines = block.splitlines()
    far, text = {}, []
    for line in lines:
        if found := FAR_LINE.fullmatch(line):
            low, high = (None if word == "-" else float(word) for word in found.group(2, 3))
            far[found[1]] = Far(low, high, found[4])
        else:
            text.append(line)
    return name, Guide(" ".join(text), far)


FAR_LINE = re.compile(r"(\S+) (\S+) (\S+); (.+)")
GUIDES = dict(map(_parse_guide, _TABLE.strip().split("\n\n")))


def codes_asked(code: str) -> tuple[str, ...]:
    """Return the LOINC codes whose results belong to the trend of a code: all codes of the same test. For the panel of
    the blood pressure, return the codes of both its values."""
    return (*codes_of(SYSTOLIC), *codes_of(DIASTOLIC)) if code == BLOOD_PRESSURE else codes_of(code)


def about(code: str | None) -> str:
    """Return what the test with a LOINC code is, in plain words; "" if it is not in the catalogue."""
    return GUIDES[BY_CODE[code].name].about if code in BY_CODE else ""


def more_about(code: str) -> str:
    """Return the address of MedlinePlus Connect for a LOINC code. Source: medlineplus.gov/medlineplus-connect."""
    base = "https://connect.medlineplus.gov/application?mainSearchCriteria.v.cs=2.16.840.1.113883.6.1"
    return f"{base}&mainSearchCriteria.v.c={quote(code, safe='')}&informationRecipient.languageCode.c=en"


@lru_cache(maxsize=1024)
def far_of(code: str | None, unit: str | None) -> Far | None:
    """Return the second thresholds of a test in a unit, None if there are none."""
    if code not in BY_CODE or not unit:
        return None
    return GUIDES[BY_CODE[code].name].far.get(series_unit(unit.lower()))


def degree(code: Any, unit: Any, value: Number | None, position: str | None, bound: Number | None) -> str:
    """Return "a little " or "far " for a value above or below its range; "" if there is no second threshold.

    `bound`: the end of the range that the value is beyond. A threshold within the range does not count.
    degree("8480-6", "mm[Hg]", 128, "above", 120) -> "a little "
    """
    if value is None or bound is None or not isinstance(code, str) or not isinstance(unit, str):
        return ""
    far = _far_bound(code, unit, position == ABOVE, bound)
    if far is None:
        return ""
    return FAR if (value >= far if position == ABOVE else value <= far) else LITTLE


def degree_of(result: Mapping[str, Any], compared: Comparison) -> str:
    """Return the `degree` of a result. `compared`: its value beside its range."""
    position = compared.position
    if position is None or position == WITHIN:
        return ""
    bound, number = compared.high if position == ABOVE else compared.low, compared.number
    return degree(result.get("code"), result.get("unit"), None if compared.is_bound else number, position, bound)


@lru_cache(maxsize=1024)
def _far_bound(code: str, unit: str, is_above: bool, bound: Number) -> float | None:
    """Return the second threshold above or below an end of a range; None if there is none beyond it."""
    found = far_of(code, unit)
    far = found and (found.high if is_above else found.low)
    return far if far is not None and (far > bound if is_above else far < bound) else None


def beyond_meter(value: Any, unit: Any) -> tuple[str, str] | None:
    """Return (ABOVE or BELOW, how far) for a meter's word for a value beyond its limits, such as HI; else None."""
    return METER_WORDS.get(value.strip().upper()) if isinstance(value, str) and unit else None


def is_beyond_meter(result: Mapping[str, Any]) -> bool:
    """Return whether a result is a glucose that a meter could not measure, and so outside every range."""
    return beyond_meter(result.get("value"), result.get("unit")) is not None and str(result.get("code")) in GLUCOSE


def is_far(result: dict[str, Any], is_plain: bool) -> bool:
    """Return whether a result is far outside its range: its source says so, or its value passes the second threshold.

    A result within its range is not, whatever it is marked as, nor is one that no living body has. `is_plain`: its
    value and both ends of its range, in their order, are of the types PLAIN, as nearly all are.
    """
    value: Any = result.get("value")
    low: Any = result.get("low")
    high: Any = result.get("high")
    code, unit = result.get("code"), result.get("unit")
    flag: Any = result.get("flag")
    is_marked = flag in MARKED_FAR
    if is_plain and not is_marked and type(code) is str is type(unit) and "warning" not in result:
        far = far_of(code, unit)
        if value > high:
            return far is not None and far.high is not None and value >= far.high > high
        return far is not None and far.low is not None and value <= far.low < low
    position = compare(result).position
    if position == WITHIN or ("warning" in result and _is_impossible(result)):
        return False
    if type(value) is str and (beyond := beyond_meter(value, unit)) and is_beyond_meter(result):
        return beyond[1] != ""
    if is_marked and position in (None, FAR_FLAGS[flag]):
        return True
    bound = as_number(high if position == ABOVE else low)
    return position is not None and degree(code, unit, as_number(value), position, bound) == FAR


def _is_impossible(result: Mapping[str, Any]) -> bool:
    warning = result["warning"]
    return isinstance(warning, str) and IMPOSSIBLE in warning and parse_measurement(result.get("value")) is not None


def group_of(result: Mapping[str, Any]) -> str:
    """Return the group of a measurement: one of NAMES."""
    code = result.get("code")
    known = BY_CODE.get(code) if isinstance(code, str) else None
    return _group_by_name(known.name if known else str(result.get("name") or ""))


@lru_cache(maxsize=1024)
def _group_by_name(name: str) -> str:
    return next((group for group, words in PATTERNS if words.search(name)), OTHER)
