"""UCUM units as people write them. Source: ucum.org, "The Unified Code for Units of Measure", tables of units."""

import re
from functools import lru_cache

# Names of whole units.
NAMES = {
    "mm[Hg]": "mmHg",
    "Cel": "°C",
    "[degF]": "°F",
    "/min": "per minute",
    "{beats}/min": "per minute",
    "1": "",
    "[in_i]": "in",
    "[ft_i]": "ft",
    "[lb_av]": "lb",
    "[oz_av]": "oz",
    "[pH]": "pH",
    "[iU]": "IU",
    "[IU]": "IU",
    "cm[H2O]": "cmH₂O",
    "mo": "months",
    "a": "years",
}
PARTS = {"[iU]": "IU", "[IU]": "IU", "[Hg]": "Hg"}
MICRO = re.compile(r"(?<![A-Za-z])u(?=(?:mol|g|L|m|IU|U)\b)")
POWER = re.compile(r"10[*^](\d+)")
LEADING = re.compile(r"^(?=10[*^]\d)")  # a value comes before it: 6.8 ×10³/µL, not 6.8 10³/µL
SQUARE = re.compile(r"(?<=[a-zA-Z])([23])\b")
RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


@lru_cache(maxsize=1024)  # a page repeats a few units for hundreds of results
def unit_text(unit: str) -> str:
    """Return a unit as people write it: mm[Hg] as mmHg, 10*3/uL as ×10³/µL, kg/m2 as kg/m². An unknown unit stays as it
    is."""
    unit = unit.strip()
    if unit in NAMES:
        return NAMES[unit]
    # The unit of a rate's denominator stays. UCUM's other annotations are no part of the unit.
    text = re.sub(r"(?<=/)\{([^{}]*)\}", r"\1", unit)
    text = re.sub(r"\{[^{}]*\}", "", text).replace("_", " ") or unit.strip("{}")
    for code, name in PARTS.items():
        text = text.replace(code, name)
    text = MICRO.sub("µ", text)
    text = LEADING.sub("×", text)
    text = POWER.sub(lambda found: "10" + found.group(1).translate(RAISED), text)
    return SQUARE.sub(lambda found: found.group(1).translate(RAISED), text)
