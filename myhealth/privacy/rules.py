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
PURGE = """
with answers as (delete from idempotency_keys where ctid = any(array(
        select ctid from idempotency_keys where created_at < now() - make_interval(days => %(idempotency_keys)s)
        order by created_at limit %(most)s)) returning 1),
    attempts as (delete from login_attempts where ctid = any(array(
        select ctid from login_attempts where at < now() - make_interval(days => %(login_attempts)s)
        order by at limit %(most)s)) returning 1),
    invited as (delete from invitations where ctid = any(array(
        select ctid from invitations where created_at < now() - make_interval(days => %(invitations)s)
        order by created_at limit %(most)s)) returning 1),
    resolved as (delete from rejections where ctid = any(array(
        select ctid from rejections where resolved_at < now() - make_interval(days => %(rejections)s)
        order by resolved_at limit %(most)s)) returning 1),
    summed as (delete from refusals where ctid = any(array(
        select ctid from refusals where at < now() - make_interval(days => %(refusals)s)
        order by at limit %(most)s)) returning 1)
select (select count(*) from answers), (select count(*) from attempts), (select count(*) from invited),
    (select count(*) from resolved), (select count(*) from summed),
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
