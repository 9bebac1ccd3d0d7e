"""Notify the sync of new or changed rows with PostgreSQL's NOTIFY, so that it starts a pass at once."""

from myhealth.common.database import UNAVAILABLE_ERRORS, UNCLASSIFIED_ERRORS, database, is_unavailable

CHANNEL = "myhealth_checkups"
# It stores nothing, so it need not wait for the write-ahead log.
NOTIFY_SQL = f"begin; set local synchronous_commit to off; notify {CHANNEL}; commit"


def notify_sync() -> None:
    """Notify the sync, after the commit if a transaction is open. It is not part of that transaction: PostgreSQL
    commits transactions with a NOTIFY one by one, and uploads would wait for each other. If the connection breaks, only
    the notification is lost."""
    database.after_commit(_notify)


def _notify() -> None:
    try:
        database.execute_sql(NOTIFY_SQL)
    except (*UNAVAILABLE_ERRORS, *UNCLASSIFIED_ERRORS) as error:
        if not is_unavailable(error):
            raise
