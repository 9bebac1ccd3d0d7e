"""Which reference range of a source holds for which patient."""

from datetime import date
from typing import Any

import pytest

from myhealth.clinical.range_choice import age_in_years, choose_range, is_normal, sex_named

MEN, WOMEN = {"low": 14, "high": 18, "sex": "male"}, {"low": 12, "high": 16, "sex": "female"}
INFANTS, ADULTS = (
    {"low": 100, "high": 160, "age_low": 0, "age_high": 1},
    {"low": 60, "high": 100, "age_low": 18, "age_high": 120},
)
ALL = {"low": 1, "high": 2}
BABIES = {"low": 5, "age_high": 6, "age_unit": "mo"}


@pytest.mark.parametrize(
    ("ranges", "sex", "age", "chosen"),
    [
        ([MEN, WOMEN], "female", None, WOMEN),
        ([MEN, WOMEN], "male", 40, MEN),
        ([MEN, WOMEN], None, 40, None),
        ([MEN, WOMEN], "other", 40, None),
        ([ALL, WOMEN], "female", None, WOMEN),
        ([ALL, WOMEN], None, None, ALL),
        ([WOMEN], None, None, None),
        ([INFANTS, ADULTS], None, 36, ADULTS),
        ([INFANTS, ADULTS], None, 0.5, INFANTS),
        ([INFANTS, ADULTS], None, 10, None),
        ([INFANTS, ADULTS], None, None, None),
        ([INFANTS], None, 1.5, None),
        ([{**ADULTS, "age_low": 13, "age_high": 17}], None, 17.9, {**ADULTS, "age_low": 13, "age_high": 17}),
        ([BABIES], None, 0.4, BABIES),
        ([BABIES], None, 0.6, None),
        ([{**BABIES, "age_unit": "moons"}], None, 0.4, None),
        ([ALL, {"low": 3, "high": 4}], None, None, None),
        ([ALL, {**ALL, "text": "1-2"}], None, None, ALL),
        ([{**ALL, "type": "Therapeutic range"}, {"low": 3}], None, None, {"low": 3}),
        ([{**ALL, "type": {"codings": [{"code": "treatment"}]}}], None, None, None),
        ([{**ALL, "type": {"codings": [{"code": "normal"}], "text": "Usual"}}], None, None, "the range itself"),
        ([{**ALL, "type": {"text": "Normal Range"}}], None, None, "the range itself"),
        ([{**ALL, "applies_to": ["pregnant"]}], "female", 30, None),
        ([{**ALL, "text": "Children"}], None, None, None),
        ([{**ALL, "text": "M: 1-2"}], "male", None, None),
        ([{**ALL, "text": "Women, luteal phase", "sex": "female"}], "female", None, None),
        ([{**WOMEN, "text": "Women: 12-16"}], "female", None, {**WOMEN, "text": "Women: 12-16"}),
        ([{**ALL, "text": "1.0-2.0 mg/mL"}], None, None, "the range itself"),
        ([{"text": "see note"}], None, None, None),
        ([{"low": 5, "high": 4}], None, None, None),
        ([], "male", 40, None),
    ],
)
def test_the_range_is_one_whose_conditions_the_patient_is_known_to_meet(
    ranges: list[dict[str, Any]], sex: str | None, age: float | None, chosen: Any
) -> None:
    assert choose_range(ranges, sex, age) == (ranges[0] if chosen == "the range itself" else chosen)


@pytest.mark.parametrize(
    ("type_", "normal"),
    [(None, True), ("", True), ("Normal Range", True), ("normal", True), ("Critical", False), ("panic", False), ("pre-puberty", False),
     ("recommended", False), ({"codings": [{"code": "normal"}]}, True), ({"codings": [{"code": "therapeutic"}], "text": "normal"}, False)],
)  # fmt: skip
def test_only_the_normal_range_compares(type_: Any, normal: bool) -> None:
    assert is_normal(type_) == normal


@pytest.mark.parametrize(
    ("word", "sex"),
    [("male", "male"), ("F", "female"), ("248152002", "female"), (" Women ", "female"), ("O", None), ("", None)],
)
def test_a_sex_is_read_from_its_codes(word: str, sex: str | None) -> None:
    assert sex_named(word) == sex


@pytest.mark.parametrize(
    ("born", "on", "age"),
    [("1990-01-01", "2026-11-01", 36), ("2008-11-02", "2026-11-01", 17), ("2008-11-01", "2026-11-01", 18), ("2004-02-29", "2026-02-28", 21)],
)  # fmt: skip
def test_an_age_is_whole_years_from_two_on(born: str, on: str, age: int) -> None:
    assert age_in_years(date.fromisoformat(born), date.fromisoformat(on)) == age


def test_an_infants_age_is_part_of_a_year() -> None:
    assert age_in_years(date(2026, 5, 1), date(2026, 11, 1)) == pytest.approx(0.5, abs=0.01)
