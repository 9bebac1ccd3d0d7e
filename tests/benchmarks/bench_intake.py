"""How quick imports and uploads are, against a ceiling in the same run: COPY of ready rows, no parsing, no checks.

    .venv/bin/python tests/benchmarks/bench_intake.py [--rows 100000] [--large 1000000] [--rounds 3]
        [--only import,memory,fhir,hl7,bulk,single,login] [--ceiling SCRIPT]

PostgreSQL of its own, in a temporary folder (--folder PATH keeps it for the next run). Each figure is a median of the
rounds, turn and turn about with its ceiling; an import is a process of its own and timed with its start. --ceiling
SCRIPT runs that script, with --database-url, in the place of the ceiling below. Compare ratios of one run only.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import io
import json
import os
import random
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bcrypt
import psycopg2
from bench_sync import peak_until_end

from myhealth import processes, stores
from myhealth.common.database import transaction
from myhealth.common.settings import Settings, child_environ
from myhealth.embedded.postgres import Postgres
from myhealth.profiles.passwords import hash_password
from myhealth.profiles.services import create_user

NAME = "myhealth_bench_test"
PATIENTS, DAYS, PASSWORD, CLIENTS, BULK_RECORDS = 2000, 28, "correct-horse", 4, 1000
PEOPLE = (
    "insert into users (username, linked_at)"
    " select 'patient' || i, now() from generate_series(0, %s) i on conflict do nothing"
)
COLUMNS = "patient_id, machine_id, record_id, checkup_type, checkup_report, disease, taken_by, taken_at, results"


def record(rng: random.Random, number: int) -> dict[str, Any]:
    """A blood pressure with two results: about 470 bytes of JSON."""
    systolic, diastolic = rng.randint(85, 185), rng.randint(50, 115)
    moment = f"2026-{rng.randint(1, 10):02}-{rng.randint(1, DAYS):02}T{rng.randint(7, 18):02}:{rng.randint(0, 59):02}"
    return {
        "record_id": str(number),
        "checkup_for": f"patient{rng.randrange(PATIENTS)}",
        "taken_by": f"dr.{rng.randrange(40)}",
        "taken_at": f"{moment}:00+05:30",
        "checkup_type": "BLOOD PRESSURE",
        "disease": "BP",
        "checkup_report": f"Seated, left arm. {systolic}/{diastolic}",
        "results": [
            result("8480-6", "Systolic blood pressure", systolic, 90, 120),
            result("8462-4", "Diastolic blood pressure", diastolic, 60, 80),
        ],
    }


def result(code: str, name: str, value: int, low: int, high: int) -> dict[str, Any]:
    flag = "H" if value > high else "L" if value < low else "N"
    return {"code": code, "name": name, "value": value, "unit": "mm[Hg]", "low": low, "high": high, "flag": flag}


def write_dump(path: Path, count: int, serial: str) -> None:
    rng = random.Random(f"{count} {serial}")
    with path.open("w") as file:
        machine = json.dumps({"serial": serial})
        file.write(f'{{"format": "myhealth.machine-memory/1", "machine": {machine}, "records": [\n')
        for number in range(1, count + 1):
            file.write(json.dumps(record(rng, number)) + (",\n" if number < count else "\n"))
        file.write("]}\n")


def write_fhir(path: Path, count: int, _: str) -> None:
    """A Bundle of Observations, each with the two components of a blood pressure."""
    rng = random.Random(count)
    with path.open("w") as file:
        file.write('{"resourceType": "Bundle", "type": "collection", "entry": [\n')
        for number in range(1, count + 1):
            made = record(rng, number)
            coding = [{"system": "http://loinc.org", "code": "85354-9", "display": "Blood pressure"}]
            observation = {
                "resourceType": "Observation",
                "id": str(number),
                "status": "final",
                "code": {"coding": coding},
                "subject": {"identifier": {"value": made["checkup_for"]}},
                "effectiveDateTime": made["taken_at"],
                "component": [
                    {
                        "code": {
                            "coding": [{"system": "http://loinc.org", "code": each["code"]}],
                            "text": each["name"],
                        },
                        "valueQuantity": {"value": each["value"], "unit": each["unit"], "code": each["unit"]},
                    }
                    for each in made["results"]
                ],
            }
            file.write(json.dumps({"resource": observation}) + (",\n" if number < count else "\n"))
        file.write("]}\n")


def write_hl7(path: Path, count: int, serial: str) -> None:
    """Messages ORU^R01, each with the two OBX of a blood pressure."""
    rng = random.Random(count)
    with path.open("w", newline="") as file:
        for number in range(1, count + 1):
            made = record(rng, number)
            at = re.sub(r"[-:T]", "", made["taken_at"][:19]) + "+0530"
            file.write(f"MSH|^~\\&|{serial}|PUNE|||{at}||ORU^R01^ORU_R01|{number}|P|2.5.1\r")
            file.write(f"PID|1||{made['checkup_for']}\rOBR|1||{number}|85354-9^Blood pressure^LN|||{at}\r")
            for place, each in enumerate(made["results"], 1):
                what, span = f"{each['code']}^{each['name']}^LN", f"{each['low']}-{each['high']}"
                file.write(f"OBX|{place}|NM|{what}||{each['value']}|{each['unit']}|{span}|{each['flag']}|||F\r")


class Bench:
    """One run: the server, its ceiling, and the folder of the dumps."""

    def __init__(self, settings: Settings, folder: Path, ceiling: str) -> None:
        self.settings, self.folder, self.ceiling_script = settings, folder, ceiling
        self.serials = 0

    @contextlib.contextmanager
    def cursor(self) -> Iterator[Any]:
        connection = psycopg2.connect(self.settings.database_url)
        connection.autocommit = True
        with connection.cursor() as cursor:
            yield cursor
        connection.close()

    def empty(self) -> None:
        """As before the first upload: no check-up, and nothing left to vacuum or to write back."""
        with self.cursor() as cursor:
            cursor.execute("truncate checkups, rejections, tombstones, idempotency_keys restart identity cascade")
            cursor.execute("delete from machines")
            cursor.execute("checkpoint")

    def rows(self) -> int:
        with self.cursor() as cursor:
            cursor.execute("select count(*) from checkups")
            return int(cursor.fetchone()[0])

    def ceiling(self, rows: int) -> float:
        """Rows a second of one COPY of prepared rows, in a transaction that is rolled back."""
        self.empty()
        if self.ceiling_script:
            words = [sys.executable, self.ceiling_script, "--database-url", self.settings.database_url]
            said = subprocess.run([*words, "--rows", str(rows)], check=True, capture_output=True, text=True).stdout
            return float(re.findall(r"([0-9.]+) rows/s", said)[0])
        with psycopg2.connect(self.settings.database_url) as connection, connection.cursor() as cursor:
            data = io.StringIO("".join("\t".join(map(str, row)) + "\n" for row in self.ready_rows(cursor, rows)))
            start = time.perf_counter()
            cursor.copy_expert(f"copy checkups ({COLUMNS}) from stdin", data)
            seconds = time.perf_counter() - start
            connection.rollback()
        connection.close()
        return rows / seconds

    def ready_rows(self, cursor: Any, count: int) -> list[tuple[Any, ...]]:
        """Rows with nothing left to find out."""
        cursor.execute("select id from users order by id limit %s", (PATIENTS,))
        users = [id_ for (id_,) in cursor.fetchall()]
        cursor.execute("insert into machines (serial) values ('ceiling') returning id")
        machine = cursor.fetchone()[0]
        made = record(random.Random(0), 1)
        told = ("checkup_type", "checkup_report", "disease", "taken_by", "taken_at")
        rest = (*(made[name] for name in told), json.dumps(made["results"]))
        return [(users[i % len(users)], machine, i, *rest) for i in range(count)]

    def one_by_one(self, rows: int) -> float:
        """Rows a second of plain psycopg2: an INSERT and a commit each."""
        self.empty()
        connection = psycopg2.connect(self.settings.database_url)
        with connection.cursor() as cursor:
            ready = self.ready_rows(cursor, rows)
            marks = ", ".join(["%s"] * len(ready[0]))
            start = time.perf_counter()
            for row in ready:
                cursor.execute(f"insert into checkups ({COLUMNS}) values ({marks})", row)
                connection.commit()
            seconds = time.perf_counter() - start
        connection.close()
        return rows / seconds

    def import_file(self, path: Path, rows: int) -> tuple[float, float]:
        """(rows a second, peak memory in MB) of `myhealth import-machine`, from process start to its end."""
        self.empty()
        start = time.perf_counter()
        words = [sys.executable, "-m", "cli", "import-machine", str(path)]
        process = subprocess.Popen(words, env=child_environ(self.settings, ()), stdout=subprocess.DEVNULL)
        peak = peak_until_end(process)
        seconds = time.perf_counter() - start
        assert process.returncode == 0
        assert self.rows() == rows
        return rows / seconds, peak

    def upload(self, port: int, token: str, bodies: list[list[bytes]]) -> float:
        """Records a second that clients upload at once, a body a request; every record is in the store behind it."""
        self.empty()
        gone_wrong: list[Any] = []

        head = f"POST /checkups/ HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\nContent-Length: "

        def client(mine: list[bytes]) -> None:
            # on a bare socket: the clients' own work would take from the servers' two cores what it is not meant to
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for body in mine:
                    connection.sendall(f"{head}{len(body)}\r\n\r\n".encode() + body)
                    if not (answer := read_answer(connection)).startswith(b"HTTP/1.1 201 "):
                        gone_wrong.append(answer[:300])

        threads = [threading.Thread(target=client, args=(mine,)) for mine in bodies]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - start
        assert not gone_wrong, gone_wrong[0]
        return self.rows() / seconds

    def bodies(self, requests: int, records: int, clients: int = CLIENTS) -> list[list[bytes]]:
        """What each client sends: lists of records of a machine of its own, or single ones where `records` is 1."""
        made = []
        for _ in range(clients):
            self.serials += 1
            rng, mine = random.Random(self.serials), []
            for request in range(requests):
                some = [{**record(rng, request * records + i), "machine": f"HC-{self.serials}"} for i in range(records)]
                mine.append(json.dumps(some if records > 1 else some[0]).encode())
            made.append(mine)
        return made


def bench_import(bench: Bench, rows: int, rounds: int, write: Callable[[Path, int, str], None] = write_dump) -> float:
    path = bench.folder / f"dump-{rows}.json"
    write(path, rows, "HC-BENCH-1")
    print(f"import-machine of {rows:,} records, {FORMATS[write]} ({path.stat().st_size / 1e6:.0f} MB)")
    ceilings, imports, peaks = [], [], []
    for _ in range(rounds):
        ceilings.append(bench.ceiling(min(rows, 100_000)))
        speed, peak = bench.import_file(path, rows)
        imports.append(speed)
        peaks.append(peak)
        print(f"  ceiling {ceilings[-1]:,.0f} rows/s, import {speed:,.0f} rows/s, peak {peak:.0f} MB")
    ratio = statistics.median(imports) / statistics.median(ceilings)
    print(f"  median: {statistics.median(imports):,.0f} rows/s, {ratio:.2f} of the ceiling; peak {max(peaks):.0f} MB")
    path.unlink()
    return max(peaks)


FORMATS: dict[Any, str] = {write_dump: "a machine's memory", write_fhir: "FHIR", write_hl7: "HL7"}


def bench_logins(port: int, rounds: int) -> None:
    """A login against its check of the password alone, in milliseconds."""
    digest = hash_password(PASSWORD, 12).encode()  # as create_user does
    alone, ours = [], []
    for _ in range(5 * rounds):
        for took, work in (
            (alone, lambda: bcrypt.checkpw(PASSWORD.encode(), digest)),
            (ours, lambda: log_in(port, "bench.login")),
        ):
            start = time.perf_counter()
            work()
            took.append((time.perf_counter() - start) * 1000)
    middle, floor = statistics.median(ours), statistics.median(alone)
    print(f"a login\n  median: {middle:.0f} ms, {middle / floor:.2f} times bcrypt alone")


def bench_uploads(bench: Bench, rounds: int, only: set[str]) -> None:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(processes.open_listening_socket("127.0.0.1", 0))
        log_file = stack.enter_context((Path(bench.settings.data_dir) / "upload.log").open("wb"))
        server = processes.gunicorn(
            "wsgi.upload:app", listener, bench.settings, workers=2, threads=8, log_file=log_file
        )
        stack.enter_context(server)
        port = listener.getsockname()[1]
        token = log_in(port)
        if "login" in only:
            bench_logins(port, rounds)
        if "bulk" in only:
            bulk = [
                (bench.ceiling(100_000), bench.upload(port, token, bench.bodies(25, BULK_RECORDS)))
                for _ in range(rounds)
            ]
            tell(f"bulk POST of {BULK_RECORDS:,} records, {CLIENTS} clients", "ceiling", bulk)
        if "single" in only:
            single = [
                (bench.one_by_one(2000), bench.upload(port, token, bench.bodies(2000, 1, 1))) for _ in range(rounds)
            ]
            tell("single-record POSTs, one client", "a commit each", single)
            single = [(bench.one_by_one(2000), bench.upload(port, token, bench.bodies(500, 1))) for _ in range(rounds)]
            tell(f"single-record POSTs, {CLIENTS} clients", "a commit each", single)


def tell(what: str, against: str, pairs: list[tuple[float, float]]) -> None:
    print(what)
    for floor, ours in pairs:
        print(f"  {against} {floor:,.0f} rows/s, ours {ours:,.0f} rows/s")
    floor, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"  median: {ours:,.0f} rows/s, {ours / floor:.2f} of {against}")


def read_answer(connection: socket.socket) -> bytes:
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += connection.recv(65536) or b"\r\n\r\n"
    length = int((re.findall(rb"(?i)\r\ncontent-length: *([0-9]+)", answer) or [b"0"])[0])
    parts, missing = [answer], answer.index(b"\r\n\r\n") + 4 + length - len(answer)
    while missing > 0 and (part := connection.recv(65536)):
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def log_in(port: int, username: str = "bench.tech") -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("POST", "/login/", json.dumps({"username": username, "password": PASSWORD}))
    return str(json.load(connection.getresponse())["token"])


def prepare(settings: Settings) -> None:
    stores.bind_database(settings)
    stores.migrate(settings)
    with transaction() as cursor:
        cursor.execute(PEOPLE, (PATIENTS - 1,))
        cursor.execute("select 1 from users where username = 'bench.tech'")
        found = cursor.fetchone()
    if not found:
        create_user("bench.tech", password=PASSWORD, role="technician", rounds=4)
        create_user("bench.login", password=PASSWORD)
    stores.close_database()


def main() -> None:
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its byte code
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--large", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="import,memory,fhir,hl7,bulk,single,login")
    parser.add_argument("--ceiling", default="")
    parser.add_argument("--folder", type=Path)
    said = parser.parse_args()
    only = set(said.only.split(","))
    folder = said.folder or Path(tempfile.mkdtemp(prefix="myhealth-bench-"))
    folder.mkdir(exist_ok=True)
    folder.chmod(0o711)
    server = Postgres(folder)
    try:
        server.ensure()
        server.make_database(NAME)
        settings = Settings(
            database_url=server.url_of(NAME), data_dir=str(folder), secret_key="of a benchmark, 32 bytes and more"
        )
        prepare(settings)
        bench = Bench(settings, folder, said.ceiling)
        peak = bench_import(bench, said.rows, said.rounds) if only & {"import", "memory"} else 0.0
        if "memory" in only:
            large = bench_import(bench, said.large, 1)
            print(f"  peak memory: {large / peak:.2f} times that of {said.rows:,} records")
        for name, write in (("fhir", write_fhir), ("hl7", write_hl7)):
            if name in only:
                bench_import(bench, said.rows // 5, said.rounds, write)  # they take the longest
        if only & {"bulk", "single", "login"}:
            bench_uploads(bench, said.rounds, only)
    finally:
        server.stop()
        if said.folder is None:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
