"""The pages in a real browser: each is accessible, fits a phone, prints, and forgets its data after logout."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import browser
from support.factories import PASSWORD, record, take
from support.page_data import LONG_NAME, history, rich, sixty, temperatures, varied
from werkzeug.serving import make_server

from myhealth.profiles.services import create_user, set_full_name
from myhealth.reports.writer import ReportWriter
from myhealth.sync.runner import run_pass
from wsgi.browse import make_app

pytestmark = pytest.mark.long
A4_PT, LETTER_PT = (595, 842), (612, 792)


@pytest.fixture
def site(people: Any, settings: Any, reports: Any, served: tuple[str, str]) -> str:
    """The browse API's URL; Bholanath has a long history and all that is odd, Savita a long name."""
    set_full_name("bholanath", "Bholanath Joshi")
    set_full_name("savita", LONG_NAME)
    take(*history("bholanath"), *varied("bholanath"), record("s1", "savita"), *sixty("savita"))
    run_pass(settings.database_url, ReportWriter(reports), settings)
    return served[1]


def fill_login(page: Any, site: str, username: str, password: str = PASSWORD) -> None:
    page.goto(f"{site}/my/login")
    page.get_by_label("Username").fill(username)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()


def log_in(page: Any, site: str, username: str) -> None:
    fill_login(page, site, username)
    page.wait_for_url(re.compile(r"/my/(patients)?$"))


def row(page: Any, kind: str) -> Any:
    """The row of the newest report of that kind in the list."""
    return page.locator(".row", has=page.locator("strong", has_text=kind)).first


def check(page: Any, name: str) -> None:
    """What holds of every page."""
    assert browser.fits(page), f"{name} is wider than a phone"
    assert browser.too_small(page) == [], f"{name} is hard to touch"
    browser.check_accessible(page)
    browser.shoot(page, name)


def pages_of_a_patient(page: Any, site: str) -> Iterator[str]:
    """Every page that a patient can come to: opens it, gives its name."""
    number = {kind: row(page, kind).get_attribute("href") for kind in ("Blood count", "Laboratory panel", "ECG")}
    paths = {
        "list": "/my/",
        "list-last": "/my/?after=0_1",
        "list-filtered": "/my/?abnormal=true&from=2026-01-01&code=8480-6",
        "list-nothing": "/my/?text=nothing+like+that",
        "filter": "/my/filter?abnormal=true",
        "report": number["Blood count"],
        "report-odd": number["Laboratory panel"],
        "report-text": number["ECG"],
        "trends": "/my/trends",
        "trend": "/my/trends?code=8462-4",
        "trend-pressure": "/my/trends?code=85354-9",
        "matrix": "/my/matrix",
        "print": "/my/print",
        "access-log": "/my/access-log",
        "password": "/my/password",
        "missing": "/my/nothing",
        "bad": "/my/?from=never",
    }
    for name, path in paths.items():
        answer = page.goto(site + path)
        assert answer.status == {"missing": 404, "bad": 400}.get(name, 200), name
        yield name


def test_every_page_of_a_patient_is_accessible_and_fits_a_phone(page: Any, site: str) -> None:
    page.goto(f"{site}/my/login")
    check(page, "login")
    page.get_by_label("Username").fill("bholanath")
    page.get_by_label("Password").fill("wrong")
    page.get_by_role("button", name="Log in").click()
    assert "is not right" in page.get_by_role("alert").inner_text()
    check(page, "login-wrong")
    page.goto(f"{site}/my/welcome#username=savita&code=K7WD-9XQM-TT3C-HV5P-2AJR")
    page.get_by_label("Code").wait_for()
    assert (page.get_by_label("Username").input_value(), page.url) == ("savita", f"{site}/my/welcome")
    assert page.get_by_label("Code").input_value() == "K7WD-9XQM-TT3C-HV5P-2AJR"
    check(page, "welcome")
    page.get_by_label("New password", exact=True).fill("another horse")
    page.get_by_label("New password, once more").fill("another horse")
    page.get_by_role("button", name="Set it and log in").click()
    assert "is not right" in page.get_by_role("alert").inner_text()
    check(page, "welcome-wrong")
    log_in(page, site, "bholanath")
    for name in pages_of_a_patient(page, site):
        check(page, name)


def test_every_page_of_a_doctor_is_accessible_and_fits_a_phone(page: Any, site: str, chromium: Any) -> None:
    log_in(page, site, "dr.ayush")
    check(page, "patients-all")
    page.get_by_label("Name or username").fill("alexandrina")
    page.get_by_role("button", name="Find").click()
    check(page, "patients")
    page.get_by_role("link", name=LONG_NAME).click()
    page.get_by_text("You are reading the record of").wait_for()
    check(page, "their-list")
    row(page, "Blood pressure").click()
    page.get_by_text("About this check-up").wait_for()
    check(page, "their-report")
    for tab in ("Trends", "Who looked"):
        page.get_by_label("Pages about this patient").get_by_role("link", name=tab).click()
        page.get_by_role("heading", level=1, name=tab).wait_for()
        check(page, f"their-{tab.lower().replace(' ', '-')}")
    with browser.open_page(chromium) as patient:
        log_in(patient, site, "savita")
        patient.get_by_role("link", name="Who looked").click()
        assert patient.get_by_role("row").count() == 7, (
            "its head, the name given, the search, list, report, trends, this page"
        )
        check(patient, "looks-some")


def test_the_page_of_an_admin_is_accessible_and_fits_a_phone(page: Any, site: str) -> None:
    create_user("meera.patel", password=PASSWORD, self_registered=True, full_name=LONG_NAME)
    create_user("amit.rao", password=PASSWORD, self_registered=True)
    take(record("m1", "meera.patel"), record("m2", "meera.patel"))
    log_in(page, site, "root")
    page.get_by_role("link", name="Accounts").click()
    page.get_by_text("2 records waiting").wait_for()
    check(page, "accounts")
    page.get_by_text("Link meera.patel").click()
    check(page, "accounts-question")
    page.get_by_role("button", name="It is the same person: link").click()
    page.get_by_text("The account meera.patel is linked. Of the records that waited: 2 stored.").wait_for()
    check(page, "accounts-linked")


def test_every_other_state_is_accessible_and_fits_a_phone(
    page: Any, site: str, served: Any, settings: Any, reports: Any, chromium: Any
) -> None:
    """What one would rather not see: nothing there, not yet, not now, too much."""
    create_user("newcomer", password=PASSWORD)
    fill_login(page, site, "newcomer")
    page.get_by_role("heading", name="Your reports are on their way").wait_for()
    check(page, "not-here-yet")
    run_pass(settings.database_url, ReportWriter(reports), settings)
    for path in ("", "trends", "access-log", "filter", "print"):
        assert page.goto(f"{site}/my/{path}").status == 200
        check(page, f"empty-{path or 'list'}")
    page.locator("input[name=form_key]").evaluate("field => { field.value = 'made up'; }")
    page.get_by_role("button", name="Log out").click()
    page.get_by_role("heading", name="Please try again").wait_for()
    check(page, "refused-form")
    with sick_site(settings, served[0]) as sick:
        assert page.goto(f"{sick}/my/").status == 503
        check(page, "store-away")
    with browser.open_page(chromium) as other:
        for _ in range(11):
            fill_login(other, site, "savita", "wrong")
        assert "minute" in other.get_by_role("alert").inner_text()
        check(other, "login-throttled")


def test_a_report_of_sixty_results_and_all_that_a_doctor_prints_fit(page: Any, site: str, tmp_path: Path) -> None:
    from pypdf import PdfReader

    log_in(page, site, "dr.ayush")
    for name, path in {
        "their-print": "/my/patients/bholanath/print",
        "their-filter": "/my/patients/bholanath/filter",
        "their-trend": "/my/patients/bholanath/trends?code=8480-6",
        "their-missing": "/my/patients/nobody",
        "patients-none": "/my/patients?q=nobody+like+that",
        "long-list": "/my/patients/savita",
    }.items():
        page.goto(site + path)
        check(page, name)
    row(page, "Whole blood and everything else").click()
    page.get_by_text("About this check-up").wait_for()
    assert page.locator(".result").count() == 60
    assert page.locator(".jump a").count() == 30
    page.locator(".jump").get_by_role("link", name="Platelets 55").click()
    assert "Platelets 55" in page.locator(".result:target").inner_text()
    check(page, "sixty")
    page.pdf(path=tmp_path / "sixty.pdf", format="A4")
    printed = [sheet.extract_text() for sheet in PdfReader(tmp_path / "sixty.pdf").pages]
    assert LONG_NAME.partition("-")[0] in printed[0]
    assert "You are reading" not in printed[0]
    assert "".join(printed).count("Platelets") == 10
    for name in ("Culture", "Colour"):
        page.goto(f"{site}/my/patients/savita/trends?name={name}")
        check(page, f"their-trend-{name.lower()}")


@contextlib.contextmanager
def sick_site(settings: Any, upload_url: str) -> Iterator[str]:
    """A browse API whose store is away."""
    nowhere = "mongodb://127.0.0.1:1/is_away?serverSelectionTimeoutMS=200"
    application = make_app(dataclasses.replace(settings, mongo_url=nowhere, auth_url=upload_url))
    server = make_server("127.0.0.1", 0, application, threaded=True)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    application.close()


def test_one_browses_filters_and_follows_a_value_by_keyboard_and_mouse(page: Any, site: str) -> None:
    page.goto(f"{site}/my/login")
    page.get_by_label("Username").focus()
    page.keyboard.type("bholanath")
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{site}/my/")
    assert page.locator(".rows > li").count() == 20
    page.get_by_role("link", name="Older reports").click()
    assert page.locator(".rows > li").count() == 8
    page.get_by_role("link", name="Back to the newest").click()
    page.get_by_role("link", name="More …").click()
    page.get_by_label("Kind of check-up").select_option(label="Blood count")
    page.get_by_role("button", name="Show").click()
    page.get_by_text("of the kind “BLOOD COUNT”").wait_for()
    assert page.locator(".rows > li").count() == 1
    row(page, "Blood count").click()
    platelets = page.locator(".result", has_text="Platelets")
    assert "far above the usual range" in platelets.inner_text()
    marker, usual = platelets.locator(".at").bounding_box(), platelets.locator("rect.usual").bounding_box()
    assert marker["x"] > usual["x"] + usual["width"]
    page.get_by_role("link", name="My reports").first.click()
    page.locator(".glance").get_by_role("link", name="Diastolic blood pressure").click()
    chart = page.locator(".plot")
    assert "24 values" in page.locator("figcaption").inner_text()
    assert chart.locator(".dot").count() == 24
    last = chart.locator("a").last
    assert "mmHg, 21 Sep 2026" in last.locator("title").text_content()
    assert last.get_attribute("href") == page.locator("tbody a").first.get_attribute("href")
    page.locator("summary").click()
    band = chart.locator(".band").first
    assert band.evaluate("e => getComputedStyle(e).fill") not in ("rgb(0, 0, 0)", "none")
    assert page.locator("tbody tr").count() == 24


def test_without_javascript_all_is_there(chromium: Any, site: str) -> None:
    with browser.open_page(chromium, java_script_enabled=False) as page:
        log_in(page, site, "bholanath")
        row(page, "Blood count").click()
        assert "below the usual range" in page.content()
        page.get_by_role("button", name="Log out").click()
        page.get_by_text("You are logged out").wait_for()


def test_times_are_in_the_readers_zone_where_javascript_runs(chromium: Any, site: str) -> None:
    with browser.open_page(chromium, timezone_id="America/New_York") as page:
        log_in(page, site, "bholanath")
        row(page, "Blood count").click()
        for path in (page.url, f"{site}/my/print"):
            page.goto(path)
            assert "18 November 2026, 00:10" in page.content()
            assert page.locator(".zone").inner_text() == "America/New York"
        page.goto(f"{site}/my/?from=2026-11-18&to=2026-11-18&type=BLOOD+COUNT")
        assert page.locator(".rows > li").count() == 1


def test_after_logging_out_the_back_button_shows_nothing(page: Any, site: str) -> None:
    log_in(page, site, "bholanath")
    row(page, "Blood count").click()
    address = page.url
    assert "Hemoglobin" in page.content()
    page.get_by_role("button", name="Log out").click()
    page.get_by_text("You are logged out").wait_for()
    assert {cookie["name"] for cookie in page.context.cookies()} == {"myhealth_visitor", "myhealth_zone"}
    for _ in range(2):
        page.go_back()
        page.wait_for_load_state()
        assert "Hemoglobin" not in page.content()
        assert "Blood count" not in page.content()
        assert page.get_by_label("Password").is_visible()
    page.goto(address)
    assert page.get_by_label("Password").is_visible()


@pytest.mark.parametrize(("paper", "size_pt"), [("A4", A4_PT), ("Letter", LETTER_PT)])
def test_pages_print_whole_on_paper(page: Any, site: str, tmp_path: Path, paper: str, size_pt: tuple[int, int]) -> None:
    from pypdf import PdfReader

    log_in(page, site, "bholanath")
    row(page, "Blood count").click()
    printed = {
        "report": page.url,
        "print": f"{site}/my/print",
        "trend": f"{site}/my/trends?code=8462-4",
        "list": f"{site}/my/",
    }
    texts = {}
    for name, address in printed.items():
        page.goto(address)
        page.pdf(path=tmp_path / f"{name}.pdf", format=paper)
        reader = PdfReader(tmp_path / f"{name}.pdf")
        texts[name] = [sheet.extract_text() for sheet in reader.pages]
        for sheet in reader.pages:
            width, height = float(sheet.mediabox.width), float(sheet.mediabox.height)
            assert (width, height) == pytest.approx(size_pt, abs=1)
    assert len(texts["report"]) == 1
    report = texts["report"][0]
    for expected in ("Report of Bholanath Joshi", "Hemoglobin", "below the usual range", "12.0 to 17.5 g/dL", "1 / 1"):
        assert expected in report
    for text in [sheet for sheets in texts.values() for sheet in sheets]:
        assert "Log out" not in text
        assert "My trends" not in text
    for name, sheets in texts.items():
        assert "Bholanath Joshi (bholanath)" in sheets[0], f"on paper nobody knows whose {name} this is"
    whole = " ".join(" ".join(texts["print"]).split())  # a cell may take two lines
    assert whole.count("Systolic blood pressure") == 24
    assert f"{len(texts['print'])} / {len(texts['print'])}" in texts["print"][-1]


def test_all_days_of_a_matrix_fit_on_paper(page: Any, site: str) -> None:
    log_in(page, site, "bholanath")
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 680, "height": browser.HEIGHT_PX})  # A4 without its margins
    page.goto(f"{site}/my/matrix")
    assert page.locator("thead th").count() == 9
    assert page.evaluate("document.documentElement.scrollWidth") <= 680


def test_a_phone_shows_a_trend_that_can_be_read(page: Any, site: str) -> None:
    log_in(page, site, "bholanath")
    for width in (browser.WIDTHS_PX[0], 430, 544, *browser.WIDTHS_PX[1:]):
        page.set_viewport_size({"width": width, "height": browser.HEIGHT_PX})
        page.goto(f"{site}/my/trends?code=8462-4")
        for row in page.locator("tbody tr").all():
            day, value = (row.locator(cell).bounding_box() for cell in ("a", "td:nth-child(2)"))
            assert day["x"] + day["width"] + 8 <= value["x"], f"a day runs into its value at {width} px"
        chart = page.locator(".plot")
        per_unit = chart.bounding_box()["width"] / float(chart.get_attribute("viewBox").split()[2])
        shown = [text for text in chart.locator("text").all() if text.is_visible()]
        assert len(shown) >= 4
        for text in shown:
            assert 10 < per_unit * text.evaluate("e => parseFloat(getComputedStyle(e).fontSize)") < 18, width
        days = [text.bounding_box() for text in chart.locator(".axis.x text").all() if text.is_visible()]
        assert days[0]["x"] >= 0
        assert days[-1]["x"] + days[-1]["width"] <= width
        for one, next_one in itertools.pairwise(days):
            assert one["x"] + one["width"] < next_one["x"]


def test_the_head_of_a_page_stays_where_it_is_on_a_phone(page: Any, site: str) -> None:
    page.set_viewport_size({"width": browser.WIDTHS_PX[0], "height": browser.HEIGHT_PX})
    log_in(page, site, "bholanath")
    places = set()
    for path in ("/my/", "/my/trends", "/my/access-log", "/my/print"):
        page.goto(site + path)
        boxes = [each.bounding_box() for each in [page.locator("main"), *page.locator(".top .tabs a").all()]]
        places.add(tuple((box["x"], box["y"]) for box in boxes))
        assert page.locator(".who").evaluate("e => e.scrollWidth <= e.clientWidth && e.scrollHeight <= e.clientHeight")
    assert len(places) == 1


def test_a_phone_shows_text_of_twice_the_size(page: Any, site: str) -> None:
    """Nothing is cut, nothing lies over another, and one scrolls in one direction alone."""
    page.set_viewport_size({"width": browser.WIDTHS_PX[0], "height": browser.HEIGHT_PX})
    log_in(page, site, "bholanath")
    report = row(page, "Laboratory panel").get_attribute("href")
    for path in ("/my/", report, "/my/print", "/my/trends", "/my/trends?code=8462-4", "/my/access-log", "/my/filter"):
        page.goto(site + path)
        page.evaluate("document.documentElement.style.fontSize = '200%'")
        assert browser.fits(page), path
        brand, who, button = (page.locator(f".top {each}").bounding_box() for each in (".brand", ".who", "button"))
        assert brand["x"] + brand["width"] <= who["x"] or brand["y"] + brand["height"] <= who["y"]
        assert who["x"] + who["width"] <= button["x"]
        assert who["width"] > 60
        assert all(name.bounding_box()["width"] > 200 for name in page.locator("dt").all()), (
            "a name is broken to pieces"
        )


def test_with_the_colours_of_the_system_the_current_tab_can_be_told(chromium: Any, site: str) -> None:
    with browser.open_page(chromium, forced_colors="active") as page:
        log_in(page, site, "bholanath")
        current, *others = page.locator(".tabs a").evaluate_all(
            "tabs => tabs.map(tab => getComputedStyle(tab).borderBottomColor)"
        )
        assert others == [page.locator("body").evaluate("e => getComputedStyle(e).backgroundColor")] * 2
        assert current not in others


def test_the_whole_name_of_a_measurement_is_read_in_the_matrix(page: Any, site: str) -> None:
    log_in(page, site, "bholanath")
    page.goto(f"{site}/my/matrix")
    for width in browser.WIDTHS_PX:
        page.set_viewport_size({"width": width, "height": browser.HEIGHT_PX})
        names = page.locator("tbody th[scope=row]")
        cut = names.evaluate_all(
            "all => all.filter(e => e.scrollWidth > e.clientWidth || e.querySelector('a').getBoundingClientRect().right > e.getBoundingClientRect().right).map(e => e.textContent)"
        )
        assert names.count() > 10
        assert cut == [], width


def test_what_runs_from_right_to_left_stands_with_what_belongs_to_it(page: Any, site: str) -> None:
    left_of = """(each, words) => {
        const text = document.createRange(), node = each.firstChild, begin = words ? node.data.indexOf(words) : 0;
        text.setStart(node, begin); text.setEnd(node, words ? begin + words.length : node.length);
        return text.getBoundingClientRect().left; }"""
    log_in(page, site, "bholanath")
    row(page, "Laboratory panel").click()
    measured = page.locator(".result", has_text="ضغط الدم")
    assert measured.locator("h3 a").evaluate(left_of) == measured.bounding_box()["x"]
    said = page.locator(".said")
    edge = said.bounding_box()["x"]
    assert said.evaluate(left_of, "Please") == edge
    assert said.evaluate(left_of, "تم الفحص") > edge + 100


def test_what_is_usual_has_not_the_colour_of_a_warning(page: Any, site: str) -> None:
    log_in(page, site, "bholanath")
    colours: dict[str, set[str]] = {}
    for path in ("/my/print", "/my/trends?code=8462-4"):
        page.goto(site + path)
        for shape in page.locator("tbody .shape").all():
            colour = shape.evaluate("e => getComputedStyle(e).color")
            colours.setdefault(shape.text_content(), set()).add(colour)
    assert set(colours) >= set("✓▲▼◆–")
    assert all(len(found) == 1 for found in colours.values())
    assert colours["▲"] == colours["▼"] == colours["◆"]
    assert len({*colours["▲"], *colours["✓"], *colours["–"]}) == 3
    page.set_viewport_size({"width": browser.WIDTHS_PX[0], "height": browser.HEIGHT_PX})
    page.goto(f"{site}/my/print")
    assert page.get_by_text("Usual range: ").first.is_visible()


def test_what_is_hardly_possible_is_told_and_fits(page: Any, site: str, settings: Any, reports: Any) -> None:
    take(*temperatures("savita"))
    run_pass(settings.database_url, ReportWriter(reports), settings)
    log_in(page, site, "savita")
    for name, path in {"trend": "/my/trends?code=8310-5", "print": "/my/print", "list": "/my/"}.items():
        page.goto(site + path)
        assert "hardly possible" in page.content()
        check(page, f"impossible-{name}")
    page.locator(".row", has_text="Temperature").nth(1).click()
    page.get_by_text("Please ask the place where it was measured.").wait_for()
    check(page, "impossible-report")


def test_whatever_is_known_of_a_report_is_accessible_and_fits(
    page: Any, site: str, settings: Any, reports: Any
) -> None:
    create_user("meera", password=PASSWORD)
    take(*rich("meera"))
    run_pass(settings.database_url, ReportWriter(reports), settings)
    log_in(page, site, "meera")
    check(page, "rich-list")
    row(page, "Laboratory").click()
    page.get_by_text("About this check-up").wait_for()
    check(page, "rich-report")
    for name, path in {"trends": "/my/trends", "trend": "/my/trends?code=718-7", "print": "/my/print"}.items():
        page.goto(site + path)
        check(page, f"rich-{name}")
    take({**rich("meera")[0], "status": "final"})
    run_pass(settings.database_url, ReportWriter(reports), settings)
    page.get_by_role("button", name="Log out").click()
    log_in(page, site, "dr.ayush")
    page.goto(f"{site}/my/patients/meera")
    row(page, "Laboratory").click()
    page.get_by_role("link", name="Earlier versions").click()
    page.get_by_role("heading", name="Version 1, until").wait_for()
    check(page, "rich-history")


def test_what_is_to_review_and_the_form_are_accessible_and_fit(
    page: Any, site: str, settings: Any, reports: Any
) -> None:
    log_in(page, site, "dr.ayush")
    page.goto(f"{site}/my/to-review")
    check(page, "to-review")
    browser.shoot(page, "to-review")
    page.locator(".row").first.click()
    page.get_by_label("Note for the patient").fill("Please come again in a week, in the morning.")
    browser.shoot(page, "review-form")
    page.get_by_role("button", name="Reviewed").click()
    page.get_by_text("It is noted.").wait_for()
    run_pass(settings.database_url, ReportWriter(reports), settings)
    page.reload()
    page.get_by_role("heading", name="Reviewed by").wait_for()
    check(page, "reviewed")
    browser.shoot(page, "reviewed")


def test_the_description_of_an_api_is_short_on_a_phone(page: Any, people: Any, served: tuple[str, str]) -> None:
    """It was 38,967 px."""
    page.set_viewport_size({"width": browser.WIDTHS_PX[0], "height": browser.HEIGHT_PX})
    for url in served:
        page.goto(f"{url}/docs")
        assert page.evaluate("document.documentElement.scrollHeight") <= 3_897, url
