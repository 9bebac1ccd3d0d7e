"""One record in one statement: a tablet that sends each by itself waits for one answer of PostgreSQL, not for a dozen.

It takes the plain case only: a patient and a machine that are known, and a record that is not, and never was.
Whatever else there is to say about a record is left to `Batch`.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from typing import Any

import peewee
import psycopg2.errors

from myhealth.audit.events import INSERT_EVENT, current_actor, event_values
from myhealth.checkups.columns import record_values
from myhealth.common.database import cause_of, database, translate_errors
from myhealth.intake.results import ImportSource, RecordResult, ValidatedRecord, error

STORE = f"""
with patient as (select id from users where lower(username) = lower(%s)),
machine as (select id, last_upload_at from machines where serial = %s),
stored as (
    insert into checkups (patient_id, machine_id, record_id, checkup_type, checkup_report, disease, taken_by, taken_at,
                          results)
    select patient.id, machine.id, %s::text, %s::text, %s::text, %s::text, %s::text,
           coalesce(%s::timestamptz, now()), %s::jsonb
    from patient left join machine on true where (machine.id is not null or %s::text is null)
    and not exists (select from superseded where deleted and superseded.record_id = %s::text
                    and coalesce(superseded.machine_id, 0) = coalesce(machine.id, 0))
    on conflict do nothing returning id, machine_id, record_id),
touched as (
    update machines set last_upload_at = now() from stored, machine
    where machines.id = machine.id
    and (machine.last_upload_at is null or machine.last_upload_at < now() - interval '1 minute')),
noted as ({INSERT_EVENT} from stored)
select id, superseded_refuse(machine_id, record_id) from stored"""
# Planning takes PostgreSQL longer than doing it, so each connection has it planned once.
NUMBERS = itertools.count(1)
TYPES = f"{'text, ' * 7}timestamptz, jsonb, text, text, bigint, text, text, bigint, text, text, text, jsonb"
PREPARE = f"prepare myhealth_store_alone ({TYPES}) as {re.sub('%s', lambda _: f'${next(NUMBERS)}', STORE)}"
EXECUTE = f"execute myhealth_store_alone ({', '.join(['%s'] * STORE.count('%s'))})"
UNPREPARED = (psycopg2.errors.InvalidSqlStatementName, psycopg2.errors.DuplicatePreparedStatement)
ACCEPTED = {"accepted": 1, "duplicate": 0, "rejected": 0}


def insert_one(origin: ImportSource, checked: ValidatedRecord) -> RecordResult | None:
    """Stores the record and notes the upload, both or neither, in a transaction of its own. None, and nothing is done,
    where it is not as plain as that. Raises Unavailable where the database is away."""
    record = checked.record
    if record is None or len(checked.patients) != 1 or origin.create_patients or origin.dry_run:
        return None
    if database.in_transaction():  # a statement that fails would undo what the caller has done in it
        return None
    note = event_values("upload", {"machine": origin.machine, **ACCEPTED}, current_actor(), subject=checked.patients[0])
    values = (checked.patients[0], record.machine, *record_values(record), record.machine, record.record_id, *note)
    with translate_errors(), contextlib.suppress(peewee.DataError, peewee.IntegrityError):
        row = _execute(values)
        if row is not None:
            warnings = [error(checked.reading.index, *warning) for warning in record.warnings]
            return RecordResult(checked.reading.index, "accepted", row[0], warnings=warnings)
    return None


def _execute(values: tuple[Any, ...]) -> Any:
    """The row of STORE, if any. A pooler before PostgreSQL may give us a connection that another one of us prepared."""
    for statement in (EXECUTE, f"{PREPARE}; {EXECUTE}"):
        try:
            return database.execute_sql(statement, values).fetchone()
        except peewee.DatabaseError as error:
            if not isinstance(cause_of(error), UNPREPARED):
                raise
    return database.execute_sql(STORE, values).fetchone()
