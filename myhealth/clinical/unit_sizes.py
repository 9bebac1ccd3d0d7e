"""Compare the sizes of units, to find a unit in words that is not the one of its code. Pure; no value is converted.

Source: ucum.org, "The Unified Code for Units of Measure" 2.2, §§ 4 to 12 and tables 1 to 25.
"""

import re
from collections import Counter
from fractions import Fraction
from functools import lru_cache

from myhealth.clinical.units import METRIC, PREFIXES, is_ucum, series_unit, ucum_unit
from myhealth.common.text import printable

EXPONENTS = dict(zip(PREFIXES.split(), (24, 21, 18, 15, 12, 9, 6, 3, 2, 1, *range(-1, -4, -1), *range(-6, -25, -3))))  # noqa: B905
# Units in terms of others: factor, unit, exponent. Units and international units; moles, osmoles and equivalents of one
# charge count as one, because sources write the one for the other.
KNOWN = {
    **dict.fromkeys(("L", "l"), (Fraction(1, 1000), "m", 3)),
    **dict.fromkeys(("[IU]", "[iU]", "EU"), (Fraction(1), "U", 1)),  # EU: Ehrlich's, not exa
    "eq": (Fraction(1), "mol", 1),
    "bar": (Fraction(10**5), "Pa", 1),
    "%": (Fraction(1, 100), "", 0),
    "[ppth]": (Fraction(1, 1000), "", 0),
    "[ppm]": (Fraction(1, 10**6), "", 0),
    "osm": (Fraction(1), "mol", 1),
    "[Cal]": (Fraction(1000), "cal", 1),
    "g%": (Fraction(10**4), "g/m3", 1),
    "min": (Fraction(60), "s", 1),
    "h": (Fraction(3600), "s", 1),
    "d": (Fraction(86400), "s", 1),
    "wk": (Fraction(7 * 86400), "s", 1),
}
ARBITRARY = re.compile(r"\[\w+'U\]|\[(?:A|BA|E|EL|F?E|CF|PF)U\]")  # sources write U for each of them
PART = re.compile(r"([./]|^)(10[*^]|[^./{}0-9+-]+|(?=[0-9{]))([+-]?[0-9]+)?(?:\{[^}]*\})?")
BRACKETS = re.compile(r"/\(([^()]*)\)")
Size = tuple[Fraction, frozenset[tuple[str, int]]]


NOT_TAKEN = "is not taken: its unit"


def was_not_taken(absent_reason: object) -> bool:
    """Return whether a reason for an absent value is a contradiction in its unit."""
    return NOT_TAKEN in str(absent_reason)


def contradiction_in_unit(words: str, code: str) -> str:
    """Return how a unit in words contradicts its code; "" if it does not, or if the words are not certain.

    Worked examples: "mg/dL" contradicts mmol/L, and "g/L" g/dL; "ng/mL" is ug/L, "mmol" only shorter than mmol/L, and
    "m" than min.
    """
    worded = ucum_unit(words)
    one, other = size_of(worded or ""), size_of(ucum_unit(code) or code)
    cut = code.removeprefix(worded or "")
    if one is None or other is None or one == other or (cut not in (code, "") and cut[0] in "/["):
        return ""
    if cut != code and len(words) == 1 and one[1] != other[1]:  # m for min
        return ""
    return f"its unit is {printable(words, 40)} in words and {printable(code, 40)} by its code"


@lru_cache(maxsize=1024)
def size_of(unit: str) -> Size | None:
    """Return the factor of a unit and the basic units that it is made of; None if it is not UCUM, or if a number in it
    is 0 or so long that no unit has it and its power would take for ever: km999999999.

    Worked example: mg/dL is 1/1000 / (1/10 * 1/1000) = 10 and {g: 1, m: -3}.
    """
    unit = series_unit(unit)
    if not is_ucum(unit):
        return None
    plain = BRACKETS.sub(lambda inside: "/" + inside[1].replace(".", "/"), unit)
    factor, found = Fraction(1), Counter[str]()
    for sign, symbol, exponent in PART.findall(re.sub(r"\[[^\]]*\]", lambda each: each[0].replace(".", "_"), plain)):
        number = int(exponent or 1) if len(exponent) <= (3 if symbol else 9) else 0
        if number == 0:
            return None
        power = (-1 if sign == "/" else 1) * (number if symbol else 1)
        if symbol in ("10*", "10^"):
            factor *= Fraction(10) ** power
        elif not symbol:
            factor *= Fraction(number) ** power
        else:
            own, base, times = _basic(symbol)
            factor *= own**power
            found[base] += times * power
    return factor, frozenset((base, times) for base, times in found.items() if base and times)


def _basic(symbol: str) -> tuple[Fraction, str, int]:
    """Return a unit, such as mL, as a factor and a power of a basic unit: (1e-6, "m", 3)."""
    for prefix in ("", *sorted(EXPONENTS, key=len, reverse=True)):
        rest = symbol.removeprefix(prefix)
        if prefix == "" and (symbol in KNOWN or symbol in METRIC.split()):
            break
        if prefix and rest != symbol and rest in METRIC.split():
            break
    else:
        prefix, rest = "", symbol
    rest = "U" if ARBITRARY.fullmatch(rest) else rest
    factor, base, times = KNOWN.get(rest, (Fraction(1), rest, 1))
    return factor * Fraction(10) ** EXPONENTS.get(prefix, 0), base, times
