"""superseded: check-ups of a machine that are no longer stored as they came, corrected or deleted here since.

Machines send their whole memory again and again; by its digest such a record is recognised. Only the digest of the
content and the moment are kept, and they are deleted with the patient.
"""

from myhealth.migrations import run_sql

UP = """
create table superseded (
    checkup_id bigint primary key,
    patient_id bigint not null references users on delete cascade,
    machine_id bigint references machines on delete cascade,
    record_id text not null,
    digest bytea not null,
    taken_at timestamptz not null,
    deleted boolean not null,
    at timestamptz not null default now()
);
-- NULLs differ from each other; a record that no machine is named for is known by its number alone
create index superseded_record on superseded (coalesce(machine_id, 0), record_id);
create index superseded_patient on superseded (patient_id);
-- A statement sees what was there when it began; this looks again, behind an insert that may have waited for a deletion
create function superseded_refuse(machine bigint, record text) returns void volatile language plpgsql as $$
begin
    if exists (select from superseded
               where deleted and coalesce(machine_id, 0) = coalesce(machine, 0) and record_id = record) then
        raise exception 'record % was deleted here', record using errcode = 'integrity_constraint_violation';
    end if;
end $$;
"""

up = run_sql(UP)
down = run_sql("drop function superseded_refuse(bigint, text); drop table superseded")
