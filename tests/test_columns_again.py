"""A table that comes again with other columns, or with the same ones written otherwise, is known again."""

from typing import Any

import pytest
from support.factories import record, statuses, take
from support.tables import before_identity_in_any_order, take_in

from myhealth.intake.corrections import change_checkup, delete_checkup

DAY = "2026-11-20"
TABLE = f"""patient,date,time,Glucose (mg/dL),Body weight (kg),Note,Remarks
savita,{DAY},07:30+05:30,105,71.20,fasting,seated
savita,{DAY},07:30+05:30,105,71.20,fasting,seated
"""
ONE = f"patient,date,Glucose (mg/dL)\nsavita,{DAY},105\n"


def columns(order: str, table: str = TABLE) -> str:
    rows = [line.split(",") for line in table.splitlines()]
    return "".join(",".join(row[int(place)] for place in order) + "\n" for row in rows)


AGAIN = {
    "tests in another order": columns("0124356"), "all in another order": columns("6543210"), "notes in another order": columns("0123465"),
    "in capitals": TABLE.replace("Glucose", "GLUCOSE"), "blanks": TABLE.replace("Body weight", " body  weight "),
    "a unit written otherwise": TABLE.replace("mg/dL", "MG/DL").replace("(kg)", "[KG]"), "semicolons": TABLE.replace(",", ";"),
    "an empty column": TABLE.replace(",Note", ",HbA1c (%),Note").replace("71.20,", "71.20,,"),
    "other line ends": TABLE.replace("\n", "\r\n\r\n"),
}  # fmt: skip


@pytest.mark.parametrize("table", AGAIN.values(), ids=AGAIN)
def test_a_table_with_its_columns_written_otherwise_is_a_duplicate(table: str, people, db) -> None:
    assert take_in(TABLE) == {"accepted": 2, "duplicate": 0, "rejected": 0}
    assert take_in(table) == {"accepted": 0, "duplicate": 2, "rejected": 0}
    assert db("select count(*) from checkups") == [(2,)]


@pytest.mark.parametrize("name", ["GLUCOSE (MG/DL)", "glucose [mg/dl]", "Glucose  (mg/dL)"])
def test_the_name_of_the_only_test_may_be_written_otherwise(name: str, people) -> None:
    assert take_in(ONE)["accepted"] == 1
    assert take_in(ONE.replace("Glucose (mg/dL)", name))["duplicate"] == 1


OTHERS = {
    "another value": columns("0124356").replace("105", "106"), "another test": TABLE.replace("Glucose (mg/dL)", "LDL (mg/dL)"),
    "another unit": TABLE.replace("(kg)", "(lb)"), "other digits": TABLE.replace("71.20", "71.2"),
    "values in each other's place": TABLE.replace("105,71.20", "71.20,105"), "another report": TABLE.replace("seated", "lying"),
}  # fmt: skip


@pytest.mark.parametrize("table", OTHERS.values(), ids=OTHERS)
def test_a_table_of_other_content_is_stored(table: str, people) -> None:
    take_in(TABLE)
    assert take_in(table) == {"accepted": 2, "duplicate": 0, "rejected": 0}


@pytest.mark.parametrize("table", [TABLE, ONE], ids=["several", "one"])
def test_a_table_that_an_earlier_release_stored_is_known_again(table: str, people, db, monkeypatch) -> None:
    with before_identity_in_any_order(monkeypatch):
        stored = take_in(table)
    assert take_in(table) == {"accepted": 0, "duplicate": stored["accepted"], "rejected": 0}


def test_a_deleted_row_stays_deleted_when_it_comes_with_other_columns(people, db) -> None:
    take_in(TABLE)
    delete_checkup(people["savita"], db("select min(id) from checkups")[0][0])
    assert take_in(columns("6543210"))["duplicate"] == 2
    assert db("select count(*) from checkups") == [(1,)]


def test_a_corrected_row_stays_corrected_when_it_comes_with_other_columns(people, db) -> None:
    take_in(ONE)
    change_checkup(people["savita"], db("select id from checkups")[0][0], {"checkup_report": "corrected"})
    assert take_in(ONE.replace("Glucose", "GLUCOSE"))["duplicate"] == 1
    assert db("select checkup_report from checkups") == [("corrected",)]


def test_a_withdrawal_with_other_columns_withdraws_the_row(people, db) -> None:
    table = TABLE.replace("Note", "status").replace("fasting", "")
    take_in(table)
    again = columns("6543210", table.replace(",,", ",entered-in-error,"))
    assert take_in(again) == {"accepted": 2, "duplicate": 0, "rejected": 0}
    assert db("select distinct status from checkups") == [("entered-in-error",)]
    assert db("select count(*) from checkups") == [(2,)]


def test_a_record_of_a_dump_may_have_its_results_in_another_order(people) -> None:
    results: list[dict[str, Any]] = [
        {"name": "Glucose", "value": 90},
        {"name": "Hb", "value": 13},
        {"name": "Hb", "value": 14},
    ]
    assert statuses(take(record(None, results=results), derive_ids=True)) == ["accepted"]
    other = [results[1], results[2], results[0] | {"name": "glucose"}]
    assert statuses(take(record(None, results=other), derive_ids=True)) == ["duplicate"]
    swapped = [results[0], results[2], results[1]]  # which of two values of one test came first may mean something
    assert statuses(take(record(None, results=swapped), derive_ids=True)) == ["accepted"]
