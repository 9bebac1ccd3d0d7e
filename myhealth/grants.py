"""PostgreSQL's roles: the rights that the upload API and the sync need, and no log that holds their data.

needs: common
"""

import logging
from collections.abc import Iterable

import peewee
import psycopg2.errors

from myhealth.common.database import QUIET_LOG, cause_of, database, fetch_one, translate_errors
from myhealth.common.errors import BadInput, NotAllowed

log = logging.getLogger(__name__)

CHANGE = "select, insert, update, delete"
# The rights of a role by table; "" names all other tables. Nobody but the owner may change or remove an audit event:
# the trigger that forbids it is the owner's, and audit_upkeep() lets pass only what erasure and retention need.
RIGHTS = {
    "upload": {
        "": CHANGE,
        "audit_events": "select, insert",
        "tombstones": "select, insert",
        **dict.fromkeys(("schema_migration", "erasure_key", "sync_pass", "sync_witness"), "select"),
    },
    "sync": {
        **dict.fromkeys(("schema_migration", "users", "patient_identifiers", "machines", "checkups"), "select"),
        **dict.fromkeys(("tombstones", "audit_events"), "select"),
        # Each pass removes rows that are older than their retention.
        **dict.fromkeys(
            ("rejections", "refusals", "login_attempts", "invitations", "idempotency_keys"), "select, delete"
        ),
        **dict.fromkeys(("sync_pass", "sync_witness"), CHANGE),
    },
}
TABLES = "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r' order by 1"
SET_FOR_ROLE = (
    "select coalesce(max(setconfig), '{}') from pg_db_role_setting where setrole = %s::regrole and setdatabase = 0"
)


def grant(kind: str, role: str) -> list[str]:
    """Give a role the rights of the upload API or of the sync (`kind`), and no others; return the SQL."""
    if fetch_one("select 1 from pg_roles where rolname = %s", (role,)).fetchone() is None:
        raise BadInput(f"PostgreSQL has no role {role!r}", hint="create it first: create role NAME login password '…'")
    name = _quote_identifier(role)
    rights = RIGHTS[kind]
    statements = [f"revoke all on all tables in schema public from {name}", f"grant usage on schema public to {name}"]
    for (table,) in fetch_one(TABLES, ()).fetchall():
        if wanted := rights.get(table, rights.get("", "")):
            statements.append(f"grant {wanted} on {table} to {name}")
    if kind == "upload":
        statements.append(f"grant usage on all sequences in schema public to {name}")
    statements.append(f"grant execute on function audit_upkeep to {name}")
    with translate_errors, database.atomic():
        for statement in statements:
            database.execute_sql(statement)
    return statements


def _quote_identifier(role: str) -> str:
    return str(fetch_one("select quote_ident(%s)", (role,)).fetchone()[0])


def quiet_log_statements() -> list[str]:
    """Return the SQL that keeps data out of the server's log for our role; empty if it is in force.

    A statement that fails contains a record's values, and PostgreSQL logs it unless these settings forbid it.
    """
    role = fetch_one("select quote_ident(current_user)", ()).fetchone()[0]
    found = dict(fetch_one("select name, setting from pg_settings where name = any(%s)", ([*QUIET_LOG],)).fetchall())
    found["log_min_error_statement"] = found["log_min_error_statement"].replace("fatal", "panic")
    return _alter_role(role, [name for name in QUIET_LOG if found[name] != QUIET_LOG[name]])


def _alter_role(name: str, settings: Iterable[str]) -> list[str]:
    return [f"alter role {name} set {each} = '{QUIET_LOG[each]}'" for each in settings]


def keep_data_out_of_the_log(roles: Iterable[str] = ()) -> list[str]:
    """Apply `quiet_log_statements` to our role, and the same to others; return the SQL.

    Raises NotAllowed with the SQL if our role may not.
    """
    statements = quiet_log_statements()
    for role in roles:
        name = _quote_identifier(role)
        (done,) = fetch_one(SET_FOR_ROLE, (name,)).fetchone()
        statements += _alter_role(name, [each for each in QUIET_LOG if f"{each}={QUIET_LOG[each]}" not in done])
    try:
        with database.atomic():
            for statement in statements:
                database.execute_sql(statement)
    except peewee.ProgrammingError as error:
        if not isinstance(cause_of(error), psycopg2.errors.InsufficientPrivilege):
            raise
        raise NotAllowed(
            "our role may not change a role's log settings", hint=f"a superuser runs: {'; '.join(statements)};"
        ) from error
    return statements


def warn_of_data_in_the_log() -> None:
    """Log a warning if a failing statement, with a record's values, would reach PostgreSQL's log."""
    if quiet_log_statements():
        log.warning(
            "PostgreSQL logs the statements of errors, with the data in them; run `myhealth migrate --grants`"
            " (examples/README.md, Privacy of logs)"
        )
