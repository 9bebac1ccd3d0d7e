"""The tests of a usual check-up: their LOINC codes, UCUM units, and the usual range of adults.

A machine's own range always wins. Where it sends none, the range from here sets `low`, `high` and, if the machine sent
none, `flag`, and `range_source` says so. A value that no living body has is kept as it is, with the flag A and a
warning. Units and values are never altered: a unit is only compared, and an unknown one has no range.

LOINC codes: loinc.org. UCUM: ucum.org. Ranges are for adults who are not pregnant, of both sexes together; each has
its source beside it. `possible` bounds are generous: what has been survived, or what the instrument can mean at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from myhealth.clinical.ranges import ABOVE, BELOW, WITHIN, classify, parse_measurement

Bound = float | None
SOURCE = "catalogue"
IMPOSSIBLE = "outside what a living body has"  # what a warning says


@dataclass(frozen=True)
class Range:
    """The reference range (`low` to `high`, None if open) and the possible values (`least` to `most`) in one unit."""

    low: Bound
    high: Bound
    least: float
    most: float


@dataclass(frozen=True)
class Analyte:
    """An analyte or vital sign: its name, its LOINC codes, and a range for each unit.

    The unit decides, not the code's property: HL7's own lipid example codes mass per volume and sends mmol/L.
    """

    name: str
    codes: tuple[str, ...]
    ranges: dict[str, Range]


ANALYTES = (
    # Normal below 120/80: Whelton et al., ACC/AHA guideline, Hypertension 2018;71:e13. Low below 90/60: NHLBI.
    Analyte("Systolic blood pressure", ("8480-6",), {"mm[Hg]": Range(90, 120, 20, 370)}),
    Analyte("Diastolic blood pressure", ("8462-4",), {"mm[Hg]": Range(60, 80, 5, 360)}),
    # Resting adults 60 to 100: American Heart Association.
    Analyte("Heart rate", ("8867-4",), {"/min": Range(60, 100, 5, 600)}),
    # Resting adults 12 to 20: Royal College of Physicians, National Early Warning Score 2, 2017.
    Analyte("Respiratory rate", ("9279-1",), {"/min": Range(12, 20, 1, 150)}),
    # 36.1 to 37.2 °C: Sund-Levander et al., Scand J Caring Sci 2002;16:122 (oral, rounded as clinics use it).
    # Survived: 11.8 °C (accidental hypothermia, 2014) and 46.5 °C (heat stroke, 1980).
    Analyte(
        "Body temperature",
        ("8310-5", "8331-1"),
        {"Cel": Range(36.1, 37.2, 10, 47), "[degF]": Range(97.0, 99.0, 50, 117)},
    ),
    # 95 % or more at sea level: WHO, Pulse oximetry training manual, 2011.
    Analyte("Oxygen saturation", ("59408-5", "2708-6"), {"%": Range(95, 100, 5, 100)}),
    # No range for weight and height alone. Survived extremes: 0.212 kg at birth (2020), 635 kg (1978); 55 cm to 272 cm
    # as adults (newborn from 22 cm).
    Analyte("Body weight", ("29463-7",), {"kg": Range(None, None, 0.1, 800), "[lb_av]": Range(None, None, 0.2, 1760)}),
    Analyte(
        "Body height",
        ("8302-2",),
        {
            "cm": Range(None, None, 15, 300),
            "m": Range(None, None, 0.15, 3),
            "[in_i]": Range(None, None, 6, 118),
        },
    ),
    # 18.5 to 24.9: WHO, Technical Report Series 894, 2000.
    Analyte("Body mass index", ("39156-5",), {"kg/m2": Range(18.5, 24.9, 4, 250)}),
    # Fasting 70 to 99 mg/dL: American Diabetes Association, Standards of Care, Diabetes Care 2024;47(S1):S20.
    Analyte(
        "Fasting glucose",
        ("1558-6", "14771-0"),
        {"mg/dL": Range(70, 99, 1, 3000), "mmol/L": Range(3.9, 5.5, 0.05, 170)},
    ),
    # Not known to be fasting, below 140 mg/dL: the same.
    Analyte(
        "Glucose",
        ("2345-7", "2339-0", "41653-7", "15074-8", "14749-6"),
        {"mg/dL": Range(70, 139, 1, 3000), "mmol/L": Range(3.9, 7.7, 0.05, 170)},
    ),
    # Below 5.7 % (39 mmol/mol): the same.
    Analyte(
        "Haemoglobin A1c",
        ("4548-4", "17856-6", "59261-8"),
        {"%": Range(None, 5.6, 2, 25), "mmol/mol": Range(None, 38, 2, 250)},
    ),
    # Total below 200, LDL below 100, HDL from 40, triglycerides below 150 mg/dL: NCEP Adult Treatment Panel III,
    # Circulation 2002;106:3143. In mmol/L: 38.67 mg/dL of cholesterol, 88.57 of triglycerides a mmol/L.
    Analyte(
        "Total cholesterol",
        ("2093-3", "14647-2"),
        {"mg/dL": Range(None, 199, 5, 3000), "mmol/L": Range(None, 5.17, 0.1, 78)},
    ),
    Analyte(
        "HDL cholesterol",
        ("2085-9", "14646-4"),
        {"mg/dL": Range(40, None, 1, 400), "mmol/L": Range(1.03, None, 0.02, 11)},
    ),
    Analyte(
        "LDL cholesterol",
        ("13457-7", "18262-6", "2089-1", "22748-8", "39469-2"),
        {"mg/dL": Range(None, 99, 1, 2000), "mmol/L": Range(None, 2.58, 0.02, 52)},
    ),
    Analyte(
        "Triglycerides",
        ("2571-8", "14927-8"),
        {"mg/dL": Range(None, 149, 1, 50_000), "mmol/L": Range(None, 1.69, 0.01, 570)},
    ),
    # Women 12 to 16, men 14 to 18 g/dL: American Board of Internal Medicine, Laboratory Reference Ranges, 2024.
    Analyte(
        "Haemoglobin",
        ("718-7", "30313-1", "20509-6"),
        {"g/dL": Range(12, 18, 0.5, 30), "g/L": Range(120, 180, 5, 300)},
    ),
    # Women 0.50 to 1.10, men 0.70 to 1.30 mg/dL: the same. 88.42 µmol/L a mg/dL.
    Analyte(
        "Creatinine",
        ("2160-0", "38483-4", "14682-9"),
        {"mg/dL": Range(0.5, 1.3, 0.02, 100), "umol/L": Range(44, 115, 2, 8900)},
    ),
)

# What devices write for a UCUM unit. For comparing only; a unit is stored as it was sent.
UNIT_SPELLINGS = {
    "mmhg": "mm[Hg]",
    "mm[hg]": "mm[Hg]",
    "/min": "/min",
    "{beats}/min": "/min",
    "bpm": "/min",
    "beats/min": "/min",
    "beats/minute": "/min",
    "breaths/min": "/min",
    "breaths/minute": "/min",
    "{breaths}/min": "/min",
    "cel": "Cel",
    "c": "Cel",
    "°c": "Cel",
    "degc": "Cel",
    "[degf]": "[degF]",
    "degf": "[degF]",
    "°f": "[degF]",
    "f": "[degF]",
    "%": "%",
    "kg": "kg",
    "[lb_av]": "[lb_av]",
    "lb": "[lb_av]",
    "lbs": "[lb_av]",
    "cm": "cm",
    "m": "m",
    "[in_i]": "[in_i]",
    "in": "[in_i]",
    "kg/m2": "kg/m2",
    "kg/m^2": "kg/m2",
    "kg/m²": "kg/m2",
    "mg/dl": "mg/dL",
    "mmol/l": "mmol/L",
    "mmol/mol": "mmol/mol",
    "g/dl": "g/dL",
    "g/l": "g/L",
    "umol/l": "umol/L",
    "µmol/l": "umol/L",
    "μmol/l": "umol/L",
}

FLAG_WHERE: dict[str | None, str] = {ABOVE: "H", BELOW: "L", WITHIN: "N"}
BY_CODE = {code: analyte for analyte in ANALYTES for code in analyte.codes}


@lru_cache(maxsize=1024)
def _ucum_unit(unit: str) -> str:
    """Return the UCUM unit of the catalogue for a spelling of it, or ""."""
    return UNIT_SPELLINGS.get(unit.replace(" ", "").lower(), "")


def findings(
    code: str | None, value: Any, unit: str | None, low: Any, high: Any, flag: str | None, range_text: str | None
) -> dict[str, Any]:
    """Return the fields that the catalogue sets in a result; none of them if it knows nothing of it.

    A range where the machine sent none, with its flag and `range_source`; the flag A and `warning` where no living body
    has the value.
    """
    if code not in BY_CODE or unit is None:
        return {}
    found = BY_CODE[code].ranges.get(_ucum_unit(unit))
    if found is None:
        return {}
    ranged = low is not None or high is not None
    if ranged and value.__class__ is int and found.least <= value <= found.most:
        return {}  # by far the most
    measured = parse_measurement(value)
    if measured is None:
        return {}
    added: dict[str, Any] = {}
    if not ranged and range_text is None and (found.low is not None or found.high is not None):
        added = {"low": found.low, "high": found.high, "range_source": SOURCE}
        if flag is None:
            added["flag"] = FLAG_WHERE.get(classify(value, found.low, found.high))
    beyond, number = measured
    if not beyond and not found.least <= float(number) <= found.most:
        added["flag"] = "A"
        added["warning"] = f"{value} {unit} is {IMPOSSIBLE} ({found.least:g} to {found.most:g})"
    return added


def as_sent(result: dict[str, Any]) -> dict[str, Any]:
    """A stored result without what the catalogue added, so that a later catalogue changes no comparison.

    A flag is left out where the catalogue may have set it.
    """
    kept = {name: value for name, value in result.items() if name not in ("warning", "range_source")}
    if result.get("range_source") == SOURCE:
        kept |= {"low": None, "high": None, "flag": None}
    elif "warning" in result:
        kept["flag"] = None
    return kept
