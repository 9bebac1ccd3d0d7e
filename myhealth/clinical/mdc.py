"""Codes of check-up devices (IEEE 11073-10101, "MDC") as LOINC and UCUM. Pure.

A code is 65,536 × partition + term, such as 150021, or a reference identifier, such as MDC_PRESS_BLD_NONINV_SYS. The
source's code is kept beside what is found here. Sources: IEEE 11073-10101 and the device specialisations 10404 to
10471; LOINC/IEEE Medical Device Code Mapping Table (loinc.org). Where that table names a method, the code here is the
one of FHIR's vital signs for the same quantity, so that all devices make one trend.
"""

from __future__ import annotations

import re

# Number, reference identifier, LOINC.
_OBSERVATIONS = """
150021 MDC_PRESS_BLD_NONINV_SYS 8480-6
150022 MDC_PRESS_BLD_NONINV_DIA 8462-4
150023 MDC_PRESS_BLD_NONINV_MEAN 8478-0
147842 MDC_ECG_HEART_RATE 8867-4
149514 MDC_PULS_RATE 8867-4
149530 MDC_PULS_OXIM_PULS_RATE 8867-4
149546 MDC_PULS_RATE_NON_INV 8867-4
150456 MDC_PULS_OXIM_SAT_O2 59408-5
150344 MDC_TEMP 8310-5
150364 MDC_TEMP_BODY 8310-5
150392 MDC_TEMP_TYMP 8333-7
188420 MDC_TEMP_RECT 8332-9
188424 MDC_TEMP_ORAL 8331-1
188452 MDC_TEMP_AXILLA 8328-7
151562 MDC_RESP_RATE 9279-1
151570 MDC_AWAY_RESP_RATE 9279-1
151578 MDC_TTHOR_RESP_RATE 9279-1
151594 MDC_CO2_RESP_RATE 9279-1
188736 MDC_MASS_BODY_ACTUAL 29463-7
188740 MDC_LEN_BODY_ACTUAL 8302-2
188752 MDC_RATIO_MASS_BODY_LEN_SQ 39156-5
188748 MDC_BODY_FAT 41982-0
160020 MDC_CONC_GLU_GEN 2339-0
160184 MDC_CONC_GLU_CAPILLARY_WHOLEBLOOD 41653-7
160192 MDC_CONC_GLU_VENOUS_WHOLEBLOOD 2339-0
160196 MDC_CONC_GLU_VENOUS_PLASMA 2345-7
160220 MDC_CONC_HBA1C 4548-4
152584 MDC_FLOW_AWAY_EXP_FORCED_PEAK 19935-6
152586 MDC_VOL_AWAY_EXP_FORCED_1S 20150-9
188928 MDC_VOL_AWAY_EXP_FORCED_CAPACITY 19868-9
"""
# A blood pressure as a whole: a panel of its own, whose components have the values.
PANEL_NUMBER, PANEL_REFERENCE, PANEL_LOINC = "150020", "MDC_PRESS_BLD_NONINV", "85354-9"
# Of an amount of substance: LOINC has a code of its own.
MOLAR = {"2339-0": "15074-8", "2345-7": "14749-6", "41653-7": "14743-9", "4548-4": "59261-8"}
# Number, reference identifier, UCUM.
_UNITS = """
266016 MDC_DIM_MMHG mm[Hg]
265987 MDC_DIM_KILO_PASCAL kPa
264864 MDC_DIM_BEAT_PER_MIN /min
264928 MDC_DIM_RESP_PER_MIN /min
262688 MDC_DIM_PERCENT %
268192 MDC_DIM_DEGC Cel
266560 MDC_DIM_FAHR [degF]
263872 MDC_DIM_X_G g
263875 MDC_DIM_KILO_G kg
263904 MDC_DIM_LB [lb_av]
263424 MDC_DIM_X_M m
263441 MDC_DIM_CENTI_M cm
263520 MDC_DIM_INCH [in_i]
264096 MDC_DIM_KG_PER_M_SQ kg/m2
264274 MDC_DIM_MILLI_G_PER_DL mg/dL
266866 MDC_DIM_MILLI_MOLE_PER_L mmol/L
263744 MDC_DIM_X_L L
263762 MDC_DIM_MILLI_L mL
265216 MDC_DIM_X_L_PER_MIN L/min
"""


def _table(text: str) -> dict[str, str]:
    rows = [line.split() for line in text.split("\n") if line]
    return {key: target for number, reference, target in rows for key in (number, reference)}


LOINC_OF = _table(_OBSERVATIONS) | {PANEL_NUMBER: PANEL_LOINC, PANEL_REFERENCE: PANEL_LOINC}
UCUM_OF = _table(_UNITS) | {"MDC_DIM_L_PER_MIN": "L/min"}
CODE = re.compile(r"[0-9]{5,6}|MDC_[A-Z0-9_]+")


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


def is_mdc_reference(text: str) -> bool:
    """Return whether a text is a reference identifier, which names MDC's term whatever system is given with it."""
    return text.startswith("MDC_") and CODE.fullmatch(text) is not None
