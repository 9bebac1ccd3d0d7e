"""Login attempts are throttled across all processes; no user is locked out for ever."""

from __future__ import annotations

from typing import Any

import pytest
from support.factories import PASSWORD

from myhealth.common.errors import TooManyAttempts
from myhealth.profiles.login_throttle import ALWAYS, PER_ADDRESS, PER_PAIR, PER_USER, attempt
from myhealth.profiles.services import set_password

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
    for number in range(PER_ADDRESS):
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
