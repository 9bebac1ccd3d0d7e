"""The schema migrates up and down, by one runner at a time; commands report a schema of another version."""

import subprocess
import sys
import threading

import pytest

from myhealth import stores
from myhealth.common.database import database
from myhealth.common.errors import BadInput, SchemaMismatch, Unavailable
from myhealth.common.settings import Settings, child_environ
from myhealth.embedded.postgres import Postgres

NEWEST, COUNT = stores._migration_number(stores._names()[-1]), len(stores._names())


@pytest.fixture
def empty(postgres: Postgres, settings: Settings):
    """Settings of an empty database of its own."""
    import dataclasses

    postgres.make_database("myhealth_test_schema", anew=True)
    found = dataclasses.replace(settings, database_url=postgres.url_of("myhealth_test_schema"))
    stores.bind_database(found)
    yield found
    stores.close_database()


def tables() -> set[str]:
    return set(database.get_tables()) - {"schema_migration"}


def test_it_goes_up_down_to_nothing_and_up_again(empty: Settings) -> None:
    assert [name for _, name in stores.migrate(empty)] == stores._names()
    schema = dumped(empty)
    assert tables() == {"users", "machines", "checkups", "rejections", "tombstones", "sync_witness"} | extra_tables()
    assert {did for did, _ in stores.migrate(empty, 0)} == {"reverted"}
    assert tables() == set()
    left = database.execute_sql("select proname from pg_proc where pronamespace = 'public'::regnamespace").fetchall()
    assert left == []
    stores.migrate(empty)
    assert dumped(empty) == schema
    assert stores.migrate(empty) == []


def extra_tables() -> set[str]:
    """Tables that later migrations made; each is named in the migration that made it."""
    text = "".join((stores.MIGRATIONS / f"{name}.py").read_text() for name in stores._names()[5:])
    return {word.split()[2] for word in text.split("\n") if word.startswith("create table ")}


def dumped(settings: Settings) -> str:
    """The whole schema as pg_dump sees it."""
    url = settings.database_url
    columns = database.execute_sql(
        "select table_name, column_name, data_type, column_default, is_nullable from information_schema.columns"
        " where table_schema = 'public' order by 1, 2"
    ).fetchall()
    indexes = database.execute_sql("select indexdef from pg_indexes where schemaname = 'public' order by 1").fetchall()
    triggers = database.execute_sql(
        "select pg_get_triggerdef(oid), tgenabled from pg_trigger where not tgisinternal order by 1"
    ).fetchall()
    assert triggers
    assert url
    return repr((columns, indexes, triggers))


def test_it_stops_at_the_number_that_was_asked_for(empty: Settings) -> None:
    assert [name for _, name in stores.migrate(empty, 2)] == ["0001_users", "0002_machines"]
    assert stores.schema_numbers()[0] == 2
    assert stores.migrate(empty, 1) == [("reverted", "0002_machines")]
    with pytest.raises(BadInput, match="there is no migration 99"):
        stores.migrate(empty, 99)


def test_a_migration_that_fails_leaves_nothing_of_itself(empty: Settings) -> None:
    stores.migrate(empty, 2)
    database.execute_sql("create view checkups_feed as select 1")  # stands in the way of an index of that name
    with pytest.raises(Exception, match="checkups_feed"):
        stores.migrate(empty)
    assert tables() == {"users", "machines"}
    assert stores.schema_numbers()[0] == 2


@pytest.mark.process
def test_several_at_once_are_one_after_another(empty: Settings) -> None:
    program = "from myhealth import stores; from myhealth.common.settings import load\n"
    program += "s = load(); stores.bind_database(s); print(len(stores.migrate(s)))"
    running = [
        subprocess.Popen([sys.executable, "-c", program], env=child_environ(empty), stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    done = sorted(int(process.communicate()[0]) for process in running)
    assert done == [0, 0, 0, COUNT]


def test_a_migration_that_never_ends_is_not_waited_for_for_ever(
    empty: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "LOCK_TIMEOUT_S", 1)
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with database.connection_context(), stores._migration_lock():
            held.set()
            release.wait(30)

    other = threading.Thread(target=hold)
    other.start()
    held.wait(30)
    try:
        with pytest.raises(Unavailable, match="another migration has been running"):
            stores.migrate(empty)
    finally:
        release.set()
        other.join()


def test_a_command_says_that_the_schema_is_older(empty: Settings, run_cli) -> None:
    environ = {"MYHEALTH_DATABASE_URL": empty.database_url, "MYHEALTH_MONGO_URL": empty.mongo_url}
    done = run_cli("users", "list", env=environ)
    assert done.returncode == 78
    assert f"the database is empty, this program needs {NEWEST}: run `myhealth migrate`" in done.stderr
    assert run_cli("migrate", "--status", env=environ).returncode == 1
    up = run_cli("migrate", env=environ)
    assert (up.returncode, up.stdout.splitlines()[0]) == (0, "applied 0001_users")
    assert run_cli("migrate", "--status", env=environ).returncode == 0
    assert run_cli("users", "list", env=environ).returncode == 0
    assert run_cli("migrate", env=environ).stdout == "The schema is up to date.\n"


def test_a_command_says_that_the_schema_is_newer(empty: Settings) -> None:
    stores.migrate(empty)
    database.execute_sql("insert into schema_migration (name, applied) values ('9999_from_the_future', now())")
    database.execute_sql("comment on table schema_migration is null")
    with pytest.raises(SchemaMismatch, match=f"newer than this program \\({NEWEST}\\): upgrade myhealth"):
        stores.open_database(empty)


def test_going_down_asks_first(empty: Settings, run_cli) -> None:
    stores.migrate(empty)
    environ = {"MYHEALTH_DATABASE_URL": empty.database_url, "MYHEALTH_MONGO_URL": empty.mongo_url}
    refused = run_cli("migrate", "--to", "4", env=environ, stdin="n\n")
    assert refused.returncode == 2
    assert "add --yes to confirm" in refused.stderr
    assert stores.schema_numbers()[0] == NEWEST
    done = run_cli("migrate", "--to", "4", "--yes", env=environ)
    assert "reverted 0005_feed" in done.stdout
    assert stores.schema_numbers()[0] == 4


def test_existing_accounts_are_linked_and_nobody_is_lost_where_two_names_are_one_now(empty: Settings) -> None:
    stores.migrate(empty, 8)
    names = (
        "asha.roy",
        "squatter",
        "\u03bf\u03b4\u03bf\u03c2",
        "\u039f\u0394\u039f\u03a3",
        "Zoe\u0308",
        "\u03bf\u03b4\u03bf\u03c3-4",
    )
    for name in names:
        database.execute_sql("insert into users (username, role) values (%s, 'patient')", (name,))
    register = (
        "insert into audit_events (action, subject_id, subject, outcome) values ('register', 2, 'squatter', 'done')"
    )
    database.execute_sql(register)
    stores.migrate(empty)
    columns = "select id, username, folded_name, linked_at = created_at, needs_review from users order by id"
    assert database.execute_sql(columns).fetchall() == [
        (1, "asha.roy", "asha.roy", True, False),
        (2, "squatter", "squatter", True, True),
        (3, "\u03bf\u03b4\u03bf\u03c2", "\u03bf\u03b4\u03bf\u03c3", None, True),
        (4, "\u039f\u0394\u039f\u03a3-4-", "\u03bf\u03b4\u03bf\u03c3-4-", None, True),
        (5, "Zoe\u0308", "zo\u00eb", True, False),
        (6, "\u03bf\u03b4\u03bf\u03c3-4", "\u03bf\u03b4\u03bf\u03c3-4", True, False),
    ]
    renamed = "select subject_id, subject, details->>'changed' from audit_events where action = 'user.change'"
    assert database.execute_sql(renamed).fetchall() == [
        (4, "\u039f\u0394\u039f\u03a3", "username \u039f\u0394\u039f\u03a3-4-")
    ]
    # Writers that do not fold, such as the release before, still get a name by which the user is found.
    database.execute_sql("insert into users (username) values ('Old.Writer')")
    database.execute_sql("update users set username = 'Renamed' where username = 'asha.roy'")
    found = database.execute_sql("select folded_name from users where id in (1, 7) order by id").fetchall()
    assert found == [("renamed",), ("old.writer",)]
