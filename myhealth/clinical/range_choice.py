"""Choose the reference range that holds for a patient: one whose conditions the patient is known to meet. Pure.

A range is the mapping that a result carries in `ranges`: `low`, `high`, `text`, `type`, `sex`, `age_low`, `age_high`
(in `age_unit`, years by default), `applies_to`. Source: HL7 FHIR R4, "Observation.referenceRange".
"""

import re
from calendar import monthrange
from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any

from myhealth.clinical.catalog import ADDED, SOURCE, findings, source_flag
from myhealth.clinical.ranges import as_number
from myhealth.clinical.units import series_unit

Result = dict[str, Any]

# Units of age in UCUM and in words, as parts of a year.
YEARS_OF = {
    **dict.fromkeys(("a", "y", "yr", "yrs", "year", "years"), 1.0),
    **dict.fromkeys(("mo", "mos", "mth", "mths", "month", "months"), 1 / 12),
    **dict.fromkeys(("wk", "w", "week", "weeks"), 7 / 365.25),
    **dict.fromkeys(("d", "day", "days"), 1 / 365.25),
    **dict.fromkeys(("h", "hour", "hours"), 1 / 24 / 365.25),
}
# administrative-gender, v3 and HL7 v2 codes, SNOMED CT, and words.
SEXES = {
    **dict.fromkeys(("male", "m", "248153007", "men", "man", "males", "boys"), "male"),
    **dict.fromkeys(("female", "f", "248152002", "women", "woman", "females", "girls"), "female"),
}
NORMAL = re.compile(r"|normal(?: range| reference range)?|reference(?: range| interval)?|normal values?")
PERSON_WORDS = re.compile(
    r"\b(?:(?P<sex>(?:fe)?males?|(?:wo)?m[ae]n|boys?|girls?|[mf] ?:)"
    r"|(?P<age>child|children|infants?|newborns?|neonat\w+|adults?|p(?:a)?ediatric|adolescents?|years?|yrs?|months?|age[ds]?)"
    r"|(?P<other>pregnan\w+|trimester|\w*menopaus\w*|luteal|follicular|mid-?cycle|ovulat\w+|fasting|\w*prandial))(?:\b|(?<=:))",
    re.IGNORECASE,
)


def sex_named(code_or_words: str) -> str | None:
    """Return "male" or "female" for a code or a word of it, else None.

    Worked examples: "female", "F", "248152002" and "Women" are female; "pregnant" is None.
    """
    return SEXES.get(code_or_words.strip().lower())


def choose_range(
    ranges: Iterable[Mapping[str, Any]], sex: str | None = None, age: float | None = None, oldest: float | None = None
) -> Mapping[str, Any] | None:
    """Return the one range of a source whose conditions the patient is known to meet, else None.

    `sex`: "male", "female", or anything else for not known; `age`: in years at the measurement, None if not known;
    `oldest`: the highest possible age, if only the year or the month of birth is known. The most specific range wins:
    one for a sex and an age before one for everybody. Return None if several different ranges are left, for any of them
    may be meant. Only normal ranges are compared, not treatment, therapeutic, critical and other ones.
    """
    met = [(_specificity(each), each) for each in ranges if _is_comparable(each) and _is_met(each, sex, age, oldest)]
    most = max((rank for rank, _ in met), default=0)
    found = [each for rank, each in met if rank == most]
    same = {(str(each.get("low")), str(each.get("high"))) for each in found}
    return found[0] if len(same) == 1 else None


def is_normal(type_: Any) -> bool:
    """Return whether the type of a range (text, or {text, codings}; None is normal) says that it is the normal one."""
    if not isinstance(type_, Mapping):
        return NORMAL.fullmatch(str(type_ or "").strip().lower()) is not None
    codes = [str(coding.get("code") or "").lower() for coding in type_.get("codings") or ()]
    return all(code == "normal" for code in codes) if codes else is_normal(type_.get("text"))


def _is_comparable(each: Mapping[str, Any]) -> bool:
    low, high = as_number(each.get("low")), as_number(each.get("high"))
    if (low is None and high is None) or (low is not None and high is not None and low > high):
        return False
    if each.get("applies_to") or not is_normal(each.get("type")):
        return False
    return not _conditions_in_words(each)


def _conditions_in_words(each: Mapping[str, Any]) -> bool:
    """Return whether the text of a range names a condition that its fields lack, such as "Children" or "M: 13-17"."""
    for words in PERSON_WORDS.finditer(str(each.get("text") or "")):
        if words["other"] or (words["sex"] and not each.get("sex")) or (words["age"] and not _has_age(each)):
            return True
    return False


def _has_age(each: Mapping[str, Any]) -> bool:
    return each.get("age_low") is not None or each.get("age_high") is not None


def _is_met(each: Mapping[str, Any], sex: str | None, age: float | None, oldest: float | None) -> bool:
    if each.get("sex") and (sex not in ("male", "female") or each["sex"] != sex):
        return False
    if not _has_age(each):
        return True
    unit = str(each.get("age_unit") or "a")
    least, most = (YEARS_OF.get(text.strip().lower()) for text in (str(each.get("age_low_unit") or unit), unit))
    if age is None or least is None or most is None:
        return False
    low, high = as_number(each.get("age_low")), as_number(each.get("age_high"))
    if low is not None and age < float(low) * least:
        return False
    # "to 17 years" ends at the eighteenth birthday, but "to 1 year" before the second, "36 months" before the fourth.
    age = age if oldest is None else oldest
    return high is None or (int(age) if most == 1 and high >= 2 else age) <= float(high) * most


def _specificity(each: Mapping[str, Any]) -> int:
    return bool(each.get("sex")) + _has_age(each)


def for_person(result: Result, sex: str | None, age: float | None, oldest: float | None = None) -> Result:
    """Return a result with the range that holds for a person of this sex and age, as far as they are known.

    `low` and `high` become those of the one of `ranges` whose conditions are met, or null. A source's own `low` and
    `high` stay if they are in no entry of `ranges`. A range of the catalogue is replaced by the one for this person. A
    flag of the source stays.
    """
    if result.get("ranges"):
        return _with_chosen_range(result, sex, age, oldest)
    if result.get("range_source") != SOURCE:
        return result
    own = {name: value for name, value in result.items() if name not in (*ADDED, "range_text")}
    own |= {"low": None, "high": None, "flag": source_flag(result)}
    code, value, unit, flag = (own.get(name) for name in ("code", "value", "unit", "flag"))
    return own | findings(code, value, unit, None, None, flag, None, sex=sex, age=age)


def age_at(birth_date: str | None, on: date, *, oldest: bool = False) -> float | None:
    """Return the age at a date by a birth date of YYYY[-MM[-DD]]; the youngest possible, or the `oldest`; None if it is
    not known."""
    parts = [int(part) for part in birth_date.split("-")] if birth_date else []
    if not parts:
        return None
    try:
        first, last = (_day(*parts, *rest[len(parts) - 1 :]) for rest in ((1, 1), (12, 31)))
    except ValueError:
        return None
    return age_in_years(first if oldest else min(last, on), on) if first <= on else None


def _day(year: int, month: int, day: int) -> date:
    return date(year, month, min(day, monthrange(year, month)[1]))


def age_in_years(birth_date: date, on: date) -> float:
    """Return the age in whole years, and below two years in parts of a year. `on` may not be before `birth_date`."""
    whole = on.year - birth_date.year - ((on.month, on.day) < (birth_date.month, birth_date.day))
    return float(whole) if whole >= 2 else (on - birth_date).days / 365.25


def _with_chosen_range(result: Result, sex: str | None, age: float | None, oldest: float | None) -> Result:
    ranges = [each for each in result["ranges"] if isinstance(each, Mapping)]
    ends = (result.get("low"), result.get("high"))
    if ends != (None, None) and all((each.get("low"), each.get("high")) != ends for each in ranges):
        return result
    unit = series_unit(result.get("unit"))
    same_unit = [each for each in ranges if not each.get("unit") or not unit or series_unit(each["unit"]) == unit]
    chosen = choose_range(same_unit, sex, age, oldest) or {}
    return {**result, "low": chosen.get("low"), "high": chosen.get("high")}
