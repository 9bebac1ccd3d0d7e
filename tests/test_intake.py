"""Intake: every record is accepted, a duplicate, or rejected and kept; none is stored twice or overwritten."""

import io
import json
import os
import socket
import threading
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.factories import record, statuses, take

from myhealth.common.database import database, notify_sync, transaction
from myhealth.common.errors import Conflict, NotFound, Unavailable
from myhealth.intake import batch as module
from myhealth.intake.file_import import FileImport, ImportOptions
from myhealth.intake.insert import new_ids
from myhealth.intake.pipeline import read_batches
from myhealth.intake.rejections import get_rejection, list_rejections, resolve
from myhealth.intake.results import RecordResult
from myhealth.intake.retry import retry_rejection
from myhealth.profiles.services import create_user

pytestmark = pytest.mark.usefixtures("people")


def test_records_are_stored_with_everything_they_say(db, people) -> None:
    (outcome,) = take(record(1182))
    stored = db("select patient_id, serial, record_id, checkup_type, checkup_report, disease, taken_by,"
                " taken_at::text, results, revision from checkups join machines on machines.id = machine_id"
                " where checkups.id = %s", outcome.id)  # fmt: skip
    assert stored == [(people["bholanath"], "HC-1", "1182", "BLOOD PRESSURE", "ALL FINE. 128/82", "BP", "dr.ayush",
                       "2026-11-20 03:44:03+00", record()["results"], 1)]  # fmt: skip


@pytest.mark.parametrize(
    "text", ["tab\there", "new\nline", "back\\slash", "\\N", "\\.", "quote'\"", "नमस्ते 🩺", "\r\n", ""]
)
def test_any_text_arrives_as_it_was_sent(db, text: str) -> None:
    (outcome,) = take(record(checkup_report=text, taken_by=text, record_id=f"x{text}x"))
    assert db("select checkup_report, taken_by, record_id from checkups") == [(text, text, f"x{text}x")]
    assert outcome.status == "accepted"


def test_outcomes_are_in_the_order_of_the_records(db) -> None:
    mixed = take(record(1), "no json", record(2, patient="nobody"), record(3), record(1), record(4, disease=5))
    assert statuses(mixed) == ["accepted", "rejected", "rejected", "accepted", "duplicate", "rejected"]
    assert mixed[4].id == mixed[0].id
    assert [outcome.index for outcome in mixed] == list(range(6))
    assert db("select record_id from checkups order by id") == [("1",), ("3",)]


def test_the_same_records_again_are_duplicates(db) -> None:
    first, second = take(record(1), record(2)), take(record(2), record(1))
    assert statuses(second) == ["duplicate"] * 2
    assert [outcome.id for outcome in second] == [first[1].id, first[0].id]
    assert db("select count(*), max(revision) from checkups") == [(2, 1)]


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"patient": "savita"}, "checkup_for"), ({"checkup_report": "other"}, "checkup_report"), ({"disease": "X"}, "disease"),
     ({"checkup_type": "X"}, "checkup_type"), ({"taken_by": "x"}, "taken_by"), ({"taken_by": None}, "taken_by"),
     ({"taken_at": "2026-11-20T09:14:04+05:30"}, "taken_at"), ({"results": []}, "results")],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_known_record_with_other_content_is_refused_and_kept_never_overwritten(db, changes: dict, field: str) -> None:
    take(record(1182))
    before = db("select * from checkups")
    (outcome,) = take(record(1182, **changes))
    assert outcome.status == "rejected"
    assert outcome.errors[0]["message"] == f"record 1182 of HC-1 is stored with other content: {field}"
    assert outcome.errors[0]["field"] == field
    assert db("select * from checkups") == before
    assert json.loads(get_rejection(outcome.rejection_id).payload) == record(1182, **changes)


def test_what_says_the_same_in_other_words_is_the_same(db) -> None:
    take(record(1))
    assert statuses(take(record(1, taken_at="2026-11-20T03:44:03Z", patient="BHOLANATH"))) == ["duplicate"]
    unsaid = record(1)
    del unsaid["taken_at"]
    assert statuses(take(unsaid)) == ["duplicate"]


def test_machines_do_not_mix_up_their_numbers(db) -> None:
    outcomes = take(record(1, machine="A"), record(1, machine="B"), record(1), machine=None)
    assert statuses(outcomes) == ["accepted"] * 3
    assert statuses(take(record(1, machine="A"), record(1, machine="B"), record(1), machine=None)) == ["duplicate"] * 3
    assert db("select serial from machines order by 1") == [("A",), ("B",)]


def test_without_numbers_three_like_records_are_three_and_the_file_again_is_none(db) -> None:
    like = record(None)
    assert statuses(take(like, like, like, record(None, disease="X"), derive_ids=True)) == ["accepted"] * 4
    assert statuses(take(like, record(None, disease="X"), like, like, derive_ids=True)) == ["duplicate"] * 4
    assert statuses(take(like, like, like, like, derive_ids=True)) == ["duplicate"] * 3 + ["accepted"]


def test_over_http_records_without_numbers_are_always_new(db) -> None:
    assert statuses(take(record(None), record(None))) == ["accepted"] * 2
    assert statuses(take(record(None))) == ["accepted"]
    assert db("select count(*) from checkups where record_id is null") == [(3,)]


def test_all_or_nothing_stores_nothing_when_one_is_refused(db) -> None:
    outcomes = take(record(1), record(2, patient="nobody"), record(3), atomic=True)
    assert statuses(outcomes) == ["rejected"] * 3
    assert "all-or-nothing" in outcomes[0].errors[0]["message"]
    assert db("select count(*) from checkups") == [(0,)]
    assert [row.id for row in list_rejections()] == [outcomes[1].rejection_id]
    assert statuses(take(record(1), record(3), atomic=True)) == ["accepted"] * 2


def test_unknown_patients_are_made_where_that_is_wanted_and_cannot_log_in(db) -> None:
    outcomes = take(record(1, patient="new.one"), record(2, patient="New.One"), record(3, patient="a b"),
                    create_patients=True)  # fmt: skip
    assert statuses(outcomes) == ["accepted", "accepted", "rejected"]
    assert "contains ' '" in outcomes[2].errors[0]["message"]
    assert db("select username, password_hash, role from users where lower(username) = 'new.one'") in (
        [("new.one", None, "patient")], [("New.One", None, "patient")])  # fmt: skip


def test_a_dry_run_says_the_same_and_keeps_nothing(db) -> None:
    take(record(1))
    records = [record(1), record(2), record(3, patient="nobody"), record(4, patient="new.one")]
    outcomes = take(*records, dry_run=True, machine="HC-9", create_patients=True)
    assert statuses(outcomes) == ["accepted"] * 4
    outcomes = take(*records, dry_run=True)
    assert statuses(outcomes) == ["duplicate", "accepted", "rejected", "rejected"]
    assert db("select count(*) from checkups") == [(1,)]
    assert db("select count(*) from rejections") == [(0,)]
    assert db("select count(*) from machines") == [(1,)]


def test_no_upload_waits_for_a_dry_run(db, connect) -> None:
    records = [record(i, machine="HC-9", patient="newcomer") for i in range(2)]
    options = ImportOptions(create_patients=True, dry_run=True)
    with mock.patch.object(read_batches, "__defaults__", (10**6, 1)), connect() as other, other.cursor() as cursor:
        coming = FileImport(io.BytesIO(json.dumps(records).encode()), "x", options)
        cursor.execute("set lock_timeout = '1s'")
        for _ in coming:  # as long as the consumer likes
            cursor.execute("insert into machines (serial) values ('HC-9') on conflict do nothing")
            cursor.execute("select count(*) from pg_locks where locktype = 'advisory'")
            assert cursor.fetchall() == [(0,)]
            other.rollback()
    assert (coming.counts["accepted"], coming.created) == (2, 1)


def test_two_that_bring_the_same_records_at_once_store_them_once(db) -> None:
    records = [record(i) for i in range(400)]
    found: list[list[RecordResult]] = []

    def bring() -> None:
        with database.connection_context():
            for start in range(0, 400, 50):
                found.append(take(*records[start : start + 50]))

    threads = [threading.Thread(target=bring) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    everything = [outcome for outcomes in found for outcome in outcomes]
    assert len(everything) == 1600
    assert statuses(everything).count("accepted") == 400
    assert statuses(everything).count("duplicate") == 1200
    assert db("select count(*), count(distinct record_id) from checkups") == [(400, 400)]


@pytest.mark.parametrize("known", [[77], [0], [199], [*range(0, 200, 2)], [*range(200)]])
def test_many_records_some_of_which_are_known_are_each_stored_once(db, known: list[int]) -> None:
    take(*[record(i) for i in known])
    mixed = take(*[record(i) for i in range(200)], record(5), record(77, disease="other"))
    again = {*known}
    expected = ["duplicate" if i in again else "accepted" for i in range(200)]
    assert statuses(mixed) == [*expected, "duplicate", "rejected"]
    assert db("select count(*), count(distinct (machine_id, record_id)), sum(revision) from checkups") == [
        (200, 200, 200)
    ]
    ids = dict(db("select record_id, id from checkups"))
    assert [outcome.id for outcome in mixed[:200]] == [ids[str(i)] for i in range(200)]


def test_ids_that_are_taken_at_once_are_nobody_elses(db) -> None:
    taken: list[list[int]] = []

    def some() -> None:
        with database.connection_context():
            for _ in range(20):
                with transaction() as cursor:
                    taken.append([*new_ids(cursor, 3000)])

    threads = [threading.Thread(target=some) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {len(ids) for ids in taken} == {3000}
    assert len({id_ for ids in taken for id_ in ids}) == 3 * 20 * 3000
    assert any(max(ids) - min(ids) >= 3000 for ids in taken), "they never came between each other: it shows nothing"


def test_a_patient_who_is_deleted_meanwhile_is_an_unknown_one(db, connect, monkeypatch) -> None:
    """The patient goes between two statements of ours: the batch is done again, on what is there then."""
    other = connect()
    real = module.new_ids
    calls = []

    def delete_first(cursor, count):
        if not calls:
            with other, other.cursor() as theirs:
                theirs.execute("delete from users where username = 'savita'")
        calls.append(1)
        return real(cursor, count)

    monkeypatch.setattr(module, "new_ids", delete_first)
    outcomes = take(record(1), record(2, patient="savita"))
    assert statuses(outcomes) == ["accepted", "rejected"]
    assert len(calls) == 2


def test_a_database_that_goes_away_acknowledges_nothing(db, connect) -> None:
    from myhealth.common.database import transaction

    victim = database.connection().info.backend_pid
    other = connect()
    with pytest.raises(Unavailable), transaction():
        take(record(1))
        with other, other.cursor() as cursor:
            cursor.execute("select pg_terminate_backend(%s)", (victim,))
        take(record(2))
    assert db("select count(*) from checkups") == [(0,)]


@pytest.mark.parametrize(("told", "held"), [("off", "on"), ("local", "local"), ("remote_apply", "remote_apply")])
def test_what_is_acknowledged_is_on_disk_whatever_the_server_was_told(db, told: str, held: str) -> None:
    name = db("select current_database()")[0][0]
    db(f"alter database {name} set synchronous_commit = {told}")
    database.close_all()
    try:
        assert database.execute_sql("show synchronous_commit").fetchone() == (held,)
    finally:
        db(f"alter database {name} reset synchronous_commit")
        database.close_all()


def test_when_a_machine_last_uploaded_is_noted(db) -> None:
    take(record(1))
    assert db("select last_upload_at > now() - interval '1 minute' from machines") == [(True,)]


# -- rejections ------------------------------------------------------------------------------------------------------


def test_the_same_refused_record_again_is_counted_not_doubled(db) -> None:
    for _ in range(3):
        take("broken", record(1, patient="nobody"), derive_ids=True)
    assert db("select payload = 'broken', times from rejections order by id") == [(True, 3), (False, 3)]


def test_two_like_refused_records_of_one_file_are_two(db) -> None:
    for _ in range(2):
        take("broken", "broken", derive_ids=True)
    assert db("select times from rejections order by id") == [(2,), (2,)]


@pytest.mark.parametrize("raw", ['{"a": "\x00"}', b'{"a": "\xff"}'.decode("utf-8", "surrogateescape"), "x" * 5_000_000])
def test_a_refused_record_is_kept_whole_whatever_its_bytes_are(db, raw: str) -> None:
    from myhealth.intake.rejections import payload_text

    (outcome,) = take(raw)
    assert payload_text(get_rejection(outcome.rejection_id)) == raw


def test_a_hostile_field_name_can_be_kept_and_shown(db) -> None:
    (outcome,) = take({**record(1), "a\0\ud800\x1b[2J": 1})
    errors = get_rejection(outcome.rejection_id).errors
    assert errors[0]["field"] == "a\\x00\\ud800\\x1b[2J"


def test_a_retry_takes_it_in_once_the_reason_is_gone(db) -> None:
    (refused,) = take(record(1, patient="late"))
    assert retry_rejection(refused.rejection_id).status == "rejected"
    create_user("late")
    outcome = retry_rejection(refused.rejection_id)
    assert outcome.status == "accepted"
    assert db("select resolution, checkup_id from rejections where resolved_at is not null") == [
        ("accepted", outcome.id)
    ]
    with pytest.raises(Conflict):
        retry_rejection(refused.rejection_id)
    assert statuses(take(record(1, patient="late"))) == ["duplicate"]


def test_a_retry_keeps_the_number_that_was_derived_then(db) -> None:
    like = record(None, patient="late")
    refused = take(like, like, derive_ids=True)
    create_user("late")
    assert [retry_rejection(outcome.rejection_id).status for outcome in refused] == ["accepted"] * 2
    assert statuses(take(like, like, derive_ids=True)) == ["duplicate"] * 2
    assert db("select count(*) from checkups") == [(2,)]


def test_what_was_discarded_stays_so(db) -> None:
    (refused,) = take(record(1, patient="nobody"))
    resolve(refused.rejection_id, "discarded: by hand")
    assert list_rejections() == []
    assert len(list_rejections(state="all")) == 1
    with pytest.raises(Conflict, match="by hand"):
        resolve(refused.rejection_id, "discarded")
    with pytest.raises(NotFound):
        resolve(99, "discarded")


# -- properties ------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["1", "2", "3", None]), st.sampled_from(["bholanath", "nobody"]), st.sampled_from("AB")
        ),
        max_size=12,
    )
)
def test_every_record_is_accounted_for_and_again_changes_nothing(db, plan: list) -> None:
    database.execute_sql("truncate checkups, rejections restart identity cascade")
    records = [record(number, patient=patient, disease=disease) for number, patient, disease in plan]
    outcomes = take(*records, derive_ids=True)
    stored = db("select count(*) from checkups")[0][0]
    assert statuses(outcomes).count("accepted") == stored
    again = take(*records, derive_ids=True)
    assert db("select count(*) from checkups")[0][0] == stored
    assert [o.status == "rejected" for o in again] == [o.status == "rejected" for o in outcomes]
    assert "accepted" not in statuses(again)
    for made, outcome in zip(records, outcomes, strict=True):
        if outcome.status != "rejected":
            kept = db("select disease from checkups where id = %s", outcome.id)
            assert kept == [(made["disease"],)]


def test_a_connection_that_breaks_behind_the_commit_loses_a_wake_up_only(db) -> None:
    with socket.socket(fileno=os.dup(database.connection().fileno())) as broken:
        broken.shutdown(socket.SHUT_RDWR)
    notify_sync()
    database.manual_close()
