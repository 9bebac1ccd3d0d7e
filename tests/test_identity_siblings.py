"""Who a record is about, over the life of reports and people."""

import json
from typing import Any

import pytest
from support.factories import dump, record, statuses, take
from support.tables import take_in

from myhealth.machines.services import get_machine, map_test, register_machine
from myhealth.privacy.erasure import erase_user
from myhealth.profiles.identifiers import add_identifier
from myhealth.profiles.services import create_user, rename_user

BORN = "select birth_date::text from users where username = 'savita'"


@pytest.fixture
def savita(people: dict[str, int]) -> int:
    add_identifier("savita", "MRN", "77")
    return people["savita"]


def of(number: int, born: str | None = None, value: str = "77", **patient: Any) -> dict[str, Any]:
    known = {"identifiers": [{"system": "MRN", "value": value}], **patient}
    return record(number, ...) | {"patient": known | ({"birth_date": born} if born else {})}  # type: ignore[arg-type]


def test_a_source_that_knows_the_patients_number_gives_the_birth_date(savita: int, db) -> None:
    assert statuses(take(of(1, "1980-05-02"), of(2), of(3, "1990-05-02"))) == ["accepted", "accepted", "rejected"]
    assert db(BORN) == [("1980-05-02",)]
    assert statuses(take(of(4, "1990-05-02"), of(5, "1980"), of(6, "1980-05-02"))) == [
        "rejected",
        "accepted",
        "accepted",
    ]


UNCERTAIN = {
    "a name alone": record(1, "savita") | {"patient": {"birth_date": "1980-05-02"}}, "a year": of(1, "1980"),
    "a first of January": of(1, "1980-01-01"), "another number": of(1, "1980-05-02", "78") | {"checkup_for": "savita"},
    "another name": of(1, "1980-05-02", name="Carl Muster"),
}  # fmt: skip


@pytest.mark.parametrize("sent", UNCERTAIN.values(), ids=UNCERTAIN)
def test_a_birth_date_that_may_be_anothers_is_not_learnt(sent: Any, savita: int, db) -> None:
    take(of(9, name="Savita Deshpande"))
    take(sent)
    assert db(BORN) == [(None,)]


def test_a_birth_date_that_staff_gave_stays(savita: int, db) -> None:
    db("update users set birth_date = '1970-05-02' where username = 'savita'")
    assert statuses(take(of(1, "1980-05-02"))) == ["rejected"]
    assert db(BORN) == [("1970-05-02",)]


def test_a_dry_run_learns_no_birth_date(savita: int, db) -> None:
    take(of(1, "1980-05-02"), dry_run=True)
    assert db(BORN) == [(None,)]


def in_file(record_id: Any = None, serial: str = "HC-1", **changes: Any) -> dict[str, int]:
    made = record(None, **changes) | ({"record_id": record_id} if record_id else {})
    return {name: count for name, count in take_in(dump([made], serial)).items() if count}


@pytest.mark.parametrize("number", ["9", None])
def test_the_serial_of_a_machine_in_other_letters_is_the_same_machine(number: Any, people, db) -> None:
    assert in_file(number) == {"accepted": 1}
    assert in_file(number, "hc-1") == {"duplicate": 1}
    assert db("select serial from machines") == [("HC-1",)]
    assert in_file(number, "HC-2") == {"accepted": 1}


def test_a_machine_that_tells_its_model_is_the_same_in_other_letters(people, db) -> None:
    """Also where it is registered, mapped or asked for."""
    assert in_file("9") == {"accepted": 1}
    told = dump([record("9")]).replace(b'"serial": "HC-1"', b'"serial": "hc-1", "model": "M2"')
    assert take_in(told) == {"accepted": 0, "duplicate": 1, "rejected": 0}
    register_machine("hC-1", site="Pune")
    assert map_test("hc-1", "Glucose", "", "2345-7") == get_machine("Hc-1").serial == "HC-1"
    assert db("select serial, model, site, codes is not null from machines") == [("HC-1", "M2", "Pune", True)]


def test_a_record_of_an_erased_person_stays_away_in_whatever_letters_its_machine_is(people, db) -> None:
    assert in_file("9") == {"accepted": 1}
    erase_user("bholanath")
    assert [in_file("9", "hc-1", checkup_for="savita"), in_file("9", checkup_for="savita")] == [{"rejected": 1}] * 2


def test_two_machines_that_are_stored_stay_two(people, db) -> None:
    db("insert into machines (serial) values ('HC-1'), ('hc-1')")
    assert [in_file("9"), in_file("9", "hc-1"), in_file("9", "Hc-1")] == [{"accepted": 1}] * 3
    assert db("select count(*) from machines") == [(3,)]


def test_new_machines_of_one_file_whose_serials_differ_in_case_are_one(people, db) -> None:
    sent = json.dumps([record("1", machine="HC-1"), record("1", machine="hc-1"), record("2", machine="hc-1")])
    assert take_in(sent) == {"accepted": 2, "duplicate": 1, "rejected": 0}
    assert db("select count(*) from machines") == [(1,)]


def test_blanks_around_a_record_id_do_not_count(people, db, monkeypatch) -> None:
    assert [in_file("9"), in_file(" 9"), in_file(9), in_file("9\t")] == [{"accepted": 1}, *[{"duplicate": 1}] * 3]
    db("update checkups set record_id = ' 9'")  # as earlier releases stored it
    assert in_file(" 9") == {"duplicate": 1}
    assert take(record(" 9"))[0].status == "duplicate"


def test_no_patient_is_created_for_a_name_that_a_user_had(people, db) -> None:
    rename_user("savita", "savita.d")
    assert in_file("9", patient="Savita") == {"rejected": 1}
    assert take_in(dump([record("9", "Savita")]), create_patients=True)["rejected"] == 1
    ((told, code),) = db("select errors->0->>'message', errors->0->>'code' from rejections order by id desc limit 1")
    assert ("was the username of savita.d" in told, code) == (True, "identity_conflict")
    create_user("savita")
    assert take_in(dump([record("9", "Savita")]), create_patients=True)["accepted"] == 1


@pytest.mark.parametrize("name", ["Total", "GRAND TOTAL", "Average", "Mean", "Std. Dev", "Mittelwert"])
def test_no_patient_is_created_for_the_last_line_of_a_table(name: str, people, db) -> None:
    table = f"patient,date,T\nsavita,2026-11-20,5\n{name},,5\n"
    assert take_in(table, create_patients=True) == {"accepted": 1, "duplicate": 0, "rejected": 1}
    assert db("select count(*) from users where role = 'patient'") == [(2,)]


def test_of_two_people_of_one_name_in_a_file_the_second_is_refused(people, db) -> None:
    rows = [
        record(n, "savita") | {"patient": {"birth_date": born}}
        for n, born in enumerate(("1980-05-02", "2015-03-04", "1980"))
    ]
    assert statuses(take(*rows)) == ["accepted", "rejected", "accepted"]
    assert db(BORN) == [(None,)]
