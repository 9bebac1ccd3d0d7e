"""What the tests of the catalogue are, in plain words of our own; how far outside its range a value lies; and the
groups in which people look for measurements. Pure.

Nothing here is a diagnosis: a second threshold only tells a value that is a little outside its range from one that is
far outside. Each has its source, which the pages name.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from myhealth.clinical.catalog import BY_CODE, codes_of
from myhealth.clinical.ranges import ABOVE, Number
from myhealth.clinical.units import series_unit

SYSTOLIC, DIASTOLIC, BLOOD_PRESSURE = "8480-6", "8462-4", "85354-9"
OTHER = "Other"
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
    """From which value on a result is far below (`low`) or far above (`high`) its range; None: never."""

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
    """Return the codes of the results that a trend of a LOINC code has: those of the same test; of the blood pressure's
    panel, those of both its values."""
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

    `bound`: the end of the range that the value lies beyond. A threshold that lies within the range says nothing.
    degree("8480-6", "mm[Hg]", 128, "above", 120) -> "a little "
    """
    if value is None or bound is None or not isinstance(code, str) or not isinstance(unit, str):
        return ""
    found = far_of(code, unit)
    far = found and (found.high if position == ABOVE else found.low)
    if far is None or (far <= bound if position == ABOVE else far >= bound):
        return ""
    return "far " if (value >= far if position == ABOVE else value <= far) else "a little "


def group_of(result: Mapping[str, Any]) -> str:
    """Return the group of a measurement: one of NAMES."""
    code = result.get("code")
    known = BY_CODE.get(code) if isinstance(code, str) else None
    return _group_by_name(known.name if known else str(result.get("name") or ""))


@lru_cache(maxsize=1024)
def _group_by_name(name: str) -> str:
    return next((group for group, words in PATTERNS if words.search(name)), OTHER)
