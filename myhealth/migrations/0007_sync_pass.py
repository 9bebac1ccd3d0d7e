"""sync_pass: how the last pass of the sync went and how far it had come, for those who look at PostgreSQL alone.

One row, for people and for monitoring. What the sync goes by is the mark, beside the reports that it describes.
"""

from typing import Any

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


def up(migrator: Any, db: Any) -> None:
    db.cursor().execute(UP)


def down(migrator: Any, db: Any) -> None:
    db.cursor().execute("drop table sync_pass")
