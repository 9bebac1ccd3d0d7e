"""Invitations: with a code on paper, a patient sets the first password, or a new one for a lost one.

A code works once and for 14 days. Only its keyed digest is stored. A new code ends the one before, as do a new
password, a new role and the end of the account (migration 21). Only a linked patient gets one: a user who may read the
records of others gets a password by hand.
"""

import hashlib
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct
from msgspec.structs import replace
from peewee import EXCLUDED, fn

from myhealth.audit.events import acting_as, current_actor, record_event
from myhealth.common.database import notify_sync, transaction
from myhealth.common.errors import Conflict
from myhealth.common.text import fold_name
from myhealth.profiles.models import INVITATION_DAYS, Invitation, User
from myhealth.profiles.passwords import generate_code, hash_in_gate
from myhealth.profiles.services import LOGIN_MOMENT, Login, get_user, is_storable, update_user


class IssuedInvitation(Struct, frozen=True):
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
    changed = {Invitation.digest: EXCLUDED.digest, Invitation.created_at: EXCLUDED.created_at}
    with transaction():
        query = User.select().where(User.id == get_user(username).id)
        user: User = query.for_update("FOR NO KEY UPDATE").get()  # type: ignore[arg-type]
        _check_may_be_invited(user)
        insert = Invitation.insert(user=user.id, digest=_keyed_digest(code))
        insert = insert.on_conflict(conflict_target=[Invitation.user], update=changed)
        [stored] = insert.returning(Invitation.created_at).execute()
        record_event("user.invite", subject_id=user.id, subject=user.username)
    return IssuedInvitation(user.username, user.full_name, code, stored.created_at + timedelta(days=INVITATION_DAYS))


def _check_may_be_invited(user: User) -> None:
    if user.role != "patient":
        message = f"{user.username} is {user.role}: only patients are invited; set a password"
        raise Conflict(message, code="not_a_patient")
    if not user.active:
        raise Conflict(f"{user.username} is disabled", code="account_disabled")
    if user.linked_at is None:
        raise Conflict(f"{user.username} is not linked to a person; link the account first", code="account_not_linked")


def list_without_password() -> list[str]:
    """Return the names of the active, linked patients who have no password."""
    query = User.select(User.username).where(User.role == "patient", User.active, User.password_hash.is_null())
    with transaction():
        return [user.username for user in query.where(User.linked_at.is_null(False)).order_by(User.folded_name)]


def accept(username: str, code: str, password: str, *, rounds: int = 12) -> Login | None:
    """Set the acceptable password of the patient with this code and return the login, or None.

    Call it within `attempt`. Every wrong code takes as long as the right one: the password is hashed first.
    """
    hashed = hash_in_gate(password, rounds)
    if not is_storable(username):
        return None
    named = User.select().where(User.folded_name == fold_name(username.strip()))
    since = fn.now() - timedelta(days=INVITATION_DAYS)
    is_valid = (Invitation.digest == _keyed_digest(code)) & (Invitation.created_at > since)
    with transaction():
        # A wait for the user's lock ends before the second statement looks, so that of two requests one finds the code.
        user = next(iter(named.for_update("FOR NO KEY UPDATE")), None)  # type: ignore[arg-type]
        if user is None or not (user.active and user.linked_at and user.role == "patient"):
            return None
        if not Invitation.select().where(Invitation.user == user.id, is_valid).exists():
            return None
        with acting_as(replace(current_actor(), id=user.id, name=user.username)):
            update_user(user.username, "password", password_hash=hashed)
        login = Login(get_user(user.username), User.select(LOGIN_MOMENT).where(User.id == user.id).scalar())
    notify_sync()
    return login


def _keyed_digest(code: str) -> Any:
    """Return the call that makes a code's digest, however it was typed: groups and capitals do not matter.

    Its argument is a digest too: the database, which has the key, never sees a code.
    """
    letters = "".join(filter(str.isalnum, code)).upper()
    return fn.keyed_digest("invitation", hashlib.sha256(letters.encode("utf-8", "surrogatepass")).hexdigest())
