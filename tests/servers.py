"""What may happen to the tests' servers: crashes, and data folders that are copied and put back."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from pathlib import Path

from myhealth.embedded.mongo import Mongo
from myhealth.embedded.postgres import Postgres


def crash(server: Postgres | Mongo, how: signal.Signals = signal.SIGQUIT) -> None:
    """Ends a server without a checkpoint, as when the power goes: it recovers when it starts again. SIGQUIT is
    PostgreSQL's own word for that; MongoDB gets SIGKILL in its place."""
    pid = server.pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL if isinstance(server, Mongo) and how == signal.SIGQUIT else how)
    deadline = time.monotonic() + 30
    while server.pid() is not None or server.answers():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def copy_data(source: Path, target: Path, server: Postgres | Mongo) -> None:
    """Copies the data folder of a server that is down; the copy belongs to whom `server` runs as."""
    shutil.copytree(source, target, symlinks=True)
    owner = server.owner()
    for path in (target, *target.rglob("*")) if owner else ():
        with contextlib.suppress(FileNotFoundError):
            os.chown(path, *owner, follow_symlinks=False)


def set_back(server: Postgres | Mongo, copy: Path) -> None:
    """Puts a copy of its data in the place of what a server that is down has."""
    shutil.rmtree(server.data)
    copy.rename(server.data)
