"""Rows of check-ups into the table, each at most once, by sets: COPY where all are new, INSERT … ON CONFLICT otherwise.

Everything here works within the caller's transaction.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg2.errors
from psycopg2.extras import execute_values

from myhealth.checkups.records import Record
from myhealth.common.database import database

COLUMNS = "id, patient_id, machine_id, record_id, checkup_type, checkup_report, disease, taken_by, taken_at, results"
INSERT = f"insert into checkups ({COLUMNS}) values %s on conflict do nothing returning id"
# A row of INSERT: the moment that a record does not name is now.
TEMPLATE = "(%s, %s, %s, %s, %s, %s, %s, %s, coalesce(%s, now()), %s)"
# Below so many rows one INSERT is quicker than looking first which are new.
COPY_FROM_ROWS = 50
PAGE_ROWS = 1000
# Two halves, for records of a machine and of none each have an index of their own.
STORED = """
select wanted.machine_id, wanted.record_id, checkups.id, patient_id, checkup_type, checkup_report, disease, taken_by,
       taken_at, results::text
from unnest(%(machines)s::bigint[], %(records)s::text[]) as wanted (machine_id, record_id)
join checkups on checkups.record_id = wanted.record_id and checkups.machine_id = wanted.machine_id
union all
select null, wanted.record_id, checkups.id, patient_id, checkup_type, checkup_report, disease, taken_by,
       taken_at, results::text
from unnest(%(machineless)s::text[]) as wanted (record_id)
join checkups on checkups.record_id = wanted.record_id and checkups.machine_id is null"""
KNOWN = """
select wanted.machine_id, wanted.record_id
from unnest(%(machines)s::bigint[], %(records)s::text[]) as wanted (machine_id, record_id)
join checkups on checkups.record_id = wanted.record_id and checkups.machine_id = wanted.machine_id
union all
select null, wanted.record_id from unnest(%(machineless)s::text[]) as wanted (record_id)
join checkups on checkups.record_id = wanted.record_id and checkups.machine_id is null"""
COPY_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})

Key = tuple[int | None, str | None]


@dataclass(slots=True)
class Row:
    """A record with its patient and machine resolved to ids, under the id that it will have."""

    id: int
    patient_id: int
    machine_id: int | None
    record: Record

    @property
    def key(self) -> Key:
        return self.machine_id, self.record.record_id

    def values(self) -> tuple[Any, ...]:
        record = self.record
        return (
            self.id,
            self.patient_id,
            self.machine_id,
            record.record_id,
            record.checkup_type,
            record.checkup_report,
            record.disease,
            record.taken_by,
            record.taken_at,
            record.results,
        )


@dataclass(slots=True)
class Stored:
    """What is stored under a (machine, record_id)."""

    id: int
    patient_id: int
    checkup_type: str
    checkup_report: str
    disease: str
    taken_by: str | None
    taken_at: datetime
    results: str


def new_ids(cursor: Any, count: int) -> list[int]:
    """So many ids that no row has had. Those that are not used are left out for good."""
    cursor.execute("select nextval(pg_get_serial_sequence('checkups', 'id')) from generate_series(1, %s)", (count,))
    return [id_ for (id_,) in cursor.fetchall()]


def store_rows(cursor: Any, rows: Sequence[Row]) -> set[int]:
    """Stores each row unless its (machine, record_id) is there already, in the table or earlier among the rows.

    Gives the ids of the stored ones. Waits for another transaction that stores the same records at this moment; all
    store in the order of the keys, so that two never wait for each other.
    """
    rows = sorted(rows, key=_by_key)  # stable: of like keys the first stays first
    if len(rows) < COPY_FROM_ROWS:
        return _insert(cursor, rows)
    known = _known(cursor, rows)
    fresh = []
    for row in rows:
        if row.record.record_id is None or row.key not in known:
            known.add(row.key)
            fresh.append(row)
    try:
        with database.atomic():
            copy = f"copy checkups ({COLUMNS}) from stdin"
            cursor.copy_expert(copy, io.StringIO("".join(map(_copy_line, fresh))))
        return {row.id for row in fresh}
    except psycopg2.errors.UniqueViolation:  # another transaction has stored some of them since we looked
        return _insert(cursor, fresh)


def pass_over_used_ids(cursor: Any) -> None:
    """Moves the ids that are given out beyond all that rows have: somebody may have chosen ids of their own."""
    cursor.execute(
        "select setval(pg_get_serial_sequence('checkups', 'id'), greatest((select max(id) from checkups),"
        " nextval(pg_get_serial_sequence('checkups', 'id'))))"
    )


def find_stored(cursor: Any, keys: Iterable[Key]) -> dict[Key, Stored]:
    """What is stored under each of these keys; a key with nothing stored under it is left out."""
    cursor.execute(STORED, _split(keys))
    return {(machine_id, record_id): Stored(*rest) for machine_id, record_id, *rest in cursor.fetchall()}


def _by_key(row: Row) -> tuple[int, str]:
    return row.machine_id or 0, row.record.record_id or ""


def _known(cursor: Any, rows: Sequence[Row]) -> set[Key]:
    cursor.execute(KNOWN, _split(row.key for row in rows))
    return set(cursor.fetchall())


def _split(keys: Iterable[Key]) -> dict[str, list[Any]]:
    split: dict[str, list[Any]] = {"machines": [], "records": [], "machineless": []}
    for machine_id, record_id in keys:
        if record_id is None:
            continue
        if machine_id is None:
            split["machineless"].append(record_id)
        else:
            split["machines"].append(machine_id)
            split["records"].append(record_id)
    return split


def _insert(cursor: Any, rows: Sequence[Row]) -> set[int]:
    if not rows:
        return set()
    values = [row.values() for row in rows]
    stored = execute_values(cursor, INSERT, values, template=TEMPLATE, page_size=PAGE_ROWS, fetch=True)
    return {id_ for (id_,) in stored}


def _copy_line(row: Row) -> str:
    """One row in COPY's text format."""
    record = row.record
    moment = (record.taken_at or datetime.now().astimezone()).isoformat()
    machine_id = "\\N" if row.machine_id is None else row.machine_id
    record_id, taken_by = record.record_id, record.taken_by
    head = f"{row.id}\t{row.patient_id}\t{machine_id}\t"
    words = f"{record_id or ''}\t{record.checkup_type}\t{record.checkup_report}\t{record.disease}\t{taken_by or ''}"
    texts = f"{words}\t{moment}\t{record.results}"
    if record_id and taken_by and texts.count("\t") == 6 and not ("\\" in texts or "\n" in texts or "\r" in texts):
        return f"{head}{texts}\n"
    cells = (record_id, record.checkup_type, record.checkup_report, record.disease, taken_by, moment, record.results)
    return head + "\t".join("\\N" if cell is None else cell.translate(COPY_ESCAPES) for cell in cells) + "\n"
