"""The rule of each table and collection, in one place, and the removal of old rows. A test fails for one without.

The sync calls `purge` once a pass. Raw SQL: one round trip, which costs six index look-ups if nothing is old.
"""

from typing import Any, NamedTuple

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


class Rule(NamedTuple):
    """How MyHealth treats the rows of a table or collection.

    `erase`: what an erasure does. `export`: the file of an export. `kept`: for how long. `grants`: what the APIs' role
    in the database needs. `access_log`: how reading a person's rows is recorded. `verify`: how `myhealth verify`
    compares them.
    """

    erase: str
    export: str
    kept: str
    grants: str
    access_log: str
    verify: str


FEED = "compared row by row"
NO = "not compared"
CRUD = "select, insert, update, delete"
NOT_PERSONAL = "not personal"


def technical(kept: str, grants: str = CRUD, erase: str = NOT_PERSONAL) -> Rule:
    return Rule(erase, NOT_PERSONAL, kept, grants, NOT_PERSONAL, NO)


TABLES = {
    "users": Rule("deleted", "users", "until erased", CRUD, "read profile, read people", FEED),
    "patient_identifiers": Rule(
        "deleted with the user; keyed digests of them are added", "patient_identifiers", "until erased", CRUD,
        "read profile", NO,
    ),
    "checkups": Rule("deleted with the user", "checkups", "until erased", CRUD, "read checkups", FEED),
    "checkup_versions": Rule(
        "deleted with the check-up", "checkup_versions", "until erased", CRUD, "read history", NO,
    ),
    "superseded": Rule("deleted with the user", "superseded", "until erased", CRUD, "shown to nobody", NO),
    "rejections": Rule(
        "deleted: by the patient's name, number, address; those with the name elsewhere are listed", "rejections",
        "open: until resolved or erased; resolved: retention.rejections_days", CRUD, "read rejection", NO,
    ),
    "idempotency_keys": Rule(
        "own: deleted with the user; others': items of the person's records are blanked", "idempotency_keys", "7 days",
        CRUD, "shown to their sender only", NO,
    ),
    "invitations": Rule("deleted with the user", "invitations", "14 days", CRUD, "shown to nobody", NO),
    "login_attempts": Rule("deleted", "login_attempts", "31 days", CRUD, "shown to nobody", NO),
    "audit_events": Rule(
        "names become a pseudonym, own addresses go", "audit_events", "retention.audit_days",
        "select, insert; execute on audit_upkeep()", "shown to admins of the host by `myhealth audit`", NO,
    ),
    "refusals": technical("retention.audit_days"),
    "tombstones": technical("for ever: ids alone"),
    "machines": technical("until deleted"),
    "sync_witness": technical("90 days"),
    "sync_pass": technical("one row"),
    "erased_digests": technical("for ever", erase="keyed digests of the name and of machine records are added"),
    "erasure_key": technical("for ever: one row"),
    "schema_migration": technical("for ever", "select"),
}  # fmt: skip
COLLECTIONS = {
    "reports": Rule("deleted, at the latest by the sync", "fhir", "as checkups", CRUD, "read reports, report, …", FEED),
    "users": Rule("deleted, at the latest by the sync", "users", "as users", CRUD, "read profile, people", FEED),
    "audit_events": Rule(
        "names become a pseudonym, own addresses go", "access_log", "retention.audit_days", CRUD, "read access log", NO
    ),
    "sync_failures": Rule("deleted with the document", NOT_PERSONAL, "until stored", CRUD, "shown to operators", NO),
    "sync_state": technical("one document"),
}


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
