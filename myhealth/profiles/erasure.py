"""Keyed digests of erased names, identifiers and records: none is given out or taken in again unnoticed.

The longer SQL is raw: sets of digests, which the database computes (migration 10), of tables of packages that build on
this one. All functions work within the caller's transaction.
"""

from collections.abc import Collection
from typing import Any

from peewee import fn

from myhealth.common.database import fetch_all
from myhealth.common.text import UNSTORABLE, fold_name
from myhealth.profiles.models import ErasedDigest, PatientIdentifier

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
    """Return an identifier as a name that no user can have, whose digest is kept."""
    return f"{value}\n{system.partition(':')[0] if system.startswith('fhir-reference:') else system}"


def forget_erased_name(username: str) -> None:
    """Give an erased name out again. Records of the erased person stay refused."""
    digest = fn.keyed_digest(fold_name(username))
    ErasedDigest.delete().where(ErasedDigest.kind == "name", ErasedDigest.digest == digest).execute()


def find_erased_names(cursor: Any, names: Collection[str]) -> set[str]:
    """Return those of the names, without blanks around them, that were erased and not given out again.
    One that cannot be stored was not."""
    folds = {name: fold_name(name.strip()) for name in names if not UNSTORABLE.search(name)}
    if not folds:
        return set()
    erased = {folded for (folded,) in fetch_all(cursor, ERASED_NAMES, (sorted(set(folds.values())),))}
    return {name for name, folded in folds.items() if folded in erased}
