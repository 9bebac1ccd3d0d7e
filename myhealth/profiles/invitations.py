"""Invitations: with a code on paper, a patient sets the first password, or a new one for a lost one.

A code works once and for 14 days. Only its keyed digest is stored, and a new code ends the one before, as do a new
password, a new role and the end of the account (migration 21). Nobody but a linked patient gets one: who may read the
records of others gets a password by hand.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from peewee import fn

from myhealth.audit.events import acting_as, current_actor, record_event
from myhealth.common.database import fetch_all, transaction
from myhealth.common.errors import Conflict
from myhealth.common.notify import notify_sync
from myhealth.common.text import fold_name
from myhealth.profiles.models import INVITATION_DAYS, User
from myhealth.profiles.passwords import generate_code, hash_in_gate
from myhealth.profiles.services import Login, get_user, is_storable, update_user

# The digest of a digest: the database, which has the key, never sees a code.
STORE = """
insert into invitations (user_id, digest) values (%s, keyed_digest('invitation', %s))
on conflict (user_id) do update set digest = excluded.digest, created_at = excluded.created_at returning created_at"""
# A wait for the user's lock ends before the second statement looks, so that of two requests one finds the code.
LOCK = "select id, username from users where folded_name = %s for no key update"
MATCHES = f"""
select id from users join invitations on user_id = id where id = %s and active and linked_at is not null
    and role = 'patient' and digest = keyed_digest('invitation', %s)
    and invitations.created_at > now() - interval '{INVITATION_DAYS} days'"""


@dataclass(frozen=True)
class IssuedInvitation:
    """A code that was made for a user, to be shown once; it works until `expires_at`."""

    username: str
    full_name: str
    code: str
    expires_at: datetime


def invite(username: str) -> IssuedInvitation:
    """Make a code for a patient; an earlier one ends.

    Raises NotFound, Conflict (`account_not_linked`, `account_disabled`, `not_a_patient`).
    """
    code = generate_code()
    with transaction() as cursor:
        query = User.select().where(User.id == get_user(username).id)
        user: User = query.for_update("FOR NO KEY UPDATE").get()  # type: ignore[arg-type]
        _check_may_be_invited(user)
        [(created_at,)] = fetch_all(cursor, STORE, (user.id, _hashed(code)))
        record_event("user.invite", subject_id=user.id, subject=user.username)
    return IssuedInvitation(user.username, user.full_name, code, created_at + timedelta(days=INVITATION_DAYS))


def _check_may_be_invited(user: User) -> None:
    if user.role != "patient":
        message = f"{user.username} is {user.role}: only patients are invited; set a password"
        raise Conflict(message, code="not_a_patient")
    if not user.active:
        raise Conflict(f"{user.username} is disabled", code="account_disabled")
    if user.linked_at is None:
        raise Conflict(f"{user.username} is not linked to a person; link the account first", code="account_not_linked")


def list_without_password() -> Iterator[str]:
    """Return the names of the active, linked patients who have no password."""
    query = User.select(User.username).where(User.role == "patient", User.active, User.password_hash.is_null())
    with transaction():
        found = list(query.where(User.linked_at.is_null(False)).order_by(User.folded_name))
    return (user.username for user in found)


def accept(username: str, code: str, password: str, *, rounds: int = 12) -> Login | None:
    """Set the acceptable password of the patient with this code and return the login, or None.

    The caller is within `attempt`. Every wrong code takes as long as the right one: the password is hashed first.
    """
    hashed = hash_in_gate(password, rounds)
    if not is_storable(username):
        return None
    with transaction() as cursor:
        user_id, name = next(iter(fetch_all(cursor, LOCK, (fold_name(username.strip()),))), (None, ""))
        if not fetch_all(cursor, MATCHES, (user_id, _hashed(code))):
            return None
        with acting_as(replace(current_actor(), id=user_id, name=name)):
            update_user(name, "password", password_hash=hashed)
        login = Login(get_user(name), User.select(fn.clock_timestamp()).where(User.id == user_id).scalar())
    notify_sync()
    return login


def _hashed(code: str) -> str:
    """Return the digest of a code, however it was typed: groups and capitals do not matter."""
    letters = "".join(filter(str.isalnum, code)).upper()
    return hashlib.sha256(letters.encode("utf-8", "surrogatepass")).hexdigest()
