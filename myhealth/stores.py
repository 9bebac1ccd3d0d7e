"""Open the stores that the settings name, check their schema, and migrate it.

needs: common, reports, embedded
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import peewee
import psycopg2.errors

from myhealth.common.database import cause_of, database, fetch_one, make_database, translate_errors
from myhealth.common.database_watch import ask
from myhealth.common.errors import BadInput, SchemaMismatch, SettingsError, Unavailable
from myhealth.common.settings import Settings
from myhealth.migrations import OLDEST_PROGRAM

if TYPE_CHECKING:
    from playhouse.migrations import Migration, Runner

    from myhealth.reports.repository import ReportRepository

log = logging.getLogger(__name__)

MIGRATIONS = Path(__file__).with_name("migrations")
# The key of the advisory lock that a migration holds: any constant that no other lock of this database uses.
MIGRATION_LOCK = 7_305_808_869_231_650_132
LOCK_TIMEOUT_S = 60
# Seconds that a migration's statement waits for a table's lock; all other sessions wait behind it.
TABLE_LOCK_S = 3
# Seconds for which a migration is tried again while others hold its tables, and between two attempts.
STEP_WAIT_S, POLL_S = 600, 0.5
IN_THE_WAY = (psycopg2.errors.LockNotAvailable, psycopg2.errors.DeadlockDetected)
# The client that has used our tables for the longest, unless that is less than a second.
HOLDER = """
select concat('process ', pid, ' (', coalesce(nullif(application_name, ''), 'no name'), '), at work since ',
              to_char(xact_start, 'YYYY-MM-DD HH24:MI:SS TZ'))
from pg_stat_activity where backend_type = 'client backend' and xact_start < clock_timestamp() - interval '1 s'
    and pid <> pg_backend_pid() and pid in (
        select pid from pg_locks join pg_class on relation = pg_class.oid
        where granted and locktype = 'relation' and relnamespace = 'public'::regnamespace
            and database = (select oid from pg_database where datname = current_database()))
order by xact_start limit 1"""
# Kept in the database for older programs, which cannot know the newer ones: OLDEST_PROGRAM of the one that migrated it.
PROGRAMS = "programs of migration {} and later work with this schema"
# The number of the newest migration, and that of the oldest program.
SCHEMA = r"""
select max(left(name, 4))::int,
       substring(obj_description('schema_migration'::regclass, 'pg_class') from 'migration (\d+)')::int
from schema_migration"""


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
    if settings.sync.reports_api_url:
        hint = "run this where mongo_url is set, on the browse API's host; `myhealth status` works here too"
        raise SettingsError("the report store is behind sync.reports_api_url, and mongo_url is not set", hint=hint)
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
    found = schema_numbers()
    if found[0] < _migration_number(_names()[-1]) and not settings.database_url:
        migrate(settings)
    else:
        require_schema(*found)


def require_schema(found: int, oldest_program: int | None = None) -> None:
    """Raise SchemaMismatch unless this program works with a schema.

    `found`: the number of the schema's newest migration. `oldest_program`: the number of the oldest program that works
    with the schema; by default only the program with the same number does.
    """
    ours = _migration_number(_names()[-1])
    if found < ours:
        state = f"at migration {found}" if found else "empty"
        raise SchemaMismatch(
            f"the database is {state}, this program needs {ours}: run `myhealth migrate`", code="schema_older"
        )
    if found > ours and (oldest_program is None or oldest_program > ours):
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
    """Raise SettingsError unless the bound database is encoded in UTF-8: any other encoding loses names and cuts
    texts."""
    encoding = fetch_one("show server_encoding", ()).fetchone()[0]
    if encoding != "UTF8":
        hint = "make another one with: createdb --encoding UTF8 --template template0 NAME"
        raise SettingsError(f"the database of database_url is encoded in {encoding}, not in UTF-8", hint=hint)


def schema_numbers() -> tuple[int, int | None]:
    """Return the numbers of the bound database's newest migration, 0 for none, and of the oldest program for it."""
    if fetch_one("select to_regclass('schema_migration')", ()).fetchone()[0] is None:
        return 0, None
    newest, oldest_program = fetch_one(SCHEMA, ()).fetchone()
    return newest or 0, oldest_program


READY = f"""
select *, (select extract(epoch from clock_timestamp() - ended_at)::float8 from sync_pass) from ({SCHEMA}) as found"""
READY_S = 2.0


def check_ready(url: str) -> dict[str, Any]:
    """Return the schema's number, and the seconds since the last pass of the sync ended (None before the first).

    Raises Unavailable if PostgreSQL does not answer within two seconds, SchemaMismatch if the schema is another one.
    """
    schema, oldest_program, sync_age_s = ask(url, READY, READY_S)
    require_schema(schema or 0, oldest_program)
    return {"schema": schema, "sync_age_s": sync_age_s}


def migrations() -> list[Migration]:
    """Return every migration in order, from the files and the database's history; `applied` is None while pending.

    Raises SchemaMismatch if one was applied that this program does not have.
    """
    with translate_errors:
        return _migration_status(_runner())


def migrate(
    settings: Settings, to: int | None = None, begun: Callable[[str], object] = lambda name: None
) -> list[tuple[str, str]]:
    """Migrate the bound database up or down to migration `to` (None: the newest; 0: empty), each step a transaction.

    Return ("applied" or "reverted", name) for each step; `begun` is called with the name before. Two runs at once are
    safe: the second waits for the first, up to a minute, and has nothing left to do. A step waits until nobody uses the
    tables for longer than a moment, so that no upload waits behind it. Raises BadInput for a number without a
    migration, SchemaMismatch for a newer schema, and Unavailable if another migration, or a user of the tables, takes
    too long.
    """
    numbers = [*map(_migration_number, _names())]
    to = numbers[-1] if to is None else to
    if to not in (0, *numbers):
        raise BadInput(f"there is no migration {to}; they are numbered 0 (empty) to {numbers[-1]}")
    require_utf8()
    with translate_errors, database.connection_context(), _migration_lock():
        runner, steps = _runner(), []
        rows = _migration_status(runner)
        runner.History.create_table()
        database.execute_sql(f"comment on table schema_migration is '{PROGRAMS.format(min(OLDEST_PROGRAM, to))}'")
        for row in reversed(rows):
            if row.applied and row.idx > to:
                begun(row.name)
                steps += [("reverted", name) for name in _run_step(runner.down, row.name)]
        for row in rows:
            if not row.applied and row.idx <= to:
                begun(row.name)
                steps += [("applied", name) for name in _run_step(runner.up, row.name)]
    for change, name in steps:
        log.info("migration %s %s", name, change)
    return steps


def _migration_status(runner: Runner) -> list[Migration]:
    rows: list[Migration] = runner.status()
    if unknown := [row.idx for row in rows if row.path is None]:
        require_schema(max(unknown))
        raise SchemaMismatch(f"the database has a migration {unknown[0]} that is not one of this program's")
    return rows


def _run_step(step: Callable[[str], list[str]], name: str) -> list[str]:
    """Take a step once no session blocks our tables: while a step waits for a lock, all later sessions wait too."""
    until, told = time.monotonic() + STEP_WAIT_S, ""
    while True:
        holder = (database.execute_sql(HOLDER).fetchone() or [""])[0]
        if not holder:
            try:
                return step(name)
            except (peewee.OperationalError, psycopg2.OperationalError) as error:
                if not isinstance(cause_of(error), IN_THE_WAY):
                    raise
                holder = "somebody who holds a lock"
        if time.monotonic() > until:
            raise Unavailable(f"migration {name} waited {STEP_WAIT_S} s for {holder}")
        if holder != told:
            log.warning("migration %s waits for %s", name, holder)
            told = holder
        time.sleep(POLL_S)


@contextlib.contextmanager
def _migration_lock() -> Iterator[None]:
    until = time.monotonic() + LOCK_TIMEOUT_S
    # Asked again and again: an index that is built concurrently would wait for a statement that waits for the lock.
    while not database.execute_sql("select pg_try_advisory_lock(%s)", (MIGRATION_LOCK,)).fetchone()[0]:
        if time.monotonic() > until:
            raise Unavailable(f"another migration has been running for {LOCK_TIMEOUT_S} s")
        time.sleep(POLL_S)
    database.execute_sql(f"set lock_timeout = '{TABLE_LOCK_S}s'")
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


def _migration_number(name: str) -> int:
    return int(name.partition("_")[0])
