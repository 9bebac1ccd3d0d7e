"""An upgrade from a database that commit 8f8d06a left: nothing is lost, doubled, altered or revived."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bson
import psycopg2
import pymongo
import pytest
from support.paths import DATA, ROOT
from support.sync_processes import Writers, wait_for

from myhealth.common.settings import Settings

DUMP = DATA / "upgrade"
NAME = "myhealth_test_upgrade"
# Taken from the dump itself, by hand: what a person's stored values were before the upgrade.
VALUES = """
select users.username, serial, record_id, checkup_type, checkup_report, disease, taken_by, taken_at, results::text
from checkups join users on users.id = patient_id left join machines on machines.id = machine_id order by checkups.id"""

Run = Callable[..., subprocess.CompletedProcess[str]]


def load_sql(url: str, name: str) -> None:
    """Load pg_dump's plain text; psql's own commands and settings of other servers are left out."""
    lines = gzip.decompress((DUMP / name).read_bytes()).decode().splitlines()
    text = "\n".join(line for line in lines if not line.startswith(("\\", "SET transaction_timeout")))
    connection = psycopg2.connect(url)
    with connection, connection.cursor() as cursor:
        cursor.execute(text)
    connection.close()


@pytest.fixture(params=["postgresql.sql.gz"])
def old(request: Any, postgres: Any, mongo: Any, settings: Settings) -> Iterator[tuple[str, str]]:
    """Both stores as that commit left them; gives their URLs."""
    admin = psycopg2.connect(settings.database_url)
    admin.autocommit = True
    with admin.cursor() as cursor:
        cursor.execute(f"drop database if exists {NAME} with (force)")
        cursor.execute(f"create database {NAME} template template0 encoding 'UTF8'")
    database_url, mongo_url = postgres.url_of(NAME), mongo.url_of(NAME)
    load_sql(database_url, request.param)
    client: Any = pymongo.MongoClient(mongo_url)
    client.drop_database(NAME)
    for path in DUMP.glob("*.bson.gz"):
        client[NAME][path.name.partition(".")[0]].insert_many(bson.decode_all(gzip.decompress(path.read_bytes())))
    yield database_url, mongo_url
    client.drop_database(NAME)
    client.close()
    with admin.cursor() as cursor:
        cursor.execute(f"drop database if exists {NAME} with (force)")
    admin.close()


def rows(url: str, sql: str) -> list[tuple[Any, ...]]:
    connection = psycopg2.connect(url)
    with connection, connection.cursor() as cursor:
        cursor.execute(sql)
        found = cursor.fetchall()
    connection.close()
    return found


def without_sentences(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a check-up without the lines of its report that fields hold since."""
    lines = [line for line in row[4].splitlines() if not re.fullmatch(r"Status: .*|Only the \w+ is known\.", line)]
    return row if len(lines) == len(row[4].splitlines()) else (*row[:4], "\n".join(lines), *row[5:])


@pytest.fixture
def run(old: tuple[str, str], run_cli: Run, settings: Settings) -> Run:
    own = {"MYHEALTH_DATABASE_URL": old[0], "MYHEALTH_MONGO_URL": old[1], "MYHEALTH_DATA_DIR": settings.data_dir}
    environ = {**own, "MYHEALTH_SECRET_KEY": "a secret of the tests, 32 bytes and more"}
    return lambda *words, **options: run_cli(*words, env={**os.environ, **environ}, **options)


@pytest.mark.process
def test_an_upgrade_keeps_every_value_and_recognises_every_known_record(
    old: tuple[str, str], run: Run, tmp_path: Path
) -> None:
    before = rows(old[0], VALUES)
    assert len(before) == 335
    migrated = run("migrate")
    assert migrated.returncode == 0, migrated.stderr
    assert rows(old[0], VALUES) == [without_sentences(row) for row in before]
    before = rows(old[0], VALUES)
    assert run("sync", "--once").returncode == 0
    verified = run("verify")
    assert verified.returncode == 0, verified.stdout
    assert "No difference" in verified.stdout

    # Two of these five were corrected, two were deleted: all five are duplicates, and the deleted ones stay away.
    again = run("import-machine", str(ROOT / "examples" / "machine-dump.json"))
    assert "0 accepted, 5 duplicate, 0 rejected" in again.stdout, again.stdout + again.stderr
    people = json.loads(gzip.decompress((DATA / "people.json.gz").read_bytes()))
    people["records"] = people["records"][:300]
    (tmp_path / "people.json").write_text(json.dumps(people))
    again = run("import-machine", str(tmp_path / "people.json"))
    assert "0 accepted, 300 duplicate, 0 rejected" in again.stdout, again.stdout + again.stderr
    for sample in ("hl7v2/oru_r01_glucose.hl7", "fhir-r4/Observation-f001.json", "fhir-r4/Bundle-lipids.json"):
        again = run("import-machine", str(DATA / sample))
        assert " 0 accepted, " in again.stdout, again.stdout + again.stderr
        assert " 0 rejected" in again.stdout, again.stdout + again.stderr
    assert rows(old[0], VALUES) == before
    assert run("sync", "--once").returncode == 0
    assert run("verify").returncode == 0


@pytest.mark.process
@pytest.mark.parametrize("old", ["files.sql.gz"], indirect=True)
def test_every_file_of_another_format_is_known_again(old: tuple[str, str], run: Run) -> None:
    """FHIR and HL7 files that earlier readers stored with fewer facts. Two check-ups were corrected, two deleted."""
    assert run("migrate").returncode == 0
    before = rows(old[0], VALUES)
    assert len(before) == 103
    folders = [DATA / name for name in ("hl7v2", "fhir-r4", "bundles", "faults")]
    named = {name for (name,) in rows(old[0], "select distinct details->>'source' from audit_events") if name}
    files = [
        str(path) for folder in folders for path in sorted(folder.iterdir()) if f"{folder.name}/{path.name}" in named
    ]
    assert len(files) == 60
    again = json.loads(run("import-machine", "--create-patients", "--json", *files).stdout)
    assert [(each["file"], each) for each in again if each["accepted"]] == []
    refused = {Path(each["file"]).name for each in again if each["rejected"]}  # as they were then
    assert refused == {"Observation-decimal.json", "04-hex-escape.hl7"}
    # Two messages of training and of quality control are no patient's any more.
    assert sum(each["duplicate"] for each in again) == 105 - 2
    assert [row for row in rows(old[0], VALUES) if row in before] == before
    assert rows(old[0], "select count(*) from checkup_versions") == [(0,)]


@pytest.mark.process
@pytest.mark.long
def test_an_upgrade_with_clients_at_work(old: tuple[str, str], run: Run) -> None:
    """They write as the programs of that commit do, in transactions of any order, and none of them fails."""
    with Writers(old[0], 4, options="-c lock_timeout=20s") as writers:
        wait_for(lambda: writers.commits > 20)
        migrated = run("migrate")
        assert migrated.returncode == 0, migrated.stderr
        done = writers.commits
        wait_for(lambda: writers.commits > done + 20)
        assert run("sync", "--once").returncode == 0
    assert "timeout" not in migrated.stderr
    assert run("migrate", "--check").returncode == 0
    assert run("sync", "--once").returncode == 0
    verified = run("verify")
    assert verified.returncode == 0, verified.stdout
    assert "No difference" in verified.stdout
