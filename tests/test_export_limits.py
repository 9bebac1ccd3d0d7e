"""The work that one user causes is bounded: exports are streamed one at a time, overviews are computed once."""

import json
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from support.factories import document
from support.page_client import HOST
from support.sync_processes import wait_for

from myhealth.common.concurrency import Gate
from myhealth.common.errors import TooManyAttempts
from myhealth.profiles.services import get_user
from myhealth.reports.documents import encode_json
from myhealth.reports.export.fhir import fhir_bundle
from myhealth.reports.writer import ReportWriter
from wsgi.browse_api.context import RecentAnswers

REPORTS = 800
RESULTS = json.dumps([{"code": f"{n}-1", "name": f"Measurement {n}", "value": n, "unit": "mg/dL"} for n in range(20)])


@pytest.fixture
def many(stored, reports) -> None:
    """Give Savita many reports."""
    user = get_user("savita")
    ReportWriter(reports).insert(
        "checkup",
        [document(1000 + n, patient_id=user.id, subject=str(user.subject), results=RESULTS) for n in range(REPORTS)],
    )


@pytest.fixture
def savita(many, browser):
    browser.log_in("savita")
    return browser


def opened(browser: Any, path: str) -> Any:
    return browser.client.get(path, base_url=HOST, buffered=False)


@pytest.mark.parametrize("kind", ["csv", "fhir"])
def test_a_download_of_any_length_takes_little_memory(savita, kind: str) -> None:
    savita.get("/my/reports/1000")  # loads all modules
    tracemalloc.start()
    try:
        size = sum(len(block) for block in opened(savita, f"/my/download/{kind}").iter_encoded())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size > 1_400_000
    assert peak < 2_000_000


def test_a_streamed_bundle_is_the_same_as_one_made_at_once(savita, reports) -> None:
    person = reports.people.find_by_username("savita")
    for query in ("", "?text=no+such+text"):
        whole = fhir_bundle(reports.iterate(person) if not query else [], person)
        assert savita.get(f"/my/download/fhir{query}").data == encode_json(whole)


@pytest.mark.parametrize("path", ["/my/download/csv", "/my/download/fhir", "/my/reports/1000/download/csv"])
def test_a_user_has_one_download_at_a_time(savita, path: str) -> None:
    first = opened(savita, "/my/download/csv")
    second = savita.get(path)
    assert second.status_code == 429
    assert int(second.headers["Retry-After"]) > 0
    assert "Another download of yours is still running" in second.text
    assert savita.get("/my/").status_code == 200
    first.close()  # as a browser that gives up
    assert len(savita.get(path).data) > 1000
    assert savita.get(path).status_code == 200


@pytest.mark.parametrize("accept", ["text/csv", "application/fhir+json"])
def test_an_export_of_the_api_counts_too_and_a_list_does_not(savita, application, log_in, calling, accept) -> None:
    ask, token = calling(application), log_in("savita")
    running = opened(savita, "/my/download/csv")
    refused = ask("GET", "/reports/", token=token, headers={"Accept": accept})
    assert (refused.status_code, refused.json["code"]) == (429, "export_running")
    assert int(refused.headers["Retry-After"]) > 0
    assert ask("GET", "/reports/", token=token).status_code == 200
    assert ask("GET", "/reports/", token=log_in("bholanath"), headers={"Accept": accept}).status_code == 200
    running.close()
    assert ask("GET", "/reports/", token=token, headers={"Accept": accept}).status_code == 200


def test_an_overview_is_computed_once_in_some_seconds_and_in_limited_time(savita, reports) -> None:
    database = reports.state.database
    database.command("profile", 2)
    try:
        for path in ("/my/trends", "/my/filter", "/my/trends", "/my/filter"):
            assert savita.get(path).status_code == 200
    finally:
        database.command("profile", 0)
    asked = {"$or": [{"command.aggregate": "reports"}, {"command.distinct": "reports"}]}
    commands = [each["command"] for each in database["system.profile"].find(asked)]
    database["system.profile"].drop()
    assert len(commands) == 2  # the measurements, and the types
    assert all(0 < command["maxTimeMS"] <= 10_000 for command in commands)


def test_long_reads_of_one_user_come_one_after_the_other(savita, application, log_in, calling, reports) -> None:
    ask, token = calling(application), log_in("savita")
    pages, searches = ("/my/", "/my/trends"), ("/fhir/Observation", "/fhir/DiagnosticReport", "/fhir/Patient")
    with application.context.long_reads.enter(reports.people.find_by_username("savita")["subject"]):
        for path in pages:
            assert "please try again in a moment" in savita.get(path).text
        for path in searches:
            refused = ask("GET", path, token=token)
            assert (refused.status_code, int(refused.headers["Retry-After"])) == (429, 2)
        assert ask("GET", "/fhir/Observation", token=log_in("bholanath")).status_code == 200
    assert {savita.get(path).status_code for path in pages} == {200}
    assert {ask("GET", path, token=token).status_code for path in searches} == {200}


def test_who_asks_for_one_page_often_at_once_is_refused_nowhere(savita, application) -> None:
    with ThreadPoolExecutor(12) as threads:
        texts = [answer.text for answer in threads.map(lambda _: savita.get("/my/"), range(60))]
    assert ["please try again" in text for text in texts] == [False] * 60
    assert len({text.split("</h1>")[1].split("</main>")[0] for text in texts}) == 1


def test_of_a_users_requests_some_wait_and_the_others_are_refused_at_once() -> None:
    turns, done = Gate(1, 2, 60.0, partial(TooManyAttempts, "busy")), threading.Event()

    def work(_: int) -> str:
        try:
            with turns.enter("savita"):
                done.wait(60)
        except TooManyAttempts:
            return "refused at once"  # while the first one is still at work
        return "done"

    with ThreadPoolExecutor(6) as threads:
        futures = [threads.submit(work, number) for number in range(6)]
        wait_for(lambda: sum(future.done() for future in futures) == 3)
        assert {future.result() for future in futures if future.done()} == {"refused at once"}
        done.set()
        assert sorted(future.result() for future in futures) == ["done"] * 3 + ["refused at once"] * 3
    with turns.enter("savita"), turns.enter("bholanath"):
        pass


def test_kept_answers_are_bounded_in_bytes_and_in_number():
    made = []

    def ask(cache: RecentAnswers, key: str, size: int = 80) -> None:
        cache.get(key, lambda: made.append(key) or b"x" * size)

    by_bytes, by_number = RecentAnswers(60, 40, 100, len), RecentAnswers(60, 2)
    for key in ("a", "a", "b", "b", "a"):
        ask(by_bytes, key)
    assert made == ["a", "b", "a"]
    made.clear()
    ask(by_bytes, "large", 500)
    ask(by_bytes, "large", 500)
    assert made == ["large"]
    made.clear()
    by_bytes.get("forgotten", lambda: (ask(by_bytes, "large", 500), b"x" * 80)[1])
    ask(by_bytes, "other", 500)
    for key in ("c", "d", "c"):
        ask(by_bytes, key, 40)
    assert made == ["large", "other", "c", "d"]
    made.clear()
    for key in ("a", "b", "c", "b", "a"):
        ask(by_number, key)
    assert made == ["a", "b", "c", "a"]
