"""Login attempts are throttled across all processes; no user is locked out for ever."""

from __future__ import annotations

import contextlib
import json
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.factories import PASSWORD

from myhealth.common.errors import Busy, TooManyAttempts
from myhealth.profiles import login_throttle
from myhealth.profiles.login_throttle import ALWAYS, PER_NETWORK, PER_PAIR, PER_USER, PER_USER_AT_MOST, attempt
from myhealth.profiles.passwords import HASHING
from myhealth.profiles.services import create_user, set_password

LATER = "update login_attempts set at = at - interval '16 minutes'"


def fail(times: int, username: str, address: str = "192.0.2.1") -> None:
    for _ in range(times):
        with attempt(username, address):
            pass


def succeed(username: str, address: str) -> None:
    with attempt(username, address) as made:
        made.succeeded = True


def test_a_user_at_one_address_is_refused_after_ten_failures_and_let_in_later(db: Any) -> None:
    fail(PER_PAIR, "Savita")
    with pytest.raises(TooManyAttempts) as refused:
        fail(1, "savita")
    assert 0 < refused.value.retry_after_s <= 15 * 60 + 1
    succeed("savita", "192.0.2.2")
    db(LATER)
    succeed("savita", "192.0.2.1")


def test_it_says_when_the_next_attempt_will_be_let_through(db: Any) -> None:
    """Not when the first failure of all is forgotten: others at the same address may be older."""
    fail(1, "older")
    db("update login_attempts set at = at - interval '14 minutes'")
    fail(1, "savita")
    db("update login_attempts set at = at - interval '10 minutes' where username = 'savita'")
    fail(PER_PAIR - 1, "savita")
    with pytest.raises(TooManyAttempts, match=r"try again in (5|6) minutes\.") as refused:
        fail(1, "savita")
    assert 290 <= refused.value.retry_after_s <= 301
    db("update login_attempts set at = at - make_interval(secs => %s)", refused.value.retry_after_s + 1)
    fail(1, "savita")
    with pytest.raises(TooManyAttempts, match=r"try again in 1\d minutes\."):
        fail(1, "savita")


def test_a_new_password_ends_the_waiting(db: Any, people: Any) -> None:
    fail(PER_PAIR, "savita")
    fail(PER_PAIR, "bholanath")
    set_password("savita", "a new password", rounds=4)
    succeed("savita", "192.0.2.1")
    with pytest.raises(TooManyAttempts):
        fail(1, "bholanath")


def test_a_success_ends_the_counting(db: Any) -> None:
    for _ in range(3):
        fail(PER_PAIR - 1, "savita")
        succeed("savita", "192.0.2.1")


def test_one_address_may_not_try_everybody(db: Any) -> None:
    for number in range(PER_NETWORK):
        fail(1, f"user{number}")
    with pytest.raises(TooManyAttempts):
        fail(1, "somebody-else")


def test_who_is_attacked_from_everywhere_still_logs_in(db: Any) -> None:
    succeed("savita", "192.0.2.7")
    for number in range(PER_USER):
        fail(1, "savita", f"198.51.100.{number}")
    fail(ALWAYS, "savita", "203.0.113.1")
    with pytest.raises(TooManyAttempts):
        fail(1, "savita", "203.0.113.1")
    succeed("savita", "192.0.2.7")
    succeed("savita", "203.0.113.2")


def test_a_refused_login_says_when_to_come_again(upload: Any) -> None:
    body = {"username": "savita", "password": "not-the-one"}
    answers = [upload("POST", "/login/", body).status_code for _ in range(PER_PAIR)]
    assert answers == [401] * PER_PAIR
    refused = upload("POST", "/login/", {"username": "savita", "password": PASSWORD})
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) > 0


def test_guesses_at_ones_current_password_count_as_attempts(upload: Any, log_in: Any) -> None:
    token = log_in("savita")
    for _ in range(PER_PAIR):
        body = {"password": "a-new-password", "current_password": "a guess"}
        assert upload("PUT", "/users/savita/", body, token=token).status_code == 403
    body["current_password"] = PASSWORD
    assert upload("PUT", "/users/savita/", body, token=token).status_code == 429


def test_a_user_is_counted_by_person_and_not_by_spelling(db: Any, people: Any) -> None:
    create_user("renée.émi", password=PASSWORD, rounds=4)
    spellings = ("renée.émi", "RENÉE.ÉMI", "rene\u0301e.e\u0301mi", "Rene\u0301e.émi", "renée.e\u0301mi")
    for name in spellings * (PER_PAIR // len(spellings)):
        fail(1, name)
    for name in spellings:
        with pytest.raises(TooManyAttempts):
            fail(1, name)


def test_a_user_of_another_name_has_a_count_of_his_own(db: Any) -> None:
    fail(PER_PAIR, "ΟΔΟΣ")
    succeed("odos", "192.0.2.1")
    with pytest.raises(TooManyAttempts):
        fail(1, "οδος")


FORMS = {
    "one /64": [f"2001:db8::{number:x}" for number in range(1, 200)],
    "a port": [f"198.51.100.1:{1000 + number}" for number in range(200)],
    "a port of IPv6": [f"[2001:db8::1]:{1000 + number}" for number in range(200)],
    "IPv4 within IPv6": ["198.51.100.1", "::ffff:198.51.100.1"] * 100,
}


@pytest.mark.parametrize("form", FORMS)
def test_one_network_is_counted_as_one(db: Any, form: str) -> None:
    addresses = iter(FORMS[form])
    for _ in range(PER_PAIR):
        fail(1, "savita", next(addresses))
    with pytest.raises(TooManyAttempts):
        fail(1, "savita", next(addresses))


def test_many_networks_have_one_budget_for_a_user_and_her_own_network_none(db: Any, people: Any) -> None:
    succeed("savita", "192.0.2.7")
    made = 0
    with pytest.raises(TooManyAttempts):
        for number in range(200):
            fail(1, "savita", f"2001:db8:{number:x}::1")
            made += 1
    assert made == PER_USER_AT_MOST
    succeed("savita", "192.0.2.7")
    fail(1, "savita", "192.0.2.7")


def test_guesses_for_others_in_a_shared_network_hold_up_nobody_known_there(db: Any, people: Any) -> None:
    succeed("dr.ayush", "198.51.100.1")
    for number in range(PER_NETWORK):
        fail(1, f"invented{number}", "198.51.100.1")
    succeed("dr.ayush", "198.51.100.1")
    with pytest.raises(TooManyAttempts):
        fail(1, "tara", "198.51.100.1")
    fail(PER_PAIR, "dr.ayush", "198.51.100.1")
    with pytest.raises(TooManyAttempts):
        fail(1, "dr.ayush", "198.51.100.1")


def test_an_attempt_under_way_may_be_waited_for_and_then_counts_no_more(db: Any, people: Any) -> None:
    fail(PER_PAIR - 1, "savita")
    begun = login_throttle._begin("savita", "192.0.2.1")
    with pytest.raises(Busy) as refused:
        fail(1, "savita")
    assert refused.value.retry_after_s <= 2
    login_throttle._end_of_block(begun, succeeded=True)
    succeed("savita", "192.0.2.1")
    fail(PER_PAIR - 1, "savita")
    login_throttle._begin("savita", "192.0.2.1")
    db("update login_attempts set at = at - interval '1 minute'")  # its process was killed
    with pytest.raises(TooManyAttempts) as late:
        fail(1, "savita")
    assert late.value.retry_after_s > 600


def test_right_logins_at_the_same_time_are_all_let_in(served: Any, people: Any, db: Any) -> None:
    """Forty tablets after a power cut: who finds no place comes again after a second, and not after 15 minutes."""

    def log_in(_: int) -> list[tuple[int, str]]:
        answers = []
        while not answers or answers[-1][0] == 503:
            answers.append(ask_login(served[0]))
            time.sleep(0.2 if answers[-1][0] == 503 else 0)
        return answers

    with ThreadPoolExecutor(40) as threads:
        answers = list(threads.map(log_in, range(40)))
    assert [each[-1][0] for each in answers] == [200] * 40
    assert {wait for each in answers for status, wait in each if status != 200} <= {"1", "2"}


def ask_login(url: str) -> tuple[int, str]:
    body = json.dumps({"username": "savita", "password": PASSWORD}).encode()
    request = urllib.request.Request(f"{url}/login/", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, ""
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Retry-After"]


def test_passwords_are_hashed_by_few_threads_and_the_others_are_sent_on(upload: Any, db: Any) -> None:
    """Nothing is read, written or counted for whoever finds no place."""
    with contextlib.ExitStack() as held:
        with pytest.raises(Busy):
            for _ in range(8):  # as many as a worker of `serve` has threads
                hold(held)
        before = db("select count(*) from login_attempts") + db("select count(*) from audit_events")
        answer = upload("POST", "/login/", {"username": "savita", "password": PASSWORD})
        assert (answer.status_code, answer.json["code"], answer.headers["Retry-After"]) == (503, "busy", "1")
        assert before == db("select count(*) from login_attempts") + db("select count(*) from audit_events")
        assert upload("GET", "/healthz").status_code == 200
    assert upload("POST", "/login/", {"username": "savita", "password": PASSWORD}).status_code == 200


def hold(stack: contextlib.ExitStack) -> None:
    """Take a place at the gate in a thread of its own. Raises Busy."""
    done, taken = threading.Event(), threading.Event()
    found: list[Exception] = []

    def stay() -> None:
        try:
            with HASHING.enter():
                taken.set()
                done.wait(20)
        except Busy as error:
            found.append(error)
            taken.set()

    thread = threading.Thread(target=stay)
    thread.start()
    stack.callback(thread.join)
    stack.callback(done.set)
    taken.wait(0.2)  # who waits for a place holds one of the few waiting places
    if found:
        raise found[0]


def test_an_operator_ends_the_waiting(db: Any, people: Any, run_cli: Any) -> None:
    fail(PER_PAIR, "savita")
    fail(PER_PAIR, "tara", "2001:db8::1")
    assert run_cli("users", "unblock").returncode == 2
    assert run_cli("users", "unblock", "nobody").returncode == 2
    assert run_cli("users", "unblock", "Savita", "--address", "192.0.2.9").stdout == "Forgot 0 failed logins.\n"
    assert run_cli("users", "unblock", "Savita").stdout == "Forgot 10 failed logins.\n"
    succeed("savita", "192.0.2.1")
    assert run_cli("users", "unblock", "--address", "2001:db8::9").stdout == "Forgot 10 failed logins.\n"
    succeed("tara", "2001:db8::1")
    events = db(
        "select subject, details->>'network' from audit_events where details->>'changed' = 'unblocked' order by id"
    )
    assert events == [("savita", "192.0.2.9"), ("savita", None), (None, "2001:db8::9")]


def test_what_tells_of_throttling_is_logged_once_a_minute(upload: Any, caplog: Any) -> None:
    body = {"username": "savita", "password": "not-the-one"}
    origin = {"REMOTE_ADDR": "203.0.113.99"}
    answers = [upload("POST", "/login/", body, environ_overrides=origin).status_code for _ in range(PER_PAIR + 20)]
    assert answers.count(429) == 20
    lines = [line for line in caplog.text.splitlines() if "203.0.113.99" in line]
    assert 1 <= len(lines) <= 2  # two if the minute ended meanwhile
    assert "savita" not in caplog.text
