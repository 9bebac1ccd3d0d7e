"""rejections.user_id: who uploaded a rejected record, to count what one user has rejected in a day."""

from typing import Any


def up(migrator: Any, db: Any) -> None:
    db.cursor().execute("""
        alter table rejections add column user_id bigint;
        create index rejections_user on rejections (user_id, received_at) where user_id is not null;
    """)


def down(migrator: Any, db: Any) -> None:
    db.cursor().execute("alter table rejections drop column user_id")
