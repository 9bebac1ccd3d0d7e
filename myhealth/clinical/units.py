"""Units: which codes are UCUM, which spellings are one unit, and how people write them. Pure.

A unit is stored as it was sent (`unit_text`), with its UCUM code (`unit`) where that is certain. Only spellings are
compared here; no value is ever converted. Source: ucum.org, "The Unified Code for Units of Measure" 2.2, §§ 4 to 12 and
tables 1 to 25.
"""

import re
from functools import lru_cache

PREFIXES = "Y Z E P T G M k h da d c m u n p f a z y"
METRIC = (
    "m s g l L mol eq osm U [IU] [iU] kat Hz N Pa bar m[Hg] m[H2O] J cal W V A Ohm S Cel rad sr Bq Gy Sv Ci lm lx cd eV"
    " B B[SPL] g%"
)
OTHER = (
    "10* 10^ % [ppth] [ppm] [ppb] [pptr] [pi] deg ' '' min h d wk mo a atm [degF] [in_i] [ft_i] [yd_i] [mi_i] [lb_av]"
    " [oz_av] [stone_av] [foz_us] [cup_us] [tsp_us] [tbs_us] [Cal] [psi] [in_i'Hg] [in_i'H2O] [PRU] [wood'U] [diop]"
    " [p'diop] [MET] [drp] [pH] [S] [HPF] [LPF] [arb'U] [USP'U] [GPL'U] [MPL'U] [APL'U] [beth'U] [anti'Xa'U] [todd'U]"
    " [bdsk'U] [ka'U] [CFU] [PFU] [FFU] [CCID_50] [TCID_50] [EID_50] [BAU] [AU] [EU] [ELU] [FEU] [IR] [Ch]"
)


def _any(codes: str) -> str:
    return "|".join(re.escape(code) for code in codes.split())


ANNOTATION = r"\{[!-z|~]*\}"
# One part between operators: a unit with its exponent, a whole number, or an annotation in braces.
# Compiled when it is first used, because that takes long.
UNIT = rf"(?:(?:{_any(PREFIXES)})?(?:{_any(METRIC)})|{_any(OTHER)})(?:[+-]?[0-9]+)?"
PART = rf"(?:{UNIT}|[0-9]+)(?:{ANNOTATION})?|{ANNOTATION}"
PARTS = re.compile(r"(?:[^./()\[\]{}]|\[[^\]]*\]|\{[^}]*\})+")
TERM = r"/?u(?:[./]u)*"
IN_BRACKETS = re.compile(rf"\({TERM}\)")


@lru_cache(maxsize=1024)
def is_ucum(unit: str) -> bool:
    """Return whether a unit is valid in UCUM.

    Worked examples: `mm[Hg]`, `10*3/uL`, `mL/min/{1.73_m2}` and `/min` are; `mmHg`, `bpm` and `IU/L` are not.
    """
    shape = PARTS.sub(lambda found: "u" if re.fullmatch(PART, found[0]) else "?", unit)
    while (shorter := IN_BRACKETS.sub("u", shape)) != shape:
        shape = shorter
    return re.fullmatch(TERM, shape) is not None


# What devices and laboratories write for a UCUM unit, without blanks, in lower case.
SPELLINGS = {
    **dict.fromkeys(("mmhg", "mm[hg]"), "mm[Hg]"),
    **dict.fromkeys(("bpm", "beats/min", "beats/minute", "{beats}/min", "breaths/min", "breaths/minute"), "/min"),
    **dict.fromkeys(
        ("/min", "{breaths}/min", "{beat}/min", "{beats}/minute", "1/min", "min-1", "/minute", "rpm"), "/min"
    ),
    **dict.fromkeys(("cel", "c", "°c", "ºc", "degc", "℃", "celsius", "degreescelsius", "degreecelsius"), "Cel"),
    **dict.fromkeys(
        ("[degf]", "degf", "°f", "ºf", "f", "℉", "fahrenheit", "degreesfahrenheit", "degreefahrenheit"), "[degF]"
    ),
    **dict.fromkeys(("%", "percent"), "%"),
    **dict.fromkeys(("kg", "kgs", "kilogram", "kilograms"), "kg"),
    **dict.fromkeys(("gram", "grams"), "g"),
    **dict.fromkeys(("[lb_av]", "lb", "lbs", "pound", "pounds"), "[lb_av]"),
    **dict.fromkeys(("ounce", "ounces"), "[oz_av]"),
    **dict.fromkeys(("cm", "cms", "centimeter", "centimeters", "centimetre", "centimetres"), "cm"),
    **dict.fromkeys(("meter", "meters", "metre", "metres"), "m"),
    **dict.fromkeys(("[in_i]", "in", "inch", "inches"), "[in_i]"),
    **dict.fromkeys(("foot", "feet"), "[ft_i]"),
    **dict.fromkeys(("milligramsperdeciliter", "milligramsperdecilitre", "milligrams/deciliter"), "mg/dL"),
    **dict.fromkeys(("millimolesperliter", "millimolesperlitre", "millimoles/liter"), "mmol/L"),
    "beatsperminute": "/min",
    **dict.fromkeys(("m2", "m^2", "m²"), "m2"),
    **dict.fromkeys(("kg/m2", "kg/m^2", "kg/m²", "kg/m*2"), "kg/m2"),
    **dict.fromkeys(("iu/l", "[iu]/l"), "[IU]/L"),
    **dict.fromkeys(("miu/l", "m[iu]/l"), "m[IU]/L"),
    **dict.fromkeys(("miu/ml", "m[iu]/ml"), "m[IU]/mL"),
    **dict.fromkeys(("uiu/ml", "u[iu]/ml"), "u[IU]/mL"),
    **dict.fromkeys(("iu/ml", "[iu]/ml"), "[IU]/mL"),
    **dict.fromkeys(("ml/min/1.73m2", "ml/min/1.73m^2", "ml/min/1.73m²", "ml/min/{1.73_m2}"), "mL/min/{1.73_m2}"),
    **dict.fromkeys(("g%", "gm%"), "g/dL"),
    "mg%": "mg/dL",
    **dict.fromkeys(("copies/ml", "{copies}/ml"), "{copies}/mL"),
    **dict.fromkeys(("mm/h", "mm/hr", "mm/hour"), "mm/h"),
}
# Units whose letters mean the same in any case, beside those of powers below.
UNITS = """
 m g mg ug ng pg fL pL nL uL mL dL L mm um s min h d wk mo a kPa
 mol/L mmol/L umol/L nmol/L pmol/L mmol/mol umol/mol mg/mmol g/mol
 g/L mg/L ug/L ng/L pg/L kg/L g/dL mg/dL ug/dL ng/dL pg/dL g/mL mg/mL ug/mL ng/mL pg/mL mg/g ug/g ug/mg ng/mg
 U/L kU/L mU/L U/mL mU/mL uU/mL kat/L ukat/L nkat/L mosm/kg mosm/L meq/L mmol/kg
 L/min mL/min L/s mL/s cL/s mL/min/{1.73_m2} /uL /mL /L mg/(24.h) mmol/(24.h) mL/(24.h) g/(24.h) {copies}/mL
 ms mV kcal [pH]
"""
CANONICAL = {unit.lower(): unit for unit in UNITS.split()} | SPELLINGS
# A power of ten as laboratories write it: 10^3, 10*3, 10**3, 10E3, x10^3, x 10(3), 10³.
POWER = re.compile(r"(?:[x×*.]?10(?:\^|\*\*?|e\+?|exp|\()|[x×]10)(?P<power>[1-9][0-9]?)\)?(?:/(?P<volume>.*))?")
RAISED = re.compile("10([⁰¹²³⁴⁵⁶⁷⁸⁹]+)")
SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")
MICRO = str.maketrans({"µ": "u", "μ": "u"})  # the micro sign and the Greek letter
SHORTER = {"cell": "", "cells": "", "gm": "g", "gms": "g", "mcg": "ug", "mgs": "mg"}
LONGER = re.compile(r"cells?(?=/)|^(?:gms?|mcg|mgs)(?=[/%]|$)")
MICROLITRES = ("ul", "mm3", "mm^3", "mm³", "cumm", "cmm", "mcl")
THOUSANDS = {
    **dict.fromkeys(("k", "thou", "thousand", "tsd."), 3),
    **dict.fromkeys(("lakh", "lakhs", "lac", "lacs"), 5),
    **dict.fromkeys(("m", "mil", "mill", "million", "millions"), 6),
}
COUNTS = {f"{word}/{volume}": f"10*{power}/uL" for word, power in THOUSANDS.items() for volume in MICROLITRES}
COUNTS |= {f"/{volume}": "/uL" for volume in MICROLITRES}
# For cells the same number. Other units of one size (ng/mL and ug/L) stay apart.
EQUAL = {"10*9/L": "10*3/uL", "10*12/L": "10*6/uL"}
# 10 is the rest of 10^3, and 103/uL has lost its superscript.
BARE_NUMBER = re.compile(r"(?!10\*|1/)[0-9]")
# Not certain: giga and tera a litre, or grams; dioptres, moles a litre and ampere, or days, metres and years.
UNCERTAIN = re.compile("[GT]/|[DMA]$|[mu\u00b5\u03bc]M$")


@lru_cache(maxsize=4096)
def ucum_unit(unit: str) -> str | None:
    """Return the UCUM code that a unit as sent certainly means, else None. A UCUM code is kept as it is.

    Worked examples: "10^3/uL", "x10^3/µL" and "K/uL" are 10*3/uL, "mmHg" is mm[Hg]; "K", "G/L" and "10" are unknown.
    """
    plain = unit.strip()
    if is_ucum(plain) and "^" not in plain and not BARE_NUMBER.match(plain):
        return plain
    return _spelled(plain) or None


@lru_cache(maxsize=4096)
def series_unit(unit: str | None) -> str:
    """Return the key under which the spellings of one unit are one series; "" without a unit.

    Worked examples: mg/dL, mg/dl and MG/DL are mg/dL; 10^9/L, 10E9/L and 10*3/uL are 10*3/uL, which is the same number.
    An unknown unit is its own, without blanks.
    """
    if unit is None or not unit.strip():
        return ""
    found = _spelled(unit.strip()) or re.sub(r"\s", "", unit.translate(MICRO))
    return EQUAL.get(found, found)


def _spelled(unit: str) -> str:
    """Return the UCUM unit of a spelling in the tables above, or ""."""
    if UNCERTAIN.match(unit):
        return ""
    unit = RAISED.sub(lambda raised: "10*" + raised[1].translate(SUPERSCRIPTS), unit)
    plain = re.sub(r"\s", "", unit.translate(MICRO)).lower()
    plain = LONGER.sub(lambda longer: SHORTER[longer[0]], plain)
    if known := CANONICAL.get(plain) or COUNTS.get(plain):
        return known
    power = POWER.fullmatch(plain)
    if power is None:
        return ""
    volume = power["volume"]
    if volume is None:
        return f"10*{power['power']}"
    found = "uL" if volume in MICROLITRES else CANONICAL.get(volume)
    return f"10*{power['power']}/{found}" if found else ""
