"""What spreadsheets and people make of tables: inputs of the kinds in tests/data/faults."""

import io
from typing import Any

import pytest
from support.tables import LONG, faults, read, refusal, results, take_in, values

from myhealth.common.errors import BadInput
from myhealth.intake.formats.registry import read_dump
from myhealth.intake.formats.tables.layout import Layout
from myhealth.intake.identity import read_patient_map
from myhealth.intake.retry import retry_rejection
from myhealth.profiles.user_import import import_users

DAY = "2026-11-20"
WIDE = "patient,date,Glucose,HbA1c\n"
ROW = f"asha,{DAY},90,5.5\n"


def cell(text: str, **layout: Any) -> list[Any]:
    return values(f"patient;date;T\nasha;{DAY};{text}\n", Layout(delimiter=";", **layout))


NUMBERS = {
    "full-width digits": ("５．５", {}, 5.5), "Arabic digits": ("٥٫٥", {}, 5.5), "a comma in Arabic": ("٥٫٥", {"decimal": ","}, 5.5),
    "a Swiss apostrophe": ("1’234", {"thousands": "'"}, 1234), "a comparison in full width": ("＜５", {}, "<5"),
    "an exponent": ("1,5e3", {"decimal": ","}, 1500), "words stay": ("ｐｏｓ", {}, "ｐｏｓ"), "a half": ("5½", {}, "5½"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "layout", "value"), NUMBERS.values(), ids=NUMBERS)
def test_a_number_is_one_in_any_script(text: str, layout: dict[str, str], value: Any) -> None:
    assert cell(text, **layout) == [value]


DOUBTFUL = ["１,５", "1’234", "1,5e3", "1.234", "<1.234", "-1.234.567", '6"']


@pytest.mark.parametrize("text", DOUBTFUL)
def test_a_number_that_may_be_another_is_told(text: str) -> None:
    ((line, column, message),) = faults(f"patient;date;T\nasha;{DAY};{text}\n")
    assert (line, column) == (2, "T")
    assert "decimal" in message or "a quote" in message


def test_between_commas_a_point_is_the_decimal_one_and_so_it_is_where_it_is_named() -> None:
    assert [str(each) for each in values(f"patient,date,T\nasha,{DAY},1.234\n")] == ["1.234"]
    assert [str(each) for each in cell("1.234", decimal=".")] == ["1.234"]
    assert [str(each) for each in cell("0.234")] == ["0.234"]


@pytest.mark.parametrize("text", ["#WERT!", "#NV", "#SPILL!", "#¡VALOR!", "#ÜBERLAUF!"])
def test_the_error_of_a_formula_is_no_value_in_any_language(text: str) -> None:
    ((found,), *_) = (results(f"patient,date,T\nasha,{DAY},{text}\n"),)
    assert (found["value"], found["absent_reason"]) == ("no value", text)


UNITS = {
    "per cent": ("HbA1c", "5.5%", 5.5, "%"), "a blank before it": ("HbA1c (%)", "5.5 %", 5.5, "%"),
    "of the column": ("T (mg/dL)", "90 mg/dl", 90, "mg/dL"), "a comparison": ("T", "< 5 mg/dL", "<5", "mg/dL"),
    "degrees": ("T", "36.6°C", 36.6, "Cel"),
    "a mark": ("T", "5 L", "5 L", None), "a time": ("T", "5 pm", "5 pm", None), "a ratio": ("T", "120/80", "120/80", None),
    "a power": ("T", "10^3", "10^3", None), "a power of the unit": ("T (10^9/L)", "5.1 10^9/L", 5.1, "10*9/L"),
}  # fmt: skip


@pytest.mark.parametrize(("column", "text", "value", "unit"), UNITS.values(), ids=UNITS)
def test_a_unit_behind_a_number_is_its_unit(column: str, text: str, value: Any, unit: str | None) -> None:
    (found,) = results(f'patient,date,"{column}"\nasha,{DAY},"{text}"\n')
    assert (found["value"], found.get("unit")) == (value, unit)


@pytest.mark.parametrize(("unit", "text"), [("kg", "154 lb"), ("Cel", "98 F"), ("°F", "36.6 °C"), ("cm", "5 in")])
def test_another_unit_than_the_columns_is_told(unit: str, text: str) -> None:
    assert f"and its column or row in {unit}" in faults(f"patient,date,T ({unit})\nasha,{DAY},{text}\n")[0][2]


def test_a_unit_in_a_cell_gives_a_test_its_code() -> None:
    assert results(f"patient,date,Glucose\nasha,{DAY},90 mg/dL\n")[0]["code"] == "2345-7"


@pytest.mark.parametrize("text", ["5.5%", "5 mmol/L"])
def test_two_units_of_one_value_are_told(text: str) -> None:
    assert "and its column or row in mg/dL" in faults(f"patient,date,T (mg/dL)\nasha,{DAY},{text}\n")[0][2]
    assert "and its column or row in mg/dL" in faults(f"{LONG}asha,{DAY},T,,{text},mg/dL\n")[0][2]


SECOND_LINES = {
    "units": f"{WIDE},,mg/dL,%\n{ROW}", "units behind dashes": f"{WIDE}-,-,mg/dL,%\n{ROW}",
    "a power": f"patient,date,WBC\n,,10^9/L\n{ROW}", "forms": f"{WIDE}ID,YYYY-MM-DD,mg/dL,%\n{ROW}",
    "parts of a merged heading": f"patient,date,Lipids,,Glucose\n,,LDL,HDL,\nasha,{DAY},1,2,3\n",
    "without a patient": f"date,Glucose\n,mg/dL\n{DAY},90\n",
}  # fmt: skip


@pytest.mark.parametrize("text", SECOND_LINES.values(), ids=SECOND_LINES)
def test_a_second_line_of_the_header_is_told_and_nothing_is_stored_without_it(text: str) -> None:
    given = {} if text.startswith("patient") else {"patient_given": True}
    assert "line 2: it looks like a second line of the header" in refusal(text, **given)


@pytest.mark.parametrize("row", ["asha,,negative,\n", f",{DAY},negative,\n", ",,5,\n", f"asha,{DAY},mg,\n"])
def test_a_first_row_of_words_is_a_row(row: str) -> None:
    assert len(read(WIDE + row)) == 1


def test_a_header_of_other_columns_ends_the_table() -> None:
    said = refusal(f"patient,date,T\nasha,{DAY},5\npatient,date,U\nasha,{DAY},6\n")
    assert "line 3: another header begins here, with other columns" in said
    again = f"patient,taken_at,name,value\nasha,{DAY},T,5\nUser,Date,Test,Result\nasha,{DAY},T,6\n"
    assert values(again) == [5, 6]
    units = f"patient,date,test,value (mg/dL)\nasha,{DAY},T,5\npatient,date,test,value (mmol/L)\nasha,{DAY},T,6\n"
    assert "line 3: another header" in refusal(units)


@pytest.mark.parametrize("test", ["Test", "Test Name", "test_name", "Parameter name", "Investigation"])
def test_a_patients_name_is_no_test_beside_the_column_of_the_tests(test: str) -> None:
    rows = f"Patient ID,Date,{test},Result,{{}}\nasha,{DAY},T,5,Asha K\n"
    assert [each["name"] for each in results(rows.format("Patient Name"))] == ["T"]
    assert "two columns may be name" in refusal(rows.format("Name"))


def test_a_quote_that_takes_whole_rows_with_it_is_not_closed() -> None:
    text = f'patient,date,T\nasha,{DAY},"5\nbina,{DAY},6\ncarl,{DAY},7"\ndora,{DAY},8\n'
    assert [(line, column) for line, column, _ in faults(text)] == [(2, "T"), (4, "T")]
    assert [each.record["checkup_for"] for each in read(text) if not each.faults] == ["bina", "dora"]
    notes = f'patient,date,T,Notes\nasha,{DAY},5,"first, second\n{DAY}, third, fourth"\n'
    assert read(notes)[0].faults == []


LIKE_ROW = f"7,asha,{DAY},9.9,{{}}"
TEXTS = {
    "its lines are rows": f'"as before:\n{LIKE_ROW.format("x")}"',
    "several": f'"as before:\n{LIKE_ROW.format("x")}\n{LIKE_ROW.format("y")}"',
    "of another line end": f'"as before:\r\n{LIKE_ROW.format("x")}"',
}


@pytest.mark.parametrize("column", ["report", "comment", "no"])
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_text_whose_lines_are_like_rows_becomes_no_rows_and_swallows_none(text: str, column: str, db, people) -> None:
    table = f"record id,patient,date,T,{column}\n1,asha,{DAY},5,{text}\n2,asha,{DAY},6,fine\n"
    (first, second) = read(table)
    assert [(line, name) for line, name, _ in faults(table)] == [(2, column)]
    assert (first.record["checkup_for"], second.record["record_id"]) == ("asha", "2")
    assert first.raw.endswith(f"1,asha,{DAY},5,{text}\n")  # it is kept whole
    assert take_in(table, create_patients=True)["accepted"] == 1
    told = table.replace("9.9,", "9.9 ")
    assert [each.faults for each in read(told)] == [[], []]
    assert take_in(told)["accepted"] == 1
    assert db("select record_id from checkups order by id") == [("2",), ("1",)]


@pytest.mark.parametrize("place", range(5))
def test_a_line_break_in_quotes_is_a_part_of_any_cell(place: str) -> None:
    header = [f'"{name}"' for name in ("record id", "patient", "date", "T (mg/dL)", "report")]
    header[place] = header[place].replace(" ", "\n")
    cells = [f'"{cell}"' for cell in ("1", "asha", DAY, "5", "fine")]
    cells[place] = cells[place][:-1] + '\n"'
    (found,) = read("\n".join((",".join(header), ",".join(cells), "")))
    assert (found.record["record_id"], found.record["checkup_for"], found.record["results"][0]["value"]) == (
        "1",
        "asha",
        5,
    )


@pytest.mark.parametrize("number", ["1.23E+11", "1,23E+11", "1.23e+011", "#REF!", "#NV", "#N/A"])
def test_a_number_that_a_spreadsheet_spoilt_is_nobodys(number: str, db, people) -> None:
    for column in ("patient", "authority", "record id", "machine"):
        header = f"{column},taken_at,name,value" + ("" if column == "patient" else ",patient")
        text = f'{header}\n"{number}",{DAY},T,5{"" if column == "patient" else ",asha"}\n'
        assert [fault[:2] for fault in faults(text)] == [(2, column)], column
    assert take_in(f'patient,date,T\n"{number}",{DAY},5\n', create_patients=True)["rejected"] == 1
    assert db("select count(*) from users where username = %s", number) == [(0,)]


def test_a_spoilt_number_is_neither_mapped_nor_given_to_a_user(db, people) -> None:
    with pytest.raises(BadInput, match=r"line 2: patient is '1\.23E\+11'"):
        read_patient_map(["patient,username\n", "1.23E+11,savita\n"])
    (made,) = import_users(["username,authority,identifier\n", "asha,H,1.23E+11\n"])
    assert "identifier is '1.23E+11'" in made.error
    assert db("select count(*) from patient_identifiers") == [(0,)]


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_a_map_of_patients_has_any_separator(mark: str) -> None:
    lines = [line.replace(",", mark) for line in ("patient,username\n", '="007",savita\n')]
    assert read_patient_map(lines) == {"007": "savita"}


AGES = {"4": 4, "4 years": 4, "45.5": 45.5, "004": 4, "18 months": 1.5, "4 mo": 4 / 12, "730.5 days old": 2, "3yrs.": 3}


@pytest.mark.parametrize(("text", "years"), AGES.items(), ids=AGES)
def test_an_age_is_read_in_any_unit_so_that_a_child_is_no_adult(text: str, years: int) -> None:
    (found,) = read(f"patient,date,age,Heart rate (/min)\nasha,{DAY},{text},110\n")
    assert (found.record["patient"], found.faults) == ({"age": pytest.approx(years)}, [])


@pytest.mark.parametrize("text", ["4m", "young", "-4", "IV"])
def test_an_age_that_is_none_is_told(text: str) -> None:
    ((_, column, message),) = faults(f"patient,date,age,Heart rate (/min)\nasha,{DAY},{text},110\n")
    assert (column, message.split(";")[0]) == ("age", f"is not an age in years, months, weeks or days: '{text}'")


def test_a_blood_pressure_may_have_its_unit_in_its_cell() -> None:
    found = results(f"patient,date,BP\nasha,{DAY},128/82 mmHg\n")
    assert [(each["code"], each["value"], each["unit"]) for each in found] == [
        ("8480-6", 128, "mm[Hg]"),
        ("8462-4", 82, "mm[Hg]"),
    ]


def test_a_last_line_without_an_end_may_be_cut_which_is_told() -> None:
    for text, told in ((f"{WIDE}{ROW}asha,{DAY},91,5", True), (WIDE + ROW, False), (f"{WIDE}{ROW.rstrip()},", False)):
        dump = read_dump(io.BytesIO(text.encode()))
        list(dump.records)
        assert [notice.startswith("line 3 has no end") for notice in dump.notices] == [True] * told, text


def test_another_decimal_separator_than_a_point_or_a_comma_is_refused(upload, log_in) -> None:
    answer = upload("POST", "/checkups/?decimal=%3B", (WIDE + ROW).encode(), token=log_in("tara"))
    assert (answer.status_code, "must be . or ," in answer.json["details"]) == (400, True)


@pytest.mark.parametrize("column", ["Glucose flag", "Glucose (mg/dL) flag", "glucose_unit", "Glucose reference range"])
def test_a_column_about_another_one_is_no_test(column: str) -> None:
    text = f"patient,date,Glucose (mg/dL),{column}\nasha,{DAY},90,H\n"
    assert "is about another one" in refusal(text)
    assert len(results(f"patient,date,Glucose (mg/dL),Urine {column}\nasha,{DAY},90,H\n")) == 2


@pytest.mark.parametrize("mark", ["\u200e", "\u200b", "\ufeff", "\u202d", "\u00ad", "\u00a0"])
def test_what_nobody_sees_around_a_cell_does_not_count(mark: str) -> None:
    (found,) = read(f"patient,date,T\n{mark}asha{mark},{mark}{DAY},{mark}5{mark}\n")
    (result,) = found.record["results"]
    assert (found.record["checkup_for"], found.record["taken_precision"], result["value"]) == ("asha", "day", 5)


def test_a_row_that_stands_twice_under_its_number_is_one(db, people) -> None:
    rows = f"7,savita,{DAY},T,5\n7,savita,{DAY},U,6\n"
    header = "record id,patient,date,test,value\n"
    assert take_in(header + rows + rows.rstrip("\n")) == {"accepted": 1, "duplicate": 0, "rejected": 0}
    assert db("select jsonb_array_length(results) from checkups") == [(2,)]
    assert take_in(header + rows) == {"accepted": 0, "duplicate": 1, "rejected": 0}
    dump = read_dump(io.BytesIO((header + rows + rows).encode()))
    assert len(list(dump.records)) == 1
    assert dump.skipped == {"row again": 2}


def test_a_retry_of_a_row_with_an_ambiguous_day_names_its_column(db, people) -> None:
    assert take_in(f"{LONG}savita,{DAY},T,,4,\nsavita,01/02/2026,T,,5,\n")["rejected"] == 1
    ((number, before),) = db("select id, errors from rejections")
    again = retry_rejection(number)
    assert [(each["field"], each["message"]) for each in again.errors] == [("taken_at", before[0]["message"])]
    assert db("select errors->0->>'field' from rejections") == [("taken_at",)]


@pytest.mark.parametrize("row", ["QC Level 1,,Glucose,40,", "7,Control Low,Glucose,40,", "QC1,,Glucose,40,",
                                 "asha,,QC level,2,", "asha,,Glucose,40,Control serum"])  # fmt: skip
def test_a_row_of_quality_control_is_counted_and_no_patients(row: str) -> None:
    patient, name, *rest = row.split(",")
    text = f"patient,patient name,date,test,value,specimen\n{patient},{name},{DAY},{','.join(rest)}\nasha,,{DAY},T,5,\n"
    dump = read_dump(io.BytesIO(text.encode()))
    assert [each.record["results"][0]["value"] for each in dump.records] == [5]
    assert dump.skipped == {"quality control": 1}


def test_a_column_of_quality_control_takes_no_row_with_it() -> None:
    assert len(results(f"patient,date,Glucose,QC level\nasha,{DAY},90,2\n")) == 2


def test_the_words_of_a_range_complete_its_columns_or_contradict_them() -> None:
    header = "patient,taken_at,name,value,low,high,range_text\n"
    (found,) = results(f"{header}asha,{DAY},T,5,135,,135-145\n")
    assert (found["low"], found["high"], found["range_text"]) == (135, 145, "135-145")
    assert faults(f"{header}asha,{DAY},T,5,4,6,3.0-4.5\n") == [
        (2, "range_text", "'3.0-4.5' is another range than low and high")
    ]


NAMED_MONTHS = ("20-Nov-2026", "20 November 2026", "20/NOV/2026", "20 nov. 2026", "Nov 20, 2026", "November 20th 2026",
                "Sept 20, 2026", "20-Nov-2026 07:05 PM +05:30")  # fmt: skip


@pytest.mark.parametrize("text", NAMED_MONTHS)
def test_a_day_with_the_name_of_its_month_has_one_meaning(text: str) -> None:
    (found,) = read(f"patient;date;T\nasha;{text};5\n")
    month = "09" if text.startswith("Sept") else "11"
    assert (found.faults, found.record["taken_at"][:10]) == ([], f"2026-{month}-20")
    assert read(f"patient;birth date;date;T\nasha;{text.partition(' 07')[0]};{DAY};5\n")[0].faults == []


@pytest.mark.parametrize("text", ["20-Nov-26", "20-Now-2026", "31-Feb-2026", "Nov-2026", "20 Ma 2026"])
def test_a_day_that_a_name_does_not_tell_is_refused(text: str) -> None:
    ((_, column, message),) = faults(f"patient;date;T\nasha;{text};5\n")
    assert (column, "is not a date and time" in message) == ("date", True)
