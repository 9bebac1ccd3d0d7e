"""What a table says beside names and values: whose a row is, statuses, specimens, ranges in words, marks, units."""

from typing import Any

import pytest
from support.tables import LONG, faults, read, refusal, results, take_in

from myhealth.intake.formats.tables.layout import Layout, parse_layout

DAY = "2026-11-20"
WHOSE = "patient,authority,patient name,date of birth,sex,taken_at,name,value\n"
STATUS = "patient,taken_at,record_id,name,value,unit,status\n"


def of_column(column: str, cell: str, *, value: str = "5") -> dict[str, Any]:
    """Return the result of a row with one more column."""
    (result,) = results(f'patient,taken_at,name,value,unit,{column}\nasha,{DAY},T,{value},mg/dL,"{cell}"\n')
    return result


def test_two_hospitals_patients_with_one_number_are_two_people(db, people) -> None:
    rows = f"4711,HOSPA,Asha Rao,1980-01-01,F,{DAY},T,5\n4711,HOSPB,Ben Otto,1970-01-01,M,{DAY},T,6\n"
    assert take_in(WHOSE + rows, create_patients=True)["accepted"] == 2
    assert db("select full_name, birth_date::text, sex from users where username like '4711%' order by 1") == [
        ("Asha Rao", "1980-01-01", "female"),
        ("Ben Otto", "1970-01-01", "male"),
    ]
    for contradicts in ("Ben Otto,,", "Rao Asha,1981-01-01,", "Rao Asha,,M"):
        assert take_in(f"{WHOSE}4711,HOSPA,{contradicts},{DAY},T,7\n")["rejected"] == 1, contradicts
    assert db("select distinct errors->0->>'code' from rejections") == [("identity_conflict",)]


def test_a_name_beside_a_username_is_compared_too(db, people) -> None:
    rows = f"savita,,Savita Rao,,,{DAY},T,5\nsavita,,Ben Otto,,,{DAY},T,6\n"
    assert take_in(WHOSE + rows)["rejected"] == 1


@pytest.mark.parametrize("cell", ["01/02/1980", "1/2/80", "30.02.1980", "yesterday"])
def test_a_birth_date_that_may_be_two_is_told(cell: str) -> None:
    ((line, column, message),) = faults(f"{WHOSE}asha,,,{cell},,{DAY},T,5\n")
    assert (line, column) == (2, "date of birth")
    assert "day first or month first" in message or "not a birth date" in message
    (parsed,) = read(f"{WHOSE}asha,,,01/02/1980,,{DAY},T,5\n", Layout(date_format="dmy"))
    assert parsed.record["patient"] == {"birth_date": "1980-02-01"}


def test_name_age_and_sex_of_a_wide_table_are_no_results() -> None:
    (parsed,) = read(f"Patient,Name,Age,Sex,Date,Heart rate (/min)\nasha,Asha Rao,4 years,F,{DAY},110\n")
    assert parsed.record["patient"] == {"name": "Asha Rao", "sex": "female", "age": 4}
    assert [each["name"] for each in parsed.record["results"]] == ["Heart rate"]


STATUSES = {"C": "corrected", "Entered in error": "entered-in-error", "DELETED": "entered-in-error", "final": None, "p": "preliminary", "partial": "unknown"}  # fmt: skip


@pytest.mark.parametrize(("cell", "status"), STATUSES.items(), ids=STATUSES)
def test_a_status_is_read(cell: str, status: str | None) -> None:
    assert of_column("status", cell).get("status") == status


def test_a_status_that_is_not_known_is_told() -> None:
    found = faults(f"{STATUS}asha,{DAY},1,T,5,mg/dL,haemolysed\n")
    assert found[0][:2] == (2, "status")
    assert "'haemolysed' is not a status" in found[0][2]


def test_a_result_has_a_life(db, people) -> None:
    def send(value: str, status: str) -> Any:
        counts = take_in(f"{STATUS}savita,{DAY},1,T,{value},mg/dL,{status}\nsavita,{DAY},1,U,5,mg/dL,final\n")
        found = db("select results->0->>'value', results->0->>'status', results->0->>'previous_value' from checkups")
        return *(name for name in counts if counts[name] == 1), found[0]

    assert send("6.9", "P") == ("accepted", ("6.9", "preliminary", None))
    assert send("6.1", "F") == ("accepted", ("6.1", None, "6.9"))
    assert send("5.1", "corrected") == ("accepted", ("5.1", "corrected", "6.1"))
    assert send("6.1", "F") == ("duplicate", ("5.1", "corrected", "6.1"))
    assert send("5.1", "withdrawn") == ("accepted", ("5.1", "entered-in-error", "6.1"))
    assert send("6.1", "F") == ("duplicate", ("5.1", "entered-in-error", "6.1"))


@pytest.mark.parametrize(
    "table",
    [
        f"patient,taken_at,name,value,status\nsavita,{DAY},T,5,STATUS\n",
        f"patient,date,status,T (mg/dL)\nsavita,{DAY},STATUS,5\n",
    ],
    ids=["long", "wide"],
)
def test_a_row_without_a_number_is_withdrawn_when_it_comes_again(table: str, db, people) -> None:
    assert take_in(table.replace("STATUS", ""))["accepted"] == 1
    assert take_in(table.replace("STATUS", "deleted"))["accepted"] == 1
    assert db("select status from checkups") == [("entered-in-error",)]
    assert take_in(table.replace("STATUS", ""))["duplicate"] == 1


def test_specimen_and_method_are_kept() -> None:
    assert of_column("specimen", "Urine")["specimen"] == "Urine"
    (wide,) = results(f"patient,date,specimen,method,Glucose (mg/dL)\nasha,{DAY},Urine,strip,15\n")
    assert (wide["specimen"], wide["method"]) == ("Urine", "strip")


RANGES = {
    "135 - 145": (135, 145), "<150": (None, 150), "up to 250 mg/dl": (None, 250), "> OR = 60": (60, None),
    "(135-145)": (135, 145), "70_105": (70, 105), "3,5 - 5,1": (3.5, 5.1), "negative": (None, None), "-": (None, None),
    "1:40": (None, None), "4 - 6 %": (None, None),
}  # fmt: skip


@pytest.mark.parametrize(("words", "ends"), RANGES.items(), ids=RANGES)
def test_a_range_in_words_is_read_where_it_is_plain(words: str, ends: tuple[Any, Any]) -> None:
    found = of_column("reference range", words)
    assert (found.get("low"), found.get("high")) == ends


def test_a_range_of_each_sex_has_its_condition() -> None:
    assert [each["sex"] for each in of_column("range", "M: 13-17; F: 12-16")["ranges"]] == ["male", "female"]


MARKS = {
    "h": ("H", None), "HH": ("HH", None), "High": ("H", {"text": "High"}), "pos": ("A", {"code": "POS"}),
    "*": (None, {"text": "*"}), "normal": ("N", {"text": "normal"}), "<": (None, {"code": "<"}), "-": (None, None),
}  # fmt: skip


@pytest.mark.parametrize("column", ["flag", "interpretation"])
@pytest.mark.parametrize(("cell", "mark"), MARKS.items(), ids=MARKS)
def test_a_mark_is_kept_as_it_came(column: str, cell: str, mark: tuple[Any, Any]) -> None:
    found = of_column(column, cell)
    assert (found.get("flag"), *found.get("interpretations", [None])) == mark


VALUES = {
    "NaN": "no value", "#N/A": "no value", "#DIV/0!": "no value", "***.**": "no value", "----": "no value",
    "\u22125": -5, "<\u22125": "<-5", '="007"': 7, "-": "-", "TRUE": "TRUE", "+++": "+++", "n/a": "no value", "null": "no value",
    "none": "none",
}  # fmt: skip


@pytest.mark.parametrize(("cell", "value"), VALUES.items(), ids=VALUES)
def test_a_value_is_what_the_cell_says(cell: str, value: Any) -> None:
    escaped = cell.replace('"', '""')
    (result,) = results(f'patient,taken_at,name,value\nasha,{DAY},T,"{escaped}"\n')
    assert (result["value"], result.get("absent_reason")) == (value, cell if value == "no value" else None)


@pytest.mark.parametrize("digits", ["1" * 32, "1" * 40 + ".5", "1e999"])
def test_a_number_that_cannot_be_kept_is_told_as_that(digits: str) -> None:
    assert "cannot be kept exactly" in faults(f"{LONG}asha,{DAY},T,,{digits},\n")[0][2]


UNITS = {
    "no column of units": ("value (mg/dL)", "5", "mg/dL", ""),
    "the same": ("result [mg/dL],unit", "5,mg/dl", "mg/dl", ""),
    "a blank": ("value (mg/dL),unit", "5,", "mg/dL", ""),
    "another": ("value (mg/dL),unit", "5,mmol/L", "mmol/L", "is mmol/L, but the column value (mg/dL) is in mg/dL"),
    "a typed blank": ("value,unit", "5,n/a", None, ""),
}


@pytest.mark.parametrize(("columns", "cells", "unit", "fault"), UNITS.values(), ids=UNITS)
def test_the_unit_of_a_long_table_may_be_in_its_header(columns: str, cells: str, unit: str | None, fault: str) -> None:
    (parsed,) = read(f"patient,taken_at,test,{columns}\nasha,{DAY},T,{cells}\n")
    assert parsed.record["results"][0].get("unit") == unit
    assert [message for _, message in parsed.faults] == [fault] * bool(fault)


@pytest.mark.parametrize("column", ["unit", "Test", "flag", "low", "result (mg/dL)"])
def test_a_column_of_a_long_table_makes_no_result_of_a_wide_one(column: str) -> None:
    assert f"the column '{column}' is of a long table" in refusal(
        f"patient,date,{column},Glucose (mg/dL)\na,{DAY},x,5\n"
    )


CODES = {
    "Glucose (mg/dL)": "2345-7", "glucose [mmol/L]": "14749-6", "Hemoglobin (g/dL)": "718-7", "Heart rate": "8867-4",
    "Urine glucose (mg/dL)": None, "Glucose, urine (mg/dL)": None, "Glucose": None, "Glucose (g/L)": None,
    "Total cholesterol (mmol/L)": "14647-2", "Glucose 2339-0 (mg/dL)": "2339-0",
}  # fmt: skip


@pytest.mark.parametrize(("column", "code"), CODES.items(), ids=CODES)
def test_a_column_that_is_named_like_a_test_of_the_catalogue_has_its_code(column: str, code: str | None) -> None:
    assert results(f'patient,date,"{column}"\nasha,{DAY},5\n')[0].get("code") == code


CODED = {"2345-7": "code", "LOINC 2345-7": "code", "http://loinc.org|2345-7": "code", "2345-8": "other_code",
         "02345-7": "other_code", "GLU": "other_code"}  # fmt: skip


@pytest.mark.parametrize(("code", "field"), CODED.items(), ids=CODED)
def test_only_what_is_a_loinc_code_is_one(code: str, field: str) -> None:
    (result,) = results(f"{LONG}asha,{DAY},T,{code},5,mg/dL\n")
    assert result[field] == (code if field == "other_code" else "2345-7")


PRESSURES = {
    "128/82": [("8480-6", 128), ("8462-4", 82)], "128 / 82": [("8480-6", 128), ("8462-4", 82)],
    "82/128": [(None, "82/128")], "128/82/90": [(None, "128/82/90")],
}  # fmt: skip


@pytest.mark.parametrize(("cell", "values"), PRESSURES.items(), ids=PRESSURES)
def test_a_blood_pressure_in_one_cell_is_two_results(cell: str, values: list[tuple[Any, Any]]) -> None:
    for table in (f"patient,date,BP (mmHg)\nasha,{DAY},{cell}\n", f"{LONG}asha,{DAY},Blood pressure,,{cell},mmHg\n"):
        assert [(each.get("code"), each["value"]) for each in results(table)] == values
    assert results(f"{LONG}asha,{DAY},Ratio,,128/82,\n")[0]["value"] == "128/82"
    assert len(results(f"{LONG}asha,{DAY},BP,,17/11,kPa\n")) == 1


@pytest.mark.parametrize("cell", ["95/101", "131/8", "128", "128/82/90"])
def test_what_is_no_blood_pressure_in_its_column_is_told(cell: str) -> None:
    told = [("BP", f"'{cell}' is no blood pressure in mm[Hg] with the upper value first, as in 128/82")]
    (parsed,) = read(f"patient,date,BP\nasha,{DAY},{cell}\n")
    assert (parsed.faults, parsed.warnings) == ([], told)
    for good in ("128/82", "n/a", "refused"):
        assert read(f"patient,date,BP\nasha,{DAY},{good}\n")[0].warnings == []


def test_a_header_that_comes_again_is_no_row() -> None:
    row = f"asha,{DAY},T,,5,\n"
    assert len(read(LONG + row + LONG.upper() + row)) == 2
    said = refusal(LONG + row + "patient,taken_at,code,name,value,unit\n" + row)
    assert "line 3: another header begins here, with its columns in another order" in said


def test_what_stands_under_no_name_is_told(people, run_cli, tmp_path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"patient,taken_at,name,value,\nsavita,{DAY},T,5,\nsavita,{DAY},T,6,extra\n")
    told = run_cli("import-machine", str(path))
    assert "column 5 has no name and is not read" in told.stderr
    path.write_text(f",patient,taken_at,name,value\n1,savita,{DAY},U,5\n")  # as a program numbers its rows
    assert "column 1 has no name and is not read" in run_cli("import-machine", str(path)).stderr


def test_utf8_that_is_named_windows_1252_is_told() -> None:
    row = f"asha,{DAY},Hämoglobin,,5,\n"
    assert "are UTF-8, not WINDOWS-1252" in faults((LONG + row).encode(), Layout(encoding="windows-1252"))[0][2]
    assert faults((LONG + row).encode("windows-1252"), Layout(encoding="windows-1252")) == []


def test_a_wide_layout_names_no_column_of_a_long_one() -> None:
    text = "[columns]\nunit = 'u'\n[[results]]\ncolumn = 'Glucose'"
    assert "columns.unit is of a long table" in refusal(f"date,u,Glucose\n{DAY},x,5\n", text)
    assert parse_layout("[columns]\nspecimen = 's'\n[[results]]\ncolumn = 'Glucose'").is_given


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (f"{STATUS}savita,{DAY},1,T,5,mg/dL,\n", f"{STATUS}savita,{DAY},1,T,,mg/dL,deleted\n"),
        (
            f"patient,date,record id,status,T (mg/dL)\nsavita,{DAY},1,,5\n",
            f"patient,date,record id,status,T (mg/dL)\nsavita,{DAY},1,deleted,\n",
        ),
    ],
    ids=["long", "wide"],
)
def test_a_row_is_withdrawn_by_its_number_alone(first: str, then: str, db, people) -> None:
    assert take_in(first)["accepted"] == take_in(then)["accepted"] == 1
    assert db("select record_id, status from checkups") == [("1", "entered-in-error")]


def test_a_withdrawal_that_says_neither_number_nor_value_is_told() -> None:
    assert faults(f"{STATUS}asha,{DAY},,T,,mg/dL,deleted\n") == [(2, "value", "is missing")]


@pytest.mark.parametrize("cell", ["<3", "3.5-", "low"])
def test_an_end_of_a_range_that_is_no_number_is_told(cell: str) -> None:
    assert faults(f"patient,taken_at,name,value,low,high\nasha,{DAY},T,5,{cell},9\n") == [
        (2, "low", f"is not a number: '{cell}'")
    ]


@pytest.mark.parametrize("blank", [" ", "\u00a0", "\u202f"], ids=["plain", "no break", "narrow"])
def test_a_blank_between_thousands_is_one_in_any_width(blank: str) -> None:
    table = f"patient,date,T\nasha,{DAY},1{blank}234\n"
    assert "not a number with the decimal separator" in faults(table)[0][2]
    assert results(table, Layout(thousands=" "))[0]["value"] == 1234


def test_a_reason_in_place_of_a_value_is_kept() -> None:
    assert of_column("absent reason", "clotted", value="") | {"unit": ""} == {
        "name": "T", "value": "no value", "absent_reason": "clotted", "unit": "",
    }  # fmt: skip
    assert of_column("absent reason", "", value="5")["value"] == 5
