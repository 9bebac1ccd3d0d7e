"""How quick the sync and `verify` are, against a floor in the same run: plain code without a guarantee.

    .venv/bin/python tests/benchmarks/bench_sync.py [--rows 200000] [--large 2000000] [--rounds 3] [--floor SCRIPT]

Servers of its own, in a temporary folder (--folder PATH keeps them for the next run); each figure is a median of the
rounds, each step a process of its own. --floor SCRIPT runs that script, with --database-url and --mongo-url, in the
place of the floor below. Compare ratios of one run only.
"""

from __future__ import annotations

import argparse
import os
import queue
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psycopg2
import pymongo

from myhealth import stores
from myhealth.common.settings import Settings, child_environ
from myhealth.embedded.mongo import Mongo
from myhealth.embedded.postgres import Postgres
from myhealth.reports.repository import ReportRepository

NAME = "myhealth_bench_test"
FLOOR_COLUMNS = [
    "_id",
    "patient_id",
    "checkup_type",
    "checkup_report",
    "disease",
    "machine",
    "taken_by",
    "taken_at",
    "created_at",
    "updated_at",
    "results",
    "revision",
]
FLOOR_SELECT = (
    "select c.id, c.patient_id, c.checkup_type, c.checkup_report, c.disease, m.serial, c.taken_by, c.taken_at,"
    " c.created_at, c.updated_at, c.results, c.revision from checkups c left join machines m on m.id = c.machine_id"
    " order by c.id"
)
PEOPLE = "insert into users (username) select 'patient' || i from generate_series(0, 1999) i on conflict do nothing"
MACHINE = "insert into machines (serial) values ('HC-BENCH-1') on conflict do nothing"
# Two results a record, about 470 bytes as JSON, as a machine's dump has them.
FILL = """
insert into checkups (patient_id, machine_id, record_id, checkup_type, checkup_report, disease, taken_by, taken_at, results)
select (select min(id) from users) + (i * 7919) %% 2000, (select min(id) from machines), (%(first)s + i)::text,
       'BLOOD PRESSURE', format('Seated, left arm. %%s/%%s', s, d), 'BP', 'dr.' || i %% 40,
       timestamptz '2026-01-01 07:00+05:30' + i * interval '2 minutes',
       jsonb_build_array(
         jsonb_build_object('code', '8480-6', 'name', 'Systolic blood pressure', 'value', s, 'unit', 'mm[Hg]',
                            'low', 90, 'high', 120, 'flag', case when s > 120 then 'H' when s < 90 then 'L' else 'N' end),
         jsonb_build_object('code', '8462-4', 'name', 'Diastolic blood pressure', 'value', d, 'unit', 'mm[Hg]',
                            'low', 60, 'high', 80, 'flag', case when d > 80 then 'H' when d < 60 then 'L' else 'N' end))
from (select i::bigint as i, 85 + (i * 31) %% 100 as s, 50 + (i * 17) %% 65 as d from generate_series(1, %(count)s) i) as made"""


def floor(database_url: str, mongo_url: str, batch: int = 2000) -> float:
    """Rows a second of a server-side cursor and `insert_many`, in a thread each: no mark, no edits, no guarantee."""
    batches: queue.Queue = queue.Queue(4)

    def read() -> None:
        with psycopg2.connect(database_url) as connection, connection.cursor(name="floor") as cursor:
            cursor.itersize = batch
            cursor.execute(FLOOR_SELECT)
            while rows := cursor.fetchmany(batch):
                batches.put([dict(zip(FLOOR_COLUMNS, row, strict=True)) for row in rows])
        batches.put(None)

    collection = pymongo.MongoClient(mongo_url).get_default_database()["floor_reports"]
    collection.drop()
    started, count = time.perf_counter(), 0
    threading.Thread(target=read, daemon=True).start()
    while (documents := batches.get()) is not None:
        collection.insert_many(documents, ordered=False)
        count += len(documents)
    rate = count / (time.perf_counter() - started)
    collection.drop()
    return rate


class Bench:
    def __init__(self, folder: Path, script: str) -> None:
        self.postgres, self.mongo = Postgres(folder), Mongo(folder)
        self.postgres.ensure()
        self.postgres.make_database(NAME)
        self.mongo.ensure()
        self.settings = Settings(
            database_url=self.postgres.url_of(NAME), mongo_url=self.mongo.url_of(NAME), data_dir=str(folder),
            secret_key="a secret of the benchmark, 32 bytes and more",
        )  # fmt: skip
        self.script = script
        stores.bind_database(self.settings)
        stores.migrate(self.settings)
        stores.close_database()

    def sql(self, statement: str, **values: int) -> None:
        with psycopg2.connect(self.settings.database_url) as connection, connection.cursor() as cursor:
            cursor.execute(statement, values or None)
        connection.close()

    def fill(self, rows: int) -> None:
        """Brings the check-ups to so many."""
        self.sql(PEOPLE)
        self.sql(MACHINE)
        with psycopg2.connect(self.settings.database_url) as connection, connection.cursor() as cursor:
            cursor.execute("select count(*), coalesce(max(record_id::bigint), 0) from checkups")
            there, first = cursor.fetchone()  # type: ignore[misc]
            if there < rows:
                cursor.execute(FILL, {"count": rows - there, "first": first})
        connection.close()
        connection = psycopg2.connect(self.settings.database_url)
        connection.autocommit = True
        connection.cursor().execute("vacuum analyze")
        connection.close()

    def empty_store(self) -> None:
        repository = ReportRepository.connect(self.settings.mongo_url)
        repository.drop()
        repository.make_indexes()
        repository.close()

    def floor(self) -> float:
        """Rows a second, in a process of its own."""
        urls = ["--database-url", self.settings.database_url, "--mongo-url", self.settings.mongo_url]
        words = [self.script, *urls] if self.script else [__file__, "--only-floor", *urls]
        said = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True).stdout
        return float(re.search(r"(\d+) rows/s", said)[1])  # type: ignore[index]

    def run(self, *words: str) -> tuple[float, float, str]:
        """A command: seconds of its whole process, its peak memory in MB, and what it said."""
        with tempfile.TemporaryFile("w+") as said:
            started = time.perf_counter()
            process = subprocess.Popen(
                [sys.executable, "-m", "cli", *words], stdout=said, stderr=said, env=child_environ(self.settings)
            )
            peak = peak_until_end(process)
            secs = time.perf_counter() - started
            said.seek(0)
            text = said.read()
        if process.returncode:
            raise SystemExit(f"{words} ended with {process.returncode}: {text}")
        return secs, peak, text


def peak_until_end(process: subprocess.Popen[bytes]) -> float:
    """Wait for a process; its peak memory in MB. (Its `ru_maxrss` begins with the memory of this process.)"""
    file, peak = Path(f"/proc/{process.pid}/status"), 0
    while process.poll() is None:
        if found := re.search(r"VmHWM:\s+(\d+)", file.read_text()):  # none once it has ended
            peak = int(found[1])
        time.sleep(0.005)
    return peak / 1024


def pass_s(said: str) -> float:
    return float(re.findall(r"secs=([\d.]+)", said)[-1])


def show(name: str, figure: str) -> None:
    print(f"{name:48} {figure}", flush=True)


def measure(bench: Bench, rows: int, rounds: int) -> None:
    figures: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        figures.setdefault(name, []).append(value)

    bench.fill(rows)
    for _ in range(rounds):
        note("floor", bench.floor())
        bench.empty_store()
        secs, memory, said = bench.run("-v", "sync", "--once")
        note("first", rows / pass_s(said))
        note("first_s", secs)
        note("first_mb", memory)
        _, memory, said = bench.run("-v", "sync", "--restart", "--once")
        note("again", rows / pass_s(said))
        note("again_mb", memory)
        secs, memory, _ = bench.run("verify")
        note("verify_s", secs)
        note("verify_mb", memory)
        for _ in range(3):
            note("empty_s", bench.run("sync", "--once")[0])
        bench.sql(FILL, count=1000, first=10_000_000)
        note("thousand_s", bench.run("sync", "--once")[0])
        bench.sql("delete from checkups where record_id::bigint > 10000000")
        bench.run("sync", "--once")
    middle = {name: statistics.median(values) for name, values in figures.items()}
    show("floor", f"{middle['floor']:,.0f} rows/s")
    show("first sync", f"{middle['first']:,.0f} rows/s, {middle['first'] / middle['floor']:.2f} of the floor")
    show(
        "  as a whole process",
        f"{middle['first_s']:.2f} s, {rows / middle['first_s'] / middle['floor']:.2f} of the floor",
    )
    show("  peak memory", f"{middle['first_mb']:.0f} MB")
    show(
        "again, over documents (--restart)",
        f"{middle['again']:,.0f} rows/s, {middle['again'] / middle['floor']:.2f} of the floor",
    )
    show("  peak memory", f"{middle['again_mb']:.0f} MB")
    show(
        "verify, whole process",
        f"{middle['verify_s']:.2f} s, {middle['verify_s'] / middle['first_s']:.2f} of the first sync",
    )
    show("  peak memory", f"{middle['verify_mb']:.0f} MB")
    show("empty pass, whole process", f"{middle['empty_s']:.3f} s")
    show(
        "pass with 1,000 new rows, whole process",
        f"{middle['thousand_s']:.3f} s, {middle['thousand_s'] - middle['empty_s']:.3f} s over an empty one",
    )


def measure_large(bench: Bench, rows: int, rounds: int) -> None:
    bench.fill(rows)
    secs, memory, said = bench.run("-v", "sync", "--once")
    show(f"on to {rows:,} check-ups", f"{pass_s(said):.1f} s, {memory:.0f} MB")
    secs, memory, _ = bench.run("verify")
    show(f"verify of {rows:,}", f"{secs:.1f} s, {memory:.0f} MB")
    empty = statistics.median(bench.run("sync", "--once")[0] for _ in range(3 * rounds))
    show(f"empty pass with {rows:,}, whole process", f"{empty:.3f} s")


def main() -> None:
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its byte code
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--large", type=int, default=0, help="then grow to so many check-ups, and look again")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--floor", default="", help="a script to run in the place of the floor here")
    parser.add_argument("--folder", default="", help="where the servers live; kept for the next run")
    parser.add_argument("--only-floor", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--database-url", help=argparse.SUPPRESS)
    parser.add_argument("--mongo-url", help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.only_floor:
        print(f"sync floor: {floor(words.database_url, words.mongo_url):.0f} rows/s")
        return
    folder = Path(words.folder or tempfile.mkdtemp(prefix="myhealth-bench-"))
    folder.mkdir(exist_ok=True)
    folder.chmod(0o711)
    bench = Bench(folder, words.floor)
    try:
        measure(bench, words.rows, words.rounds)
        if words.large:
            measure_large(bench, words.large, words.rounds)
    finally:
        bench.mongo.stop()
        bench.postgres.stop()
        if not words.folder:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
