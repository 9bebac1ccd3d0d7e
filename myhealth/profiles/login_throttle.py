"""Slowing down whoever guesses passwords, over all processes alike, without locking anybody out for good.

Failures count for a quarter of an hour. An attempt is counted before it is judged, so that many at once are not seen
as none. What is refused here is not counted: the window closes by itself.

    the same user from the same address      10 failures, since the last success
    any users from one address              100 failures
    one user from anywhere                   50 failures; addresses at which that user has logged in during the last
                                             30 days are exempt, and any other address has 3 attempts all the same:
                                             who is attacked from everywhere can still log in from somewhere new
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from myhealth.common.database import transaction
from myhealth.common.errors import TooManyAttempts, too_many_attempts

WINDOW_S = 15 * 60
PER_PAIR, PER_ADDRESS, PER_USER, ALWAYS = 10, 100, 50, 3
REGISTRATIONS_PER_ADDRESS, REGISTRATION_WINDOW_S = 20, 3600
KNOWN_DAYS = 30
THROTTLED_NAME_MAX = 200

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
    """One attempt, counted as failed until it is told to have succeeded."""

    succeeded: bool = False


@contextmanager
def attempt(username: str, address: str) -> Iterator[Attempt]:
    """One attempt to log in. Raises TooManyAttempts, with the seconds until the next, instead of letting it be made."""
    username = _kept(username)
    values = {"username": username, "address": address, "window": WINDOW_S, "known": KNOWN_DAYS}
    with transaction() as cursor:
        cursor.execute(COUNT, values)
        known, here, at_address, of_user = cursor.fetchone()
        elsewhere = 0.0 if known else min(_free_in_s(of_user, PER_USER), _free_in_s(here, ALWAYS))
        wait_s = max(_free_in_s(here, PER_PAIR), _free_in_s(at_address, PER_ADDRESS), elsewhere)
        if wait_s > 0:
            raise too_many_attempts(int(wait_s) + 1)
        cursor.execute(
            "insert into login_attempts (kind, username, address) values ('login', %s, %s) returning id",
            (username, address),
        )
        (attempt_id,) = cursor.fetchone()
    made = Attempt()
    yield made
    if made.succeeded:
        with transaction() as cursor:
            cursor.execute("update login_attempts set succeeded = true where id = %s", (attempt_id,))
            cursor.execute("delete from login_attempts where at < now() - make_interval(days => %s)", (KNOWN_DAYS + 1,))


def _free_in_s(left_s: list[float], most: int) -> float:
    """When fewer than `most` failures count: seconds from now, 0 where it is so. `left_s`: for how long each counts
    on, the longest first."""
    return max(left_s[most - 1], 0.001) if len(left_s) >= most else 0.0


def clear_failures(username: str) -> None:
    """Nothing that has failed counts any more for this user: the password is a new one."""
    with transaction() as cursor:
        cursor.execute(
            "delete from login_attempts where kind = 'login' and not succeeded and username = %s", (_kept(username),)
        )


def _kept(username: str) -> str:
    return username.lower()[:THROTTLED_NAME_MAX].encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def count_registration(address: str) -> None:
    """Counts an account that is made without a login. Raises TooManyAttempts where one address makes too many."""
    with transaction() as cursor:
        cursor.execute(
            "select count(*) from login_attempts where kind = 'registration' and address = %s"
            " and at > now() - make_interval(secs => %s)",
            (address, REGISTRATION_WINDOW_S),
        )
        if cursor.fetchone()[0] >= REGISTRATIONS_PER_ADDRESS:
            raise TooManyAttempts(
                "Too many accounts were made from here; try again later.", retry_after_s=REGISTRATION_WINDOW_S
            )
        cursor.execute(
            "insert into login_attempts (kind, username, address) values ('registration', '', %s)", (address,)
        )
