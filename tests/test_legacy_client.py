"""Clients of the system as it was go on working: one conversation from the first login to the last deletion, with the
addresses, the headers and the sentences that they know. Source: wsgi/README.md."""

import base64
from collections.abc import Callable
from typing import Any

import pytest
from support.clients import Caller
from support.factories import PASSWORD

Asked = tuple[int, Any]
CREATED, NO_PATIENT, TAKEN = "User checkup created…", "User does not exist!", "User with same information is already exists."  # fmt: skip


def old(patient: str) -> dict[str, str]:
    """A record as today's tablet sends it: no number, no moment, no results."""
    return {"checkup_for": patient, "checkup_type": "BP", "checkup_report": "FINE", "machine": "HC-1",
            "taken_by": "dr.ayush", "disease": "BP"}  # fmt: skip


@pytest.fixture(params=["/", ""], ids=["with closing slashes", "without"])
def ask(upload: Caller, request) -> Callable[..., Asked]:
    """Asks as the old client does, with its closing slash or without: status, and `details` or else the whole answer."""

    def ask(method: str, path: str, body: Any = None, *, token: str = "", basic: str = "") -> Asked:
        headers = {"x-access-token": token} if token else {}
        if basic:
            headers["Authorization"] = "Basic " + base64.b64encode(basic.encode()).decode()
        answer = upload(method, path.rstrip("/") + request.param, body, headers=headers)
        if answer.status_code == 401:
            assert "WWW-Authenticate" in answer.headers
        if not answer.data:
            return answer.status_code, None
        said = answer.json
        return answer.status_code, said.get("details", said) if isinstance(said, dict) else said

    return ask


def test_the_whole_conversation(ask: Callable[..., Asked], db) -> None:
    def log_in(name: str, password: str = PASSWORD) -> str:
        status, said = ask("GET", "/login/", basic=f"{name}:{password}")
        assert (status, set(said) - {"password_reset_at"}) == (200, {"token", "expires_at"})
        return said["token"]

    # accounts
    new = {"username": "new.one", "password": "a long password"}
    assert ask("POST", "/registration/", new) == (201, "New user created")
    assert ask("POST", "/registration/", {**new, "username": "NEW.ONE"}) == (400, TAKEN)
    assert ask("GET", "/login/", basic="new.one:another password")[0] == 401
    assert ask("GET", "/login/")[0] == 401
    patient, doctor, admin = log_in("new.one", "a long password"), log_in("dr.ayush"), log_in("root")
    assert ask("GET", "/users/")[0] == 401
    assert ask("GET", "/users/", token="no.token.atall")[0] == 401
    status, made = ask("POST", "/users/", {**new, "username": "another", "role": "doctor"}, token=admin)
    assert (status, made["username"], made["role"]) == (201, "another", "doctor")
    assert ask("POST", "/users/", {**new, "username": "another"}, token=admin) == (409, TAKEN)
    assert "new.one" in [user["username"] for user in ask("GET", "/users/", token=admin)[1]]
    status, seen = ask("GET", "/users/new.one/", token=patient)
    assert (status, seen["role"], seen["active"]) == (200, "patient", True)
    status, changed = ask("PUT", "/users/new.one/", {"full_name": "New One"}, token=patient)
    assert (status, changed["full_name"]) == (200, "New One")
    same = {"username": "new.one", "password": "a longer password"}
    status, changed = ask("PUT", "/users/new.one/", same, token=admin)
    assert (status, changed["username"]) == (200, "new.one")
    assert ask("PUT", "/users/new.one/", {**same, "current_password": "a longer password"}, token=patient)[0] == 401
    patient = log_in("new.one", "a longer password")
    assert ask("PUT", "/users/new.one/", {**same, "current_password": same["password"]}, token=patient)[0] == 200
    patient = log_in("new.one", "a longer password")
    for method, body in (("GET", None), ("PUT", {"full_name": "x"}), ("DELETE", None)):
        assert ask(method, "/users/nobody/", body, token=admin) == (404, "nobody Does not Exists")

    # records: none for an account that nobody linked; then one, three like ones, and of somebody whom nobody knows
    assert ask("POST", "/users/new.one/checkups/", old("new.one"), token=doctor)[0] == 422
    assert ask("POST", "/users/new.one/link/", token=admin)[0] == 200
    db("delete from checkups")
    assert ask("POST", "/users/new.one/checkups/", old("new.one"), token=doctor) == (201, CREATED)
    assert ask("POST", "/users/new.one/checkups/", [old("new.one")] * 3, token=doctor) == (201, CREATED)
    assert ask("POST", "/users/nobody/checkups/", old("nobody"), token=doctor) == (404, NO_PATIENT)
    assert ask("POST", "/users/nobody/checkups/", [old("nobody")], token=doctor) == (404, NO_PATIENT)
    assert ask("POST", "/reports/", old("new.one"), token=doctor) == (201, CREATED)
    assert ask("POST", "/reports/", [old("new.one"), old("savita")], token=doctor) == (201, CREATED)
    assert ask("POST", "/reports/", old("nobody"), token=doctor) == (404, NO_PATIENT)
    assert ask("POST", "/reports/", [old("nobody"), old("new.one")], token=doctor) == (201, CREATED)
    status, listed = ask("GET", "/users/new.one/checkups/", token=patient)
    assert (status, len(listed), {entry["username"] for entry in listed}) == (200, 7, {"new.one"})
    assert len(ask("GET", "/reports/", token=doctor)[1]) == 8
    assert ask("GET", "/users/savita/checkups/", token=patient) == (404, NO_PATIENT)
    assert ask("GET", "/users/nobody/checkups/", token=doctor) == (404, NO_PATIENT)

    # corrections and deletions
    where = f"/users/new.one/checkups/{listed[0]['id']}/"
    assert ask("GET", where, token=patient)[1]["disease"] == "BP"
    assert ask("PUT", where, {"disease": "none"}, token=doctor)[1]["disease"] == "none"
    for method, body in (("GET", None), ("PUT", {"disease": "x"}), ("DELETE", None)):
        assert ask(method, where.replace("new.one", "nobody"), body, token=doctor) == (404, NO_PATIENT)
        assert ask(method, where.replace("new.one", "savita"), body, token=doctor)[0] == 404
    assert ask("DELETE", where, token=patient)[0] == 403
    assert ask("DELETE", where, token=doctor) == (204, None)
    assert ask("GET", where, token=doctor)[0] == 404
    assert ask("DELETE", "/users/new.one/", token=doctor)[0] == 403
    assert ask("DELETE", "/users/new.one/", token=admin) == (204, None)
    assert ask("DELETE", "/users/new.one/", token=admin) == (404, "new.one Does not Exists")
    assert ask("GET", "/users/new.one/", token=patient)[0] == 401
    assert db("select count(*) from checkups") == [(1,)]
