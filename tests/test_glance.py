"""The overview of a patient's measurements, what changed since the last time, the matrix, and the guide to the tests."""

from __future__ import annotations

import itertools
import json
import random
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.factories import document, record, take
from support.page_client import Browser, plain
from support.page_data import XSS, result

from myhealth.checkups.models import Checkup
from myhealth.clinical import catalog, guide
from myhealth.clinical.series import series_key
from myhealth.profiles.services import create_user, set_full_name
from myhealth.reports import repository
from myhealth.reports.filters import PageCursor
from myhealth.reports.repository import ReportRepository
from myhealth.reports.writer import ReportWriter
from myhealth.sync.runner import run_pass
from wsgi.browse_pages.charts import DAY_TICKS_MAX, day_ticks
from wsgi.browse_pages.glance import difference

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
PATIENT = {"_id": 7, "subject": "s7"}
UPPER = {"code": "8480-6", "name": "Systolic blood pressure", "unit": "mm[Hg]", "low": 90, "high": 120}
LOWER = {"code": "8462-4", "name": "Diastolic blood pressure", "unit": "mm[Hg]", "low": 60, "high": 80}


def pressure(upper: Any, lower: Any) -> list[dict[str, Any]]:
    return [{**LOWER, "value": lower}, {**UPPER, "value": upper}]


def shown(browser: Browser, path: str = "/my/") -> list[str]:
    """The measurements at a glance, each as its text."""
    items = re.findall(r'<ul class="glance">(.*?)</ul>', browser.get(path).text, re.DOTALL)
    return [" ".join(re.sub("<[^>]+>", " ", text).split()) for text in re.findall(r"<li.*?</li>", "".join(items), re.DOTALL)]  # fmt: skip


@pytest.fixture
def synced(people, settings, reports):
    """Put records into the report store."""

    def sync(*records: dict[str, Any]) -> None:
        assert [each.errors for each in take(*records)] == [[] for _ in records]
        run_pass(settings.database_url, ReportWriter(reports), settings)

    return sync


def test_each_measurement_is_shown_once_with_its_latest_value_and_its_change(browser: Browser, synced) -> None:
    glucose = [result("Glucose", value, "mg/dL", code=code) for value, code in ((110, "2345-7"), (104, "2339-0"))]
    synced(
        record(1, taken_at="2026-11-01T09:00:00Z", results=[*pressure(142, 84), glucose[0], result("Grip", 40, "kg")]),
        record(2, taken_at="2026-11-20T09:00:00Z", results=[*pressure(128, 79), glucose[1]]),
        record(3, taken_at="2026-11-10T09:00:00Z", results=[result("Urine protein", "trace")]),
        record(4, taken_at="2026-11-12T09:00:00Z", results=[result("Urine protein", "negative")]),
    )
    browser.log_in("bholanath")
    assert shown(browser) == [
        "Blood pressure ▲ 128/79 mmHg upper value a little above the usual range 20 Nov 2026 · −14 / −5 since 1 Nov 2026",
        "Glucose ✓ 104 mg/dL within the usual range 20 Nov 2026 · −6 since 1 Nov 2026",
        "Urine protein negative no usual range given 12 Nov 2026 · before: trace on 10 Nov 2026",
        "Grip 40 kg no usual range given 1 Nov 2026",
    ]
    page = browser.get("/my/").text
    assert page.index("At a glance") < page.index("Check-ups")
    assert page.count('<svg class="spark"') == 2, "a text and a single value have no line"
    assert 'href="/my/trends?code=85354-9"' in page
    assert shown(browser, "/my/trends") == shown(browser)
    assert shown(browser, "/my/?abnormal=true") == []


def test_the_glance_follows_corrections_deletions_and_what_is_withdrawn(browser: Browser, synced, settings, reports) -> None:  # fmt: skip
    synced(record(1, taken_at="2026-11-01T09:00:00Z"), record(2, results=[{**UPPER, "value": 140}]))
    browser.log_in("bholanath")
    assert "140 mmHg" in shown(browser)[0]
    Checkup.update(results=[{**UPPER, "value": 133}]).where(Checkup.record_id == "2").execute()
    run_pass(settings.database_url, ReportWriter(reports), settings)
    assert "133 mmHg" in shown(browser)[0]
    synced(record(2, status="entered-in-error", details={"version": "2"}, results=[]))
    assert "128 mmHg" in shown(browser)[0]
    Checkup.delete().execute()
    run_pass(settings.database_url, ReportWriter(reports), settings)
    assert shown(browser) == []


@pytest.mark.parametrize("seed", range(4))
def test_the_newest_values_are_those_of_all_reports(reports: ReportRepository, monkeypatch, seed: int) -> None:
    """However few reports one query reads, and whatever else was measured meanwhile."""
    monkeypatch.setattr(repository, "NEWEST_READ", 3)
    monkeypatch.setattr(repository, "NEWEST_READ_FIRST", 2)
    chosen = random.Random(seed)
    tests = [("2345-7", "Glucose"), ("2339-0", "Blood sugar"), (None, "Grip"), (None, "Colour"), ("8480-6", "BP")]
    documents = []
    for i in range(40):
        measured = chosen.sample(tests[:1] if chosen.random() < 0.8 else tests, 1)
        specimens = [None] * 9 + ["Serum", "Urine"]
        results = [
            {**result(name, i, chosen.choice(("kg", "mg")), code=code), "specimen": chosen.choice(specimens)}
            for code, name in measured
        ]
        details = {"specimen": chosen.choice(specimens)}
        documents.append(
            document(i + 1, taken_at=BEGIN + timedelta(days=i // 2), results=_json(results), details=details)
        )
    ReportWriter(reports).insert("checkup", documents)
    for most, after in ((1, None), (4, None), (4, documents[20])):
        begun = PageCursor.of(after) if after else None
        expected: dict[Any, list[Any]] = {}
        for each in reports.find(PATIENT, limit=100, after=begun):
            for found in each["results"]:
                key = series_key({**found, "specimen": found["specimen"] or each["details"]["specimen"]})
                of_test = expected.setdefault((key.test, key.specimen), [])
                if not of_test or of_test[0][0] == key.unit:
                    of_test.append((key.unit, found["value"]))
        for options in ({"after": begun}, {"read": reports.find(PATIENT, limit=7, after=begun)}):
            newest = reports.newest(PATIENT, most, **options).points()
            assert {key: [point.value for point in points] for key, points in newest.items()} == {
                key: [value for _, value in values[:most]] for key, values in expected.items()
            }


def _json(results: Any) -> str:
    import json

    return json.dumps(results)


def test_results_of_any_form_leave_every_page_standing(browser: Browser, people, reports, synced) -> None:
    synced(record(1))
    user = reports.people.find_by_username("bholanath")
    odd = [None, 5, "text", {}, {"code": {}, "name": [], "value": {}}, {"code": 7, "name": "x", "value": [1]},
           {"code": "8480-6", "value": {"a": 1}, "unit": {}}, {"name": XSS, "code": XSS, "value": XSS, "unit": XSS},
           {"code": "8480-6", "value": 10**17, "unit": "mm[Hg]"}, {"name": "x", "value": "1e999"}]  # fmt: skip
    for i, results in enumerate([odd, "text", None, odd[::-1]]):
        made = document(900 + i, patient_id=user["_id"], subject=user["subject"])
        ReportWriter(reports).insert("checkup", [{**made, "results": results}])
    browser.log_in("bholanath")
    for path in (
        "/my/",
        "/my/trends",
        "/my/matrix",
        "/my/trends?code=85354-9",
        *(f"/my/reports/90{i}" for i in range(4)),
    ):
        page = browser.get(path)
        assert page.status_code == 200, path
        assert "<script>" not in page.text


def test_what_is_new_or_changed_since_the_last_login_is_marked(application, synced, reports) -> None:
    synced(*[record(i, checkup_type=kind) for i, kind in enumerate(("OLD", "CHANGED", "LATE", "NEW"))])
    now = datetime.now(UTC)
    # the sync may take minutes: what was stored just before the last login counts as new
    moments = {"OLD": (-60, -60, 2), "CHANGED": (-60, 5, 2), "LATE": (-5, -5, 1), "NEW": (5, 5, 1)}
    for kind, (created, updated, revision) in moments.items():
        changed = {"created_at": now + timedelta(minutes=created), "updated_at": now + timedelta(minutes=updated)}
        reports.reports.update_one({"checkup_type": kind}, {"$set": {**changed, "revision": revision}})
    first, again = Browser(application), Browser(application)
    first.log_in("bholanath")
    assert 'class="mark"' not in first.get("/my/").text, "at the first login everything would be new"
    again.log_in("bholanath")
    marks = re.findall(r'<strong dir="auto">(\w+)</strong>(?: <span class="mark">(\w+)<)?', again.get("/my/").text)
    assert dict(marks) == {"OLD": "", "Changed": "changed", "LATE": "new", "NEW": "new"}
    assert again.cookie("myhealth_since")
    for odd in ("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "x"):
        again.client.set_cookie("myhealth_since", odd, domain="localhost")
        assert again.get("/my/").status_code == 200
    again.submit(again.get("/my/"), "/my/logout")
    assert again.cookie("myhealth_since") is None


def test_a_report_shows_values_first_and_those_of_the_last_time(application, browser: Browser, synced) -> None:
    set_full_name("dr.ayush", "Dr Ayush Rao")
    set_full_name("savita", "Savita Devi")
    notes = {"notes": [{"text": "Come back in May.", "author": "Dr Ayush Rao"}]}
    synced(
        record(1, taken_at="2026-11-01T09:00:00Z", results=pressure(142, 90), taken_by="savita"),
        record(2, taken_at="2026-11-20T09:00:00Z", results=pressure(165, 90), details=notes, disease="BP"),
        record(3, taken_at="2026-10-20T09:00:00Z", results=[{**UPPER, "value": 99, "unit": "kPa"}]),
    )
    browser.log_in("bholanath")
    newest, older, _ = (
        browser.get(path) for path in re.findall(r'class="row" href="([^"]+)', browser.get("/my/").text)
    )
    text = plain(newest)
    order = [text.index(words) for words in ("Come back in May.", "165/90 mmHg", "ALL FINE", "About this check-up")]
    assert order == sorted(order)
    assert "Last time 142/90 on 1 Nov 2026" in text
    assert "upper value far above the usual range, lower value a little above the usual range" in text
    assert "ESC/ESH guidelines on arterial hypertension, 2018" in text
    assert "What next: ask the place where you had your check-up what this means for you." in text
    assert "Checked forBlood pressure" in text
    assert "Taken byDr Ayush Rao" in text
    printed = plain(browser.get("/my/print"))
    assert ("by Dr Ayush Rao" in printed, "by savita" in printed, "Savita" in printed) == (True, True, False)
    assert re.findall(r"<text [^>]*>([\w ]+)</text>", newest.text) == ["90", "120", "upper 165", "60", "80", "lower 90"]
    assert "Last time" not in plain(older), "another unit is no last time"
    assert "Savita" not in plain(older), "a source may name another patient: the username stays"
    staff = Browser(application)
    staff.log_in("dr.ayush")
    assert "What next" not in plain(staff.get(re.search(r'class="row" href="([^"]+)', staff.get("/my/patients/bholanath").text)[1]))  # fmt: skip


def test_a_last_time_in_another_unit_is_told_with_it(browser: Browser, synced) -> None:
    values = [(5.4, "mmol/L"), (99, "mg/dL"), (99, "mg/dL"), ("negative", None), (104, "mg/dL")]
    days = [
        record(i, taken_at=f"2026-11-0{i}T09:00:00Z", results=[result("Glucose", value, unit, code="2345-7")])
        for i, (value, unit) in enumerate(values, 1)
    ]
    synced(*days)
    browser.log_in("bholanath")
    paths = re.findall(r'class="row" href="([^"]+)', browser.get("/my/").text)
    told = [re.findall(r"(Last time [^<]+|The same as [^<]+)</p>", browser.get(path).text) for path in paths]
    assert told == [
        ["Last time negative on 4 Nov 2026"], ["Last time 99 mg/dL on 3 Nov 2026"],
        ["The same as last time, on 2 Nov 2026"], ["Last time 5.4 mmol/L on 1 Nov 2026"], [],
    ]  # fmt: skip


def test_the_blood_pressure_is_one_trend(browser: Browser, synced) -> None:
    days = [record(i, taken_at=f"2026-0{i}-01T09:00:00Z", results=pressure(120 + i, 70 + i)) for i in range(1, 8)]
    synced(*days, record(9, taken_at="2026-11-20T09:00:00Z", results=[{**UPPER, "value": 170}]))
    browser.log_in("bholanath")
    page = browser.get("/my/trends?code=85354-9")
    assert re.findall(r'<td dir="auto">([^<]+)</td>', page.text)[:2] == ["170/–", "127/77"]
    assert plain(page).count("Lowest 121/71 mmHg on 1 Jan 2026. Highest 170/– mmHg on 20 Nov 2026.") == 1
    assert len(re.findall(r'class="dot', page.text.partition("</figure>")[0])) == 8 + 7
    assert page.text.count('class="line gap"') == 1, "from July to November"
    assert page.text.count("<title>127/77 mmHg, 1 Jul 2026</title>") == 2
    assert "The first number of a blood pressure" in plain(page)
    assert "Called far outside: upper value 160 or more mmHg" in plain(page)
    assert "connect.medlineplus.gov" in page.text
    assert "medlineplus" not in browser.get("/my/trends?name=Grip").text
    assert browser.get("/my/trends?code=8480-6").text.count('<th scope="row">') == 8


def test_no_dash_stands_before_a_value_for_it_reads_as_a_minus(browser: Browser, synced) -> None:
    synced(record(1, results=[result("Grip", 40, "kg"), result("Pulse", 70, "/min", 60, 100, code="8867-4")]))
    browser.log_in("bholanath")
    assert [re.split(r" (?=no usual|within)", text)[0] for text in shown(browser)] == [
        "Pulse ✓ 70 per minute", "Grip 40 kg"
    ]  # fmt: skip
    (row,) = re.findall(r'class="second">(.*?)</a>', browser.get("/my/").text, re.DOTALL)
    assert " ".join(re.sub("<[^>]+>", " ", row).split()).startswith("Grip 40 kg , no usual range given. ✓ Pulse")


def test_a_matrix_has_a_row_for_each_measurement_and_a_column_for_each_day(application, synced) -> None:
    days = [record(i, taken_at=f"2026-11-{i:02}T09:00:00Z", results=pressure(120 + i, 70)) for i in range(1, 11)]
    synced(*days, record(99, taken_at="2026-11-09T10:00:00Z", results=[result("Grip", 40, "kg")]))
    staff = Browser(application)
    staff.log_in("dr.ayush")
    browser = Browser(application)
    browser.log_in("bholanath")
    for reader, path in ((staff, "/my/patients/bholanath"), (browser, "/my/")):
        for page in (path, f"{path.rstrip('/')}/trends"):
            assert f'href="{path.rstrip("/")}/matrix"' in reader.get(page).text
    page = staff.get("/my/patients/bholanath/matrix").text
    assert re.findall(r'<th scope="col">(.*?)</th>', page)[1:] == [f"{day}\u00a0Nov 2026" for day in range(10, 2, -1)]
    first, grip = (re.findall(r"<td>(.*?)</td>", row, re.DOTALL) for row in page.split('<th scope="row">')[1:])
    assert [re.search("<bdi>(.*?)</bdi>", cell)[1] for cell in first] == [f"{120 + day}/70" for day in range(10, 2, -1)]
    assert [bool(cell) for cell in grip] == [False, True] + [False] * 6
    earlier = staff.get(re.search(r'href="([^"]+)" rel="next"', page)[1]).text
    assert re.findall(r'<th scope="col">(.*?)</th>', earlier)[1:] == ["2\u00a0Nov 2026", "1\u00a0Nov 2026"]
    assert "Earlier days" in page
    assert "Earlier days" not in earlier


def test_a_matrix_leaves_out_no_unit_and_counts_further_values_of_a_day(browser: Browser, synced) -> None:
    glucose = [(1, "2026-11-01T09:00:00Z", 125, "mg/dL"), (2, "2026-11-02T08:00:00Z", 5, "mmol/L"),
               (3, "2026-11-02T09:00:00Z", 5.2, "mmol/L")]  # fmt: skip
    synced(
        *(
            record(i, taken_at=at, results=[result("Glucose", value, unit, code="1558-6")])
            for i, at, value, unit in glucose
        ),
        record(4, taken_at="2026-11-03T09:00:00Z", results=pressure(128, 82)),
        record(
            5,
            taken_at="2026-11-01T10:00:00Z",
            results=[{**each, "value": 17, "unit": "kPa"} for each in pressure(1, 1)],
        ),
    )
    browser.log_in("bholanath")
    rows = browser.get("/my/matrix").text.split('<th scope="row">')[1:]
    assert [re.findall(r"<bdi>(.*?)</bdi>|soft\">(\+\d)", row) for row in rows] == [
        [("Blood pressure", ""), ("128/82", "")], [("Blood pressure", ""), ("17/17", "")],
        [("Glucose", ""), ("5.2", ""), ("", "+1")], [("Glucose", ""), ("125", "")],
    ]  # fmt: skip
    assert [re.search(r'dir="auto">(.*?)</span>', row)[1] for row in rows] == ["mmHg", "kPa", "mmol/L", "mg/dL"]


def test_a_blood_pressure_of_a_matrix_is_of_one_report(browser: Browser, synced) -> None:
    synced(
        record(1, taken_at="2026-11-01T08:00:00Z", results=pressure(150, 95)),
        record(2, taken_at="2026-11-01T09:00:00Z", results=[{**UPPER, "value": 121}]),
        record(3, taken_at="2026-11-02T09:00:00Z", results=[{**LOWER, "value": 71}]),
        record(4, taken_at="2026-11-02T08:00:00Z", results=[{**UPPER, "value": 122}]),
        record(5, taken_at="2026-11-03T08:00:00Z", results=pressure(123, 73) + pressure(124, 74)),
    )
    browser.log_in("bholanath")
    (row,) = browser.get("/my/matrix").text.split('<th scope="row">')[1:]
    cells = [re.search(r'href="([^"]+)".*?<bdi>(.*?)</bdi>(.*)', cell, re.DOTALL) for cell in row.split("<td>")[1:]]
    found = [(cell[1].rpartition("/")[2], cell[2], re.findall(r"\+\d", cell[3])) for cell in cells if cell]
    assert found == [("5", "123/73", ["+1"]), ("4", "122/–", ["+1"]), ("1", "150/95", ["+1"])]


def test_nothing_more_unusual_is_behind_the_value_of_a_day(browser: Browser, synced) -> None:
    def creatinine(value: float) -> dict[str, Any]:
        return result("Creatinine", value, "mg/dL", 0.9, 1.3, code="2160-0")

    synced(
        record(1, taken_at="2026-11-01T08:00:00Z", results=[creatinine(0.8), *pressure(162, 101)]),
        record(2, taken_at="2026-11-01T09:00:00Z", results=[creatinine(1.2), {**UPPER, "value": 120}]),
        record(3, taken_at="2026-11-02T08:00:00Z", results=[creatinine(5), *pressure(118, 79)]),
        record(4, taken_at="2026-11-02T09:00:00Z", results=[creatinine(1.4), {**UPPER, "value": 119}]),
        record(5, taken_at="2026-11-03T08:00:00Z", results=[creatinine(1.1), {**UPPER, "value": 190}]),
        record(6, taken_at="2026-11-03T09:00:00Z", results=[creatinine(1.0), *pressure(125, 85)]),
        record(7, taken_at="2026-11-04T08:00:00Z", results=pressure(125, 85) + pressure(190, 85)),
    )
    browser.log_in("bholanath")
    rows = browser.get("/my/matrix").text.split('<th scope="row">')[1:]
    shown = [re.findall(r"<bdi>(.*?)</bdi>", row)[1:] for row in rows]
    assert shown == [["190/85", "190/–", "118/79", "162/101"], ["1.0", "5", "0.8"]]


def test_kinds_of_specimens_are_told_apart_wherever_a_measurement_is_named(browser: Browser, synced) -> None:
    both = [{**result("Glucose", value, "mg/dL", code=code), "specimen": specimen}
            for value, code, specimen in ((95, "2345-7", None), (250, "2345-7", "Urine"))]  # fmt: skip
    synced(record(1, results=both))
    browser.log_in("bholanath")
    names = {
        path: set(re.findall(r"<bdi>(Glucose.*?)</bdi>", browser.get(path).text))
        for path in ("/my/trends", "/my/matrix")
    }
    assert names["/my/matrix"] == names["/my/trends"] == {"Glucose", "Glucose, urine"}


def test_a_specimen_that_is_not_blood_is_named_where_it_is_the_only_one(browser: Browser, synced) -> None:
    kinds = (("Glucose", "2345-7", "Urine"), ("Urine protein", "2888-6", "Urine"), ("Sodium", "2951-2", "Serum"))
    synced(record(1, results=[result(name, 5, "mg/dL", code=code) | {"specimen": of} for name, code, of in kinds]))
    browser.log_in("bholanath")
    for path in ("/my/trends", "/my/matrix"):
        names = re.findall(r"<bdi>((?:Glucose|Urine|Sodium).*?)</bdi>", browser.get(path).text)
        assert sorted(names) == ["Glucose, urine", "Sodium", "Urine protein"], path
    glucose = browser.get("/my/trends?code=2345-7").text
    assert ("In <bdi>mg/dL</bdi>, urine" in glucose, "The sugar in the blood" in glucose) == (True, False)
    synced(record(2, results=[result("Glucose", 99, "mg/dL", code="2345-7")]))
    assert "The sugar in the blood" in browser.get("/my/trends?code=2345-7").text
    assert re.search(r"In <bdi>mg/dL</bdi>\s*</h2>", browser.get("/my/trends?code=2951-2").text)


def test_a_long_text_of_a_row_is_seen_to_be_cut(browser: Browser, synced) -> None:
    synced(record(1, results=[], checkup_report="word " * 60))
    browser.log_in("bholanath")
    assert f'dir="auto">{("word " * 32).strip()}…</span>' in browser.get("/my/").text


def test_a_long_value_of_a_matrix_is_seen_to_be_cut(browser: Browser, synced) -> None:
    words = 'moderate growth of "E. coli", <5 % others'
    short, digits = "moderate growth of E", "12345678901234567890.1"
    synced(
        record(1, results=[result("Culture", words, None), result("Culture 2", short, None), result("T", digits, "kg")])
    )
    browser.log_in("bholanath")
    page = browser.get("/my/matrix").text
    assert (
        '<bdi title="moderate growth of &quot;E. coli&quot;, &lt;5 % others">moderate growth of &quot;…</bdi>' in page
    )
    assert f"<bdi>{short}</bdi>" in page
    assert f'<bdi title="{digits}">{digits[:20]}…</bdi>' in page


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [(6.1, 5.9, "−0.2"), (128, 128, "±0"), ("5.10", 5.2, "+0.1"), ("<3", 4, ""), ("negative", 1, ""), (0.1, 0.3, "+0.2"),
     (1, 10**18, ""), (100, 250, "+150"), (None, 1, ""), (True, 1, "")],
)  # fmt: skip
def test_a_change_is_exact(before: Any, now: Any, expected: str) -> None:
    assert difference(before, now) == expected


@pytest.mark.parametrize("analyte", catalog.ANALYTES, ids=lambda each: each.name)
def test_every_test_of_the_catalogue_is_explained_and_its_thresholds_fit_its_range(analyte: Any) -> None:
    found = guide.GUIDES[analyte.name]
    assert found.about.count(".") in (2, 3)
    assert guide.group_of({"code": analyte.codes[0]}) != guide.OTHER
    for unit, far in found.far.items():
        known = analyte.ranges[unit]
        lowest, highest = (end for end in (known.low, known.high))
        if known.women and known.men:
            lowest, highest = min(known.women[0], known.men[0]), max(known.women[1], known.men[1])
        assert far.source
        assert far.low is None or known.least < far.low < lowest
        assert far.high is None or highest < far.high < known.most


@pytest.mark.parametrize(
    ("value", "unit", "high", "words"),
    [(128, "mm[Hg]", 120, "a little above the usual range"), (160, "mm[Hg]", 120, "far above the usual range"),
     (170, "mm[Hg]", 165, "above the usual range"), (170, "kPa", 120, "above the usual range"),
     (90, "mm[Hg]", 120, "within the usual range")],
)  # fmt: skip
def test_how_far_a_value_lies_outside_is_told_by_the_second_threshold(value: int, unit: str, high: int, words: str) -> None:  # fmt: skip
    from support.page_data import present

    assert present({**UPPER, "value": value, "unit": unit, "high": high}).words == words


VALUES = [128, 159.9, 160, 250, 89, 3, 54, "<3", ">1000", "HI", "lo", "HIGH", "reactive", None, -1]


@pytest.mark.parametrize("code", ["8480-6", "2345-7", "2160-0", "9999-9", None])
@pytest.mark.parametrize("flag", ["HH", "LL", "H", "L", "N", "A", None])
def test_what_is_far_comes_first_where_pages_call_it_far(code: Any, flag: Any) -> None:
    from support.page_data import present

    for value, unit, (low, high) in itertools.product(
        VALUES, ("mm[Hg]", "mg/dL", None), ((90, 120), (None, 165), (None, None))
    ):
        for warning in (None, f"300 mg/dL is {catalog.IMPOSSIBLE} (1 to 2)"):
            measured = {**result("X", value, unit, low, high, flag, code), **({"warning": warning} if warning else {})}
            report = document(1, results=json.dumps([measured]))
            assert report.get("far", False) == present(measured).is_far, measured


@given(st.datetimes(datetime(1, 1, 2), datetime(7000, 1, 1)), st.floats(0, 10**6))
def test_the_days_of_an_axis_are_few_and_lie_within_it(first: datetime, days: float) -> None:
    begin = first.replace(tzinfo=UTC)
    last = begin + timedelta(days=days)
    ticks = [tick for tick, _ in day_ticks(begin, last)]
    assert 1 <= len(ticks) <= DAY_TICKS_MAX + 1
    assert ticks == sorted(set(ticks))
    assert all(begin <= tick <= last for tick in ticks)


def test_many_measurements_are_behind_a_fold(browser: Browser, synced) -> None:
    synced(record(1, results=[result(f"Hemoglobin {i}", i, "g/dL") for i in range(20)] + pressure(120, 80)))
    browser.log_in("bholanath")
    before, after = browser.get("/my/").text.split("<summary>7 more measurements</summary>")
    assert (before.count('<span class="now '), after.partition("</details>")[0].count('<span class="now ')) == (14, 7)


def test_a_person_without_reports_is_told_so(application, synced) -> None:
    create_user("new.one", password="correct-horse")
    synced()
    browser = Browser(application)
    browser.log_in("new.one")
    assert "No reports here yet" in browser.get("/my/").text
    assert "At a glance" not in browser.get("/my/").text
    assert "Nothing was measured yet" in browser.get("/my/matrix").text
    assert "without a known day" not in browser.get("/my/matrix").text


@pytest.mark.parametrize("dated", [False, True])
def test_a_matrix_says_that_it_leaves_out_undated_values(browser: Browser, synced, dated: bool) -> None:
    undated = record(1, taken_at=None, taken_precision="unknown", results=[result("Grip", 41, "kg")])
    synced(undated, *[record(2, results=pressure(120, 80))] * dated)
    browser.log_in("bholanath")
    page = plain(browser.get("/my/matrix"))
    assert "Values without a known day are on the pages of their trends." in page
    assert ("No value has a known day" in page, "120/80" in page) == (not dated, dated)
    assert "Nothing was measured yet" not in page


def test_a_day_in_the_future_is_said_to_be_wherever_its_values_stand(browser: Browser, synced) -> None:
    now = datetime.now(UTC)
    moments = [(now + timedelta(days=days)).isoformat() for days in (60, 0.5, -3)]
    synced(*(record(i, taken_at=at, results=pressure(120 + i, 80)) for i, at in enumerate(moments)))
    browser.log_in("bholanath")
    rows = browser.get("/my/").text
    number = re.findall(r"/my/reports/(\d+)", rows)
    assert rows.count("in the future") == 2  # the latest value, and its row
    for path, count in (
        (f"/my/reports/{number[0]}", 1),
        (f"/my/reports/{number[1]}", 0),
        ("/my/trends", 1),
        ("/my/matrix", 1),
    ):
        assert (browser.get(path).text.count("in the future") >= 1) == bool(count), path
    assert "in the future" in browser.get("/my/trends?code=85354-9").text
