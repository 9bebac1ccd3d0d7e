"""Rejected records at the upload API: who sees which, correcting, retrying and discarding."""

import json
import threading
from typing import Any

import pytest
from support.clients import Caller
from support.factories import PASSWORD, dump, record

from myhealth.intake.rejections import get_rejection
from myhealth.intake.retry import retry_rejection
from myhealth.privacy.erasure import erase_user
from myhealth.profiles.services import create_user

READS = "select actor, subject, details->>'rejection' from audit_events where action = 'read' order by id"


@pytest.fixture
def send(upload: Caller, log_in) -> Any:
    """Return a function that uploads a dump and returns the ids of its rejected records."""

    def call(*records: Any, caller: str = "tara") -> list[int]:
        sent = upload("POST", "/machines/HC-1/dumps/", dump(list(records)), token=log_in(caller))
        return [item["rejection_id"] for item in sent.json["items"] if item["rejection_id"]]

    return call


@pytest.fixture
def ask(upload: Caller, log_in) -> Any:
    """Return a function that calls a path below /rejections/."""

    def call(path: Any = "", body: Any = None, caller: str = "tara") -> Any:
        verb = "POST" if str(path).endswith(("retry/", "discard/")) else "GET"
        return upload(verb, f"/rejections/{path}", body, token=log_in(caller))

    return call


def test_a_technician_sees_the_records_of_own_uploads_only(people, send, ask, db) -> None:
    create_user("tim", password=PASSWORD, role="technician", rounds=4)
    (own,), (mine,) = send(record(2, "nobody"), caller="tim"), send(record(3, "nobody"))
    assert [row["id"] for row in ask().json] == [mine]
    assert [row["id"] for row in ask(caller="root").json] == [mine, own]
    answers = [ask(path, caller="tara") for path in (f"{own}/", f"{own}/retry/", f"{own}/discard/")]
    absent = [ask(path, caller="tara") for path in ("999/", "999/retry/", f"{2**70}/discard/")]
    assert [answer.status_code for answer in answers + absent] == [404] * 6
    assert answers[0].json["code"] == absent[0].json["code"]
    assert db("select count(*) from rejections where resolved_at is null") == [(2,)]
    assert [ask(f"{own}/", caller=caller).status_code for caller in ("dr.ayush", "root")] == [200, 200]


def test_lists_are_pages_with_filters(people, send, ask, upload: Caller, log_in) -> None:
    ids = send(record(1, "nobody"), record(2, disease=5), record(3, "nobody"))
    upload("POST", "/machines/HC-2/dumps/", dump([record(1, "nobody")], "HC-2"), token=log_in("tara"))
    ask(f"{ids[0]}/discard/", {"reason": "sent twice"})
    page = ask("?limit=2")
    assert [row["machine"] for row in page.json] == ["HC-2", "HC-1"]
    link = page.headers["Link"]
    after = link.partition("after=")[2].partition(">")[0]
    assert [row["id"] for row in ask(f"?limit=2&after={after}").json] == [ids[1]]
    assert [row["resolution"] for row in ask("?state=resolved").json] == ["discarded: sent twice"]
    assert len(ask("?state=all").json) == 4
    assert len(ask("?machine=HC-2").json) == 1
    assert [row["id"] for row in ask("?machine=HC-1&code=unknown_user").json] == [ids[2]]
    assert len(ask("?since=2020-01-01").json) == 3
    for moment in ("0266-08-10T14:25:41-19:01", "0001-01-01T00:00:00%2B23:59"):
        assert len(ask(f"?since={moment}").json) == 3
    assert ask("?since=9999-12-31T23:59:59-23:59").json == []
    assert ask("?since=2999-01-01T00:00:00Z").json == []
    assert "since=2020" in ask("?since=2020-01-01&limit=1").headers["Link"]
    for wrong in ("state=x", "since=soon", "machine=%00", "code=%00", "after=x", "limit=0", "what=1"):
        assert ask(f"?{wrong}").status_code == 400, wrong


def test_a_records_number_is_text_whatever_was_sent(people, send, ask) -> None:
    numbers: list[Any] = [0, 7, "", "007"]
    ids = send(*({**record(1, "nobody", disease=5), "record_id": number} for number in numbers))
    assert {row["id"]: row["record_id"] for row in ask().json} == dict(zip(ids, map(str, numbers), strict=True))


def test_showing_one_is_logged_for_its_patient(people, send, ask, db) -> None:
    (id_,) = send(record(1, disease=5))
    shown = ask(f"{id_}/").json
    assert json.loads(shown["payload"])["disease"] == 5
    assert [error["field"] for error in shown["errors"]] == ["disease"]
    assert (shown["patient"], shown["record_id"], shown["machine"], shown["line"]) == ("bholanath", "1", "HC-1", 1)
    assert db(READS)[-1] == ("tara", "bholanath", str(id_))


def test_a_record_is_stored_for_the_patient_who_is_named(people, send, ask, db) -> None:
    first, second = send(record(1, "B. Joshi"), record(2, "B. Joshi"))
    stored = ask(f"{first}/retry/", {"patient": "bholanath"})
    assert (stored.status_code, stored.json["accepted"]) == (200, 1)
    assert ask(f"{first}/retry/").status_code == 409
    assert ask(f"{first}/discard/").status_code == 409
    assert ask(f"{second}/retry/", {"patient": people["bholanath"]}).status_code == 404  # tara sees no ids
    assert ask(f"{second}/retry/", {"patient": "nobody"}).status_code == 404
    assert ask(f"{second}/retry/", {"patient": people["bholanath"] + 0.5}, caller="dr.ayush").status_code == 400
    whole = float(people["bholanath"])  # 4.0 is an integer in JSON Schema
    assert ask(f"{second}/retry/", {"patient": whole}, caller="dr.ayush").status_code == 200
    assert db("select distinct patient_id from checkups") == [(people["bholanath"],)]
    (subject,) = db("select distinct subject from audit_events where action = 'rejection.retry'")
    assert subject == ("bholanath",)


def test_a_correction_is_stored_beside_the_record_as_sent(people, send, ask, db) -> None:
    (id_,) = send(record(1, "savitta", disease=5))
    before = get_rejection(id_).payload
    half = ask(f"{id_}/retry/", {"record": record(1, "savitta")})
    assert (half.status_code, [error["code"] for error in half.json["items"][0]["errors"]]) == (422, ["unknown_user"])
    shown = ask(f"{id_}/").json
    assert (shown["payload"], json.loads(shown["correction"])["disease"]) == (before, "BP")
    exact = json.dumps(record(None, "savita")).replace("128,", "128.50,")
    assert ask(f"{id_}/retry/", f'{{"record": {exact}}}'.encode()).status_code == 200
    ((number, machine, result),) = db("select record_id, machine_id, results::text from checkups")
    assert (number, machine) == ("1", 1)
    assert '"value":128.50' in result.replace(" ", "")
    kept = get_rejection(id_)
    assert (kept.payload, kept.context["correction"]) == (before, exact)


def test_a_later_retry_uses_the_correction(people, send, ask, db) -> None:
    (id_,) = send(record(1, "late.comer", disease=5))
    assert ask(f"{id_}/retry/", {"record": record(1, "late.comer")}).status_code == 422
    create_user("late.comer")
    assert retry_rejection(id_).status == "accepted"


def test_a_corrected_record_is_erased_with_the_patient_it_names(people, send, ask, db) -> None:
    (id_,) = send(record(1, "nobody", disease=5))
    assert ask(f"{id_}/retry/", {"record": record(1, "savita", disease=6)}).status_code == 422
    erase_user("savita")
    assert db("select id from rejections") == []


def test_of_two_who_resolve_it_at_once_one_wins(people, send, ask, db) -> None:
    (id_,) = send(record(None, disease=5))
    db("update rejections set context = context - 'record_id'")
    codes, start = [], threading.Barrier(4)
    bodies = [{"record": record(None)}, {"record": record(None, disease="X")}, {"record": record(None, disease="Y")}]

    def work(path: str, body: Any) -> None:
        start.wait(30)
        codes.append(ask(f"{id_}/{path}/", body).status_code)

    threads = [threading.Thread(target=work, args=("retry", body)) for body in bodies]
    threads.append(threading.Thread(target=work, args=("discard", {})))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    won = [code for code in codes if code != 409]
    assert (len(codes), len(won)) == (4, 1)
    assert db("select count(*) from checkups") == [(0 if won == [204] else 1,)]


def test_a_technician_does_not_learn_in_what_a_stored_record_differs(people, send, ask, db) -> None:
    assert send(record(1)) == []
    (id_,) = send(record(1, disease="guess"))
    for body in ({}, {"record": record(1, disease="guess", checkup_report="x")}):
        (error,) = ask(f"{id_}/retry/", body).json["items"][0]["errors"]
        assert (error["field"], error["message"]) == ("record_id", "record 1 of HC-1 is stored with other content")
    assert (
        ask(f"{id_}/retry/", caller="dr.ayush")
        .json["items"][0]["errors"][0]["message"]
        .endswith(": checkup_report, disease")
    )
    (error,) = ask(f"{id_}/").json["errors"]
    assert (error["field"], error["message"]) == ("record_id", "record 1 of HC-1 is stored with other content")
    assert error == ask().json[0]["errors"][0]


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"patient": 1.5}', b'{"x": 1}', b'"\xff"', b'{"record": [1]}',
                                  b'{"record": {"a": 1, "a": 2}}', b'{"record": "x"}', b'{"record": {"checkup_for": "\\u0000"}}',
                                  b'{"patient": "\\u0000"}', b"[" * 100_000, b'{"record": ' + b"[" * 9000 + b"]" * 9000 + b"}"],
                         ids=lambda body: repr(body[:24]))  # fmt: skip
def test_a_wrong_body_changes_nothing(people, send, ask, db, body: bytes) -> None:
    (id_,) = send(record(1, disease=5))
    assert ask(f"{id_}/retry/", body).status_code in (400, 404, 422)
    assert db("select count(*) from rejections where resolved_at is null") == [(1,)]
    assert ask(f"{id_}/discard/", {"reason": "x" * 151}).status_code == 400
    assert ask(f"{id_}/").status_code == 200


@pytest.mark.parametrize(
    "value", ["1" * 5000, "1e999", '"\\ud800"', '"\\x"', "[" * 3000 + "]" * 3000, "NaN", '{"a":1,"a":2}']
)
def test_no_value_is_a_fault_of_ours(people, send, upload: Caller, log_in, value: str) -> None:
    (rejected,) = send(record(1, "nobody"))
    for name in ("record", "patient", "reason"):
        for act in ("retry", "discard"):
            body = f'{{"{name}": {value}}}'.encode()
            answer = upload("POST", f"/rejections/{rejected}/{act}/", body, token=log_in("root"))
            assert answer.status_code in (400, 422), answer.json
