"""examples/backup.sh and restore.sh: each store alone, and both at different moments, until `verify` is clean."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pymongo
import pytest
from support.factories import dump, record
from support.paths import ROOT

from myhealth.common.settings import Settings

pytestmark = pytest.mark.process
NAME, ROLE = "myhealth_test_backup", "myhealth_test_backup_role"
Run = Callable[..., subprocess.CompletedProcess[str]]


class Site:
    """Both stores of a MyHealth of its own, and its commands."""

    def __init__(self, postgres: Any, mongo: Any, run_cli: Run, folder: Path) -> None:
        self.postgres, self.folder, self._run_cli = postgres, folder, run_cli
        self.database_url, self.mongo_url = postgres.url_of(NAME), mongo.url_of(NAME)
        self.client: Any = pymongo.MongoClient(self.mongo_url)
        own = {"MYHEALTH_DATABASE_URL": self.database_url, "MYHEALTH_MONGO_URL": self.mongo_url}
        own |= {"MYHEALTH_SECRET_KEY": "a secret of the tests, 32 bytes and more", "PYTHON": sys.executable}
        self.environ = {**os.environ, **own, "PATH": f"{postgres.bin()}:{os.environ['PATH']}"}

    def make_empty(self, *stores: str) -> None:
        if "postgresql" in stores:
            self.postgres.make_database(NAME, anew=True)
        if "mongodb" in stores:
            self.client.drop_database(NAME)

    def run(self, *words: str, code: int = 0) -> str:
        done = self._run_cli(*words, env=self.environ)
        assert done.returncode == code, (words, done.stdout, done.stderr)
        return done.stdout + done.stderr

    def script(self, name: str, *words: str, code: int = 0) -> str:
        """Run a script of the examples."""
        done = subprocess.run(
            [str(ROOT / "examples" / name), *words], env=self.environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stderr
        return done.stdout.strip() + done.stderr

    def take(self, *numbers: int) -> None:
        path = self.folder / "dump.json"
        path.write_bytes(dump([record(n) for n in numbers]))
        self.run("import-machine", "--create-patients", str(path))
        self.run("sync", "--once")

    def look(self, who: str) -> None:
        """Somebody opens a report."""
        self.client[NAME].audit_events.insert_one({"_id": who, "actor": who})

    def rows(self) -> list[str]:
        with psycopg2.connect(self.database_url) as connection, connection.cursor() as cursor:
            cursor.execute("select record_id from checkups order by 1")
            found = [record_id for (record_id,) in cursor.fetchall()]
        connection.close()
        return found

    def documents(self) -> int:
        return int(self.client[NAME].reports.count_documents({}))

    def looks(self) -> set[str]:
        return {event["_id"] for event in self.client[NAME].audit_events.find({"actor": {"$regex": "^look"}})}

    def is_whole(self) -> None:
        """After a restore: what README.md tells to do, and that nothing differs."""
        self.run("migrate")
        self.run("sync", "--once")
        assert "No difference" in self.run("verify")
        self.run("migrate", "--check")


@pytest.fixture
def site(postgres: Any, mongo: Any, run_cli: Run, settings: Settings, tmp_path: Path) -> Iterator[Site]:
    """A site with records 1 and 2, a look, a role with rights, and then a backup; record 3 and a look came later."""
    found = Site(postgres, mongo, run_cli, tmp_path)
    found.make_empty("postgresql", "mongodb")
    admin = psycopg2.connect(settings.database_url)
    admin.autocommit = True
    with admin.cursor() as cursor:
        cursor.execute(f"drop role if exists {ROLE}")
        cursor.execute(f"create role {ROLE} login")
    found.run("migrate", "--upload-role", ROLE)
    found.take(1, 2)
    found.look("look-1")
    found.backup = found.script("backup.sh", str(tmp_path / "backups"))  # type: ignore[attr-defined]
    found.take(3)
    found.look("look-2")
    yield found
    found.client.drop_database(NAME)
    found.client.close()
    found.postgres.make_database(NAME, anew=True)
    with admin.cursor() as cursor:
        cursor.execute(f"drop role if exists {ROLE}")
    admin.close()


def test_a_backup_is_whole_and_private(site: Any) -> None:
    folder = Path(site.backup)
    assert {path.name for path in folder.iterdir()} == {
        "roles.sql",
        "postgresql.dump",
        "audit_events.bson.gz",
        "SHA256SUMS",
    }
    assert all(path.stat().st_mode & 0o077 == 0 for path in (folder, *folder.iterdir()))
    assert f"CREATE ROLE {ROLE}" in (folder / "roles.sql").read_text()
    (folder / "postgresql.dump").write_bytes(b"damaged")
    site.make_empty("postgresql")
    site.script("restore.sh", str(folder), code=1)


def test_postgresql_alone(site: Any) -> None:
    """What came in after the backup is lost, and gone from the report store too; nothing else differs."""
    assert "has tables; nothing was restored" in site.script("restore.sh", site.backup, "postgresql", code=1)
    assert len(site.rows()) == 3
    site.make_empty("postgresql")
    site.script("restore.sh", site.backup, "postgresql")
    assert site.rows() == ["1", "2"]
    with psycopg2.connect(site.database_url) as connection, connection.cursor() as cursor:
        cursor.execute("select has_table_privilege(%s, 'checkups', 'insert')", (ROLE,))
        assert cursor.fetchone() == (True,)
    connection.close()
    stopped = site.run("sync", "--once", code=78)  # a third of the documents would go: it could be the wrong database
    assert "--expect-removals 1" in stopped
    site.run("sync", "--once", "--restart", "--expect-removals", "1")
    site.is_whole()
    assert site.documents() == 2
    assert site.looks() == {"look-1", "look-2"}


@pytest.mark.long
def test_mongodb_alone(site: Any) -> None:
    """Nothing is lost but the looks since the backup."""
    site.make_empty("mongodb")
    site.script("restore.sh", site.backup, "audit_events")
    site.is_whole()
    assert (site.documents(), site.looks()) == (3, {"look-1"})
    site.script("restore.sh", site.backup, "audit_events")
    assert site.looks() == {"look-1"}, "a second time changes nothing"


@pytest.mark.long
def test_both_at_different_moments(site: Any) -> None:
    """PostgreSQL from the backup, MongoDB's data folder from another moment: later, as it is, or earlier."""
    early = {name: [*site.client[NAME][name].find()] for name in ("reports", "users", "sync_state", "audit_events")}
    site.take(4)
    site.make_empty("postgresql", "mongodb")
    for name, documents in early.items():
        site.client[NAME][name].insert_many(documents)
    site.script("restore.sh", site.backup)
    site.run("sync", "--once", "--restart", "--expect-removals", "1")
    site.is_whole()
    assert (site.rows(), site.documents()) == (["1", "2"], 2)
    assert site.looks() == {"look-1", "look-2"}
