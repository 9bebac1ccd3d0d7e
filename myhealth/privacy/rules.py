"""How long rows are kept, and the removal of old ones; what no program of ours can erase. cli/README.md has the rule of
each table and collection.

The sync calls `purge` once a pass. Raw SQL: one round trip, which costs six index look-ups if nothing is old.
"""

from typing import Any

from myhealth.common.settings import RetentionSettings
from myhealth.intake.models import KEPT_DAYS
from myhealth.profiles.models import INVITATION_DAYS, KNOWN_DAYS

# What no program of ours can reach.
LEFT_TO_DO = (
    "backups and dumps of PostgreSQL and MongoDB from before now: expire them, or erase again after a restore",
    "logs of web servers and proxies: usernames are in addresses; rotate them",
    "records that do not say whose they are, if a machine sends them again: rejections list",
    "files: what machines and tablets keep, imported dumps, --rejected files, downloads, exports",
)


PURGE_ROWS = 5000
# The column that has the age of a table's rows.
AGED_BY = {
    "idempotency_keys": "created_at",
    "login_attempts": "at",
    "invitations": "created_at",
    "rejections": "resolved_at",
    "refusals": "at",
}
DELETE = """old_{table} as (delete from {table} where ctid = any(array(
    select ctid from {table} where {at} < now() - make_interval(days => %({table})s)
    order by {at} limit %(most)s)) returning 1)"""
PURGE = f"""
with {", ".join(DELETE.format(table=table, at=at) for table, at in AGED_BY.items())}
select {", ".join(f"(select count(*) from old_{table})" for table in AGED_BY)},
       audit_upkeep(now() - make_interval(days => %(audit_events)s), %(most)s)"""


def kept_days(retention: RetentionSettings) -> dict[str, int | None]:
    """Return the days that the rows of each table are kept; None: for ever."""
    return {
        "idempotency_keys": KEPT_DAYS,
        "login_attempts": KNOWN_DAYS + 1,
        "invitations": INVITATION_DAYS,
        "rejections": retention.rejections_days or None,
        "refusals": retention.audit_days or None,  # they belong to audit events
        "audit_events": retention.audit_days or None,
    }


def purge(cursor: Any, retention: RetentionSettings) -> dict[str, int]:
    """Delete at most PURGE_ROWS old rows of each table; return how many by table."""
    days = kept_days(retention)
    cursor.execute(PURGE, {**days, "most": PURGE_ROWS})
    return dict(zip(days, cursor.fetchone(), strict=True))
