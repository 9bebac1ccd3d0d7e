"""Erase a person: everything that is held on one user goes, or keeps only a pseudonym. cli/README.md has the
rule of each table.

Texts that name the person are found by the usernames in them, as whole words in any spelling that folds to the same.

Raw SQL: the tables belong to several packages.
"""

import hashlib
import json
import re
import secrets
from collections.abc import Collection, Iterator
from datetime import datetime
from typing import Any

from msgspec import Struct
from psycopg2.extras import DateTimeTZRange, execute_values

from myhealth.audit.events import record_event
from myhealth.common.database import database, fetch_all, notify_sync, transaction
from myhealth.common.text import fold_name
from myhealth.intake.models import Rejection
from myhealth.intake.parsed_record import named_in
from myhealth.intake.rejections import get_rejection, payload_text
from myhealth.intake.retry import reread
from myhealth.profiles.held_names import (
    BY_NAME,
    REMEMBER_NAMES,
    HeldNames,
    erased_form,
    find_held_names,
    find_taken,
    remember_erased,
)
from myhealth.profiles.identifiers import list_identifiers
from myhealth.profiles.models import Key, User
from myhealth.profiles.services import get_user

# No person is called so: a patient whose name has one of these is called by the username.
NO_PERSONS_NAME = re.compile(r"[\d._@]")
JSON_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
# Raw SQL: conditions on text and JSON.
# A row can name the person only if it has the name in ASCII, or a character beyond ASCII, an escape or base64.
CANDIDATES = """
select id, payload, context, source, errors, received_at from (
    select *, concat_ws(' ', payload, source, context, errors) as content from rejections) as all_of_them
where content ilike any(%s) or octet_length(content) <> char_length(content) or content like '%%\\\\u%%'
    or context ? 'base64' order by id"""

HELD = """
select exists (select from patient_identifiers
               join unnest(%s::text[], %s::text[]) as wanted (system, value) using (value, system))"""


class Mentions:
    """Recognises `names` (usernames of one person) as whole words of a text. `held`: when each name was the person's;
    by default always. `identifiers`: the person's."""

    def __init__(
        self, names: Collection[str], held: HeldNames | None = None, identifiers: Collection[Key] = ()
    ) -> None:
        self.identifiers = set(identifiers)
        self.folds = {fold_name(name.strip()) for name in names}
        self.held = {name: [DateTimeTZRange()] for name in self.folds} if held is None else held
        words = "|".join(map(re.escape, sorted(self.folds, key=len, reverse=True)))
        # asha is no word of asha.roy, asha-roy or asha@example.org, but is one of "asha." and of asha^^^
        self._words = re.compile(rf"(?<![\w-])(?<!\w[.@])(?:{words})(?![\w-]|[.@]\w)")

    def names(self, name: str, at: datetime) -> bool:
        """Return whether `name`, without blanks around it, was a name of the person at that moment."""
        return any(at in span for span in self.held.get(fold_name(name.strip()), ()))

    def is_in(self, text: str) -> bool:
        """Return whether one of the names is a word of the text."""
        unescaped = JSON_ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)
        return self._words.search(fold_name(unescaped)) is not None


class FoundRejections(Struct, frozen=True):
    """Ids of rejections. `certain`: the record is the person's. `possible`: it mentions the person, who need not be its
    patient; a person must look. `identifiers`: the names and numbers that the certain ones give their patient; `forms`:
    the numbers of authorities among these, in the form of `erased_form`."""

    certain: list[int]
    possible: list[int]
    identifiers: set[str]
    forms: set[str] = set()


def find_rejections(cursor: Any, mentions: Mentions, full_name: str = "") -> FoundRejections:
    """Find the rejections of a person, within the caller's transaction, in bounded memory.

    A record is the person's if it names the person as its patient, or was sent to the person's address, and no other
    linked user may be the patient too. A name elsewhere in it makes it only possible; so does `full_name`, which
    several people may have.
    """
    linked = fetch_all(cursor, "select folded_name from users where linked_at is not null")
    others = {folded for (folded,) in linked} - mentions.folds
    parts = fold_name(full_name).split()
    found = FoundRejections([], [], set())
    for rejection in _candidates([*mentions.held, *parts[:1], *(value for _, value in mentions.identifiers)]):
        context = rejection.context
        text = f"{payload_text(rejection)} {context.get('correction', '')}"
        patients = {name for name in (context.get("patient"), *context.get("patients", ()), *named_in(text)) if name}
        words = set(re.findall(r"\w+", fold_name(text))) if len(parts) > 1 else set()
        mine = {name for name in patients if mentions.names(name, rejection.received_at)}
        known = any(fold_name(name.strip()) in others for name in patients - mine)
        is_word = mentions.is_in(f"{text} {rejection.source} {rejection.errors}")
        keys = {(system, value) for system, value in context.get("identifiers", ())}
        known = known or _are_held(cursor, keys - mentions.identifiers)
        if not known and (mine or keys & mentions.identifiers or (is_word and _calls_patient(rejection, mentions))):
            found.certain.append(rejection.id)
            found.identifiers.update(patients)
            found.forms.update(erased_form(*key) for key in keys)
        elif is_word or (parts and words.issuperset(parts)):
            found.possible.append(rejection.id)
    return found


def _are_held(cursor: Any, keys: Collection[Key]) -> bool:
    """Return whether a patient has one of these identifiers."""
    if not keys:
        return False
    cursor.execute(HELD, ([system for system, _ in keys], [value for _, value in keys]))
    return bool(cursor.fetchone()[0])


def _calls_patient(rejection: Rejection, mentions: Mentions) -> bool:
    """Return whether the record gives a number for its patient, and one of the usernames as the patient's full name."""
    name = reread(rejection).full_name
    return mentions.names(name, rejection.received_at) and NO_PERSONS_NAME.search(name) is not None


def _candidates(words: list[str]) -> Iterator[Rejection]:
    patterns = [f"%{word}%" for word in words if word.isascii()]  # a % or _ in it finds too much, never too little
    with database.connection().cursor(name="rejections", withhold=True) as cursor:
        cursor.itersize = 200
        cursor.execute(CANDIDATES, (patterns,))
        for id_, payload, context, source, errors, at in cursor:
            yield Rejection(id=id_, payload=payload, context=context, source=source, errors=errors, received_at=at)


def find_spellings(cursor: Any, mentions: Mentions) -> dict[str, list[Any]]:
    """Return `names`, the person's names as the audit trail and the login attempts spell them, and `held`, the span of
    each. A name with several spans occurs once for each."""
    spelt = fetch_all(
        cursor,
        "select distinct name from (select subject as name from audit_events union all select actor from audit_events"
        " union all select username from login_attempts) as spelt"
        " where lower(trim(name)) = any(%s) or octet_length(name) <> char_length(name)",
        (sorted(mentions.held),),
    )
    names = sorted({*mentions.held, *(name for (name,) in spelt if name)})
    pairs = [(name, span) for name in names for span in mentions.held.get(fold_name(name.strip()), ())]
    return {"names": [name for name, _ in pairs], "held": [span for _, span in pairs]}


# Records with a foreign patient number that the person's rejections have are rejected from now on; a shorter number, or
# one without a digit, may be another person's too.
NUMBER = re.compile(r"(?=.*\d).{6,}")
PSEUDONYM = "erased user {}"  # as audit_upkeep() of migration 17 writes it
ATTEMPTS = f"delete from login_attempts where user_id = %(id)s or (user_id is null and {BY_NAME.format('username')})"
PSEUDONYMISE = "select audit_upkeep(null, 0, %(id)s, %(names)s, %(numbers)s, %(held)s::tstzrange[])"
ANSWERS = "select user_id, key, answer from idempotency_keys where starts_with(answer, '{') for update"
ERASED_ITEM = {"errors": [{"index": None, "field": None, "message": "erased", "code": "erased"}], "rejection_id": None}
BLANK = """
update rejections set payload = '', context = '{}', errors = '[]', source = 'erased', digest = %(digest)s,
    resolved_at = coalesce(resolved_at, now()), resolution = 'erased' where id = %(id)s"""


class Erasure(Struct, frozen=True):
    """An erasure that was done. `removed`: rows by table. `review`: rejections that may name the person too, to be
    looked at by a person."""

    user_id: int
    subject: str
    removed: dict[str, int]
    review: list[int]


def erase_user(username: str) -> Erasure:
    """Erase a user: account, check-ups, rejected records, answers, logins; the audit keeps a pseudonym.

    The sync removes the reports. Digests of the names and of the machine records are kept, unless the account was never
    linked to a person: the name is not given out again, and the records are rejected. Raises NotFound.
    """
    user = get_user(username)
    with transaction() as cursor:
        # Locked: records that are stored at this moment are seen, and those after it find no user.
        locked = User.select(User.linked_at).where(User.id == user.id).for_update().first()
        linked = locked is not None and locked.linked_at is not None
        held = find_held_names(cursor, user)
        taken = find_taken(cursor, user, held)
        mentions = Mentions(held.keys() - taken, held, list_identifiers(user))
        own = fetch_all(cursor, "select id from checkups where patient_id = %s", (user.id,))
        checkups = {id_ for (id_,) in own}
        removed = {"checkups": len(checkups), "users": 1}
        for table, column in (("superseded", "patient_id"), ("idempotency_keys", "user_id")):
            [(removed[table],)] = fetch_all(cursor, f"select count(*) from {table} where {column} = %s", (user.id,))
        if linked:
            remember_erased(cursor, user.id, held)
        spelt = {"id": user.id, **find_spellings(cursor, mentions)}
        cursor.execute(ATTEMPTS, spelt)
        removed["login_attempts"] = cursor.rowcount
        user.delete_instance()
        found = find_rejections(cursor, mentions, user.full_name)
        numbers = [each for each in found.identifiers if NUMBER.fullmatch(each)]
        cursor.execute(REMEMBER_NAMES, {"folds": [*map(fold_name, {*numbers, *found.forms})], "id": user.id})
        cursor.execute("delete from rejections where id = any(%s)", (found.certain,))
        removed["rejections"] = cursor.rowcount
        removed["idempotency_keys"] += _erase_answers(cursor, mentions, checkups, set(found.certain))
        free = Mentions(mentions.folds, {name: spans for name, spans in held.items() if name not in taken})
        cursor.execute(PSEUDONYMISE, {"id": user.id, "numbers": numbers, **find_spellings(cursor, free)})
        removed["audit_events (pseudonym)"] = cursor.fetchone()[0]
        record_event(
            "user.delete", subject_id=user.id, subject=PSEUDONYM.format(user.id), rejections=removed["rejections"]
        )
    notify_sync()
    return Erasure(user.id, str(user.subject), removed, found.possible)


def find_rejections_of(username: str) -> FoundRejections:
    """Find the rejections that name a person, who need not have an account."""
    with transaction() as cursor:
        return find_rejections(cursor, Mentions([username]))


def erase_rejection(rejection_id: int) -> None:
    """Remove the content of a rejection, resolved or not; the fact that it was there stays. Raises NotFound."""
    get_rejection(rejection_id)
    with transaction() as cursor:
        cursor.execute(BLANK, {"id": rejection_id, "digest": hashlib.sha256(secrets.token_bytes(32)).digest()})
        record_event("rejection.discard", rejection=rejection_id, erased=True)


def _erase_answers(cursor: Any, mentions: Mentions, checkups: Collection[int], rejections: Collection[int]) -> int:
    """Remove the person's records from the stored answers to other users; return the number of answers changed."""
    changed = []
    for user_id, key, text in fetch_all(cursor, ANSWERS):
        answer = json.loads(text)
        items = [item for item in answer.get("items", ()) if isinstance(item, dict)]
        known = [item for item in items if item.get("id") in checkups or item.get("rejection_id") in rejections]
        told = [item for item in items if item in known or mentions.is_in(json.dumps(item, ensure_ascii=False))]
        for item in told:
            item.pop("warnings", None)
            rejected = item.get("status") == "rejected"
            item.update(ERASED_ITEM if rejected else {}, **({"record_id": None} if "record_id" in item else {}))
        had_file = answer.pop("refused_file", None) is not None  # answers of earlier releases
        if told or had_file:
            changed.append((user_id, key, json.dumps(answer)))
    if changed:
        execute_values(
            cursor,
            "update idempotency_keys set answer = new.answer from (values %s) as new (user_id, key, answer)"
            " where idempotency_keys.user_id = new.user_id and idempotency_keys.key = new.key",
            changed,
        )
    return len(changed)
