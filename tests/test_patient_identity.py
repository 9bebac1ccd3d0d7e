"""Whose a record is: two hospitals' patients with one number never share an account."""

from __future__ import annotations

import io
import json
from collections import deque
from pathlib import Path
from typing import Any

import pytest
from support.compare import NONE, differences
from support.factories import PASSWORD, record, statuses, take
from support.fhir import observation

from myhealth.common.database import transaction
from myhealth.common.errors import BadInput, Conflict
from myhealth.intake.file_import import FileImport, ImportOptions
from myhealth.intake.identity import PatientMap, read_patient_map
from myhealth.intake.parsed_record import ParsedRecord
from myhealth.intake.patients import Patients
from myhealth.intake.pipeline import Intake
from myhealth.intake.results import ImportSource, RecordResult
from myhealth.intake.retry import link_patient, retry_rejection, store_waiting
from myhealth.privacy.erasure import erase_user
from myhealth.profiles.identifiers import add_identifier, list_identifiers, remove_identifier, set_identifiers
from myhealth.profiles.names import birth_date_fault, may_be_one_person
from myhealth.profiles.services import create_user, rename_user, set_full_name, set_person
from myhealth.profiles.user_import import import_users
from myhealth.reports.user_search import Search
from myhealth.sync.calls import decode_documents, encode_document

DATA = Path(__file__).parent / "data" / "faults"
A, B = ("HOSP_A", "4711"), ("HOSP_B", "4711")


def about(number: int, *keys: tuple[str, str], name: str = "", **patient: Any) -> dict[str, Any]:
    """Return a record that names its patient by (system, value) alone; without a system if that is empty."""
    identifiers = [{"system": system, "value": value} if system else {"value": value} for system, value in keys]
    known = {"identifiers": identifiers, **({"name": name} if name else {}), **patient}
    return record(number, checkup_for=..., patient=known) | {"patient": known}


def code(outcome: RecordResult) -> str:
    return outcome.errors[0].get("code", "")


@pytest.fixture
def asha(people: dict[str, int]) -> int:
    """A patient who has the number 4711 of hospital A."""
    user = create_user("asha", full_name="Asha Roy")
    add_identifier("asha", *A)
    return user.id


@pytest.fixture
def owner(db: Any) -> Any:
    """Return the username of a check-up's patient."""
    whose = "select username from users join checkups on patient_id = users.id where checkups.id = %s"
    return lambda outcome: db(whose, outcome.id)[0][0]


def test_a_number_with_an_authority_is_the_patients_who_has_it_or_nobodys(asha: int, owner: Any) -> None:
    mine, others = take(about(1, A), about(2, B))
    assert (mine.status, owner(mine)) == ("accepted", "asha")
    assert (others.status, code(others)) == ("rejected", "unknown_user")
    assert "myhealth users identifiers add USERNAME HOSP_B 4711" in others.errors[0]["message"]


@pytest.mark.parametrize("key", [("HOSP_A", " 4711 "), (" HOSP_A", "4711"), ("HOSP_A", "4711\u00a0")], ids=repr)
def test_blanks_around_a_number_do_not_count(asha: int, owner: Any, key: tuple[str, str]) -> None:
    assert owner(take(about(1, key))[0]) == "asha"


@pytest.mark.parametrize("key", [("HOSP_A", "04711"), ("HOSP_A", "4711x"), ("HOSP_A2", "4711"), ("HOSP A", "4711")])
def test_a_number_that_only_looks_alike_is_another(asha: int, key: tuple[str, str]) -> None:
    assert statuses(take(about(1, key))) == ["rejected"]


def test_server_ids_differ_in_case(people: dict[str, int], owner: Any) -> None:
    for name, value in (("asha", "aB3"), ("meera", "Ab3")):
        create_user(name)
        add_identifier(name, "https://a.example/fhir", value)
    first, second = take(about(1, ("https://a.example/fhir", "aB3")), about(2, ("https://a.example/fhir", "Ab3")))
    assert (owner(first), owner(second)) == ("asha", "meera")


def test_a_number_without_an_authority_or_of_an_own_one_is_a_username(people: dict[str, int], owner: Any) -> None:
    bare, own = take(about(1, ("", "BHOLANATH")), about(2, ("Clinic", "bholanath")), own_authorities=("clinic",))
    assert owner(bare) == owner(own) == "bholanath"
    assert code(take(about(3, ("Clinic", "bholanath")))[0]) == "identifier_unconfirmed"


def test_an_account_whose_name_is_the_number_is_not_taken_silently(people: dict[str, int], owner: Any) -> None:
    create_user("4711")
    for create in (False, True):
        (outcome,) = take(about(1, A), create_patients=create)
        assert code(outcome) == "identifier_unconfirmed"
        assert "myhealth users identifiers add 4711 HOSP_A 4711" in outcome.errors[0]["message"]
    done = store_waiting(add_identifier("4711", *A))
    assert dict(done) == {"accepted": 1, "duplicate": 0, "rejected": 0}
    assert owner(take(about(2, A))[0]) == "4711"
    assert code(take(about(3, B))[0]) == "unknown_user"


def test_the_command_that_settles_it_is_safe_to_copy(people: dict[str, int]) -> None:
    create_user("4711")
    (outcome,) = take(about(1, ("St. Mary's; rm -rf /", "4711")))
    assert """add 4711 'St. Mary'"'"'s; rm -rf /' 4711""" in outcome.errors[0]["message"]


def test_new_patients_of_two_hospitals_are_two_people(people: dict[str, int], db: Any, owner: Any) -> None:
    one, two = take(
        about(1, A, name="Anna Anders", birth_date="1980-02-29", sex="female"),
        about(2, B, name="Bo Bergman", birth_date="1950", sex="male"),
        create_patients=True,
    )
    assert (owner(one), owner(two)) == ("4711", "4711-2")
    assert [(each["code"], each["message"]) for each in two.warnings] == [
        ("patient_created", "the patient with 4711 of HOSP_B was created as 4711-2")
    ]
    assert not one.warnings
    facts = """select username, full_name, birth_date::text, sex, system, value, source_name
        from users join patient_identifiers on patient_id = users.id where system <> '' order by system"""
    assert db(facts) == [
        ("4711", "Anna Anders", "1980-02-29", "female", *A, "Anna Anders"),
        ("4711-2", "Bo Bergman", None, "male", *B, "Bo Bergman"),
    ]
    again = take(about(3, A), about(4, B), about(5, A), create_patients=True)
    assert [owner(each) for each in again] == ["4711", "4711-2", "4711"]


@pytest.mark.parametrize(
    ("value", "username"),
    [("MRN 12/7", "MRN-12-7-2"), ("..", "patient-2"), ("a:b", "a-b-2"), ("x" * 200, "x" * 100 + "-2"),
     ("bholanath", None), ("12345", "12345")],
)  # fmt: skip
def test_a_number_that_cannot_be_a_username_is_cleaned(
    people: Any, db: Any, owner: Any, value: str, username: str | None
) -> None:
    (outcome,) = take(about(1, ("H", value)), create_patients=True)
    if username is None:
        assert code(outcome) == "identifier_unconfirmed"
    else:
        assert owner(outcome) == username
        assert statuses(take(about(2, ("H", value)), create_patients=True)) == ["accepted"]
        assert db("select count(*) from patient_identifiers where system <> ''") == [(1,)]


def test_records_of_one_new_patient_in_one_file_are_of_one_account(people: Any, db: Any, owner: Any) -> None:
    outcomes = take(
        about(1, A), about(2, A, ("NATIONAL", "9")), about(3, ("NATIONAL", "9")), about(4, B), create_patients=True
    )
    assert [owner(each) for each in outcomes] == ["4711", "4711", "4711", "4711-2"]


def test_a_bare_name_beside_a_number_names_the_new_account(people: Any, owner: Any) -> None:
    (outcome,) = take(about(1, A, ("", "meera")), create_patients=True)
    assert owner(outcome) == "meera"
    assert owner(take(about(2, A))[0]) == "meera"


@pytest.mark.parametrize("kind", ["HC", "SN", "MB", "MC", "AN", "VN", "hc"])
@pytest.mark.parametrize("system", ["", "INSURER", "HOSP_A"])
def test_an_insurers_number_never_names_a_patient(asha: int, db: Any, kind: str, system: str) -> None:
    identifier = {"value": "4711", "type": kind, **({"system": system} if system else {})}
    create_user("4711")
    sent = record(1, checkup_for="4711") | {"patient": {"identifiers": [{"system": "X", "value": "1"}, identifier]}}
    (outcome,) = take(sent)
    assert (outcome.status, code(outcome)) == ("rejected", "unknown_user")


@pytest.mark.parametrize(
    ("known", "sent", "same"),
    [
        ("Anna Anders", "ANDERS, ANNA", True),
        ("Anna Anders", "Anders^Anna", True),
        ("Anna Müller", "Mueller, A.", True),
        ("Anna Müller", "Muller Anna", True),
        ("José O\u2019Neill", "Jose\u0301 ONeill", True),
        ("Søren Ångström", "Soeren Aangstroem", True),
        ("Anna Anders", "Anna Bergman", True),
        ("山田太郎", "太郎 山田", True),
        ("Anna Anders", "Bo Bergman", False),
        ("Dr. Anna Anders", "Dr. Bo Bergman", False),
        ("Ana de la Cruz", "Rosa de la Vega", False),
        ("A. Anders", "A. Bergman", False),
        ("山田太郎", "佐藤花子", False),
        ("", "Bo Bergman", True),
        ("A. B.", "Bo Bergman", True),
    ],
)
def test_names_are_compared_by_their_words(known: str, sent: str, same: bool) -> None:
    assert may_be_one_person(known, sent) == may_be_one_person(sent, known) == same


def test_a_name_of_the_source_that_shares_no_word_is_refused(asha: int, owner: Any) -> None:
    set_full_name("asha", "Somebody Else")  # the owner's own word is not compared
    assert statuses(take(about(1, A, name="Roy, Asha"), about(2, A, name="ASHA SEN"))) == ["accepted"] * 2
    (other,) = take(about(3, A, name="Bo Bergman"))
    assert (code(other), other.rejection_id is not None) == ("identity_conflict", True)
    assert "Roy" not in str(other.errors)
    assert retry_rejection(other.rejection_id).status == "rejected"
    assert dict(store_waiting(add_identifier("asha", *A)))["accepted"] == 1  # what sources called her is forgotten
    assert code(take(about(4, A, name="Asha Roy"))[0]) == "identity_conflict"


@pytest.mark.parametrize(
    "name",
    [
        "unknown",
        "Anonymous",
        "0",
        "000",
        "-",
        "?",
        "N/A",
        "null",
        "#REF!",
        "1.23E+11",
        "(none)",
        "UNK",
        "Unknown Female",
        "unknown^unknown",
        "999999999",
        "XXX",
        "TEMP",
        "temp-patient",
    ],
)
def test_no_patient_is_created_for_a_name_that_many_have(people: dict[str, int], db: Any, name: str) -> None:
    numbered = {**about(2, ("HOSP_A", name)), "checkup_for": name}
    outcomes = take(record(1, name), numbered, create_patients=True)
    assert [code(each) for each in outcomes] == ["unknown_user"] * 2
    assert "stands for many people" in outcomes[0].errors[0]["message"]
    assert db("select count(*) from users where id > %s", max(people.values())) == [(0,)]
    beside = take(*(about(each, ("HOSP_A", str(each)), ("HOSP_B", name)) for each in (77, 78)), create_patients=True)
    assert statuses(beside) == ["accepted"] * 2
    assert db("select system from patient_identifiers where patient_id > %s", max(people.values())) == [("HOSP_A",)] * 2
    create_user("known", full_name="A. B.")
    add_identifier("known", "HOSP_A", "0")
    assert statuses(take(about(4, ("HOSP_A", "0")), create_patients=True)) == ["accepted"]


@pytest.mark.parametrize("name", ["Nulla", "Unknownson", "Unkel", "Anona", "0815", "Nan.Li", "山田"])
def test_a_patient_is_created_for_a_name_that_only_begins_so(people: dict[str, int], name: str) -> None:
    assert statuses(take(record(1, name), create_patients=True)) == ["accepted"]


def test_the_name_of_a_register_counts(people: dict[str, int], owner: Any) -> None:
    lines = ["username,full_name,authority,identifier\n", "rao,Savita Rao,HOSP_A,4711\n", "otto,Ben Otto,,\n"]
    assert [made.error for made in import_users(lines, rounds=4)] == ["", ""]
    set_full_name("rao", "Bo Bergman")  # the owner's own word is not compared
    mine, others = take(about(1, A, name="RAO, Savita"), about(2, A, name="Bo Bergman"))
    assert (owner(mine), code(others)) == ("rao", "identity_conflict")
    named, not_so = take(
        *(record(n, "otto") | {"patient": {"name": name}} for n, name in ((3, "B. Otto"), (4, "Asha Roy")))
    )
    assert (owner(named), code(not_so)) == ("otto", "identity_conflict")


def test_the_first_of_two_names_in_one_file_counts(asha: int) -> None:
    outcomes = take(about(1, A, name="Asha Roy"), about(2, A, name="Bo Bergman"), about(3, A))
    assert statuses(outcomes) == ["accepted", "rejected", "accepted"]


def test_a_username_is_one_persons_too(people: dict[str, int]) -> None:
    first = {"name": "Anna Anders"}
    sent = [record(1) | {"patient": first}, record(2) | {"patient": {"name": "Bo Bergman"}}, record(3)]
    assert statuses(take(*sent)) == ["accepted", "rejected", "accepted"]


def test_a_name_that_another_user_took_over_is_not_compared_with_the_first_ones(people: Any, owner: Any) -> None:
    take(record(1) | {"patient": {"name": "Bhola Nath"}})
    rename_user("bholanath", "bhola")
    create_user("bholanath")
    (outcome,) = take(record(2) | {"patient": {"name": "Xavier"}})
    assert outcome.status == "accepted"
    assert code(take(record(3) | {"patient": {"name": "Bhola Nath"}})[0]) == "identity_conflict"


@pytest.mark.parametrize(
    ("sent", "status"),
    [({"birth_date": "1980-02-29"}, "accepted"), ({"birth_date": "1980-02"}, "accepted"), ({"birth_date": "1980"}, "accepted"),
     ({"birth_date": "1980-02-28"}, "rejected"), ({"birth_date": "1981"}, "rejected"), ({"sex": "male"}, "rejected"),
     ({"sex": "female"}, "accepted"), ({"sex": "unknown"}, "accepted"), ({"sex": "other"}, "accepted"), ({}, "accepted")],
)  # fmt: skip
@pytest.mark.parametrize("way", ["number", "name"])
def test_a_birth_date_or_a_sex_that_contradicts_is_refused(asha: int, sent: Any, status: str, way: str) -> None:
    set_person("asha", birth_date="1980-02-29", sex="female")
    made = about(1, A, **sent) if way == "number" else record(1, patient="asha") | {"patient": sent}
    (outcome,) = take(made)
    assert outcome.status == status
    assert status == "accepted" or ("1980" not in str(outcome.errors) and code(outcome) == "identity_conflict")


@pytest.mark.parametrize(
    "text", ["1980-02-30", "19800229", "1980-2-29", "80", "2999-01-01", "1700", "soon", "1980-13", "", "１９８０"]
)
def test_a_birth_date_that_is_none_is_explained(people: Any, text: str) -> None:
    (outcome,) = take(about(1, A, birth_date=text))
    assert outcome.errors[0]["field"] == "patient.birth_date"
    assert birth_date_fault(text) or not text


def test_two_numbers_of_two_patients_are_refused(asha: int, owner: Any) -> None:
    create_user("bo")
    add_identifier("bo", *B)
    both, one, known = take(about(1, A, B), about(2, A, ("", "bo")), about(3, A, ("HOSP_C", "1")))
    assert code(both) == code(one) == "ambiguous_user"
    assert owner(known) == "asha"


def test_another_number_of_an_authority_contradicts(asha: int, owner: Any) -> None:
    add_identifier("asha", "NATIONAL", "9")
    other, both = take(about(1, A, ("NATIONAL", "8")), about(2, A, ("HOSP_A", "4712"), ("NATIONAL", "9")))
    assert code(other) == "identity_conflict"
    assert owner(both) == "asha"
    assert code(take(about(3, ("", "asha"), ("HOSP_A", "5")))[0]) == "identity_conflict"


def test_an_account_that_nobody_linked_gets_nothing_by_a_number_either(people: Any, db: Any) -> None:
    create_user("stranger", self_registered=True)
    add_identifier("stranger", *A)
    (outcome,) = take(about(1, A), create_patients=True)
    assert code(outcome) == "account_not_linked"
    assert dict(link_patient("stranger"))["accepted"] == 1


def test_a_stranger_called_like_a_number_gets_nothing(people: Any) -> None:
    create_user("4711", self_registered=True)
    assert code(take(about(1, A), create_patients=True)[0]) == "identifier_unconfirmed"


@pytest.mark.parametrize("create", [False, True])
def test_the_records_of_an_erased_person_are_refused_and_not_kept(asha: int, db: Any, create: bool) -> None:
    take(about(1, A, name="Asha Roy"))
    erase_user("asha")
    assert db("select count(*) from patient_identifiers") == [(0,)]
    (outcome,) = take(about(2, A), create_patients=create)
    assert (code(outcome), outcome.rejection_id) == ("erased", None)
    (invalid,) = take(about(3, A) | {"disease": 5}, create_patients=create)
    assert (invalid.status, invalid.rejection_id) == ("rejected", None)
    assert code(take(about(4, B))[0]) == "unknown_user"
    create_user("asha.roy")
    with pytest.raises(Conflict, match="was erased"):
        add_identifier("asha.roy", *A)
    add_identifier("asha.roy", *A, reuse_erased=True)
    assert statuses(take(about(5, A))) == ["accepted"]


def test_an_erasure_removes_the_rejected_records_of_a_persons_numbers_and_nobody_elses(asha: int, db: Any) -> None:
    create_user("4711")
    add_identifier("4711", "HOSP_C", "1")
    outcomes = take(about(1, A) | {"disease": 5}, about(2, B), about(3, ("HOSP_C", "1"), A))
    ids = [(outcome.rejection_id,) for outcome in outcomes]
    erase_user("4711")
    assert db("select id from rejections order by id") == ids
    erase_user("asha")
    assert db("select id from rejections") == [ids[1]]


def test_a_change_of_an_identifier_touches_its_user(asha: int, db: Any) -> None:
    revision = "select revision from users where id = %s"
    seen = [db(revision, asha)]
    for change in (
        lambda: add_identifier("asha", *B),
        lambda: remove_identifier("asha", *B),
        lambda: db("update patient_identifiers set value = '4712' where patient_id = %s returning 1", asha),
        lambda: set_identifiers("asha", [{"system": "HOSP_C", "value": "1"}]),
    ):
        change()
        seen.append(db(revision, asha))
    assert len({*map(str, seen)}) == len(seen)
    take(about(1, ("HOSP_C", "1"), name="Asha"))
    assert db(revision, asha) == seen[-1]  # what sources call her is in no document


@pytest.mark.parametrize("over_http", [False, True])
def test_the_report_store_has_what_is_known_of_a_person(
    asha: int, db: Any, sync: Any, reports: Any, over_http: bool
) -> None:
    def known() -> dict[str, Any]:
        document = reports.people.find_by_username("asha")
        if over_http:
            document = decode_documents("user", b"[" + encode_document(document) + b"]")[0]
        assert [*document][-2:] == ["revision", "epoch"]
        return {name: document[name] for name in ("birth_date", "sex", "identifiers") if name in document}

    sync()
    assert known() == {"identifiers": [{"system": A[0], "value": A[1]}]}
    take(about(1, A, name="Asha Roy"))
    set_person("asha", birth_date="1980-02-29", sex="female")
    add_identifier("asha", *B)
    sync()
    both = [{"system": system, "value": value} for system, value in (A, B)]
    assert known() == {"birth_date": "1980-02-29", "sex": "female", "identifiers": both}
    assert differences(db, reports) == NONE
    set_identifiers("asha", [])
    set_person("asha", birth_date=None, sex=None)
    sync()
    assert known() == {}
    assert differences(db, reports) == NONE


def test_what_was_stored_under_a_bare_number_before_is_a_duplicate(people: Any, db: Any) -> None:
    create_user("4711")
    take(record(1, patient="4711"))
    known, other, new = take(about(1, A), about(1, ("HOSP_A", "bholanath")), about(2, A))
    assert (known.status, code(other), code(new)) == ("duplicate", "identifier_unconfirmed", "identifier_unconfirmed")


def test_an_operator_says_whose_a_record_is(asha: int, owner: Any) -> None:
    set_person("asha", birth_date="1980-02-29")
    take(about(1, A, name="Asha Roy"))
    (outcome,) = take(about(2, B, name="Bo", birth_date="1950"))
    assert code(retry_rejection(outcome.rejection_id)) == "unknown_user"
    done = retry_rejection(outcome.rejection_id, patient="asha")
    assert (done.status, owner(done)) == ("accepted", "asha")


def test_a_patient_map_names_an_authoritys_numbers(asha: int, owner: Any) -> None:
    create_user("bo")
    mapped = {("hosp_b", "4711"): "bo", "P-7": "asha"}
    first, second, bare = take(about(1, B), about(2, A), about(3, ("", "P-7")), patient_map=PatientMap(mapped))
    assert (owner(first), owner(second), owner(bare)) == ("bo", "asha", "asha")
    assert code(take(about(4, A), patient_map=PatientMap({("hosp_a", "4711"): "bo"}))[0]) == "ambiguous_user"


def test_a_map_without_an_authority_means_the_number_of_one_authority(people: Any, owner: Any) -> None:
    create_user("bo")
    mapped = PatientMap({"4711": "bo"})
    first, other, again = take(about(1, A), about(2, B), about(3, A), patient_map=mapped)
    assert (owner(first), code(other), owner(again)) == ("bo", "unknown_user", "bo")
    assert code(take(about(4, B), patient_map=mapped)[0]) == "unknown_user"


def test_a_map_names_a_patient_in_whatever_letters_the_machine_writes(asha: int, people: Any, owner: Any) -> None:
    """Without the map, ASHA is the user asha, who is another person here."""
    records = [record(1, checkup_for="ASHA"), record(2, checkup_for="Asha"), record(3, checkup_for=" asha ")]
    mapped = take(*records, patient_map=PatientMap({"Asha": "savita"}))
    assert [owner(each) for each in mapped] == ["savita"] * 3
    twice = PatientMap({"Asha": "savita", "ASHA": "Savita"})
    assert owner(take(record(6, checkup_for="asha"), patient_map=twice)[0]) == "savita"
    both = PatientMap({"Asha": "savita", "aSHA": "bholanath"})
    one, other = take(record(4, checkup_for="Asha"), record(5, checkup_for="aSHA"), patient_map=both)
    assert (owner(one), owner(other)) == ("savita", "bholanath")


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_patient_map_is_read_with_each_separator(separator: str) -> None:
    lines = [separator.join(cells) + "\n" for cells in
             (("Patient", " username", "authority"), ("P-77 ", "asha", ""), ("4711", "bo", "HOSP_B"))]  # fmt: skip
    assert read_patient_map(lines) == {"P-77": "asha", ("hosp_b", "4711"): "bo"}
    assert read_patient_map((DATA / "20-map-semicolons.csv").read_text().splitlines(keepends=True)) == {"P-77": "asha"}
    with pytest.raises(BadInput, match="line 1: the header must be patient,username"):
        read_patient_map(["name;username\n"])


def test_all_records_of_one_patient_are_this_patients(asha: int, owner: Any) -> None:
    mine, unknown, other, unnamed = take(
        about(1, A) | {"checkup_for": "4711"}, about(2, B) | {"checkup_for": "4711"}, record(3), about(4, ("HOSP_C", "1")),
        patient="asha",
    )  # fmt: skip
    assert (owner(mine), unknown.status, other.status, owner(unnamed)) == ("asha", "rejected", "rejected", "asha")
    assert code(take(about(5, A), patient="bholanath")[0]) == "ambiguous_user"


def test_a_patient_resource_teaches_what_its_reference_means(asha: int, people: Any, owner: Any, db: Any) -> None:
    known = {"identifiers": [{"system": A[0], "value": A[1]}], "name": "Asha Roy"}
    nobody = {"identifiers": [{"system": "HOSP_B", "value": "1"}]}
    source = ImportSource("Patient.ndjson")
    dump_people = deque([("Patient/7", known), ("Patient/8", nobody)])
    Intake(source, dump_people).learn_people()
    create_user("8")

    def refer(number: int, id_: str) -> RecordResult:
        parsed = ParsedRecord(0, 1, "", record(number, patient=id_), patient_reference=f"Patient/{id_}")
        return Intake(source).store_batch([parsed])[0]

    assert (owner(refer(1, "7")), owner(refer(2, "8")), refer(3, "9").status) == ("asha", "8", "rejected")
    create_user("bo")
    for number, system in enumerate(
        ("HOSP_B", A[0]), 4
    ):  # another hospital's server has the same id; the same one gave it anew
        add_identifier("bo", system, "7")
        dump_people.append(("Patient/7", {"identifiers": [{"system": system, "value": "7"}]}))
        Intake(source, dump_people).learn_people()
        assert code(kept := refer(number, "7")) == "ambiguous_user"
        assert (kept.errors[0]["message"].partition(";")[0], kept.rejection_id is not None) == (
            "Patient/7 has meant different users here", True,
        )  # fmt: skip
        remove_identifier("bo", system, "7")  # staff decide, and that is audited
        assert owner(refer(number + 10, "7")) == "asha"
    assert list_identifiers(type("U", (), {"id": asha})) == [A]


def test_a_number_of_our_own_kind_from_outside_is_nobodys(asha: int) -> None:
    dump_people = deque([("Patient/7", {"identifiers": [{"system": A[0], "value": A[1]}]})])
    Intake(ImportSource("x"), dump_people).learn_people()
    assert statuses(take(about(1, ("fhir-reference:HOSP_A", "Patient/7")))) == ["rejected"]


def test_the_format_of_a_rejection_is_read_again_with_its_identifiers(people: Any, db: Any) -> None:
    create_user("4711")
    (outcome,) = take(about(1, A), format="list")
    assert db("select context->'patients', context->'identifiers' from rejections") == [([], [[*A]])]
    assert code(retry_rejection(outcome.rejection_id)) == "identifier_unconfirmed"
    # As earlier releases kept it: the number among the names.
    db("""update rejections set context = context - 'identifiers' || '{"patients": ["4711"]}' returning 1""")
    assert code(retry_rejection(outcome.rejection_id)) == "identifier_unconfirmed"


def test_the_files_of_two_hospitals(people: Any, db: Any, run_cli: Any) -> None:
    create_user("4711")
    for name, message in (
        ("08a-hospital-a", "PID-3: nobody said that the account 4711 is 4711 of HOSP_A"),
        ("08b-hospital-b", "users identifiers add 4711 HOSP_B 4711"),
        ("08e-insurance-number", "PID-3: there is no patient with 99001 of HOSP_A"),
        ("A6-bed-number-in-pid4", "PID-2: there is no user named 854"),
    ):
        done = run_cli("import-machine", str(DATA / f"{name}.hl7"))
        assert done.returncode == 1, name
        assert message in done.stderr
    added = run_cli("users", "identifiers", "add", "4711", "HOSP_A", "4711")
    assert added.stdout == "4711 is 4711 of HOSP_A; 1 kept record stored.\n"
    assert run_cli("users", "identifiers", "list", "4711").stdout.split() == ["authority", "value", "HOSP_A", "4711"]
    made = run_cli("import-machine", "--create-patients", str(DATA / "08b-hospital-b.hl7"))
    assert "PID-3: the patient with 4711 of HOSP_B was created as 4711-2" in made.stderr
    whose = "select username, full_name, birth_date::text, sex from checkups join users on patient_id = users.id"
    assert sorted(db(whose)) == [("4711", "", None, None), ("4711-2", "Bo Bergman", "1950-01-01", "male")]
    rejected = db("select id from rejections where resolved_at is null order by id")[-1][0]
    assert run_cli("rejections", "retry", "--patient", "bholanath", str(rejected)).returncode == 0


def test_blanks_around_a_typed_name_do_not_count(people: Any, upload: Any, sync: Any, reports: Any, db: Any) -> None:
    assert statuses(take(record(1, patient=" Bholanath\u00a0"), record(2, patient="\tsavita "))) == ["accepted"] * 2
    typed = {"username": " Bholanath ", "password": PASSWORD}
    assert upload("POST", "/login/", typed).status_code == 200
    answers = [upload("POST", "/login/", typed | {"password": f"wrong {n}", "username": " " * n + "bholanath"})
               for n in range(12)]  # fmt: skip
    assert 429 in {answer.status_code for answer in answers}, "a blank is no way round the throttle"
    assert db("select distinct user_id, username from login_attempts") == [(people["bholanath"], "")]
    sync()
    assert reports.people.find_by_username(" BHOLANATH ")["username"] == "bholanath"
    assert [user["username"] for user in reports.people.search(Search("  bhola "))] == ["bholanath"]


@pytest.mark.parametrize("odd", ["\0", "\ud800"])
def test_an_invalid_record_whose_number_cannot_be_stored_is_kept(db, people, odd: str) -> None:
    bad = {"patient": {"identifiers": [{"system": f"HOSP{odd}", "value": f"1{odd}"}]}, "checkup_for": "bholanath"}
    (result,) = take(bad)
    assert result.status == "rejected"
    assert db("select id from rejections") == [(result.rejection_id,)]


def test_a_number_that_another_session_gave_away_meanwhile_is_not_moved(db, asha: int) -> None:
    found = Patients(ImportSource("x"))
    found._learnt["HOSP_C", "9"] = asha, None  # as looked up before
    bo = create_user("bo").id
    add_identifier("bo", "HOSP_C", "9")
    with transaction() as cursor:
        found.learn(cursor)
    assert db("select patient_id from patient_identifiers where system = 'HOSP_C'") == [(bo,)]


SERVERS = ("http://a.example/fhir", "https://b.example")


def about_one(
    server: str, name: str, number: str = "", *, resource: bool = False, inside: bool = False, **changes: Any
) -> list[RecordResult]:
    """Send a result of the patient with this id, who has no identifier, on this server. `changes`: of the Patient."""
    reference = f"Patient/{name}" if inside else f"{server}/Patient/{name}"
    sent = observation("a", subject={"reference": reference})
    entries = [{"resource": sent, "fullUrl": f"{server}/Observation/{number or name}"}]
    if resource:
        patient = {"resourceType": "Patient", "id": name, **changes}
        entries.append({"resource": patient, "fullUrl": f"{server}/Patient/{name}"})
    text = json.dumps({"resourceType": "Bundle", "type": "collection", "entry": entries})
    started = FileImport(io.BytesIO(text.encode()), "a.json", ImportOptions(create_patients=name == "77"))
    return [result for batch in started for _, result in batch]


def test_the_address_of_an_erased_patient_names_nobody_new(db, people) -> None:
    first, second = SERVERS
    numbered = [{"system": "urn:hospital", "value": "55"}]
    assert statuses(about_one(first, "77", resource=True, identifier=numbered)) == ["accepted"]
    erase_user("55")
    for resource in (False, True):
        (result,) = about_one(first, "77", "another", resource=resource)
        assert (result.status, [each.get("code") for each in result.errors]) == ("rejected", ["erased"])
    assert statuses(about_one(second, "77")) == ["accepted"]


WAYS = {"by address": {}, "by the server of the result": {"inside": True}, "with the resource": {"resource": True}}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_one_id_on_two_fhir_servers_is_two_patients(db, people, way) -> None:
    first, second = SERVERS
    assert statuses(about_one(first, "bholanath", **way)) == ["accepted"]
    (refused,) = about_one(second, "bholanath", **way)
    assert (refused.status, refused.errors[0]["code"]) == ("rejected", "identity_conflict")
    assert statuses(about_one(first.replace("http:", "https:"), "bholanath", **way)) == ["duplicate"]
    assert retry_rejection(refused.rejection_id, patient="bholanath").status == "accepted"
    assert statuses(about_one(second, "bholanath", **way)) == ["duplicate"]
    for server in (*SERVERS, *SERVERS):
        about_one(server, "77", **way)
    found = db("select username, count(*) from checkups join users on users.id = patient_id group by 1 order by 1")
    assert found == [("77", 1), ("77-2", 1), ("bholanath", 2)]
