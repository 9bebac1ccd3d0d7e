"""The spellings of units: one series for one unit, UCUM only where it is certain."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from myhealth.clinical.units import CANONICAL, COUNTS, is_ucum, series_unit, ucum_unit

SERIES = {
    "10*3/uL": "10^3/uL|x10^3/uL|X 10^3/µL|10*3/μL|10E3/uL|10e+3/uL|10**3/uL|10³/µL|K/uL|k/ul|thou/uL|10(3)/mm3|10^3 cells/uL|x103/uL"
    "|10^9/L|10*9/L|10E9/L|x10^9/L|10⁹/l",
    "10*6/uL": "x10^6/uL|M/uL|10^12/L|mill/mm3|million/cumm",
    "10*5/uL": "lakhs/cumm|Lakh / cumm",
    "/uL": "cells/uL|/cumm|cells/mm3",
    "mg/dL": "mg/dl|MG/DL|mg / dL|mg%|mgs/dl",
    "g/dL": "gm/dl|g%|gms/dL|gm%",
    "ug/dL": "µg/dL|μg/dl|mcg/dL",
    "mm[Hg]": "mmHg|mm Hg|MMHG|mm[Hg]",
    "umol/L": "µmol/L|μmol/l|UMOL/L",
    "/min": "bpm|beats/min|{beats}/min|1/min|breaths/minute",
    "Cel": "°C|C|degC|cel",
    "mL/min/{1.73_m2}": "mL/min/1.73m2|mL/min/1.73 m2|ml/min/{1.73_m2}",
    "[IU]/L": "IU/L|[iU]/L",
}  # fmt: skip
SPELLINGS = [(spelling, unit) for unit, spellings in SERIES.items() for spelling in (unit, *spellings.split("|"))]


@pytest.mark.parametrize(("spelling", "unit"), SPELLINGS)
def test_the_spellings_of_a_unit_are_one_series(spelling: str, unit: str) -> None:
    assert series_unit(spelling) == unit


@pytest.mark.parametrize(
    ("one", "other"),
    [("mg/dL", "mmol/L"), ("mg/dL", "g/dL"), ("10*3/uL", "10*6/uL"), ("mg/L", "ug/L"), ("G/L", "g/L"), ("mol/L", "mmol/L"),
     ("", "mg/dL"), ("mM", "mm"), ("D", "d"), ("A", "a"), ("odd", "odder"), ("10", "100"), ("mL", "mg")],
)  # fmt: skip
def test_two_units_are_two_series(one: str, other: str) -> None:
    assert series_unit(one) != series_unit(other)


@pytest.mark.parametrize(
    ("sent", "ucum"),
    [("10^3/uL", "10*3/uL"), ("x10^6/uL", "10*6/uL"), ("10^9/L", "10*9/L"), ("10*9/L", "10*9/L"), ("K/uL", "10*3/uL"),
     ("10^3/mm3", "10*3/uL"), ("mmHg", "mm[Hg]"), ("bpm", "/min"), ("IU/L", "[IU]/L"), (" mg/dL ", "mg/dL"), ("mg/dl", "mg/dl"),
     ("µg/L", "ug/L"), ("10*3/mm3", "10*3/mm3"), ("K", None), ("G/L", None), ("T/L", None), ("10", None), ("103/uL", None),
     ("mM", None), ("µM", None), ("D", None), ("M", None), ("Year", None), ("ratio", None), ("10^", None), ("", None)],
)  # fmt: skip
def test_a_unit_is_ucum_only_where_that_is_certain(sent: str, ucum: str | None) -> None:
    assert ucum_unit(sent) == ucum


def test_the_tables_hold_ucum() -> None:
    assert [unit for unit in {*CANONICAL.values(), *COUNTS.values()} if not is_ucum(unit)] == []
    assert all(series_unit(unit) == unit for unit in CANONICAL.values())


def test_no_unit_is_a_series_of_its_own() -> None:
    assert series_unit(None) == series_unit(" ") == ""


@given(st.text(max_size=12))
def test_any_text_has_one_series_however_often_it_is_asked(text: str) -> None:
    found = series_unit(text)
    assert series_unit(found) == found
    assert (ucum := ucum_unit(text)) is None or is_ucum(ucum)
