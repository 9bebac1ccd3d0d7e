"""Open the stores that the settings name, check their schema, and migrate it.

needs: common, reports, embedded
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import peewee
import psycopg2.errors

from myhealth.common.database import QUIET_LOG, cause_of, database, fetch_one, make_database, translate_errors
from myhealth.common.database_watch import ask
from myhealth.common.errors import BadInput, NotAllowed, SchemaMismatch, SettingsError, Unavailable
from myhealth.common.settings import Settings

if TYPE_CHECKING:
    from playhouse.migrations import Migration, Runner

    from myhealth.reports.repository import ReportRepository

log = logging.getLogger(__name__)

MIGRATIONS = Path(__file__).with_name("migrations")
# The key of the advisory lock that a migration holds: any constant that no other lock of this database uses.
MIGRATION_LOCK = 7_305_808_869_231_650_132
LOCK_TIMEOUT_S = 60


def database_url(settings: Settings) -> str:
    """Return PostgreSQL's URL: that of the settings, or of the embedded server, which this starts if necessary."""
    if settings.database_url:
        return settings.database_url
    from myhealth.embedded import servers

    return servers(settings.folder)[0].ensure()


def mongo_url(settings: Settings) -> str:
    """Return MongoDB's URL: that of the settings, or of the embedded server, which this starts if necessary."""
    if settings.mongo_url:
        return settings.mongo_url
    from myhealth.embedded import servers

    return servers(settings.folder)[1].ensure()


def bind_database(settings: Settings, **options: Any) -> None:
    """Bind the models to PostgreSQL without a check of its schema. `options` go to the connection pool."""
    database.initialize(make_database(database_url(settings), **options))


def open_database(settings: Settings, **options: Any) -> None:
    """Bind the models to PostgreSQL and check that its schema is this program's.

    An embedded database is migrated here. Raises SchemaMismatch for any other that is older or newer, and Unavailable
    if the server does not answer.
    """
    bind_database(settings, **options)
    require_utf8()
    found = schema_number()
    if found < _number(_names()[-1]) and not settings.database_url:
        migrate(settings)
    else:
        require_schema(found)


def require_schema(found: int) -> None:
    """Raise SchemaMismatch unless `found` is the number of this program's newest migration."""
    ours = _number(_names()[-1])
    if found < ours:
        state = f"at migration {found}" if found else "empty"
        raise SchemaMismatch(
            f"the database is {state}, this program needs {ours}: run `myhealth migrate`", code="schema_older"
        )
    if found > ours:
        raise SchemaMismatch(
            f"the database is at migration {found}, newer than this program ({ours}): upgrade myhealth",
            code="schema_newer",
        )


def close_database() -> None:
    """Close every connection. It has no effect on a database that was never opened."""
    if database.obj is not None:
        database.close_all()


@contextlib.contextmanager
def opened_database(settings: Settings, **options: Any) -> Iterator[None]:
    """Open the database for a block; see `open_database`."""
    open_database(settings, **options)
    try:
        yield
    finally:
        close_database()


def open_reports(settings: Settings, **options: Any) -> ReportRepository:
    """Connect to the report store. `options`: those of `ReportRepository.connect`.

    `myhealth migrate` makes its indexes; an embedded store gets them here.
    """
    from myhealth.reports.repository import ReportRepository

    repository = ReportRepository.connect(mongo_url(settings), **options)
    if not settings.mongo_url:
        repository.make_indexes()
    return repository


def require_utf8() -> None:
    """Raise SettingsError unless the bound database is encoded in UTF-8: any other loses names, and cuts texts."""
    encoding = fetch_one("show server_encoding", ()).fetchone()[0]
    if encoding != "UTF8":
        hint = "make another one with: createdb --encoding UTF8 --template template0 NAME"
        raise SettingsError(f"the database of database_url is encoded in {encoding}, not in UTF-8", hint=hint)


def schema_number() -> int:
    """Return the number of the newest migration of the bound database, 0 for an empty one."""
    if fetch_one("select to_regclass('schema_migration')", ()).fetchone()[0] is None:
        return 0
    rows = fetch_one("select name from schema_migration order by name desc limit 1", ()).fetchall()
    return _number(rows[0][0]) if rows else 0


READY = """
select (select max(left(name, 4))::int from schema_migration),
       (select extract(epoch from clock_timestamp() - ended_at)::float8 from sync_pass)"""
READY_S = 2.0


def check_ready(url: str) -> dict[str, Any]:
    """Return the schema's number, and the seconds since the last pass of the sync ended (None before the first).

    Raises Unavailable if PostgreSQL does not answer within two seconds, SchemaMismatch if the schema is another one.
    """
    schema, sync_age_s = ask(url, READY, READY_S)
    require_schema(schema or 0)
    return {"schema": schema, "sync_age_s": sync_age_s}


def migrations() -> list[Migration]:
    """Return every migration in order, from the files and the database's history; `applied` is None while pending."""
    with translate_errors():
        found: list[Migration] = _runner().status()
        return found


def migrate(settings: Settings, to: int | None = None) -> list[tuple[str, str]]:
    """Migrate the bound database up or down to migration `to` (None: the newest; 0: empty), each step a transaction.

    Return ("applied" or "reverted", name) for each step. Two runs at once are safe: the second waits for the first, up
    to a minute, and has nothing left to do. Raises BadInput for a number without a migration, and Unavailable if
    another migration holds the lock too long.
    """
    numbers = [*map(_number, _names())]
    to = numbers[-1] if to is None else to
    if to not in (0, *numbers):
        raise BadInput(f"there is no migration {to}; they are numbered 0 (empty) to {numbers[-1]}")
    require_utf8()
    with translate_errors(), database.connection_context(), _migration_lock():
        runner, steps = _runner(), []
        rows = runner.status()
        for row in reversed(rows):
            if row.applied and row.idx > to:
                steps += [("reverted", name) for name in runner.down(row.name)]
        for row in rows:
            if not row.applied and row.path is not None and row.idx <= to:
                steps += [("applied", name) for name in runner.up(row.name)]
    for change, name in steps:
        log.info("migration %s %s", name, change)
    return steps


def quiet_log_statements() -> list[str]:
    """Return the SQL that keeps data out of the server's log for our role; empty if it is in force.

    A statement that fails contains a record's values, and PostgreSQL logs it unless these settings forbid it.
    """
    role = fetch_one("select quote_ident(current_user)", ()).fetchone()[0]
    found = dict(fetch_one("select name, setting from pg_settings where name = any(%s)", ([*QUIET_LOG],)).fetchall())
    found["log_min_error_statement"] = found["log_min_error_statement"].replace("fatal", "panic")
    return [
        f"alter role {role} set {name} = '{QUIET_LOG[name]}'" for name in QUIET_LOG if found[name] != QUIET_LOG[name]
    ]


def keep_data_out_of_the_log() -> list[str]:
    """Apply `quiet_log_statements` to our role and return them. Raises NotAllowed with the SQL if our role may not."""
    statements = quiet_log_statements()
    try:
        with database.atomic():
            for statement in statements:
                database.execute_sql(statement)
    except peewee.ProgrammingError as error:
        if not isinstance(cause_of(error), psycopg2.errors.InsufficientPrivilege):
            raise
        raise NotAllowed(
            "our role may not change its own log settings", hint=f"a superuser runs: {'; '.join(statements)};"
        ) from error
    return statements


def warn_of_data_in_the_log() -> None:
    """Log a warning if a failing statement, with a record's values, would reach PostgreSQL's log."""
    if quiet_log_statements():
        log.warning(
            "PostgreSQL logs the statements of errors, with the data in them; run `myhealth migrate --grants`"
            " (examples/README.md, Privacy of logs)"
        )


@contextlib.contextmanager
def _migration_lock() -> Iterator[None]:
    database.execute_sql(f"set lock_timeout = '{LOCK_TIMEOUT_S}s'")
    try:
        database.execute_sql("select pg_advisory_lock(%s)", (MIGRATION_LOCK,))
    except peewee.OperationalError as error:
        if isinstance(error.__cause__ or error.__context__, psycopg2.errors.LockNotAvailable):
            raise Unavailable(f"another migration has been running for {LOCK_TIMEOUT_S} s") from error
        raise
    try:
        yield
    finally:
        database.execute_sql("select pg_advisory_unlock(%s)", (MIGRATION_LOCK,))
        database.execute_sql("reset lock_timeout")


def _runner() -> Runner:
    from playhouse.migrations import Runner

    return Runner(database.obj, str(MIGRATIONS))


def _names() -> list[str]:
    return sorted(path.stem for path in MIGRATIONS.glob("[0-9]*.py"))


def _number(name: str) -> int:
    return int(name.partition("_")[0])
