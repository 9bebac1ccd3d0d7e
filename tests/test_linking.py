"""A name is not a key: an account that made itself receives nothing until staff link it to its person."""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from typing import Any

import pytest
from support.clients import Caller
from support.factories import PASSWORD, dump, readings, record, statuses, take
from support.page_client import Browser

from myhealth.common.errors import BadInput, Conflict
from myhealth.common.text import fold_name
from myhealth.intake.pipeline import Intake
from myhealth.intake.results import ImportSource
from myhealth.intake.retry import link_patient, retry_rejection
from myhealth.privacy.erasure import erase_user
from myhealth.profiles import services
from myhealth.profiles.passwords import hash_password
from myhealth.profiles.services import create_user
from myhealth.profiles.user_import import import_users
from wsgi.browse_pages import people as people_pages

NAME = "meera.patel"
STRANGER = {"username": NAME, "password": "a stranger's own"}
MANY = [record(number) for number in range(100, 160)]  # so many that they are copied


@pytest.fixture
def squatter(upload: Caller, people: dict[str, int]) -> str:
    """Register a stranger under the name of a person; return the name."""
    assert upload("POST", "/registration/", STRANGER).status_code == 201
    return NAME


def send(upload: Caller, log_in: Any, way: str, number: int = 7) -> Any:
    """Send one record about NAME; return its item and the HTTP status."""
    about = record(number, patient=NAME)
    ways: dict[str, tuple[str, str, Any]] = {
        "an object": ("tara", "/checkups/", about),
        "a list": ("tara", "/reports/", [about]),
        "a doctor": ("dr.ayush", f"/users/{NAME}/checkups/", about),
        "a dump": ("tara", "/machines/HC-1/dumps/", dump([about])),
        "a large dump": ("tara", "/machines/HC-1/dumps/", dump([*MANY, about])),
        "all or nothing": ("tara", "/checkups/?atomic=true", [about]),
    }
    who, path, body = ways[way]
    answer = upload("POST", path, body, token=log_in(who))
    return answer, answer.json["items"][-1]


@pytest.mark.parametrize(
    "way", ["an object", "a list", "a doctor", "a dump", "a large dump", "all or nothing"], ids=str
)
def test_a_record_for_an_account_that_nobody_linked_is_rejected_and_stored_when_it_is_linked(
    upload: Caller, squatter: str, log_in: Any, db: Any, way: str
) -> None:
    answer, item = send(upload, log_in, way)
    assert answer.status_code == (201 if way == "a large dump" else 422)
    assert (item["status"], item["id"]) == ("rejected", None)
    assert [(error["field"], error["code"]) for error in item["errors"]] == [("checkup_for", "account_not_linked")]
    mine = "select count(*) from checkups join users on users.id = patient_id where username = %s"
    assert db(mine, NAME) == [(0,)]
    assert db("select context->'patients' from rejections") == [([NAME],)]
    token = upload("POST", "/login/", STRANGER).json["token"]
    assert upload("GET", f"/users/{NAME}/checkups/", token=token).json == []

    for name in ("dr.ayush", "tara", "savita", NAME):
        refused = upload("POST", f"/users/{NAME}/link/", token=log_in(name))
        assert refused.status_code == 403
    linked = upload("POST", f"/users/{NAME.upper()}/link/", token=log_in("root"))
    assert linked.status_code == 200
    assert {key: linked.json[key] for key in ("accepted", "duplicate", "rejected")} == {
        "accepted": 1, "duplicate": 0, "rejected": 0}  # fmt: skip
    assert db(mine, NAME) == [(1,)]
    assert db("select count(*) from rejections where resolved_at is null") == [(0,)]
    assert db("select count(*) from audit_events where action = 'user.link' and subject = %s", NAME) == [(1,)]
    assert send(upload, log_in, "an object", number=8)[1]["status"] == "accepted"


def test_an_import_that_creates_patients_links_no_account_that_made_itself(squatter: str, db: Any) -> None:
    outcomes = take(record(1, patient=NAME), record(2, patient="kavya.rao"), create_patients=True)
    assert statuses(outcomes) == ["rejected", "accepted"]
    assert outcomes[0].errors[0]["code"] == "account_not_linked"
    assert db("select username, linked_at is not null from users where username in (%s, 'kavya.rao') order by 1", NAME) == [
        ("kavya.rao", True), (NAME, False)]  # fmt: skip


def test_a_retry_links_nothing(squatter: str, db: Any) -> None:
    (outcome,) = take(record(1, patient=NAME))
    again = retry_rejection(outcome.rejection_id)
    assert (again.status, again.errors[0]["code"]) == ("rejected", "account_not_linked")


def test_a_record_that_came_before_the_registration_is_stored_when_the_account_is_linked(
    upload: Caller, people: dict[str, int], db: Any
) -> None:
    (before,) = take(record(1, patient="Meera.Patel"))
    assert before.errors[0]["code"] == "unknown_user"
    upload("POST", "/registration/", STRANGER)
    assert dict(link_patient(NAME)) == {"accepted": 1, "duplicate": 0, "rejected": 0}


def test_linking_misses_no_record_that_is_being_rejected(squatter: str, db: Any, connect: Any) -> None:
    """The record's transaction sees the account unlinked; the linking waits for it."""
    other = connect()
    with other, other.cursor() as cursor:
        cursor.execute("set lock_timeout = '200ms'")
        import psycopg2.errors

        from myhealth.common.database import transaction

        with transaction():
            assert statuses(take(record(1, patient=NAME))) == ["rejected"]
            with pytest.raises(psycopg2.errors.LockNotAvailable):
                cursor.execute("update users set linked_at = now() where username = %s", (NAME,))


def test_an_admin_who_creates_the_person_learns_of_the_account(squatter: str, run_cli: Any) -> None:
    made = run_cli("users", "create", NAME, "--no-password")
    assert made.returncode == 2
    assert f"myhealth users link {NAME}" in made.stderr
    assert f"myhealth users delete {NAME}" in made.stderr
    listed = run_cli("users", "list", "--to-review", "--json")
    assert [(row["username"], row["linked"]) for row in json.loads(listed.stdout)] == [(NAME, False)]
    # A stranger's account that is deleted received nothing: the name is free again.
    assert run_cli("users", "delete", NAME, "--yes").returncode == 0
    assert run_cli("users", "create", NAME, "--no-password").returncode == 0


def test_the_command_links_an_account(squatter: str, run_cli: Any, db: Any) -> None:
    take(record(1, patient=NAME))
    done = run_cli("users", "link", NAME)
    assert (done.returncode, done.stdout) == (0, f"{NAME} is linked; 1 kept record stored.\n")
    assert run_cli("users", "link", NAME).stdout.startswith(f"{NAME} is linked already")
    assert db("select count(*) from checkups") == [(1,)]


def test_an_import_of_users_reports_an_account_that_is_not_linked(squatter: str) -> None:
    lines = ["username\n", f"{NAME}\n", "savita\n"]
    assert [row.username for row in import_users(lines, skip_existing=True)] == [NAME]


@pytest.mark.parametrize("squatted", [["77001234"], ["77001234", "MR-1"], ["bholanath.k"]])
def test_an_account_named_like_anothers_identifier_stops_no_record(people: Any, db: Any, squatted: list[str]) -> None:
    for name in squatted:
        services.create_user(name, self_registered=True)
    (parsed,) = readings(record(1))
    parsed.patients = ("77001234", "MR-1", "bholanath.k", "bholanath")
    (outcome,) = Intake(ImportSource("test.json")).store_batch([parsed])
    assert (outcome.status, outcome.errors) == ("accepted", [])
    assert db("select patient_id from checkups") == [(people["bholanath"],)]
    (parsed,) = readings(record(2))
    parsed.patients = (*squatted, "nobody")
    (outcome,) = Intake(ImportSource("test.json")).store_batch([parsed])
    assert outcome.errors[0]["code"] == "account_not_linked"


def test_linking_an_account_stores_what_was_ambiguous(people: Any, db: Any) -> None:
    services.create_user("77001234", self_registered=True)
    (parsed,) = readings(record(1))
    parsed.patients = ("77001234", "savita")
    db("update users set linked_at = now() where username = '77001234'")
    (outcome,) = Intake(ImportSource("test.json")).store_batch([parsed])
    assert outcome.errors[0]["code"] == "ambiguous_user"
    db("update users set linked_at = null where username = '77001234'")
    assert link_patient("savita")["accepted"] == 1
    assert db("select patient_id from checkups") == [(people["savita"],)]


# Erased names and records


@pytest.fixture
def erased(db: Any, people: dict[str, int]) -> Any:
    """Erase bholanath, who had records of a machine and of none."""
    assert statuses(take(record(1), record(2, patient="savita"))) == ["accepted"] * 2
    assert statuses(take(record(50), machine=None)) == ["accepted"]
    erase_user("bholanath")
    return db


def test_an_erased_name_is_not_given_out_again_unless_an_admin_says_so(
    erased: Any, upload: Caller, log_in: Any, run_cli: Any
) -> None:
    taken = upload("POST", "/registration/", {**STRANGER, "username": "savita"})
    again = upload("POST", "/registration/", {**STRANGER, "username": "Bholanath"})
    assert (again.status_code, again.json) == (taken.status_code, taken.json)
    assert again.status_code == 400
    root = log_in("root")
    refused = upload("POST", "/users/", {"username": "bholanath"}, token=root)
    assert (refused.status_code, refused.json["code"]) == (409, "name_erased")
    assert upload("PUT", "/users/savita/", {"username": "bholanath"}, token=root).status_code == 409
    lines = ["username\n", "bholanath\n"]
    assert len(list(import_users(lines, skip_existing=True))) == 1
    refused = run_cli("users", "create", "bholanath", "--no-password")
    assert refused.returncode == 2
    assert "--reuse-erased-name" in refused.stderr
    assert run_cli("users", "create", "bholanath", "--no-password", "--reuse-erased-name").returncode == 0
    # The erased person's own records stay away; new ones of that name are stored.
    outcomes = take(record(1), record(3))
    assert statuses(outcomes) == ["rejected", "accepted"]
    assert outcomes[0].errors[0]["code"] == "erased"


@pytest.mark.parametrize("create_patients", [False, True])
@pytest.mark.parametrize("others", [0, 60], ids=["alone", "copied"])
def test_records_of_an_erased_person_are_refused_and_not_kept(erased: Any, create_patients: bool, others: int) -> None:
    filling = [record(1000 + number, patient="savita") for number in range(others)]
    again = [record(1), record(9), record(1, patient="savita"), {**record(10), "disease": 5}]
    outcomes = take(*filling, *again, create_patients=create_patients)[others:]
    assert statuses(outcomes) == ["rejected"] * 4
    assert [outcome.errors[-1].get("code") for outcome in outcomes] == ["erased", "erased", "erased", None]
    assert [outcome.rejection_id for outcome in outcomes] == [None] * 4
    assert erased("select count(*) from rejections") == [(0,)]
    assert erased("select count(*) from users where folded_name = 'bholanath'") == [(0,)]
    (alone,) = take(record(50, patient="savita"), machine=None)
    assert (alone.status, alone.errors[0]["code"]) == ("rejected", "erased")
    assert statuses(take(record(50, patient="savita"))) == ["accepted"]  # a machine's own 50 is another record


def test_what_cannot_be_read_is_not_kept_where_the_import_says_that_it_is_of_an_erased_person(erased: Any) -> None:
    unreadable = {"record_id": "11", "checkup_for": "P-17", "disease": 5}
    for known in ({"patient": "Bholanath"}, {"patient_map": {"P-17": "bholanath"}}):
        (outcome,) = take(unreadable, **known)
        assert (outcome.status, outcome.rejection_id) == ("rejected", None)
    assert erased("select count(*) from rejections") == [(0,)]
    assert take(unreadable)[0].rejection_id is not None


def test_a_former_name_of_an_erased_person_is_erased_too_unless_it_is_anothers_now(people: Any, db: Any) -> None:
    services.rename_user("bholanath", "b.nath")
    services.rename_user("b.nath", "bhola")
    services.create_user("b.nath")
    erase_user("bhola")
    outcomes = take(record(1), record(2, patient="B.Nath"), record(3, patient="bhola"))
    assert [(outcome.status, [error["code"] for error in outcome.errors]) for outcome in outcomes] == [
        ("rejected", ["erased"]), ("accepted", []), ("rejected", ["erased"])]  # fmt: skip
    assert take({**record(4, patient="b.nath"), "disease": 5})[0].rejection_id is not None


def test_an_account_that_is_deleted_with_no_person_is_not_remembered(squatter: str, db: Any) -> None:
    erase_user(NAME)
    assert db("select count(*) from erased_digests") == [(0,)]


def test_the_digests_are_hmac_sha256_under_the_stored_key(db: Any) -> None:
    import hmac

    ((inner,),) = db("select inner_key from erasure_key")
    key = bytes(byte ^ 0x36 for byte in bytes(inner))
    for parts in (["zoë"], ["HC-1", "7"], [None, "7"]):
        text = json.dumps(parts, separators=(",", ":"), ensure_ascii=False)
        ((digest,),) = db("select keyed_digest(variadic %s::text[])", parts)
        assert bytes(digest) == hmac.digest(key, text.encode(), "sha256")


# Names


def test_the_folding_is_stable_for_every_character() -> None:
    for character in map(chr, range(sys.maxunicode + 1)):
        assert fold_name(fold_name(character)) == fold_name(character)


@pytest.mark.parametrize(
    ("one", "other"),
    [("οδος", "ΟΔΟΣ"), ("savita", "savİta"), ("zoe\u0308", "ZO\u00cb"), ("straße", "STRASSE"), ("bob", "ｂｏb")],
)
def test_two_spellings_of_a_name_are_one_name_everywhere(db: Any, one: str, other: str) -> None:
    made = services.create_user(one, password=PASSWORD, rounds=4)
    assert services.get_user(other).id == made.id
    login = services.check_login(other, PASSWORD, rounds=4)
    assert login is not None
    assert login.user.id == made.id
    with pytest.raises((Conflict, BadInput)):
        services.create_user(other)
    assert statuses(take(record(1, patient=other))) == ["accepted"]
    assert statuses(take(*[record(n, patient=other) for n in range(100, 160)])) == ["accepted"] * 60
    assert statuses(take(record(2, patient=other), patient=one)) == ["accepted"]
    assert db("select distinct patient_id from checkups") == [(made.id,)]
    Intake(ImportSource("rejected")).store_batch(readings({**record(3, patient=one), "disease": 5}))
    erase_user(other)
    assert db("select count(*) from rejections") == [(0,)]


INVISIBLE = "\ufe0e\ufe0f\u034f\u115f\u1160\u2800\u17b4\u17b5\U000e0101\u3164\uffa0\u200b\u00ad\u2060\u180e\u180b\u061c"


@pytest.mark.parametrize("character", INVISIBLE, ids=ascii)
def test_a_name_with_an_invisible_character_is_refused(db: Any, character: str) -> None:
    for name in (f"meera{character}", f"mee{character}ra"):
        with pytest.raises(BadInput):
            services.create_user(name)


@pytest.mark.parametrize("name", ["b\u0585b", "ѕavita", "sav\u13a2ta", "मीraa", "аlice", "οlga", "ж\u03bf"], ids=ascii)
def test_a_name_of_mixed_scripts_is_refused(db: Any, name: str) -> None:
    with pytest.raises(BadInput, match="mixes"):
        services.create_user(name)


@pytest.mark.parametrize(
    "name",
    [
        "meera1",
        "mеера".replace("a", "а").replace("m", "м"),
        "O1l",
        "भोलानाथ",
        "田中さん",
        "タナカ太郎",
        "김철수",
        "tanaka田中",
        "d\u02bcarcy",
    ],
)
def test_a_name_of_one_script_is_allowed(db: Any, name: str) -> None:
    assert services.create_user(name).username == unicodedata.normalize("NFC", name)


# Passwords


@pytest.mark.parametrize(
    "password", ["password", "12345678", "aaaaaaaa", "PassWord1", " " * 8, "iloveyou", "qwertyuiop"]
)
def test_a_common_password_is_refused_and_one_that_exists_goes_on_working(
    upload: Caller, people: dict[str, int], db: Any, password: str, log_in: Any
) -> None:
    import bcrypt

    with pytest.raises(BadInput, match="common"):
        hash_password(password, 4)
    assert upload("POST", "/registration/", {"username": "new.one", "password": password}).status_code == 400
    root = log_in("root")
    assert upload("POST", "/users/", {"username": "new.one", "password": password}, token=root).status_code == 400
    assert upload("PUT", "/users/savita/", {"password": password}, token=root).status_code == 400
    db(
        "update users set password_hash = %s where username = 'savita'",
        bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode(),
    )
    assert services.check_login("savita", password, rounds=4) is not None


def test_a_stranger_who_is_renamed_takes_no_record_of_the_name_along(
    upload: Caller, log_in: Any, squatter: str
) -> None:
    send(upload, log_in, "an object")
    admin = log_in("root")
    assert upload("PUT", f"/users/{NAME}/", {"username": "m.stranger"}, token=admin).status_code == 200
    linked = upload("POST", "/users/m.stranger/link/", {}, token=admin)
    assert linked.status_code == 200
    assert linked.json["accepted"] == 0


def test_an_admin_links_an_account_on_a_page(squatter: str, application: Any, db: Any, sync: Any) -> None:
    take(record(1, patient=NAME), record(2, patient="Meera.Patel"), record(3, patient="nobody"))
    sync()
    admin = Browser(application)
    for name in ("dr.ayush", "tara", NAME):
        stranger = Browser(application)
        stranger.log_in(name, STRANGER["password"] if name == NAME else PASSWORD)
        refused = (stranger.get("/my/accounts"), stranger.post("/my/accounts", username=NAME))
        assert [answer.status_code for answer in refused] == [404, 404]
        assert "/my/accounts" not in refused[0].text
    admin.log_in("root")
    page = admin.get("/my/accounts")
    assert [page.text.count(text) for text in ("2 records waiting", 'value="meera.patel"', 'value="savita"')] == [
        1,
        1,
        0,
    ]
    assert admin.post("/my/accounts", username=NAME).status_code == 403, "the form's key is missing"
    assert db("select linked_at from users where username = %s", NAME) == [(None,)]
    done = admin.submit(page, "/my/accounts")
    assert (done.status_code, "2 stored" in done.text, "Nothing to do" in done.text) == (200, True, True)
    event = db("select actor, subject from audit_events where action = 'user.link'")
    assert event == [("root", NAME)]
    assert db("select count(*) from checkups join users on users.id = patient_id where username = %s", NAME) == [(2,)]
    assert admin.submit(page, "/my/accounts", username="gone").status_code == 404


def test_the_accounts_page_is_divided(squatter: str, application: Any, sync: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(people_pages, "PAGE", 1)
    create_user("amit", self_registered=True, full_name="<b>" + "x" * 200)
    sync()
    admin = Browser(application)
    admin.log_in("root")
    first = admin.get("/my/accounts")
    more = re.search(r'href="(/my/accounts\?after=[^"]+)"', first.text)[1]
    second = admin.get(more)
    assert [NAME in page.text for page in (first, second)] == [False, True]
    assert "&lt;b&gt;" in first.text
    assert 'rel="next"' not in second.text
    assert [admin.get(f"/my/accounts?{wrong}").status_code for wrong in ("after=%00", "x=1")] == [400, 400]
