"""fuller_readers_since(): the moment of this migration.

Since migration 16 the readers of FHIR and HL7 files have learned to find more in the same files: decimal commas,
conditions in words, codes of devices. Check-ups that earlier readers stored are compared like those from before
migration 16.
"""

from myhealth.migrations import run_sql

UP = """
do $$ begin
    execute format('create or replace function fuller_readers_since() returns timestamptz immutable language sql as '
                   '$f$ select timestamptz %L $f$', clock_timestamp());
end $$;
"""

up = run_sql(UP)
down = run_sql("select 1")  # what was stored until now stays as it is
