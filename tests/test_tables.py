"""CSV of devices: layouts, what is never guessed, what devices do to files, and that nothing is stored twice."""

import io
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.factories import record, take
from support.tables import LONG, faults, read, refusal, take_in, values

from myhealth.intake.formats.registry import read_dump
from myhealth.intake.formats.tables.layout import GUESSED, Layout, check_layout, dump_layout, parse_layout
from myhealth.intake.formats.tables.rows import LINE_MAX
from myhealth.intake.rejections import get_rejection, payload_text
from myhealth.intake.retry import retry_rejection
from myhealth.profiles.services import create_user
from myhealth.reports.export.csv_table import report_lines

ROWS = (
    "bholanath,2026-11-20T09:14:03+05:30,Systolic blood pressure,8480-6,128,mm[Hg]\n"
    "bholanath,2026-11-20T09:14:03+05:30,Diastolic blood pressure,8462-4,82,mm[Hg]\n"
    "savita,2026-11-21,Glucose,2345-7,5.10,mmol/L\n"
)
WIDE = "Patient;Date;Glucose (mg/dL);Body weight (kg);Notes\n"


def test_a_long_table_is_guessed_and_has_a_record_a_row() -> None:
    first, second, third = read(LONG + ROWS)
    assert first.record == {
        "checkup_for": "bholanath",
        "taken_at": "2026-11-20T09:14:03+05:30",
        "checkup_type": "Systolic blood pressure",
        "checkup_report": "",
        "disease": "",
        "results": [{"name": "Systolic blood pressure", "value": 128, "code": "8480-6", "unit": "mm[Hg]"}],
    }
    assert (second.line, second.raw) == (3, LONG + ROWS.splitlines(keepends=True)[1])
    assert str(third.record["results"][0]["value"]) == "5.10"  # its digits are kept
    assert third.record["taken_precision"] == "day"


def test_a_wide_table_is_guessed_with_the_units_of_its_header() -> None:
    (parsed,) = read(f"{WIDE}bholanath;2026-11-20 07:30;105;71,2;fasting\n", Layout(decimal=",", zone="UTC"))
    assert parsed.record["taken_at"] == "2026-11-20T07:30:00+00:00"
    assert parsed.record["checkup_report"] == "fasting"
    assert parsed.record["results"] == [
        {"name": "Glucose", "value": 105, "code": "2345-7", "unit": "mg/dL"},
        {"name": "Body weight", "value": 71.2, "code": "29463-7", "unit": "kg"},
    ]


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_case_blanks_byte_order_marks_and_line_ends_do_not_count(mark: str, encoding: str, end: str) -> None:
    text = (" Patient , TAKEN_AT,Name ,Value\nbholanath,2026-11-20,Größe,181\n").replace(",", mark).replace("\n", end)
    named = Layout(encoding="utf-16-le") if encoding == "utf-16-le" else GUESSED
    (parsed,) = read(text.encode(encoding), named, **({"format": "csv"} if encoding == "utf-16-le" else {}))
    assert parsed.record["results"] == [{"name": "Größe", "value": 181}]


def test_a_column_of_numbers_joins_the_rows_of_a_check_up() -> None:
    text = "checkup,patient,date,test,value\n7,bholanath,2026-11-20,Sys,128\n7,bholanath,2026-11-20,Dia,82\n8,savita,2026-11-20,Dia,80\n"
    first, second = read(text)
    assert [each["value"] for each in first.record["results"]] == [128, 82]
    assert (first.record["record_id"], second.record["record_id"]) == ("7", "8")
    assert faults(text.replace("7,bholanath,2026-11-20,Dia", "7,savita,2026-11-20,Dia")) == [
        (2, "line 3, patient", "is not that of the first row of record 7")
    ]


# --- what is never guessed


@pytest.mark.parametrize("day", ["03/04/2026", "3.4.26", "03-04-2026 07:30", "03/04/2026 7:30 PM"])
def test_a_day_that_may_be_a_month_is_asked_for_before_anything_is_read(day: str) -> None:
    said = refusal(f"{LONG}bholanath,{day},Glucose,,5,\n")
    assert said.startswith(f"line 2, taken_at: '{day}' may be day first or month first")
    assert "--date-format dmy or mdy" in said
    assert "date_format in the layout" in said


@pytest.mark.parametrize(
    ("date_format", "text", "moment"),
    [
        ("dmy", "03/04/2026", "2026-04-03T12:00:00+00:00"),
        ("mdy", "03/04/2026", "2026-03-04T12:00:00+00:00"),
        ("mdy", "3.4.26 12:05 am", "2026-03-04T00:05:00+00:00"),
        ("dmy", "03-04-2026 7:30:15 PM", "2026-04-03T19:30:15+00:00"),
        ("", "2026/11/20 07:30", "2026-11-20T07:30:00+00:00"),
        ("", "2026-11-20T07:30:15.25Z", "2026-11-20T07:30:15.250000+00:00"),
        ("dmy", "2026-11-20", "2026-11-20T12:00:00+00:00"),
        ("%d %b %Y %H:%M", "20 Nov 2026  07:30", "2026-11-20T07:30:00+00:00"),
        ("%b %d %Y", "Nov 20 2026", "2026-11-20T12:00:00+00:00"),
    ],
)
def test_days_are_read_as_the_layout_says(date_format: str, text: str, moment: str) -> None:
    (parsed,) = read(f"{LONG}bholanath,{text},Glucose,,5,\n", Layout(date_format=date_format, zone="UTC"))
    assert (parsed.record["taken_at"], parsed.faults) == (moment, [])


@pytest.mark.parametrize(
    "text", ["31/11/2026", "20/13/2026", "2026-02-30", "soon", "20/11/2026 25:00", "20/11/2026 13:00 PM"]
)
def test_a_moment_that_is_none_is_rejected_with_its_column(text: str) -> None:
    (fault,) = faults(f"{LONG}bholanath,{text},Glucose,,5,\n", Layout(date_format="dmy"))
    assert fault[:2] == (2, "taken_at")
    assert f"is not a date and time (day first): '{text}'" in fault[2]


@pytest.mark.parametrize(
    ("date_format", "text"),
    [("", "2026-11-20 07:30"), ("dmy", "3.4.2026 7:30 PM"), ("%d %b %Y %H:%M", "20 Nov 2026 07:30")],
)
def test_a_time_without_a_zone_is_rejected_until_one_is_named(date_format: str, text: str) -> None:
    table = f"{LONG}bholanath,{text},Glucose,,5,\n"
    ((line, column, message),) = faults(table, Layout(date_format=date_format))
    assert (line, column) == (2, "taken_at")
    assert message == (
        f"'{text}' has no zone; add one, or name that of all rows:"
        " --timezone, timezone= in the address, or zone in the layout"
    )
    (parsed,) = read(table, Layout(date_format=date_format, zone="+05:30"))
    assert parsed.record["taken_at"].endswith("+05:30")


def test_the_zone_of_the_command_is_that_of_the_table(db, people, run_cli) -> None:
    table = f"{LONG}bholanath,2026-11-20 07:30,Glucose,,5,\n"
    assert run_cli("import-machine", "-", stdin=table).returncode == 1
    done = run_cli("import-machine", "-", "--timezone", "Asia/Kolkata", stdin=table)
    assert done.stdout == "standard input: 1 accepted, 0 duplicate, 0 rejected.\n", done.stderr
    assert db("select taken_at at time zone 'UTC' = '2026-11-20 02:00' from checkups") == [(True,)]


@pytest.mark.parametrize("forced", [{}, {"format": "csv"}])
def test_a_binary_file_is_no_table(forced: dict[str, str]) -> None:
    said = refusal(b"\x7fELF\2\1\0\0\n" + b"a,b;c|d\n" * 50, **forced)
    assert said.startswith("it is a binary file")


def test_text_that_no_layout_fits_gets_a_short_line() -> None:
    for text in (f"# {'Title, ' * 5000}\n", f"{'date,' + 'x' * 5000},{'x' * 5000}\n"):
        assert len(refusal(text)) < 350


def test_moments_have_the_zone_of_the_layout_and_its_clocks_doubts() -> None:
    layout = Layout(zone="Europe/Berlin")
    (parsed,) = read(f"{LONG}bholanath,2026-10-25 02:30,Glucose,,5,\n", layout)
    assert parsed.record["taken_at"] == "2026-10-25T02:30:00+02:00"
    assert parsed.warnings[0][0] == "taken_at"
    assert "exists twice" in parsed.warnings[0][1]


@pytest.mark.parametrize(
    ("decimal", "thousands", "text", "value"),
    [
        ("", "", "1.5", "1.5"), (",", "", "1,50", "1.50"), (",", ".", "1.234,5", "1234.5"), (".", ",", "1,234.5", "1234.5"),
        (",", ".", "12.345", "12345"), ("", "", "HI", "HI"), ("", "", "<3", "<3"), (",", "", "< 3,5", "<3.5"),
        ("", "", "120/80", "120/80"), ("", "", "-1.5", "-1.5"), ("", "", "negative", "negative"), (",", "'", "1'234", "1234"),
        ("", "", "=cmd|'/c calc'!A1", "=cmd|'/c calc'!A1"),
    ],
)  # fmt: skip
def test_numbers_are_read_as_the_layout_says(decimal: Any, thousands: Any, text: str, value: str) -> None:
    layout = Layout(delimiter=";", decimal=decimal, thousands=thousands)
    found = values(f"patient;date;name;value\nbholanath;2026-11-20;X;{text}\n", layout)
    assert [str(each) for each in found] == [value]


@pytest.mark.parametrize(
    ("decimal", "thousands", "text"),
    [
        ("", "", "1,5"),
        ("", "", "1,234"),
        (",", "", "1.5"),
        (",", ".", "1.5"),
        (",", ".", "1.23.456"),
        ("", ",", "12,34"),
    ],
)
def test_a_number_that_may_be_two_is_rejected_with_its_column(decimal: Any, thousands: Any, text: str) -> None:
    layout = Layout(delimiter=";", decimal=decimal, thousands=thousands)
    ((line, column, message),) = faults(f"patient;date;name;value\nbholanath;2026-11-20;X;{text}\n", layout)
    assert (line, column) == (2, "value")
    assert f"'{text}' is not a number with the decimal separator" in message


def test_two_columns_that_may_be_the_same_are_asked_for() -> None:
    assert "two columns are named or may be 'patient'" in refusal("patient,user,date,Glucose\nb,c,2026-11-20,5\n")
    assert "the column 'Date' occurs twice" in refusal("patient,Date,date,Glucose\nb,2026-11-20,2026-11-21,5\n")
    assert "'glucose'" in refusal("patient,date,Glucose,glucose\nb,2026-11-20,5,6\n")
    assert "no column names the patient" in refusal("date,Glucose\n2026-11-20,5\n")
    assert read("date,Glucose\n2026-11-20,5\n", patient_given=True)


# --- what devices and people do to files


def test_rows_that_cannot_be_split_take_no_other_row_with_them() -> None:
    text = (
        LONG
        + 'bholanath,2026-11-20,"Gluc,,5,\n'  # line 2: a quote without an end
        + "bholanath,2026-11-21,Glucose,,5,\n"
        + "bholanath,2026-11-22,Glucose,5\n"  # line 4: too short
        + "bholanath,2026-11-23,Glucose,,5,,7\n"  # line 5: too long
        + "bholanath,2026-11-24,Glu\0cose,,5,\n"
        + "\n,,,,,\n"
        + 'bholanath,2026-11-25,"Glu\ncose ""x""",,5,,\n'  # lines 9 and 10; one empty cell more
        + 'savita,2026-11-26,"Glucose"x,,6,\n'
        + "savita,2026-11-27,Glucose,,7,\n"
    )
    parsed = read(text)
    found = [(each.line, *each.faults[0]) for each in parsed if each.faults]
    assert [(line, column) for line, column, _ in found] == [(2, "name"), (4, ""), (5, ""), (6, "name"), (11, "unit")]
    assert "a quote is not closed" in found[0][2]
    assert "the header has 6 cells, and the row has 4" in found[1][2]
    assert "the row has 7" in found[2][2]
    assert "NUL" in found[3][2]
    assert [each.record["results"][0]["name"] for each in parsed if not each.faults] == [
        "Glucose",
        'Glu\ncose "x"',
        "Glucose",
    ]
    assert all(each.record["checkup_for"] for each in parsed)  # for an erasure


def test_each_open_quote_costs_its_own_row_only() -> None:
    text = LONG + "".join(f'bholanath,2026-11-20,"Gl{i},,5,\nbholanath,2026-11-20,Good,,{i},\n' for i in range(50))
    parsed = read(text)
    assert [each.record["results"][0]["value"] for each in parsed if not each.faults] == list(range(50))


def test_a_line_without_an_end_is_refused_with_its_place() -> None:
    text = LONG + "bholanath,2026-11-20,Glucose,,5,\n" + "bholanath,2026-11-20," + "x" * (2 * LINE_MAX)
    said = refusal(text)
    assert said.startswith("line 3, in or behind column 3: the line has more than 1,000,000 characters")


def test_memory_does_not_grow_with_an_open_quote() -> None:
    class Endless(io.RawIOBase):
        """64 MB behind an open quote."""

        left = 64

        def readable(self) -> bool:
            return True

        def read(self, size: int = -1) -> bytes:
            self.left -= 1
            if self.left == 63:
                return (LONG + 'bholanath,2026-11-20,"\n').encode()
            return b"bholanath,2026-11-20,Glucose,,5,\n" * 32 if self.left > 0 else b""

    parsed = list(read_dump(Endless()).records)  # type: ignore[arg-type]
    assert [bool(each.faults) for each in parsed[:2]] == [True, False]
    assert len(parsed) == 1 + 62 * 32


def test_bytes_of_another_encoding_are_told_with_their_line_and_column() -> None:
    header = "patient,date,Größe (cm),Notes\n"
    said = refusal(header.encode("windows-1252") + b"b,2026-11-20,5,\n")
    assert said.startswith(
        "line 1: the header contains bytes that are not UTF-8; name the encoding (--encoding windows-1252"
    )
    mixed = header.encode() + "b,2026-11-20,5,müde\nb,2026-11-21,6,".encode() + "müde\n".encode("windows-1252")
    assert [fault[:2] for fault in faults(mixed)] == [(3, "Notes")]
    named = (header + "b,2026-11-20,5,müde\n").encode("windows-1252")
    assert read(named, Layout(encoding="windows-1252"))[0].record["checkup_report"] == "müde"


@pytest.mark.parametrize("text", ["", "\ufeff", "\n \n"])
def test_an_empty_file_is_told(text: str) -> None:
    assert "the file is empty" in refusal(text, format="csv")


def test_a_file_of_a_header_only_has_no_record() -> None:
    assert read(LONG) == read(LONG.rstrip()) == []


def test_a_title_may_come_before_the_header_and_numbers_of_rows_are_passed_over() -> None:
    text = "Export of 20 November\n\nNo.,patient,date,Glucose\n1,bholanath,2026-11-20,5\n"
    assert values(text) == [5]


NO_TEXT = ("punycode", "idna", "rot13", "unicode_escape", "Raw-Unicode-Escape", "utf-7", "zlib", "hex", "undefined")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[results]]\ncolumn = 'Glucose'\n[columns]\npatient = 'patient'", "line 1: the column 'Glucose' is missing"),
        ("[columns]\nvalue = 'a'\nwhat = 'b'", "columns.what is not known"),
        ("[columns]\nvalue = ['a', 'b']", "columns.value must be one column"),
        ("[columns]\npatient = 'a'", "it needs either results (a wide table) or columns.value"),
        ("decimal = ','\nthousands = ','", "are the same character"),
        ("date_format = '%d/%m'", "must be dmy, mdy, ymd, or have a whole day"),
        ("encoding = 'klingon'", "the encoding 'klingon' is not known"),
        *((f"encoding = '{name}'", f"the encoding '{name}' is not known") for name in NO_TEXT),
        ("zone = 'Mars/Base'", "is not a zone"),
        ("colour = 'red'", "unknown field `colour`"),
        ("delimiter = 'x'", "Invalid enum value 'x'"),
        ("x = ", "cannot be read"),
        ("#" * 20_001, "more than 20000 characters"),
    ],
)
def test_a_layout_that_cannot_be_used_says_why(text: str, said: str) -> None:
    assert said in refusal(LONG + ROWS, text)


@pytest.mark.parametrize(
    "name", ["Latin1", "windows-1252", "cp437", "koi8-r", "SJIS", "EUC-JP", "GBK", "big5", "macroman"]
)
def test_encodings_of_text_are_known_by_their_names(name: str) -> None:
    assert check_layout(Layout(encoding=name)).encoding == name


def test_a_layout_survives_its_text() -> None:
    layout = parse_layout("delimiter = ';'\n[columns]\nvalue = 'a'\ntaken_at = ['b', 'c']")
    assert parse_layout(dump_layout(layout)) == layout
    assert dump_layout(GUESSED) == ""


# --- stored once


def test_importing_twice_stores_nothing_twice_and_grown_exports_only_what_is_new(db, people) -> None:
    rows = ROWS.splitlines(keepends=True)
    rows += rows[2:]  # an equal row is another measurement
    assert take_in(LONG + "".join(rows))["accepted"] == 4
    assert take_in(LONG + "".join(rows))["duplicate"] == 4
    new = ["savita,2026-11-22,Glucose,2345-7,6,mmol/L\n"]
    assert take_in(LONG + "".join(new + rows)) == {"accepted": 1, "duplicate": 4, "rejected": 0}
    assert take_in(LONG + "".join([*reversed(rows), *new, *new])) == {"accepted": 1, "duplicate": 5, "rejected": 0}
    assert db("select count(*), count(machine_id) from checkups") == [(6, 0)]


ROW = st.builds(
    "{},2026-11-2{},{},,{},\n".format,
    st.sampled_from(["bholanath", "savita"]), st.integers(0, 2), st.sampled_from("XY"), st.integers(1, 3),
)  # fmt: skip


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ROW, max_size=8), st.lists(ROW, max_size=4), st.randoms())
def test_any_grown_export_stores_what_is_new(db, people, rows: list[str], more: list[str], order: Any) -> None:
    db("truncate checkups cascade")
    take_in(LONG + "".join(rows))
    grown = rows + more
    order.shuffle(grown)
    counts = take_in(LONG + "".join(grown))
    assert (counts["duplicate"], counts["accepted"]) == (len(rows), len(more))


def test_a_rejected_row_is_kept_with_its_header_and_retried_by_its_layout(db, people) -> None:
    layout = parse_layout(
        "date_format = 'dmy'\ndecimal = ','\n[columns]\npatient = 'wer'\ntaken_at = 'wann'\n[[results]]\ncolumn = 'g'"
    )
    text = "wer;wann;g\nnobody;03/04/2026;5,1\nnobody;03/04/2026;1.5\nbholanath;03/04/2026;5,2\n".encode("utf-16")
    assert take_in(text, layout=layout) == {"accepted": 1, "duplicate": 0, "rejected": 2}
    ids = [number for (number,) in db("select id from rejections order by id")]
    assert payload_text(get_rejection(ids[0])) == "wer;wann;g\nnobody;03/04/2026;5,1\n"
    assert db("select errors->0->>'field' from rejections order by id") == [("wer",), ("g",)]
    create_user("nobody")
    assert [retry_rejection(number).status for number in ids] == ["accepted", "rejected"]
    stored = "select results->0->>'value', taken_at::date::text from checkups order by id"
    assert db(stored) == [("5.2", "2026-04-03"), ("5.1", "2026-04-03")]
    assert take_in(text, layout=layout) == {"accepted": 0, "duplicate": 2, "rejected": 1}


def test_errors_name_the_column_of_what_validation_refuses(db, people) -> None:
    assert take_in(f"{LONG}bholanath,2026-11-20,{'N' * 600},,5,\nnobody,2026-11-20,N,,5,\n")["rejected"] == 2
    assert db("select errors->0->>'field' from rejections order by id") == [("name",), ("patient",)]


def test_our_own_export_is_all_duplicates(db, people, sync, reports) -> None:
    take_in(LONG + ROWS)
    take_in(f"{LONG}bholanath,2026-11-24,=cmd|'/c calc'!A1,,\"@SUM(1)\nx\",\n")
    sync()
    for user in ("bholanath", "savita"):
        patient = reports.users.find_one({"username": user})["_id"]
        text = "".join(report_lines(reports.reports.find({"patient_id": patient}), user))
        counts = take_in(text)
        assert (counts["accepted"], counts["rejected"]) == (0, 0), text
        assert counts["duplicate"] > 0


TEXTS = [
    "5.5%",
    "５",
    '6"',
    "#WERT!",
    "***",
    "n/a",
    "NaN",
    "1,5",
    "1e3",
    "007",
    "5 mg/dL",
    "128/82 mmHg",
    "120/80",
    "",
    "<5",
    "HI",
]


def test_our_own_export_of_any_text_is_all_duplicates(db, people, sync, reports) -> None:
    plain = dict.fromkeys(("unit", "code", "low", "high", "flag"))
    take(
        *(record(n, results=[{"name": "BP", "value": text, **plain}]) for n, text in enumerate([*TEXTS, 5, 5.1, 7e-7]))
    )
    sync()
    patient = reports.users.find_one({"username": "bholanath"})["_id"]
    text = "".join(report_lines(reports.reports.find({"patient_id": patient}), "bholanath"))
    assert take_in(text) == {"accepted": 0, "duplicate": len(TEXTS) + 3, "rejected": 0}


def test_a_dry_run_shows_ten_lines_and_stores_nothing(db, people, run_cli, tmp_path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(WIDE + "bholanath;03/04/2026;105;71,2;\n" * 11 + "nobody;03/04/2026;105;71,2;\n")
    layout = tmp_path / "layout.toml"
    layout.write_text("decimal = ','")
    words = ("import-machine", str(path), "--machine", "HC-1", "--layout", str(layout), "--date-format", "dmy")
    lines = run_cli(*words, "--dry-run").stdout.splitlines()
    assert lines[0].split() == ["line", "outcome", "patient", "taken", "results"]
    assert lines[1].split(maxsplit=4) == [
        "2", "accepted", "bholanath", "2026-04-03", "Glucose 105 mg/dL (2345-7); Body weight 71.2 kg (29463-7)"
    ]  # fmt: skip
    assert len(lines) == 12
    assert lines[-1].endswith("11 accepted, 0 duplicate, 1 rejected (dry run: nothing was stored).")
    assert db("select (select count(*) from checkups), (select count(*) from rejections)") == [(0, 0)]
    one = run_cli("import-machine", "-", "--dry-run", stdin=f"{LONG}nobody,2026-11-20,T,,5,\n")
    assert "there is no user named nobody" in one.stdout
    assert "there is no user named nobody" not in one.stderr  # once is enough
    done = run_cli(*words)
    assert done.stderr.endswith(
        "myhealth rejections list; then: myhealth rejections retry ID, or myhealth rejections discard ID\n"
    )
    assert "line 13: record 12: Patient: there is no user named nobody" in done.stderr
    shown = run_cli("rejections", "show", str(db("select id from rejections")[0][0])).stdout
    assert shown.endswith("Patient;Date;Glucose (mg/dL);Body weight (kg);Notes\nnobody;03/04/2026;105;71,2;\n")
    wrong = run_cli("import-machine", str(path), "--layout", "nowhere.toml")
    assert (wrong.returncode, "--layout must be wide, long, freestyle-libre" in wrong.stderr) == (2, True)
    built_in = run_cli("import-machine", str(path), "--layout", "withings-scale.toml")
    assert "it is built in: --layout withings-scale" in built_in.stderr


def generated(megabytes: int) -> Iterator[bytes]:
    yield LONG.encode()
    for part in range(megabytes):
        rows = (f"bholanath,2026-11-20 09:{i % 60:02},Glucose,2345-7,{part}.{i},mmol/L\n" for i in range(20_000))
        yield "".join(rows).encode()


class Generated(io.RawIOBase):
    """A table of so many megabytes, which is never held as a whole."""

    def __init__(self, megabytes: int) -> None:
        self._parts, self._rest = generated(megabytes), b""

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        self._rest = self._rest or next(self._parts, b"")
        part, self._rest = self._rest[: len(target)], self._rest[len(target) :]
        target[: len(part)] = part
        return len(part)


@pytest.mark.long
def test_memory_does_not_grow_with_a_table() -> None:
    peaks = []
    for megabytes in (1, 2):
        tracemalloc.start()
        count = sum(1 for _ in read_dump(io.BufferedReader(Generated(megabytes))).records)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert count == megabytes * 20_000
    assert peaks[1] < peaks[0] + 1_000_000
