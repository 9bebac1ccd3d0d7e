"""One record in one statement: the same comes of it as of the record in a batch, or nothing does."""

import json
import threading
from typing import Any

import pytest
from support.factories import record

from myhealth.audit.events import Actor, acting_as
from myhealth.common.database import database
from myhealth.common.errors import Unavailable
from myhealth.intake import pipeline as module
from myhealth.intake import single_insert as module_alone
from myhealth.intake.parsed_record import ParsedRecord
from myhealth.intake.pipeline import Intake
from myhealth.intake.results import ImportSource, RecordResult
from myhealth.intake.single_insert import insert_one
from myhealth.machines.services import register_machine

pytestmark = pytest.mark.usefixtures("people")
STORED = (
    "select patient_id, machine_id, record_id, checkup_type, checkup_report, disease, taken_by, taken_at, results::text"
    " from checkups order by id"
)
ACTOR = Actor(None, "tara", "192.0.2.7")


def send(said: dict[str, Any], **origin: Any) -> RecordResult:
    reading = ParsedRecord(0, 1, json.dumps(said))
    with acting_as(ACTOR):
        return Intake(ImportSource(**{"source": "POST /checkups/", **origin})).take_noted([reading])[0]


def alone(said: dict[str, Any], **origin: Any) -> RecordResult | None:
    intake = Intake(ImportSource(**{"source": "POST /checkups/", **origin}))
    return insert_one(intake.origin, intake.check([ParsedRecord(0, 1, json.dumps(said))])[0])


@pytest.mark.parametrize(
    "said",
    [
        record(1, machine="HC-1"),
        record(1, machine="HC-1", taken_by=None, disease=""),
        record(1, machine="HC-1", checkup_report="tab\t, line\n, back\\slash, नमस्ते, %s and %(x)s"),
        {**record(1), "record_id": None},
        record(1, machine="HC-1", patient="BHOLANATH"),
    ],
)
def test_the_row_is_the_one_that_a_batch_stores(db, said: dict[str, Any]) -> None:
    register_machine("HC-1")
    assert (outcome := alone(said)) is not None
    assert outcome.status == "accepted"
    by_itself = db(STORED)
    db("delete from checkups")
    Intake(ImportSource(source="x")).take([ParsedRecord(0, 1, json.dumps(said))])
    assert db(STORED) == by_itself != []


@pytest.mark.parametrize(
    ("said", "origin"),
    [
        (record(1, machine="HC-1", patient="nobody"), {}),
        (record(1, machine="HC-9"), {}),
        (record(1, machine="HC-1", disease=5), {}),
        (record(1, machine="HC-1"), {"create_patients": True}),
        (record(1, machine="HC-1"), {"dry_run": True}),
    ],
)
def test_what_is_not_plain_is_left_alone(db, said: dict[str, Any], origin: dict[str, Any]) -> None:
    register_machine("HC-1")
    assert alone(said, **origin) is None
    assert db("select count(*) from checkups") == [(0,)]
    assert db("select count(*) from audit_events where action = 'upload'") == [(0,)]
    assert db("select last_upload_at from machines") == [(None,)]


def test_each_upload_is_noted_once_whichever_way_it_goes(db) -> None:
    for status in ("accepted", "accepted", "duplicate", "rejected"):  # the first makes the machine known
        number = {"accepted": len(db("select id from checkups")), "duplicate": 0, "rejected": 7}[status]
        said = record(number, machine="HC-1", patient="nobody" if status == "rejected" else "bholanath")
        assert send(said).status == status
    noted = db(
        "select actor, action, address, outcome, details - 'machine' from audit_events where action = 'upload' order by id"
    )
    counts = dict.fromkeys(("accepted", "duplicate", "rejected"), 0)
    assert noted == [
        ("tara", "upload", "192.0.2.7", "done", {**counts, status: 1})
        for status in ("accepted", "accepted", "duplicate", "rejected")
    ]


def test_the_machine_is_seen_to_have_uploaded(db) -> None:
    register_machine("HC-1")
    assert alone(record(1, machine="HC-1"))
    first = db("select last_upload_at from machines")
    assert first != [(None,)]
    assert alone(record(2, machine="HC-1"))
    assert db("select last_upload_at from machines") == first, "once a minute is enough"


def test_a_plain_record_does_not_go_the_long_way(db, monkeypatch: pytest.MonkeyPatch) -> None:
    register_machine("HC-1")
    monkeypatch.delattr(module, "Batch")
    assert send(record(1, machine="HC-1")).status == "accepted"


def test_an_upload_that_cannot_be_noted_is_not_stored(db) -> None:
    register_machine("HC-1")
    db("alter table audit_events add constraint not_now check (action <> 'upload') not valid")
    try:
        assert alone(record(1, machine="HC-1")) is None
        assert db("select count(*) from checkups") == [(0,)]
    finally:
        db("alter table audit_events drop constraint not_now")


def test_ten_that_bring_the_same_record_at_once_store_it_once(db) -> None:
    register_machine("HC-1")
    outcomes: list[RecordResult] = []

    def bring() -> None:
        with database.connection_context():
            outcomes.append(send(record(1, machine="HC-1")))

    threads = [threading.Thread(target=bring) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcome.status for outcome in outcomes) == ["accepted", *["duplicate"] * 9]
    assert len({outcome.id for outcome in outcomes}) == 1
    assert db("select count(*) from checkups") == [(1,)]


def test_a_connection_that_breaks_acknowledges_nothing(db, connect) -> None:
    register_machine("HC-1")
    pid = database.execute_sql("select pg_backend_pid()").fetchone()[0]
    with connect().cursor() as cursor:
        cursor.execute("select pg_terminate_backend(%s, 5000)", (pid,))
    with pytest.raises(Unavailable):
        alone(record(1, machine="HC-1"))
    assert send(record(1, machine="HC-1")).status == "accepted"


def test_a_pooler_may_change_the_connection_under_it(db, monkeypatch: pytest.MonkeyPatch) -> None:
    register_machine("HC-1")
    assert alone(record(1, machine="HC-1"))
    database.execute_sql("deallocate all")  # now the connection of somebody who has prepared nothing
    assert alone(record(2, machine="HC-1"))
    elsewhere = module_alone.EXECUTE.replace("execute myhealth", "execute elsewhere")
    monkeypatch.setattr(module_alone, "EXECUTE", elsewhere)  # prepared on another one, and ours is there already
    assert alone(record(3, machine="HC-1"))
    assert db("select count(*), count(distinct record_id) from checkups") == [(3, 3)]
