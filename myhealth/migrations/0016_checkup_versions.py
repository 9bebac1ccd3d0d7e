"""checkup_versions: every earlier version of a check-up, whole.

`content` has the columns of the check-up as they were. `replaced_by`: the user who changed it, if one did; `reason`:
corrected here by a person, or replaced or withdrawn by its source. Deleting a check-up deletes its versions.

fuller_readers_since(): the moment of this migration. Check-ups of FHIR and HL7 files from before have fewer facts than
today's readers find in the same files.
"""

from myhealth.migrations import run_sql

UP = """
create table checkup_versions (
    checkup_id bigint not null references checkups on delete cascade,
    revision integer not null,
    replaced_at timestamptz not null default now(),
    replaced_by bigint,
    reason text not null,
    content jsonb not null,
    primary key (checkup_id, revision)
);
do $$ begin
    execute format('create function fuller_readers_since() returns timestamptz immutable language sql as '
                   '$f$ select timestamptz %L $f$', clock_timestamp());
end $$;
"""

up = run_sql(UP)
down = run_sql("drop function fuller_readers_since(); drop table checkup_versions")
