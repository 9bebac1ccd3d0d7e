"""The names of a user: when each belonged to no other user, and keyed digests of erased names, which stay blocked.

A row that names a user without an id is this user's only if the user had the name then: others may take the name of a
renamed account. The longer SQL is raw: it works on spans of time, and on sets of digests, which the database computes
(migration 10), over tables of packages that build on this one. All functions work within the caller's transaction.
"""

from collections import defaultdict
from collections.abc import Collection
from typing import Any

from peewee import fn
from psycopg2.extras import DateTimeTZRange

from myhealth.common.database import fetch_all
from myhealth.common.text import UNSTORABLE, fold_name
from myhealth.profiles.models import ErasedDigest, PatientIdentifier, User

HeldNames = dict[str, list[DateTimeTZRange]]
# The condition for a row without an id. Parameters: what `find_spellings` returns.
BY_NAME = (
    "exists (select from unnest(%(names)s::text[], %(held)s::tstzrange[]) as mine (name, span)"
    " where name = {} and at <@ span)"
)
# Raw SQL: spans of time and JSON. IS_RENAME is the condition of an index (migration 25).
IS_RENAME = "action = 'user.change' and details->>'changed' like 'username %%'"
RENAMES = f"""
select event.subject_id, event.subject, event.at from audit_events event join users on users.id = event.subject_id
where (linked_at is not null or users.id = %s) and {IS_RENAME} order by event.id"""
HOLDERS = """
select id, folded_name, created_at from users
where id = %(me)s or id = any(%(ids)s) or (folded_name = any(%(names)s) and linked_at is not null)"""
OLDEST_EVENT = """
select at from audit_events where id > 1 and not exists (select from audit_events where id = 1) order by id limit 1"""


def find_held_names(cursor: Any, user: User) -> HeldNames:
    """Return the spans in which the user had each name, by folded name.

    A span also covers the time before and after, if no other linked user ever had the name. It begins no earlier than
    the first audit event that is still kept, and is empty for an account that was never linked to a person.
    """
    renames = [(id_, fold_name(name), at) for id_, name, at in fetch_all(cursor, RENAMES, (user.id,))]
    names = {user.folded_name, *(name for id_, name, _ in renames if id_ == user.id)}
    holders = fetch_all(cursor, HOLDERS, {"me": user.id, "ids": [id_ for id_, *_ in renames], "names": [*names]})
    since = {id_: created_at for id_, _, created_at in holders}
    spans = []
    for id_, name, at in renames:
        spans.append((name, id_, since[id_], at))
        since[id_] = at
    spans += [(name, id_, since[id_], None) for id_, name, _ in holders]
    first = next((at for (at,) in fetch_all(cursor, OLDEST_EVENT)), None)
    found = defaultdict(list)
    for name, id_, start, end in spans:
        if id_ == user.id:
            others = [begun for other, holder, begun, _ in spans if other == name and holder != user.id]
            begin = max(filter(None, (start if any(each < start for each in others) else None, first)), default=None)
            until = end if any(each >= start for each in others) else None
            found[name].append(DateTimeTZRange(begin, until, empty=user.linked_at is None))
    return dict(found)


def find_taken(cursor: Any, user: User, names: HeldNames) -> set[str]:
    """Return those of the names that another linked user has now."""
    sql = "select folded_name from users where folded_name = any(%s) and id <> %s and linked_at is not null"
    return {name for (name,) in fetch_all(cursor, sql, ([*names], user.id))}


REMEMBER_NAMES = """
insert into erased_digests (kind, digest)
select 'name', keyed_digest(folded) from unnest(%(folds)s::text[]) as erased (folded)
where not exists (select from users where folded_name = folded and id <> %(id)s and linked_at is not null)
on conflict do nothing"""
REMEMBER_RECORDS = """
insert into erased_digests (kind, digest)
select 'record', keyed_digest(serial, erased.record_id) from (
    select machine_id, record_id from checkups where patient_id = %(id)s and record_id is not null
    union select machine_id, record_id from superseded where patient_id = %(id)s) as erased
left join machines on machines.id = machine_id on conflict do nothing"""
LOCK_NAMED = """
select from users where folded_name = any(%s)
    or id in (select patient_id from patient_identifiers where value = any(%s)) order by id for key share"""
ERASED_NAMES = """
select folded from unnest(%s::text[]) as wanted (folded)
where exists (select from erased_digests where kind = 'name')
    and exists (select from erased_digests where kind = 'name' and digest = keyed_digest(folded))"""


def remember_erased(cursor: Any, user_id: int, folds: Collection[str]) -> None:
    """Store the digests of a user's folded names, former ones too, identifiers and machine records, before the user is
    deleted."""
    held = PatientIdentifier.select().where(PatientIdentifier.patient == user_id)
    identifiers = {fold_name(erased_form(each.system, each.value)) for each in held}
    cursor.execute(REMEMBER_NAMES, {"folds": sorted({*folds, *identifiers}), "id": user_id})
    cursor.execute(REMEMBER_RECORDS, {"id": user_id})


def erased_form(system: str, value: str) -> str:
    """Return an identifier in the form in which its digest is stored: a name that no user can have."""
    return f"{value}\n{system.partition(':')[0] if system.startswith('fhir-reference:') else system}"


def forget_erased_name(username: str) -> None:
    """Allow an erased name to be used again. Records of the erased person are still rejected."""
    digest = fn.keyed_digest(fold_name(username))
    ErasedDigest.delete().where(ErasedDigest.kind == "name", ErasedDigest.digest == digest).execute()


def find_erased_names(cursor: Any, names: Collection[str], *, lock: bool = False) -> set[str]:
    """Return those of the names (compared without blanks around them) that were erased and not allowed again. A name
    that PostgreSQL cannot store was never erased.

    `lock`: an erasure of a user who has one of the names, or of the numbers that `erased_form` wrote, waits for this
    transaction.
    """
    folds = {name: fold_name(name.strip()) for name in names if not UNSTORABLE.search(name)}
    if not folds:
        return set()
    if lock:
        numbers = [name.partition("\n")[0] for name in folds if "\n" in name]
        cursor.execute(LOCK_NAMED, (sorted(set(folds.values())), numbers))
    erased = {folded for (folded,) in fetch_all(cursor, ERASED_NAMES, (sorted(set(folds.values())),))}
    return {name for name, folded in folds.items() if folded in erased}
