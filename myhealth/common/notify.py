"""Telling whoever listens that something has come in or was changed: the sync wakes at once, where it is set to."""

from __future__ import annotations

from myhealth.common.database import UNAVAILABLE_ERRORS, UNCLASSIFIED_ERRORS, database, is_unavailable

CHANNEL = "myhealth_checkups"
# It stores nothing, so nobody need wait for its place in the journal.
NOTIFY_SQL = f"begin; set local synchronous_commit to off; notify {CHANNEL}; commit"


def notify_sync() -> None:
    """Wakes a sync that listens. Behind the commit and not within it: transactions that notify commit one by one, and
    uploads would wait for each other. So within a transaction of the caller's it does nothing; the caller announces
    when that has ended. A connection that breaks by now loses a wake-up, and nothing that is stored."""
    if database.in_transaction():
        return
    try:
        database.execute_sql(NOTIFY_SQL)
    except (*UNAVAILABLE_ERRORS, *UNCLASSIFIED_ERRORS) as error:
        if not is_unavailable(error):
            raise
