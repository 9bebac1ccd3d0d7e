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
from myhealth.common.errors import TooManyAttempts

WINDOW_S = 15 * 60
PER_PAIR, PER_ADDRESS, PER_USER, ALWAYS = 10, 100, 50, 3
REGISTRATIONS_PER_ADDRESS, REGISTRATION_WINDOW_S = 20, 3600
KNOWN_DAYS = 30
USERNAME_MAX = 200

COUNT = """
with recent as (
    select username, address, at from login_attempts
    where kind = 'login' and not succeeded and at > now() - make_interval(secs => %(window)s)
        and (username = %(username)s or address = %(address)s)
), here as (
    select at from recent where username = %(username)s and address = %(address)s and at > coalesce((
        select max(at) from login_attempts where kind = 'login' and succeeded and username = %(username)s
            and address = %(address)s), '-infinity')
)
select (select count(*) from here), (select count(*) from recent where address = %(address)s),
       (select count(*) from recent where username = %(username)s),
       exists (select from login_attempts where kind = 'login' and succeeded and username = %(username)s
            and address = %(address)s and at > now() - make_interval(days => %(known)s)),
       coalesce(extract(epoch from (select min(at) from recent) + make_interval(secs => %(window)s) - now()), 0)::float
"""


@dataclass
class Attempt:
    """One attempt, counted as failed until it is told to have succeeded."""

    succeeded: bool = False


@contextmanager
def attempt(username: str, address: str) -> Iterator[Attempt]:
    """One attempt to log in. Raises TooManyAttempts, with the time until the next, instead of letting it be made."""
    username = username.lower()[:USERNAME_MAX].encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
    values = {"username": username, "address": address, "window": WINDOW_S, "known": KNOWN_DAYS}
    with transaction() as cursor:
        cursor.execute(COUNT, values)
        here, at_address, of_user, known, free_in_s = cursor.fetchone()
        over_user = of_user >= PER_USER and not known and here >= ALWAYS
        if here >= PER_PAIR or at_address >= PER_ADDRESS or over_user:
            raise TooManyAttempts(
                "There were too many attempts to log in; wait a while and try again.",
                retry_after_s=max(1, int(free_in_s) + 1),
            )
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
