"""An Idempotency-Key makes a request repeatable: what it stored is never stored again, and it is answered alike; what
stored nothing does not stand in the way of the next try."""

import threading
from typing import Any

import pytest
from support.clients import Caller
from support.factories import record

from myhealth.profiles.services import create_user


@pytest.fixture
def send(upload: Caller, log_in) -> Any:
    def send(body: Any, key: str = "k1", path: str = "/checkups/", who: str = "tara") -> tuple[int, Any, bool]:
        answer = upload("POST", path, body, token=log_in(who), headers={"Idempotency-Key": key})
        return answer.status_code, answer.json, answer.headers.get("Idempotent-Replayed") == "true"

    return send


def test_what_was_stored_is_answered_again_and_not_stored_again(send, db) -> None:
    first, again = send([record(None)] * 3), send([record(None)] * 3)
    assert (first[0], first[1]["accepted"], first[2]) == (201, 3, False)
    assert again == (*first[:2], True)
    assert send([record(None)] * 3, key="k2")[1]["accepted"] == 3
    assert send([record(None)] * 3, who="dr.ayush")[1]["accepted"] == 3, "keys are each user's own"
    assert db("select count(*) from checkups") == [(9,)]


def test_a_part_that_was_refused_is_answered_again_with_the_part_that_was_stored(send, db) -> None:
    body = [record(None), record(None, "late")]
    first = send(body)
    create_user("late")
    assert send(body) == (*first[:2], True)
    assert db("select count(*) from checkups") == [(1,)]


@pytest.mark.parametrize(
    ("body", "path", "status"),
    [(record(None, "late"), "/checkups/", 404), ([record(None, "late")] * 2, "/checkups/", 422),
     (record(None, "late"), "/users/late/checkups/", 404),
     ([record(None), record(None, "late")], "/checkups/?atomic=true", 422)],
    ids=["one", "several", "at an address", "all or nothing"],
)  # fmt: skip
def test_what_stored_nothing_is_tried_again(send, db, body: Any, path: str, status: int) -> None:
    for _ in range(2):
        refused = send(body, path=path)
        assert (refused[0], refused[2]) == (status, False)
    kept = db("select count(*), max(times), bool_or(resolved_at is not null) from rejections")
    create_user("late")
    stored = send(body, path=path)
    assert (stored[0], stored[1]["rejected"], stored[2]) == (201, 0, False)
    assert send(body, path=path) == (*stored[:2], True)
    assert db("select count(*) from checkups") == [(stored[1]["accepted"],)]
    assert db("select count(*), max(times), bool_or(resolved_at is not null) from rejections") == kept


def test_a_corrected_request_may_come_under_the_key_of_the_one_that_stored_nothing(send, db) -> None:
    assert send(record(None, disease=5))[0] == 422
    assert send(record(None))[0] == 201
    other = send(record(None, disease="other"))
    assert (other[0], other[1]["code"]) == (400, "idempotency_key_reused")
    assert db("select count(*) from checkups") == [(1,)]


def test_what_cannot_be_read_leaves_the_key_free(send, db) -> None:
    assert send(b"[{")[0] == 400
    assert send([record(None)])[0] == 201


@pytest.mark.parametrize("good", [True, False], ids=["stored", "refused"])
def test_many_at_once_are_one_after_another(upload: Caller, log_in, db, good: bool) -> None:
    token, answers, body = log_in("tara"), [], [record(None, "bholanath" if good else "nobody")] * 3

    def send() -> None:
        answers.append(upload("POST", "/checkups/", body, token=token, headers={"Idempotency-Key": "k"}))

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status_code for answer in answers} == {201 if good else 422}
    assert sum("Idempotent-Replayed" in answer.headers for answer in answers) == (7 if good else 0)
    assert db("select count(*) from checkups") == [(3 if good else 0,)]
    assert db("select count(*) from rejections") == [(0 if good else 3,)]
    assert db("select count(*) from idempotency_keys") == [(int(good),)]


def test_a_key_is_kept_for_a_week(send, db) -> None:
    send([record(None)])
    db("update idempotency_keys set created_at = created_at - interval '6 days 23 hours'")
    assert send([record(None)])[2]
    db("update idempotency_keys set created_at = created_at - interval '2 hours'")
    assert not send([record(None)])[2]
    assert db("select count(*) from checkups") == [(2,)]
