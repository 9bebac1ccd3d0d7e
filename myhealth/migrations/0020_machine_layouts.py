"""machines.layout: what the columns of a machine's tables mean, as `formats/tables/layout.py` writes it."""

from myhealth.migrations import run_sql

up = run_sql("alter table machines add column if not exists layout text")
down = run_sql("alter table machines drop column layout")
