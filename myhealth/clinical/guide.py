"""What the tests of the catalogue are, in plain words of our own; how far outside its range a value lies; and the
groups in which people look for measurements. Pure.

Nothing here is a diagnosis: a second threshold only tells a value that is a little outside its range from one that is
far outside. Each has its source, which the pages name.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
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
_TABLE = """
Systolic blood pressure
The first number of a blood pressure: the pressure in the arteries at each beat of the heart. Effort, worry and coffee
raise it for a while, so several readings at rest say more than one.
mm[Hg] - 160; ESC/ESH guidelines on arterial hypertension, 2018

Diastolic blood pressure
The second number of a blood pressure: the pressure in the arteries while the heart rests between two beats. It is
read together with the first number, best after some minutes of sitting.
mm[Hg] - 100; ESC/ESH guidelines on arterial hypertension, 2018

Heart rate
How often the heart beats in a minute at rest. Fitness lowers it; movement, fever and excitement raise it.
/min 40 131; National Early Warning Score 2, 2017

Respiratory rate
How many breaths a person takes in a minute at rest. Effort and fever raise it.
/min 8 25; National Early Warning Score 2, 2017

Body temperature
How warm the body is. It is lower in the morning than in the evening, and depends on where it is measured.
Cel 35 39.1; National Early Warning Score 2, 2017
[degF] 95 102.4; National Early Warning Score 2, 2017

Oxygen saturation
How much of the blood’s red pigment carries oxygen, measured with a clip on a finger. Cold fingers, movement and nail
varnish can make it read too low, and high places lower it.
% 91 -; National Early Warning Score 2, 2017

Body weight
How heavy the body is. Clothes, meals and the time of the day change it by a kilogram or two, so it is best compared
under the same conditions.

Body height
How tall the body is. It is needed to judge other values, such as the weight.

Body mass index
The weight in kilograms divided by the square of the height in metres. It is a rough measure for adults: it cannot
tell muscle from fat.
kg/m2 16 30; WHO, Technical Report Series 894, 2000

Fasting glucose
The sugar in the blood after at least eight hours without food. The body needs it as fuel and keeps it within narrow
bounds with the hormone insulin.
mg/dL 53.9 126; American Diabetes Association, Standards of Care, 2024
mmol/L 2.9 7; American Diabetes Association, Standards of Care, 2024

Glucose
The sugar in the blood, which the body uses as fuel. After a meal it rises for some hours, so it matters when one has
eaten last.
mg/dL 53.9 200; American Diabetes Association, Standards of Care, 2024
mmol/L 2.9 11.1; American Diabetes Association, Standards of Care, 2024

Haemoglobin A1c
The share of the red blood pigment that sugar has attached itself to. It tells how high the blood sugar was on average
over the last two or three months.
% - 6.5; American Diabetes Association, Standards of Care, 2024
mmol/mol - 48; American Diabetes Association, Standards of Care, 2024

Total cholesterol
All cholesterol in the blood together, a fat that the body needs to build cells. It is judged by its parts, LDL and
HDL, more than by the sum.
mg/dL - 240; NCEP Adult Treatment Panel III, 2002
mmol/L - 6.21; NCEP Adult Treatment Panel III, 2002

HDL cholesterol
The part of the cholesterol that is on its way back from the vessels to the liver. Here more is usually better.

LDL cholesterol
The part of the cholesterol that can settle in the walls of the vessels. Which value is right for a person depends on
his or her other risks.
mg/dL - 190; NCEP Adult Treatment Panel III, 2002
mmol/L - 4.91; NCEP Adult Treatment Panel III, 2002

Triglycerides
The fat in which the body stores energy. A meal or a drink before the test raises it, so it is best measured fasting.
mg/dL - 500; NCEP Adult Treatment Panel III, 2002
mmol/L - 5.64; NCEP Adult Treatment Panel III, 2002

Haemoglobin
The red pigment of the blood, which carries oxygen through the body. Iron and some vitamins are needed to make it.
g/dL 7.9 -; WHO, Haemoglobin concentrations for the diagnosis of anaemia, 2011
g/L 79 -; WHO, Haemoglobin concentrations for the diagnosis of anaemia, 2011

Creatinine
A waste product of the muscles, which the kidneys remove from the blood. How much is usual depends on the muscles, and
so on age and sex.
mg/dL - 4; KDIGO guideline for acute kidney injury, 2012
umol/L - 354; KDIGO guideline for acute kidney injury, 2012
"""


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
