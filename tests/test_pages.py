"""The pages for people: what they show, to whom, and what they never do."""

import base64
import csv
import dataclasses
import gzip
import html
import io
import json
import re
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, unquote

import pytest
from support.clients import Caller
from support.factories import PASSWORD, record, take
from support.page_data import history, result, sixty, temperatures, varied
from werkzeug.test import Client

from myhealth.checkups.models import Checkup
from myhealth.intake.formats.detect import read_dump
from myhealth.intake.pipeline import Intake
from myhealth.intake.results import ImportSource
from myhealth.profiles.services import create_user, get_user, set_active, set_full_name
from myhealth.profiles.tokens import Signer, load_secret
from myhealth.reports.access_log import find_access_events, log_command_access
from myhealth.reports.writer import ReportWriter
from myhealth.sync.runner import run_pass
from myhealth.sync.verify import verify
from wsgi.browse import make_app
from wsgi.browse_pages import charts, result_view, trends
from wsgi.browse_pages import people as people_pages
from wsgi.browse_pages import reports as report_pages
from wsgi.browse_pages.session import form_key
from wsgi.common.pages import SECURITY_HEADERS

HOST = "http://localhost"


class Browser:
    """A browser without JavaScript: keeps cookies, follows links and sends forms with what they hold."""

    def __init__(self, application, base_url: str = HOST) -> None:
        self.client = Client(application)
        self.base_url = base_url

    def get(self, path: str, **options):
        return self.client.get(path, base_url=self.base_url, **options)

    def submit(self, page, action: str, address: str = "", **fields):
        """Sends the form of that action, as the page has it, with these fields changed."""
        form = re.search(rf'<form[^>]*action="{re.escape(action)}".*?</form>', page.text, re.DOTALL).group()
        held = dict(re.findall(r'<input[^>]*name="(\w+)"[^>]*value="([^"]*)"', form))
        return self.post(
            action, address=address, **{name: html.unescape(value) for name, value in held.items()} | fields
        )

    def post(self, path: str, headers=None, address: str = "", **fields):
        environ = {"REMOTE_ADDR": address} if address else {}
        return self.client.post(path, data=fields, base_url=self.base_url, headers=headers, environ_overrides=environ)

    def log_in(self, username: str, password: str = PASSWORD):
        return self.submit(self.get("/my/login"), "/my/login", username=username, password=password)

    def cookie(self, name: str = "myhealth_session"):
        return self.client.get_cookie(name, domain=self.base_url.partition("//")[2].partition(":")[0])


@pytest.fixture
def application(upload: Caller, settings, reports, serving, calling):
    """The browse API's application, whose logins a real upload API over HTTP checks."""
    return calling(make_app(dataclasses.replace(settings, auth_url=serving(upload.application)))).application


@pytest.fixture
def browser(application) -> Browser:
    return Browser(application)


@pytest.fixture
def stored(people, settings, reports) -> None:
    """Three reports of Bholanath's, one of Savita's, in the report store."""
    take(*[record(i, taken_at=f"2026-11-{i + 1:02}T09:00:00Z") for i in range(3)], record(8, patient="savita"))
    run_pass(settings.database_url, ReportWriter(reports), settings)


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
    assert page.text.count('class="card"') == 3
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


def pages_of(browser: Browser) -> list[str]:
    """Every page of one's own, by its address."""
    number = re.search(r"/my/reports/(\d+)", browser.get("/my/").text).group(1)
    return ["/my/", f"/my/reports/{number}", "/my/trends", "/my/trends?code=8480-6", "/my/print", "/my/looks", "/my/filter", "/my/download/csv",
            "/my/?abnormal=true&text=fine&from=2026-01-01&to=2026-12-31&type=BLOOD+PRESSURE&code=8480-6"]  # fmt: skip


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


def application_post(application, base_url: str, cookie: str, path: str = "/my/login", headers=None, **fields):
    client = Client(application, use_cookies=False)
    return client.post(path, base_url=base_url, data=fields, headers={"Cookie": cookie, **(headers or {})})


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
    pairs = [(f"/my/reports/{number}", "/my/reports/999999"), ("/my/patients", "/my/nothing")]
    pairs += [
        (f"/my/patients/{whose}{page}", f"/my/patients/nobody{page}")
        for page in ("", "/trends", "/print", "/looks", "/filter")
    ]
    for hidden, absent in pairs:
        answers = [browser.get(path) for path in (hidden, absent)]
        assert [answer.status_code for answer in answers] == [404, 404]
        assert answers[0].data == answers[1].data
        assert dict(answers[0].headers) == dict(answers[1].headers)
    assert browser.get("/my/looks").text.count("root") == 0


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize("who", ["dr.ayush", "root"])
def test_staff_reads_a_patients_pages_and_the_patient_sees_that(application, who: str) -> None:
    staff, patient = Browser(application), Browser(application)
    staff.log_in(who)
    patient.log_in("bholanath")
    assert "Nobody else has looked" in patient.get("/my/looks").text
    found = staff.get("/my/patients?q=bho").text
    assert 'href="/my/patients/bholanath"' in found
    assert "savita" not in found
    page = staff.get("/my/patients/bholanath").text
    assert "You are reading the record of" in page
    number = re.search(r"/my/reports/(\d+)", page).group(1)
    for path in (f"/my/reports/{number}", "/my/patients/bholanath/trends", "/my/patients/bholanath/print",
                 "/my/patients/bholanath/looks"):  # fmt: skip
        assert staff.get(path).status_code == 200
    log = patient.get("/my/looks").text
    assert log.count(who) == 5
    assert f'<a href="/my/reports/{number}">' in log
    assert "Nobody else has looked" in staff.get("/my/looks").text


def test_a_doctor_finds_patients_by_name_page_by_page(application, people, settings, reports, monkeypatch) -> None:
    monkeypatch.setattr(people_pages, "PAGE", 2)
    doctor = Browser(application)
    for i, name in enumerate(["Anna Joshi", "Joshi Kumar", "Zoë Maria Joshi", "Somebody Else", "Dr. Joshi"]):
        create_user(f"p{i}", full_name=name, role="patient" if i < 4 else "doctor")
    create_user("joshi", full_name="  ")
    run_pass(settings.database_url, ReportWriter(reports), settings)
    doctor.log_in("dr.ayush")
    seen, path, page = [], "/my/patients?q=+JOSHI+", None
    while path:
        page = doctor.get(path).text
        seen.append(re.findall(r'href="/my/patients/([^"?]+)"><strong', page))
        found = re.search(r'href="([^"]+)" rel="next"', page)
        path = html.unescape(found.group(1)) if found else ""
    assert seen == [["joshi", "p1"], ["p0", "p2"]]
    assert '<strong dir="auto">joshi</strong>' in doctor.get("/my/patients?q=joshi").text
    assert 'value="JOSHI"' in page
    assert "Back to the first" in page
    assert "Nobody found" in doctor.get("/my/patients?q=nobody+like+that").text
    assert "Zoë" in doctor.get("/my/patients?q=zoe").text
    assert {(look.what, look.username) for look in find_access_events(reports, actor="dr.ayush")} == {("people", None)}
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
]  # fmt: skip


@pytest.mark.usefixtures("stored")
def test_a_login_leads_nowhere_else(application) -> None:
    for target in TARGETS:
        browser = Browser(application)
        page = browser.get("/my/login")
        answer = browser.submit(page, "/my/login", username="bholanath", password=PASSWORD, next=target)
        assert answer.headers["Location"] == "/my/", target


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


def test_whatever_is_written_stays_text(application, people, settings, reports) -> None:
    """Every field of a report, of a person and of an address carries markup, and nothing of it becomes any."""
    from support.page_data import XSS

    set_full_name("bholanath", XSS)
    take(*varied("bholanath"), *[record(f"x{i}", results=[{"name": XSS, "value": i, "unit": XSS}]) for i in range(3)])
    run_pass(settings.database_url, ReportWriter(reports), settings)
    browser, staff = Browser(application), Browser(application)
    browser.log_in("bholanath")
    staff.log_in("root")
    numbers = re.findall(r"/my/reports/(\d+)", browser.get("/my/").text)
    asked = quote(XSS)
    paths = [f"/my/reports/{number}" for number in numbers]
    paths += ["/my/", "/my/trends", f"/my/trends?name={asked}", "/my/print", f"/my/?text={asked}&type={asked}&code={asked}", f"/my/{asked}", f"/my/?from={asked}", f"/my/?after={asked}", f"/my/trends?code={asked}"]  # fmt: skip
    answers = [browser.get(path) for path in paths]
    answers += [browser.get(f"/my/login?next={asked}&said={asked}")]
    fresh = Browser(application)
    answers += [fresh.get(f"/my/login?next={asked}&said={asked}"), fresh.log_in(XSS, XSS)]
    answers += [staff.get(path) for path in (f"/my/patients?q={asked}", f"/my/patients/{asked}", "/my/patients/bholanath", "/my/patients?q=bhola")]  # fmt: skip
    for answer in answers:
        assert answer.status_code < 500
        body = answer.text
        assert "<script>" not in body
        assert "<img" not in body
        assert "onerror=alert" not in re.sub(r">[^<]*<", "><", re.sub(r'"[^"]*"', '""', body))
        assert "{{49}}" not in body
        assert ">49<" not in body
        assert "style=" not in re.sub(r'"[^"]*"', '""', body)
    assert any("&lt;script&gt;" in answer.text for answer in answers)


def test_odd_values_show_well(browser: Browser, people, settings, reports) -> None:
    take(*varied("bholanath"))
    run_pass(settings.database_url, ReportWriter(reports), settings)
    browser.log_in("bholanath")
    numbers = re.findall(r'"/my/reports/(\d+)"', browser.get("/my/").text)
    text = "".join(browser.get(f"/my/reports/{number}").text for number in numbers)
    plain = re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", "", text)))
    for expected in ("1:128", "<5 mg/L", "<3 mg/dL ▼ below the usual range", "<1000 µg/L – cannot be compared with the range", "up to 5 mg/L", "negative",
                     "marked as usual", "6.8 ×10³/µL", "150 to 400 ×10³/µL", "2.31 µIU/mL", "88 mL/min/1.73 m²", "60 mL/min/1.73 m² or more",
                     "far above the usual range", "No growth after 48 hours.", "血糖（空腹） 5.4 mmol/L",
                     "The machine itself marked this value as usual.", "تم الفحص"):  # fmt: skip
        assert expected in plain, expected


def test_filters_show_what_was_asked_for(browser: Browser, people, settings, reports) -> None:
    take(*history("bholanath", 22), *varied("bholanath"))
    run_pass(settings.database_url, ReportWriter(reports), settings)
    browser.log_in("bholanath")

    def shown(query: str) -> list[str]:
        return re.findall(r'<h2><a href="/my/reports/(\d+)"', browser.get(f"/my/?{query}").text)

    first = browser.get("/my/").text
    older = html.unescape(re.search(r'class="button" href="([^"]+)" rel="next"', first).group(1))
    both = shown("") + shown(older.partition("?")[2])
    assert len(both) == len(set(both)) == 26
    assert len(shown("type=BLOOD+COUNT")) == 1
    for path in ("/my/", "/my/print"):
        assert "with the measurement Hemoglobin" in browser.get(f"{path}?code=718-7").text
        assert "with the measurement 718-8" in browser.get(f"{path}?code=718-8").text
    assert len(shown("text=sinus+RHYTHM")) == 1
    assert len(shown("code=718-7")) == 1
    assert shown("text=nowhere+to+be+found") == []
    assert "No report matches" in browser.get("/my/?text=nowhere+to+be+found").text
    for path in ("/my/", "/my/print"):
        assert "Perhaps they are swapped" in browser.get(f"{path}?from=2026-11-21&to=2026-11-20").text
        assert "swapped" not in browser.get(f"{path}?from=2027-11-20&to=2027-11-20").text
    assert len(shown("from=2026-11-20&to=2026-11-20")) == 1
    assert shown("from=2026-11-22") == []
    assert 0 < len(shown("abnormal=true&from=2026-11-01")) < 4


def test_a_long_trend_goes_on_to_its_first_value(browser: Browser, people, settings, reports, monkeypatch) -> None:
    monkeypatch.setattr(trends, "REPORTS_MAX", 2)
    take(*history("bholanath", 4))
    run_pass(settings.database_url, ReportWriter(reports), settings)
    browser.log_in("bholanath")
    seen, path = [], "/my/trends?code=8480-6"
    while path:
        page = browser.get(path).text
        seen.append(re.findall(r'<th scope="row"><a class="nowrap" href="/my/reports/(\d+)"', page))
        found = re.search(r'href="([^"]+)" rel="next"', page)
        assert ("2 values, the newest first; there are earlier ones" in page) == (found is not None)
        path = html.unescape(found.group(1)) if found else ""
    assert [len(page) for page in seen] == [2, 2]
    assert len({number for page in seen for number in page}) == 4


def test_values_of_one_day_are_told_apart_by_their_time(browser: Browser, people, settings, reports) -> None:
    times = ("2026-11-20T03:44:00Z", "2026-11-20T12:00:00Z", "2026-11-20T14:05:00Z", "2026-11-21T09:00:00Z")
    take(*[record(i, taken_at=at) for i, at in enumerate(times)])
    run_pass(settings.database_url, ReportWriter(reports), settings)
    browser.log_in("bholanath")
    rows = re.findall(r'<th scope="row"><a [^>]*>(.*?)</a>', browser.get("/my/trends?code=8480-6").text)
    # noon UTC may stand for a day of which no more is known
    assert [" ".join(re.sub("<[^>]+>", "", row).split()) for row in rows] == ["21 Nov 2026", "20 Nov 2026 14:05", "20 Nov 2026", "20 Nov 2026 03:44"]  # fmt: skip


def test_a_page_for_paper_says_what_it_leaves_out(browser: Browser, people, settings, reports, monkeypatch) -> None:
    take(*history("bholanath", 4))
    run_pass(settings.database_url, ReportWriter(reports), settings)
    browser.log_in("bholanath")
    assert "Only reports" not in browser.get("/my/print").text
    some = browser.get("/my/print?from=2024-11-04&text=fine").text
    assert "with the words “fine”, from 4 November 2024" in some
    monkeypatch.setattr(report_pages, "PRINT_MAX", 2)
    assert "Only the newest 2 are here" in browser.get("/my/print").text


def test_downloads_hold_all_that_was_asked_for_and_are_for_the_same_eyes(
    application, people, settings, reports
) -> None:
    take(*history("bholanath", 22), *varied("bholanath"), record("s", "savita"))
    run_pass(settings.database_url, ReportWriter(reports), settings)
    browser, other, staff = (Browser(application) for _ in range(3))
    browser.log_in("bholanath")
    page = browser.get("/my/?type=BLOOD+PRESSURE").text
    table, bundle = (html.unescape(path) for path in re.findall(r'href="([^"]+)" download', page))
    answer = browser.get(table)
    told = answer.headers["Content-Disposition"]
    assert re.fullmatch(
        r"attachment; filename=\"(health-reports-bholanath-\d{4}-\d\d-\d\d\.csv)\"; filename\*=UTF-8''\1", told
    )
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.data.startswith("\ufeffid,username,taken_at".encode())
    rows = list(csv.DictReader(io.StringIO(answer.text.removeprefix("\ufeff"))))
    assert len(rows) == 44
    assert {row["checkup_type"] for row in rows} == {"BLOOD PRESSURE"}
    found = json.loads(browser.get(bundle).data)
    assert found["resourceType"] == "Bundle"
    kinds = [entry["resource"]["resourceType"] for entry in found["entry"]]
    assert (kinds.count("DiagnosticReport"), kinds.count("Observation")) == (22, 44)
    whole = browser.get("/my/download/csv").text
    assert "تم الفحص" in whole
    assert "savita" not in whole
    number = rows[0]["id"]
    one = browser.get(f"/my/reports/{number}/download/csv")
    assert one.text.count(f"\r\n{number},bholanath") == 2
    other.log_in("savita")
    hidden = [
        f"/my/reports/{number}/download/csv",
        f"/my/reports/{number}/download/fhir",
        "/my/patients/bholanath/download/csv",
    ]
    for path in [*hidden, "/my/download/pdf"]:
        assert other.get(path).status_code == 404
    staff.log_in("dr.ayush")
    for path in hidden:
        assert staff.get(path).status_code == 200
    assert browser.get("/my/looks").text.count("dr.ayush") == 3


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


def test_a_long_trend_is_shown_for_some_time_only(browser: Browser, people, settings, reports) -> None:
    now = datetime.now(UTC)
    ages = [*range(5, 75, 10), 200, 300, 700, 800, 3000, 4000]
    take(*[record(i, taken_at=(now - timedelta(days=days)).isoformat()) for i, days in enumerate(ages)])
    take(record("old", taken_at="2020-01-01T00:00:00Z", results=[result("Grip", 40, "kg")]))
    run_pass(settings.database_url, ReportWriter(reports), settings)
    browser.log_in("bholanath")
    whole = browser.get("/my/trends?code=8480-6").text
    nav = re.search(r'<nav class="screen" aria-label="Which values">.*?</nav>', whole, re.DOTALL).group()
    counts = {}
    for path in map(html.unescape, re.findall(r'href="([^"]+)"', nav)):
        counts[path] = browser.get(path).text.count('<th scope="row">')
    assert list(counts.values()) == [13, 11, 9, 7]
    assert "Which values" not in browser.get("/my/trends?name=Grip").text, "few values need no choice"
    none = browser.get("/my/trends?name=Grip&months=3")
    assert none.status_code == 200
    assert "The newest value is of 1 January 2020." in none.text
    assert browser.get("/my/trends?name=Nothing&months=3").status_code == 404
    for wrong in ("x", "-3", "4", "3.0"):
        assert browser.get(f"/my/trends?code=8480-6&months={wrong}").status_code == 400


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


def test_files_and_windows_of_several_patients_are_known_apart(application, people, settings, reports) -> None:
    create_user('सविता"x', full_name="Savita D.")
    take(record(1, 'सविता"x'), record(2))
    run_pass(settings.database_url, ReportWriter(reports), settings)
    doctor = Browser(application)
    doctor.log_in("dr.ayush")
    path = "/my/patients/" + quote('सविता"x')
    told = doctor.get(f"{path}/download/fhir").headers["Content-Disposition"]
    assert re.match(r'attachment; filename="health-reports-_+x-[\d-]+\.json"; filename\*=UTF-8', told)
    assert unquote(told.partition("''")[2]).startswith('health-reports-सविता"x-')
    assert "<title>Reports · Savita D. · MyHealth</title>" in doctor.get(path).text
    assert "<title>Trends · bholanath · MyHealth</title>" in doctor.get("/my/patients/bholanath/trends").text
    patient = Browser(application)
    patient.log_in("bholanath")
    assert "<title>My reports · MyHealth</title>" in patient.get("/my/").text


def test_a_day_is_the_sites_day(people, settings, reports, calling, upload, serving) -> None:
    take(record(1, taken_at="2026-11-20T19:00:00Z"))  # the 21st in India
    run_pass(settings.database_url, ReportWriter(reports), settings)
    indian = dataclasses.replace(settings, time_zone="Asia/Kolkata", auth_url=serving(upload.application))
    browser = Browser(calling(make_app(indian)).application)
    browser.log_in("bholanath")
    assert "21 November 2026, 00:30" in browser.get("/my/").text
    assert "Asia/Kolkata" in browser.get("/my/").text
    assert "21 November 2026" in browser.get("/my/?from=2026-11-21&to=2026-11-21").text
    assert "No report matches" in browser.get("/my/?to=2026-11-20").text


def test_every_page_has_its_dates_in_the_zone_that_the_browser_tells(
    browser: Browser, people, settings, reports
) -> None:
    take(*[record(i, taken_at=f"2026-11-{day}T19:00:00Z") for i, day in enumerate((10, 20))])
    run_pass(settings.database_url, ReportWriter(reports), settings)
    browser.log_in("bholanath")
    paths = pages_of(browser)[:-2]

    def dated(zone: str, path: str) -> str:
        browser.client.set_cookie("myhealth_zone", zone, domain="localhost", path="/my")
        return plain(browser.get(path))

    for path in paths:
        for zone, name, day in (("Asia/Calcutta", "Asia/Kolkata", 21), ("America/New_York", "America/New York", 20)):
            page = dated(zone, path)
            assert f"Times are in {name}." in page, path
            if path != "/my/filter" and path != "/my/looks":
                assert re.search(rf"{day} Nov(ember)? 2026", page), path
                assert not re.search(rf"{41 - day} Nov(ember)? 2026", page), path
    assert "No report matches" in dated("Asia/Kolkata", "/my/?from=2026-11-20&to=2026-11-20")
    assert "No report matches" not in dated("America/New_York", "/my/?from=2026-11-20&to=2026-11-20")
    for nonsense in ("Asia", "../../etc/passwd", "", "Nowhere/At_All", "x" * 3000, "posix/Asia/Kolkata"):
        assert "20 November 2026, 19:00" in dated(nonsense, "/my/")


def test_of_what_is_known_by_its_day_no_time_is_shown(browser: Browser, people, settings, reports) -> None:
    told = {"1999-07-02": "2 July 1999", "1999-07": "July 1999", "1999": "1999"}
    observed = {"resourceType": "Observation", "status": "final", "subject": {"reference": "Patient/bholanath"}}
    measured = {"code": {"text": "Pulse"}, "valueQuantity": {"value": 60, "unit": "/min"}}
    lines = [json.dumps({**observed, **measured, "effectiveDateTime": text}) for text in told]
    outcomes = Intake(ImportSource("a file", format="fhir")).take(
        list(read_dump(io.BytesIO("\n".join(lines).encode())).readings)
    )
    assert [outcome.status for outcome in outcomes] == ["accepted"] * 3
    take(record(1, taken_at="2026-11-20T12:00:00Z"), record(2, taken_at="2026-11-21T12:00:01Z", checkup_report="Only the day is known."))  # fmt: skip
    run_pass(settings.database_url, ReportWriter(reports), settings)
    browser.client.set_cookie("myhealth_zone", "Pacific/Kiritimati", domain="localhost", path="/my")  # 14 hours ahead
    browser.log_in("bholanath")
    listed = browser.get("/my/")
    shown = [f">{words}</time>" for words in ("22 November 2026, 02:00", "21 November 2026, 02:00", *told.values())]
    assert re.findall(r">[^<>]*</time>", listed.text) == shown
    assert re.findall(r'datetime="([^"]*)"', listed.text)[2:] == list(told)
    numbers = re.findall(r'"(/my/reports/\d+)"', listed.text)[2:]
    for path, words in zip(numbers, told.values(), strict=True):
        page = browser.get(path).text
        assert f", {words} · MyHealth</title>" in page
        assert f">{words}</time>" in page
    printed = plain(browser.get("/my/print"))
    for words in told.values():
        assert f"{words} ·" in printed


def test_a_trend_draws_its_values_at_their_true_distances(browser: Browser, people, settings, reports) -> None:
    days = ("2026-01-01", "2026-01-11", "2026-04-11")
    take(*[record(i, taken_at=f"{day}T00:00:00Z", results=[{"code": "8480-6", "name": "Systolic", "value": value, "unit": "mm[Hg]", "low": 90, "high": 120}]) for i, (day, value) in enumerate(zip(days, (100, 130, 80), strict=True))])  # fmt: skip
    run_pass(settings.database_url, ReportWriter(reports), settings)
    browser.log_in("bholanath")
    text = browser.get("/my/trends?code=8480-6").text
    svg = re.search(r"<svg[^>]*pygal-chart.*?</svg>", text, re.DOTALL).group()
    for forbidden in ("<script", "<style", "style=", "http://www.w3.org/1999/xlink", "onload"):
        assert forbidden not in svg
    line = re.search(r'<path d="M([^"]+)" class="line reactive', svg).group(1)
    points = [tuple(map(float, pair.split())) for pair in re.findall(r"[\d.]+ [\d.]+", line)]
    assert len(points) == 3, line
    assert (points[2][0] - points[1][0]) / (points[1][0] - points[0][0]) == pytest.approx(9, rel=0.01)
    assert svg.count("dot away") == 2
    band = re.search(r'class="band" x="[\d.]+" y="([\d.]+)" width="[\d.]+" height="([\d.]+)"', svg)
    top, height = map(float, band.groups())
    assert points[1][1] < top < points[0][1] < top + height < points[2][1]
    assert text.count('<th scope="row">') == 3


def plain(page) -> str:
    """What a page says, without its markup."""
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", "", page.text)))


def test_what_no_living_body_has_is_called_hardly_possible_and_presses_no_chart_flat(
    browser: Browser, people, settings, reports
) -> None:
    take(*temperatures("bholanath"))
    run_pass(settings.database_url, ReportWriter(reports), settings)
    browser.log_in("bholanath")
    listed = browser.get("/my/")
    assert "The result is hardly possible ◆ Body temperature: 366 °C, hardly possible" in plain(listed)
    number = re.findall(r'"/my/reports/(\d+)"', listed.text)[1]
    report = browser.get(f"/my/reports/{number}")
    assert "Please ask the place where it was measured." in plain(report)
    assert "above" not in plain(report)
    assert "meter" not in report.text
    assert "◆ hardly possible. No living body" in plain(browser.get("/my/print"))
    trend = browser.get("/my/trends?code=8310-5")
    assert "and not drawn in the chart" in plain(trend)
    assert "366" in plain(trend)
    svg = re.search(r"<svg[^>]*pygal-chart.*?</svg>", trend.text, re.DOTALL).group()
    assert "2 values" in svg
    scale = [float(text) for text in re.findall(r">(\d+(?:\.\d+)?)</text>", svg)]
    assert scale
    assert max(scale) < 45


def test_what_a_chart_does_not_draw_is_told(browser: Browser, people, settings, reports) -> None:
    values = [5.1, "<3", "trace", "5.4", 10**18]
    records = [
        record(f"g{i}", "bholanath", taken_at=f"2026-11-1{i}T08:00:00Z", results=[result("Glucose", value, "mmol/L", 3.9, 6.1)])
        for i, value in enumerate(values)
    ]  # fmt: skip
    take(*records)
    run_pass(settings.database_url, ReportWriter(reports), settings)
    browser.log_in("bholanath")
    trend = browser.get("/my/trends?name=Glucose")
    assert "2 values are not drawn in the chart" in plain(trend)
    assert "A value such as <3 is drawn at its number; it lies beyond it." in plain(trend)
    (svg,) = re.findall(r"<svg[^>]*pygal-chart.*?</svg>", trend.text, re.DOTALL)
    assert svg.count('class="dot"') == 2, "5.1, and 5.4, which was sent as text"
    assert svg.count('class="dot away"') == 1, "<3, below"
    for expected in (
        "<3▼ below the usual range",
        "trace– cannot be compared with the range",
        "5.4✓ within",
        f"{10**18}▲ above",
    ):
        assert expected in plain(trend), expected


RESULTS = {
    "?": result("Grip", 5), "N": result("Pulse", 70, None, 60, 100), "H": result("Pulse", 130, None, 60, 100),
    "<": result("TSH", "<0.5", None, 0.4, 4.0), "words": {**result("HIV", "reactive"), "range_text": "non-reactive"},
    "none": {**result("Sodium", "", None, 135, 145), "absent_reason": "Specimen clotted"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("kinds", "summary"),
    [
        (["<"], "1 result, not compared with a usual range"),
        (["words", "none"], "2 results, not compared with a usual range"),
        (["?"], "1 result, without a usual range"),
        (["N", "<"], "1 of 2 results within the usual range; the rest is not compared with one"),
        (["N", "?"], "1 of 2 results within the usual range; no range is given for the rest"),
        (["H", "H", "<"], "2 of 3 results outside the usual range, 1 not compared"),
        (["H", "N", "?"], "1 of 3 results outside the usual range, 1 not compared"),
        (["H", "N"], "1 of 2 results outside the usual range"),
    ],
)
def test_a_summary_leaves_nothing_out(kinds: list[str], summary: str) -> None:
    assert result_view.summary([result_view.present(RESULTS[kind]) for kind in kinds]) == summary


def test_why_there_is_no_value_is_told() -> None:
    shown = result_view.present(RESULTS["none"])
    assert (shown.value, shown.words) == ("not given: Specimen clotted", "there is no value to compare")


def test_a_report_that_was_changed_says_when(browser: Browser, people, settings, reports) -> None:
    take(record(1), record(2))
    Checkup.update(disease="corrected").where(Checkup.record_id == "2").execute()
    run_pass(settings.database_url, ReportWriter(reports), settings)
    browser.log_in("bholanath")
    texts = [
        plain(browser.get(path)) for path in re.findall(r'<h2><a href="(/my/reports/\d+)"', browser.get("/my/").text)
    ]
    assert sorted("Last changed" in text for text in texts) == [False, True]


def test_a_list_of_what_is_as_usual_says_so(browser: Browser, people, settings, reports) -> None:
    run_pass(settings.database_url, ReportWriter(reports), settings)
    browser.log_in("bholanath")
    for value, words in (("true", "something"), ("false", "nothing"), ("0", "nothing")):
        assert f"with {words} outside its usual range" in plain(browser.get(f"/my/?abnormal={value}"))


def test_what_a_page_marks_is_what_the_filter_finds(people, settings, reports) -> None:
    unflagged = record("u", "bholanath", results=[result("Pulse", 130, "/min", 60, 100)])
    take(*history("bholanath", 22), *varied("bholanath"), *sixty("bholanath"), *temperatures("bholanath"), unflagged)
    run_pass(settings.database_url, ReportWriter(reports), settings)
    found = list(reports.reports.find())
    assert len(found) > 30
    for report in found:
        assert report["abnormal"] == any(each.is_unusual for each in result_view.present_results(report)), report


def test_a_range_of_the_catalogues_is_told_from_the_machines_own(browser: Browser, people, settings, reports) -> None:
    take(*temperatures("bholanath")[:1], record(1))
    run_pass(settings.database_url, ReportWriter(reports), settings)
    browser.log_in("bholanath")
    own, general = re.findall(r'"(/my/reports/\d+)"', browser.get("/my/").text)
    for path, range_text in ((general, "36.1 to 37.2 °C"), ("/my/trends?code=8310-5", "36.1 to 37.2 °C")):
        page = plain(browser.get(path))
        assert f"{range_text} (general)" in page
        assert "the machine itself gave none" in page
    for path in (own, "/my/trends?code=8480-6"):
        assert "general" not in plain(browser.get(path))
    assert plain(browser.get("/my/print")).count("(general)") == 1


SUMMARIES = [
    ((), "No single measurements in this report"),
    (("N",), "The result is within its usual range"),
    (("N", "N"), "Both results are within their usual range"),
    (("N", "N", "N"), "All 3 results are within their usual range"),
    (("H",), "The result is outside its usual range"),
    (("H", "L"), "Both results are outside their usual range"),
    (("H", "L", "A"), "All 3 results are outside their usual range"),
    (("H", "N"), "1 of 2 results outside the usual range"),
    (("?",), "The result is hardly possible"),
    (("?", "?"), "Both results are hardly possible"),
    (("?", "N"), "1 of 2 results hardly possible"),
    (("?", "H", "L", "N"), "2 of 4 results outside the usual range, 1 hardly possible"),
    (("N", None), "1 of 2 results within the usual range; no range is given for the rest"),
    ((None,), "1 result, without a usual range"),
]


@pytest.mark.parametrize(("flags", "said"), SUMMARIES)
def test_how_a_report_stands_reads_as_people_speak(flags: tuple[str, ...], said: str) -> None:
    impossible = {"value": 366, "warning": "366 Cel is outside what a living body has (10 to 47)", "flag": "A"}
    results = [impossible if flag == "?" else {"value": 1, "flag": flag} for flag in flags]
    assert result_view.summary([result_view.present(result) for result in results]) == said


@pytest.mark.parametrize(
    ("value", "shown"),
    [(5.4, "mmol/L"), ("<5", "mmol/L"), (">= 5", "mmol/L"), ("4 - 6", "mmol/L"), ("-5", "mmol/L"),
     ("Specimen unsatisfactory for evaluation", ""), ("trace", ""), (None, "")],
)  # fmt: skip
def test_a_unit_stands_behind_what_was_measured_alone(value, shown: str) -> None:
    assert result_view.present({"name": "Glucose", "value": value, "unit": "mmol/L"}).unit == shown


@pytest.mark.parametrize(
    ("value", "flag", "words"),
    [(100, "H", "marked as above the usual range"), (100, "LL", "marked as far below the usual range"),
     (100, "A", "marked as not what is usual"), (100, "N", "within the usual range"), (130, "N", "above the usual range")],
)  # fmt: skip
def test_what_lies_within_its_range_is_not_said_to_lie_outside_of_it(value: int, flag: str, words: str) -> None:
    assert (
        result_view.present({"name": "Systolic", "value": value, "low": 90, "high": 120, "flag": flag}).words == words
    )


@pytest.mark.parametrize(
    ("value", "flag", "note"),
    [(130, "L", "The machine itself marked this value as below the usual range."),
     (80, "HH", "The machine itself marked this value as above the usual range."),
     (130, "N", "The machine itself marked this value as usual."), (130, "HH", ""), (130, "A", ""), (130, None, "")],
)  # fmt: skip
def test_where_a_flag_says_otherwise_than_the_range_both_are_told(value: int, flag: str | None, note: str) -> None:
    shown = result_view.present({"name": "Systolic", "value": value, "low": 90, "high": 120, "flag": flag})
    assert (shown.place, shown.note) == ("above" if value == 130 else "below", note)


@pytest.mark.parametrize(
    ("value", "label"),
    [(0.0, "0"), (120.0, "120"), (37.2, "37.2"), (0.1 + 0.2, "0.3"), (4.6e6, "4600000"), (-2e6, "-2000000"), (3.2e-5, "0.000032"), (1e12, "1e+12")],
)  # fmt: skip
def test_the_axis_of_a_chart_has_digits_and_no_exponents(value: float, label: str) -> None:
    assert charts.digits(value) == label


def test_names_for_programs_and_ranges_in_words_read_as_words() -> None:
    assert result_view.kind_text("MDC_FLOW_AWAY_EXP_FORCED_PEAK") == "Flow away exp forced peak"
    assert result_view.kind_text("BLOOD PRESSURE") == "Blood pressure"
    shown = result_view.present(
        {"name": "MDC_PULS_OXIM_SAT_O2", "value": 70, "unit": "/min", "range_text": "men: 55 - 95"}
    )
    assert (shown.name, shown.usual) == ("Puls oxim sat o2", "men: 55 - 95")
    assert shown.words == "the usual range is told in words, so it is not compared here"


def test_nobody_is_named_twice_and_no_brackets_are_empty(application, people, settings, reports) -> None:
    take(record(1), record(2, patient="savita"))
    set_full_name("bholanath", "Bholanath")
    set_full_name("savita", "Savita Deshpande")
    set_full_name("dr.ayush", "Dr. Ayush Kulkarni")
    run_pass(settings.database_url, ReportWriter(reports), settings)
    log_command_access(reports, "ops at the command line", reports.user_named("bholanath"), "reports")
    browser, staff = Browser(application), Browser(application)
    browser.log_in("bholanath")
    staff.log_in("dr.ayush")
    staff.get("/my/patients/bholanath")
    looks = plain(browser.get("/my/looks"))
    assert "ops at the command line" in looks
    assert "Dr. Ayush Kulkarni (dr.ayush, doctor)" in looks
    assert "()" not in looks
    number = re.search(r'"(/my/reports/\d+)"', browser.get("/my/").text).group(1)
    for path in ("/my/print", number):
        assert "(bholanath)" not in plain(browser.get(path))
    assert "the record of Bholanath. That" in plain(staff.get("/my/patients/bholanath"))
    assert "the record of Savita Deshpande (savita). That" in plain(staff.get("/my/patients/savita"))
    assert "disabled" not in plain(staff.get("/my/patients/savita"))
    set_active("savita", False)
    run_pass(settings.database_url, ReportWriter(reports), settings)
    assert "The account is disabled." in plain(staff.get("/my/patients/savita"))
    found = plain(staff.get("/my/patients"))
    assert "Bholanath bholanath" not in found
    assert "Savita Deshpande savita" in found


@pytest.mark.usefixtures("stored")
def test_an_address_that_is_not_right_is_told_in_plain_words(application, browser: Browser) -> None:
    browser.log_in("bholanath")
    staff = Browser(application)
    staff.log_in("root")
    for path in ("/my/?after=x", "/my/looks?after=x", "/my/trends?code=8480-6&after=x", "/my/?abnormal=maybe"):
        answer = browser.get(path)
        assert answer.status_code == 400
        assert "it may be mistyped or cut short" in answer.text
        assert "Link header" not in answer.text
    assert "mistyped or cut short" in staff.get("/my/patients?after=x").text
    for path in (
        "?after=x",
        "/looks?after=x",
        "/trends?code=8480-6&after=x",
        "/trends?months=99",
        "/trends?name=" + "x" * 501,
    ):
        assert staff.get(f"/my/patients/bholanath{path}").status_code == 400
    assert browser.get("/my/looks").text.count("<time") == 0, "what shows nothing is no look"
    assert "The first day must be written like 2026-11-20." in browser.get("/my/?from=x").text


def test_a_trend_by_name_is_of_what_has_no_code(browser: Browser, people, settings, reports) -> None:
    """As many as the list of measurements tells."""
    results = [
        {"name": "Grip", "value": 40, "unit": "kg"},
        {"code": "83174-9", "name": "Grip", "value": 41, "unit": "kg"},
    ]
    take(record(1, results=results))
    run_pass(settings.database_url, ReportWriter(reports), settings)
    browser.log_in("bholanath")
    for asked, value in (("name=Grip", "40"), ("code=83174-9", "41")):
        assert re.findall(r'<td dir="auto">(\d+)</td>', browser.get(f"/my/trends?{asked}").text) == [value]
