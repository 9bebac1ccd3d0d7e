"""The further facts of check-ups and results: every one is stored as sent, and nothing is stored where there is none."""

import json
from typing import Any

import pytest
from support.factories import record, statuses, take

from myhealth.checkups.models import CHANGEABLE
from myhealth.intake.insert import COPY_FROM_ROWS
from myhealth.intake.parsed_record import ParsedRecord
from myhealth.intake.pipeline import Intake
from myhealth.intake.results import ImportSource
from myhealth.intake.validation import validate_record

SODIUM = {"code": "2951-2", "name": "Sodium", "value": 140, "unit": "mmol/L", "low": None, "high": None, "flag": None}
RESULT = {
    **SODIUM,
    "flag": "H",
    "number": 7,
    "sub_id": "1",
    "taken_at": "2026-11-20T03:44:03Z",
    "status": "corrected",
    "codings": [{"system": "http://loinc.org", "code": "2951-2", "display": "Sodium"}],
    "value_ratio": {"numerator": {"value": 1}, "denominator": {"value": 128, "comparator": ">"}},
    "ranges": [{"low": 135, "high": 145, "type": "normal", "sex": "female", "age_low": 18}],
    "interpretations": [{"code": "HX", "text": "above what the instrument can measure"}],
    "specimen": {"text": "serum", "collected_at": "2026-11-20"},
    "method": "ion-selective electrode",
    "notes": [{"text": "Not fasting.", "author": "dr.ayush"}],
    "absent_code": "not-performed",
}
FACTS: dict[str, Any] = {
    "status": "partial",
    "taken_precision": "day",
    "taken_offset": 330,
    "taken_until": "2026-11-20T03:50:00Z",
    "issued_at": "2026-11-21T00:00:00Z",
    "details": {"category": ["LAB"], "version": "3", "performers": [{"name": "City Laboratory"}]},
    "sent": {"extension": [{"valueDecimal": 5.10}]},
    "results": [RESULT],
}


def test_every_further_fact_of_a_record_is_answered_as_it_was_sent(upload, log_in, db):
    answer = upload("POST", "/checkups/", [record(1, **FACTS)], token=log_in("tara"))
    assert answer.json["accepted"] == 1
    (stored,) = upload("GET", "/users/bholanath/checkups/", token=log_in("dr.ayush")).json
    answered = {name: value for name, value in FACTS.items() if name != "sent"}  # that stays in PostgreSQL
    assert {name: stored.get(name) for name in FACTS} == {**answered, "sent": None}
    assert db("select sent from checkups") == [(FACTS["sent"],)]


def test_further_facts_of_many_records_are_stored_at_once(upload, log_in, db):
    many = [record(number, **FACTS, disease="a\tb\\c\n") for number in range(COPY_FROM_ROWS)]
    assert upload("POST", "/checkups/", many, token=log_in("tara")).json["accepted"] == len(many)
    named = "status, taken_precision, taken_offset, taken_until = %s, issued_at = %s, sent, disease"
    values = db(f"select distinct {named} from checkups", FACTS["taken_until"], FACTS["issued_at"])
    assert values == [("partial", "day", 330, True, True, FACTS["sent"], "a\tb\\c\n")]


def test_digits_in_further_facts_are_kept(upload, log_in, db):
    ranges = '[{"low":5.10,"high":7.00}]'
    text = f'{{"checkup_for":"bholanath","checkup_type":"t","checkup_report":"","disease":"","results":[{{"name":"K","value":1,"ranges":{ranges}}}]}}'
    assert upload("POST", "/checkups/", text.encode(), token=log_in("tara")).status_code == 201
    assert db("select results->0->'ranges'->0->>'low', results->0->'ranges'->0->>'high' from checkups") == [
        ("5.10", "7.00")
    ]


def test_a_record_without_further_facts_stores_none(upload, log_in, db):
    upload("POST", "/checkups/", [record(1)], token=log_in("tara"))
    (stored,) = upload("GET", "/users/bholanath/checkups/", token=log_in("dr.ayush")).json
    assert not {"status", "taken_precision", "details", "sent"} & stored.keys()
    assert len(db("select results->0 from checkups")[0][0]) == 7


def test_a_record_with_further_facts_is_known_again_and_told_from_another(people, db):
    assert statuses(take(record(1, **FACTS))) == ["accepted"]
    assert statuses(take(record(1, **FACTS))) == ["duplicate"]
    assert statuses(take(record(1, **{**FACTS, "details": {**FACTS["details"], "clinical_information": "x"}}))) == [
        "rejected"
    ]


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"status": "done"}, "status"),
        ({"taken_until": "2026-11-20T09:14:03+18:27"}, "taken_until"),
        ({"issued_at": "1690-02-22T19:28:44Z"}, "issued_at"),
        ({"details": {"panels": [{"name": "Fats", "taken_at": "1690-02-22T19:28:44Z"}]}}, "details.panels[0].taken_at"),
        ({"taken_offset": 1.5}, "taken_offset"),
        ({"details": {"colour": "red"}}, "details.colour"),
        ({"patient": {"identifiers": [{"system": "x"}]}}, "patient.identifiers[0].value"),
        ({"results": [{**SODIUM, "number": 0}]}, "results[0].number"),
        ({"results": [{**SODIUM, "taken_at": "2026-11-20"}]}, "results[0].taken_at"),
        ({"results": [{**SODIUM, "ranges": [{"low": True}]}]}, "results[0].ranges[0].low"),
        ({"results": [{**SODIUM, "value_boolean": 1}]}, "results[0].value_boolean"),
        ({"results": [{**SODIUM, "specimen": {"codings": [{"code": 5}]}}]}, "results[0].specimen.codings[0].code"),
        (
            {"results": [{**SODIUM, "value_ratio": {"numerator": {"value": "1"}}}]},
            "results[0].value_ratio.numerator.value",
        ),
    ],
)
def test_a_wrong_further_fact_is_refused_with_its_place(changes, place):
    found, faults = validate_record({**record(1), **changes})
    assert found is None
    assert [field for field, _ in faults] == [place]


def test_a_dump_record_without_a_moment_has_none_and_is_known_again(upload, log_in, db):
    dump = {"machine": "HC-1", "records": [{k: v for k, v in record(1).items() if k != "taken_at"}]}
    for status in ("accepted", "duplicate"):
        answer = upload("POST", "/machines/HC-1/dumps/", dump, token=log_in("tara")).json
        assert answer[status] == 1
    (stored,) = upload("GET", "/users/bholanath/checkups/", token=log_in("dr.ayush")).json
    assert (stored["taken_at"], stored["taken_precision"]) == (None, "unknown")
    path, moment = f"/users/bholanath/checkups/{stored['id']}/", "2026-11-20T09:00:00Z"
    corrected = upload("PUT", path, {"taken_at": moment}, token=log_in("dr.ayush"))
    assert corrected.status_code == 200
    (stored,) = upload("GET", "/users/bholanath/checkups/", token=log_in("dr.ayush")).json
    assert (stored["taken_at"], stored.get("taken_precision")) == (moment, None)
    assert upload("POST", "/machines/HC-1/dumps/", dump, token=log_in("tara")).json["duplicate"] == 1


def test_a_live_record_without_a_moment_is_taken_now(upload, log_in):
    upload("POST", "/checkups/", [record(1, taken_at=...)], token=log_in("tara"))
    (stored,) = upload("GET", "/users/bholanath/checkups/", token=log_in("dr.ayush")).json
    assert stored["taken_at"] is not None
    assert "taken_precision" not in stored


@pytest.mark.parametrize(
    ("specimen", "ranged"),
    [
        ("serum", True),
        (None, True),
        ({"codings": [{"code": "PLAS"}]}, True),
        ("Urine", False),
        ({"text": "CSF"}, False),
    ],
)
@pytest.mark.parametrize("of", ["result", "check-up"])
def test_a_range_of_the_catalogue_is_for_blood(specimen, ranged, of):
    glucose = {"code": "2345-7", "name": "Glucose", "value": 130, "unit": "mg/dL"}
    whole = {"specimen": specimen} if specimen else {}
    facts = {"details": whole, "results": [glucose]} if of == "check-up" else {"results": [{**glucose, **whole}]}
    found, faults = validate_record(record(1, **facts))
    assert faults == []
    assert ('"range_source"' in found.results) == ranged
    assert ('"specimen"' in found.results) == bool(specimen)


@pytest.mark.parametrize(
    ("sent", "place"),
    [
        ('{"a": 1, "a": 2}', "sent.a"),
        ('{"a": [{"b": "x\\u0000"}]}', "sent.a[0].b"),
        ('{"a": {"\\u0000": 1}}', "sent.a"),
        ('{"a": [1, "\\ud800"]}', "sent.a[1]"),
        ('{"a": 123456789012345678901234567890}', "sent.a"),
        ('{"a": {"b": 1e999}}', "sent.a.b"),
        ('{"a": [NaN]}', "sent.a[0]"),
    ],
)
def test_what_cannot_be_kept_of_the_source_is_refused_with_its_place(people, db, sent, place):
    text = json.dumps(record(1))[:-1] + f', "sent": {sent}}}'
    (outcome,) = Intake(ImportSource("dump", "HC-1")).store_batch([ParsedRecord(0, 1, text)])
    assert outcome.status == "rejected"
    assert [each["field"] for each in outcome.errors] == [place]
    assert db("select count(*) from rejections") == [(1,)]


@pytest.mark.parametrize("name", CHANGEABLE)
def test_a_correction_may_take_a_fact_away(people, upload, log_in, db, name: str) -> None:
    take(record(1, details={"clinical_information": "Fasting"}, sent={"a": 1}))
    kept = {"checkup_type", "checkup_report", "disease", "taken_at"}  # every check-up has these
    answer = upload("PUT", "/users/bholanath/checkups/1/", {name: None}, token=log_in("dr.ayush"))
    assert answer.status_code == (400 if name in kept else 200)
    if name not in kept:
        assert db(f"select coalesce({name}::text, '') from checkups")[0][0] in ("", "[]")


@pytest.mark.parametrize(("first", "second"), [("negative", "positive"), (5, 6.50), ("<5", 5)])
def test_a_correction_may_send_back_all_that_was_read(people, upload, log_in, db, first: Any, second: Any) -> None:
    take(record(1, results=[{"name": "HIV", "value": first, "previous_value": first, "previous_unit": "x"}]))
    doctor, path = log_in("dr.ayush"), "/users/bholanath/checkups/1/"
    read = upload("GET", path, token=doctor).json["results"]
    assert read[0]["previous_value"] == first
    answer = upload("PUT", path, {"results": [{**read[0], "value": second}]}, token=doctor)
    assert answer.status_code == 200
    assert answer.json["results"][0]["value"] == second
