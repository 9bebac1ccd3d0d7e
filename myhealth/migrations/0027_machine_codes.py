"""machines.codes: the LOINC codes of tests that a machine sends without one, by the test's name and its unit.

Check-ups stay as they were sent; the sync adds the codes to the reports.
"""

from myhealth.migrations import run_sql

up = run_sql("alter table machines add column if not exists codes jsonb")
down = run_sql("alter table machines drop column codes")
