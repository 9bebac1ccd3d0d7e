"""The pages of reports: values, filters, downloads, dates."""

import csv
import dataclasses
import html
import io
import json
import re
from urllib.parse import quote, unquote

from support.factories import record, take
from support.page_client import Browser, pages_of, plain
from support.page_data import history, present, result, rich, sixty, temperatures, varied

from myhealth.checkups.models import Checkup
from myhealth.intake.formats.registry import read_dump
from myhealth.intake.pipeline import Intake
from myhealth.intake.results import ImportSource
from myhealth.profiles.services import create_user, set_active, set_full_name, set_person
from myhealth.reports.access_log import Access
from myhealth.reports.writer import ReportWriter
from myhealth.sync.runner import run_pass
from wsgi.browse import make_app
from wsgi.browse_pages import reports as report_pages


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
        return re.findall(r'class="row" href="/my/reports/(\d+)"', browser.get(f"/my/?{query}").text)

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
    for asked, words in (
        ("from=2026-10-01&to=2026-11-30&text=sinus", "with the words “sinus”, from 1 October 2026 to 30 November 2026"),
        ("from=2026-11-20&to=2026-11-20", "of 20 November 2026"),
        ("from=2026-11-20", "since 20 November 2026"),
        ("to=2026-11-20", "up to 20 November 2026"),
    ):
        assert f">{words}</strong> are shown" in browser.get(f"/my/?{asked}").text, words
    assert shown("from=2026-11-22") == []
    assert 0 < len(shown("abnormal=true&from=2026-11-01")) < 4


def test_pages_for_paper_have_the_birth_date_where_it_is_known(browser: Browser, people, sync) -> None:
    take(record(1), record(2, "savita"))
    set_person("bholanath", birth_date="1961-04-02")
    sync()
    pages = ("/reports/{}", "/print", "/trends?code=8480-6", "/trends", "/matrix")
    application = browser.client.application
    for name, number, born in (("bholanath", 1, True), ("savita", 2, False)):
        browser = Browser(application)
        browser.log_in(name)
        for path in pages:
            text = html.unescape(re.sub(r"<[^>]+>", "", browser.get(f"/my{path.format(number)}").text))
            assert ("1961-04-02" in text, "orn" in text) == (born, born), path
        browser = Browser(application)
        browser.log_in("dr.ayush")
        for path in pages:
            whose = f"/my/patients/{name}" + (path.format(number) if "reports" not in path else "/print")
            assert (", born 1961-04-02" in browser.get(whose).text) is born, whose


def test_a_reference_of_fhir_is_no_persons_name(browser: Browser, people, sync) -> None:
    take(record(1, taken_by="Practitioner/example"), record(2, taken_by="Lab/2"))
    sync()
    browser.log_in("bholanath")
    pages = [browser.get(path).text for path in ("/my/reports/1", "/my/reports/2", "/my/print")]
    assert ["Practitioner" in page for page in pages] == [False, False, False]
    assert ["Lab/2" in page for page in pages] == [False, True, True]


def test_a_page_for_paper_says_what_it_leaves_out(browser: Browser, people, settings, reports, monkeypatch) -> None:
    take(*history("bholanath", 4))
    run_pass(settings.database_url, ReportWriter(reports), settings)
    browser.log_in("bholanath")
    assert "Only reports" not in browser.get("/my/print").text
    some = browser.get("/my/print?from=2024-11-04&text=fine").text
    assert "with the words “fine”, since 4 November 2024" in some
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
    # both values of a blood pressure are components of one Observation
    assert (kinds.count("DiagnosticReport"), kinds.count("Observation")) == (22, 22)
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
    assert browser.get("/my/access-log").text.count("dr.ayush") == 3


def test_files_and_windows_of_several_patients_are_known_apart(application, people, settings, reports) -> None:
    create_user('सविता"7', full_name="Savita D.")
    take(record(1, 'सविता"7'), record(2))
    run_pass(settings.database_url, ReportWriter(reports), settings)
    doctor = Browser(application)
    doctor.log_in("dr.ayush")
    path = "/my/patients/" + quote('सविता"7')
    told = doctor.get(f"{path}/download/fhir").headers["Content-Disposition"]
    assert re.match(r'attachment; filename="health-reports-_+7-[\d-]+\.json"; filename\*=UTF-8', told)
    assert unquote(told.partition("''")[2]).startswith('health-reports-सविता"7-')
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
    assert re.search(r">21 Nov\b", browser.get("/my/").text)
    assert "Asia/Kolkata" in browser.get("/my/").text
    assert re.search(r">21 Nov\b", browser.get("/my/?from=2026-11-21&to=2026-11-21").text)
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
            if path != "/my/filter" and path != "/my/access-log":
                assert re.search(rf"\b{day} Nov(ember)?\b", page), path
                assert not re.search(rf"\b{41 - day} Nov(ember)?\b", page), path
    assert "No report matches" in dated("Asia/Kolkata", "/my/?from=2026-11-20&to=2026-11-20")
    assert "No report matches" not in dated("America/New_York", "/my/?from=2026-11-20&to=2026-11-20")
    for nonsense in ("Asia", "../../etc/passwd", "", "Nowhere/At_All", "x" * 3000, "posix/Asia/Kolkata"):
        assert "20 Nov 2026" in dated(nonsense, "/my/")


def test_of_what_is_known_by_its_day_no_time_is_shown(browser: Browser, people, settings, reports) -> None:
    told = {"1999-07-02": "2 July 1999", "1999-07": "July 1999", "1999": "1999"}
    observed = {"resourceType": "Observation", "status": "final", "subject": {"reference": "Patient/bholanath"}}
    measured = {"code": {"text": "Pulse"}, "valueQuantity": {"value": 60, "unit": "/min"}}
    lines = [json.dumps({**observed, **measured, "effectiveDateTime": text}) for text in told]
    outcomes = Intake(ImportSource("a file", format="fhir")).store_batch(
        list(read_dump(io.BytesIO("\n".join(lines).encode())).records)
    )
    assert [outcome.status for outcome in outcomes] == ["accepted"] * 3
    take(record(1, taken_at="2026-11-20T12:00:00Z"), record(2, taken_at="2026-11-21T12:00:01Z", checkup_report="Only the day is known."))  # fmt: skip
    run_pass(settings.database_url, ReportWriter(reports), settings)
    browser.client.set_cookie("myhealth_zone", "Pacific/Kiritimati", domain="localhost", path="/my")  # 14 hours ahead
    browser.log_in("bholanath")
    listed = browser.get("/my/")
    rows = re.findall(r'datetime="([^"]*)">([^<>]*)</time>', listed.text.partition('id="reports"')[2])
    assert [text.partition(" ·")[0] for _, text in rows] == ["22 Nov", "21 Nov", "2 Jul", "July 1999", "1999"]
    assert [moment for moment, _ in rows][2:] == list(told)
    assert re.findall(r'class="month">([^<]*)<', listed.text) == ["November 2026", "July 1999", "1999"]
    numbers = re.findall(r'"(/my/reports/\d+)"', listed.text)[2:]
    for path, words in zip(numbers, told.values(), strict=True):
        page = browser.get(path).text
        assert f", {words} · MyHealth</title>" in page
        assert f">{words}</time>" in page
    printed = plain(browser.get("/my/print"))
    for words in told.values():
        assert f"{words} ·" in printed


def test_a_report_that_was_changed_says_when(browser: Browser, people, settings, reports) -> None:
    take(record(1), record(2))
    Checkup.update(disease="corrected").where(Checkup.record_id == "2").execute()
    run_pass(settings.database_url, ReportWriter(reports), settings)
    browser.log_in("bholanath")
    texts = [
        plain(browser.get(path))
        for path in re.findall(r'class="row" href="(/my/reports/\d+)"', browser.get("/my/").text)
    ]
    assert sorted("Last changed" in text for text in texts) == [False, True]


def test_a_list_of_what_is_as_usual_says_so(browser: Browser, people, settings, reports) -> None:
    run_pass(settings.database_url, ReportWriter(reports), settings)
    browser.log_in("bholanath")
    for value, words in (("true", "something"), ("false", "nothing"), ("0", "nothing")):
        assert f"with {words} outside its usual range" in plain(browser.get(f"/my/?abnormal={value}"))


def test_what_a_page_marks_is_what_the_filter_finds(people, settings, reports) -> None:
    unflagged = record("u", "bholanath", results=[result("Pulse", 130, "/min", 60, 100)])
    take(
        *history("bholanath", 22),
        *varied("bholanath"),
        *sixty("bholanath"),
        *temperatures("bholanath"),
        *rich("bholanath"),
        unflagged,
    )
    run_pass(settings.database_url, ReportWriter(reports), settings)
    found = list(reports.reports.find())
    assert len(found) > 30
    for report in found:
        assert report["abnormal"] == any(present(each).is_unusual for each in report["results"]), report


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


def test_nobody_is_named_twice_and_no_brackets_are_empty(application, people, settings, reports) -> None:
    take(record(1), record(2, patient="savita"))
    set_full_name("bholanath", "Bholanath")
    set_full_name("savita", "Savita Deshpande")
    set_full_name("dr.ayush", "Dr. Ayush Kulkarni")
    run_pass(settings.database_url, ReportWriter(reports), settings)
    patient = reports.people.find_by_username("bholanath")
    reports.access_log.log(Access.by_operator("ops at the command line", patient, "reports"))
    browser, staff = Browser(application), Browser(application)
    browser.log_in("bholanath")
    staff.log_in("dr.ayush")
    staff.get("/my/patients/bholanath")
    looks = plain(browser.get("/my/access-log"))
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


def test_no_control_character_and_no_override_reaches_a_page(application, people, settings, reports) -> None:
    """Units and texts of other programs, names and addresses; the API still has them as they are stored."""
    odd = "mg\u202e\u2066\x9b1m\x7fLd"
    take(
        *[record(f"x{i}", results=[{"name": "Sugar", "value": i, "unit": "mg", "low": 1, "high": 2}]) for i in range(3)]
    )
    run_pass(settings.database_url, ReportWriter(reports), settings)
    changed = {"results.$[].unit": odd, "results.$[].name": odd, "checkup_type": odd, "checkup_report": odd,
               "taken_by": odd, "machine": odd, "disease": odd}  # fmt: skip
    collection = reports.state.database["reports"]
    assert collection.update_many({}, {"$set": changed}).modified_count == 3
    reports.state.database["users"].update_one({"username": "bholanath"}, {"$set": {"full_name": odd}})
    browser, staff = Browser(application), Browser(application)
    browser.log_in("bholanath")
    staff.log_in("dr.ayush")
    number = re.search(r"/my/reports/(\d+)", browser.get("/my/").text).group(1)
    name = quote(odd)
    paths = ["/my/", f"/my/reports/{number}", "/my/trends", f"/my/trends?name={name}", "/my/print", "/my/filter",
             f"/my/?text={name}"]  # fmt: skip
    answers = [browser.get(path) for path in paths] + [staff.get(f"/my/patients?q={name}"), staff.get("/my/patients")]
    answers += [Browser(application).log_in(odd, odd)]
    for answer in answers:
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", answer.text), (
            answer.request.path
        )
    assert "mg1mLd" in answers[0].text
    assert "<bdi>1 to 2 mg1mLd</bdi>" in answers[1].text
    token = browser.cookie().value
    sent = application_get(application, token)
    assert sent[0]["results"][0]["unit"] == odd, "stored data are unchanged"


def application_get(application, token: str):
    return Browser(application).get("/reports/", headers={"x-access-token": token}).json


def test_what_is_known_of_a_checkup_is_on_its_page_in_the_list_and_on_paper(
    browser: Browser, people, settings, reports
) -> None:
    assert [each.errors for each in take(*rich("bholanath"))] == [[], [], []]
    run_pass(settings.database_url, ReportWriter(reports), settings)
    browser.log_in("bholanath")
    numbers = re.findall(r'class="row" href="/my/reports/(\d+)"', browser.get("/my/").text)
    pages = " ".join(plain(browser.get(f"/my/reports/{number}")) for number in numbers)
    whole = ("Status: preliminary; it may still change", "November 2026", "time not known; received on", "Patient was not fasting")  # fmt: skip
    listed = ("Status: preliminary; it may still change", "November 2026", "Time not known", "received on")
    for path, expected in (("/my/", listed), ("/my/print", whole)):
        assert [words for words in expected if words not in plain(browser.get(path))] == []
    assert [words for words in whole if words not in pages] == []
    details = ("Central laboratory", "Known diabetes", "women: 12 to 16 g/dL · men: 14 to 18 g/dL", "haemolysed (Dr. Rao, 20 November 2026)", "Urine", "Photometry")  # fmt: skip
    for text in (pages, plain(browser.get("/my/print"))):
        for expected in details:
            assert expected in text, expected
    assert "Time there" in pages
    assert "20 November 2026, 09:14 (UTC+05:30)" in pages
    assert "final" not in pages
    found = [plain(browser.get(f"/my/?text={word}")) for word in ("not+fasting", "haemolysed")]
    assert ["No report matches" in page for page in found] == [False, False]


def test_a_moment_that_only_sorts_leaves_no_answer(browser: Browser, people, settings, reports, browse, log_in) -> None:
    take(*rich("bholanath"))
    run_pass(settings.database_url, ReportWriter(reports), settings)
    token = log_in("bholanath")
    listed = browse("GET", "/reports/", token=token).json
    unknown = [each for each in listed if each.get("taken_precision") == "unknown"]
    assert [each["taken_at"] for each in unknown] == [None]
    assert browse("GET", f"/reports/{unknown[0]['id']}/", token=token).json["taken_at"] is None
    points = browse("GET", "/users/bholanath/trends/?code=718-7", token=token).json
    assert [point["taken_at"] for point in points] == ["2026-11-20T03:44:00Z", None]
    assert [point["value"] for point in points] == [11.2, 13]
    measured = {each["name"]: each for each in browse("GET", "/users/bholanath/trends/", token=token).json}
    assert measured["Hemoglobin"]["first_at"] == "2026-11-20T03:44:00Z"
    assert measured["Grip"]["first_at"] is None


def test_staff_see_earlier_versions_whole_and_patients_do_not(
    browser: Browser, application, people, settings, reports
) -> None:
    first = {**result("Potassium", 6.9, "mmol/L", 3.5, 5.1, "H", "2823-3"), "status": "preliminary"}
    [sent] = take(record("k", "bholanath", status="preliminary", results=[first]))
    take(record("k", "bholanath", status="final", results=[{**first, "value": 5.10, "status": "final", "flag": "N"}]))
    run_pass(settings.database_url, ReportWriter(reports), settings)
    staff, path = Browser(application), f"/my/reports/{sent.id}"
    staff.log_in("dr.ayush")
    browser.log_in("bholanath")
    assert f'href="{path}/history"' in staff.get(path).text
    page = plain(staff.get(f"{path}/history"))
    for expected in (
        "Version 1, until",
        "replaced by its source",
        "Status: preliminary",
        "6.9 mmol/L",
        "above the usual range",
    ):
        assert expected in page, expected
    assert "Earlier versions" not in plain(browser.get(path))
    assert browser.get(f"{path}/history").status_code == 404
    assert staff.get("/my/reports/999999/history").status_code == 404
