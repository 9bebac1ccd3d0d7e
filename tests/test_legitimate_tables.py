"""Tables that real exports contain and that must not be refused, doubted or read otherwise."""

import io
from typing import Any

import pytest
from support.tables import faults, read, refusal, results, take_in, values

from myhealth.clinical.unit_sizes import contradiction_in_unit
from myhealth.intake.formats.registry import read_dump
from myhealth.intake.formats.tables.layout import parse_layout
from myhealth.intake.retry import retry_rejection

DAY = "2026-11-20"


@pytest.mark.parametrize(
    ("cell", "column", "value", "unit"),
    [("2.1 mIU/L", "uIU/mL", 2.1, "u[IU]/mL"), ("30 ug/L", "ng/mL", 30, "ng/mL"), ("30 IU/L", "U/L", 30, "U/L"),
     ("4.1 mmol/L", "mEq/L", 4.1, "mmol/L"), ("72 1/min", "/min", 72, "/min")],
)  # fmt: skip
def test_a_cell_may_write_the_unit_of_its_column_otherwise(cell: str, column: str, value: float, unit: str) -> None:
    (found,) = results(f"patient,date,T ({column})\nasha,{DAY},{cell}\n")
    assert (float(found["value"]), found["unit"]) == (value, unit)


@pytest.mark.parametrize("cell", ["98 am", "98 PM", "7h30"])
def test_a_time_of_day_behind_a_number_is_not_a_unit(cell: str) -> None:
    assert values(f"patient,date,T (mg/dL)\nasha,{DAY},{cell}\n") == [cell]


def test_a_cell_in_another_unit_says_what_to_do() -> None:
    ((_, _, message),) = faults(f"patient,date,Weight (kg)\nasha,{DAY},154 lbs\n")
    assert message.endswith("; write it in that unit, or take the unit out of the column's name")


@pytest.mark.parametrize(
    ("words", "code"),
    [("hPa", "mbar"), ("U/mL", "[arb'U]/mL"), ("IU/mL", "[CFU]/mL"), ("m", "min"), ("mmol/kg", "mosm/kg"), ("kcal", "[Cal]")],
)  # fmt: skip
def test_words_for_the_same_unit_contradict_no_code(words: str, code: str) -> None:
    assert contradiction_in_unit(words, code) == ""


AGES = {"45 ans": 45, "45 Jahre": 45, "45 J.": 45, "4Y 6M": 4.5, "45Y/M": 45, "45/M": 45, "45 / F": 45, "6 mths": 0.5, "45,5": 45.5, ">90": 90, "6 mois": 0.5,
        "0": 0, "adult": None, "unknown": None}  # fmt: skip


@pytest.mark.parametrize(("text", "years"), AGES.items())
def test_an_age_is_read_as_laboratories_write_it(text: str, years: float | None) -> None:
    (found,) = read(f"patient;date;age;T\nasha;{DAY};{text};5\n")
    assert (found.record.get("patient"), found.faults) == (None if years is None else {"age": years}, [])


@pytest.mark.parametrize("text", ["6 M", "45 M", "child"])
def test_an_age_that_may_be_two_is_refused(text: str) -> None:
    ((_, column, message),) = faults(f"patient,date,age,T\nasha,{DAY},{text},5\n")
    assert (column, message.partition("; ")[2]) == ("age", "write it as 45, 6 months or 3 days, or leave it empty")


@pytest.mark.parametrize("other", ["98.5", "0.985", "<0.5", "1234.567"])
def test_a_point_that_parts_no_thousands_elsewhere_tells_that_all_are_decimal(other: str) -> None:
    found = values(f"patient;date;TSH;CRP\nasha;{DAY};1.234;\nravi;{DAY};2;{other}\n")
    assert str(found[0]) == "1.234"


def test_a_table_that_may_have_thousands_says_what_to_do() -> None:
    ((_, _, message),) = faults(f"patient;date;Platelets;CRP\nasha;{DAY};250.000;2\n")
    assert "if decimals, say --decimal ." in message


def test_a_rejected_row_keeps_the_decimal_point_that_the_table_told(people: Any, db: Any) -> None:
    assert take_in(f"patient;date;TSH;CRP\nnobody;{DAY};1.234;\nsavita;{DAY};2;98.5\n")["rejected"] == 1
    ((number,),) = db("select id from rejections")
    assert retry_rejection(number, patient="bholanath").status == "accepted"


@pytest.mark.parametrize("name", ["Smoking status", "Insulin units", "Heart rate high"])
def test_a_column_named_like_a_part_of_another_may_be_a_test(name: str) -> None:
    first = name.rpartition(" ")[0]
    text = f"patient,date,{first},{name}\nasha,{DAY},4,5\n"
    assert "if each column is a test of its own, say so with --layout wide" in refusal(text)
    assert [str(each) for each in values(text, parse_layout("wide"))] == ["4", "5"]


@pytest.mark.parametrize("last", ["98,ok", '"98"', '98,"ok"'])
def test_a_last_line_whose_last_cell_cannot_be_cut_is_not_doubted(last: str) -> None:
    dump = read_dump(io.BytesIO(f"patient,date,T,comment\nasha,{DAY},{last}".encode()))
    list(dump.records)
    assert dump.notices == []


def test_a_first_row_whose_date_is_unknown_does_not_end_the_import() -> None:
    text = f"patient,date,HBsAg,HIV\nasha,unknown,neg,neg\nravi,{DAY},neg,neg\n"
    assert [len(each.faults) for each in read(text)] == [1, 0]
