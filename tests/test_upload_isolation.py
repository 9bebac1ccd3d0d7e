"""Who may do what at the upload API: support/upload_access.py has the table."""

import json
import time
import uuid
from typing import Any

import jwt
import pytest
from support.clients import Caller
from support.factories import dump, record
from support.upload_access import CALLERS, SPECIFICATION, ask

from myhealth.profiles import services
from myhealth.profiles.services import get_user
from myhealth.profiles.tokens import Signer, load_secret
from wsgi.upload import VIEWS

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")

COUNTS = "select (select count(*) from checkups), (select count(*) from users), (select count(*) from machines)"


@pytest.mark.parametrize(("method", "path"), SPECIFICATION, ids=" ".join)
def test_each_caller_gets_what_the_table_says(upload: Caller, two_checkups, log_in, db, method: str, path: str) -> None:
    for number, (caller, expected) in enumerate(SPECIFICATION[method, path].items(), 100):
        token, before = log_in(caller) if caller else "", db(COUNTS)
        answer = ask(upload, method, path, token, number)
        assert answer.status_code == expected, caller
        if caller in ("", "bholanath", "tara", "runner"):
            assert "savita" not in answer.text, caller
        if expected >= 400:
            without_slash = ask(upload, method, path, token, number, closing_slash=False)
            assert without_slash.status_code == expected, caller
            assert db(COUNTS) == before, f"a refused call of {caller} changed something"


def test_what_is_not_in_the_table_is_not_routed(upload: Caller, two_checkups, log_in, db) -> None:
    token = log_in("root")
    for path in VIEWS:
        for method in METHODS:
            if (method, path) not in SPECIFICATION:
                assert ask(upload, method, path, token).status_code == 405, (method, path)


def forged(settings, how: str) -> str:
    """A token for the doctor that is none."""
    signer, subject = Signer(load_secret(settings), 60), str(get_user("dr.ayush").subject)
    good, now = signer.sign(subject)[0], int(time.time())
    claims = {"iss": "myhealth-upload", "aud": "myhealth", "sub": subject, "iat": now, "exp": now + 60}
    claims["jti"] = uuid.uuid4().hex
    headers = {"kid": signer.jwk["kid"]}
    if how == "expired":
        return signer.sign(subject, time.time() - 3600)[0]
    if how == "tampered":
        head, _, signature = good.split(".")
        other = json.dumps({**claims, "sub": str(get_user("root").subject)}).encode()
        return ".".join((head, jwt.utils.base64url_encode(other).decode(), signature))
    if how == "alg none":
        return jwt.encode(claims, None, "none", headers=headers)
    if how == "HS256 with the public key":
        return jwt.encode(claims, signer.jwk["x"].ljust(64), "HS256", headers=headers)
    if how == "another secret":
        return Signer(b"x" * 32, 60).sign(subject)[0]
    changed = {"other audience": {"aud": "others"}, "other issuer": {"iss": "others"}, "nobody": {"sub": "1"}}[how]
    return jwt.encode({**claims, **changed}, signer._key, "EdDSA", headers=headers)


WRONG = ("expired", "tampered", "alg none", "HS256 with the public key", "another secret", "other audience",
         "other issuer", "nobody")  # fmt: skip
CLOSED = [key for key, expected in SPECIFICATION.items() if expected[""] == 401 and key[1] != "/login/"]


@pytest.mark.parametrize("how", [*WRONG, "disabled"])
def test_a_token_that_is_none_opens_nothing(upload: Caller, two_checkups, settings, db, how: str) -> None:
    if how == "disabled":
        token = Signer(load_secret(settings), 60).sign(get_user("dr.ayush").subject)[0]
        services.set_active("dr.ayush", False)
    else:
        token = forged(settings, how)
    for method, path in CLOSED:
        assert ask(upload, method, path, token).status_code == 401, (method, path)
    assert db("select count(*) from checkups") == [(2,)]


GUESSES = [{"checkup_for": "savita"}, {"disease": "X"}, {"checkup_for": "savita", "disease": "X"},
           {"checkup_report": "x", "results": []}, {"taken_by": "x", "taken_at": "2026-01-01T00:00:00Z"}]  # fmt: skip


@pytest.mark.parametrize("path", ["/checkups/", "/reports/", "/users/{}/checkups/", "/machines/HC-1/dumps/"])
def test_a_technician_learns_nothing_of_a_stored_record_by_guessing(upload: Caller, log_in, path: str) -> None:
    def errors(caller: str, **guess: Any) -> Any:
        made = record(1, machine="HC-1", **guess)
        body = dump([made]) if "dumps" in path else [made]
        sent = upload("POST", path.format(made["checkup_for"]), body, token=log_in(caller))
        return [item["errors"] for item in sent.json["items"]]

    assert errors("tara") == [[]]
    answers = [errors("tara", **guess) for guess in GUESSES]
    message = "record 1 of HC-1 is stored with other content"
    expected = [[{"index": 0, "field": "record_id", "message": message, "code": "stored_with_other_content"}]]
    assert answers == [expected] * len(GUESSES)
    if "dumps" not in path:  # a doctor reads every record
        assert errors("dr.ayush", **GUESSES[2])[0][0]["message"] == f"{message}: checkup_for, disease"


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("changes", [{"role": "admin"}, {"role": "admin", "full_name": "x"}, {"active": True}], ids=str)
def test_nobody_raises_his_or_her_own_role(upload: Caller, db, log_in, caller: str, changes: dict) -> None:
    before = db("select username, role, full_name from users order by id")
    assert upload("PUT", f"/users/{caller}/", changes, token=log_in(caller)).status_code == 403
    assert db("select username, role, full_name from users order by id") == before


def test_a_change_of_several_fields_is_made_whole_or_not_at_all(upload: Caller, db, log_in) -> None:
    changes = {"role": "doctor", "full_name": "S", "password": "short"}
    assert upload("PUT", "/users/savita/", changes, token=log_in("root")).status_code == 400
    assert db("select role, full_name from users where username = 'savita'") == [("patient", "")]
    assert db("select count(*) from audit_events where action = 'user.change'") == [(0,)]


def test_a_refused_record_is_kept_under_an_idempotency_key_too(upload: Caller, db, log_in) -> None:
    token, headers = log_in("tara"), {"Idempotency-Key": "k1"}
    for _ in range(2):
        answer = upload("POST", "/checkups/", record(1, "nobody"), token=token, headers=headers)
        assert (answer.status_code, answer.json["details"]) == (404, "User does not exist!")
    assert db("select times from rejections") == [(2,)]
