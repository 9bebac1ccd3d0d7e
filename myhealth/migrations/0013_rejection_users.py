"""rejections.user_id: who uploaded a rejected record, to count what one user has rejected in a day."""

from myhealth.migrations import run_sql

UP = """
alter table rejections add column user_id bigint;
create index rejections_user on rejections (user_id, received_at) where user_id is not null;
"""

up = run_sql(UP)
down = run_sql("alter table rejections drop column user_id")
