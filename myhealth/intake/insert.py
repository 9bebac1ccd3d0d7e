"""Insert check-ups, each at most once; find the check-ups stored under a record_id.

`insert_small_batch` stores up to some 50 plain records in one statement, so that a small upload waits for one answer of
PostgreSQL: patient and machine are known, the patient's account is linked, and the record is neither stored nor deleted
nor of an erased person. `Batch` handles the others, explains their results, and stores many with `store_rows`.
SQL here is raw because it works on sets. All functions but the first work within the caller's transaction.
"""

import io
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg2.errors
from psycopg2.extras import execute_values

from myhealth.audit.events import INSERT_EVENT
from myhealth.checkups.models import CHANGEABLE, RECORD_COLUMNS, RECORD_NAMES, select_list
from myhealth.clinical.coding_systems import OUR_REPORT
from myhealth.common.database import Statement, database, translate_errors
from myhealth.common.text import fold_name
from myhealth.intake.record import Record, encode_json
from myhealth.intake.results import Pending, RecordKey
from myhealth.intake.validation import fit_to_person

COLUMNS = ", ".join(("id", "patient_id", "machine_id", *(column.name for column in RECORD_COLUMNS)))
INSERT = f"insert into checkups ({COLUMNS}) values %s on conflict do nothing returning id"
PLACEHOLDERS = ", ".join("coalesce(%s, now())" if column.defaults_to_now else "%s" for column in RECORD_COLUMNS)
TEMPLATE = f"(%s, %s, %s, {PLACEHOLDERS})"
# With fewer rows, the statement STORE is quicker than COPY.
COPY_FROM_ROWS = 50
PAGE_ROWS = 1000
SAMPLE_ROWS = 20
# Smaller COPY buffers lose time: each one needs the interpreter lock again, beside the thread that validates.
COPY_BYTES = 1024 * 1024
# The first and the last of the new ids; all of them only if another session took some in between.
NEXT_IDS_SQL = """
select min(id), max(id), case when max(id) - min(id) >= count(*) then array_agg(id) end
from (select nextval((select pg_get_serial_sequence('checkups', 'id')::regclass)) as id
      from generate_series(1, %s)) as given"""
# Two halves: records with a machine and records without one each have an index of their own. `limit 1`: each key is
# looked up by its index; a join would read the whole table where PostgreSQL believes that this is cheaper.
FIND_BY_KEY = """
select wanted.machine_id, wanted.record_id{columns}
from unnest(%(machines)s::bigint[], %(records)s::text[]) as wanted (machine_id, record_id)
cross join lateral (
    select * from checkups where record_id = wanted.record_id and machine_id = wanted.machine_id limit 1) as checkups
union all
select null, wanted.record_id{columns} from unnest(%(machineless)s::text[]) as wanted (record_id)
cross join lateral (
    select * from checkups where record_id = wanted.record_id and machine_id is null limit 1) as checkups"""
STORED_NAMES = ("id", "patient_id", "created_at", *CHANGEABLE)
FIND_STORED = FIND_BY_KEY.format(columns=f", {select_list(STORED_NAMES)}")
FIND_KNOWN = FIND_BY_KEY.format(columns="")
# With or without a machine: each machine's part of the index is asked.
FIND_BY_NUMBER = """
select id, patient_id, machine_id, record_id from checkups where record_id = any(%(records)s) and machine_id is null
union all
select c.id, patient_id, machine_id, record_id from machines join checkups c on machine_id = machines.id
    and record_id = any(%(records)s)
order by id"""
COPY_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
COPY_NULL = "\\N"
# The last columns are null for nearly every record, so that their text is made once.
PLAIN_COLUMNS = 1 + max(position for position, column in enumerate(RECORD_COLUMNS) if not column.optional)
(MOMENT,) = (position for position, column in enumerate(RECORD_COLUMNS) if column.defaults_to_now)
NO_FURTHER = (None,) * (len(RECORD_COLUMNS) - PLAIN_COLUMNS)
COPIED_NO_FURTHER = f"\t{COPY_NULL}" * len(NO_FURTHER)

NAMES = ", ".join(RECORD_NAMES)
# A column of JSON is sent as text within the JSON of the records, so that its numbers keep their digits.
TYPES = ", ".join(f"{column.name} {'text' if column.is_json else column.sql_type}" for column in RECORD_COLUMNS)
VALUES = ", ".join(
    f"coalesce({column.name}, now())"
    if column.defaults_to_now
    else f"{column.name}::jsonb"
    if column.is_json
    else column.name
    for column in RECORD_COLUMNS
)
# Each connection prepares it once, because PostgreSQL takes longer to plan it than to execute it.
# The ids follow the order of the records; rows are inserted in the order of their keys, as `store_rows` does, so that
# two uploads of the same records never wait for each other. A statement sees only what was committed when it began:
# `superseded_refuse` looks again for a deletion, because the insert may have waited for one.
# Look-ups are subqueries, not joins: a plan made for any number of records would read whole tables to join them.
# PostgreSQL names the sequence of an identity column after it; to look the name up costs a tenth of the statement.
STORE = Statement(f"""
with sent as (
    select * from rows from (json_to_recordset(%s::json) as (folded_name text, person bigint, serial text, {TYPES}))
    with ordinality as wanted (folded_name, person, serial, {NAMES}, position)),
found as materialized (
    select sent.*,
           (select id from users where users.folded_name = sent.folded_name and linked_at is not null
            and (person is null or person = users.id)) as patient_id,
           (select id from machines where machines.serial = sent.serial) as machine_id from sent),
plain as materialized (
    select nextval('checkups_id_seq') as id, found.* from found
    where patient_id is not null and (machine_id is not null or serial is null)
    and (select true from superseded where deleted and superseded.record_id = found.record_id
         and coalesce(superseded.machine_id, 0) = coalesce(found.machine_id, 0) limit 1) is null
    and (not exists (select from erased_digests where kind = 'record') or (
        select true from erased_digests where kind = 'record' and digest = keyed_digest(serial, record_id)) is null)),
stored as (
    insert into checkups (id, patient_id, machine_id, {NAMES})
    select id, patient_id, machine_id, {VALUES} from plain
    order by coalesce(machine_id, 0), coalesce(record_id, '') collate "C", position
    on conflict do nothing returning id, machine_id, record_id),
touched as (
    update machines set last_upload_at = now() from stored where machines.id = stored.machine_id
    and (last_upload_at is null or last_upload_at < now() - interval '1 minute')),
logged as ({INSERT_EVENT} where (select count(*) from stored) = %s::bigint)
select plain.position, stored.id, superseded_refuse(stored.machine_id, stored.record_id)
from stored join plain on plain.id = stored.id""")
SENT_NAMES = ("folded_name", "person", "serial", *RECORD_NAMES)
# On whom the ranges of the catalogue depend.
FIND_PEOPLE = """
select folded_name, id, sex, birth_date::text from users where folded_name = any(%s) and linked_at is not null"""
NO_EVENT = (None, None, "upload", None, None, None, "done", "{}")
NEVER = -1
RANGED = '"range_source"'  # in the results of a record with a range of the catalogue

# The columns of STORED_NAMES by name; `results` is JSON text.
StoredRow = dict[str, Any]
StoredRows = dict[RecordKey, StoredRow]


def new_ids(cursor: Any, count: int) -> Sequence[int]:
    """Return `count` ids that no row has had. Unused ones leave gaps."""
    cursor.execute(NEXT_IDS_SQL, (count,))
    first, last, scattered = cursor.fetchone()
    return scattered if scattered else range(first, last + 1)


def store_rows(cursor: Any, rows: Sequence[Pending]) -> tuple[set[int], StoredRows]:
    """Insert each row whose (machine, record_id) is neither in the table nor earlier among the rows.

    Return the ids of the inserted rows, and check-ups that were found under the keys of others. Waits for another
    transaction that stores the same records. All transactions insert in the order of the keys, so two of them never
    wait for each other.
    """
    # stable: of equal keys the first remains first
    rows = sorted(rows, key=lambda row: (row.machine_id or 0, row.record.record_id or ""))
    if len(rows) < COPY_FROM_ROWS:
        return _insert(cursor, rows), {}
    if not find_known(cursor, rows[:: 1 + len(rows) // SAMPLE_ROWS]):  # then probably no row is known
        stored = _copy(cursor, _without(rows, set()))
        if stored is not None:
            return stored, {}
    found = find_stored(cursor, (row.key for row in rows))
    return _insert(cursor, _without(rows, {*found})), found


def advance_id_sequence(cursor: Any) -> None:
    """Move the id sequence beyond all ids in use: another program may have inserted ids of its own choice."""
    cursor.execute(
        "select setval(pg_get_serial_sequence('checkups', 'id'), greatest((select max(id) from checkups),"
        " nextval(pg_get_serial_sequence('checkups', 'id'))))"
    )


def find_stored(cursor: Any, keys: Iterable[RecordKey]) -> StoredRows:
    """Return the stored check-up of each key that has one."""
    wanted = _split(keys)
    if not wanted["records"] and not wanted["machineless"]:
        return {}
    cursor.execute(FIND_STORED, wanted)
    return {
        (machine_id, record_id): dict(zip(STORED_NAMES, values, strict=True))
        for machine_id, record_id, *values in cursor.fetchall()
    }


def find_by_number(cursor: Any, record_ids: list[str]) -> list[tuple[int, int, int | None, str]]:
    """Return (id, patient's id, machine's id, record_id) of the check-ups of these numbers, of whatever machine."""
    cursor.execute(FIND_BY_NUMBER, {"records": record_ids})
    return list(cursor.fetchall())


def _without(rows: Sequence[Pending], known: set[RecordKey]) -> list[Pending]:
    """Return the rows whose keys are not known, only the first row of each key."""
    fresh = []
    for row in rows:
        key = row.machine_id, row.record.record_id
        if key[1] is None or key not in known:
            known.add(key)
            fresh.append(row)
    return fresh


def find_known(cursor: Any, rows: Sequence[Pending]) -> set[RecordKey]:
    """Return which keys of the rows are stored."""
    cursor.execute(FIND_KNOWN, _split(row.key for row in rows))
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


def _copy(cursor: Any, rows: Sequence[Pending]) -> set[int] | None:
    """Insert all rows with COPY and return their ids; insert no row and return None if one is stored already."""
    lines = io.BytesIO("".join(map(_copy_line, rows)).encode())
    try:
        with database.atomic():
            cursor.copy_expert(f"copy checkups ({COLUMNS}) from stdin", lines, COPY_BYTES)
    except (
        psycopg2.errors.UniqueViolation
    ):  # another session stored it since the look-up, or only a sample was looked up
        return None
    return {row.id for row in rows}


def _insert(cursor: Any, rows: Sequence[Pending]) -> set[int]:
    if not rows:
        return set()
    values = [(row.id, row.patient_id, row.machine_id, *row.record.columns()) for row in rows]
    stored = execute_values(cursor, INSERT, values, template=TEMPLATE, page_size=PAGE_ROWS, fetch=True)
    return {id_ for (id_,) in stored}


def copy_text(record: Record) -> str:
    """Return a record's columns in COPY's text format. Source: PostgreSQL manual, "COPY", "Text Format"."""
    values = record.columns()
    plain, further = values[:PLAIN_COLUMNS], values[PLAIN_COLUMNS:]
    end = COPIED_NO_FURTHER if further == NO_FURTHER else "".join([f"\t{_copied(value)}" for value in further])
    cells = [COPY_NULL if value is None else value for value in plain]
    cells[MOMENT] = _copied(record.taken_at or datetime.now(UTC))
    text = "\t".join(cells)
    nulls = plain.count(None) - (record.taken_at is None)
    if "\n" in text or "\r" in text or text.count("\t") >= PLAIN_COLUMNS or text.count("\\") > nulls:
        cells = [
            cell if value is None else cell.translate(COPY_ESCAPES) for cell, value in zip(cells, plain, strict=True)
        ]
        text = "\t".join(cells)
    return text + end


def _copied(value: Any) -> str:
    if value is None:
        return COPY_NULL
    if isinstance(value, datetime):
        return encode_json(value)[1:-1].decode()  # several times quicker than `isoformat`
    return str(value).translate(COPY_ESCAPES)


def _copy_line(row: Pending) -> str:
    machine_id = COPY_NULL if row.machine_id is None else row.machine_id
    return f"{row.id}\t{row.patient_id}\t{machine_id}\t{copy_text(row.record)}\n"


def is_plain(entry: Pending) -> bool:
    """Return whether the statement may take the record: it names one patient, and no further facts about the patient
    must be compared. Our own exports are not plain, for they may be stored already."""
    item = entry.item
    if len(item.patients) != 1 or item.is_detailed or item.parsed.unnumbered:
        return False
    return not (entry.record.record_id or "").startswith(OUR_REPORT)


def insert_small_batch(entries: Sequence[Pending], event: tuple[Any, ...] | None = None) -> dict[int, int]:
    """Insert the plain records that are not stored yet, and return the check-up's id by position in `entries`.

    `event`: `event_values` of an audit event, which is added only if all records were inserted. Outside a transaction,
    pass one record only. Raises Unavailable, PreparedElsewhere, and psycopg2's DataError or IntegrityError; then
    nothing is inserted. IntegrityConstraintViolation: a record was deleted by another session meanwhile.
    """
    rows, unfitted = [], []
    ranged: dict[str, list[tuple[dict[str, Any], Record]]] = {}
    for each in entries:
        record, name = each.record, fold_name(each.item.patients[0])
        row = dict(zip(SENT_NAMES, (name, None, record.machine, *record.columns()), strict=True))
        if RANGED in record.results:
            ranged.setdefault(name, []).append((row, record))
        rows.append(row)
        unfitted.append(record.results)
    stored: dict[int, int] = {}
    try:
        with translate_errors:
            cursor = database.cursor()
            if ranged:
                _fit_ranges(cursor, ranged)
            values = (encode_json(rows).decode(), *(event or NO_EVENT), NEVER if event is None else len(entries))
            STORE.execute(cursor, values)
            for position, id_, _ in cursor.fetchall():
                stored[position - 1] = id_
    finally:
        for position, (entry, results) in enumerate(zip(entries, unfitted, strict=True)):
            if position not in stored:
                entry.record.results = results
    return stored


def _fit_ranges(cursor: Any, ranged: dict[str, list[tuple[dict[str, Any], Record]]]) -> None:
    """Choose the catalogue's ranges in the (row, record) of each patient, by folded name. Set the patient's id in the
    row, so that nobody else's record gets them; NEVER for one who is not here."""
    cursor.execute(FIND_PEOPLE, ([*ranged],))
    found = {name: told for name, *told in cursor.fetchall()}
    for name, records in ranged.items():
        id_, sex, birth_date = found.get(name, (NEVER, None, None))
        for row, record in records:
            row["person"] = id_
            if id_ != NEVER:
                fit_to_person(record, sex, birth_date)
                row["results"] = record.results
