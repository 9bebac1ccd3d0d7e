"""What is erased is found nowhere, and does not come back."""

import json
import re
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg2
import pytest
from support.clients import Caller
from support.factories import PASSWORD, dump, record, take

from myhealth.common.database import database, transaction
from myhealth.intake.corrections import change_checkup, delete_checkup
from myhealth.privacy.erasure import Mentions, erase_user
from myhealth.profiles import services
from myhealth.profiles.identifiers import set_identifiers
from myhealth.reports.access_log import Access

FORMER, NAME, FULL_NAME = "ren.former", "renée.roy", "Renée Marchetti"
NFD = unicodedata.normalize("NFD", NAME)
VALUE, NUMBER = "VALUE-73921", "77001234"
NEEDLES = ("renée.roy", "renée marchetti", "ren.former", "value-73921", NUMBER)
HL7 = (
    f"MSH|^~\\&|LAB|A|MH|B|20261120||ORU^R01|9|P|2.5\rPID|1||{NUMBER}^^^H^MR||{NAME}||19800101|F\r"
    f"OBR|1|||X^{VALUE}\rOBX|1|NM|718-7^Hb^LN||13|g/dL|||||F\r"
)
FHIR = {
    "resourceType": "Observation", "id": "o1", "status": "final", "code": {"text": VALUE}, "valueString": "x",
    "subject": {"reference": f"Patient/{NUMBER}", "display": NAME},
}  # fmt: skip
BROKEN = (json.dumps(record("b1", "savita")) + f'\n{{"checkup_for": "{NAME}", "note": "{VALUE}", }}\n').encode()
ELSEWHERE = record("s1", "savita", disease=5, checkup_report=f"sister of {NAME}")


def invalid(name: str, **changes: Any) -> dict[str, Any]:
    return record(None, name, disease=5, checkup_report=VALUE, **changes)


def memory() -> list[dict[str, Any]]:
    """What the machine still holds of the person."""
    good = [record(f"r{n}", NAME, checkup_report=f"{VALUE} {n}") for n in range(4)]
    return [*good, invalid(NAME), invalid(NFD), invalid(NAME.upper()), invalid(f"{NAME} ")]


def everything(db: Any, reports: Any) -> dict[str, list[str]]:
    """Return every row of every table and every document of every collection as text."""
    found = {table: [text for (text,) in db(f"select t::text from {table} t")] for table in database.get_tables()}
    store = reports.state.database
    return found | {f"mongo {name}": [*map(str, store[name].find())] for name in store.list_collection_names()}


def named(db: Any, reports: Any) -> dict[str, list[str]]:
    """Return the rows that name the person or have his or her values."""

    def is_in(text: str) -> bool:
        escaped = re.sub(r"\\+u([0-9a-f]{4})", lambda match: chr(int(match[1], 16)), text)
        shown = unicodedata.normalize("NFC", escaped).lower()
        return any(needle in shown for needle in NEEDLES)

    found = {place: [row for row in rows if is_in(row)] for place, rows in everything(db, reports).items()}
    return {place: rows for place, rows in found.items() if rows}


@pytest.fixture
def person(upload: Caller, log_in: Any, db: Any, sync: Any, reports: Any) -> Caller:
    """A person with data of every kind, in both stores; tara's caller."""
    upload("POST", "/login/", {"username": NAME.upper(), "password": "wrong"})  # nobody's name then
    services.create_user(FORMER, password=PASSWORD, full_name=FULL_NAME, rounds=4)
    upload("GET", f"/users/{FORMER}/checkups/", token=log_in("dr.ayush"))
    upload("PUT", f"/users/{FORMER}/", {"username": NAME}, token=log_in("root"))
    user = services.get_user(NAME)
    token = upload.token = log_in("tara")
    assert upload("POST", "/machines/HC-1/dumps/", dump(memory())).json["accepted"] == 4
    change_checkup(user.id, 1, {"disease": f"corrected {VALUE}"})
    delete_checkup(user.id, 2)
    both = [
        record("k1", NAME, checkup_report=VALUE),
        invalid(NAME),
        record("k2", NAME, results=[{"name": VALUE, "value": 1}]),
    ]
    upload("POST", "/checkups/", both, headers={"Idempotency-Key": "k"}, query_string="refused_file=true")
    assert NAME not in db("select answer from idempotency_keys")[0][0]
    kept_by_earlier_releases = json.dumps({"refused_file": json.dumps(invalid(NAME), ensure_ascii=False)})
    db("update idempotency_keys set answer = (answer::jsonb || %s)::text", kept_by_earlier_releases)
    upload("POST", "/checkups/", BROKEN)
    upload("POST", "/checkups/", json.dumps({"Checkup_For": NAME, "note": VALUE}).encode())
    upload("POST", "/checkups/", HL7.encode())
    upload("POST", "/checkups/", FHIR)
    upload("POST", f"/users/{NAME}/checkups/", {"note": VALUE}, token=log_in("dr.ayush"))
    upload("POST", "/checkups/", [ELSEWHERE], token=token)
    for password in (PASSWORD, "wrong"):
        upload("POST", "/login/", {"username": NAME.upper(), "password": password}, token=None)
    upload("GET", f"/users/{NAME}/", token=log_in("savita"))
    sync()
    patient, doctor = (reports.people.find_by_username(name) for name in (NAME, "dr.ayush"))
    reports.access_log.log(Access(doctor, patient, "reports"), Access(patient, doctor, "reports", address="10.1.1.1"))
    upload.token = token
    return upload


def test_a_person_is_found_nowhere_after_an_erasure(person, db, sync, reports, run_cli) -> None:
    before = named(db, reports)
    assert {*before} >= {"users", "checkups", "rejections", "idempotency_keys", "login_attempts", "audit_events",
                         "mongo users", "mongo reports", "mongo audit_events"}  # fmt: skip
    events = db("select count(*) from audit_events")[0][0]
    done = run_cli("users", "delete", NAME, "--yes", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert "mongo reports" not in named(db, reports), "at once"
    sync()
    left = named(db, reports)
    assert {*left} == {"rejections"}, left
    assert db("select id from rejections") == [(told["review"][0],)], "another's record, for somebody to look at"
    assert told["removed"]["checkups"] == told["removed"]["reports"] == 5
    assert len(told["left_to_do"]) == 4
    assert db("select count(*) from audit_events")[0][0] == events + 1, "the facts stay"
    assert db("select count(*) from login_attempts") == [(0,)]
    assert db("select distinct subject from audit_events where subject like 'erased user %'") == [("erased user 7",)]
    assert db("select address from audit_events where actor = 'erased user 7'") == [(None,)]


def test_the_machines_next_dump_brings_nothing_back(person, db, sync, reports) -> None:
    erase_user(NAME)
    sync()
    kept = db("select id from rejections")
    answer = person("POST", "/machines/HC-1/dumps/", dump(memory()), query_string="refused_file=true").json
    assert {item["status"] for item in answer["items"]} == {"rejected"}
    for body in (HL7.encode(), FHIR, {"checkup_for": NAME, "note": VALUE}):
        assert person("POST", "/checkups/", body).status_code >= 400
    person("POST", "/checkups/", [record(None, FORMER, checkup_report=VALUE), record("k1", NAME)])
    sync()
    assert {*named(db, reports)} == {"rejections"}
    assert db("select id from rejections") == kept, "another's record, which only mentions the person"


def test_an_answer_kept_for_another_is_replayed_without_the_person(person, db) -> None:
    both = [record("k1", NAME, checkup_report=VALUE), record("j1", "savita", disease=5), invalid(NAME)]
    sent = {"headers": {"Idempotency-Key": "k2"}, "query_string": "refused_file=true"}
    first = person("POST", "/checkups/", [record("j2", "savita"), *both], **sent).json
    assert (first["accepted"], first["rejected"]) == (1, 2)
    assert len(json.loads(first["refused_file"])) == 2
    again = person("POST", "/checkups/", [record("j2", "savita"), *both], **sent)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.json == first
    erase_user(NAME)
    after = person("POST", "/checkups/", [record("j2", "savita"), *both], **sent).json
    assert [item["status"] for item in after["items"]] == [item["status"] for item in first["items"]]
    assert after["items"][3]["errors"][0]["code"] == "erased"
    assert [each["checkup_for"] for each in json.loads(after["refused_file"])] == ["savita"]


def test_a_deletion_at_either_api_is_the_same_act(person, db, reports, sync, log_in) -> None:
    assert person("DELETE", f"/users/{NAME}/", token=log_in("root")).status_code == 204
    sync()
    assert {*named(db, reports)} == {"rejections"}


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [("asha", '{"a":"asha"}', True), ("asha", "PID|1||7^^^H||ASHA^Roy|", True), ("asha", "her name is Asha.", True),
     ("asha", "asha.roy", False), ("asha", "x-asha", False), ("asha", "asha@example.org", False),
     ("asha", "natasha", False), ("asha.roy", "asharoy", False), ("renée", r'"ren\u00e9e"', True),
     ("renée", "rene\u0301e", True), ("renée", "renee", False)],
)  # fmt: skip
def test_a_name_is_found_as_a_whole_word(name: str, text: str, found: bool) -> None:
    assert Mentions([name]).is_in(text) is found


@pytest.mark.parametrize(
    "text",
    ['{"patient": 5, "note": "asha"}', json.dumps(record(1, "nobody", taken_by="asha", disease=5)),
     json.dumps(record(1, "meera.patel", checkup_report="daughter of asha")),
     '{"checkup_for": "savita", "checkup_for": "asha", "disease": "BP"}',
     '{"checkup_for": "savita", "next": {"checkup_for": "asha"}',
     HL7.replace(NAME, "Asha"), json.dumps(FHIR).replace("ren\\u00e9e.roy", "Asha")],
    ids=["note", "doctor", "no account yet", "two patients", "two records", "HL7 name", "FHIR name"],
)  # fmt: skip
def test_a_word_of_other_records_erases_no_record_and_no_name(people, upload, log_in, db, text: str) -> None:
    """The name elsewhere in a record, or as a first name, is no proof: it is left for somebody to look at."""
    services.create_user("asha")
    upload("POST", "/checkups/", text.encode(), token=log_in("tara"))
    assert erase_user("asha").review == [1]
    assert db("select count(*) from rejections") == [(1,)]
    services.create_user("meera.patel")
    services.create_user(NUMBER)


@pytest.mark.parametrize(
    "text", ['{{"checkup_for": "{}", "note": 1,', '{{"Checkup_For": "{}"}}', '{{"checkup_for":"{}"']
)
def test_an_unreadable_record_of_an_erased_person_is_erased_and_not_kept_again(people, db, text: str) -> None:
    (first,) = take(text.format("Bholanath"))
    assert first.rejection_id is not None
    db("update rejections set context = context - 'patients'")  # as an earlier release stored it
    assert erase_user("bholanath").removed["rejections"] == 1
    assert take(text.format("bholanath"))[0].rejection_id is None
    assert db("select count(*) from rejections") == [(0,)]


def test_an_account_that_nobody_linked_takes_no_records_along(people, db) -> None:
    services.create_user("meera.patel", self_registered=True)
    take(record(1, "meera.patel"))
    assert erase_user("meera.patel").review == [1]
    services.create_user("meera.patel")
    assert db("select count(*) from rejections") == [(1,)]


NUMBERED = {"identifiers": [{"system": "urn:oid:1.2.3", "value": "4711"}]}


@pytest.mark.parametrize("whose", [NAME, "4711"], ids=["by name", "by a number"])
def test_an_erasure_waits_for_an_upload_that_refuses_a_record_of_the_person(people, db, whose: str) -> None:
    services.create_user(NAME)
    set_identifiers(NAME, NUMBERED["identifiers"])
    refused = record("1", whose, disease=5) | ({} if whose == NAME else {"patient": NUMBERED})
    with ThreadPoolExecutor(1) as others:
        with transaction():  # an upload of more batches
            assert take(refused)[0].rejection_id
            erasing = others.submit(erase_user, NAME)
            with pytest.raises(TimeoutError):
                erasing.result(0.5)
        assert erasing.result(10).removed["rejections"] == 1
        services.create_user(FORMER)
        with transaction():
            erase_user(FORMER)
            late = others.submit(take, invalid(FORMER))
            with pytest.raises(TimeoutError):
                late.result(0.5)
        assert late.result(10)[0].rejection_id is None
    assert db("select count(*) from rejections") == [(0,)]


@pytest.fixture
def two(people, db, upload, log_in) -> list[str]:
    """The present names of two persons who were both called asha, one after the other: each has a rejected record and
    events that name only that."""
    services.create_user("asha")
    upload.token = log_in("tara")
    upload("POST", "/checkups/", record(1, "asha"))
    upload("POST", "/checkups/", record(None, "asha", disease=5, checkup_report="of the first"))
    services.rename_user("asha", "asha.first")
    services.create_user("asha")
    upload("POST", "/checkups/", record(2, "asha"))
    upload("POST", "/checkups/", record(None, "asha", disease=5, checkup_report="of the second"))
    services.rename_user("asha", "asha.second")
    return ["asha.first", "asha.second"]


@pytest.mark.parametrize("which", [0, 1], ids=["first", "second"])
def test_of_two_who_had_a_name_one_is_erased(two, db, which: int) -> None:
    """What has no id is the person's who had the name at that time."""
    ids = [services.get_user(name).id for name in two]
    before = dict(db("select id, to_jsonb(t)::text from audit_events t where subject_id = %s", ids[1 - which]))
    events = [
        id_ for (id_,) in db("select id from audit_events where subject = 'asha' and subject_id is null order by id")
    ]
    assert len(events) == 2
    assert erase_user(two[which]).removed["rejections"] == 1
    assert db("select id from rejections") == [(2 - which,)]
    assert dict(db("select id, to_jsonb(t)::text from audit_events t where subject_id = %s", ids[1 - which])) == before
    assert db("select id from audit_events where subject = 'asha' and subject_id is null") == [(events[1 - which],)]
    assert "asha" not in str(db("select * from audit_events where subject_id = %s", ids[which]))


def test_a_name_that_another_took_is_erased_up_to_then(people, db) -> None:
    services.create_user("asha")
    take(record(1, "asha", disease=5))
    services.rename_user("asha", "asha.first")
    services.create_user("asha")
    take(record(2, "asha", disease=5))
    done = erase_user("asha.first")
    assert (done.removed["rejections"], done.review) == (1, [])
    assert db("select id from rejections") == [(2,)]
    assert take(record(3, "asha"))[0].status == "accepted", "the name is another's"


def test_a_former_name_that_an_unlinked_account_took_is_erased(people, db) -> None:
    services.create_user("asha")
    services.rename_user("asha", "asha.first")
    services.create_user("asha", self_registered=True)
    take(record(1, "asha", disease=5))
    assert erase_user("asha.first").removed["rejections"] == 1
    services.rename_user("asha", "someone")
    assert take(record(2, "asha"))[0].errors[-1]["code"] == "erased"


def test_names_from_before_the_first_event_that_is_kept_are_uncertain(people, db, settings) -> None:
    services.create_user("asha")
    take(record(1, "asha", disease=5))
    db("update rejections set received_at = now() - interval '3 years'")
    with psycopg2.connect(settings.database_url) as connection, connection.cursor() as cursor:
        cursor.execute(
            "alter table audit_events disable trigger audit_events_stay; delete from audit_events where id < 4"
        )
        cursor.execute("alter table audit_events enable always trigger audit_events_stay")
    assert erase_user("asha").review == [1]


@pytest.mark.parametrize("how", [["1"], ["--all", "--yes", "--patient", NAME]])
def test_what_a_rejection_says_can_be_erased(people, db, run_cli, how: list[str]) -> None:
    take(invalid(NAME), record(9, "savita", disease=5), source=f"/{NAME}")
    assert run_cli("rejections", "discard", "1", "--reason", "gone").returncode == 0
    done = run_cli("rejections", "discard", "--erase", *how)
    assert done.returncode == 0, done.stderr
    assert db("select payload, context, errors, source, resolution from rejections where id = 1") == [
        ("", {}, [], "erased", "erased")
    ]
    assert VALUE not in str(db("select * from rejections where id = 1"))
    assert db("select payload <> '' from rejections where id = 2") == [(True,)]
