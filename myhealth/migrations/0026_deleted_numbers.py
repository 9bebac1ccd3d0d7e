"""superseded.numbers: the numbers of the FHIR resources that a deleted check-up held, so that none of them comes back.

A row without a patient is a deletion by a source that came before what it names: `numbers` are the two parts of the
name by which that is found, and `details` has the source's version.
"""

from myhealth.migrations import run_sql

UP = """
alter table superseded alter column patient_id drop not null,
    add column if not exists numbers jsonb, add column if not exists details jsonb;
create index superseded_waiting on superseded ((numbers->>0)) where patient_id is null;
create index superseded_waiting_ids on superseded ((numbers->>1)) where patient_id is null;
update superseded set numbers = jsonb_build_array(record_id) where deleted and record_id ~ '[/#|]|^urn:'
"""
DOWN = """
delete from superseded where patient_id is null;
alter table superseded drop column numbers, drop column details, alter column patient_id set not null
"""

up = run_sql(UP)
down = run_sql(DOWN)
