"""Operations on users. Usernames are compared without regard to case. Each function opens its own transaction."""

import unicodedata
from datetime import date, datetime, timedelta
from functools import partial
from typing import Any

import peewee
from msgspec import Struct
from peewee import fn

from myhealth.audit.events import record_event
from myhealth.common.database import Statement, database, fetch_all, fetch_one, notify_sync, transaction
from myhealth.common.errors import BadInput, Conflict, NotFound
from myhealth.common.text import UNSTORABLE, fold_name, printable
from myhealth.profiles import ROLES, SEXES
from myhealth.profiles.held_names import find_erased_names, find_held_names, forget_erased_name
from myhealth.profiles.login_throttle import clear_failures
from myhealth.profiles.models import FULL_NAME_MAX, User
from myhealth.profiles.names import birth_date_fault, username_error
from myhealth.profiles.passwords import hash_password, password_matches

# Raw SQL: one or both run at every request, and peewee takes longer to build them than PostgreSQL to answer them.
USER_COLUMNS = (
    "id", "username", "password_hash", "role", "full_name", "active", "tokens_valid_after", "subject", "created_at",
    "updated_at", "folded_name", "linked_at", "needs_review", "birth_date", "sex", "revision",
)  # fmt: skip
# The subject as text: to make an object of it would take long, for each request.
SELECT_USER = f"select {', '.join(USER_COLUMNS).replace('subject', 'subject::text')} from users"
BY_SUBJECT, BY_NAME = Statement(f"{SELECT_USER} where subject = %s::uuid"), f"{SELECT_USER} where folded_name = %s"
# Raw SQL: these tables belong to packages that build on this one. A rejection lists the names of its patient.
CHECKUPS_OF_USER = "select count(*) from checkups where patient_id = %s"
NAMES_IN_REJECTIONS = "select distinct jsonb_array_elements_text(coalesce(context->'patients', '[]')) from rejections"
ADD_NAME_TO_REJECTIONS = """
update rejections set context = jsonb_set(context, '{patients}', context->'patients' || to_jsonb(%s::text))
where context->'patients' ?| %s::text[] and received_at <@ any(%s::tstzrange[])"""

# When a login is: now, but not before the revocation of earlier tokens as the report store has it, which keeps moments
# to the millisecond and rounds this one up. A login may follow within that millisecond.
LOGIN_MOMENT = fn.greatest(
    fn.clock_timestamp(), fn.date_trunc("milliseconds", User.tokens_valid_after + timedelta(microseconds=999))
)


class Login(Struct, frozen=True):
    """A user whose password was right; `at`: when, by PostgreSQL's clock (LOGIN_MOMENT)."""

    user: User
    at: datetime


def create_user(
    username: str,
    *,
    password: str | None = None,
    role: str = "patient",
    full_name: str = "",
    birth_date: str | None = None,
    sex: str | None = None,
    rounds: int = 12,
    self_registered: bool = False,
    reuse_erased_name: bool = False,
) -> User:
    """Create a user and return it; without a password, the user cannot log in.

    `self_registered`: the account is not linked to a person, so records for it are rejected until `link_user`.
    `reuse_erased_name`: give out a name whose user was deleted. Raises BadInput (name, password or role), Conflict if
    the name is taken (code `user_exists`, or `account_not_linked`) or was erased (`name_erased`).
    """
    username = unicodedata.normalize("NFC", username) if isinstance(username, str) else username
    if problem := username_error(username):
        raise BadInput(problem)
    _check_full_name(full_name)
    check_role(role)
    person = checked_person(birth_date=birth_date, sex=sex)
    hashed = None if password is None else hash_password(password, rounds)
    columns = {"username": username, "folded_name": fold_name(username), "password_hash": hashed, "role": role}
    linked_at = None if self_registered else fn.now()
    with transaction() as cursor:
        if reuse_erased_name:
            forget_erased_name(username)
        _check_not_erased(cursor, username)
        insert = User.insert(**columns, full_name=full_name, linked_at=linked_at, **person).on_conflict_ignore()
        user = next(iter(insert.returning(User.id).execute()), None)
        if user is None:
            raise _name_taken(username)
        record_event("register" if self_registered else "user.create", subject_id=user.id, subject=username, role=role)
    notify_sync()
    return get_user(username)


def link_user(username: str) -> User:
    """Link an account to the person of that name, so that it receives records. Raises NotFound."""
    user = get_user(username)
    with transaction():
        User.update(linked_at=fn.coalesce(User.linked_at, fn.now()), needs_review=False).where(
            User.id == user.id
        ).execute()
        record_event("user.link", subject_id=user.id, subject=user.username)
    notify_sync()
    return user


def get_user(username: str) -> User:
    """Return the user of that name. Raises NotFound (code `unknown_user`)."""
    found = _find(username)
    if found is None:
        raise NotFound(f"there is no user named {printable(username)}", code="unknown_user")
    return found


def _find(username: Any) -> User | None:
    return _fetch(BY_NAME, fold_name(username.strip())) if is_storable(username) else None


def _fetch(sql: str | Statement, value: str) -> User | None:
    row = fetch_one(sql, (value,)).fetchone()
    if row is None:
        return None
    user = User(__no_default__=True)
    user.__data__.update(zip(USER_COLUMNS, row, strict=True))  # setting each attribute would take longer
    return user


get_user_by_subject = partial(_fetch, BY_SUBJECT)  # the user with this UUID, or None


def list_users(
    *, role: str | None = None, after: str = "", limit: int | None = None, to_review: bool = False
) -> list[User]:
    """Return users by name, without regard to case: those after the name `after`, at most `limit`.

    `to_review`: only accounts that are not linked to a person, or registered themselves before linking was required.
    """
    query = User.select().order_by(User.folded_name)
    if role:
        check_role(role)
        query = query.where(User.role == role)
    if after:
        query = query.where(User.folded_name > fold_name(after))
    if to_review:
        query = query.where(User.linked_at.is_null() | User.needs_review)
    with transaction():
        return list(query.limit(limit))


def set_password(username: str, password: str, *, rounds: int = 12) -> None:
    """Set a password. The database revokes the user's tokens; failed attempts with the old password are forgotten.

    Raises BadInput, NotFound.
    """
    hashed = hash_password(password, rounds)
    with transaction():
        update_user(username, "password", password_hash=hashed)
        clear_failures(username)
    notify_sync()


def unblock(username: str | None, address: str | None) -> int:
    """Forget failed logins, as `clear_failures`, and return their number. Raises NotFound."""
    user = get_user(username) if username is not None else None
    with transaction():
        found = clear_failures(username, address)
        named = {"subject_id": user.id, "subject": user.username} if user else {}
        record_event("user.change", changed="unblocked", network=address, **named)
    return found


def rename_user(username: str, new_name: str) -> str:
    """Change a username, and return it as it is stored. The user keeps check-ups, tokens and rejected records.

    New records that name the old username are rejected. Raises BadInput, NotFound, Conflict (code `user_exists`).
    """
    new_name = unicodedata.normalize("NFC", new_name)
    if problem := username_error(new_name):
        raise BadInput(problem)
    user = get_user(username)
    if user.username == new_name:
        return new_name
    with transaction() as cursor:
        held = find_held_names(cursor, user)[user.folded_name]
        if fold_name(new_name) != user.folded_name:
            _check_not_erased(cursor, new_name)
            if _find(new_name) is not None:
                raise _name_taken(new_name)
        try:
            with database.atomic():
                change = f"username {new_name}"
                update_user(user.username, change, username=new_name, folded_name=fold_name(new_name))
        except peewee.IntegrityError as taken:
            raise _name_taken(new_name) from taken
        if user.linked_at is not None:  # rejections that wait for a name do not belong to an unlinked account
            cursor.execute(ADD_NAME_TO_REJECTIONS, (new_name, names_in_rejections(cursor, user), held))
    return new_name


def names_in_rejections(cursor: Any, user: User) -> list[str]:
    """Return the spellings of the user's name in the rejected records."""
    return [name for (name,) in fetch_all(cursor, NAMES_IN_REJECTIONS) if fold_name(name) == user.folded_name]


def _check_not_erased(cursor: Any, username: str) -> None:
    if find_erased_names(cursor, [username]):
        raise Conflict(
            f"the user {username} was erased; only `users create --reuse-erased-name` gives the name out again",
            code="name_erased",
        )


def _name_taken(username: str) -> Conflict:
    with transaction():
        holder = _find(username)
    if holder is None or holder.linked_at is not None:
        return Conflict(f"a user named {username} exists already", code="user_exists")
    return Conflict(
        f"an account named {username} exists, but is not linked to a person; if it is this person's, link it with"
        f" `myhealth users link {username}`, otherwise delete it with `myhealth users delete {username}`",
        code="account_not_linked",
    )


def set_role(username: str, role: str) -> None:
    """Set the role; revoke the tokens of a user who loses another role than patient. Raises BadInput, NotFound."""
    check_role(role)
    loses = get_user(username).role not in ("patient", role)
    update_user(username, f"role {role}", role=role, **({"tokens_valid_after": fn.clock_timestamp()} if loses else {}))


def set_full_name(username: str, full_name: str) -> None:
    """Set the full name. Raises BadInput, NotFound."""
    _check_full_name(full_name)
    update_user(username, "full_name", full_name=full_name)


def set_person(username: str, **values: str | None) -> None:
    """Set `birth_date` (YYYY-MM-DD), `sex` or both; None: not known. Raises BadInput, NotFound."""
    checked = checked_person(**values)
    if checked:
        update_user(username, " and ".join(checked), **checked)


def checked_person(**values: str | None) -> dict[str, Any]:
    """Return a birth date and a sex as they are stored. Raises BadInput."""
    checked: dict[str, Any] = dict(values)
    if (born := values.get("birth_date")) is not None:
        if fault := birth_date_fault(born) or ("" if len(born) == 10 else "needs a month and a day"):
            raise BadInput(f"birth_date {printable(str(born), 40)} {fault}")
        checked["birth_date"] = date.fromisoformat(born)
    if values.get("sex") is not None and values["sex"] not in SEXES:
        raise BadInput(f"sex must be one of {', '.join(SEXES)}")
    return checked


def set_active(username: str, active: bool) -> None:
    """Enable or disable a user. The database revokes the tokens of a user who is disabled. Raises NotFound."""
    update_user(username, "enabled" if active else "disabled", active=active)


def revoke_tokens(user_id: int) -> datetime | None:
    """Revoke all tokens of this user: log out everywhere. Return the moment, or None if the user was deleted."""
    with transaction():
        update = User.update(tokens_valid_after=fn.clock_timestamp()).where(User.id == user_id)
        user = next(iter(update.returning(User.username, User.tokens_valid_after).execute()), None)
        record_event("logout", subject_id=user_id, subject=user and user.username)
    notify_sync()
    return user and user.tokens_valid_after


def count_checkups(username: str) -> int:
    """Return the number of this user's check-ups. Raises NotFound."""
    user = get_user(username)
    return int(fetch_one(CHECKUPS_OF_USER, (user.id,)).fetchone()[0])


def check_login(username: Any, password: Any, *, rounds: int = 12) -> Login | None:
    """Return the login of an active user, or None; an unknown username takes as long as a wrong password.

    A password that is changed during the check does not log in: the hash is compared again, in the statement that
    returns the moment of the login, so any later change revokes this login's token.
    """
    if not isinstance(username, str) or not isinstance(password, str):
        return None
    with transaction():
        user = _find(username)
    if not password_matches(password, user.password_hash if user else None, rounds) or user is None:
        return None
    unchanged = (User.id == user.id, User.subject == user.subject, User.password_hash == user.password_hash)
    with transaction():
        at = User.select(LOGIN_MOMENT).where(*unchanged, User.active).for_update("FOR SHARE").scalar()  # type: ignore[arg-type]
    return None if at is None else Login(user, at)


def check_role(role: Any) -> None:
    """Raise BadInput unless it is one of ROLES."""
    if role not in ROLES:
        raise BadInput(f"{role!r} is not a role; the roles are {', '.join(ROLES)}")


def update_user(username: str, change: str, /, **values: Any) -> None:
    """Change columns of a user; `change`: the audit event's text. Raises NotFound."""
    user = get_user(username)
    with transaction():
        User.update(**values).where(User.id == user.id).execute()
        record_event("user.change", subject_id=user.id, subject=user.username, changed=change)
    notify_sync()


def _check_full_name(full_name: Any) -> None:
    if not isinstance(full_name, str):
        raise BadInput("full_name must be text")
    if len(full_name) > FULL_NAME_MAX:
        raise BadInput(f"full_name has {len(full_name)} characters; at most {FULL_NAME_MAX} are allowed")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in full_name):
        raise BadInput("full_name contains a control character")


def is_storable(text: Any) -> bool:
    """Return whether PostgreSQL can store it; a text that it cannot store is the name of no user."""
    return isinstance(text, str) and not UNSTORABLE.search(text)
