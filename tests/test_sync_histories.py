"""Stores that are set back in time, copied, restored elsewhere or promoted: transaction ids and row ids come a second
time, with other content, and both stores say the same in the end."""

import dataclasses
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from support.compare import NONE, asking, differences
from support.servers import DATABASE_NAME, copy_data, crash, set_back
from support.sync_processes import Writers, carry_over, syncing, wait_for

from myhealth import stores
from myhealth.common.settings import Settings
from myhealth.embedded.mongo import Mongo
from myhealth.embedded.postgres import Postgres

pytestmark = [pytest.mark.usefixtures("people"), pytest.mark.long]

ANEW = "reading everything anew"
XID = "select pg_current_xact_id()"
# Every insert in a block that may fail has a transaction id of its own.
BURN = """
do $$ begin
    create temp table burnt (n integer);
    for n in 1..%s loop begin insert into burnt values (n); exception when others then raise; end; end loop;
    drop table burnt;
end $$"""


@pytest.fixture(autouse=True)
def there_again(postgres: Postgres, mongo: Mongo) -> Iterator[None]:
    """Whatever a test has left of the servers."""
    yield
    stores.close_database()
    postgres.ensure()
    mongo.ensure()


@pytest.fixture
def other(data_dir: Path) -> Iterator[Postgres]:
    """A further PostgreSQL server, which has nothing yet and does not run."""
    server = Postgres(data_dir / "other")
    yield server
    if server.pid() is not None:
        server.stop()
    shutil.rmtree(server.root, ignore_errors=True)


def write_a_while(url: str, seconds: float = 0.5) -> None:
    """Hundreds of changes of all kinds."""
    with Writers(url) as writers:
        time.sleep(seconds)
        wait_for(lambda: writers.commits > 20)


def moved_to(settings: Settings, server: Postgres) -> Settings:
    return dataclasses.replace(settings, database_url=server.url_of(DATABASE_NAME))


def check_new_life(settings: Settings, reports: object, reason: str, *words: str) -> None:
    """The sync notices what has become of its source, and from then on all is as ever."""
    write_a_while(settings.database_url)
    said = carry_over(settings, *words)
    assert reason in said
    with asking(settings.database_url) as there:
        assert differences(there, reports) == NONE
        write_a_while(settings.database_url)
        assert ANEW not in carry_over(settings)
        assert differences(there, reports) == NONE


@pytest.mark.parametrize("with_epoch", [False, True], ids=["same epoch", "an epoch later"])
def test_mongodb_restored_from_an_older_copy_of_its_folder_catches_up(db, reports, settings, mongo, with_epoch) -> None:
    write_a_while(settings.database_url)
    carry_over(settings)
    mongo.stop()
    copy_data(mongo.data, mongo.folder / "copy", mongo)
    mongo.ensure()
    write_a_while(settings.database_url)
    carry_over(settings)
    if with_epoch:
        with syncing(settings, "--once", "--restart") as process:
            assert process.wait(60) == 0
        carry_over(settings)
    write_a_while(settings.database_url)
    carry_over(settings)
    mongo.stop()
    set_back(mongo, mongo.folder / "copy")
    mongo.ensure()
    assert differences(db, reports) != NONE
    assert ANEW not in carry_over(settings)
    assert differences(db, reports) == NONE


def dump(server: Postgres, path: Path) -> None:
    words = [str(server.bin() / "pg_dump"), "--format=custom", f"--file={path}", server.url_of(DATABASE_NAME)]
    subprocess.run(words, check=True, timeout=60)


def restore(server: Postgres, path: Path, *options: str) -> None:
    words = [
        str(server.bin() / "pg_restore"),
        "--exit-on-error",
        *options,
        f"--dbname={server.url_of(DATABASE_NAME)}",
        str(path),
    ]
    subprocess.run(words, check=True, timeout=60)


@pytest.mark.parametrize("further", ["the old cluster", "the new cluster"])
def test_a_dump_restored_into_another_cluster(db, reports, settings, postgres, other, tmp_path, further: str) -> None:
    """Its rows bring along the transaction ids of the old one: from the future, or from long ago."""
    other.ensure()
    other.make_database(DATABASE_NAME)
    with asking(settings.database_url) as old, asking(other.url_of(DATABASE_NAME)) as new:
        ahead = int(old(XID)[0][0]) - int(new(XID)[0][0])
        burning, behind = (old, -ahead) if further == "the old cluster" else (new, ahead)
        burning(BURN % max(1, behind + 5000))
    write_a_while(settings.database_url)
    dump(postgres, tmp_path / "dump")
    write_a_while(settings.database_url)
    carry_over(settings)
    restore(other, tmp_path / "dump")
    moved = moved_to(settings, other)
    with asking(moved.database_url) as there:
        ((highest, current),) = there("select max(changed_in), pg_current_xact_id() from checkups")
        assert (int(highest) > int(current)) == (further == "the old cluster")
    # The dump is old, by these writers' pace: more than a tenth of the documents may go, which must be asked for.
    check_new_life(moved, reports, "it was asked for", "--restart", "--expect-removals", "1000000")
    restore(other, tmp_path / "dump", "--clean")
    check_new_life(moved, reports, "the tables were made anew")


def test_rows_that_are_loaded_while_triggers_are_off(db, reports, settings, postgres, tmp_path) -> None:
    """They bring along transaction ids from long ago, below the mark, in tables that are still the same."""
    write_a_while(settings.database_url)
    dump(postgres, tmp_path / "dump")
    write_a_while(settings.database_url)
    carry_over(settings)
    db("truncate users, machines, checkups cascade")
    tables = ["--table=users", "--table=machines", "--table=checkups"]
    restore(postgres, tmp_path / "dump", "--data-only", "--disable-triggers", *tables)
    said = carry_over(settings)
    for table in ("users", "checkups"):
        for (name,) in db("select tgname from pg_trigger where tgrelid = %s::regclass and tgenabled = 'O'"
                          " and not tgisinternal", table):  # fmt: skip
            db(f"alter table {table} enable always trigger {name}")
    assert differences(db, reports) == NONE
    assert "the tables were made anew, or their triggers were off" in said


OFF = "PostgreSQL's tables have no triggers, or they are off: perhaps it is being restored"


def refused(settings: Settings) -> str:
    """What a pass says that ends with 75."""
    with syncing(settings, "--once") as process:
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 75, said
    return said


def test_a_pass_in_the_middle_of_a_restore(db, reports, settings, postgres, other, tmp_path) -> None:
    """What is loaded behind it has transaction ids from long ago, in tables that are no others afterwards: it waits."""
    write_a_while(settings.database_url)
    dump(postgres, tmp_path / "dump")
    carry_over(settings)
    other.ensure()
    other.make_database(DATABASE_NAME)
    words = [str(other.bin() / "pg_restore"), "--list", str(tmp_path / "dump")]
    contents = subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()
    late = [line for line in contents if " TABLE DATA public checkups " in line]
    assert len(late) == 1
    (tmp_path / "list").write_text("\n".join(line for line in contents if line not in late))
    restore(other, tmp_path / "dump", "--section=pre-data")
    restore(other, tmp_path / "dump", "--section=data", f"--use-list={tmp_path / 'list'}")
    moved = moved_to(settings, other)
    with asking(moved.database_url) as there:
        for _ in range(2000):
            there(XID)
        said = refused(moved)
        (tmp_path / "list").write_text(late[0])
        restore(other, tmp_path / "dump", "--section=data", f"--use-list={tmp_path / 'list'}")
        assert refused(moved) == said == f"Error: {OFF}\n"
        restore(other, tmp_path / "dump", "--section=post-data")
        carry_over(moved)
        assert there("select count(*) from checkups")[0][0] > 0
        assert differences(there, reports) == NONE
        write_a_while(moved.database_url)
        assert ANEW not in carry_over(moved)
        assert differences(there, reports) == NONE


@pytest.mark.parametrize("how", ["standby.signal", "recovery.signal"])
def test_a_copy_of_the_data_folder_goes_on_in_another_timeline(db, reports, settings, postgres, other, how) -> None:
    """An older copy is promoted, as in a failover to a standby that is behind, or in a restore from a backup."""
    write_a_while(settings.database_url)
    carry_over(settings)
    stores.close_database()
    postgres.stop()
    copy_of(postgres, other, how)
    postgres.ensure()
    write_a_while(settings.database_url)
    carry_over(settings)
    other.ensure()
    promote(other)
    check_new_life(moved_to(settings, other), reports, "PostgreSQL's history has branched (a restore or a failover)")
    if how == "standby.signal":  # and back
        check_new_life(settings, reports, "PostgreSQL's history has branched")


def copy_of(server: Postgres, copy: Postgres, how: str, settings: str = "restore_command = 'false'") -> None:
    """Makes a server of the data of one that is down; with `how` in its folder it starts in recovery."""
    copy.folder.mkdir(parents=True)
    copy_data(server.data, copy.data, server)
    (copy.data / how).touch()
    with (copy.data / "postgresql.auto.conf").open("a") as file:
        file.write(f"{settings}\n")
    copy.make_database = lambda *args, **options: None  # type: ignore[method-assign] # it cannot, and has it


def promote(server: Postgres) -> None:
    with asking(server.url_of("postgres")) as there:
        if (server.data / "standby.signal").exists():
            assert there("select pg_promote()") == [(True,)]
        wait_for(lambda: there("select pg_is_in_recovery()") == [(False,)])


def test_a_failover_to_a_standby_within_a_pass(db, reports, settings, postgres, other) -> None:
    """The loop and the writers name both servers. The primary dies with what the standby has not got yet."""
    stores.close_database()
    postgres.stop()
    copy_of(postgres, other, "standby.signal", f"primary_conninfo = 'host={postgres.run} user=myhealth'")
    postgres.ensure()
    other.ensure()
    hosts = ",".join(quote(str(server.run), safe="") for server in (postgres, other))
    url = f"postgresql://myhealth@/{DATABASE_NAME}?host={hosts}&target_session_attrs=read-write"
    both = dataclasses.replace(settings, database_url=url)
    with syncing(both, "--interval", "0.1", MYHEALTH_SYNC_BATCH_ROWS="20") as process, Writers(url):
        wait_for(lambda: reports.count()[0] > 50)
        time.sleep(1)
        epoch = reports.state.find_one({"_id": "mark"})["epoch"]
        crash(postgres, signal.SIGKILL)
        promote(other)
        wait_for(lambda: reports.state.find_one({"_id": "mark"})["epoch"] > epoch)
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 0, said
    assert "Traceback" not in said
    assert "PostgreSQL's history has branched" in said
    assert ANEW not in carry_over(both)
    with asking(url) as there:
        assert differences(there, reports) == NONE
