"""Reviews on the pages: the list for staff, the form on a report, and the note that the patient reads."""

import dataclasses
import html
import re

import pytest
from support.factories import record, take
from support.page_client import Browser, plain

from myhealth.profiles.services import create_user, set_full_name, set_person
from wsgi.browse import make_app
from wsgi.browse_pages.people import outside_words

XSS = "<script>alert(1)</script></textarea>"
FAR = [{"code": "8480-6", "name": "Systolic blood pressure", "value": 182, "unit": "mm[Hg]", "low": 90, "high": 120, "flag": "H"}]  # fmt: skip
FINE = [{**FAR[0], "value": 110, "flag": "N"}]


@pytest.fixture
def staff(application, stored) -> Browser:
    set_full_name("dr.ayush", "Dr Ayush Rao")
    found = Browser(application)
    found.log_in("dr.ayush")
    return found


def numbers(page) -> list[int]:
    return [int(number) for number in re.findall(r'class="row" href="/my/reports/(\d+)"', page.text)]


def test_a_doctor_reviews_and_the_patient_reads_the_note_as_text(staff, browser, application, sync, db) -> None:
    report = staff.get("/my/reports/1")
    answer = staff.submit(report, "/my/reports/1", note=f"Drink more.\r\n{XSS}")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/my/reports/1?said=reviewed")
    assert "It is noted." in plain(staff.get("/my/reports/1?said=reviewed"))
    sync()
    browser.log_in("bholanath")
    page = browser.get("/my/reports/1")
    assert "Reviewed by Dr Ayush Rao on" in plain(page)
    assert f"Drink more.\n{XSS}" == db("select review_note from checkups where id = 1")[0][0]
    for shown in (page, staff.get("/my/reports/1"), browser.get("/my/print")):
        assert "Drink more." in shown.text
        assert "<script>alert" not in shown.text
        assert "&lt;/textarea&gt;" in shown.text
    assert page.text.index("Drink more.") < page.text.index("What was measured")
    assert "<textarea" not in page.text
    assert "It is noted." not in plain(staff.get("/my/reports/1?said=reviewed"))


def test_a_correction_leaves_the_note_and_ends_the_review(staff, upload, log_in, sync) -> None:
    staff.submit(staff.get("/my/reports/1"), "/my/reports/1", note="Drink more.")
    upload("PUT", "/users/bholanath/checkups/1/", {"disease": "x"}, token=log_in("dr.ayush"))
    sync()
    page = plain(staff.get("/my/reports/1"))
    assert "Note from before the report was changed" in page
    assert "Reviewed by" not in page
    assert 1 in numbers(staff.get("/my/to-review"))


def test_a_report_that_changed_meanwhile_is_not_reviewed(staff, upload, log_in, db) -> None:
    report = staff.get("/my/reports/1")
    upload("PUT", "/users/bholanath/checkups/1/", {"disease": "x"}, token=log_in("dr.ayush"))
    answer = staff.submit(report, "/my/reports/1", note=XSS)
    assert answer.status_code == 409
    assert "Nothing was noted" in plain(answer)
    assert "&lt;script&gt;" in answer.text
    assert "<script>alert" not in answer.text
    assert db("select reviewed_at, review_note from checkups where id = 1") == [(None, None)]


def test_a_note_that_comes_after_the_session_is_not_lost(staff, application, db) -> None:
    report = staff.get("/my/reports/1")
    other = Browser(application)
    other.log_in("dr.ayush")
    answer = other.submit(report, "/my/reports/1", note=XSS)  # the form of another session
    assert answer.status_code == 403
    assert "nothing was done" in plain(answer)
    assert f">{html.escape(XSS)}</textarea>" in answer.text
    staff.client.delete_cookie("myhealth_session", domain="localhost")
    answer = staff.submit(report, "/my/reports/1", note=XSS)
    assert (answer.status_code, "Your session has ended" in plain(answer)) == (401, True)
    assert f">{html.escape(XSS)}</textarea>" in answer.text
    assert 'href="/my/login?next=%2Fmy%2Freports%2F1"' in answer.text
    foreign = staff.post("/my/reports/1", note=XSS, headers={"Sec-Fetch-Site": "cross-site"})
    assert (foreign.status_code, foreign.headers.get("Location")) == (303, "/my/login"), (
        "no text of another site is shown"
    )
    assert db("select count(*) from checkups where reviewed_at is not null") == [(0,)]


@pytest.mark.parametrize("note", ["\u0928" * 2000, "\U0001f600" * 2000], ids=["devanagari", "emoji"])
def test_a_note_may_be_long_in_any_script(staff, db, note: str) -> None:
    assert staff.submit(staff.get("/my/reports/1"), "/my/reports/1", note=note).status_code == 303
    assert db("select review_note from checkups where id = 1") == [(note,)]


def test_nobody_else_reviews_on_the_page(staff, application, db) -> None:
    report = staff.get("/my/reports/1")
    for who, status in (("bholanath", 403), ("savita", 404), ("tara", 404)):
        other = Browser(application)
        other.log_in(who)
        key = re.search(r'name="form_key" value="(\w+)"', other.get("/my/").text).group(1)
        answer = other.post("/my/reports/1", form_key=key, note="I am well", revision="1")
        assert answer.status_code == status, who
    assert staff.post("/my/reports/1", note="no key").status_code == 403
    assert report.status_code == 200
    assert db("select count(*) from checkups where reviewed_at is not null") == [(0,)]


def test_what_is_to_review_is_of_all_patients_far_ones_first_and_leaves_when_reviewed(staff, sync, reports) -> None:
    take(record("far", "savita", results=FAR, taken_at="2026-10-25T09:00:00Z"), machine="HC-2")
    take(record("fine", "savita", results=FINE, taken_at="2026-11-26T09:00:00Z"))
    sync()
    page = staff.get("/my/to-review")
    found = numbers(page)
    assert found[1:] == [4, 3, 2, 1]
    assert page.text.count("far outside</span>") == 1
    assert "savita" in plain(page)
    assert "You are reading the record of" not in page.text
    assert numbers(staff.get("/my/to-review?machine=HC-2")) == found[:1]
    assert numbers(staff.get("/my/to-review?from=2026-11-02&to=2026-11-02")) == [2]
    staff.submit(staff.get("/my/reports/3"), "/my/reports/3", note="")
    sync()
    assert numbers(staff.get("/my/to-review")) == [found[0], 4, 2, 1]


def tabs(page) -> list[str]:
    """The entries of the menus of a page."""
    return [plain_text.strip() for each in re.findall(r'<ul class="tabs">(.*?)</ul>', page.text, re.DOTALL)
            for plain_text in re.findall(r">([^<]+)</a>", each)]  # fmt: skip


def test_ones_own_record_is_behind_ones_own_name(staff, browser) -> None:
    own = ["My reports", "My trends", "Who looked"]
    page = staff.get("/my/patients/bholanath")
    assert tabs(page) == ["Patients", "To review", "Reports", "Trends", "Who looked"]
    assert "dr.ayush: your own record" in plain(page)
    assert 'class="brand" href="/my/patients"' in page.text
    assert 'class="button" href="/my/patients">To the patients' in staff.get("/my/nothing").text
    (path,) = re.findall(r'class="who" dir="auto" href="([^"]+)"', page.text)
    for at in (path, "/my/trends", "/my/access-log"):
        page = staff.get(at)
        assert tabs(page) == ["Patients", "To review", *own]
        assert "This is your own record." in page.text
    browser.log_in("bholanath")
    page = browser.get("/my/")
    assert tabs(page) == own
    assert 'class="brand" href="/my/"' in page.text
    assert "your own record" not in page.text


def test_each_patient_on_the_page_finds_one_access_of_one_write(staff, application, reports) -> None:
    before = reports.access_log.collection.count_documents({})
    staff.get("/my/to-review")
    events = list(reports.access_log.collection.find({"what": "to review"}))
    assert sorted(event["username"] for event in events) == ["bholanath", "savita"]
    assert len({event["at"] for event in events}) == 1
    assert reports.access_log.collection.count_documents({}) == before + 2
    patient = Browser(application)
    patient.log_in("savita")
    assert "the list of reports to review" in plain(patient.get("/my/access-log"))


def test_to_review_is_read_page_by_page(staff, sync) -> None:
    days = [f"2026-10-{i // 2 + 1:02}T09:00:00Z" for i in range(45)]
    take(*[record(f"p{i}", taken_at=day, **({"results": FAR} if i % 2 else {})) for i, day in enumerate(days)])
    sync()
    seen, far, path = [], [], "/my/to-review"
    while path:
        page = staff.get(path)
        seen += numbers(page)
        far += ["far outside</span>" in row for row in page.text.split('<a class="row"')[1:]]
        older = re.search(r'href="([^"]+)" rel="next"', page.text)
        path = older and html.unescape(older.group(1))
    assert len(seen) == len(set(seen)) == 49
    assert far == [True] * 22 + [False] * 27, "two pages begin among the far ones, one behind them"
    assert "Nothing to review" in plain(staff.get("/my/to-review?machine=none"))


def test_a_review_is_taken_back_on_the_page(staff, browser, sync, db) -> None:
    staff.submit(staff.get("/my/reports/1"), "/my/reports/1", note="Of another patient")
    page = staff.get("/my/reports/1?said=reviewed")  # before the sync has carried it here
    assert "Take the review back" in page.text
    answer = staff.submit(page, "/my/reports/1", take_back="yes")
    assert answer.headers["Location"] == "/my/reports/1?said=taken-back"
    assert db("select reviewed_at, reviewed_by, review_note from checkups where id = 1") == [(None, None, None)]
    sync()
    assert "Take the review back" not in staff.get("/my/reports/1?said=taken-back").text
    staff.submit(staff.get("/my/reports/1"), "/my/reports/1", note="")
    sync()
    staff.submit(staff.get("/my/reports/1"), "/my/reports/1", take_back="yes")
    page = staff.get("/my/reports/1?said=taken-back")
    assert "The review is taken back" in page.text
    assert "Take the review back" not in page.text
    sync()
    assert 1 in numbers(staff.get("/my/to-review"))
    browser.log_in("bholanath")
    assert "Of another patient" not in browser.get("/my/reports/1").text


def test_what_is_to_review_at_a_site_is_of_its_machines(staff, sync, db, settings, upload, calling, serving) -> None:
    take(record("far", "savita", results=FAR), machine="HC-2")
    take(record("near", "savita", results=FAR), machine="HC-3")
    db("update machines set site = case serial when 'HC-1' then 'Camp 1' else 'Nashik' end")
    sync()
    page = staff.get("/my/to-review")
    assert re.findall(r'<option value="([^"]*)"', page.text) == ["", "Camp 1", "Nashik"]
    of_nashik = numbers(staff.get("/my/to-review?site=Nashik"))
    assert len(of_nashik) == 2
    assert numbers(staff.get("/my/to-review?site=Camp+1")) == [each for each in numbers(page) if each not in of_nashik]
    assert len(numbers(staff.get("/my/to-review?site=Nashik&machine=HC-3"))) == 1
    assert numbers(staff.get("/my/to-review?site=Nashik&machine=HC-1")) == []
    assert "Nothing to review" in plain(staff.get("/my/to-review?site=Elsewhere"))
    other = calling(make_app(dataclasses.replace(settings, auth_url=serving(upload.application)))).application
    without = Browser(other)
    without.client.set_cookie("myhealth_session", staff.cookie().value, domain="localhost")
    db("alter table machines rename to machines_away")
    try:
        page = without.get("/my/to-review")
        assert (page.status_code, "<option" in page.text) == (200, False)
        assert without.get("/my/to-review?site=Nashik").status_code == 503
    finally:
        db("alter table machines_away rename to machines")


@pytest.mark.parametrize(
    ("outside", "far", "words"),
    [(0, 0, ""), (2, 0, "2 outside the usual range"), (1, 1, "1 far outside the usual range"),
     (3, 1, "3 outside the usual range, 1 of them far")],
)  # fmt: skip
def test_how_many_values_of_the_last_report_are_outside_is_told_in_words(outside: int, far: int, words: str) -> None:
    assert outside_words(outside, far) == words


def test_a_doctor_finds_what_was_opened_and_what_the_last_report_was(staff, sync, reports) -> None:
    create_user("mina", rounds=4)
    set_person("savita", birth_date="1961-03-07")
    take(record("far", "savita", results=[*FAR, *FINE], taken_at="2026-11-25T09:00:00Z"))
    sync()
    assert "Recently opened" not in staff.get("/my/patients").text
    for path in ("/my/reports/4", "/my/patients/bholanath", "/my/to-review", "/my/patients?q=mina"):
        staff.get(path)
    page = staff.get("/my/patients").text
    chips = re.findall(r'href="/my/patients/(\w+)"', page[: page.index("All patients")])
    assert chips == ["bholanath", "savita"]
    assert "Last report" not in page
    found = plain(staff.get("/my/patients?q=savita"))
    assert "Last report 25 November 2026: Blood pressure, ◆ 1 far outside the usual range" in found
    assert "born 1961-03-07" in found
    assert "You are reading the record of savita, born 1961-03-07." in plain(staff.get("/my/patients/savita"))
    assert "No report yet" in plain(staff.get("/my/patients?q=mina"))
    events = reports.access_log.collection.find({"what": "search"})
    assert [event["username"] for event in events] == ["mina", "savita", "mina"]
