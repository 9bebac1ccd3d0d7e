"""Store up to some 50 records in one statement, so that a small upload waits for one answer of PostgreSQL.

The statement takes the plain records: patient and machine are known, the patient's account is linked, and the record
is neither stored nor deleted nor of an erased person.
`Batch` handles the others and explains their results. SQL is raw: the statement works on sets, and each connection
prepares it once, because PostgreSQL takes longer to plan it than to execute it.
"""

from collections.abc import Sequence
from typing import Any

from myhealth.audit.events import INSERT_EVENT
from myhealth.checkups.models import RECORD_COLUMNS, RECORD_NAMES
from myhealth.clinical.coding_systems import OUR_REPORT
from myhealth.common.database import Statement, database, translate_errors
from myhealth.common.text import fold_name
from myhealth.intake.record import encode_json
from myhealth.intake.results import Pending
from myhealth.intake.validation import fit_to_person

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
    names = [fold_name(each.item.patients[0]) for each in entries]
    unfitted = [each.record.results for each in entries]
    stored: dict[int, int] = {}
    try:
        with translate_errors:
            cursor = database.cursor()
            people = _fit_ranges(cursor, names, entries)
            rows = [
                (name, person, each.record.machine, *each.record.columns())
                for name, person, each in zip(names, people, entries, strict=True)
            ]
            sent = encode_json([dict(zip(SENT_NAMES, row, strict=True)) for row in rows]).decode()
            values = (sent, *(event or NO_EVENT), NEVER if event is None else len(entries))
            STORE.execute(cursor, values)
            stored = {position - 1: id_ for position, id_, _ in cursor.fetchall()}
    finally:
        for position, (entry, results) in enumerate(zip(entries, unfitted, strict=True)):
            if position not in stored:
                entry.record.results = results
    return stored


def _fit_ranges(cursor: Any, names: Sequence[str], entries: Sequence[Pending]) -> list[int | None]:
    """Choose the catalogue's ranges in the records by their patients. Return the ids of these patients, so that nobody
    else's record gets them; NEVER for a patient who is not here; None for the records without such ranges."""
    ranged = ['"range_source"' in each.record.results for each in entries]
    if not any(ranged):
        return [None] * len(entries)
    cursor.execute(FIND_PEOPLE, ([*{name for name, has_range in zip(names, ranged, strict=True) if has_range}],))
    found = {name: (id_, sex, birth_date) for name, id_, sex, birth_date in cursor.fetchall()}
    people: list[int | None] = []
    for name, has_range, entry in zip(names, ranged, entries, strict=True):
        id_, sex, birth_date = found.get(name, (NEVER, None, None)) if has_range else (None, None, None)
        if has_range and id_ != NEVER:
            fit_to_person(entry.record, sex, birth_date)
        people.append(id_)
    return people
