"""An index of the audit events that tell a user's former name, which an import looks up for records without numbers.

It is built without a lock that stops uploads.
"""

from typing import Any

atomic = False  # an index cannot be built concurrently within a transaction; a second run begins anew
INDEX = """
create index concurrently audit_events_renames on audit_events (subject_id)
where action = 'user.change' and details->>'changed' like 'username %'"""
DROP = "drop index concurrently if exists audit_events_renames"


def up(migrator: Any, db: Any) -> None:
    cursor = db.cursor()
    for statement in (DROP, INDEX):
        cursor.execute(statement)


def down(migrator: Any, db: Any) -> None:
    db.cursor().execute(DROP)
