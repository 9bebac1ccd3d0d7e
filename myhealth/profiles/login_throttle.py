"""Throttle password guesses, across all processes, without locking a user out for good.

Failures count for 15 minutes, by the user's id (the folded name if there is no such user), and by the network: an IPv4
address or an IPv6 /64. While a password is checked, its attempt counts as failed, so that parallel attempts count too.
A throttled attempt does not count, so the limit ends by itself.

    the same user from the same network      10 failures, since the last success
    any users from one network              100 failures
    one user from networks not known        50 failures. Any such network still has 3 attempts, so that a user under
                                            attack can log in from a new place, until there are 100 failures.

A network from which the user has logged in during the last 30 days is known: only the first limit holds there.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from msgspec import Struct
from peewee import fn

from myhealth.common.addresses import network_of
from myhealth.common.database import transaction
from myhealth.common.errors import Busy, TooManyAttempts, too_many_attempts
from myhealth.common.text import fold_name
from myhealth.profiles.models import KNOWN_DAYS, LoginAttempt
from myhealth.profiles.passwords import HASHING

WINDOW_S = 15 * 60
PER_PAIR, PER_NETWORK, PER_USER, ALWAYS, PER_USER_AT_MOST = 10, 100, 50, 3, 100
REGISTRATIONS_PER_NETWORK, REGISTRATION_WINDOW_S = 20, 3600

# An attempt that has not ended after so many seconds has failed: its process was killed.
CHECK_S = 30
# Seconds after which another attempt may try again while one is being checked.
UNDER_WAY_S = 1
THROTTLED_NAME_MAX = 200

# The lock counts attempts at the same account one after the other. The second column is null for an unknown name.
FIND_USER = """
select pg_advisory_xact_lock(hashtextextended('login ' || %(folded)s, 0)),
    (select id from users where folded_name = %(folded)s)"""
# Raw SQL: four limits in one round trip, over rows that are read once. As peewee expressions it is longer.
OF_USER, OF_NAME = "user_id = %(user_id)s", "user_id is null and username = %(folded)s"
COUNT = """
with failed as (
    select address, at, {mine} as mine, case when finished or at < now() - make_interval(secs => %(check)s)
        then extract(epoch from at - now()) + %(window)s else %(under_way)s end as left_s
    from login_attempts
    where kind = 'login' and not succeeded and at > now() - make_interval(secs => %(window)s)
        and ({mine} or address = %(network)s)
), known as (
    select address, max(at) as at from login_attempts
    where kind = 'login' and succeeded and {mine} and at > now() - make_interval(days => %(known)s) group by address
)
select exists (select from known where address = %(network)s),
       array(select left_s::float from failed where mine and address = %(network)s
            and at > coalesce((select at from known where address = %(network)s), '-infinity') order by 1 desc),
       array(select left_s::float from failed where address = %(network)s order by 1 desc),
       array(select left_s::float from failed where mine and address not in (select address from known) order by 1 desc)
"""
# The user may just have been deleted.
ADD = """
insert into login_attempts (kind, user_id, username, address, finished)
values ('login', (select id from users where id = %(user_id)s for key share), %(stored)s, %(network)s, false)
returning id"""


class Attempt(Struct):
    """One attempt to log in; it counts as failed unless `succeeded` is set."""

    succeeded: bool = False


@contextmanager
def attempt(username: str, address: str) -> Iterator[Attempt]:
    """Count one attempt to log in; the block checks the password and sets `succeeded`.

    Before the block runs, it raises TooManyAttempts, with the seconds until the next attempt, or Busy if too many
    passwords are checked right now, in this process or of this user.
    """
    with HASHING.enter():
        begun = _begin(username, network_of(address))
        made = Attempt()
        yield made
        _end_of_block(begun, made.succeeded)


def _begin(username: str, network: str) -> dict[str, Any]:
    """Insert an attempt that is under way; return its `id`, `user_id` and `network`. Raises TooManyAttempts, Busy."""
    with transaction() as cursor:
        values = _find_user(cursor, username) | {"network": network, "known": KNOWN_DAYS, "window": WINDOW_S}
        values |= {"check": CHECK_S, "under_way": UNDER_WAY_S}
        cursor.execute(COUNT.format(mine=f"({values['mine']})"), values)
        wait_s = _wait_s(*cursor.fetchone())
        if wait_s > UNDER_WAY_S:
            raise too_many_attempts(int(wait_s) + 1, network)
        if wait_s > 0:
            raise Busy()
        cursor.execute(ADD, values)
        return values | {"id": cursor.fetchone()[0]}


def _end_of_block(begun: dict[str, Any], succeeded: bool) -> None:
    """Note how an attempt ended. Of the successes of one user in one network, the last one is kept."""
    with transaction():
        LoginAttempt.update(finished=True, succeeded=succeeded).where(LoginAttempt.id == begun["id"]).execute()
        if succeeded:
            earlier = (LoginAttempt.user == begun["user_id"]) & (LoginAttempt.address == begun["network"])
            earlier &= LoginAttempt.succeeded & (LoginAttempt.id < begun["id"])
            LoginAttempt.delete().where(earlier).execute()


def _find_user(cursor: Any, username: str) -> dict[str, Any]:
    """Return the values by which COUNT and ADD name the user: the id, or the folded name if it is unknown."""
    folded = fold_name(username.strip())[:THROTTLED_NAME_MAX]
    folded = folded.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
    cursor.execute(FIND_USER, {"folded": folded})
    user_id = cursor.fetchone()[1]
    mine, stored = (OF_NAME, folded) if user_id is None else (OF_USER, "")
    return {"user_id": user_id, "folded": folded, "stored": stored, "mine": mine}


def _wait_s(known: bool, here: list[float], in_network: list[float], elsewhere: list[float]) -> float:
    """Return the seconds until the user may try again in this network; 0 if that is now."""
    pair_s = _until(here, PER_PAIR)
    if known:
        return pair_s
    of_user_s = max(min(_until(elsewhere, PER_USER), _until(here, ALWAYS)), _until(elsewhere, PER_USER_AT_MOST))
    return max(pair_s, _until(in_network, PER_NETWORK), of_user_s)


def _until(left_s: list[float], limit: int) -> float:
    """Return the seconds until fewer than `limit` failures count; 0 if that is so now.

    `left_s`: for each failure the seconds that it still counts, the longest first.
    """
    return max(left_s[limit - 1], 0.001) if len(left_s) >= limit else 0.0


def clear_failures(username: str | None = None, address: str | None = None) -> int:
    """Forget the failed attempts of this user, in this network, or both; return their number. The next attempt need not
    wait."""
    with transaction() as cursor:
        failed = ~LoginAttempt.succeeded
        if username is not None:
            found = _find_user(cursor, username)
            of_name = LoginAttempt.user.is_null() & (LoginAttempt.username == found["folded"])
            mine = of_name if found["user_id"] is None else LoginAttempt.user == found["user_id"]
            failed &= (LoginAttempt.kind == "login") & mine
        if address is not None:
            failed &= LoginAttempt.address == network_of(address)
        return int(LoginAttempt.delete().where(failed).execute())


def count_registration(address: str) -> None:
    """Count an account that is made without a login. Raises TooManyAttempts if the network has made too many."""
    network, since = network_of(address), fn.now() - timedelta(seconds=REGISTRATION_WINDOW_S)
    with transaction():
        made = LoginAttempt.select().where(
            LoginAttempt.kind == "registration", LoginAttempt.address == network, LoginAttempt.at > since
        )
        if made.count() >= REGISTRATIONS_PER_NETWORK:
            error = TooManyAttempts(
                "Too many accounts were made from here; try again later.", retry_after_s=REGISTRATION_WINDOW_S
            )
            error.network = network
            raise error
        LoginAttempt.create(kind="registration", username="", address=network)
