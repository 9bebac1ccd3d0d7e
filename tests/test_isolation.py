"""Who may do what at the browse API: this table is the specification.

Every route, every method, every kind of caller. `None` in the table: the caller gets what is his or her own.
"""

import base64
import json
import time
import urllib.parse
import uuid
from typing import Any

import jwt
import pytest
from support.clients import Caller

from myhealth.privacy.erasure import erase_user
from myhealth.profiles import services
from myhealth.profiles.models import User
from myhealth.profiles.services import get_user
from myhealth.profiles.tokens import Signer, load_secret
from myhealth.reports.repository import ReportRepository
from myhealth.reports.writer import ReportWriter
from myhealth.sync.runner import run_pass
from wsgi.browse import PAGES, VIEWS

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
CALLERS = ("bholanath", "savita", "dr.ayush", "tara", "root", "runner")
OWN = dict.fromkeys(CALLERS, 200)
# bholanath is the patient whose data it is.
SEEN = {"bholanath": 200, "savita": 404, "dr.ayush": 200, "tara": 404, "root": 200, "runner": 404}
OPEN = {**OWN, "": 200}
# The task runner's own calls: here without a signature.
FHIR_KINDS = ("Patient", "Observation", "DiagnosticReport", "Device")
NOBODY = dict.fromkeys(CALLERS, 403)
SPECIFICATION: dict[tuple[str, str], dict[str, int]] = {
    ("GET", "/reports/"): OWN,
    ("GET", "/reports/<report_id:int>/"): SEEN,
    ("GET", "/users/"): OWN,
    ("GET", "/users/<username>/"): SEEN,
    ("DELETE", "/users/<username>/"): {**dict.fromkeys(CALLERS, 403), "root": 204},
    ("GET", "/users/<username>/reports/"): SEEN,
    ("GET", "/users/<username>/trends/"): SEEN,
    ("GET", "/users/<username>/access-log/"): SEEN,
    ("POST", "/reports/"): NOBODY,
    ("POST", "/sync/call/<method>/"): NOBODY,
    **dict.fromkeys((("GET", path) for path in ("/livez", "/readyz", "/healthz", "/metrics")), OPEN),
    ("GET", "/login/"): dict.fromkeys(OPEN, 401),  # without a name and a password
    ("POST", "/login/"): dict.fromkeys(OPEN, 401),
    ("POST", "/logout/"): dict.fromkeys(CALLERS, 204),
    ("GET", "/fhir/metadata/"): OPEN,
    **dict.fromkeys((("GET", f"/fhir/{kind}/<resource_id:fhir_id>/") for kind in FHIR_KINDS), SEEN),
    ("GET", "/fhir/Patient/<resource_id:fhir_id>/$everything/"): SEEN,
    ("GET", "/fhir/Patient/"): OWN,
    **{("GET", f"/fhir/{kind}/"): {**OWN, "dr.ayush": 400, "root": 400} for kind in FHIR_KINDS[1:3]},
    **dict.fromkeys((("POST", f"/fhir/{kind}/_search/") for kind in FHIR_KINDS[:3]), dict.fromkeys(CALLERS, 415)),
}
LOOKS = {"/reports/<report_id:int>/": "report", "/users/<username>/": "profile", "/users/<username>/reports/": "reports",
         "/users/<username>/trends/": "trends", "/users/<username>/access-log/": "access log"}  # fmt: skip


def filled(path: str, username: str = "bholanath", report_id: int = 1) -> str:
    path = path.replace("<method>", "identity")
    if "<resource_id:fhir_id>" in path:
        users = {each.username: str(each.subject) for each in User.select()}
        number = f"{report_id}-1" if "Observation" in path else str(report_id)
        path = path.replace("<resource_id:fhir_id>", users.get(username, "0") if "Patient" in path else number)
    return path.replace("<username>", username).replace("<report_id:int>", str(report_id))


def ask(browse: Caller, method: str, path: str, token: str, **options: Any) -> Any:
    body = {"username": "x", "password": "y"} if method == "POST" else None
    return browse(method, path, body, token=token, **options)


def test_the_specification_is_of_every_route() -> None:
    routed = {(verb.upper(), path) for path, view in VIEWS.items() for verb in view.verbs()}
    assert set(SPECIFICATION) == routed
    assert not any(set(view.verbs()) - {"get"} for view in PAGES.values())


@pytest.mark.parametrize("path", VIEWS)
def test_every_caller_gets_what_the_table_says(browse: Caller, log_in, path: str) -> None:
    for method in METHODS:
        expected = SPECIFICATION.get((method, path), dict.fromkeys(OPEN, 405))
        for caller in ("", *CALLERS):
            token = log_in(caller) if caller else ""
            answer = ask(browse, method, filled(path), token)
            assert answer.status_code == expected.get(caller, 401), (method, caller, answer.data)
            if answer.status_code >= 400:
                assert b"2026-11-0" not in answer.data
            elif method == "GET" and caller in ("savita", "tara", "runner"):
                assert b"bholanath" not in answer.data, caller


def bad_tokens(settings, log_in) -> dict[str, str]:
    """Tokens that are none, by what is wrong with them."""
    signer = Signer(load_secret(settings), 60)
    key, good = signer._key, log_in("root")
    subject = get_user("root").subject
    now = int(time.time())
    claims = {
        "iss": "myhealth-upload",
        "aud": "myhealth",
        "sub": str(subject),
        "iat": now,
        "exp": now + 60,
        "jti": uuid.uuid4().hex,
    }
    headers = {"kid": signer.jwk["kid"]}
    header, payload, signature = good.split(".")
    other = json.loads(base64.urlsafe_b64decode(payload + "=="))
    other["sub"] = str(get_user("bholanath").subject)
    swapped = base64.urlsafe_b64encode(json.dumps(other).encode()).rstrip(b"=").decode()
    public = base64.urlsafe_b64decode(signer.jwk["x"] + "==")

    def signed(**changes: Any) -> str:
        return jwt.encode(
            {k: v for k, v in {**claims, **changes}.items() if v is not None}, key, "EdDSA", headers=headers
        )

    return {
        "expired": signed(iat=now - 600, exp=now - 60),
        "without an end": signed(exp=None),
        "of another audience": signed(aud="another"),
        "of several audiences": signed(aud=["myhealth", "another"]),
        "of another issuer": signed(iss="another"),
        "of nobody": signed(sub=str(uuid.uuid4()), iat=now - 5000),
        "no subject of ours": signed(sub="1"),
        "tampered": f"{header}.{swapped}.{signature}",
        "cut": good[:-4],
        "without a signature": f"{header}.{payload}.",
        "alg none": jwt.encode(claims, None, "none", headers=headers),
        "signed with the public key": jwt.encode(claims, public + b"\0" * 32, "HS256", headers=headers),
        "another's key": Signer(b"another secret of 32 bytes or more", 60).sign(subject)[0],
    }  # fmt: skip


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
def test_a_token_that_is_none_opens_nothing(browse: Caller, log_in, settings) -> None:
    assert browse("GET", "/reports/", token=log_in("root")).status_code == 200, "the good one is remembered"
    for name, token in bad_tokens(settings, log_in).items():
        for (method, path), expected in SPECIFICATION.items():
            if "" not in expected:
                answer = ask(browse, method, filled(path), token)
                assert answer.status_code == 401, (name, method, path)
                assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert ask(browse, "GET", "/reports/", "", headers={"x-access-token": token}).status_code == 401
        assert ask(browse, "GET", f"/reports/?token={token}", "").status_code == 401


def test_a_disabled_user_and_an_ended_token_open_nothing(browse: Caller, log_in, settings, reports) -> None:
    tokens = {name: log_in(name) for name in ("dr.ayush", "bholanath", "root")}
    assert all(browse("GET", "/reports/", token=token).status_code == 200 for token in tokens.values())
    services.set_active("dr.ayush", False)
    services.revoke_tokens(get_user("root").id)
    erase_user("bholanath")
    run_pass(settings.database_url, ReportWriter(reports), settings)
    for name, token in tokens.items():
        for (method, path), expected in SPECIFICATION.items():
            if "" not in expected:
                answer = ask(browse, method, filled(path), token)
                allowed = (401, 503) if name == "bholanath" else (401,)  # who is not here may be on the way
                assert answer.status_code in allowed, (name, method, path)


@pytest.mark.parametrize("path", [path for (method, path), expected in SPECIFICATION.items() if expected == SEEN])
def test_what_one_may_not_see_is_as_if_it_were_not_there(browse: Caller, log_in, path: str) -> None:
    """The same answer, but for the name that was asked for; and noted alike, so that the time it takes tells nothing."""
    hidden = browse("GET", filled(path), token=log_in("savita"))
    absent = browse("GET", filled(path, "nobody", 999), token=log_in("savita"))
    assert hidden.status_code == absent.status_code == 404
    assert hidden.data.replace(b"bholanath", b"nobody") == absent.data
    assert {k for k, _ in hidden.headers} == {k for k, _ in absent.headers}
    for accept in ("text/csv", "application/fhir+json"):
        seen = browse("GET", filled(path), token=log_in("savita"), headers={"Accept": accept})
        assert seen.status_code in (404, 406)


def test_what_is_refused_is_noted_whether_it_is_there_or_not(browse: Caller, log_in, reports: ReportRepository) -> None:
    for username, report_id in (("bholanath", 1), ("nobody", 999)):
        for path in LOOKS:
            browse("GET", filled(path, username, report_id), token=log_in("savita"))
    noted = [(look.actor, look.action, look.outcome, look.username) for look in reports.access_log.find_events()]
    assert noted == [("savita", "refused", "refused", name) for name in ["bholanath"] * 5 + [None] * 5]
    assert browse("GET", "/users/bholanath/access-log/", token=log_in("bholanath")).json == []


@pytest.mark.parametrize("path", LOOKS)
def test_neither_does_the_time_tell(browse: Caller, log_in, reports: ReportRepository, path: str) -> None:
    """Whether it is there or not, MongoDB is asked as often."""
    asked, database = [], reports.state.database
    for username, report_id in (("bholanath", 1), ("nobody", 99)):
        database.command("profile", 2)
        assert browse("GET", filled(path, username, report_id), token=log_in("savita")).status_code == 404
        database.command("profile", 0)
        asked.append(sorted((each["op"], each["ns"]) for each in database["system.profile"].find()))
        database.drop_collection("system.profile")
    assert len(asked[0]) > 2
    assert asked[0] == asked[1]


def test_the_patient_sees_who_looked(browse: Caller, log_in) -> None:
    for path in LOOKS:
        browse("GET", filled(path), token=log_in("bholanath"))
        assert browse("GET", filled(path), token=log_in("dr.ayush")).status_code == 200
    log = browse("GET", "/users/bholanath/access-log/", token=log_in("bholanath")).json
    assert [(look["actor"], look["actor_role"], look["what"]) for look in log] == [
        ("dr.ayush", "doctor", what) for what in reversed(LOOKS.values())
    ]
    assert log[-1]["report_id"] == 1
    assert browse("GET", "/users/savita/access-log/", token=log_in("savita")).json == []
    for kind in ("text/csv", "application/fhir+json"):
        browse("GET", "/users/savita/reports/", token=log_in("root"), headers={"Accept": kind})
    assert [look["what"] for look in browse("GET", "/users/savita/access-log/", token=log_in("savita")).json] == [
        "export"
    ] * 2


@pytest.mark.parametrize("query", ["reports/?limit=0", "reports/?sort=x", "reports/?after=x", "reports/?from=x",
                                   "access-log/?limit=0", "access-log/?after=x", "trends/?code=8480-6&after=x"])  # fmt: skip
def test_what_is_no_question_is_no_look(browse: Caller, log_in, reports: ReportRepository, query: str) -> None:
    assert browse("GET", f"/users/bholanath/{query}", token=log_in("dr.ayush")).status_code == 400
    assert list(reports.access_log.find_events()) == []


def test_a_kept_trend_is_still_only_for_who_may_see_it(
    browse: Caller, log_in, reports: ReportRepository, people
) -> None:
    """A trend is kept for some seconds; who asks is looked at every time, and every look is noted."""
    path = "/users/bholanath/trends/?code=8480-6"
    first = browse("GET", path, token=log_in("bholanath"))
    assert len(first.json) == 3
    reports.reports.delete_one({"_id": 1})
    assert browse("GET", path, token=log_in("dr.ayush")).json == first.json, "it is kept"
    assert browse("GET", path, token=log_in("savita")).status_code == 404
    assert [look.actor for look in reports.access_log.find_events()] == ["dr.ayush", "savita"]
    assert len(browse("GET", f"{path}&limit=2", token=log_in("bholanath")).json) == 2
    assert len(browse("GET", path.replace("bholanath", "savita"), token=log_in("savita")).json) == 1
    reports.users.update_one({"_id": people["bholanath"]}, {"$set": {"active": False}})
    assert browse("GET", path, token=log_in("bholanath")).status_code == 401


def test_nothing_is_shown_that_cannot_be_noted(browse: Caller, log_in, reports: ReportRepository, settings) -> None:
    """MongoDB refuses to keep the event: then there is no answer either."""
    reports.access_log.collection.database.command("collMod", "audit_events", validator={"actor": {"$ne": "dr.ayush"}})
    assert browse("GET", "/reports/1/", token=log_in("root")).status_code == 200
    for path in LOOKS:
        answer = browse("GET", filled(path), token=log_in("dr.ayush"))
        assert answer.status_code >= 500
        assert b"2026-11" not in answer.data


def test_nobody_but_staff_finds_others_by_their_full_names(
    browse: Caller, log_in, reports: ReportRepository, settings
) -> None:
    services.set_full_name("bholanath", "Bholanath Joshi")
    services.set_full_name("savita", "Savita Joshi")
    run_pass(settings.database_url, ReportWriter(reports), settings)
    for caller, found in {"dr.ayush": ["bholanath", "savita"], "savita": ["savita"], "tara": [], "runner": []}.items():
        answer = browse("GET", "/users/?search=JOSHI", token=log_in(caller))
        assert [each["username"] for each in answer.json] == found, caller
    assert [(look.actor, look.what, look.username) for look in reports.access_log.find_events()] == [
        ("dr.ayush", "people", None)
    ]
    shown, path = [], "/users/?search=joshi&limit=1"
    while path:
        answer = browse("GET", path, token=log_in("root"))
        shown += [each["username"] for each in answer.json]
        path = answer.headers.get("Link", "").partition(">")[0].lstrip("<")
    assert shown == ["bholanath", "savita"]


OPERATORS = [
    '{"$ne": null}',
    "$ne",
    "[$ne]",
    "username[$ne]",
    "$where",
    ".*",
    "^",
    "bholanath\0",
    "'; return true; //",
    "a.b",
    "%",
]


@pytest.mark.parametrize("text", OPERATORS)
def test_operators_in_what_is_sent_do_nothing(browse: Caller, log_in, text: str) -> None:
    savita, doctor = log_in("savita"), log_in("dr.ayush")
    quoted = urllib.parse.quote(text, safe="")
    for token in (savita, doctor):
        for path in LOOKS:
            if "<username>" in path:
                assert browse("GET", filled(path, quoted), token=token).status_code == 404
        for name in ("type", "disease", "machine", "taken_by", "code"):
            answer = browse("GET", "/reports/", token=token, query_string={name: text})
            assert answer.status_code == 400 if "\0" in text else answer.json == []
        people = browse("GET", "/users/", token=token, query_string={"search": text})
        assert people.status_code == 400 if "\0" in text else people.json == []
    for name in ("type[$ne]", "$where", "patient_id", "subject", "type.$ne", "results.code", "limit[$gt]"):
        assert browse("GET", "/reports/", token=savita, query_string={name: "1"}).status_code == 400
    login = browse("POST", "/login/", {"username": {"$ne": None}, "password": {"$gt": ""}})
    assert login.status_code == 401


@pytest.mark.parametrize(("query", "found"), [("text=%C3%A9t%C3%A9", [1]), ("text=été".encode().decode("latin-1"), [1]), ("text=fine", [3, 2]),
                                              ("text=%E9t%E9", 400), ("text=a&text=b", 400), ("x=1", 400), ("&".join(f"a{i}=" for i in range(200)), 400)])  # fmt: skip
def test_parameters_are_utf_8_however_they_are_escaped(browse: Caller, log_in, reports, query: str, found: Any) -> None:
    reports.reports.update_one({"_id": 1}, {"$set": {"checkup_report": "L'été"}})
    environ = {"QUERY_STRING": query}
    answer = browse("GET", "/reports/", token=log_in("bholanath"), environ_overrides=environ)
    assert answer.status_code == found if isinstance(found, int) else [each["id"] for each in answer.json] == found


def test_a_deletion_is_the_upload_apis_with_the_callers_own_token(browse: Caller, log_in, stub, reports) -> None:
    token = log_in("root")
    assert browse("DELETE", "/users/bho%2Flanath%3F/", token=token).status_code == 404, "such a name is no one path"
    assert browse("DELETE", "/users/bho%3Flanath/", token=token).status_code == 204
    for name in (".", "%2E%2E"):
        assert browse("DELETE", f"/users/{name}/", token=token).status_code in (404, 405)
    assert stub[1] == [("/users/bho%3Flanath/", f"Bearer {token}")]
    assert [(look.actor, look.action) for look in reports.access_log.find_events()] == [("root", "user.delete")]
