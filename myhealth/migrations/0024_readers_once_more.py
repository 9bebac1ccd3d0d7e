"""fuller_readers_since(): the moment of this migration.

Since migration 19 the readers of FHIR and HL7 files have learned more again: comparators that senders write otherwise,
units in words beside local codes, UTF-8 under the name of another character set. What earlier readers stored of the
same files is known again, and not rejected as other content.
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
