"""What can be done with users. Names are compared without regard to case; every function opens its own transaction."""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import peewee
from peewee import fn

from myhealth.audit.events import record_event
from myhealth.common.database import database, fetch_one, transaction
from myhealth.common.errors import BadInput, Conflict, NotFound
from myhealth.common.notify import notify_sync
from myhealth.common.text import printable
from myhealth.profiles.login_throttle import clear_failures
from myhealth.profiles.models import ROLES, User
from myhealth.profiles.passwords import hash_password, password_matches

USERNAME_MAX = 150
# At every request that is logged in: written out, for putting it together takes longer than PostgreSQL's answer.
LOOKED_UP = (
    "id", "username", "password_hash", "role", "full_name", "active", "tokens_valid_after", "subject", "created_at",
    "updated_at",
)  # fmt: skip
BY_SUBJECT = f"select {', '.join(LOOKED_UP)} from users where subject = %s::uuid"
FULL_NAME_MAX = 300


@dataclass(frozen=True)
class ImportedUser:
    """What became of one line of a CSV file: `error` is empty for a user that was made."""

    line: int
    username: str
    error: str


@dataclass(frozen=True)
class Login:
    """A user who has proved to be himself or herself; `at`: when, by PostgreSQL's clock."""

    user: User
    at: datetime


def username_fault(username: Any) -> str:
    """Why this cannot be a username, or nothing. It has a place in URLs, in HTTP Basic and in tables."""
    if not isinstance(username, str) or not username:
        return "a username is needed"
    if len(username) > USERNAME_MAX:
        return f"the username has {len(username)} characters; at most {USERNAME_MAX} are allowed"
    if username in (".", ".."):
        return "the username is a path, not a name"
    for character in username:
        if character in "/\\:" or unicodedata.category(character)[0] in "CZ":
            return f"the username holds {character!a}; spaces, control characters and / \\ : are not allowed"
    if unicodedata.normalize("NFKC", username) != unicodedata.normalize("NFC", username):
        return "the username holds characters that look like others"
    if len(_alphabets(username)) > 1:
        return f"the username mixes {' and '.join(sorted(_alphabets(username)))} letters, which look alike"
    return ""


def _alphabets(text: str) -> set[str]:
    """Which of the alphabets whose letters look alike it is written in."""
    scripts = {unicodedata.name(character, "").split(" ")[0] for character in text if character.isalpha()}
    return {script.capitalize() for script in scripts & {"LATIN", "CYRILLIC", "GREEK"}}


def create_user(
    username: str,
    *,
    password: str | None = None,
    role: str = "patient",
    full_name: str = "",
    rounds: int = 12,
    action: str = "user.create",
) -> User:
    """A new user; without a password he or she cannot log in until one is set. `action`: how the audit trail has it.

    Raises BadInput (name, password or role), Conflict (code `user_exists`) when the name is taken.
    """
    username = unicodedata.normalize("NFC", username) if isinstance(username, str) else username
    fault = username_fault(username) or _full_name_fault(full_name)
    if fault:
        raise BadInput(fault)
    check_role(role)
    hashed = None if password is None else hash_password(password, rounds)
    with transaction():
        try:
            with database.atomic():
                user = User.create(username=username, password_hash=hashed, role=role, full_name=full_name)
            record_event(action, subject_id=user.id, subject=username, role=role)
        except peewee.IntegrityError as error:
            raise Conflict(f"a user named {username} exists already", code="user_exists") from error
    notify_sync()
    return get_user(user.username)


def get_user(username: str) -> User:
    """The user of that name. Raises NotFound (code `unknown_user`)."""
    with transaction():
        found = _find(username)
    if found is None:
        raise NotFound(f"there is no user named {printable(username)}", code="unknown_user")
    return found


def get_user_by_subject(subject: str) -> User | None:
    row = fetch_one(BY_SUBJECT, (subject,)).fetchone()
    return User(**dict(zip(LOOKED_UP, row, strict=True))) if row else None


def _find(username: Any) -> User | None:
    if not _storable(username):
        return None
    name = unicodedata.normalize("NFC", username)
    found: User | None = User.get_or_none(fn.lower(User.username) == fn.lower(name))
    return found


def list_users(*, role: str | None = None, after: str = "", limit: int | None = None) -> list[User]:
    """Users in order of their names, case aside; those behind the name `after`, at most `limit`."""
    query = User.select().order_by(fn.lower(User.username))
    if role:
        check_role(role)
        query = query.where(User.role == role)
    if after:
        query = query.where(fn.lower(User.username) > fn.lower(after))
    with transaction():
        return list(query.limit(limit))


def set_password(username: str, password: str, *, rounds: int = 12) -> None:
    """Sets a password; the database ends the tokens that were given out before, and what failed with the old one does
    not count any more. Raises BadInput, NotFound."""
    hashed = hash_password(password, rounds)
    with transaction():
        _update(username, "password", password_hash=hashed)
        clear_failures(username)
    notify_sync()


def set_role(username: str, role: str) -> None:
    check_role(role)
    _update(username, f"role {role}", role=role)


def set_full_name(username: str, full_name: str) -> None:
    fault = _full_name_fault(full_name)
    if fault:
        raise BadInput(fault)
    _update(username, "full_name", full_name=full_name)


def set_active(username: str, active: bool) -> None:
    """Lets a user in or keeps him or her out; the database ends the tokens of one who is kept out."""
    _update(username, "enabled" if active else "disabled", active=active)


def revoke_tokens(user_id: int) -> datetime | None:
    """Ends every token that this user was given so far: what logging out means. Gives the moment from which on a token
    must be; None where the user is gone."""
    with transaction() as cursor:
        cursor.execute(
            "update users set tokens_valid_after = clock_timestamp() where id = %s"
            " returning username, tokens_valid_after",
            (user_id,),
        )
        username, moment = cursor.fetchone() or (None, None)
        record_event("logout", subject_id=user_id, subject=username)
    notify_sync()
    return moment


def count_checkups(username: str) -> int:
    """How many check-ups go with this user. Raises NotFound."""
    user = get_user(username)
    with transaction() as cursor:
        cursor.execute("select count(*) from checkups where patient_id = %s", (user.id,))
        return int(cursor.fetchone()[0])


def delete_user(username: str) -> None:
    """Deletes a user, every check-up of his or hers, and every refused record that names him or her as its patient; the
    sync carries it to the report store. Raises NotFound."""
    user = get_user(username)
    with transaction() as cursor:
        user.delete_instance()
        cursor.execute(
            "delete from rejections where exists (select from jsonb_array_elements_text("
            "coalesce(context->'patients', '[]')) as named where lower(named) = lower(%s))",
            (user.username,),
        )
        record_event("user.delete", subject_id=user.id, subject=user.username, rejections=cursor.rowcount)
    notify_sync()


def check_login(username: Any, password: Any, *, rounds: int = 12) -> Login | None:
    """Whose name and password these are, if that user is active; as slow for a name that nobody has.

    A password that is changed while it is checked opens nothing: what was checked is looked at again, and the moment of
    the login comes before any later change.
    """
    if not isinstance(username, str) or not isinstance(password, str):
        return None
    with transaction():
        user = _find(username)
    if not password_matches(password, user.password_hash if user else None, rounds) or user is None:
        return None
    with transaction() as cursor:
        cursor.execute(
            "select clock_timestamp() from users where id = %s and subject = %s and active and password_hash = %s"
            " for share",
            (user.id, str(user.subject), user.password_hash),
        )
        row = cursor.fetchone()
    return None if row is None else Login(user, row[0])


def import_users(lines: Iterable[str], *, rounds: int = 12, skip_existing: bool = False) -> Iterator[ImportedUser]:
    """Makes a user of each line of a CSV file with a header: `username`, and if wanted `full_name`, `role`,
    `password`. A bad line is told and stops nothing; so is a name that is taken, which is left as it is, unless
    `skip_existing` says to pass over it.

    Raises BadInput when the header lacks `username` or names a column that is not known.
    """
    reader = csv.DictReader(lines, strict=True)
    known = ("username", "full_name", "role", "password")
    unknown = [name for name in reader.fieldnames or () if name not in known]
    if "username" not in (reader.fieldnames or ()) or unknown:
        what = f"does not know {unknown[0]!r}" if unknown else "lacks the column username"
        raise BadInput(f"line 1: the header {what}; the columns are {', '.join(known)}")
    rows = iter(reader)
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            raise BadInput(f"line {reader.line_num}: {error}") from error
        made = _import_user(row, reader.line_num, rounds, skip_existing)
        if made is not None:
            yield made


def _import_user(row: dict[str, Any], line: int, rounds: int, skip_existing: bool) -> ImportedUser | None:
    username = (row.get("username") or "").strip()
    try:
        if None in row:
            raise BadInput("it has more fields than the header")
        role, full_name = (row.get("role") or "").strip() or "patient", (row.get("full_name") or "").strip()
        create_user(username, password=row.get("password") or None, role=role, full_name=full_name, rounds=rounds)
    except Conflict as error:
        return None if skip_existing else ImportedUser(line, username, error.message)
    except BadInput as error:
        return ImportedUser(line, username, error.message)
    return ImportedUser(line, username, "")


def check_role(role: Any) -> None:
    """Raises BadInput unless it is one of ROLES."""
    if role not in ROLES:
        raise BadInput(f"{role!r} is not a role; the roles are {', '.join(ROLES)}")


def _update(username: str, what: str, **values: Any) -> None:
    user = get_user(username)
    with transaction():
        User.update(**values).where(User.id == user.id).execute()
        record_event("user.change", subject_id=user.id, subject=user.username, changed=what)
    notify_sync()


def _full_name_fault(full_name: Any) -> str:
    if not isinstance(full_name, str):
        return "full_name must be text"
    if len(full_name) > FULL_NAME_MAX:
        return f"full_name has {len(full_name)} characters; at most {FULL_NAME_MAX} are allowed"
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in full_name):
        return "full_name holds a control character"
    return ""


def _storable(text: Any) -> bool:
    """Whether PostgreSQL can hold it at all; what it cannot hold is certainly not in it."""
    return isinstance(text, str) and "\0" not in text and not any("\ud800" <= c <= "\udfff" for c in text)
