"""Keyed digests of erased names and records: a name is not given out again unnoticed, a record is not taken in again.

SQL is raw: the database computes the digests (migration 10), and checkups and superseded belong to packages that build
on this one. All functions work within the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from myhealth.common.text import fold_name

REMEMBER_NAME = "insert into erased_digests (kind, digest) values ('name', keyed_digest(%s)) on conflict do nothing"
REMEMBER_RECORDS = """
insert into erased_digests (kind, digest)
select 'record', keyed_digest(serial, erased.record_id) from (
    select machine_id, record_id from checkups where patient_id = %(id)s and record_id is not null
    union select machine_id, record_id from superseded where patient_id = %(id)s) as erased
left join machines on machines.id = machine_id on conflict do nothing"""
FORGET_NAME = "delete from erased_digests where kind = 'name' and digest = keyed_digest(%s)"
ERASED_NAMES = """
select folded from unnest(%s::text[]) as wanted (folded)
where exists (select from erased_digests where kind = 'name')
    and exists (select from erased_digests where kind = 'name' and digest = keyed_digest(folded))"""


def remember_erased(cursor: Any, user_id: int, username: str) -> None:
    """Store the digests of a user's name and machine records, before the user is deleted."""
    cursor.execute(REMEMBER_NAME, (fold_name(username),))
    cursor.execute(REMEMBER_RECORDS, {"id": user_id})


def forget_erased_name(cursor: Any, username: str) -> None:
    """Give an erased name out again. Records of the erased person stay refused."""
    cursor.execute(FORGET_NAME, (fold_name(username),))


def find_erased_names(cursor: Any, names: Collection[str]) -> set[str]:
    """Return those of the names that were erased and not given out again."""
    folds = {name: fold_name(name) for name in names}
    if not folds:
        return set()
    cursor.execute(ERASED_NAMES, (sorted(set(folds.values())),))
    erased = {folded for (folded,) in cursor.fetchall()}
    return {name for name, folded in folds.items() if folded in erased}
