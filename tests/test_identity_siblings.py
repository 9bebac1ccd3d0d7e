"""Who a record is about, over the life of reports and people."""

from typing import Any

import pytest
from support.factories import record, statuses, take

from myhealth.profiles.identifiers import add_identifier

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
