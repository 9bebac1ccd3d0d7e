"""Reviews of check-ups: when and by whom (a user's id) a check-up was reviewed, and the note for its patient."""

from myhealth.migrations import run_sql

UP = """
alter table checkups add column if not exists reviewed_at timestamptz, add column if not exists reviewed_by bigint,
    add column if not exists review_note text
"""

up = run_sql(UP)
down = run_sql("alter table checkups drop column reviewed_at, drop column reviewed_by, drop column review_note")
