"""sync_pass: how the last pass of the sync went and how far it had come, for those who look at PostgreSQL alone.

One row, for people and for monitoring. The sync itself uses the checkpoint, which is beside the reports.
"""

from myhealth.migrations import run_sql

UP = """
create table sync_pass (
    one boolean primary key default true check (one),
    began_at timestamptz not null,
    ended_at timestamptz not null default clock_timestamp(),
    problem text not null,
    mark jsonb,
    done jsonb not null
);
"""

up = run_sql(UP)
down = run_sql("drop table sync_pass")
