"""Telling whoever listens that something has come in or was changed: the sync wakes at once, where it is set to."""

from __future__ import annotations

from myhealth.common.database import AWAY, BARE, database, is_away

CHANNEL = "myhealth_checkups"
# It stores nothing, so nobody need wait for its place in the journal.
ANNOUNCE = f"begin; set local synchronous_commit to off; notify {CHANNEL}; commit"


def announce() -> None:
    """Wakes a sync that listens. Behind the commit and not within it: transactions that notify commit one by one, and
    uploads would wait for each other. So within a transaction of the caller's it does nothing; the caller announces
    when that has ended. A connection that breaks by now loses a wake-up, and nothing that is stored."""
    if database.in_transaction():
        return
    try:
        database.execute_sql(ANNOUNCE)
    except (*AWAY, *BARE) as error:
        if not is_away(error):
            raise
