"""Codes of check-up devices (IEEE 11073-10101, "MDC") as LOINC and UCUM. Pure.

A code is 65,536 × partition + term, such as 150021, or a reference identifier, such as MDC_PRESS_BLD_NONINV_SYS. The
source's code is kept beside what is found here. Sources: IEEE 11073-10101 and the device specialisations 10404 to
10471; LOINC/IEEE Medical Device Code Mapping Table (loinc.org). Where that table names a method, the code here is the
one of FHIR's vital signs for the same quantity, so that all devices make one trend.
"""

import re
from pathlib import Path

from myhealth.clinical.catalog import name_of

# LOINC, and the numbers and reference identifiers that mean it. 85354-9: a blood pressure as a whole, a panel.
_OBSERVATIONS = Path(__file__).with_name("mdc_observations.txt").read_text(encoding="utf-8")
# What people call a measurement that the catalogue does not have.
NAMES = {
    "8478-0": "Mean blood pressure",
    "8333-7": "Body temperature (ear)",
    "8332-9": "Body temperature (rectal)",
    "8328-7": "Body temperature (armpit)",
    "41982-0": "Body fat",
    "19935-6": "Peak expiratory flow",
    "20150-9": "FEV1",
    "19868-9": "Forced vital capacity",
    "85354-9": "Blood pressure",
}
# Of an amount of substance: LOINC has a code of its own.
MOLAR = {"2339-0": "15074-8", "2345-7": "14749-6", "41653-7": "14743-9", "4548-4": "59261-8"}
# UCUM, and the numbers and reference identifiers that mean it.
_UNITS = Path(__file__).with_name("mdc_units.txt").read_text(encoding="utf-8")


def _table(text: str) -> dict[str, str]:
    return {key: target for target, *keys in map(str.split, text.strip().split("\n")) for key in keys}


LOINC_OF, UCUM_OF = _table(_OBSERVATIONS), _table(_UNITS)
REFERENCE = re.compile("MDC_[A-Z0-9_]+")


def mdc_loinc(code: str, reference: str = "", unit: str | None = None) -> str | None:
    """Return the LOINC code for an MDC code, by the number or by the reference identifier; None where it is not sure.

    `unit`: UCUM of the result; an amount of substance has a LOINC code of its own. Call it only for codes of the system
    MDC, or with a reference identifier. Worked example: mdc_loinc("150021") is 8480-6, with MDC_PULS_RATE 8867-4.
    """
    found = LOINC_OF.get(code.strip()) or LOINC_OF.get(reference.strip())
    return MOLAR.get(found, found) if found and unit in ("mmol/L", "mmol/mol") else found


def mdc_unit(code: str, reference: str = "") -> str | None:
    """Return the UCUM unit for an MDC unit, by its number or reference identifier; None where it is not sure.

    Worked example: mdc_unit("266016") and mdc_unit("", "MDC_DIM_MMHG") are mm[Hg].
    """
    return UCUM_OF.get(code.strip()) or UCUM_OF.get(reference.strip())


def device_name(loinc: str | None) -> str | None:
    """Return the name of the measurement that a LOINC code of a device means; None if there is none."""
    return name_of(loinc) or NAMES.get(loinc or "")


def is_mdc_reference(text: str) -> bool:
    """Return whether a text is a reference identifier, which names MDC's term whatever system is given with it."""
    return REFERENCE.fullmatch(text) is not None
