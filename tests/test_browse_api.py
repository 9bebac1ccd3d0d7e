"""The browse API: people read their own reports, and nobody else's; PostgreSQL is never asked."""

import dataclasses
import json
import urllib.error
import urllib.request

import pytest
from support.clients import Caller, basic
from support.factories import PASSWORD, record, take
from support.servers import FixedAnswer, running_apis

from myhealth.profiles import services
from myhealth.profiles.tokens import Signer, load_secret
from myhealth.reports.writer import ReportWriter
from myhealth.sync.runner import run_pass
from wsgi.browse import make_app


@pytest.fixture
def browse(people, settings, reports, answering, calling) -> Caller:
    """The browse API on the test report store; the upload API's public key is served to it over HTTP."""
    jwks = Signer(load_secret(settings), 60).jwks()
    url = answering(200, json.dumps(jwks).encode())
    return calling(make_app(dataclasses.replace(settings, auth_url=url)))


@pytest.fixture
def stored(people, settings, reports) -> None:
    """Seven reports of Bholanath's, one of Savita's, in the report store."""
    days = [f"2026-11-{day:02}T09:00:00Z" for day in range(1, 8)]
    take(*[record(i, taken_at=day) for i, day in enumerate(days)], record(8, patient="savita"))
    run_pass(settings.database_url, ReportWriter(reports), settings)


@pytest.mark.usefixtures("stored")
def test_one_sees_ones_own_reports_newest_first(browse: Caller, log_in, people) -> None:
    for path in ("/reports/", "/reports", "/users/bholanath/reports/", "/users/BHOLANATH/reports"):
        answer = browse("GET", path, token=log_in("bholanath"))
        assert answer.status_code == 200
        assert answer.headers["Cache-Control"] == "no-store"
        mine = answer.json
        assert len(mine) == 7
        assert {report["username"] for report in mine} == {"bholanath"}
        assert [report["taken_at"] for report in mine] == sorted((r["taken_at"] for r in mine), reverse=True)
        assert mine[0]["taken_at"] == "2026-11-07T09:00:00Z"
        assert "_id" not in mine[0]
        assert mine[0]["results"] == record()["results"]
        assert mine[0]["abnormal"] is True


@pytest.mark.usefixtures("stored")
def test_pages_are_linked(browse: Caller, log_in) -> None:
    seen, path = [], "/reports/?limit=3"
    while path:
        answer = browse("GET", path, token=log_in("bholanath"))
        seen += [report["id"] for report in answer.json]
        link = answer.headers.get("Link", "")
        assert link == "" or link.endswith('; rel="next"')
        path = link.partition(">")[0].lstrip("<")
    assert len(seen) == len(set(seen)) == 7


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize("query", ["limit=0", "limit=501", "limit=x", "limit=-1", "limit=" + "9" * 50, "after=x", "after=1_x",
                                   "after=99999999999999999999_1", "after=1_99999999999999999999", "after=_"])  # fmt: skip
def test_a_wrong_page_is_a_400(browse: Caller, log_in, query: str) -> None:
    assert browse("GET", f"/reports/?{query}", token=log_in("bholanath")).status_code == 400


@pytest.mark.usefixtures("stored")
def test_anothers_report_is_as_if_it_were_not_there(browse: Caller, log_in) -> None:
    theirs = browse("GET", "/reports/", token=log_in("savita")).json[0]["id"]
    token = log_in("bholanath")
    hidden = browse("GET", f"/reports/{theirs}/", token=token)
    absent = browse("GET", "/reports/999999/", token=token)
    assert hidden.status_code == absent.status_code == 404
    assert hidden.data == absent.data
    for name in ("savita", "nobody", "tara", "$ne", "%00"):
        answer = browse("GET", f"/users/{name}/reports/", token=token)
        assert answer.status_code == 404
    assert browse("GET", "/reports/99999999999999999999999999/", token=token).status_code == 404


@pytest.mark.usefixtures("stored")
def test_without_a_token_there_is_nothing(browse: Caller, people, settings) -> None:
    foreign = Signer(b"another secret of 32 bytes or more", 60).sign(services.get_user("bholanath").subject)[0]
    for token in ("", "nonsense", foreign):
        answer = browse("GET", "/reports/", token=token)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.usefixtures("stored")
def test_a_disabled_user_is_out_with_the_next_sync(browse: Caller, log_in, settings, reports) -> None:
    token = log_in("bholanath")
    assert browse("GET", "/reports/", token=token).status_code == 200
    services.set_active("bholanath", False)
    run_pass(settings.database_url, ReportWriter(reports), settings)
    assert browse("GET", "/reports/", token=token).json["code"] == "token_ended"
    services.set_active("bholanath", True)
    run_pass(settings.database_url, ReportWriter(reports), settings)
    assert browse("GET", "/reports/", token=token).status_code == 401, "old tokens stay ended"
    assert browse("GET", "/reports/", token=log_in("bholanath")).status_code == 200


@pytest.mark.process
@pytest.mark.usefixtures("stored")
def test_browsing_works_while_postgresql_is_away(browse: Caller, log_in, postgres, db) -> None:
    from myhealth.common.database import database

    token = log_in("bholanath")
    database.close_all()
    postgres.stop()
    try:
        assert len(browse("GET", "/reports/", token=token).json) == 7
    finally:
        postgres.ensure()


# -- logging in through the upload API -------------------------------------------------------------------------------

CASES = {
    "wrong": ((401, b"{}"), 401, "wrong_credentials"),
    "unwell": ((503, b"{}"), 503, "unavailable"),
    "broken": ((500, b"oops"), 502, "bad_gateway"),
    "nonsense": ((200, b"<html>"), 502, "bad_gateway"),
    "other": ((200, b'{"a": 1}'), 502, "bad_gateway"),
    "a list": ((200, b"[]"), 502, "bad_gateway"),
}


@pytest.mark.parametrize("name", CASES)
def test_what_the_upload_api_says_to_a_login_is_told_apart(settings, reports, answering, calling, name: str) -> None:
    (status, body), expected, code = CASES[name]
    browse = calling(make_app(dataclasses.replace(settings, auth_url=answering(status, body))))
    answer = browse("GET", "/login/", headers=basic("bholanath", PASSWORD))
    assert (answer.status_code, answer.json["code"]) == (expected, code)


def test_an_upload_api_that_is_away_is_a_503(settings, reports, calling) -> None:
    browse = calling(make_app(dataclasses.replace(settings, auth_url="http://127.0.0.1:1")))
    for answer in (
        browse("POST", "/login/", {"username": "x", "password": "y"}),
        browse(
            "GET", "/reports/", token=Signer(load_secret(settings), 60).sign("0b9a1c1e-5a0e-4a5c-9b1f-3f3f0d6f7a11")[0]
        ),
    ):
        assert answer.status_code == 503
        assert answer.headers["Retry-After"]


def test_a_store_that_is_away_is_a_503(settings, calling) -> None:
    away = "mongodb://127.0.0.1:1/myhealth_test?serverSelectionTimeoutMS=100"
    browse = calling(make_app(dataclasses.replace(settings, mongo_url=away)))
    answer = browse("GET", "/healthz")
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]


def call(url: str, body: bytes | None = None, **headers: str) -> tuple[int, object]:
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.mark.process
def test_a_body_over_the_cap_is_a_413_under_gunicorn_too(people, db, settings, log_in) -> None:
    small = dataclasses.replace(settings, upload=dataclasses.replace(settings.upload, max_body_bytes=100_000))
    with running_apis(small) as (upload_url, _):
        headers = {"Authorization": f"Bearer {log_in('tara')}"}
        body = json.dumps([record(i) for i in range(400)]).encode()
        assert call(f"{upload_url}/checkups/", body, **headers)[0] == 413
        chunks = (body[i : i + 5000] for i in range(0, len(body), 5000))
        request = urllib.request.Request(f"{upload_url}/checkups/", data=chunks, headers=headers, method="POST")
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request)
        assert caught.value.code == 413
        caught.value.close()
        fitting = (json.dumps([record(1)]).encode() for _ in range(1))
        request = urllib.request.Request(f"{upload_url}/checkups/", data=fitting, headers=headers, method="POST")
        with urllib.request.urlopen(request) as answer:
            assert answer.status == 201
    assert db("select count(*) from checkups") == [(1,)]


@pytest.mark.usefixtures("stored")
def test_logging_out_ends_every_login_at_both_apis_at_once(upload: Caller, settings, serving, calling) -> None:
    browse = calling(make_app(dataclasses.replace(settings, auth_url=serving(upload.application))))
    credentials = {"username": "bholanath", "password": PASSWORD}
    one, other = (browse("POST", "/login/", credentials).json["token"] for _ in range(2))
    assert browse("POST", "/logout/", token=one).status_code == 204
    for token in (one, other):
        assert browse("GET", "/reports/", token=token).status_code == 401
        assert upload("GET", "/users/bholanath/", token=token).status_code == 401
    assert browse("POST", "/logout/", token=one).status_code == 401
    assert len(browse("GET", "/reports/", token=browse("POST", "/login/", credentials).json["token"]).json) == 7


@pytest.mark.usefixtures("stored")
def test_logging_out_where_the_upload_api_has_ended_the_login_ends_it_here_too(
    upload: Caller, settings, serving, calling
) -> None:
    browse = calling(make_app(dataclasses.replace(settings, auth_url=serving(upload.application))))
    token = browse("POST", "/login/", {"username": "bholanath", "password": PASSWORD}).json["token"]
    assert upload("POST", "/logout/", token=token).status_code == 204
    assert browse("GET", "/reports/", token=token).status_code == 200, "the sync has not brought it yet"
    assert browse("POST", "/logout/", token=token).status_code == 204
    assert browse("GET", "/reports/", token=token).status_code == 401


@pytest.mark.usefixtures("stored")
def test_logging_out_while_the_upload_api_is_away_says_so_and_ends_nothing(settings, calling, log_in, running) -> None:
    keys, token = json.dumps(Signer(load_secret(settings), 60).jwks()).encode(), log_in("bholanath")
    away = {"answer": (200, keys), "do_POST": lambda stub: stub.send_error(503)}
    browse = calling(make_app(dataclasses.replace(settings, auth_url=running(type("Away", (FixedAnswer,), away)))))
    answer = browse("POST", "/logout/", token=token)
    assert (answer.status_code, answer.json["code"]) == (503, "unavailable")
    assert "Retry-After" in answer.headers
    assert browse("GET", "/reports/", token=token).status_code == 200
