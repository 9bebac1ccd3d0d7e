"""New workers, new code and new settings, while clients send records: not one request is lost."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.factories import record
from support.paths import ROOT
from support.sync_processes import Threads, wait_for

from myhealth.common.settings import Settings
from myhealth.processes import open_listening_socket, url_of

pytestmark = [pytest.mark.long, pytest.mark.process]


# What systemd does with the socket of a .socket unit.
HAND_OVER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.argv[2], sys.argv[2:])
"""


class Clients(Threads):
    """Four tablets, each of which sends one record after the other, over a new connection each time."""

    def __init__(self, url: str, token: str) -> None:
        self.acknowledged: list[str] = []
        self.faults: list[str] = []
        self._url, self._token = url, token
        super().__init__(self._send, 4)

    def _send(self, number: int) -> None:
        count = 0
        while not self.ending.is_set():
            count += 1
            record_id = f"{number}-{count}"
            body = json.dumps([record(0, record_id=record_id)]).encode()
            headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
            try:
                with urllib.request.urlopen(
                    urllib.request.Request(f"{self._url}/checkups/", body, headers), timeout=60
                ):
                    self.acknowledged.append(record_id)
            except OSError as error:
                self.faults.append(f"{record_id}: {error}")

    def wait_for_more(self) -> None:
        """Wait until each has sent something since now, most probably."""
        count = len(self.acknowledged) + 20
        wait_for(lambda: len(self.acknowledged) > count or self.faults)


class Server:
    """gunicorn with the example's configuration, as systemd runs it: out of `folder`, on a socket that it is given."""

    def __init__(self, folder: Path, listener: Any, environ: dict[str, str]) -> None:
        self._log = folder / "log"
        words = [sys.executable, "-m", "gunicorn", "-c", str(folder / "examples/gunicorn-upload.conf.py")]
        with self._log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", HAND_OVER, str(listener.fileno()), *words],
                cwd=folder,
                env=environ,
                stderr=log,
                pass_fds=[listener.fileno()],
            )

    def log(self) -> str:
        return self._log.read_text()

    def workers(self) -> set[str]:
        pid = self.process.pid
        with contextlib.suppress(FileNotFoundError):
            return set(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        return set()

    def hang_up(self) -> None:
        """Reload, and wait until none of the former workers is there."""
        before = self.workers()
        self.process.send_signal(signal.SIGHUP)
        wait_for(lambda: not self.workers() & before and len(self.workers()) >= 2, 120)
        wait_for(lambda: all(map(is_serving, self.workers())), 120)

    def end(self) -> None:
        self.process.terminate()
        assert self.process.wait(120) == 0


def is_serving(pid: str) -> bool:
    """Return whether a worker has started: it watches its socket then."""
    with contextlib.suppress(OSError):
        return any("tfd:" in path.read_text() for path in Path(f"/proc/{pid}/fdinfo").iterdir())
    return False


@pytest.fixture
def started(tmp_path: Path, settings: Settings, people: Any) -> Iterator[tuple[Callable[[], Server], str, Path]]:
    """Return a function that starts the upload API out of a folder with a copy of our code, its URL, and that folder."""
    for part in ("myhealth", "wsgi", "cli", "examples"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "myhealth.toml").write_text("registration_open = true\n")
    own = {"MYHEALTH_DATABASE_URL": settings.database_url, "MYHEALTH_SECRET_KEY": settings.secret_key}
    own |= {"MYHEALTH_SETTINGS": str(tmp_path / "myhealth.toml"), "PYTHONPATH": str(tmp_path)}
    running: list[Server] = []
    listener = open_listening_socket("127.0.0.1", 0)

    def start() -> Server:
        running.append(Server(tmp_path, listener, {**os.environ, **own}))
        return running[-1]

    yield start, url_of(listener), tmp_path
    listener.close()
    for server in running:
        server.process.terminate()
        server.process.wait(120)


def description(url: str) -> str:
    with urllib.request.urlopen(f"{url}/openapi.json", timeout=60) as answer:
        return json.load(answer)["info"]["description"]


def test_reloads_and_restarts_lose_no_request(db: Any, log_in: Any, started: Any) -> None:
    start, url, folder = started
    server = start()
    with Clients(url, log_in("tara")) as clients:
        clients.wait_for_more()
        assert "Receives check-up records" in description(url)

        code = folder / "wsgi/upload.py"
        code.write_text(code.read_text().replace("Receives check-up records", "The next release"))
        server.hang_up()
        assert "The next release" in description(url)
        clients.wait_for_more()

        (folder / "myhealth.toml").write_text("registration_open = 'perhaps'\n")
        before = server.workers()
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "A setting is wrong" in server.log())
        clients.wait_for_more()
        assert server.workers() == before
        (folder / "myhealth.toml").write_text("registration_open = false\n")
        server.hang_up()
        clients.wait_for_more()

        # The socket is systemd's: while no server runs, requests wait for the next one.
        server.end()
        time.sleep(0.5)
        server = start()
        clients.wait_for_more()
    assert clients.faults == []
    stored = {record_id for (record_id,) in db("select record_id from checkups")}
    assert set(clients.acknowledged) <= stored
    assert len(clients.acknowledged) > 80
