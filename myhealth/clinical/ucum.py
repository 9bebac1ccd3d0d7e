"""Check whether a unit is a UCUM code, so that an export may declare it as UCUM. Pure.

The table has the units of UCUM that check-ups and laboratories use; case matters. C, F, G, K, T, u and the like are
left out on purpose: a source with 37 C, 98 F, 250 K/uL or 5 T/L does not mean coulombs, farads, kelvins or teslas.
Source: ucum.org, "The Unified Code for Units of Measure" 2.2, §§ 4 to 12 and tables 1 to 25.
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
    """Worked examples: `mm[Hg]`, `10*3/uL`, `mL/min/{1.73_m2}` and `/min` are; `mmHg`, `bpm` and `IU/L` are not."""
    shape = PARTS.sub(lambda found: "u" if re.fullmatch(PART, found[0]) else "?", unit)
    while (shorter := IN_BRACKETS.sub("u", shape)) != shape:
        shape = shorter
    return re.fullmatch(TERM, shape) is not None
