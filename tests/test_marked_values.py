"""Marks beside the number of a value: 7.2 H is 7.2, marked high; what may be read otherwise stays a text."""

import hashlib
import json
from typing import Any

import pytest
from support.factories import dump, record
from support.tables import before_identity_in_any_order, read, results, take_in

from myhealth.intake import pipeline, validation
from myhealth.intake.formats.tables import reader
from myhealth.intake.formats.tables.layout import Layout
from myhealth.intake.parsed_record import ParsedRecord
from myhealth.intake.pipeline import Intake
from myhealth.intake.results import ImportSource
from myhealth.intake.retry import retry_rejection
from myhealth.profiles.services import create_user

DAY = "2026-11-20"
MARKED = {
    "behind": ("7.2 H", "T", 7.2, "H"), "without a blank": ("7.2H", "T", 7.2, "H"), "before": ("H 7.2", "T", 7.2, "H"),
    "in brackets": ("7.2 (H)", "T", 7.2, "H"), "a star": ("7.2*", "T", 7.2, None), "a star before": ("*7.2", "T", 7.2, None),
    "twice": ("7.2 HH", "T", 7.2, "HH"), "a word": ("7.2 high", "T", 7.2, "H"), "words": ("3 critical low", "T", 3, "LL"),
    "an arrow": ("↓ 3", "T", 3, "L"), "a comma": ("7,2 (H)", "T", 7.2, "H"), "a bound": ("<5 L", "T (mg/dL)", "<5", "L"),
    "low of a unit": ("5 L", "T (mg/dL)", 5, "L"), "low, in brackets": ("5 (L)", "T", 5, "L"),
    "low before a concentration": ("L 5", "T (mmol/L)", 5, "L"), "low in small letters": ("5 l", "T (mg/dL)", 5, "L"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "column", "value", "flag"), MARKED.values(), ids=MARKED)
def test_a_mark_beside_a_number_is_its_flag(text: str, column: str, value: Any, flag: str | None) -> None:
    (found,) = results(f'patient,date,{column}\nasha,{DAY},"{text}"\n')
    assert (found["value"], found["flag"]) == (value, flag)


TEXTS = {
    "litres": ("5 L", "T"), "litres under millilitres": ("5 L", "T (mL)"), "the unit itself": ("5 L", "T (L)"),
    "hours": ("7.2 h", "T"), "hours of hours": ("7 H", "T (min)"), "left": ("L 20", "T (mmHg)"), "years": ("5 a", "T"),
    "a strain": ("H7", "T"), "another unit": ("7 kg H", "T (mg/dL)"), "no number": ("7.2.1 H", "T"), "a grade": ("3+", "T"),
    "a thousand or one": ("7,200 H", "T"), "a ratio": ("1:80 H", "T"), "both": ("7 HL", "T (mg/dL)"),
    "a finding": ("1 positive", "T"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "column"), TEXTS.values(), ids=TEXTS)
def test_what_may_be_no_mark_stays_as_it_is(text: str, column: str) -> None:
    (parsed,) = read(f'patient,date,{column}\nasha,{DAY},"{text}"\n')
    (found,) = parsed.record["results"]
    number = 5 if text == "5 L" and column == "T (L)" else text
    assert (found["value"], parsed.faults, "flag" in found) == (number, [], False)


def test_a_decimal_comma_is_that_of_the_table() -> None:
    (found,) = results(f"patient;date;T\nasha;{DAY};7,25 H\n", Layout(decimal=","))
    assert (found["value"], found["flag"]) == (7.25, "H")


MARKS = {"H": (7.2, "H", None), "N": ("7.2 H", "N", None), "L": ("7.2 H", "L", None), "": (7.2, "H", None),
         "*": (7.2, "H", [{"text": "*"}, {"code": "H"}])}  # fmt: skip


@pytest.mark.parametrize(("mark", "expected"), MARKS.items(), ids=MARKS)
def test_a_mark_that_the_row_contradicts_stays_in_the_text(mark: str, expected: Any) -> None:
    table = f"patient,date,test,value,unit,flag\nasha,{DAY},Glucose,7.2 H,mmol/L,{mark}\n"
    (found,) = results(table)
    assert (found["value"], found["flag"], found.get("interpretations")) == expected


RANGES = {"above": ("7.2 H", "3", "5", 7.2), "not above": ("4 H", "3", "5", "4 H"), "below": ("2 L", "3", "5", 2)}


@pytest.mark.parametrize(("text", "low", "high", "value"), RANGES.values(), ids=RANGES)
def test_the_range_tells_whether_a_letter_is_a_mark(text: str, low: str, high: str, value: Any) -> None:
    (found,) = results(f"patient,date,test,value,low,high\nasha,{DAY},T,{text},{low},{high}\n")
    assert found["value"] == value


def test_the_rows_of_one_check_up_have_marks(people, db) -> None:
    table = f"record id,patient,date,test,value,unit\n1,savita,{DAY},A,7.2 H,mg/dL\n1,savita,{DAY},B,5 mg/dL,mg/dL\n"
    assert take_in(table)["accepted"] == 1
    assert db("select results->0->'value', results->0->>'flag' from checkups") == [(7.2, "H")]
    db("update checkups set results = jsonb_set(results, '{0}', results->0 || %s)", '{"value": "7.2 H", "flag": null}')
    assert take_in(table)["duplicate"] == 1


@pytest.mark.parametrize("table", [f"patient,date,T\nasha,{DAY},7.2 H\n",
                                   f"patient,date,test,value,flag\nasha,{DAY},T,7.2 H,L\n"], ids=["wide", "long"])  # fmt: skip
def test_a_marked_cell_that_was_stored_as_text_is_known_again(table: str, people, db, monkeypatch) -> None:
    with before_identity_in_any_order(monkeypatch) as before:
        before.setattr(reader, "part_marks", lambda *_: [])
        assert take_in(table, create_patients=True)["accepted"] == 1
    assert db("select results->0->>'value' from checkups") == [("7.2 H",)]
    assert take_in(table)["duplicate"] == 1


JSON = {
    "behind": ({"value": "7.2 H"}, (7.2, "H", None)), "a comma": ({"value": "7,2 (H)"}, (7.2, "H", None)),
    "the flag too": ({"value": "7.2 H", "flag": "H"}, (7.2, "H", None)), "a star": ({"value": "7.20*"}, (7.2, None, [{"text": "*"}])),
    "another flag": ({"value": "7.2 H", "flag": "L"}, ("7.2 H", "L", None)), "low": ({"value": "5 L", "unit": "mmol/L"}, (5, "L", None)),
    "litres": ({"value": "5 L"}, ("5 L", None, None)), "a number": ({"value": "7.2"}, ("7.2", None, None)),
    "a bound": ({"value": "<5 L", "unit": "U/L"}, ("<5", "L", None)), "a typed value": ({"value": "7.2 H", "value_coded": "x"}, ("7.2 H", None, None)),
}  # fmt: skip


@pytest.mark.parametrize(("fields", "stored"), JSON.values(), ids=JSON)
@pytest.mark.parametrize(("number", "write"), [(1, json.dumps), (None, json.dumps), (1, lambda each: dump([each]))])
def test_a_marked_value_in_json_is_its_number(number, write, fields, stored, people, db, monkeypatch) -> None:
    sent = write(record(number) | {"results": [{"name": "T", **fields}]})
    assert take_in(sent) == {"accepted": 1, "duplicate": 0, "rejected": 0}
    shown = "select results->0->'value', results->0->>'flag', results->0->'interpretations' from checkups"
    assert db(shown) == [stored]
    assert take_in(sent)["duplicate"] == 1


@pytest.mark.parametrize("number", [1, None])
def test_a_marked_value_in_json_that_was_stored_as_text_is_known_again(number, people, db, monkeypatch) -> None:
    sent = json.dumps(record(number) | {"results": [{"name": "T", "value": "7.2 H"}]})
    with before_identity_in_any_order(monkeypatch) as before:
        before.setattr(pipeline, "part_marks", lambda _: [])
        before.setattr(validation, "is_marked", lambda _: False)
        assert take_in(sent)["accepted"] == 1
    assert db("select results->0->>'value' from checkups") == [("7.2 H",)]
    assert take_in(sent) == {"accepted": 0, "duplicate": 1, "rejected": 0}
    assert db("select results->0->>'value' from checkups") == [("7.2 H",)]


def test_a_marked_value_in_a_record_that_is_retried_is_its_number(people, db) -> None:
    sent = json.dumps(record(None, "nobody") | {"results": [{"name": "T", "value": "7.2 H"}]})
    assert take_in(sent)["rejected"] == 1
    create_user("nobody")
    assert retry_rejection(db("select id from rejections")[0][0]).status == "accepted"
    assert db("select results->0->'value' from checkups") == [(7.2,)]
    assert take_in(sent)["duplicate"] == 1


@pytest.mark.parametrize("value", ["7.2 H", "7,2 (H)", "5 L"])
def test_the_number_that_the_first_releases_derived_from_the_text_is_known(value: str, people, db) -> None:
    made = record(None) | {
        "results": [{"code": None, "name": "T", "value": value, "unit": None, "low": None, "high": None, "flag": None}]
    }
    (item,) = Intake(ImportSource("f", derive_ids=True)).validate([ParsedRecord(0, 1, json.dumps(made))])
    assert item.record is not None
    texts = [made[name] for name in ("checkup_type", "checkup_report", "disease", "taken_by", "taken_at")]
    first = [made["checkup_for"], None, *texts, json.dumps(made["results"])]
    digest = hashlib.sha256(json.dumps(first, separators=(",", ":"), ensure_ascii=False).encode()).hexdigest()[:40]
    assert f"sha256:{digest}:1" in item.former_ids
