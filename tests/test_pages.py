"""The pages: sessions, access, forms and errors."""

import base64
import dataclasses
import gzip
import html
import json
import re

import pytest
from support.clients import Caller
from support.factories import PASSWORD, take
from support.page_client import HOST, Browser, application_post, pages_of
from support.page_data import history
from werkzeug.test import Client

from myhealth.profiles.services import create_user, get_user
from myhealth.profiles.tokens import Signer, load_secret
from myhealth.reports.writer import ReportWriter
from myhealth.sync.runner import run_pass
from myhealth.sync.verify import verify
from wsgi.browse import make_app
from wsgi.browse_pages import people as people_pages
from wsgi.browse_pages.session import form_key
from wsgi.common.views import SECURITY_HEADERS


@pytest.mark.usefixtures("stored")
def test_one_logs_in_reads_and_logs_out(browser: Browser) -> None:
    answer = browser.get("/")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/my/")
    answer = browser.get("/my/")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/my/login")
    answer = browser.log_in("bholanath")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/my/")
    page = browser.get("/my/")
    assert page.status_code == 200
    assert page.text.count('class="row"') == 3
    assert "above the usual range" in page.text
    assert "Blood pressure" in page.text
    path = re.search(r'href="(/my/reports/\d+)"', page.text).group(1)
    report = browser.get(path)
    assert "ALL FINE. 128/82" in report.text
    assert "90 to 120 mmHg" in report.text
    answer = browser.submit(report, "/my/logout")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/my/login?said=out")
    assert browser.cookie() is None
    assert "You are logged out" in browser.get("/my/login?said=out").text
    to_login = browser.get(path).headers["Location"]
    assert to_login.startswith("/my/login?next=")
    assert "Please log in to see that page." in browser.get(to_login).text
    assert "Please log in" not in browser.get("/my/login").text


@pytest.mark.usefixtures("stored")
def test_every_page_keeps_its_headers_and_no_cache_keeps_the_page(browser: Browser) -> None:
    answers = [browser.get(path) for path in ("/my/login", "/my/", "/my/nothing")]
    browser.log_in("bholanath")
    answers += [browser.get(path) for path in [*pages_of(browser), "/my/nothing", "/my/reports/999999", "/my/?from=x"]]
    assert [answer.status_code for answer in answers] == [200, 303, 404, *[200] * 9, 404, 404, 400]
    for answer in answers:
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        if answer.status_code != 303:
            assert answer.mimetype in ("text/html", "text/csv")
            for name, value in SECURITY_HEADERS.items():
                assert answer.headers[name] == value
    policy = SECURITY_HEADERS["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy


SERVED_AT = [
    ("http://localhost:5001", {}, False),
    ("http://127.0.0.1:5001", {}, False),
    ("http://[::1]:5001", {}, False),
    ("http://clinic.example", {}, True),
    ("https://clinic.example", {}, True),
    ("http://localhost.example", {}, True),
    # nginx names us by our own address where nobody tells it otherwise
    ("http://127.0.0.1:5001", {"X-Forwarded-For": "192.0.2.7"}, True),
    ("http://127.0.0.1:5001", {"X-Forwarded-Proto": "https"}, True),
]


@pytest.mark.usefixtures("stored")
def test_the_sessions_cookie_is_for_this_server_alone(application) -> None:
    for base_url, headers, secure in SERVED_AT:
        name = "__Host-myhealth_session" if secure else "myhealth_session"
        page = Client(application).get("/my/login", base_url=base_url, headers=headers)
        key = re.search(r'name="form_key" value="(\w+)"', page.text).group(1)
        visitor = page.headers["Set-Cookie"].partition(";")[0]
        # werkzeug's client keeps no Secure cookie of an http:// address: sent by hand, as a proxy's backend gets it
        good = {"form_key": key, "username": "bholanath", "password": PASSWORD}
        answer = application_post(application, base_url, visitor, headers=headers, **good)
        assert answer.status_code == 303, base_url
        (cookie,) = [text for text in answer.headers.getlist("Set-Cookie") if text.startswith(f"{name}=")]
        attributes = {part.strip().lower() for part in cookie.split(";")[1:]}
        assert {"httponly", "samesite=strict", "path=/"} <= attributes
        (left_s,) = (int(part.removeprefix("max-age=")) for part in attributes if part.startswith("max-age="))
        assert 17_900 < left_s <= 18_000
        assert ("secure" in attributes) is secure, base_url
        assert not any(part.startswith("domain") for part in attributes)


@pytest.mark.usefixtures("stored")
def test_a_form_of_elsewhere_does_nothing(application, browser: Browser, log_in) -> None:
    token = log_in("bholanath")
    other = Browser(application)
    key = re.search(r'name="form_key" value="(\w+)"', other.get("/my/login").text).group(1)
    own = re.search(r'name="form_key" value="(\w+)"', browser.get("/my/login").text).group(1)
    assert own != key
    good = {"username": "bholanath", "password": PASSWORD}
    for fields in ({}, {"form_key": ""}, {"form_key": key}, {"form_key": "é" * 64}, {"form_key": own.upper()}):
        answer = browser.post("/my/login", **good, **fields)
        assert answer.status_code == 403, fields
        assert "cookie" in answer.text
        assert browser.cookie() is None
    answer = browser.post("/my/login", headers={"Sec-Fetch-Site": "cross-site"}, form_key=own, **good)
    assert answer.status_code == 403
    assert browser.post("/my/login", headers={"Sec-Fetch-Site": "same-origin"}, form_key=own, **good).status_code == 303
    for fields in ({}, {"form_key": own}, {"form_key": key}):
        answer = browser.post("/my/logout", **fields)
        assert answer.status_code == 403
        assert browser.get("/my/").status_code == 200
    answer = application_post(application, HOST, f"myhealth_session={token}", "/my/logout")
    assert answer.status_code == 403


@pytest.mark.usefixtures("stored")
def test_the_json_api_takes_no_cookie(browser: Browser) -> None:
    """A page elsewhere could have the browser send it."""
    browser.log_in("bholanath")
    assert browser.get("/my/").status_code == 200
    for path in ("/reports/", "/users/bholanath/reports/"):
        answer = browser.get(path, headers={"Accept": "text/html"})
        assert answer.status_code == 401
        assert answer.mimetype == "application/json"


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize("who", ["bholanath", "savita", "tara", "runner"])
def test_anothers_pages_are_as_if_they_were_not_there(application, who: str) -> None:
    browser, staff = Browser(application), Browser(application)
    staff.log_in("root")
    whose = "savita" if who != "savita" else "bholanath"
    number = re.search(r"/my/reports/(\d+)", staff.get(f"/my/patients/{whose}").text).group(1)
    browser.log_in(who)
    pairs = [
        (f"/my/reports/{number}", "/my/reports/999999"),
        ("/my/patients", "/my/nothing"),
        ("/my/to-review", "/my/nothing"),
    ]
    pairs += [
        (f"/my/patients/{whose}{page}", f"/my/patients/nobody{page}")
        for page in ("", "/trends", "/matrix", "/print", "/access-log", "/filter")
    ]
    for hidden, absent in pairs:
        answers = [browser.get(path) for path in (hidden, absent)]
        assert [answer.status_code for answer in answers] == [404, 404]
        without_keys = [re.sub('name="form_key" value="[0-9a-f]+"', "", answer.text) for answer in answers]
        assert without_keys[0] == without_keys[1]
        assert dict(answers[0].headers) == dict(answers[1].headers)
    assert browser.get("/my/access-log").text.count("root") == 0


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize("who", ["bholanath", "dr.ayush"])
def test_who_tries_pages_of_others_roles_is_noted(application, reports, who: str) -> None:
    browser = Browser(application)
    browser.log_in(who)
    number = re.search(r"/my/reports/(\d+)", browser.get("/my/patients/bholanath" if "." in who else "/my/").text)[1]
    tried = ["/my/accounts"]
    tried += ["/my/patients", "/my/to-review", f"/my/reports/{number}/history"] if who == "bholanath" else []
    assert {browser.get(path).status_code for path in tried} == {404}
    events = reports.access_log.find_events(actor=who, action="refused")
    assert [(event.what, event.outcome) for event in events] == [("account", "refused")] * len(tried)


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize("who", ["dr.ayush", "root"])
def test_staff_reads_a_patients_pages_and_the_patient_sees_that(application, who: str) -> None:
    staff, patient = Browser(application), Browser(application)
    staff.log_in(who)
    patient.log_in("bholanath")
    assert "Nobody else has looked" in patient.get("/my/access-log").text
    found = staff.get("/my/patients?q=bho").text
    assert 'href="/my/patients/bholanath"' in found
    assert "savita" not in found
    page = staff.get("/my/patients/bholanath").text
    assert "You are reading the record of" in page
    number = re.search(r"/my/reports/(\d+)", page).group(1)
    for path in (f"/my/reports/{number}", "/my/patients/bholanath/trends", "/my/patients/bholanath/matrix",
                 "/my/patients/bholanath/print", "/my/patients/bholanath/access-log"):  # fmt: skip
        assert staff.get(path).status_code == 200
    log = patient.get("/my/access-log").text
    assert log.count(who) == 7, "the search told of the last report"
    assert f'<a href="/my/reports/{number}">' in log
    assert "Nobody else has looked" in staff.get("/my/access-log").text


def test_a_doctor_finds_patients_by_name_page_by_page(application, people, settings, reports, monkeypatch) -> None:
    monkeypatch.setattr(people_pages, "PAGE", 2)
    doctor = Browser(application)
    for i, name in enumerate(["Anna Joshi", "Joshi Kumar", "Zoë Maria Joshi", "Somebody Else", "Dr. Joshi"]):
        create_user(f"p{i}", full_name=name, role="patient" if i < 4 else "doctor")
    create_user("joshi", full_name="  ")
    run_pass(settings.database_url, ReportWriter(reports), settings)
    doctor.log_in("dr.ayush")
    lists = {}
    for begin in ("/my/patients", "/my/patients?q=+JOSHI+"):
        seen, path = lists.setdefault(begin, []), begin
        while path:
            page = doctor.get(path).text
            seen.append(re.findall(r'href="/my/patients/([^"?]+)"><strong', page))
            found = re.search(r'href="([^"]+)" rel="next"', page)
            path = html.unescape(found.group(1)) if found else ""
    assert seen == [["joshi", "p1"], ["p0", "p2"]]
    by_name = [["p0", "p1"], ["p3", "p2"], ["bholanath", "joshi"], ["savita"]]
    assert lists["/my/patients"] == by_name, "those without a name are the last"
    assert '<strong dir="auto">joshi</strong>' in doctor.get("/my/patients?q=joshi").text
    assert 'value="JOSHI"' in page
    assert "Back to the first" in page
    assert "Nobody found" in doctor.get("/my/patients?q=nobody+like+that").text
    assert "Zoë" in doctor.get("/my/patients?q=zoe").text
    assert {(look.what, look.username) for look in reports.access_log.find_events(actor="dr.ayush")} == {
        ("people", None), *(("search", name) for name in ("joshi", "p0", "p1", "p2")),
    }  # fmt: skip
    assert doctor.get("/my/patients?after=x").status_code == 400


@pytest.mark.usefixtures("stored")
def test_a_session_that_has_ended_says_so_and_leads_back(browser: Browser, db, settings, reports) -> None:
    browser.log_in("bholanath")
    path = re.search(r'href="(/my/reports/\d+)"', browser.get("/my/").text).group(1)
    db("update users set tokens_valid_after = now() + interval '1 minute' where username = 'bholanath'")
    run_pass(settings.database_url, ReportWriter(reports), settings)
    answer = browser.get(path)
    assert answer.status_code == 303
    page = browser.get(answer.headers["Location"])
    assert "Your session has ended" in page.text
    assert browser.cookie() is None
    db("update users set tokens_valid_after = null where username = 'bholanath'")
    run_pass(settings.database_url, ReportWriter(reports), settings)
    answer = browser.submit(page, "/my/login", username="bholanath", password=PASSWORD)
    assert answer.headers["Location"] == path


@pytest.mark.usefixtures("stored")
def test_a_cookie_that_is_no_session_opens_nothing(application, settings, log_in, people) -> None:
    subject = get_user("bholanath").subject
    secret = load_secret(settings)
    good = log_in("bholanath")
    head, body, signature = good.split(".")
    none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').decode().rstrip("=")
    cookies = {
        "nonsense": "x",
        "three parts of it": "a.b.c",
        "not signed": f"{none}.{body}.",
        "tampered with": f"{head}.{body}.{'A' * len(signature)}",
        "signed by another": Signer(b"another secret of 32 bytes or more", 60).sign(subject)[0],
        "expired": Signer(secret, 60).sign(subject, 1_600_000_000)[0],
        "of nobody": Signer(secret, 60).sign("00000000-0000-0000-0000-000000000000", 1_600_000_000)[0],
        "endless": "x" * 5000,
        "beside an odd one": 'x; {"a": 1}=2; b',
    }
    for what, value in cookies.items():
        for path in ("/my/", "/my/print", "/my/download/csv", "/my/patients/savita"):
            answer = Client(application, use_cookies=False).get(
                path, base_url=HOST, headers={"Cookie": f"myhealth_session={value}"}
            )
            assert answer.status_code == 303, what
            assert answer.headers["Location"].startswith("/my/login"), what
            assert not answer.data
    odd = {"Cookie": f'{{"theirs": 1}}=2; myhealth_session={good}; c'}
    assert Client(application, use_cookies=False).get("/my/", base_url=HOST, headers=odd).status_code == 200


TARGETS = [
    "https://evil.example/", "//evil.example", "/my//evil.example", "/my/\\evil", "/my/x\r\nSet-Cookie: a=b",
    "javascript:alert(1)", "/reports/", "/my/logout", "/my/login?next=/my/", "/my/" + "x" * 2000, "/my/\u202eevil",
    "/my/../x", "/my/reports/..", "/my/%2E./x", "/my/./logout", "/my/x/.%2e?y", "/my/..#x",
]  # fmt: skip


@pytest.mark.usefixtures("stored")
def test_a_login_leads_nowhere_else(application) -> None:
    for target in TARGETS:
        browser = Browser(application)
        page = browser.get("/my/login")
        answer = browser.submit(page, "/my/login", username="bholanath", password=PASSWORD, next=target)
        assert answer.headers["Location"] == "/my/", target
    browser = Browser(application)
    answer = browser.submit(
        browser.get("/my/login"), "/my/login", username="bholanath", password=PASSWORD, next="/my/?text=5..6/.x"
    )
    assert answer.headers["Location"] == "/my/?text=5..6/.x"


def test_a_wrong_password_is_said_and_the_name_stays(browser: Browser, people) -> None:
    assert "No account yet, or the password is lost?" in browser.get("/my/login").text
    answer = browser.log_in("bholanath", "wrong")
    assert answer.status_code == 401
    assert "is not right" in answer.text
    assert 'value="bholanath"' in answer.text
    assert "wrong" not in re.findall(r'type="password"[^>]*', answer.text)[0]
    assert browser.cookie() is None


def test_a_throttled_login_is_asked_to_wait(browser: Browser, people) -> None:
    answers = [browser.log_in("bholanath", "wrong") for _ in range(12)]
    assert answers[0].status_code == 401
    assert answers[-1].status_code == 429
    assert re.search(r"too many attempts to log in; try again in \d+ minutes", answers[-1].text)
    elsewhere = browser.submit(browser.get("/my/login"), "/my/login", "192.0.2.7", username="bholanath", password="no")
    assert elsewhere.status_code == 401  # who guesses from elsewhere does not lock the patient out
    assert int(answers[-1].headers["Retry-After"]) > 1


@pytest.mark.parametrize(("status", "body"), [(503, b"{}"), (500, b"oops"), (200, b"<html>"), (200, b"[]")])
def test_an_upload_api_in_trouble_is_said_kindly(
    settings, reports, calling, answering, status: int, body: bytes
) -> None:
    browser = Browser(calling(make_app(dataclasses.replace(settings, auth_url=answering(status, body)))).application)
    answer = browser.log_in("bholanath")
    assert answer.status_code in (502, 503)
    assert "Logging in is not possible right now" in answer.text
    assert answer.headers["Retry-After"]


def test_a_store_that_is_away_is_said_kindly(settings, calling, upload, serving, log_in) -> None:
    away = dataclasses.replace(settings, auth_url=serving(upload.application), mongo_url="mongodb://127.0.0.1:9/myhealth_test?serverSelectionTimeoutMS=50")  # fmt: skip
    browser = Browser(calling(make_app(away)).application)
    browser.client.set_cookie("myhealth_session", log_in("bholanath"), domain="localhost")
    for path in ("/my/", "/my/reports/1", "/my/trends", "/my/login"):
        answer = browser.get(path)
        assert answer.status_code == 503
        assert "Nothing of yours is lost" in answer.text
        assert "Log out" in answer.text
        assert "127.0.0.1:9" not in answer.text
        assert answer.headers["Retry-After"]


def test_somebody_who_has_not_arrived_is_told_to_wait(browser: Browser, people) -> None:
    browser.log_in("bholanath")
    answer = browser.get("/my/")
    assert answer.status_code == 503
    assert "on their way" in answer.text


@pytest.mark.usefixtures("stored")
def test_logging_out_ends_the_token_itself(application, browser: Browser, upload: Caller, settings, reports) -> None:
    other, savita = Browser(application), Browser(application)
    for one, name in ((browser, "bholanath"), (other, "bholanath"), (savita, "savita")):
        one.log_in(name)
    token = browser.cookie().value
    assert upload("GET", "/users/bholanath/", token=token).status_code == 200
    answer = browser.submit(browser.get("/my/"), "/my/logout")
    assert answer.headers["Clear-Site-Data"] == '"cache"'
    assert upload("GET", "/users/bholanath/", token=token).status_code == 401
    # here too, and at once: not only when the sync has been
    assert other.get("/my/").status_code == 303
    kept = Browser(application)
    kept.client.set_cookie("myhealth_session", token, domain="localhost")
    assert kept.get("/my/").headers["Location"].startswith("/my/login")
    assert savita.get("/my/").status_code == 200
    browser.log_in("bholanath")
    assert browser.get("/my/").status_code == 200
    assert verified(settings, reports) == 0
    run_pass(settings.database_url, ReportWriter(reports), settings)
    assert verified(settings, reports) == 0


def verified(settings, reports) -> int:
    return verify(settings.database_url, ReportWriter(reports), 1000).differences


@pytest.mark.usefixtures("stored")
def test_where_the_upload_api_is_away_logging_out_is_honest(settings, reports, calling, answering, log_in) -> None:
    browser = Browser(calling(make_app(dataclasses.replace(settings, auth_url=answering(503, b"")))).application)
    token = log_in("bholanath")
    browser.client.set_cookie("myhealth_session", token, domain="localhost")
    answer = browser.post("/my/logout", form_key=form_key(token))
    assert answer.headers["Location"] == "/my/login?said=out-here"
    assert browser.cookie() is None
    assert "could not be reached" in browser.get("/my/login?said=out-here").text


def change_password(browser: Browser, current: str, new: str, again: str | None = None):
    page = browser.get("/my/password")
    return browser.submit(page, "/my/password", current=current, new=new, again=new if again is None else again)


def test_one_changes_ones_own_password(application, people, settings, reports) -> None:
    run_pass(settings.database_url, ReportWriter(reports), settings)
    browser, other = Browser(application), Browser(application)
    browser.log_in("bholanath")
    other.log_in("bholanath")
    assert 'href="/my/password"' in browser.get("/my/").text
    for current, new, again, told in (
        ("wrong", "another horse", None, "current password is not right"),
        (PASSWORD, "another horse", "another house", "typed in two different ways"),
        (PASSWORD, "short", None, "needs at least 8"),
        (PASSWORD, PASSWORD, None, "have already"),
        (PASSWORD, "x" * 73, None, "at most 72"),
    ):
        answer = change_password(browser, current, new, again)
        assert (answer.status_code, told in answer.text) == (400, True), told
        assert new not in answer.text
    answer = browser.post("/my/password", current=PASSWORD, new="another horse", again="another horse")
    assert answer.status_code == 403, "a form of another site"
    assert browser.get("/my/").status_code == 200
    answer = change_password(browser, PASSWORD, "another horse")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/my/login?said=password")
    assert browser.cookie() is None
    assert "Your password is changed" in browser.get("/my/login?said=password").text
    assert browser.log_in("bholanath").status_code == 401
    assert browser.log_in("bholanath", "another horse").status_code == 303
    assert other.get("/my/").status_code == 303, "the other device is logged out"


def test_guesses_at_the_current_password_are_slowed_down(browser: Browser, people, settings, reports) -> None:
    run_pass(settings.database_url, ReportWriter(reports), settings)
    browser.log_in("bholanath")
    answers = [change_password(browser, f"guess {i}", "another horse") for i in range(11)]
    assert [answer.status_code for answer in answers] == [400] * 10 + [429]
    assert "try again in 15 minutes" in answers[-1].text
    assert int(answers[-1].headers["Retry-After"]) > 1


def test_a_sick_upload_api_changes_no_password(people, settings, reports, calling, answering, log_in) -> None:
    """It serves its keys, and has no idea of a PUT."""
    run_pass(settings.database_url, ReportWriter(reports), settings)
    url = answering(200, json.dumps(Signer(load_secret(settings), 60).jwks()).encode())
    browser = Browser(calling(make_app(dataclasses.replace(settings, auth_url=url))).application)
    browser.client.set_cookie("myhealth_session", log_in("bholanath"), domain="localhost")
    answer = change_password(browser, PASSWORD, "another horse")
    assert (answer.status_code, "cannot be changed right now" in answer.text) == (502, True)
    assert int(answer.headers["Retry-After"]) > 0
    assert browser.get("/my/").status_code == 200


def test_pages_and_files_are_packed_for_who_takes_that(browser: Browser, people, settings, reports) -> None:
    take(*history("bholanath", 22))
    run_pass(settings.database_url, ReportWriter(reports), settings)
    browser.log_in("bholanath")
    for path in ("/my/", "/my/trends?code=8480-6", "/my/download/csv", "/my/download/fhir", "/static/pages.css"):
        plain, packed = browser.get(path), browser.get(path, headers={"Accept-Encoding": "gzip"})
        assert "Content-Encoding" not in plain.headers
        assert packed.headers["Content-Encoding"] == "gzip"
        assert len(packed.data) < len(plain.data) / 2
        without_keys = [re.sub(rb'"[0-9a-f]{80}"', b"", each) for each in (plain.data, gzip.decompress(packed.data))]
        assert without_keys[0] == without_keys[1]
    keys = [re.search(r'name="form_key" value="(\w+)"', browser.get("/my/").text).group(1) for _ in range(2)]
    assert keys[0][:16] != keys[1][:16]
    assert keys[0][16:] != keys[1][16:], "what is packed beside it tells nothing of it"
    assert browser.post("/my/logout", form_key=keys[0][:16] + keys[1][16:]).status_code == 403
    assert browser.post("/my/logout", form_key=keys[0]).status_code == 303


def test_a_browser_keeps_the_files_of_the_pages(browser: Browser) -> None:
    for path in ("/static/pages.css", "/static/pages.js", "/docs/docs.css"):
        first = browser.get(path)
        assert first.headers["Cache-Control"] == "no-cache"
        again = browser.get(path, headers={"If-None-Match": first.headers["ETag"]})
        assert (again.status_code, again.data, again.headers["ETag"]) == (304, b"", first.headers["ETag"])
        assert browser.get(path, headers={"If-None-Match": '"another"'}).data == first.data


@pytest.mark.usefixtures("stored")
def test_an_address_that_is_not_right_is_told_in_plain_words(application, browser: Browser) -> None:
    browser.log_in("bholanath")
    staff = Browser(application)
    staff.log_in("root")
    for path in ("/my/?after=x", "/my/access-log?after=x", "/my/trends?code=8480-6&after=x", "/my/?abnormal=maybe"):
        answer = browser.get(path)
        assert answer.status_code == 400
        assert "it may be mistyped or cut short" in answer.text
        assert "Link header" not in answer.text
        assert 'href="/my/access-log"' in answer.text, "an error page has the menus"
    for path in ("", "filter", "print", "download/csv", "trends", "access-log", "password", "reports/1"):
        assert browser.get(f"/my/{path}?unknown=1").status_code == 400
    assert staff.get("/my/patients?unknown=1").status_code == 400
    assert staff.get("/my/patients?q=&after=").status_code == 200
    assert "mistyped or cut short" in staff.get("/my/patients?after=x").text
    for path in (
        "?after=x",
        "/access-log?after=x",
        "/trends?code=8480-6&after=x",
        "/trends?months=99",
        "/trends?name=" + "x" * 501,
    ):
        assert staff.get(f"/my/patients/bholanath{path}").status_code == 400
    assert browser.get("/my/access-log").text.count("<time") == 0, "what shows nothing is no look"
    assert "The first day must be written like 2026-11-20." in browser.get("/my/?from=x").text


@pytest.mark.usefixtures("stored")
def test_the_earlier_address_of_the_access_log_redirects(application, browser: Browser) -> None:
    staff = Browser(application)
    browser.log_in("bholanath")
    staff.log_in("dr.ayush")
    for reader, old, new in (
        (browser, "/my/looks", "/my/access-log"),
        (browser, "/my/looks?after=x", "/my/access-log?after=x"),
        (staff, "/my/patients/bholanath/looks", "/my/patients/bholanath/access-log"),
    ):
        answer = reader.get(old)
        assert (answer.status_code, answer.headers["Location"]) == (301, new)
    assert staff.get("/my/patients/bholanath/access-log").status_code == 200
