"""A code on paper lets a patient set a password, once, for 14 days; and nobody else."""

import csv
import dataclasses
import io
import json
import logging
import re
import threading
from typing import Any

import pytest
from support.factories import PASSWORD
from support.page_client import Browser, plain

from myhealth.common.errors import Conflict, NotFound
from myhealth.privacy.erasure import erase_user
from myhealth.profiles import invitations, services
from myhealth.profiles.invitations import accept, invite, list_without_password
from myhealth.profiles.login_throttle import PER_PAIR
from myhealth.reports.documents import next_millisecond
from wsgi.browse import make_app

NEW = "another horse"
URL = {"MYHEALTH_BROWSE_PUBLIC_URL": "https://clinic.example"}
HOSTILE = '=HYPERLINK("http://x","y")<script>alert(1)</script>"\'&'


def welcome(upload: Any, code: str, username: str = "savita", password: str = NEW, **options: Any) -> Any:
    return upload("POST", "/welcome/", {"username": username, "code": code, "password": password}, **options)


def test_a_code_is_long_and_easily_typed(people) -> None:
    codes = [invite("savita").code for _ in range(50)]
    assert all(re.fullmatch("([2-9A-HJKMNP-Z]{4}-){4}[2-9A-HJKMNP-Z]{4}", code) for code in codes)
    assert len({*codes}) == 50
    assert len({*"".join(codes)}) == 32, "31 letters and the dash: 99 bits"


def test_who_has_no_password_comes_in_with_a_code_once(upload, db, log_in) -> None:
    services.create_user("asha")
    made = upload("POST", "/invitations/", {"username": "ASHA"}, token=log_in("root"))
    assert (made.status_code, made.json["username"]) == (201, "asha")
    typed = made.json["code"].lower().replace("-", " ")
    answer = welcome(upload, typed, " Asha ")
    assert answer.status_code == 200
    assert upload("GET", "/users/asha/", token=answer.json["token"]).status_code == 200
    assert upload("POST", "/login/", {"username": "asha", "password": NEW}).status_code == 200
    assert welcome(upload, typed, "asha", "a third horse").status_code == 401
    assert db("select count(*) from invitations") == [(0,)]
    events = db("select action, actor, subject, outcome, details - 'request_id' from audit_events order by id")
    with_code = {"with": "invitation"}
    assert events[-5:] == [
        ("user.invite", "root", "asha", "done", {}),
        ("user.change", "asha", "asha", "done", {"changed": "password"}),
        ("login", "asha", None, "done", with_code),
        ("login", "asha", None, "done", {}),
        ("login", None, "asha", "refused", with_code),
    ]


def test_a_lost_password_and_its_logins_end(upload) -> None:
    before = upload("POST", "/login/", {"username": "savita", "password": PASSWORD}).json["token"]
    assert "password_reset_at" not in welcome(upload, invite("savita").code).json
    assert upload("GET", "/users/savita/", token=before).status_code == 401
    assert upload("POST", "/login/", {"username": "savita", "password": PASSWORD}).status_code == 401


ENDS: dict[str, Any] = {
    "a newer code": lambda db: invite("savita"),
    "14 days": lambda db: db("update invitations set created_at = now() - interval '14 days 1 second'"),
    "a new password": lambda db: services.set_password("savita", "a third horse", rounds=4),
    "the end of the account": lambda db: (services.set_active("savita", False), services.set_active("savita", True)),
    "another role": lambda db: (services.set_role("savita", "doctor"), services.set_role("savita", "patient")),
    "an erasure": lambda db: (erase_user("savita"), services.create_user("savita", reuse_erased_name=True)),
    "another's name": lambda db: (
        services.rename_user("savita", "s"),
        db("update users set username = 'savita', folded_name = 'savita' where username = 'bholanath'"),
    ),
}


@pytest.mark.parametrize("what", ENDS)
def test_a_code_is_ended_by(upload, db, what: str) -> None:
    code = invite("savita").code
    ENDS[what](db)
    answer = welcome(upload, code)
    assert (answer.status_code, answer.json["code"]) == (401, "wrong_credentials")
    assert upload("POST", "/login/", {"username": "savita", "password": NEW}).status_code == 401


def test_a_code_lasts_until_its_last_day_and_a_rename(upload, db) -> None:
    code = invite("savita").code
    db("update invitations set created_at = now() - interval '13 days 23 hours'")
    services.rename_user("savita", "savita.rao")
    services.set_full_name("savita.rao", "Savita Rao")
    assert welcome(upload, code, "savita.rao").status_code == 200


def test_a_code_is_one_persons(upload, people) -> None:
    assert welcome(upload, invite("bholanath").code, "savita").status_code == 401


def test_of_two_requests_at_once_one_wins(settings, upload, db, calling) -> None:
    for _ in range(5):
        code, statuses = invite("savita").code, list[int]()
        barrier = threading.Barrier(2)

        def send(number: int, code: str = code, statuses: list[int] = statuses, barrier: Any = barrier) -> None:
            barrier.wait()
            login = accept("savita", code, f"{NEW} {number}", rounds=4)
            statuses.append(200 if login else 401)
            services.database.close()

        threads = [threading.Thread(target=send, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(statuses) == [200, 401]


def test_wrong_codes_are_throttled_like_passwords(upload, people) -> None:
    code = invite("savita").code
    for _ in range(PER_PAIR):
        assert welcome(upload, "K7WD-9XQM-TT3C-HV5P-2AJR").status_code == 401
    answer = welcome(upload, code)
    assert (answer.status_code, int(answer.headers["Retry-After"]) > 0) == (429, True)
    assert upload("POST", "/login/", {"username": "savita", "password": PASSWORD}).status_code == 429
    assert welcome(upload, code, environ_overrides={"REMOTE_ADDR": "192.0.2.9"}).status_code == 200


@pytest.mark.parametrize("name", ["savita", "bholanath", "nobody", "dr.ayush", "x\0y"])
def test_every_wrong_code_costs_a_hash_and_gets_one_answer(upload, monkeypatch, name: str) -> None:
    """Savita has an open code, the others have none."""
    invite("savita")
    hashed = []
    real = invitations.hash_in_gate
    monkeypatch.setattr(invitations, "hash_in_gate", lambda *given: hashed.append(given) or real(*given))
    answer = welcome(upload, "K7WD-9XQM-TT3C-HV5P-2AJR", name)
    assert (answer.status_code, answer.json["code"], len(hashed)) == (401, "wrong_credentials", 1)


@pytest.mark.parametrize(
    "body",
    [{}, {"code": 7, "username": "savita", "password": NEW}, {"code": "x", "username": "savita", "password": "short"},
     {"code": "x", "username": "savita", "password": "password123"}, {"code": "x", "username": ["savita"], "password": NEW}],
)  # fmt: skip
def test_what_is_no_attempt_does_not_count(upload, db, body: dict[str, Any]) -> None:
    assert upload("POST", "/welcome/", body).status_code == 400
    assert db("select count(*) from login_attempts") == [(0,)]


def test_only_a_linked_patient_is_invited(upload, log_in, db) -> None:
    services.create_user("stranger", self_registered=True)
    services.set_active("bholanath", False)
    for name, status, code in [
        ("stranger", 409, "account_not_linked"),
        ("bholanath", 409, "account_disabled"),
        *((name, 409, "not_a_patient") for name in ("dr.ayush", "tara", "root", "runner")),
        ("nobody", 404, "unknown_user"),
        (7, 400, "bad_input"),
    ]:
        answer = upload("POST", "/invitations/", {"username": name}, token=log_in("root"))
        assert (answer.status_code, answer.json["code"]) == (status, code), name
    assert db("select count(*) from invitations") == [(0,)]
    for name in ("nobody", "stranger"):
        with pytest.raises((NotFound, Conflict)):
            invite(name)


def test_a_code_is_stored_nowhere_in_clear(upload, db, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    code = invite("savita").code
    rows = db("select to_jsonb(t)::text from invitations t") + db("select to_jsonb(t)::text from audit_events t")
    assert welcome(upload, code).status_code == 200
    rows += db("select to_jsonb(t)::text from audit_events t")
    texts = str(rows) + caplog.text
    assert not any(group in texts for group in [code, code.replace("-", "")])


def test_old_codes_go_with_the_sync(people, db, sync) -> None:
    for name in ("savita", "bholanath"):
        invite(name)
    db("update invitations set created_at = now() - interval '15 days' where user_id = %s", people["savita"])
    sync()
    assert db("select user_id from invitations") == [(people["bholanath"],)]


@pytest.fixture
def imported(people) -> None:
    for name, full_name in (("asha", HOSTILE), ("amit", "Amit Rao")):
        services.create_user(name, full_name=full_name)
    services.create_user("neha", role="doctor")
    services.create_user("stranger", self_registered=True)


def test_all_without_password_are_active_linked_patients(imported) -> None:
    services.create_user("gone")
    services.set_active("gone", False)
    assert list(list_without_password()) == ["amit", "asha"]


@pytest.fixture
def inviting(run_cli, settings) -> Any:
    own = {"MYHEALTH_DATABASE_URL": settings.database_url, "MYHEALTH_DATA_DIR": settings.data_dir}
    return lambda *words: run_cli("users", "invite", *words, env={**own, **URL})


def test_slips_are_printed_safely(imported, inviting, upload) -> None:
    done = inviting("--all-without-password", "--html")
    assert (done.returncode, done.stderr) == (0, "")
    assert "<script" not in done.stdout
    assert "&lt;script&gt;" in done.stdout
    assert (done.stdout.count("<section>"), done.stdout.count("<svg")) == (2, 2)
    assert "https://clinic.example/my/welcome" in done.stdout
    assert not re.search("(src|href)=", done.stdout), "a slip fetches nothing"
    codes = re.findall(r"<code>((?:\w{4}-){4}\w{4})</code>", done.stdout)
    assert welcome(upload, codes[0], "amit").status_code == 200


def test_a_table_of_codes_is_no_formula(imported, inviting, upload) -> None:
    done = inviting("asha", "--csv")
    assert done.returncode == 0, done.stderr
    [row] = csv.DictReader(io.StringIO(done.stdout))
    assert row["full_name"].startswith("'=")
    assert row["address"] == "https://clinic.example/my/welcome"
    assert welcome(upload, row["code"], "asha").status_code == 200


def test_who_cannot_be_invited_is_told_and_the_others_are_invited(imported, inviting, run_cli) -> None:
    done = inviting("neha", "amit", "nobody", "stranger", "--json")
    assert (done.returncode, [each["username"] for each in json.loads(done.stdout)]) == (1, ["amit"])
    assert all(name in done.stderr for name in ("neha", "nobody", "stranger"))
    for words in (["amit"], ["amit", "--csv", "--html"], ["--html"], ["amit", "--all-without-password", "--html"]):
        assert inviting(*words).returncode == 2, words
    refused = run_cli("users", "invite", "amit", "--html")
    assert (refused.returncode == 0, "browse.public_url" in refused.stderr) == (False, True)


def test_the_page_sets_the_password_and_logs_in(application, people, sync) -> None:
    sync()
    browser, other = Browser(application), Browser(application)
    other.log_in("savita")
    code = invite("savita").code
    assert 'href="/my/welcome"' in browser.get("/my/login").text
    for given, new, again, status, told in (
        ("K7WD-9XQM-TT3C-HV5P-2AJR", NEW, NEW, 401, "is not right"),
        (code, NEW, "another house", 400, "typed in two different ways"),
        (code, "short", "short", 400, "at least 8"),
    ):
        page = browser.get("/my/welcome")
        answer = browser.submit(page, "/my/welcome", username="savita", code=given, new=new, again=again)
        assert (answer.status_code, told in plain(answer)) == (status, True), told
        assert f'value="{new}"' not in answer.text
    forged = browser.post("/my/welcome", username="savita", code=code, new=NEW, again=NEW)
    assert (forged.status_code, browser.cookie()) == (403, None)
    answer = browser.submit(answer, "/my/welcome", new=NEW, again=NEW, code=code)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/my/")
    assert browser.get("/my/").status_code == 200
    assert other.get("/my/").status_code == 303, "the other device is logged out"
    answer = browser.submit(browser.get("/my/welcome"), "/my/welcome", username="savita", code=code, new=NEW, again=NEW)
    assert answer.status_code == 401


def test_a_login_right_behind_the_revocation_of_others_is_not_revoked_by_the_report_store(people, db) -> None:
    """The store's moment of the revocation is rounded up to the millisecond, and may be after the login."""
    for _ in range(30):
        login = accept("savita", invite("savita").code, NEW, rounds=4)
        assert login is not None
        assert login.at >= next_millisecond(services.get_user("savita").tokens_valid_after)
    db("update users set tokens_valid_after = date_trunc('second', now()) + interval '1.000001 s'")
    login = services.check_login("savita", NEW, rounds=4)
    assert login is not None
    assert login.at >= next_millisecond(services.get_user("savita").tokens_valid_after)


def test_the_page_says_when_it_is_not_possible_now(settings, reports, calling, answering) -> None:
    for status, told in ((503, "Your code still works"), (504, "log in with the new one")):
        away = dataclasses.replace(settings, auth_url=answering(status, b""))
        browser = Browser(calling(make_app(away)).application)
        page = browser.get("/my/welcome")
        answer = browser.submit(page, "/my/welcome", username="savita", code="x", new=NEW, again=NEW)
        assert (answer.status_code, told in plain(answer)) == (status, True)
        assert int(answer.headers["Retry-After"]) > 0


def test_an_unknown_user_is_told_before_the_address_that_is_missing(people, run_cli) -> None:
    assert "nobody" in run_cli("users", "invite", "nobody", "--csv").stderr
    assert "browse.public_url is empty" in run_cli("users", "invite", "savita", "--csv").stderr
