"""Machines send their whole memory again: records that were edited or deleted here stay so."""

import io
import itertools
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from support.clients import Caller
from support.factories import dump, record, statuses, take
from support.hl7 import MSH, OBR, OBX

from myhealth import stores
from myhealth.audit.events import Actor, acting_as
from myhealth.common.database import database, transaction
from myhealth.intake.corrections import change_checkup, delete_checkup
from myhealth.intake.file_import import FileImport, ImportOptions
from myhealth.intake.parsed_record import ParsedRecord
from myhealth.intake.pipeline import Intake
from myhealth.intake.record_ids import RENAMED
from myhealth.intake.rejections import get_rejection, list_rejections
from myhealth.intake.results import ImportSource, RecordResult
from myhealth.intake.retry import retry_rejection
from myhealth.privacy.erasure import erase_user
from myhealth.profiles.services import rename_user
from myhealth.reports.writer import ReportWriter
from myhealth.sync.runner import run_pass

GONE = "record 77 of HC-1 was deleted here; it is not taken in again"
OTHER = "record 77 of HC-1 was deleted here with other content"
OTHERS = [record(number) for number in range(100, 160)]  # so many that they are copied
CHECKUPS = "select id, record_id, checkup_report, revision from checkups order by id"
WAYS = ["single", "list", "dump", "bulk"]


def sent(upload: Caller, way: str, **changes: Any) -> dict[str, Any]:
    """What the upload API says of record 77, which comes in this way, alone or behind others."""
    said = record(77, **changes)
    if way in ("dump", "bulk"):
        others = OTHERS if way == "bulk" else OTHERS[:2]
        answer = upload("POST", "/machines/HC-1/dumps/", dump([*others, said]))
    else:
        said["machine"] = "HC-1"
        answer = upload("POST", "/checkups/", said if way == "single" else [{**OTHERS[0], "machine": "HC-1"}, said])
    return answer.json["items"][-1]


@pytest.fixture
def came(upload: Caller, log_in) -> int:
    """Record 77 has come, with one more; its check-up's id. The caller is a technician."""
    upload.token = log_in("tara")
    return upload("POST", "/machines/HC-1/dumps/", dump([record(1), record(77)])).json["items"][1]["id"]


@pytest.fixture
def delete(upload: Caller, log_in) -> Callable[..., None]:
    def by_a_doctor(checkup_id: int, patient: str = "bholanath") -> None:
        path = f"/users/{patient}/checkups/{checkup_id}/"
        assert upload("DELETE", path, token=log_in("dr.ayush")).status_code == 204

    return by_a_doctor


@pytest.fixture
def correct(upload: Caller, log_in) -> Callable[..., None]:
    def by_a_doctor(checkup_id: int, **changes: Any) -> None:
        path = f"/users/bholanath/checkups/{checkup_id}/"
        assert upload("PUT", path, changes, token=log_in("dr.ayush")).status_code == 200

    return by_a_doctor


@pytest.fixture
def deleted(came: int, delete) -> int:
    delete(came)
    return came


@pytest.mark.parametrize("way", WAYS)
def test_what_was_deleted_is_not_taken_in_again(upload: Caller, db, deleted: int, way: str) -> None:
    for _ in range(2):
        item = sent(upload, way)
        assert (item["status"], item["id"], item["errors"]) == ("duplicate", None, [])
        assert item["warnings"] == [
            {"index": item["index"], "field": "record_id", "message": GONE, "code": "deleted_here"}
        ]
        assert item["record_id"] == "77"
    assert db("select count(*) from checkups where record_id = '77'") == [(0,)]
    assert db("select count(*) from checkups where record_id = '1'") == [(1,)]
    assert list_rejections() == []


OTHER_CONTENTS = [
    *((way, {"checkup_report": "x"}) for way in WAYS),
    ("dump", {"patient": "savita"}),
    ("dump", {"taken_by": None}),
    ("dump", {"taken_at": "2026-11-20T09:14:04+05:30"}),
    ("dump", {"results": []}),
]


@pytest.mark.parametrize(
    ("way", "changes"), OTHER_CONTENTS, ids=lambda value: value if isinstance(value, str) else next(iter(value))
)
def test_what_was_deleted_with_other_content_is_refused_and_kept(
    upload: Caller, db, deleted: int, way: str, changes: dict[str, Any]
) -> None:
    item = sent(upload, way, **changes)
    assert (item["status"], item["id"], item["errors"][0]["message"]) == ("rejected", None, OTHER)
    assert json.loads(get_rejection(item["rejection_id"]).payload)["record_id"] == "77"
    assert db("select count(*) from checkups where record_id = '77'") == [(0,)]


def test_a_record_that_was_deleted_without_a_machine_is_known_by_its_number_alone(
    upload: Caller, log_in, delete
) -> None:
    upload.token = log_in("tara")
    first = upload("POST", "/checkups/", record(77)).json["items"][0]["id"]
    delete(first)
    item = upload("POST", "/checkups/", record(77)).json["items"][0]
    assert (item["status"], item["warnings"][0]["message"]) == ("duplicate", GONE.replace(" of HC-1", ""))
    mixed = upload("POST", "/checkups/", [record(77), {**record(77), "machine": "HC-2"}, record(78)]).json["items"]
    assert [item["status"] for item in mixed] == ["duplicate", "accepted", "accepted"]


def test_a_record_without_a_number_comes_anew_from_a_list_and_not_from_a_dump(upload: Caller, log_in, delete) -> None:
    upload.token = log_in("tara")
    in_list, in_dump = [record(None)], dump([record(None)])
    for path, body in (("/checkups/", in_list), ("/machines/HC-1/dumps/", in_dump)):
        first = upload("POST", path, body).json["items"][0]["id"]
        delete(first)
    assert upload("POST", "/checkups/", in_list).json["items"][0]["status"] == "accepted"
    assert upload("POST", "/machines/HC-1/dumps/", in_dump).json["items"][0]["status"] == "duplicate"


@pytest.mark.parametrize("way", WAYS)
def test_what_was_corrected_is_known_as_it_first_came(upload: Caller, db, correct, came: int, way: str) -> None:
    correct(came, checkup_report="128/83", taken_at="2026-11-21T00:00:00Z", results=[])
    correct(came, checkup_report="128/84")
    before = db(CHECKUPS)
    item = sent(upload, way)
    assert (item["status"], item["id"], item["errors"]) == ("duplicate", came, [])
    assert "warnings" not in item
    unsaid = sent(upload, way, taken_at=None)
    assert (unsaid["status"], unsaid["id"]) == ("duplicate", came)
    assert [row for row in db(CHECKUPS) if row in before] == before
    assert list_rejections() == []


@pytest.mark.parametrize("way", WAYS)
def test_what_was_corrected_stays_where_other_content_comes(upload: Caller, db, correct, came: int, way: str) -> None:
    correct(came, checkup_report="128/83")
    item = sent(upload, way, checkup_report="128/99")
    assert item["errors"][0]["message"] == "record 77 of HC-1 is stored with other content"
    assert sent(upload, way, disease="X")["status"] == "rejected"
    assert sent(upload, way, checkup_report="128/83")["id"] == came  # as it is stored
    assert db("select checkup_report, revision from checkups where record_id = '77'") == [("128/83", 2)]


def test_what_was_corrected_and_then_deleted_is_known_as_it_first_came(
    upload: Caller, correct, delete, came: int
) -> None:
    correct(came, checkup_report="128/83")
    delete(came)
    assert sent(upload, "dump")["status"] == "duplicate"
    assert sent(upload, "dump", checkup_report="128/83")["errors"][0]["message"] == OTHER


NUMBERS = [
    {"code": "2339-0", "name": "Glucose", "value": 5.10, "unit": "mmol/L"},  # the catalogue adds a range
    {"name": "Count", "value": 1e5}, {"name": "Little", "value": 1e-7}, {"name": "None", "value": -0.0},
    {"code": "8310-5", "name": "Temperature", "value": 400, "unit": "Cel"}, {"name": "Word", "value": "नमस्ते \"5\""},
]  # fmt: skip


@pytest.mark.parametrize("how", ["corrected", "deleted"])
def test_results_are_the_same_however_they_are_stored(db, people, monkeypatch, how: str) -> None:
    def bring(text: str) -> RecordResult:
        return Intake(ImportSource("test.json", "HC-1")).store_batch([ParsedRecord(0, 1, text)])[0]

    text = json.dumps(record(77, results=NUMBERS, taken_by=None)).replace("5.1,", "5.10,")
    assert "5.10," in text
    first = bring(text)
    assert first.id is not None, first.errors
    if how == "deleted":
        delete_checkup(people["bholanath"], first.id)
    else:
        change_checkup(people["bholanath"], first.id, {"results": []})
    assert bring(text).status == "duplicate"
    monkeypatch.setattr("myhealth.clinical.catalog.BY_CODE", {})  # a later catalogue, which says nothing of them
    assert bring(text).status == "duplicate"
    assert bring(text.replace("5.10,", "5.1,")).status == "rejected", "other digits are other content"
    assert bring(text.replace("Little", "Less")).status == "rejected"


def test_it_stays_gone_at_the_patients(upload: Caller, browse: Caller, db, log_in, delete, settings, reports) -> None:
    """Which was entered for the wrong person; the fixture's records have come from the same machine."""

    def shown() -> list[int]:
        run_pass(settings.database_url, ReportWriter(reports), settings)
        return [report["id"] for report in browse("GET", "/reports/", token=log_in("savita")).json]

    upload.token = log_in("tara")
    memory = [*OTHERS, record(77, patient="savita")]
    wrong = upload("POST", "/machines/HC-1/dumps/", dump(memory)).json["items"][-1]["id"]
    before = shown()
    assert wrong in before
    delete(wrong, "savita")
    buried = db("select count(*) from tombstones")
    assert buried == [(1,)]
    for _ in range(2):
        answer = upload("POST", "/machines/HC-1/dumps/", dump(memory))
        assert (answer.status_code, answer.json["duplicate"]) == (200, len(memory))
        assert shown() == [id_ for id_ in before if id_ != wrong]
    assert db("select count(*) from tombstones") == buried


def test_all_or_nothing_with_a_deleted_one(upload: Caller, db, deleted: int) -> None:
    path = "/machines/HC-1/dumps/?atomic=true"
    answer = upload("POST", path, dump([record(5), record(77)]))
    assert [item["status"] for item in answer.json["items"]] == ["accepted", "duplicate"]
    answer = upload("POST", path, dump([record(6), record(77, disease="X")]))
    assert (answer.status_code, answer.json["rejected"]) == (422, 2)
    assert db("select record_id from checkups order by id") == [("1",), ("5",)]


def test_a_dry_run_tells_the_same_and_keeps_nothing(db, people) -> None:
    first, second = take(record(77), record(78))
    delete_checkup(people["bholanath"], first.id)
    change_checkup(people["bholanath"], second.id, {"disease": "X"})
    again = (record(77), record(78), record(79))
    assert statuses(take(*again, dry_run=True)) == ["duplicate", "duplicate", "accepted"]
    assert statuses(take(record(77, disease="X"), dry_run=True)) == ["rejected"]
    assert (db("select record_id from checkups"), list_rejections()) == ([("78",)], [])


def test_a_retry_says_what_a_new_upload_is_told(db, people) -> None:
    (other,) = take(record(77, patient="nobody"))
    (first,) = take(record(77))
    delete_checkup(people["bholanath"], first.id)
    again = take(record(77, disease="X"))[0]
    still = retry_rejection(again.rejection_id)
    assert (still.status, still.errors[0]["message"], still.rejection_id) == ("rejected", OTHER, again.rejection_id)
    assert retry_rejection(other.rejection_id).errors[0]["message"] == "there is no user named nobody"
    (corrected,) = take(record(78))
    (refused,) = take(record(78, disease="X"))
    change_checkup(people["bholanath"], corrected.id, {"disease": "X"})
    assert retry_rejection(refused.rejection_id).id == corrected.id


def test_the_command_line_says_what_was_deleted(db, people, run_cli, tmp_path) -> None:
    path = tmp_path / "dump.json"
    path.write_bytes(dump([*OTHERS, record(77, patient="late")]))
    assert run_cli("import-machine", str(path)).returncode == 1
    take(record(77, patient="late"), create_patients=True)  # unlike an import, it resolves no rejection
    patient, checkup = db("select patient_id, id from checkups where record_id = '77'")[0]
    with acting_as(Actor(None, "x", None)):
        delete_checkup(patient, checkup)
    done = run_cli("import-machine", str(path))
    assert (done.returncode, done.stdout) == (0, f"{path}: 0 accepted, 61 duplicate, 0 rejected.\n"), done.stderr
    assert done.stderr == f"{path}, line 1: record 61 (record_id 77): record_id: {GONE}\n"
    retried = run_cli("rejections", "retry", str(list_rejections()[0].id))
    assert (retried.returncode, retried.stdout) == (0, f"{list_rejections(state='all')[0].id}: duplicate, {GONE}\n")


def test_what_was_kept_goes_with_the_patient(db, people) -> None:
    first, second, third = take(record(1), record(2), record(3, patient="savita"))
    delete_checkup(people["bholanath"], first.id)
    change_checkup(people["bholanath"], second.id, {"disease": "X"})
    delete_checkup(people["savita"], third.id)
    assert db("select count(*) from superseded") == [(3,)]
    erase_user("bholanath")
    assert db("select checkup_id, patient_id from superseded") == [(third.id, people["savita"])]


def test_nothing_of_what_it_said_is_kept(db, people) -> None:
    (first,) = take(record(1, checkup_report="the secret", disease="the secret"))
    delete_checkup(people["bholanath"], first.id)
    assert "the secret" not in db("select superseded::text from superseded")[0][0]
    assert b"the secret".hex() not in db("select superseded::text from superseded")[0][0]


def test_a_record_that_somebody_put_back_is_the_one_that_is_stored(db, people) -> None:
    (first,) = take(record(77))
    db("create temporary table kept as select * from checkups")
    delete_checkup(people["bholanath"], first.id)
    db("insert into checkups select * from kept")
    db("drop table kept")
    (outcome,) = take(record(77))
    assert (outcome.status, outcome.id, outcome.warnings) == ("duplicate", first.id, [])


def many(said: dict[str, Any]) -> RecordResult:
    return take(*OTHERS, record(160), said)[-1]  # not among those that are looked at beforehand


def alone(said: dict[str, Any]) -> RecordResult:
    with acting_as(Actor(None, "tara", None)):
        return Intake(ImportSource("POST /checkups/", "HC-1", log_upload=True)).store_batch(
            [ParsedRecord(0, 1, json.dumps(said))]
        )[0]


@pytest.mark.parametrize("send", [alone, many])
def test_a_record_that_comes_while_it_is_deleted_does_not_come_back(
    db, people, connect, send: Callable[[dict[str, Any]], RecordResult]
) -> None:
    (first,) = take(record(77))
    outcomes: list[RecordResult] = []

    def bring() -> None:
        with database.connection_context():
            outcomes.append(send(record(77)))

    sender = threading.Thread(target=bring)
    with transaction():
        delete_checkup(people["bholanath"], first.id)
        sender.start()
        wait_for_a_lock(connect())
    sender.join()
    assert [(outcome.status, outcome.id) for outcome in outcomes] == [("duplicate", None)]
    assert db("select count(*) from checkups where record_id = '77'") == [(0,)]


TABLE = b"taken_at,Glucose (mg/dL)\n2026-11-20T09:00:00Z,90\n2026-11-20T09:00:00Z,90\n2026-11-21T09:00:00Z,91\n"


@pytest.mark.parametrize("renamed", [["bho"], ["bho", "b.k"], ["bho", "bholanath"]])
@pytest.mark.parametrize("known", [0, 1, 3])
def test_records_without_numbers_are_known_under_the_new_name_of_their_patient(db, people, renamed, known) -> None:
    def send(patient: str, rows: int = 3) -> dict[str, int]:
        table = b"".join(TABLE.splitlines(keepends=True)[: 1 + rows])
        coming = FileImport(io.BytesIO(table), "test", ImportOptions(patient=patient))
        return {name: count for _ in coming for name, count in coming.counts.items()} if rows else coming.counts

    send("bholanath", known)
    if known == 3:
        delete_checkup(people["bholanath"], 1)
    for before, name in itertools.pairwise(["bholanath", *renamed]):
        rename_user(before, name)
    for duplicates in (known, 3):
        assert send(renamed[-1]) == {"accepted": 3 - duplicates, "duplicate": duplicates, "rejected": 0}
    assert db("select count(*) from checkups") == [(2 if known == 3 else 3,)]


def test_former_names_are_found_without_reading_the_other_events_of_their_users(db, people) -> None:
    subject = people["bholanath"]
    with database.atomic():
        db(
            "insert into audit_events (actor, action, subject_id, subject, outcome) "
            f"select 'savita', 'user.login', {subject}, 'bholanath', 'done' from generate_series(1, 5000)"
        )
        db("analyze audit_events")
        plan = "\n".join(line for (line,) in db("explain " + RENAMED.replace("%s", "array['bho']").replace("%%", "%")))
    assert "audit_events_renames" in plan


def test_two_envelopes_of_a_record_without_a_number_that_come_at_once_are_one(db, people, connect) -> None:
    def bring(number: int) -> None:
        order = OBR.replace("|P1^ORD|F1^LAB|", "|||")
        text = "\r".join((MSH.replace("MSG1", f"MSG{number}"), "PID|1||bholanath", order, OBX, ""))
        list(FileImport(io.BytesIO(text.encode()), "test", ImportOptions()))

    def bring_second() -> None:
        with database.connection_context():
            bring(2)

    sender = threading.Thread(target=bring_second)
    take(record(1), machine="HC9000@PUNE")  # else the second one waits for the machine's row
    with transaction():
        bring(1)
        sender.start()
        wait_for_a_lock(connect())
    sender.join()
    assert db("select count(*) from checkups where record_id like 'MSG%%'") == [(1,)]


def wait_for_a_lock(connection: Any) -> None:
    """Until somebody waits for another's transaction to end."""
    connection.autocommit = True
    with connection.cursor() as cursor:
        for _ in range(500):
            cursor.execute(
                "select from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
            )
            if cursor.rowcount:
                return
            time.sleep(0.01)
    raise AssertionError("nobody waited")


def test_nothing_is_asked_of_each_record_where_nothing_was_deleted(db, people, monkeypatch) -> None:
    (first,) = take(record(77))
    change_checkup(people["bholanath"], first.id, {"disease": "X"})
    monkeypatch.delattr("myhealth.intake.originals.find_originals")
    assert set(statuses(take(*OTHERS))) == {"accepted"}


def test_it_goes_down_and_up_and_what_comes_meanwhile_is_as_before(db, settings, people) -> None:
    first, second = take(record(77), record(78))
    delete_checkup(people["bholanath"], first.id)
    try:
        assert stores.migrate(settings, 7)[0][0] == "reverted"
        assert db("select to_regclass('superseded')::text, to_regproc('superseded_refuse')::text") == [(None, None)]
    finally:
        stores.migrate(settings)
    assert statuses(take(record(77), record(78))) == ["accepted", "duplicate"]
    change_checkup(people["bholanath"], second.id, {"disease": "X"})
    assert statuses(take(record(78))) == ["duplicate"]
