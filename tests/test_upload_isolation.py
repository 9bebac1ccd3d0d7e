"""Who may do what at the upload API: this table is the specification.

Every route, every method, every kind of caller; what is not in the table is nobody's.
"""

import json
import time
import uuid
from typing import Any

import jwt
import pytest
from conftest import PASSWORD, Caller, record

from myhealth.profiles import services
from myhealth.profiles.services import get_user
from myhealth.profiles.tokens import Signer, load_secret
from wsgi.upload import VIEWS

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
CALLERS = ("bholanath", "savita", "dr.ayush", "tara", "root", "runner")
USER, CHECKUPS = "/users/<username>/", "/users/<username>/checkups/"
CHECKUP = "/users/<username>/checkups/<checkup_id:int>/"


def only(status: int, *names: str, others: int = 403) -> dict[str, int]:
    """These callers get `status`, the others `others`, and whoever has no token 401."""
    return {"": 401, **dict.fromkeys(CALLERS, others), **dict.fromkeys(names, status)}


def everybody(status: int) -> dict[str, int]:
    return dict.fromkeys(("", *CALLERS), status)


# bholanath is the patient whose data it is.
SPECIFICATION: dict[tuple[str, str], dict[str, int]] = {
    ("GET", "/login/"): everybody(401),  # without a name and a password
    ("POST", "/login/"): everybody(200),
    ("POST", "/logout/"): only(204, *CALLERS),
    ("POST", "/registration/"): everybody(201),
    ("GET", "/.well-known/jwks.json"): everybody(200),
    ("GET", "/healthz"): everybody(200),
    ("GET", "/metrics"): everybody(200),
    ("GET", "/users/"): only(200, *CALLERS),
    ("POST", "/users/"): only(201, "root"),
    ("GET", USER): only(200, "bholanath", "dr.ayush", "root", others=404),
    ("PUT", USER): only(200, "bholanath", "root", others=404),
    ("DELETE", USER): only(204, "root"),
    ("GET", CHECKUPS): only(200, "bholanath", "dr.ayush", others=404),
    ("POST", CHECKUPS): only(201, "dr.ayush", "tara"),
    ("GET", CHECKUP): only(200, "bholanath", "dr.ayush", others=404),
    ("PUT", CHECKUP): only(200, "dr.ayush"),
    ("DELETE", CHECKUP): only(204, "dr.ayush"),
    ("GET", "/checkups/"): only(200, "dr.ayush"),
    ("POST", "/checkups/"): only(201, "dr.ayush", "tara"),
    ("GET", "/reports/"): only(200, "dr.ayush"),
    ("POST", "/reports/"): only(201, "dr.ayush", "tara"),
    ("GET", "/machines/"): only(200, "tara"),
    ("POST", "/machines/"): only(201, "tara"),
    ("POST", "/machines/<serial>/dumps/"): only(201, "tara"),
}
BODIES: dict[str, Any] = {
    "/login/": {"username": "savita", "password": PASSWORD},
    "/registration/": {"username": "new.one", "password": "a long password"},
    "/users/": {"username": "new.one", "role": "doctor"},
    USER: {"full_name": "Bholanath M"},
    CHECKUP: {"disease": "none"},
    "/machines/": {"serial": "HC-9"},
}


def ask(upload: Caller, method: str, path: str, token: str, number: int = 7) -> Any:
    """`number`: makes what is sent a new one."""
    body = BODIES.get(path, [record(number)]) if method in ("POST", "PUT", "PATCH") else None
    if isinstance(body, dict) and body.get("username") == "new.one":
        body = {**body, "username": f"new.{number}"}
    return upload(method, filled(path), body, token=token)


def filled(path: str) -> str:
    return path.replace("<username>", "bholanath").replace("<checkup_id:int>", "1").replace("<serial>", "HC-1")


@pytest.fixture
def stored(upload: Caller, log_in) -> None:
    """Check-up 1 is bholanath's, 2 is savita's."""
    sent = upload("POST", "/checkups/", [record(1), record(2, "savita")], token=log_in("tara"))
    assert [item["id"] for item in sent.json["items"]] == [1, 2]


@pytest.mark.parametrize(("method", "path"), SPECIFICATION, ids=" ".join)
def test_each_caller_gets_what_the_table_says(upload: Caller, stored, log_in, method: str, path: str) -> None:
    for number, (caller, expected) in enumerate(SPECIFICATION[method, path].items(), 100):
        answer = ask(upload, method, path, log_in(caller) if caller else "", number)
        assert answer.status_code == expected, caller
        if caller in ("", "bholanath", "tara", "runner"):
            assert "savita" not in answer.text, caller


def test_what_is_not_in_the_table_is_not_routed(upload: Caller, stored, log_in, db) -> None:
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
def test_a_token_that_is_none_opens_nothing(upload: Caller, stored, settings, db, how: str) -> None:
    if how == "disabled":
        token = Signer(load_secret(settings), 60).sign(get_user("dr.ayush").subject)[0]
        services.set_active("dr.ayush", False)
    else:
        token = forged(settings, how)
    for method, path in CLOSED:
        assert ask(upload, method, path, token).status_code == 401, (method, path)
    assert db("select count(*) from checkups") == [(2,)]


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
