"""Erase a person: everything that is held on one user goes, or keeps only a pseudonym. See rules.py for each table.

Raw SQL: the tables belong to several packages.
"""

import hashlib
import json
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from psycopg2.extras import execute_values

from myhealth.audit.events import record_event
from myhealth.common.database import fetch_all, notify_sync, transaction
from myhealth.common.text import fold_name
from myhealth.intake.rejections import get_rejection
from myhealth.privacy.mentions import FoundRejections, Mentions, find_rejections, find_spellings
from myhealth.profiles.held_names import BY_NAME, REMEMBER_NAMES, find_held_names, find_taken, remember_erased
from myhealth.profiles.identifiers import list_identifiers
from myhealth.profiles.models import User
from myhealth.profiles.services import get_user

# Foreign patient numbers of the person's rejected records are refused from now on; a shorter one, or one without a
# digit, may be another's too.
NUMBER = re.compile(r"(?=.*\d).{6,}")
PSEUDONYM = "erased user {}"  # as audit_upkeep() of migration 17 writes it
ATTEMPTS = f"delete from login_attempts where user_id = %(id)s or (user_id is null and {BY_NAME.format('username')})"
PSEUDONYMISE = "select audit_upkeep(null, 0, %(id)s, %(names)s, %(numbers)s, %(held)s::tstzrange[])"
ANSWERS = "select user_id, key, answer from idempotency_keys where answer is not null for update"
ERASED_ITEM = {"errors": [{"index": None, "field": None, "message": "erased", "code": "erased"}], "rejection_id": None}
BLANK = """
update rejections set payload = '', context = '{}', errors = '[]', source = 'erased', digest = %(digest)s,
    resolved_at = coalesce(resolved_at, now()), resolution = 'erased' where id = %(id)s"""


@dataclass(frozen=True)
class Erasure:
    """An erasure that was done. `removed`: rows by table. `review`: rejections that may name the person too, for
    somebody to look at."""

    user_id: int
    subject: str
    removed: dict[str, int]
    review: list[int]


def erase_user(username: str) -> Erasure:
    """Erase a user: account, check-ups, rejected records, answers, logins; the audit keeps a pseudonym.

    The sync removes the reports. Digests of the names and of the machine records are kept, unless the account was never
    linked to a person: the name is not given out again, and the records are refused. Raises NotFound.
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
    """Remove what a rejection says, resolved or not; the fact that it was there stays. Raises NotFound."""
    get_rejection(rejection_id)
    with transaction() as cursor:
        cursor.execute(BLANK, {"id": rejection_id, "digest": hashlib.sha256(secrets.token_bytes(32)).digest()})
        record_event("rejection.discard", rejection=rejection_id, erased=True)


def _erase_answers(cursor: Any, mentions: Mentions, checkups: Collection[int], rejections: Collection[int]) -> int:
    """Remove what kept answers to others say of the person's records; return the number of answers."""
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
