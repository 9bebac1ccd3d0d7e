"""Public addresses, cookies and links; requests that other sites make a browser send; headers of every answer."""

import dataclasses
import json
import re
from typing import Any

import pytest
from support.clients import Caller, basic
from support.factories import PASSWORD
from support.page_client import Browser
from werkzeug.test import Client

from wsgi import browse as browse_app
from wsgi import upload as upload_app

PUBLIC = "https://clinic.example"
LOGIN = {"username": "savita", "password": PASSWORD}
NEW = {"username": "new.one", "password": "a long password"}
FOREIGN = [{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "https://evil.example"}, {"Origin": "null"},
           {"Origin": "http://localhost.evil.example"}, {"Origin": "http://localhost:81"}]  # fmt: skip
OWN = [{}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}, {"Origin": "http://localhost"}, {"Origin": "https://localhost"},
       {"Sec-Fetch-Site": "same-origin", "Origin": "https://behind.a.plain.proxy"}]  # fmt: skip


@pytest.fixture
def published(settings: Any, reports: Any, upload: Any, serving: Any, calling: Any) -> Any:
    """Return a function that makes both APIs with these public addresses."""

    def make(upload_url: str = "", browse_url: str = "", **changes: Any) -> tuple[Caller, Caller]:
        named = dataclasses.replace(
            settings,
            upload=dataclasses.replace(settings.upload, public_url=upload_url),
            browse=dataclasses.replace(settings.browse, public_url=browse_url),
            auth_url=serving(upload.application),
            **changes,
        )
        return calling(upload_app.make_app(named)), calling(browse_app.make_app(named))

    return make


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize(
    ("public_url", "secure"),
    [(PUBLIC, True), ("HTTPS://clinic.example/", True), ("http://localhost:5001", False), ("", False)],
)
def test_cookies_are_secure_where_users_see_https(published: Any, public_url: str, secure: bool) -> None:
    """A proxy that forwards nothing but our own address, as nginx's `proxy_pass` alone does."""
    _, browse = published(browse_url=public_url)
    client = Client(browse.application, use_cookies=False)
    page = client.get("/my/login", base_url="http://127.0.0.1:5711")
    visitor = page.headers["Set-Cookie"]
    key = re.search(r'name="form_key" value="(\w+)"', page.text).group(1)
    sent = {"Cookie": visitor.partition(";")[0]}
    done = client.post("/my/login", base_url="http://127.0.0.1:5711", headers=sent, data={**LOGIN, "form_key": key})
    assert done.status_code == 303
    session = done.headers.getlist("Set-Cookie")[0]
    for cookie, name in ((visitor, "myhealth_visitor"), (session, "myhealth_session")):
        assert cookie.startswith(f"__Host-{name}=" if secure else f"{name}=")
        assert ("; Secure" in cookie) is secure


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize("public_url", [PUBLIC, f"{PUBLIC}/", ""])
def test_links_lead_to_the_public_address(published: Any, log_in: Any, public_url: str) -> None:
    upload, browse = published(public_url, public_url)
    base = PUBLIC if public_url else ""
    evil = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "ftp"}
    for call, path, name in ((browse, "/reports/?limit=1", "bholanath"), (upload, "/checkups/?limit=1", "dr.ayush")):
        link = call("GET", path, token=log_in(name), headers=evil).headers["Link"]
        assert link.startswith(f"<{base}{path.partition('?')[0]}?"), link
    headers = {**evil, "Accept": "application/fhir+json", "Host": "own.example"}
    for peer, believed in (("198.51.100.9", False), ("127.0.0.1", True)):
        options = {"headers": headers, "environ_overrides": {"REMOTE_ADDR": peer}}
        bundle = browse("GET", "/reports/?limit=1", token=log_in("bholanath"), **options).json
        (url,) = [link["url"] for link in bundle["link"] if link["relation"] == "next"]
        expected = PUBLIC if public_url else "http://evil.example" if believed else "http://own.example"
        assert url.startswith(f"{expected}/reports/?"), (peer, url)


def answers(upload: Caller, browse: Caller) -> Any:
    """Answers of every kind: JSON, pages, files, errors of views, of routing and of the application."""
    for call in (upload, browse):
        for method, path in (("GET", "/healthz"), ("GET", "/openapi.json"), ("GET", "/docs/"), ("GET", "/users/"),
                             ("POST", "/login/"), ("GET", "/nothing"), ("DELETE", "/login/"), ("GET", "/%ff")):  # fmt: skip
            yield call(method, path)
    yield upload("GET", "/")
    yield upload("GET", "/static/upload.js")
    yield upload("GET", "/metrics")
    yield browse("GET", "/my/login")
    yield browse("GET", "/my/")
    yield browse("GET", "/my/static/pages.css")
    yield browse("POST", "/login/", LOGIN, headers={"Sec-Fetch-Site": "cross-site"})


@pytest.mark.usefixtures("stored")
def test_every_answer_has_nosniff_and_with_a_public_https_address_hsts(published: Any) -> None:
    for url, hsts in ((PUBLIC, "max-age=31536000"), ("http://localhost", None), ("", None)):
        for answer in answers(*published(url, url)):
            assert answer.headers.getlist("X-Content-Type-Options") == ["nosniff"], answer.request.path
            assert answer.headers.get("Strict-Transport-Security") == hsts, answer.request.path


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain;application/json", "application/jsonp", "TEXT/PLAIN"])  # fmt: skip
def test_a_login_or_account_is_json_with_its_media_type(
    upload: Caller, browse: Caller, db: Any, media_type: str
) -> None:
    body = json.dumps(LOGIN).encode()
    for call in (upload, browse):
        answer = call("POST", "/login/", body, headers={"Content-Type": media_type})
        assert (answer.status_code, answer.json["code"]) == (415, "unsupported_media_type")
    answer = upload("POST", "/registration/", json.dumps(NEW).encode(), headers={"Content-Type": media_type})
    assert answer.status_code == 415
    assert db("select count(*) from users where username = 'new.one'") == [(0,)]
    assert db("select count(*) from login_attempts") == [(0,)]


@pytest.mark.usefixtures("people")
@pytest.mark.parametrize("media_type", [None, "application/json", "Application/JSON; charset=utf-8", "application/x.y+json"])  # fmt: skip
def test_todays_clients_log_in_and_register(upload: Caller, media_type: str | None) -> None:
    headers = {"Content-Type": media_type} if media_type else {}
    assert upload("POST", "/login/", json.dumps(LOGIN).encode(), headers=headers).status_code == 200
    assert upload("POST", "/registration/", json.dumps(NEW).encode(), headers=headers).status_code == 201


@pytest.mark.parametrize("foreign", FOREIGN)
def test_a_page_of_another_site_does_nothing(
    upload: Caller, browse: Caller, db: Any, log_in: Any, foreign: Any
) -> None:
    calls = [(upload, "POST", "/login/", LOGIN), (browse, "POST", "/login", LOGIN), (upload, "POST", "/registration/", NEW),
             (upload, "POST", "/reports/", []), (browse, "POST", "/reports/", []), (browse, "POST", "/logout/", None),
             (upload, "PUT", "/users/savita/", {}), (upload, "DELETE", "/users/savita/", None)]  # fmt: skip
    for call, method, path, body in calls:
        answer = call(method, path, body, headers=foreign)
        assert (answer.status_code, answer.json["code"]) == (403, "cross_site"), (method, path)
    for call in (upload, browse):  # a link with a name and a password in it
        assert call("GET", "/login/", headers={**basic("savita", "wrong"), **foreign}).status_code == 403
    assert db("select count(*) from login_attempts") == [(0,)]
    assert db("select count(*) from users where username = 'new.one'") == [(0,)]
    # a foreign page cannot add a token; a program of another origin that has one may call
    token = log_in("savita")
    assert upload("PUT", "/users/savita/", {"full_name": "S"}, token=token, headers=foreign).status_code == 200
    assert browse("GET", "/reports/", token=token, headers=foreign).status_code == 200


@pytest.mark.usefixtures("people")
@pytest.mark.parametrize("own", OWN)
def test_ones_own_page_may_call(upload: Caller, own: dict[str, str]) -> None:
    assert upload("POST", "/login/", LOGIN, headers=own).status_code == 200


@pytest.mark.usefixtures("people")
@pytest.mark.parametrize(("origin", "status"), [(PUBLIC, 200), (f"{PUBLIC}:443", 403), ("http://clinic.example", 403), ("http://localhost", 403)])  # fmt: skip
def test_with_a_public_address_only_that_is_ones_own(published: Any, origin: str, status: int) -> None:
    upload, _ = published(PUBLIC)
    assert upload("POST", "/login/", LOGIN, headers={"Origin": origin}).status_code == status


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize("foreign", [each for each in FOREIGN if each != {"Origin": "null"}])
def test_a_form_of_another_site_changes_nothing_on_the_pages(application: Any, foreign: dict[str, str]) -> None:
    browser = Browser(application)
    key = re.search(r'name="form_key" value="(\w+)"', browser.get("/my/login").text).group(1)
    assert browser.post("/my/login", headers=foreign, form_key=key, **LOGIN).status_code == 403
    # browsers send "null" with the forms of pages that give no referrer, as ours
    assert browser.post("/my/login", headers={"Origin": "null"}, form_key=key, **LOGIN).status_code == 303


READ = ["/users/", "/users/bholanath/", "/users/bholanath/checkups/", "/users/bholanath/checkups/1/", "/checkups/",
        "/reports/", "/machines/", "/login/"]  # fmt: skip


@pytest.mark.usefixtures("two_checkups")
@pytest.mark.parametrize("path", READ)
def test_the_upload_api_refuses_unknown_and_doubled_parameters(upload: Caller, log_in: Any, path: str) -> None:
    token = log_in("tara" if path == "/machines/" else "dr.ayush")
    credentials = {"headers": basic("tara", PASSWORD)} if path == "/login/" else {"token": token}
    assert upload("GET", path, **credentials).status_code == 200
    for query, said in (("limti=1", "limti"), ("limit=1&limit=2", "limit"), ("x=1", "x"), ("a=%FF", "not UTF-8")):
        answer = upload("GET", path, query_string=query, **credentials)
        assert answer.status_code == 400, query
        assert said in answer.json["details"]


@pytest.mark.usefixtures("people")
def test_an_upload_with_a_doubled_parameter_stores_nothing(upload: Caller, log_in: Any, db: Any) -> None:
    answer = upload("POST", "/checkups/", [{}], query_string="atomic=true&atomic=false", token=log_in("tara"))
    assert answer.status_code == 400
    assert db("select count(*) from rejections") == [(0,)]
