"""`myhealth audit` shows the events of both APIs in one list."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from myhealth.audit.events import Actor, record_event, record_refusal
from myhealth.audit.merged import find_all_events
from myhealth.common.database import database
from myhealth.common.errors import BadInput
from myhealth.reports.access_log import Access


@pytest.fixture
def noted(db, people, reports) -> None:
    """Two events of the upload API's, and between them two looks at the browse API."""
    doctor = {"_id": people["dr.ayush"], "subject": "sd", "username": "dr.ayush", "role": "doctor"}
    patient = {"_id": people["bholanath"], "subject": "sb", "username": "bholanath", "role": "patient"}
    record_event("login", actor=Actor(people["dr.ayush"], "dr.ayush", "::1"))
    now = datetime.now(UTC)
    refused = Access(patient, None, "report", report_id=9, action="refused", outcome="refused")
    reports.access_log.log(Access(doctor, patient, "reports"), now=now + timedelta(seconds=1))
    reports.access_log.log(refused, now=now + timedelta(seconds=2))
    record_event("upload", actor=Actor(people["dr.ayush"], "dr.ayush", None), subject="bholanath")


@pytest.mark.usefixtures("noted")
def test_both_trails_are_one(run_cli, reports) -> None:
    def asked(*words: str) -> list[tuple[str, str]]:
        done = run_cli("audit", "--json", *words)
        assert done.returncode == 0, done.stderr
        events = json.loads(done.stdout)
        return [
            (each["source"], each["action"])
            for each in events
            if not each["action"].startswith("user.") and each["details"] != {"what": "audit"}
        ]

    everything = asked()
    assert sorted(everything) == [("browse", "read"), ("browse", "refused"), ("upload", "login"), ("upload", "upload")]
    assert asked("--source", "browse") == [("browse", "read"), ("browse", "refused")]
    assert sorted(asked("--subject", "BHOLANATH")) == [("browse", "read"), ("upload", "upload")]
    assert asked("--action", "refused") == [("browse", "refused")]
    first = next(find_all_events(reports, sources=("browse",)))
    assert asked("--after", str(first.id)) == [("browse", "refused")]
    table = run_cli("audit").stdout
    assert "what reports" in table
    assert "report 9" in table


@pytest.mark.usefixtures("noted")
def test_events_come_in_the_order_they_happened(reports) -> None:
    found = list(find_all_events(reports))
    assert [event.at for event in found] == sorted(event.at for event in found)
    assert len(list(find_all_events(reports, limit=2))) == 2
    own = [event for event in found if event.source == "upload"]
    assert [event.id for event in find_all_events(reports, after=str(own[0].id))] == [event.id for event in own[1:]]
    with pytest.raises(BadInput):
        list(find_all_events(reports, after="nonsense"))
    assert list(find_all_events(reports, newest=True)) == found[::-1]
    assert list(find_all_events(reports, newest=True, limit=3)) == found[:-4:-1]


@pytest.mark.usefixtures("noted")
def test_the_last_events_can_be_asked_for_and_a_cut_is_told(run_cli) -> None:
    """Of one source: each of these commands is an event of the other."""

    def ask(*options: str) -> Any:
        return run_cli("audit", "--json", "--source", "browse", *options)

    everything = json.loads(ask().stdout)
    cut = ask("--oldest", "--limit", "1")
    assert json.loads(cut.stdout) == everything[:1]
    assert "There are more: these are the first 1" in cut.stderr
    for options in ((), ("--newest",)):
        last = ask(*options, "--limit", "1")
        assert json.loads(last.stdout) == everything[-1:]
        assert "There are more: these are the last 1" in last.stderr
    assert ask("--limit", str(len(everything))).stderr == ""
    one = run_cli("audit", "--json", "--after", "1", "--limit", "1")
    assert [event["source"] for event in json.loads(one.stdout)] == ["upload"]
    assert "these are the first 1" in one.stderr


@pytest.mark.usefixtures("people")
def test_details_are_words(db, reports, run_cli) -> None:
    record_event("import", counts={"accepted": 3, "rejected": 0}, changed=["disease", "results"], machine=None)
    assert run_cli("audit").stdout.splitlines()[-1].endswith("counts accepted 3, rejected 0, changed disease, results")


def test_equal_refusals_are_one_event_with_their_count(db, people, reports, run_cli) -> None:
    """In both stores, also when many happen at the same time; what differs is told apart until there are ten."""
    patient = {"_id": people["bholanath"], "subject": "sb", "username": "bholanath", "role": "patient"}
    equal = Access(patient, None, "report", report_id=9, address="192.0.2.7", action="refused", outcome="refused")
    actor = Actor(people["bholanath"], "bholanath", "192.0.2.7")
    reports.make_indexes()

    def refuse(_: int) -> None:
        reports.access_log.log_refusal(equal, "9")
        record_refusal("refused", "GET /users/x/", actor=actor, request="GET /users/x/")
        database.close()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(refuse, range(40)))
    for number in range(30):
        reports.access_log.log_refusal(equal, f"other {number}")
        record_refusal("refused", f"GET /users/{number}/", actor=actor)
    told = json.loads(run_cli("audit", "--json", "--action", "refused").stdout)
    for source, most in (("browse", 22), ("upload", 25)):  # twice as many if the minute ended meanwhile
        counts = [event["details"].get("count", 1) for event in told if event["source"] == source]
        assert sum(counts) == 70
        assert max(counts) >= 20
        assert 10 <= len(counts) <= most
    assert "count " in run_cli("audit", "--action", "refused").stdout


def test_a_moment_is_asked_for_in_words(run_cli, people) -> None:
    wrong = run_cli("audit", "--since", "yesterday")
    assert (wrong.returncode, "'yesterday' is not like 2026-11-28 or 2026-11-28T09:30" in wrong.stderr) == (2, True)
    assert "%" not in run_cli("audit", "--help").stdout
