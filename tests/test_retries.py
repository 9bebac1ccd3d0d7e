"""A rejected record that is retried: stored once, whatever else brings it, and as of its own moment."""

import io
import json
from typing import Any

import pytest
from support.factories import dump, record

from myhealth.intake.file_import import FileImport, ImportOptions
from myhealth.intake.formats.registry import read_dump
from myhealth.intake.identity import PatientMap
from myhealth.intake.pipeline import Intake
from myhealth.intake.results import ImportSource
from myhealth.intake.retry import retry_rejection
from myhealth.profiles.services import create_user, rename_user

PAIR = [{"name": name, "value": value, "unit": "mm[Hg]"} for name, value in (("Upper", 128), ("Lower", 82))]
BAD, GOOD = record(None, disease=5), record(None)


def take_in(data: bytes, **options: Any) -> dict[str, int]:
    started = FileImport(io.BytesIO(data), "a file", ImportOptions(**options))
    list(started)
    return {name: count for name, count in started.counts.items() if count}


def only_rejection(db: Any) -> int:
    ((number,),) = db("select id from rejections where resolved_at is null")
    return int(number)


def count(db: Any) -> int:
    ((number,),) = db("select count(*) from checkups")
    return int(number)


@pytest.mark.parametrize("first", ["the retry", "the corrected file"])
def test_a_corrected_record_without_a_number_and_the_corrected_file_store_one(db, people, first: str) -> None:
    assert take_in(dump([BAD])) == {"rejected": 1}
    if first == "the retry":
        assert retry_rejection(only_rejection(db), correction=json.dumps(GOOD)).status == "accepted"
        assert take_in(dump([GOOD])) == {"duplicate": 1}
    else:
        assert take_in(dump([GOOD])) == {"accepted": 1}
        assert retry_rejection(only_rejection(db), correction=json.dumps(GOOD)).status == "duplicate"
    assert count(db) == 1


@pytest.mark.parametrize("former", [False, True])
def test_a_dump_in_another_layout_is_the_same_dump(db, people, former: bool) -> None:
    compact = json.dumps(json.loads(dump([GOOD, GOOD])), separators=(",", ":")).encode()
    assert take_in(dump([GOOD, GOOD])) == {"accepted": 2}
    if former:  # as earlier releases derived it, with the blanks of the results
        parsed = next(iter(read_dump(io.BytesIO(dump([GOOD]))).records))
        (item,) = Intake(ImportSource("a file", "HC-1", derive_ids=True)).validate([parsed])
        assert item.former_ids[-1].endswith(":1")
        db("update checkups set record_id = %s || right(record_id, 1)", item.former_ids[-1][:-1])
        assert take_in(dump([GOOD, GOOD])) == {"duplicate": 2}
        return
    assert take_in(compact) == {"duplicate": 2}
    assert take_in(json.dumps(json.loads(compact), indent=2).encode()) == {"duplicate": 2}


WRITTEN = {
    "the name in capitals": {"checkup_for": "BHOLANATH"}, "blanks around the name": {"checkup_for": " bholanath "},
    "another zone": {"taken_at": "2026-11-20T03:44:03Z"},
    "both, withdrawn": {"checkup_for": "Bholanath", "taken_at": "2026-11-20T03:44:03Z", "status": "entered-in-error"},
}  # fmt: skip


@pytest.mark.parametrize("changes", WRITTEN.values(), ids=WRITTEN)
def test_the_same_record_in_other_writing_is_the_same(db, people, changes: dict[str, Any]) -> None:
    assert take_in(dump([{**GOOD, "results": PAIR}] * 2)) == {"accepted": 2}
    expected = "accepted" if "status" in changes else "duplicate"  # a withdrawal is news
    assert take_in(dump([{**GOOD, "results": PAIR, **changes}] * 2)) == {expected: 2}
    assert count(db) == 2


def test_a_table_that_writes_its_moments_in_another_zone_is_the_same(db, people) -> None:
    assert take_in(b"patient,date,T\nsavita,2026-11-20T09:00:00+05:30,5\n") == {"accepted": 1}
    assert take_in(b"patient;date;T\nSavita;2026-11-20T03:30:00Z;5\n") == {"duplicate": 1}
    assert take_in(b"patient;date;T\nSavita;2026-11-20T03:30:00Z;6\n") == {"accepted": 1}


def test_two_equal_records_of_a_file_are_corrected_to_two(db, people) -> None:
    assert take_in(dump([BAD, BAD])) == {"rejected": 2}
    for (number,) in db("select id from rejections order by id"):
        assert retry_rejection(number, correction=json.dumps(GOOD)).status == "accepted"
    assert take_in(dump([GOOD, GOOD])) == {"duplicate": 2}
    assert count(db) == 2


@pytest.mark.parametrize("first", ["the retry", "the corrected file"])
def test_a_patient_who_is_corrected_makes_no_second_record(db, people, first: str) -> None:
    wrong, right = record(None, "savitta"), record(None, "savita")
    assert take_in(dump([wrong, wrong])) == {"rejected": 2}
    numbers = [number for (number,) in db("select id from rejections order by id")]
    if first == "the corrected file":
        assert take_in(dump([right, right])) == {"accepted": 2}
    for number in numbers:
        status = retry_rejection(number, correction=json.dumps(right)).status
        assert status == ("accepted" if first == "the retry" else "duplicate")
    assert take_in(dump([right, right])) == {"duplicate": 2}
    assert count(db) == 2


def test_a_record_whose_patient_was_corrected_in_its_file_is_not_stored_again_for_that_patient(db, people) -> None:
    assert take_in(dump([record(None, "savitta")] * 2)) == {"rejected": 2}
    numbers = [number for (number,) in db("select id from rejections order by id")]
    assert take_in(dump([record(None, "savita")] * 2)) == {"accepted": 2}
    assert [retry_rejection(number, patient="savita").status for number in numbers] == ["duplicate"] * 2
    assert db("select checkup_id from rejections order by id") == db("select id from checkups order by id")


def test_a_record_that_was_given_to_a_patient_is_known_in_the_corrected_and_in_the_mapped_file(db, people) -> None:
    wrong = dump([record(None, "savitta")] * 2)
    assert take_in(wrong) == {"rejected": 2}
    for (number,) in db("select id from rejections order by id"):
        assert retry_rejection(number, patient="savita").status == "accepted"
    assert take_in(dump([record(None, "Savita")] * 2)) == {"duplicate": 2}
    assert take_in(wrong, patient_map=PatientMap({"savitta": "savita"})) == {"duplicate": 2}
    assert count(db) == 2


def test_a_corrected_record_of_a_file_has_no_moment_that_nobody_said(db, people) -> None:
    take_in(dump([{**BAD, "taken_at": None}]))
    retry_rejection(only_rejection(db), correction=json.dumps({**GOOD, "taken_at": None}))
    assert db("select taken_precision from checkups") == [("unknown",)]


def test_a_live_record_without_a_moment_has_that_of_its_receipt(upload, log_in, db, people) -> None:
    upload("POST", "/checkups/", record(1, "late.comer", taken_at=...), token=log_in("tara"))
    db("update rejections set received_at = '2026-11-20T09:00:00Z'")
    create_user("late.comer")
    assert retry_rejection(only_rejection(db)).status == "accepted"
    assert db("select taken_at = '2026-11-20T09:00:00Z', taken_precision from checkups") == [(True, None)]


@pytest.mark.parametrize("form", [json.dumps, lambda made: json.dumps([made])])
def test_a_correction_that_leaves_the_name_is_not_of_another_user_who_took_it_since(people, db, form) -> None:
    """The record is of who was called so when it came."""
    wrong = record("9", checkup_for="bholanath", machine="HC-2", taken_at="2026-13-01")
    assert take_in(form(wrong).encode()) == {"rejected": 1}
    number = only_rejection(db)
    rename_user("bholanath", "bhola.nath")
    create_user("bholanath")
    right = wrong | {"taken_at": "2026-12-01T10:00:00Z"}
    kept = retry_rejection(number, correction=json.dumps(right))
    assert (kept.status, [each["code"] for each in kept.errors]) == ("rejected", ["ambiguous_user"])
    assert retry_rejection(number, patient="bhola.nath").status == "accepted"
    owners = "select username from users join checkups on patient_id = users.id"
    assert db(owners) == [("bhola.nath",)]


def test_a_correction_that_leaves_the_name_follows_a_user_who_was_renamed(people, db) -> None:
    wrong = record("9", checkup_for="bholanath", machine="HC-2", taken_at="2026-13-01")
    assert take_in(json.dumps([wrong]).encode()) == {"rejected": 1}
    number = only_rejection(db)
    rename_user("bholanath", "bhola.nath")
    assert retry_rejection(number, correction=json.dumps(wrong | {"taken_at": None})).status == "accepted"
