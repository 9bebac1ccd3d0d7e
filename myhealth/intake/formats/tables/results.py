"""Make results of the cells of a table: their codes and units, and both values of a blood pressure."""

import re
from typing import Any

from myhealth.clinical.catalog import name_of
from myhealth.clinical.coding_systems import is_loinc
from myhealth.clinical.guide import BLOOD_PRESSURE, DIASTOLIC, SYSTOLIC
from myhealth.clinical.units import series_unit, ucum_unit
from myhealth.intake.parsed_record import ParsedRecord

CODED = re.compile(r"(?:(?:LOINC|LN|http://loinc\.org)[\s:|]*)?([1-9][0-9]{0,6}-[0-9])", re.IGNORECASE)
PRESSURE = re.compile(r"([0-9]{2,3})\s*/\s*([0-9]{2,3})(?:\s*mm\s?Hg)?", re.IGNORECASE)
PRESSURES = frozenset(("bp", "blood pressure", "nibp"))
MMHG = "mm[Hg]"


def table_results(
    name: str, code: str, unit: str, value: dict[str, Any], parsed: ParsedRecord, column: str
) -> list[dict[str, Any]]:
    """Return a result, or the two of a blood pressure such as 128/82; what they lack is left out.

    Anything else in the place of a blood pressure, such as 95/101, stays as it is, and `parsed` gets a warning."""
    text = str(value["value"])
    if code == BLOOD_PRESSURE or (not code and name.casefold() in PRESSURES):
        pressure = PRESSURE.fullmatch(text) if series_unit(unit) in ("", MMHG) else None
        if pressure and int(pressure[1]) > int(pressure[2]):
            both = zip((SYSTOLIC, DIASTOLIC), pressure.groups(), strict=True)
            return [table_result(name_of(code) or code, code, MMHG, {"value": int(digits)}) for code, digits in both]
        if text[:1].isdecimal():
            parsed.warnings.append(
                (column, f"'{text[:40]}' is no blood pressure in mm[Hg] with the upper value first, as in 128/82")
            )
    return [table_result(name, code, unit, value)]


def table_result(name: str, code: str, unit: str, value: dict[str, Any]) -> dict[str, Any]:
    """Return a result with its code, which may be LOINC or another one, and its unit in UCUM if that is known."""
    found: dict[str, Any] = {"name": name, **value}
    unit = found.pop("unit", unit)
    if code:
        coded = CODED.fullmatch(code)
        found |= {"code": coded[1]} if coded and is_loinc(coded[1]) else {"other_code": code}
    if unit:
        found["unit"] = ucum_unit(unit) or unit
        if found["unit"] != unit:
            found["unit_text"] = unit
    return found
