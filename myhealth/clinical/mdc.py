"""Codes of check-up devices (IEEE 11073-10101, "MDC") as LOINC and UCUM. Pure.

A code is 65,536 × partition + term, such as 150021, or a reference identifier, such as MDC_PRESS_BLD_NONINV_SYS. The
source's code is kept beside what is found here. Sources: IEEE 11073-10101 and the device specialisations 10404 to
10471; LOINC/IEEE Medical Device Code Mapping Table (loinc.org). Where that table names a method, the code here is the
one of FHIR's vital signs for the same quantity, so that all devices make one trend.
"""

import re

from myhealth.clinical.catalog import name_of

# LOINC, and the numbers and reference identifiers that mean it. 85354-9: a blood pressure as a whole, a panel.
_OBSERVATIONS = """
8480-6 150021 MDC_PRESS_BLD_NONINV_SYS
8462-4 150022 MDC_PRESS_BLD_NONINV_DIA
8478-0 150023 MDC_PRESS_BLD_NONINV_MEAN
8867-4 147842 MDC_ECG_HEART_RATE 149514 MDC_PULS_RATE 149530 MDC_PULS_OXIM_PULS_RATE 149546 MDC_PULS_RATE_NON_INV
59408-5 150456 MDC_PULS_OXIM_SAT_O2
8310-5 150344 MDC_TEMP 150364 MDC_TEMP_BODY
8333-7 150392 MDC_TEMP_TYMP
8332-9 188420 MDC_TEMP_RECT
8331-1 188424 MDC_TEMP_ORAL
8328-7 188452 MDC_TEMP_AXILLA
9279-1 151562 MDC_RESP_RATE 151570 MDC_AWAY_RESP_RATE 151578 MDC_TTHOR_RESP_RATE 151594 MDC_CO2_RESP_RATE
29463-7 188736 MDC_MASS_BODY_ACTUAL
8302-2 188740 MDC_LEN_BODY_ACTUAL
39156-5 188752 MDC_RATIO_MASS_BODY_LEN_SQ
41982-0 188748 MDC_BODY_FAT
2339-0 160020 MDC_CONC_GLU_GEN 160192 MDC_CONC_GLU_VENOUS_WHOLEBLOOD
41653-7 160184 MDC_CONC_GLU_CAPILLARY_WHOLEBLOOD
2345-7 160196 MDC_CONC_GLU_VENOUS_PLASMA
4548-4 160220 MDC_CONC_HBA1C
19935-6 152584 MDC_FLOW_AWAY_EXP_FORCED_PEAK
20150-9 152586 MDC_VOL_AWAY_EXP_FORCED_1S
19868-9 188928 MDC_VOL_AWAY_EXP_FORCED_CAPACITY
85354-9 150020 MDC_PRESS_BLD_NONINV
"""
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
# UCUM, and the same.
_UNITS = """
mm[Hg] 266016 MDC_DIM_MMHG
kPa 265987 MDC_DIM_KILO_PASCAL
/min 264864 MDC_DIM_BEAT_PER_MIN 264928 MDC_DIM_RESP_PER_MIN
% 262688 MDC_DIM_PERCENT
Cel 268192 MDC_DIM_DEGC
[degF] 266560 MDC_DIM_FAHR
g 263872 MDC_DIM_X_G
kg 263875 MDC_DIM_KILO_G
[lb_av] 263904 MDC_DIM_LB
m 263424 MDC_DIM_X_M
cm 263441 MDC_DIM_CENTI_M
[in_i] 263520 MDC_DIM_INCH
kg/m2 264096 MDC_DIM_KG_PER_M_SQ
mg/dL 264274 MDC_DIM_MILLI_G_PER_DL
mmol/L 266866 MDC_DIM_MILLI_MOLE_PER_L
L 263744 MDC_DIM_X_L
mL 263762 MDC_DIM_MILLI_L
L/min 265216 MDC_DIM_X_L_PER_MIN MDC_DIM_L_PER_MIN
"""


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
    """Return the name of what a LOINC code of a device means; None where there is none."""
    return name_of(loinc) or NAMES.get(loinc or "")


def is_mdc_reference(text: str) -> bool:
    """Return whether a text is a reference identifier, which names MDC's term whatever system is given with it."""
    return REFERENCE.fullmatch(text) is not None
