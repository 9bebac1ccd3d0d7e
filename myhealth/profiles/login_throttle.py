"""Throttle password guesses, across all processes, without locking a user out for good.

Failures count for 15 minutes. An attempt is counted before its password is checked, so that parallel attempts count
too. A throttled attempt does not count, so the limit ends by itself.

    the same user from the same address      10 failures, since the last success
    any users from one address              100 failures
    one user from any addresses              50 failures. Addresses from which the user has logged in during the last
                                             30 days are exempt. Any other address still has 3 attempts, so that a
                                             user under attack can log in from a new place.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from peewee import fn

from myhealth.common.database import transaction
from myhealth.common.errors import TooManyAttempts, too_many_attempts
from myhealth.common.text import fold_name
from myhealth.profiles.models import LoginAttempt

WINDOW_S = 15 * 60
PER_PAIR, PER_ADDRESS, PER_USER, ALWAYS = 10, 100, 50, 3
REGISTRATIONS_PER_ADDRESS, REGISTRATION_WINDOW_S = 20, 3600
KNOWN_DAYS = 30
THROTTLED_NAME_MAX = 200

# Raw SQL: four limits in one round trip, over rows that are read once. As peewee expressions it is longer.
COUNT = """
with recent as (
    select username, address, extract(epoch from at - now()) + %(window)s as left_s, at from login_attempts
    where kind = 'login' and not succeeded and at > now() - make_interval(secs => %(window)s)
        and (username = %(username)s or address = %(address)s)
), here as (
    select left_s from recent where username = %(username)s and address = %(address)s and at > coalesce((
        select max(at) from login_attempts where kind = 'login' and succeeded and username = %(username)s
            and address = %(address)s), '-infinity')
)
select exists (select from login_attempts where kind = 'login' and succeeded and username = %(username)s
            and address = %(address)s and at > now() - make_interval(days => %(known)s)),
       array(select left_s::float from here order by 1 desc),
       array(select left_s::float from recent where address = %(address)s order by 1 desc),
       array(select left_s::float from recent where username = %(username)s order by 1 desc)
"""


@dataclass
class Attempt:
    """One attempt to log in; it counts as failed unless `succeeded` is set."""

    succeeded: bool = False


@contextmanager
def attempt(username: str, address: str) -> Iterator[Attempt]:
    """Count one attempt to log in; the block checks the password and sets `succeeded`.

    Raises TooManyAttempts, with the seconds until the next attempt, before the block runs.
    """
    username = _stored_name(username)
    values = {"username": username, "address": address, "window": WINDOW_S, "known": KNOWN_DAYS}
    with transaction() as cursor:
        cursor.execute(COUNT, values)
        known, here, at_address, of_user = cursor.fetchone()
        elsewhere = 0.0 if known else min(_wait_s(of_user, PER_USER), _wait_s(here, ALWAYS))
        wait_s = max(_wait_s(here, PER_PAIR), _wait_s(at_address, PER_ADDRESS), elsewhere)
        if wait_s > 0:
            raise too_many_attempts(int(wait_s) + 1)
        row = LoginAttempt.create(kind="login", username=username, address=address)
    made = Attempt()
    yield made
    if made.succeeded:
        with transaction():
            LoginAttempt.update(succeeded=True).where(LoginAttempt.id == row.id).execute()
            LoginAttempt.delete().where(LoginAttempt.at < fn.now() - timedelta(days=KNOWN_DAYS + 1)).execute()


def _wait_s(left_s: list[float], limit: int) -> float:
    """Return the seconds until fewer than `limit` failures count; 0 if that is so now.

    `left_s`: for each failure the seconds that it still counts, the longest first.
    """
    return max(left_s[limit - 1], 0.001) if len(left_s) >= limit else 0.0


def clear_failures(username: str) -> None:
    """Forget this user's failed attempts: they were made with a password that is no longer valid."""
    with transaction():
        LoginAttempt.delete().where(
            LoginAttempt.kind == "login", ~LoginAttempt.succeeded, LoginAttempt.username == _stored_name(username)
        ).execute()


def _stored_name(username: str) -> str:
    return fold_name(username)[:THROTTLED_NAME_MAX].encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def count_registration(address: str) -> None:
    """Count an account that is made without a login. Raises TooManyAttempts if the address has made too many."""
    since = fn.now() - timedelta(seconds=REGISTRATION_WINDOW_S)
    with transaction():
        made = LoginAttempt.select().where(
            LoginAttempt.kind == "registration", LoginAttempt.address == address, LoginAttempt.at > since
        )
        if made.count() >= REGISTRATIONS_PER_ADDRESS:
            raise TooManyAttempts(
                "Too many accounts were made from here; try again later.", retry_after_s=REGISTRATION_WINDOW_S
            )
        LoginAttempt.create(kind="registration", username="", address=address)
