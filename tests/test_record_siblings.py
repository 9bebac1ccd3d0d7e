"""Records of our own form: the life of one result, and what only words and codes say."""

import io
import json
from typing import Any

import pytest
from support.factories import record

from myhealth.common.errors import BadInput
from myhealth.intake.file_import import FileImport, ImportOptions
from myhealth.intake.validation import validate_record

GLUCOSE = {"code": "2345-7", "name": "Glucose", "value": 90, "unit": "mg/dL"}
HB = {"code": "718-7", "name": "Hb", "value": 13, "unit": "g/dL"}


def send(*results: dict[str, Any], number: str | None = "1", **fields: Any) -> dict[str, int]:
    made = record(number, **fields) | {"results": [*results]}
    dump = json.dumps({"machine": "HC-1", "records": [made]}).encode()
    started = FileImport(io.BytesIO(dump), "dump.json", ImportOptions())
    for _ in started:
        pass
    return {name: count for name, count in started.counts.items() if count}


def first_result(db: Any) -> Any:
    return db("select results->0 from checkups")[0][0]


def stored(**fields: Any) -> Any:
    result = {name: value for name, value in {**GLUCOSE, **fields}.items() if value is not ...}
    found, faults = validate_record(record("1") | {"results": [result]})
    assert found is not None and faults == []
    return json.loads(found.results)[0]


def test_one_result_of_a_dump_is_withdrawn_and_stays_so(db, people) -> None:
    assert send(GLUCOSE, HB) == {"accepted": 1}
    assert send({**GLUCOSE, "status": "entered-in-error"}, HB) == {"accepted": 1}
    assert first_result(db)["status"] == "entered-in-error"
    assert send(GLUCOSE, HB) == {"duplicate": 1}
    assert first_result(db)["status"] == "entered-in-error"
    assert db("select reason from checkup_versions") == [("withdrawn",)]


def test_the_only_result_of_a_dump_is_withdrawn(db, people) -> None:
    send(GLUCOSE)
    assert send({**GLUCOSE, "status": "entered-in-error"}) == {"accepted": 1}
    assert db("select status from checkups") == [("entered-in-error",)]


def test_one_result_of_a_dump_is_corrected_by_its_own_status(db, people) -> None:
    send({**GLUCOSE, "status": "preliminary"}, HB)
    assert send({**GLUCOSE, "value": 91}, HB) == {"accepted": 1}
    assert send({**GLUCOSE, "value": 92, "status": "corrected"}, HB) == {"accepted": 1}
    assert (first_result(db)["value"], first_result(db)["previous_value"]) == (92, 91)
    assert send({**GLUCOSE, "value": 91}, HB) == {"duplicate": 1}
    assert first_result(db)["value"] == 92


UNTOLD = {
    "another correction": [{**GLUCOSE, "value": 93, "status": "corrected"}, HB],
    "one later and one earlier": [
        {**GLUCOSE, "status": "entered-in-error"},
        {**HB, "value": 9, "status": "registered"},
    ],
    "a result less": [{**GLUCOSE, "status": "entered-in-error"}],
}


@pytest.mark.parametrize("results", UNTOLD.values(), ids=UNTOLD)
def test_what_the_results_do_not_tell_is_refused(results: list[Any], db, people) -> None:
    send({**GLUCOSE, "value": 92, "status": "corrected"}, HB)
    assert send(*results) == {"rejected": 1}
    assert first_result(db)["value"] == 92


def test_a_record_without_a_number_is_withdrawn_when_it_comes_again(db, people) -> None:
    assert send(GLUCOSE, number=None) == {"accepted": 1}
    assert send(GLUCOSE, number=None, status="entered-in-error") == {"accepted": 1}
    assert db("select status from checkups") == [("entered-in-error",)]


def test_a_range_in_words_is_read(db, people) -> None:
    assert (stored(range_text="60 - 80")["low"], stored(range_text="<150 mg/dl")["high"]) == (60, 150)
    assert stored(range_text="M: 60-110; F: 50-100")["ranges"][1]["sex"] == "female"
    assert stored(ranges=[{"text": "60 - 80"}])["high"] == 80
    assert stored(range_text="see note")["low"] is None
    assert stored(range_text="60 - 80", low=61)["low"] == 61
    words = stored(range_text="women 12 to 16, men 14 to 18", range_source="catalogue")
    assert "ranges" not in words  # the catalogue's own words, given back


def test_a_range_in_words_makes_no_other_number_and_no_other_content(db, people) -> None:
    told = {**GLUCOSE, "range_text": "60 - 80"}
    plain = validate_record(record(None) | {"results": [told]})[0]
    assert plain is not None
    assert ('"low":60' in plain.results, '"low":null' in plain.results_as_sent) == (True, True)
    send(told)
    db("update checkups set results = jsonb_set(jsonb_set(results, '{0,low}', 'null'), '{0,high}', 'null')")
    assert send(told) == {"duplicate": 1}  # stored by an earlier release


def test_a_mark_and_a_code_are_read_from_interpretations_and_codings() -> None:
    assert stored(interpretations=[{"code": "HH"}])["flag"] == "HH"
    assert stored(interpretations=[{"code": "HH"}], flag="N")["flag"] == "N"
    assert stored(interpretations=[{"code": "HH"}], flag=None)["flag"] == "HH"
    coded = stored(code=..., codings=[{"system": "http://loinc.org", "code": "2345-7"}])
    assert (coded["code"], coded["low"]) == ("2345-7", 70)
    assert stored(code=..., codings=[{"system": "urn:local", "code": "2345-7"}])["code"] is None


def test_a_check_up_that_a_doctor_withdraws_is_answered(upload, log_in, db, people) -> None:
    send(GLUCOSE, patient="savita")
    ((number,),) = db("select id from checkups")
    path, token = f"/users/savita/checkups/{number}/", log_in("dr.ayush")
    answer = upload("PUT", path, {"status": "entered-in-error"}, token=token)
    assert (answer.status_code, answer.json["status"]) == (200, "entered-in-error")
    assert upload("GET", path, token=token).status_code == 404


def test_a_name_that_stands_twice_in_a_request_is_refused(upload, log_in, db, people) -> None:
    token = log_in("tara")
    number = upload("POST", "/checkups/", [record("1", patient="nobody")], token=token).json["items"][0]["rejection_id"]
    twice = b'{"patient": "savita", "patient": "bholanath"}'
    headers = {"Content-Type": "application/json"}
    refused = upload("POST", f"/rejections/{number}/retry/", twice, token=token, headers=headers)
    assert (refused.status_code, refused.json["details"]) == (400, "patientoccurs twice in the body.")
    twice = b'{"serial": "HC-1", "serial": "HC-2"}'
    assert upload("POST", "/machines/", twice, token=token, headers=headers).status_code == 400
    assert db("select (select count(*) from checkups), (select count(*) from machines)") == [(0, 0)]


def test_a_moment_of_one_result_in_the_future_is_told(people) -> None:
    found, _ = validate_record(record("1") | {"results": [HB, {**GLUCOSE, "taken_at": "2199-01-01T00:00:00Z"}]})
    assert found is not None
    assert found.warnings == [
        ("results[1].taken_at", "2199-01-01T00:00:00Z lies in the future; the machine's clock may be wrong")
    ]


@pytest.mark.parametrize("first", [True, False], ids=["before the records", "behind them"])
def test_what_is_not_read_of_a_dumps_header_is_told(first: bool, db, people) -> None:
    unread = '"machine": {"serial": "HC-1", "modle": "x"}, "dumped_at": "2026-11-20T16:00:00Z", "patinet": "savita"'
    records = f'"records": [{json.dumps(record("1"))}]'
    dump = f"{{{unread}, {records}}}" if first else f"{{{records}, {unread}}}"
    started = FileImport(io.BytesIO(dump.encode()), "dump.json", ImportOptions())
    list(started)
    assert started.counts["accepted"] == 1
    assert started.dump.notices == ["line 1: machine.modle is not read", "line 1: patinet is not read"]


def test_json_in_utf16_is_no_table(upload, log_in) -> None:
    answer = upload("POST", "/checkups/", json.dumps(record("1")).encode("utf-16"), token=log_in("tara"))
    assert (answer.status_code, answer.json["details"]) == (400, "it is UTF-16; save it as UTF-8")


TYPED = {
    "a Boolean": ({"value_boolean": False}, "false"),
    "a coded value": ({"value_coded": {"text": "Positive"}}, "Positive"),
    "a code": ({"value_coded": {"codings": [{"code": "POS"}]}}, "POS"),
    "a ratio": ({"value_ratio": {"numerator": {"value": 1}, "denominator": {"value": 128}}}, "1:128"),
    "a range": ({"value_range": {"low": {"value": 1}, "high": {"value": 2.50}}}, "1 - 2.5"),
    "half a range": ({"value_range": {"low": {"value": 1}}}, ""),
    "a date": ({"value_moment": "2026-11"}, "2026-11"),
    "none": ({"absent_reason": "clotted"}, ""),
}


@pytest.mark.parametrize(("fields", "value"), TYPED.values(), ids=TYPED)
def test_a_value_in_a_field_of_its_type_is_shown(fields: dict[str, Any], value: str) -> None:
    assert stored(value="", **fields)["value"] == value
    assert stored(value="as sent", **fields)["value"] == "as sent"


VERSIONS: dict[str, tuple[list[dict[str, Any]], list[Any]]] = {
    "three versions": ([{"value": 95, "status": "preliminary"}, {}, {"value": 80, "status": "corrected"}], [(80, 90)]),
    "the correction first": ([{"value": 80, "status": "corrected"}, {}], [(80, 90)]),
    "not measured yet": ([{"value": "", "absent_reason": "pending", "status": "registered"}, {}], [(90, None)]),
    "withdrawn": ([{}, {"status": "entered-in-error"}], []),
    "withdrawn without its value": ([{}, {"value": "", "absent_reason": "x", "status": "entered-in-error"}], []),
    "another value is withdrawn": ([{}, {"value": 80, "status": "entered-in-error"}], [(90, None)]),
    "two may be meant": ([{}, {"value": 91}, {"value": 80, "status": "corrected"}], [(90, None), (91, None), (80, None)]),
    "a later value that is preliminary": ([{}, {"value": 95, "status": "preliminary"}], [(90, None), (95, None)]),
    "another moment": ([{}, {"value": 80, "status": "corrected", "taken_at": "2026-11-20T12:00:00Z"}], [(90, None), (80, None)]),
    "another specimen": ([{"specimen": "Urine"}, {"value": 80, "status": "corrected"}], [(90, None), (80, None)]),
    "another unit": ([{}, {"value": 5, "unit": "mmol/L", "status": "corrected"}], [(90, None), (5, None)]),
    "findings in words": ([{"value": "E. coli"}, {"value": "Candida", "status": "corrected"}], [("E. coli", None), ("Candida", None)]),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "shown"), VERSIONS.values(), ids=VERSIONS)
def test_of_the_versions_of_a_result_in_one_record_the_last_is_shown(changes: Any, shown: Any, db, people) -> None:
    results = [GLUCOSE | each for each in changes]
    found, faults = validate_record(record("1") | {"results": [*results, HB]})
    assert found is not None and faults == []
    kept = [each for each in json.loads(found.results)[:-1] if each.get("status") != "entered-in-error"]
    assert [(each["value"], each.get("previous_value")) for each in kept] == shown
    told = [each for each in found.warnings if "superseded" in each]
    assert len(told) == len(results) - len(json.loads(found.results)) + 1
    assert send(*results, HB) == {"accepted": 1}
    assert send(*results, HB) == {"duplicate": 1}


def test_a_record_without_a_number_keeps_the_one_of_all_its_versions() -> None:
    results = [{**GLUCOSE, "status": "preliminary"}, {**GLUCOSE, "value": 91}]
    found = validate_record(record(None) | {"results": results})[0]
    assert found is not None and '"value":90' in found.results_as_sent


def test_a_machine_with_two_serials_is_refused() -> None:
    twice = b'{"machine": {"serial": "HC-1", "serial": "HC-2"}, "records": []}'
    with pytest.raises(BadInput, match="serial occurs twice"):
        list(FileImport(io.BytesIO(twice), "dump.json", ImportOptions()))


def test_a_judgement_that_is_not_known_makes_no_other_number() -> None:
    made = record(None) | {"results": [{**GLUCOSE, "interpretations": [{"text": "*"}]}]}
    found = validate_record(made)[0]
    assert found is not None
    assert ('"range_source"' in found.results, '"range_source"' in found.results_as_sent) == (False, True)
