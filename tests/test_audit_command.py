"""`myhealth audit` shows what both APIs noted as one."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from myhealth.audit.trail import Actor, note
from myhealth.audit.whole import find_all_events
from myhealth.common.errors import BadInput
from myhealth.reports.access import note_look


@pytest.fixture
def noted(db, people, reports) -> None:
    """Two events of the upload API's, and between them two looks at the browse API."""
    doctor = {"_id": people["dr.ayush"], "subject": "sd", "username": "dr.ayush", "role": "doctor"}
    patient = {"_id": people["bholanath"], "subject": "sb", "username": "bholanath", "role": "patient"}
    note("login", actor=Actor(people["dr.ayush"], "dr.ayush", "::1"))
    now = datetime.now(UTC)
    note_look(reports, doctor, patient, "reports", now=now + timedelta(seconds=1))
    note_look(
        reports,
        patient,
        None,
        "report",
        report_id=9,
        action="refused",
        outcome="refused",
        now=now + timedelta(seconds=2),
    )
    note("upload", actor=Actor(people["dr.ayush"], "dr.ayush", None), subject="bholanath")


@pytest.mark.usefixtures("noted")
def test_both_trails_are_one(run_cli, reports) -> None:
    def asked(*words: str) -> list[tuple[str, str]]:
        done = run_cli("audit", "--json", *words)
        assert done.returncode == 0, done.stderr
        events = json.loads(done.stdout)
        return [(each["source"], each["action"]) for each in events if each["action"] != "user.create"]

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
