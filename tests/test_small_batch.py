"""A small batch in one statement: the results are those of a large batch, and no statement fails in ordinary use."""

import json
import threading
from typing import Any

import pytest
from support.factories import record, take

from myhealth.audit.events import Actor, acting_as
from myhealth.common.database import database, pooled
from myhealth.common.errors import Unavailable
from myhealth.intake import insert
from myhealth.intake import pipeline as module
from myhealth.intake.corrections import delete_checkup
from myhealth.intake.insert import STORE
from myhealth.intake.parsed_record import ParsedRecord
from myhealth.intake.pipeline import Intake
from myhealth.intake.results import ImportSource, RecordResult
from myhealth.machines.services import register_machine
from myhealth.profiles.services import BY_SUBJECT, get_user, get_user_by_subject

pytestmark = pytest.mark.usefixtures("people")
STORED = (
    "select patient_id, machine_id, record_id, checkup_type, checkup_report, disease, taken_by, taken_at, results::text"
    " from checkups order by id"
)
ACTOR = Actor(None, "tara", "192.0.2.7")


def send(said: dict[str, Any], **origin: Any) -> RecordResult:
    reading = ParsedRecord(0, 1, json.dumps(said))
    source = ImportSource(**{"source": "POST /checkups/", "log_upload": True, **origin})
    with acting_as(ACTOR):
        return Intake(source).store_batch([reading])[0]


def alone(said: dict[str, Any], **origin: Any) -> RecordResult | None:
    intake = Intake(ImportSource(**{"source": "POST /checkups/", "log_upload": True, **origin}))
    batch = intake._store_single(intake.validate([ParsedRecord(0, 1, json.dumps(said))]))
    return batch.outcomes[0] if batch else None


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
    Intake(ImportSource(source="x")).store_batch([ParsedRecord(0, 1, json.dumps(said))])
    assert db(STORED) == by_itself != []


@pytest.mark.parametrize(
    ("said", "origin"),
    [
        (record(1, machine="HC-1", patient="nobody"), {}),
        (record(1, machine="HC-9"), {}),
        (record(1, machine="HC-1", disease=5), {}),
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
    monkeypatch.delattr(module.Batch, "_store_records")
    assert send(record(1, machine="HC-1")).status == "accepted"


HEMOGLOBIN = [{"name": "Hemoglobin", "code": "718-7", "value": 11.5, "unit": "g/dL"}]


@pytest.mark.parametrize("birth_date", [None, "1961-04-02", "2020-04-02"])
@pytest.mark.parametrize("sex", [None, "female", "male"])
def test_a_plain_record_gets_the_ranges_of_its_patient(db, sex: str | None, birth_date: str | None) -> None:
    register_machine("HC-1")
    db(f"update users set sex = {sex!r}, birth_date = {birth_date!r}".replace("None", "null"))
    (long,) = take(record(1, results=HEMOGLOBIN))
    assert alone(record(2, machine="HC-1", results=HEMOGLOBIN))
    (first, second) = db("select results from checkups order by id")
    assert first == second
    assert long.status == "accepted"
    assert ("range_source" in first[0][0]) is (birth_date != "2020-04-02")


def test_nobody_elses_record_gets_the_ranges_of_a_person(db, monkeypatch: pytest.MonkeyPatch) -> None:
    register_machine("HC-1")
    db("update users set birth_date = '1961-04-02', sex = 'female'")
    # as if the name were given to another person, a child, before the statement
    child = insert.FIND_PEOPLE.replace("id, sex, birth_date::text", "id + 1, sex, '2020-04-02'")
    monkeypatch.setattr(insert, "FIND_PEOPLE", child)
    said = record(1, machine="HC-1", results=HEMOGLOBIN)
    assert alone(said) is None
    assert send(said).status == "accepted"
    ((results,),) = db("select results from checkups")
    assert (results[0]["low"], results[0]["range_source"]) == (12, "catalogue")


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


@pytest.mark.parametrize("count", [1, 3])
def test_a_pooler_may_change_the_connection_under_it(db, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    register_machine("HC-1")

    def bring(first: int) -> set[str]:
        records = [record(first + i, machine="HC-1") for i in range(count)]
        parsed = [ParsedRecord(i, 1, json.dumps(r)) for i, r in enumerate(records)]
        return {outcome.status for outcome in Intake(ImportSource("x", log_upload=True)).store_batch(parsed)}

    assert bring(0) == {"accepted"}
    database.execute_sql("deallocate all")  # the session of a client that has prepared nothing
    assert bring(10) == {"accepted"}
    pooled.clear()
    STORE.prepared.clear()
    database.execute_sql(STORE.prepare_sql)  # the session of a client that has prepared it
    assert bring(20) == {"accepted"}
    assert db("select count(*), count(distinct record_id) from checkups") == [(3 * count, 3 * count)]
    assert db("select count(*) from audit_events where action = 'upload'") == [(3,)]


@pytest.mark.parametrize("knows", [False, True], ids=["that prepared nothing", "that prepared it"])
def test_a_pooler_may_change_the_connection_under_the_look_up_of_a_user(people, knows: bool) -> None:
    subject = str(get_user("tara").subject)
    found = [get_user_by_subject(subject)]
    database.execute_sql("deallocate all")  # the session of a client …
    if knows:
        BY_SUBJECT.prepared.clear()
        database.execute_sql(BY_SUBJECT.prepare_sql)
    pooled.clear()
    found += [get_user_by_subject(subject) for _ in range(2)]
    assert [user and user.id for user in found] == [people["tara"]] * 3
    assert len(pooled) == 1


def send_list(*said: Any, atomic: bool = False, **origin: Any) -> list[RecordResult]:
    parsed = [ParsedRecord(i, i + 1, json.dumps(r)) for i, r in enumerate(said)]
    with acting_as(ACTOR):
        source = ImportSource(**{"source": "POST /checkups/", "log_upload": True, **origin})
        return Intake(source).store_batch(parsed, atomic=atomic)


def test_no_statement_fails_in_ordinary_use(db, postgres, people) -> None:
    """PostgreSQL logs a statement that fails, with the patient's data in it."""
    log = postgres.data / "server.log"
    before = log.stat().st_size
    register_machine("HC-1")
    for machine in ("HC-1", "HC-new"):
        for _ in range(2):
            database.manual_close()
            database.close_all()
            assert send(record(1, machine=machine)).status in ("accepted", "duplicate")
            database.close_all()
            assert len(send_list(*(record(i, machine=machine) for i in range(4)))) == 4
    delete_checkup(people["bholanath"], send(record(1, machine="HC-1")).id)
    assert send(record(1, machine="HC-1")).warnings
    assert send(record(2, machine="HC-1", disease="other")).status == "rejected"
    assert "ERROR" not in log.read_text()[before:]


def test_a_list_is_stored_in_its_order_and_logged_once(db) -> None:
    register_machine("HC-1")
    said = [*(record(str(9 - i), machine="HC-1") for i in range(9)), {**record(1), "record_id": None}]
    outcomes = send_list(*said)
    assert [outcome.status for outcome in outcomes] == ["accepted"] * 10
    assert [outcome.id for outcome in outcomes] == sorted(outcome.id for outcome in outcomes)
    assert db("select record_id from checkups order by id") == [(r["record_id"],) for r in said]
    assert db("select actor, details->>'accepted' from audit_events where action = 'upload'") == [("tara", "10")]


def test_a_list_of_all_kinds_is_explained_record_by_record(db, people) -> None:
    register_machine("HC-1")
    first = send(record(1, machine="HC-1")).id
    delete_checkup(people["bholanath"], send(record(2, machine="HC-1")).id)
    said = [
        record(1, machine="HC-1"),
        record(2, machine="HC-1"),
        record(1, machine="HC-1", disease="other"),
        record(3, machine="HC-1"),
        record(3, machine="HC-1"),
        record(4, machine="HC-1", patient="nobody"),
        record(5, machine="HC-2"),
        record(6, machine="HC-1", disease=5),
        record(7, patient="SAVITA"),
    ]
    outcomes = send_list(*said)
    assert [outcome.status for outcome in outcomes] == [
        "duplicate", "duplicate", "rejected", "accepted", "duplicate", "rejected", "accepted", "rejected", "accepted",
    ]  # fmt: skip
    assert (outcomes[0].id, outcomes[1].id, outcomes[4].id) == (first, None, outcomes[3].id)
    event = db("select details from audit_events where action = 'upload' order by id desc limit 1")[0][0]
    assert event == {"machine": None, "accepted": 3, "duplicate": 3, "rejected": 3}
    assert db("select count(*) from rejections") == [(3,)]
    before = db("select count(*) from checkups")
    assert {outcome.status for outcome in send_list(*said, atomic=True)} == {"rejected"}
    assert db("select count(*) from checkups") == before


def test_a_dry_run_of_a_small_list_keeps_nothing(db) -> None:
    register_machine("HC-1")
    outcomes = send_list(record(1, machine="HC-1"), record(1, machine="HC-1"), dry_run=True)
    assert [outcome.status for outcome in outcomes] == ["accepted", "duplicate"]
    assert db("select count(*) from checkups") == [(0,)]
    assert db("select count(*) from audit_events where action = 'upload'") == [(0,)]
    assert db("select last_upload_at from machines") == [(None,)]


def test_a_record_that_postgresql_refuses_costs_its_own_only(db) -> None:
    register_machine("HC-1")
    db("alter table checkups add constraint odd check (1 / (disease::integer - 1) < 9)")
    try:
        outcomes = send_list(*(record(i, machine="HC-1", disease=f"{i}") for i in range(3)))
        assert [outcome.status for outcome in outcomes] == ["accepted", "rejected", "accepted"]
        assert "division by zero" in outcomes[1].errors[0]["message"]
        assert db("select count(*) from audit_events where action = 'upload'") == [(1,)]
    finally:
        db("alter table checkups drop constraint odd")


def test_records_that_are_not_plain_take_one_id_each(db) -> None:
    assert send(record(1, machine="HC-1")).id == 1  # its machine is not registered yet
    assert [outcome.id for outcome in send_list(record(1, machine="HC-2"), record(2, machine="HC-2"))] == [2, 3]
    assert [outcome.id for outcome in send_list(record(3, machine="HC-2"), record(4, machine="HC-2"))] == [4, 5]
