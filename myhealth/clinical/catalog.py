"""The tests of a usual check-up: their LOINC codes, UCUM units, and the usual range of adults.

A machine's own range always wins. Where it sends none, the range from here sets `low`, `high` and, if the machine sent
none, `flag`, and `range_source` says so. A range that differs by sex is given in words (`range_text`) and not compared
where the sex is not known. A value that no living body has is kept as it is, with the flag A and a warning. Units and
values are never altered: a unit is only compared, and an unknown one has no range.

LOINC codes: loinc.org. UCUM: ucum.org. Ranges are for adults who are not pregnant; each has its source beside it.
`possible` bounds are generous: what has been survived, at any age, or what the instrument can mean at all.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from msgspec import Struct

from myhealth.clinical.ranges import ABOVE, ADULT_AGE, BELOW, WITHIN, classify, parse_measurement
from myhealth.clinical.units import series_unit

Bound = float | None
SOURCE = "catalogue"
SENT = "source"  # whose flag it is, where the range beside it is the catalogue's
IMPOSSIBLE = "outside what a living body has"  # what a warning says


class Range(Struct, frozen=True):
    """The reference range (`low` to `high`, None if open) and the possible values (`least` to `most`) in one unit.

    `women`, `men`: the range of each sex where they differ; then `low` and `high` contain both.
    """

    low: Bound
    high: Bound
    least: float
    most: float
    women: tuple[float, float] | None = None
    men: tuple[float, float] | None = None

    def in_words(self) -> str:
        """Return the ranges of both sexes, such as "women 12 to 16, men 14 to 18"."""
        pairs = (("women", self.women), ("men", self.men))
        return ", ".join(f"{who} {ends[0]:g} to {ends[1]:g}" for who, ends in pairs if ends)


class Analyte(Struct, frozen=True):
    """An analyte or vital sign: its name, its LOINC codes, and a range for each unit.

    The unit decides, not the code's property: HL7's own lipid example codes mass per volume and sends mmol/L.
    """

    name: str
    codes: tuple[str, ...]
    ranges: dict[str, Range]


# The name and the LOINC codes of each; then, for each unit, `low`, `high`, `least` and `most` (- is open), and the
# ranges of women and of men.
_TABLE = Path(__file__).with_name("catalog.txt").read_text(encoding="utf-8")


def _analyte(name: str, codes: str, *units: str) -> Analyte:
    ranges = {}
    for unit, *words in map(str.split, units):
        low, high, least, most, *by_sex = map(_bound, words)
        pairs = [(low or 0, high or 0) for low, high in (by_sex[:2], by_sex[2:])] if by_sex else []
        ranges[unit] = Range(low, high, least or 0, most or 0, *pairs)
    return Analyte(name, tuple(codes.split()), ranges)


def _bound(word: str) -> Bound:
    return None if word == "-" else float(word) if "." in word else int(word)


_BLOCKS = re.findall(r"^(\w.*): (.*)\n((?:  .*\n)+)", _TABLE, re.MULTILINE)
ANALYTES = tuple(_analyte(name, codes, *units.strip().split("\n")) for name, codes, units in _BLOCKS)
FLAG_WHERE: dict[str | None, str] = {ABOVE: "H", BELOW: "L", WITHIN: "N"}
BY_CODE = {code: analyte for analyte in ANALYTES for code in analyte.codes}


# Codes of amounts of substance: LOINC has another code for the same test as a mass.
MOLAR = {
    *("14771-0", "15074-8", "14749-6", "14743-9", "59261-8", "14647-2", "14646-4"),
    *("22748-8", "39469-2", "14927-8", "14682-9"),
}


# When numbers of records were first derived from its findings, the catalogue knew only these spellings of units, and
# did not know LATER_CODES.
FIRST_UNITS = re.compile(
    r"mm(hg|\[hg])|(\{(beats|breaths)})?/min|bpm|(beats|breaths)/min(ute)?|cel|[°]?[cf]|deg[cf]|\[degf]|%|kg|\[lb_av]|lbs?|c?m"
    r"|\[in_i]|in|kg/m(2|\^2|²)|(mg|g)/dl|mmol/(l|mol)|g/l|[uµμ]mol/l"
)
LATER_NUMBERS = re.compile(r"(?<![0-9])\.")  # .5 as a text
LATER_CODES = frozenset({"76534-7", "76535-4", "8889-8", "14743-9"})


@lru_cache(maxsize=4096)
def _range_of(code: str | None, unit: str | None) -> Range | None:
    """Return what the catalogue knows of a code in a unit."""
    if code not in BY_CODE or unit is None:
        return None
    return BY_CODE[code].ranges.get(series_unit(unit.lower()))  # with a code of the catalogue, G/L is not giga a litre


def findings(
    code: str | None,
    value: Any,
    unit: str | None,
    low: Any,
    high: Any,
    flag: str | None,
    range_text: str | None,
    *,
    sex: str | None = None,
    age: float | None = None,
) -> dict[str, Any]:
    """Return the fields that the catalogue sets in a result; {} if it knows nothing of the test.

    It sets a range, with `flag` and `range_source`, if the machine sent none (a `range_text` is one). It sets the flag
    A and `warning` if no living body has the value. `sex`: "female" or "male", else it is not known. `age`: years; None
    is an adult, and a child has no range.
    """
    found = _range_of(code, unit)
    if found is None:
        return {}
    ranged = low is not None or high is not None
    if ranged and value.__class__ is int and found.least <= value <= found.most:
        return {}  # by far the most
    measured = parse_measurement(value)
    if measured is None:
        return {}
    added: dict[str, Any] = {}
    if not ranged and range_text is None and (age is None or age >= ADULT_AGE):
        added = _range_fields(found, sex, value, flag)
    beyond, number = measured
    if not beyond and not found.least <= float(number) <= found.most:
        added["flag"] = "A"
        added["warning"] = f"{value} {unit} is {IMPOSSIBLE} ({found.least:g} to {found.most:g})"
    return added


def _range_fields(found: Range, sex: str | None, value: Any, flag: str | None) -> dict[str, Any]:
    low, high = found.low, found.high
    if found.women is not None and found.men is not None:
        if sex not in ("female", "male"):
            return {"range_text": found.in_words(), "range_source": SOURCE}
        low, high = found.women if sex == "female" else found.men
    elif low is None and high is None:
        return {}
    if flag is not None:
        return {"low": low, "high": high, "range_source": SOURCE, "flag_source": SENT}
    return {"low": low, "high": high, "range_source": SOURCE, "flag": FLAG_WHERE.get(classify(value, low, high))}


@lru_cache(maxsize=4096)
def is_first(code: str, unit: str) -> bool:
    """Return whether the catalogue knew the code and the spelling of the unit at first."""
    return code not in LATER_CODES and FIRST_UNITS.fullmatch(unit.replace(" ", "").lower()) is not None


def is_of_first(found: Mapping[str, Any], code: str, unit: str) -> bool:
    """Return whether `first_findings` gives what was found."""
    more = "range_text" in found or "flag_source" in found or "range_source" not in found
    return not more and is_first(code, unit)


def first_findings(
    code: str | None, value: Any, unit: str | None, low: Any, high: Any, flag: str | None, range_text: str | None
) -> dict[str, Any]:
    """Return what `findings` returned at first: one range for both sexes, and fewer spellings of units.

    Records without a number are known by a digest that contains these fields, so this must not change.
    """
    if code not in BY_CODE or unit is None or not is_first(code, unit):
        return {}
    if isinstance(value, str) and LATER_NUMBERS.search(value):
        return {}
    made = findings(code, value, unit, low, high, flag, range_text)
    found = _range_of(code, unit)
    made.pop("flag_source", None)
    if found is None or "range_text" not in made:
        return made
    added = {"low": found.low, "high": found.high, "range_source": SOURCE}
    if flag is None:
        added["flag"] = FLAG_WHERE.get(classify(value, found.low, found.high))
    return added | {name: made[name] for name in ("flag", "warning") if name in made}


ADDED = ("warning", "range_source", "flag_source")


def as_sent(result: dict[str, Any]) -> dict[str, Any]:
    """Return a stored result as its source sent it, for comparison with a record that comes again.

    What the catalogue added and which of its `ranges` was chosen are left out, because a later catalogue may add other
    values and the patient's sex may become known. A flag is left out where the catalogue may have set it.
    """
    kept = {name: value for name, value in result.items() if name not in ADDED}
    if result.get("range_source") == SOURCE:
        kept.pop("range_text", None)
        kept |= {"low": None, "high": None}
    ranges = [each for each in result.get("ranges") or () if isinstance(each, dict)]
    if any((each.get("low"), each.get("high")) == (result.get("low"), result.get("high")) for each in ranges):
        kept |= {"low": None, "high": None}
    code, value, unit, low, high, text = map(kept.get, ("code", "value", "unit", "low", "high", "range_text"))
    text = "" if ranges and text is None else text
    if "warning" in result or findings(code, value, unit, low, high, None, text):
        kept["flag"] = None
    return kept


def source_flag(result: Mapping[str, Any]) -> str | None:
    """Return the flag of a stored result if it is the source's; None if the catalogue set it, or may have set it.

    An export must not pass our own flag off as the source's. Results stored earlier have no `flag_source`: there a flag
    that differs from the catalogue's is the source's.
    """
    flag: str | None = result.get("flag")
    if flag is None or (result.get("warning") and flag == "A"):
        return None
    low, high = result.get("low"), result.get("high")
    if result.get("range_source") != SOURCE or result.get("flag_source") == SENT or (low is None and high is None):
        return flag
    return None if flag == FLAG_WHERE.get(classify(result.get("value"), low, high)) else flag


def name_of(code: str | None) -> str | None:
    """Return the catalogue's name of the test with a LOINC code, such as "Total cholesterol" for 2093-3."""
    return BY_CODE[code].name if code in BY_CODE else None


def code_of(name: str, unit: str) -> str:
    """Return the first LOINC code of the catalogue's test with this name, in British or American spelling. Return "" if
    there is no such test, or if its codes differ by unit and the catalogue does not know this unit.

    Worked examples: "hemoglobin" is 718-7; "Glucose" in mg/dL is 2345-7, in mmol/L 14749-6, and without a unit "".
    """
    analyte = BY_NAME.get(_folded(name))
    if analyte is None:
        return ""
    key = series_unit(unit.lower())
    if MOLAR.isdisjoint(analyte.codes):
        return analyte.codes[0]
    return next((each for each in analyte.codes if key in analyte.ranges and (each in MOLAR) == ("mol" in key)), "")


def _folded(name: str) -> str:
    return " ".join(name.casefold().replace("ae", "e").split())


BY_NAME = {_folded(analyte.name): analyte for analyte in ANALYTES}


def codes_of(code: str) -> tuple[str, ...]:
    """Return all LOINC codes of the test that a code names: they make one trend. A code unknown here is alone."""
    return BY_CODE[code].codes if code in BY_CODE else (code,)
