"""Rows of check-ups into the table, each at most once, by sets: COPY of those that are new; INSERT … ON CONFLICT of a
few, and where another transaction is storing the same.

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

from myhealth.common.database import database
from myhealth.intake.validation import Record

COLUMNS = "id, patient_id, machine_id, record_id, checkup_type, checkup_report, disease, taken_by, taken_at, results"
INSERT = f"insert into checkups ({COLUMNS}) values %s on conflict do nothing returning id"
# A row of INSERT: the moment that a record does not name is now.
TEMPLATE = "(%s, %s, %s, %s, %s, %s, %s, %s, coalesce(%s, now()), %s)"
# Below so many rows one INSERT is quicker than looking first which are new.
COPY_FROM_ROWS = 50
PAGE_ROWS = 1000
SAMPLE_ROWS = 20
# What COPY is handed at a time: with less it would wait, again and again, for its turn beside the thread that checks.
COPY_BYTES = 1024 * 1024
# The least and the greatest of the new ids, and each of them only where others took some in between.
NEXT_IDS_SQL = """
select min(id), max(id), case when max(id) - min(id) >= count(*) then array_agg(id) end
from (select nextval((select pg_get_serial_sequence('checkups', 'id')::regclass)) as id
      from generate_series(1, %s)) as given"""
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

RecordKey = tuple[int | None, str | None]


@dataclass(slots=True)
class CheckupRow:
    """A record with its patient and machine resolved to ids, under the id that it will have. `copied`: what
    `copy_text` makes of the record, where that has been made already."""

    id: int
    patient_id: int
    machine_id: int | None
    record: Record
    copied: str = ""

    @property
    def key(self) -> RecordKey:
        return self.machine_id, self.record.record_id

    def values(self) -> tuple[Any, ...]:
        return (self.id, self.patient_id, self.machine_id, *self.record.columns())


@dataclass(slots=True)
class StoredCheckup:
    """What is stored under a (machine, record_id)."""

    id: int
    patient_id: int
    checkup_type: str
    checkup_report: str
    disease: str
    taken_by: str | None
    taken_at: datetime
    results: str


def new_ids(cursor: Any, count: int) -> Sequence[int]:
    """So many ids that no row has had. Those that are not used are left out for good."""
    cursor.execute(NEXT_IDS_SQL, (count,))
    first, last, scattered = cursor.fetchone()
    return scattered if scattered else range(first, last + 1)


def store_rows(cursor: Any, rows: Sequence[CheckupRow]) -> set[int]:
    """Stores each row unless its (machine, record_id) is there already, in the table or earlier among the rows.

    Gives the ids of the stored ones. Waits for another transaction that stores the same records at this moment; all
    store in the order of the keys, so that two never wait for each other.
    """
    rows = sorted(rows, key=_by_key)  # stable: of like keys the first stays first
    if len(rows) < COPY_FROM_ROWS:
        return _insert(cursor, rows)
    stored = None
    if not _known(cursor, rows[:: 1 + len(rows) // SAMPLE_ROWS]):  # then most likely none is
        stored = _copy(cursor, _without(rows, set()))
    if stored is None:
        fresh = _without(rows, _known(cursor, rows))
        stored = _copy(cursor, fresh)
    return _insert(cursor, fresh) if stored is None else stored


def advance_id_sequence(cursor: Any) -> None:
    """Moves the ids that are given out beyond all that rows have: somebody may have chosen ids of their own."""
    cursor.execute(
        "select setval(pg_get_serial_sequence('checkups', 'id'), greatest((select max(id) from checkups),"
        " nextval(pg_get_serial_sequence('checkups', 'id'))))"
    )


def find_stored(cursor: Any, keys: Iterable[RecordKey]) -> dict[RecordKey, StoredCheckup]:
    """What is stored under each of these keys; a key with nothing stored under it is left out."""
    cursor.execute(STORED, _split(keys))
    return {(machine_id, record_id): StoredCheckup(*rest) for machine_id, record_id, *rest in cursor.fetchall()}


def _by_key(row: CheckupRow) -> tuple[int, str]:
    return row.machine_id or 0, row.record.record_id or ""


def _without(rows: Sequence[CheckupRow], known: set[RecordKey]) -> list[CheckupRow]:
    """The rows whose keys are not known, the first of each key."""
    fresh = []
    for row in rows:
        key = row.key
        if key[1] is None or key not in known:
            known.add(key)
            fresh.append(row)
    return fresh


def _known(cursor: Any, rows: Sequence[CheckupRow]) -> set[RecordKey]:
    cursor.execute(KNOWN, _split(row.key for row in rows))
    return set(cursor.fetchall())


def _split(keys: Iterable[RecordKey]) -> dict[str, list[Any]]:
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


def _copy(cursor: Any, rows: Sequence[CheckupRow]) -> set[int] | None:
    """Stores all of them, or none and gives None where one is there already."""
    lines = io.BytesIO("".join(map(_copy_line, rows)).encode())
    try:
        with database.atomic():
            cursor.copy_expert(f"copy checkups ({COLUMNS}) from stdin", lines, COPY_BYTES)
    except psycopg2.errors.UniqueViolation:  # somebody has stored it since we looked, or we looked at a few
        return None
    return {row.id for row in rows}


def _insert(cursor: Any, rows: Sequence[CheckupRow]) -> set[int]:
    if not rows:
        return set()
    values = [row.values() for row in rows]
    stored = execute_values(cursor, INSERT, values, template=TEMPLATE, page_size=PAGE_ROWS, fetch=True)
    return {id_ for (id_,) in stored}


def copy_text(record: Record) -> str:
    """What the record says itself of its row, in COPY's text format: all columns from `record_id` on."""
    moment = (record.taken_at or datetime.now().astimezone()).isoformat()
    record_id, taken_by = record.record_id, record.taken_by
    words = f"{record_id or ''}\t{record.checkup_type}\t{record.checkup_report}\t{record.disease}\t{taken_by or ''}"
    texts = f"{words}\t{moment}\t{record.results}"
    if record_id and taken_by and texts.count("\t") == 6 and not ("\\" in texts or "\n" in texts or "\r" in texts):
        return texts
    cells = (record_id, record.checkup_type, record.checkup_report, record.disease, taken_by, moment, record.results)
    return "\t".join("\\N" if cell is None else cell.translate(COPY_ESCAPES) for cell in cells)


def _copy_line(row: CheckupRow) -> str:
    machine_id = "\\N" if row.machine_id is None else row.machine_id
    return f"{row.id}\t{row.patient_id}\t{machine_id}\t{row.copied or copy_text(row.record)}\n"
