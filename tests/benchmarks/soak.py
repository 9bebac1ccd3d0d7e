"""Many clients for minutes through nginx, first undisturbed, then with something killed or stopped every few seconds.

    .venv/bin/python tests/benchmarks/soak.py [--minutes 10] [--clients 200] [--every 20] [--folder PATH]

Both stores, both APIs with the examples' gunicorn configurations (two workers each, their sockets kept as systemd keeps
them), nginx with the example's, and `myhealth sync` every five seconds run in a temporary folder. A supervisor starts anew
what has ended, after a second. Of the clients, two fifths upload (one record, now and then twenty), a fifth each reads the
browse API as a patient, its pages, and as a doctor or by logging in; each pauses between 0.5 and 1.5 seconds, and
comes from an address of its own.

All of it runs in a network namespace of its own (unshare, of util-linux), in which the stores are reached by TCP. Faults,
in turn: kill -9 of a worker, of gunicorn, of the sync; SIGQUIT of PostgreSQL and kill -9 of mongod, both started again
after three seconds; each store stopped for eight seconds (SIGSTOP); and for as long, a rule of nftables that drops all
packets to and from PostgreSQL, MongoDB, or both.

Told: calls, statuses, median, 99th percentile and longest time by kind; memory of the workers and connections to the
stores, first, highest, last. Exit 1 if a call is refused undisturbed (but a login, for a second), if an acknowledged record
is missing in either store (looked for in both, without MyHealth's code), if the stores differ, if an answer of 5xx is no 503
with Retry-After, or memory or connections exceed their bounds.
"""

from __future__ import annotations

import argparse
import base64
import collections
import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psutil
import psycopg2
import pymongo

sys.path.insert(0, str(Path(__file__).parents[1]))
from support.compare import NONE, differences
from support.factories import PASSWORD, record
from support.paths import ROOT
from support.proxy import Answer, Proxy

from myhealth import processes, stores
from myhealth.common.database_watch import ask
from myhealth.common.errors import MyHealthError
from myhealth.common.settings import Settings
from myhealth.embedded.mongo import Mongo
from myhealth.embedded.postgres import Postgres
from myhealth.profiles.services import create_user
from myhealth.reports.repository import ReportRepository

PATIENTS = [f"patient-{n}" for n in range(40)]
STAFF = {"tara": "technician", "dr.ayush": "doctor", **{f"tech-{n}": "technician" for n in range(10)}}
WORKERS, THREADS = 2, 8
# 8 for each worker, as many that a fault has cut off and the server still holds, and those of the sync and of this program.
MOST = {"PostgreSQL, connections": 2 * WORKERS * THREADS + 12, "MongoDB, connections": 2 * WORKERS * (THREADS + 3) + 12,
        "upload, MB": 300, "browse, MB": 300, "sync, MB": 300}  # fmt: skip
CLIENT_PROCESSES = 4
PORTS = {"PostgreSQL": "5432", "MongoDB": "27017"}


class TcpPostgres(Postgres):
    """The embedded server, which is also reached by TCP."""

    def command(self, words: list[str], **options: Any) -> Any:
        words = [word.replace("listen_addresses=''", "listen_addresses='127.0.0.1'") for word in words]
        return super().command(words, **options)


class TcpMongo(Mongo):
    """The embedded server, which is also reached by TCP."""

    def command(self, words: list[str], **options: Any) -> Any:
        words = [f"{word},127.0.0.1" if word == str(self.socket_file) else word for word in words]
        return super().command(words, **options)


class Part:
    """A program that is started anew when it ends. `sockets`: as systemd hands them over."""

    def __init__(self, site: Site, name: str, words: list[str], listeners: list[Any]) -> None:
        self.name, self._site, self._words, self._listeners = name, site, words, listeners
        self.starts = 0
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        self.starts += 1
        numbers = [listener.fileno() for listener in self._listeners]
        hand_over = (
            "import os, sys; numbers = [int(n) for n in sys.argv[1].split(',') if n];"
            "[os.dup2(n, 100 + i) for i, n in enumerate(numbers)]; [os.dup2(100 + i, 3 + i) for i in range(len(numbers))];"
            "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(numbers))) if numbers else None;"
            "os.execv(sys.argv[2], sys.argv[2:])"
        )
        words = [sys.executable, "-c", hand_over, ",".join(map(str, numbers)), sys.executable, "-m", *self._words]
        with (self._site.folder / f"{self.name}.log").open("ab") as log:
            return subprocess.Popen(
                words,
                env=self._site.environ,
                cwd=ROOT,
                stdout=log,
                stderr=log,
                pass_fds=numbers,
                start_new_session=True,
            )

    def workers(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children()
        return []

    def restart_if_ended(self) -> None:
        if self.process.poll() is not None:
            time.sleep(1)
            self.process = self._start()

    def end(self) -> None:
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(60)


class Site:
    """Everything but the clients, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.postgres, self.mongo = TcpPostgres(folder), TcpMongo(folder)
        self.postgres.ensure(), self.mongo.ensure()
        self.postgres.make_database("soak", anew=True)
        self.settings = Settings(
            database_url="postgresql://myhealth@127.0.0.1/soak",
            mongo_url="mongodb://127.0.0.1/soak",
            data_dir=str(folder),
        )
        self.environ = {
            **os.environ, "TMPDIR": str(folder), "MYHEALTH_BCRYPT_ROUNDS": "4", "MYHEALTH_ALLOW_INSECURE": "true",
            "MYHEALTH_DATABASE_URL": self.settings.database_url, "MYHEALTH_MONGO_URL": self.settings.mongo_url,
            "MYHEALTH_SECRET_KEY": "a secret of the soak test, 32 bytes and more", "MYHEALTH_SYNC_INTERVAL_S": "5",
        }  # fmt: skip
        stores.bind_database(self.settings)
        stores.migrate(self.settings)
        for name, role in {**dict.fromkeys(PATIENTS, "patient"), **STAFF}.items():
            create_user(name, password=PASSWORD, role=role, rounds=4)
        stores.close_database()
        repository = ReportRepository.connect(self.settings.mongo_url)
        repository.make_indexes()
        repository.close()
        self.listeners = {name: self._sockets(name) for name in ("upload", "browse")}
        self.environ["MYHEALTH_AUTH_URL"] = processes.url_of(self.listeners["upload"][1])
        self.parts = [
            *(Part(self, name, ["gunicorn", "-c", str(ROOT / f"examples/gunicorn-{name}.conf.py"), "--log-level", "error"],
                   self.listeners[name]) for name in ("upload", "browse")),
            Part(self, "sync", ["cli", "sync"], []),
        ]  # fmt: skip
        self.proxy = Proxy(folder)

    def _sockets(self, name: str) -> list[Any]:
        import socket

        unix = socket.socket(socket.AF_UNIX)
        unix.bind(str(self.folder / f"myhealth-{name}.sock"))
        unix.listen(2048)
        return [unix, processes.open_listening_socket("127.0.0.1", 0)]

    def part(self, name: str) -> Part:
        return next(part for part in self.parts if part.name == name)

    def end(self) -> None:
        for part in self.parts:
            part.end()
        self.proxy.process.terminate()
        self.proxy.process.wait(60)
        self.postgres.stop(), self.mongo.stop()


class Client(threading.Thread):
    """One client until `until`, on the clock that all processes share. `calls`: (kind, status, seconds)."""

    def __init__(self, call: Any, number: int, until: float, phase: str) -> None:
        super().__init__()
        self._call_proxy, self.number, self._until, self._phase = call, number, until, phase
        self._chance = random.Random(f"{phase}-{number}")
        self._address = f"127.0.{1 + number // 250}.{1 + number % 250}"
        self.calls: list[tuple[str, int, float]] = []
        self.wrong: list[str] = []
        self.refused: list[str] = []
        self.acknowledged: list[str] = []
        self._sent = 0

    def call(self, kind: str, host: str, method: str, path: str, body: Any = None, **headers: str) -> Answer | None:
        started, status, answer = time.monotonic(), 0, None
        try:
            answer = self._call_proxy(host, method, path, body, address=self._address, **headers)
            status = answer.status
            if status == 503:
                code = answer.body.decode(errors="replace").partition('"code": "')[2].partition('"')[0]
                self.refused.append(f"{kind}: {code or 'a page'}")
            if status >= 500 and not (status == 503 and answer.headers.get("Retry-After")):
                self.wrong.append(f"{kind}: {status} {answer.body[:100]!r}")
        except OSError as error:
            self.wrong.append(f"{kind}: {type(error).__name__} {error}")
        self.calls.append((kind, status, time.monotonic() - started))
        return answer

    def run(self) -> None:
        kind = ("upload", "upload", "browse", "pages", "staff")[self.number % 5]
        work = getattr(self, kind)
        time.sleep(self._chance.random() * min(30.0, (self._until - time.time()) / 3))  # they do not all log in at once
        while time.time() < self._until:
            for _ in work():
                time.sleep(self._chance.uniform(0.5, 1.5))
                if time.time() >= self._until:
                    return

    def token(self, host: str, name: str) -> dict[str, str]:
        basic = base64.b64encode(f"{name}:{PASSWORD}".encode()).decode()
        answer = self.call(f"{host} login", host, "GET", "/login/", Authorization=f"Basic {basic}")
        return {"Authorization": f"Bearer {answer.json['token']}"} if answer and answer.status == 200 else {}

    def upload(self) -> Iterator[None]:
        token = self.token("upload", f"tech-{self.number % 10}")
        yield
        for _ in range(50 if token else 0):
            count = self._chance.choice([1] * 9 + [20])
            ids = [f"{self._phase}-{self.number}-{self._sent + n}" for n in range(count)]
            self._sent += count
            records = [record(0, self._chance.choice(PATIENTS), record_id=each) for each in ids]
            answer = self.call(f"POST {count}", "upload", "POST", "/checkups/", records, **token)
            if answer and answer.status == 201:
                self.acknowledged += ids
            yield

    def browse(self) -> Iterator[None]:
        name = self._chance.choice(PATIENTS)
        token = self.token("health", name)
        yield
        for path in ("/reports/", "/users/{}/trends/", "/reports/?limit=200") * 10 if token else ():
            self.call(f"GET {path}", "health", "GET", path.format(name), **token)
            yield

    def pages(self) -> Iterator[None]:
        cookies: dict[str, str] = {}

        def visit(kind: str, method: str, path: str, form: dict[str, str] | None = None) -> Answer | None:
            headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}
            if form is not None:
                headers |= {"Content_Type": "application/x-www-form-urlencoded"}
            answer = self.call(kind, "health", method, path, form and urlencode(form), **headers)
            for cookie in (answer.headers.get_all("Set-Cookie") or []) if answer else []:
                name, _, value = cookie.partition(";")[0].partition("=")
                cookies[name] = value
            return answer

        page = visit("page /my/login", "GET", "/my/login")
        yield
        key = page.body.decode().partition('name="form_key" value="')[2].partition('"')[0] if page else ""
        form = {"username": self._chance.choice(PATIENTS), "password": PASSWORD, "form_key": key}
        if key:
            visit("page login", "POST", "/my/login", form)
        for path in ("/my/", "/my/trends") * (8 if key else 0):
            yield
            visit(f"page {path}", "GET", path)

    def staff(self) -> Iterator[None]:
        token = self.token("health", "dr.ayush")
        yield
        for _ in range(10 if token else 0):
            name = self._chance.choice(PATIENTS)
            self.call("doctor's list", "health", "GET", f"/users/{name}/reports/", **token)
            yield
        self.token("health", self._chance.choice(PATIENTS))
        yield


def run_clients(folder: str, secure: int, numbers: list[int], until: float, phase: str) -> None:
    """Run these clients in this process, and write what they saw as JSON to stdout."""
    proxy = Proxy.existing(Path(folder), secure)
    clients = [Client(proxy.call, number, until, phase) for number in numbers]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    found = {
        name: [each for client in clients for each in getattr(client, name)]
        for name in ("calls", "wrong", "refused", "acknowledged")
    }
    json.dump(found, sys.stdout)


class Watch(threading.Thread):
    """Samples memory and connections; starts anew what has ended."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self._site, self._ending = site, threading.Event()
        self._mongo: Any = pymongo.MongoClient(site.mongo.url_of("soak"), timeoutMS=2000)
        self.samples: dict[str, list[float]] = collections.defaultdict(list)

    def run(self) -> None:
        while not self._ending.wait(1):
            for part in self._site.parts:
                part.restart_if_ended()
                for process in part.workers() or [psutil.Process(part.process.pid)]:
                    with contextlib.suppress(psutil.Error):
                        self.samples[f"{part.name}, MB"].append(process.memory_info().rss / 1e6)
            count = "select count(*) from pg_stat_activity where backend_type = 'client backend'"
            with contextlib.suppress(MyHealthError):  # not over the network
                self.samples["PostgreSQL, connections"].append(ask(self._site.postgres.url_of("soak"), count, 2.0)[0])
            with contextlib.suppress(pymongo.errors.PyMongoError):
                current = self._mongo.admin.command("serverStatus")["connections"]["current"]
                self.samples["MongoDB, connections"].append(current)

    def end(self) -> None:
        self._ending.set()
        self.join()
        self._mongo.close()


def nft(*commands: str) -> None:
    subprocess.run(["nft", "-f", "-"], input="\n".join(commands), text=True, check=True)


def faults(site: Site) -> Iterator[tuple[str, Any]]:
    """Yield the faults in turn, each with the function that makes it."""

    def kill(name: str, *, worker: bool) -> None:
        part = site.part(name)
        workers = part.workers()
        os.kill(random.choice(workers).pid if worker and workers else part.process.pid, signal.SIGKILL)
        for each in [] if worker else workers:  # systemd kills what is left of the unit
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()

    def crash(server: Any, how: signal.Signals) -> None:
        os.kill(server.pid(), how)
        time.sleep(3)
        server.ensure()

    def stop(server: Any) -> None:
        process = psutil.Process(server.pid())
        stopped = [process, *process.children(recursive=True)]
        for how in (signal.SIGSTOP, signal.SIGCONT):
            for each in stopped:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.send_signal(how)
            time.sleep(8 if how == signal.SIGSTOP else 0)

    def cut_off(*stores: str) -> None:
        ports = ", ".join(PORTS[store] for store in stores)
        rules = [f"add rule inet soak packets tcp {side} {{ {ports} }} drop" for side in ("dport", "sport")]
        nft("add table inet soak", "add chain inet soak packets { type filter hook output priority 0; }", *rules)
        time.sleep(8)
        nft("delete table inet soak")

    yield from itertools.cycle((
        ("a worker of the upload API killed", lambda: kill("upload", worker=True)),
        ("PostgreSQL crashed", lambda: crash(site.postgres, signal.SIGQUIT)),
        ("packets to and from PostgreSQL dropped for 8 s", lambda: cut_off("PostgreSQL")),
        ("the sync killed", lambda: kill("sync", worker=False)),
        ("mongod killed", lambda: crash(site.mongo, signal.SIGKILL)),
        ("packets to and from MongoDB dropped for 8 s", lambda: cut_off("MongoDB")),
        ("gunicorn of the browse API killed", lambda: kill("browse", worker=False)),
        ("PostgreSQL stopped for 8 s", lambda: stop(site.postgres)),
        ("packets to and from both stores dropped for 8 s", lambda: cut_off("PostgreSQL", "MongoDB")),
        ("a worker of the browse API killed", lambda: kill("browse", worker=True)),
        ("gunicorn of the upload API killed", lambda: kill("upload", worker=False)),
        ("MongoDB stopped for 8 s", lambda: stop(site.mongo)),
    ))  # fmt: skip


def run_phase(site: Site, phase: str, clients: int, seconds: float, every: float) -> dict[str, list[Any]]:
    """Let clients work for some seconds; `every`: seconds between two faults, 0 for none. Return what they saw."""
    until = time.time() + seconds
    words = [sys.executable, __file__, "--part", str(site.folder), str(site.proxy.secure), str(until), phase]
    running = []
    for share in range(CLIENT_PROCESSES):
        numbers = ",".join(map(str, range(share, clients, CLIENT_PROCESSES)))
        running.append(subprocess.Popen([*words, numbers], stdout=subprocess.PIPE, cwd=ROOT))
    due = time.time() + every
    for name, make in faults(site) if every else ():
        while time.time() < min(due, until):
            time.sleep(0.1)
        if time.time() >= until - 10:
            break
        print(f"  {name}", flush=True)
        make()
        due += every
    found: dict[str, list[Any]] = collections.defaultdict(list)
    for process in running:
        for name, values in json.loads(process.communicate(timeout=seconds + 300)[0]).items():
            found[name] += values
    return found


def tell(found: dict[str, list[Any]], seconds: float) -> None:
    """Print a line for each kind of call."""
    calls = found["calls"]
    statuses = collections.Counter(status for _, status, _ in calls)
    print(f"  {len(calls):,} calls, {len(calls) / seconds:.0f}/s; statuses {dict(sorted(statuses.items()))}")
    print(f"  {len(found['acknowledged']):,} records acknowledged")
    by_kind = collections.defaultdict(list)
    for kind, _, secs in calls:
        by_kind[kind].append(secs * 1000)
    for kind, times in sorted(by_kind.items()):
        last = statistics.quantiles(times, n=100, method="inclusive")[98] if len(times) > 1 else times[0]
        print(
            f"  {kind:26} {len(times):6}  median {statistics.median(times):6.0f} ms  99 % {last:7.0f}  most {max(times):7.0f}"
        )
    if late := sorted(secs for _, status, secs in calls if status == 503):
        print(
            f"  503 after: median {statistics.median(late):.1f} s, 99 % {late[int(len(late) * 0.99)]:.1f}, most {late[-1]:.1f}"
        )
    for what, count in collections.Counter(found["refused"]).most_common(12):
        print(f"  503 {count} x {what}")
    for what, count in collections.Counter(found["wrong"]).most_common(10):
        print(f"  WRONG {count} x {what}")


def compare(site: Site, acknowledged: list[str]) -> list[str]:
    """Return what is wrong in the stores, after the sync has carried everything over."""
    deadline = time.monotonic() + 120
    while subprocess.run([sys.executable, "-m", "cli", "sync", "--once"], env=site.environ, cwd=ROOT).returncode:
        if time.monotonic() > deadline:
            return ["the sync does not recover"]
    wrong = []
    connection = psycopg2.connect(site.settings.database_url)
    with contextlib.closing(connection), connection.cursor() as cursor:
        cursor.execute("select record_id, id from checkups")
        stored = dict(cursor.fetchall())

        def db(sql: str) -> list[Any]:
            cursor.execute(sql)
            return list(cursor.fetchall())

        with pymongo.MongoClient(site.settings.mongo_url) as client:
            shown = {document["_id"] for document in client.soak.reports.find({}, {"_id": 1})}
        lost = [each for each in acknowledged if stored.get(each) not in shown]
        if lost:
            wrong.append(f"{len(lost)} acknowledged records are lost, such as {lost[:5]}")
        repository = ReportRepository.connect(site.settings.mongo_url)
        found = differences(db, repository)
        repository.close()
        if found != NONE:
            wrong.append(f"the stores differ: { {name: len(ids) for name, ids in found.items()} }")
    print(f"compared: {len(acknowledged):,} acknowledged, {len(stored):,} check-ups, {len(shown):,} reports")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--every", type=float, default=20)
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="mhsoak"))
    folder.chmod(0o755)
    site = Site(folder)
    watch = Watch(site)
    watch.start()
    wrong: list[str] = []
    acknowledged: list[str] = []
    try:
        for phase, every in (("quiet", 0.0), ("faults", asked.every)):
            print(
                f"{phase}: {asked.clients} clients, {asked.minutes:g} minutes, load {os.getloadavg()[0]:.1f}",
                flush=True,
            )
            found = run_phase(site, phase, asked.clients, asked.minutes * 60, every)
            tell(found, asked.minutes * 60)
            wrong += found["wrong"]
            acknowledged += found["acknowledged"]
            # Logins at the same moment are put off for a moment: their hashes are bounded.
            wrong += [
                f"quiet, yet 503 {each}" for each in found["refused"] if phase == "quiet" and not each.endswith("busy")
            ]
        for name, values in sorted(watch.samples.items()):
            print(f"{name:26} first {values[0]:.0f}, most {max(values):.0f}, last {values[-1]:.0f}")
        wrong += [
            f"{name}: {max(watch.samples[name]):.0f}" for name, most in MOST.items() if max(watch.samples[name]) > most
        ]
        print(f"starts: { {part.name: part.starts for part in site.parts} }")
        wrong += compare(site, acknowledged)
    finally:
        watch.end()
        site.end()
        if not asked.folder:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"{len(wrong)} wrong" + "".join(f"\n  {each}" for each in dict.fromkeys(wrong[:20])))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--part"]:
        folder_, port, until_, phase_, numbers_ = sys.argv[2:]
        run_clients(folder_, int(port), [int(each) for each in numbers_.split(",") if each], float(until_), phase_)
    elif os.environ.get("SOAK_NAMESPACE") != "own":
        own = ["unshare", "--net", *(["--map-root-user"] if os.geteuid() else []), sys.executable, *sys.argv]
        os.execvpe(own[0], own, {**os.environ, "SOAK_NAMESPACE": "own"})
    else:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        main()
