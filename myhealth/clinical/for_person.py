"""The reference range of a result for the person whose it is: the source's, else the catalogue's. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

from myhealth.clinical.catalog import ADDED, SOURCE, findings, source_flag
from myhealth.clinical.range_choice import age_in_years, choose_range
from myhealth.clinical.units import series_unit

Result = dict[str, Any]


def for_person(result: Result, sex: str | None, age: float | None) -> Result:
    """Return a result with the range that holds for a person of this sex and age, as far as they are known.

    `low` and `high` become those of the one of `ranges` whose conditions are met, or null; a source's own `low` and
    `high`, which are in none of them, stay. A range of the catalogue is replaced by the one for this person. A flag of
    the source stays.
    """
    if result.get("ranges"):
        return _with_chosen_range(result, sex, age)
    if result.get("range_source") != SOURCE:
        return result
    own = {name: value for name, value in result.items() if name not in (*ADDED, "range_text")}
    own |= {"low": None, "high": None, "flag": source_flag(result)}
    code, value, unit, flag = (own.get(name) for name in ("code", "value", "unit", "flag"))
    return own | findings(code, value, unit, None, None, flag, None, sex=sex, age=age)


def age_at(birth_date: str | None, on: date) -> float | None:
    """Return the age at a date by a birth date of YYYY[-MM[-DD]]; the youngest possible; None if it is not known."""
    parts = [int(part) for part in birth_date.split("-")] if birth_date else []
    if not parts:
        return None
    year, month, day = (*parts, *(12, 31)[len(parts) - 1 :])[:3]
    while True:
        try:
            born = date(year, month, day)
            break
        except ValueError:
            if day <= 28:
                return None
            day -= 1
    return age_in_years(born, on) if born <= on else None


def _with_chosen_range(result: Result, sex: str | None, age: float | None) -> Result:
    ranges = [each for each in result["ranges"] if isinstance(each, Mapping)]
    ends = (result.get("low"), result.get("high"))
    if ends != (None, None) and all((each.get("low"), each.get("high")) != ends for each in ranges):
        return result
    unit = series_unit(result.get("unit"))
    same_unit = [each for each in ranges if not each.get("unit") or not unit or series_unit(each["unit"]) == unit]
    chosen = choose_range(same_unit, sex, age) or {}
    return {**result, "low": chosen.get("low"), "high": chosen.get("high")}
