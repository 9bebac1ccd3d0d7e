"""fuller_readers_since(): the moment of this migration.

Since migration 16 the readers of FHIR and HL7 files have learned to read more of what the same files say: decimal
commas, conditions in words, codes of devices. What earlier ones stored is compared as that of before migration 16 is.
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
