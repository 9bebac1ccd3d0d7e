"""Servers of the tests: APIs, a stub of the upload API, a replica set; their crashes and copies of their data."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pymongo
import pymongo.errors

from myhealth import processes
from myhealth.common.settings import Settings
from myhealth.embedded.mongo import Mongo
from myhealth.embedded.postgres import Postgres
from myhealth.profiles.upload_client import TOKENS_VALID_AFTER

DATABASE_NAME = "myhealth_test"


@contextlib.contextmanager
def running_apis(settings: Settings, **options: Any) -> Iterator[tuple[str, str]]:
    """Run both APIs under gunicorn on free ports; yield their URLs."""
    with contextlib.ExitStack() as stack:
        upload, browse = (stack.enter_context(processes.open_listening_socket("127.0.0.1", 0)) for _ in range(2))
        settings = dataclasses.replace(settings, auth_url=processes.url_of(upload))
        stack.enter_context(processes.gunicorn("wsgi.upload:app", upload, settings, **options))
        stack.enter_context(processes.gunicorn("wsgi.browse:app", browse, settings, **options))
        yield processes.url_of(upload), processes.url_of(browse)


def crash(server: Postgres | Mongo, how: signal.Signals = signal.SIGQUIT) -> None:
    """End a server without a checkpoint, like a power cut: it recovers when it starts again.

    PostgreSQL does that on SIGQUIT; MongoDB gets SIGKILL instead.
    """
    pid = server.pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL if isinstance(server, Mongo) and how == signal.SIGQUIT else how)
    deadline = time.monotonic() + 30
    while server.pid() is not None or server.answers():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextlib.contextmanager
def hanging(*servers: Postgres | Mongo) -> Iterator[None]:
    """Stop servers for the block: they keep their connections, and answer nothing."""
    pids = []
    for server in servers:
        pid = server.pid()
        assert pid is not None
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        pids += [pid, *map(int, children)]
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in reversed(pids):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def copy_data(source: Path, target: Path, server: Postgres | Mongo) -> None:
    """Copy the data folder of a stopped server; the copy belongs to the user of `server`."""
    shutil.copytree(source, target, symlinks=True)
    owner = server.owner()
    for path in (target, *target.rglob("*")) if owner else ():
        with contextlib.suppress(FileNotFoundError):
            os.chown(path, *owner, follow_symlinks=False)


def set_back(server: Postgres | Mongo, copy: Path) -> None:
    """Replace the data folder of a stopped server by a copy."""
    shutil.rmtree(server.data)
    copy.rename(server.data)


class ReplicaSet:
    """Three members of a MongoDB replica set on loopback; each can be killed, stopped and started again."""

    def __init__(self, folder: Path, binary: Path) -> None:
        with contextlib.ExitStack() as stack:
            probes = [stack.enter_context(processes.open_listening_socket("127.0.0.1", 0)) for _ in range(3)]
            self.ports = [probe.getsockname()[1] for probe in probes]
        self._folder, self._binary = folder, binary
        self._members: dict[int, subprocess.Popen[bytes]] = {}

    def url_of(self, database: str) -> str:
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        return f"mongodb://{hosts}/{database}?replicaSet=tests"

    def start(self, port: int) -> None:
        data = self._folder / str(port)
        data.mkdir(parents=True, exist_ok=True)
        words = ["--replSet", "tests", "--bind_ip", "127.0.0.1", "--port", str(port), "--dbpath", str(data)]
        words += ["--oplogSize", "100", "--wiredTigerCacheSizeGB", "0.25", "--nounixsocket"]
        words += ["--logpath", str(data / "log"), "--logappend"]
        self._members[port] = subprocess.Popen([str(self._binary), *words])

    def begin(self) -> None:
        """Start all members and wait for a primary. They elect another one after two seconds without it."""
        for port in self.ports:
            self.start(port)
        members = [{"_id": n, "host": f"127.0.0.1:{port}"} for n, port in enumerate(self.ports)]
        timing = {"electionTimeoutMillis": 2000, "heartbeatIntervalMillis": 500}
        for port in reversed(self.ports):
            with pymongo.MongoClient("127.0.0.1", port, directConnection=True) as client:
                client.admin.command("ping")
        with pymongo.MongoClient("127.0.0.1", self.ports[0], directConnection=True) as client:
            client.admin.command("replSetInitiate", {"_id": "tests", "members": members, "settings": timing})
        self.wait_for_all()

    def wait_for_all(self) -> None:
        """Wait until one member is the primary and the others are secondaries."""
        with pymongo.MongoClient(self.url_of("admin")) as client:
            deadline = time.monotonic() + 60
            while True:
                with contextlib.suppress(pymongo.errors.PyMongoError):
                    found = client.admin.command("replSetGetStatus")["members"]
                    if sorted(member["stateStr"] for member in found) == ["PRIMARY", "SECONDARY", "SECONDARY"]:
                        return
                assert time.monotonic() < deadline
                time.sleep(0.1)

    def primary(self) -> int:
        """Return the primary's port."""
        with pymongo.MongoClient(self.url_of("admin")) as client:
            return int(client.admin.command("hello")["primary"].split(":")[1])

    def signal(self, how: signal.Signals, *ports: int) -> None:
        for port in ports:
            self._members[port].send_signal(how)
            if how == signal.SIGKILL:
                self._members[port].wait()

    def end(self) -> None:
        for member in self._members.values():
            member.kill()
            member.wait()


class UploadStub(BaseHTTPRequestHandler):
    """A stub of the upload API: it serves its keys, refuses logins and tokens, and accepts deletions."""

    keys = b""
    deletions: list[tuple[str, str]] = []

    def _say(self, status: int, body: bytes = b"", headers: Mapping[str, str] = MappingProxyType({})) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        if self.path.startswith("/users/"):
            self._say(401, b"{}")
        else:
            self._say(200, self.keys)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/logout/":
            self._say(204, headers={TOKENS_VALID_AFTER: datetime.now(UTC).isoformat()})
        else:
            self._say(401, b"{}")

    def do_DELETE(self) -> None:
        self.deletions.append((self.path, self.headers["Authorization"]))
        self._say(204)

    def log_message(self, *_: object) -> None:
        pass


class FixedAnswer(BaseHTTPRequestHandler):
    """A server that answers every request alike, such as a failing upload API."""

    answer: tuple[int, bytes] = (500, b"")

    def do_GET(self) -> None:
        status, body = type(self).answer
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass
