"""Starting our own programs as processes: the two APIs under gunicorn, and the sync.

A server gets its listening socket from us, so a port is either ours before it starts or is told to be taken.
needs: common
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import importlib.util
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, Any

from myhealth.common.errors import SettingsError, Unavailable
from myhealth.common.http_client import HttpClient
from myhealth.common.settings import Settings, child_environ

READY_TIMEOUT_S = 30
RESPONSE_TIMEOUT_S = 5  # the socket is ours: a server that has ended leaves callers waiting
RESPONSE_MAX_BYTES = 64 * 1024
STOP_TIMEOUT_S = 30


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any that is free. Raises WrongSettings for a port that is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except (OSError, OverflowError) as error:
        listener.close()
        said = getattr(error, "strerror", None) or error
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        hint = "choose another port, or end what holds this one" if taken else ""
        raise SettingsError(f"cannot listen on {host}:{port}: {said}", hint=hint) from error
    return listener


def url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextlib.contextmanager
def gunicorn(
    application: str,
    listener: socket.socket,
    settings: Settings,
    *,
    workers: int = 1,
    threads: int = 4,
    without: Collection[str] = (),
    log_file: IO[bytes] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """`application` (like `wsgi.upload:app`) served on `listener` with these settings, until the block ends.

    Raises WrongSettings without the extra `server`; Unavailable where it does not become ready.
    """
    if importlib.util.find_spec("gunicorn") is None:
        raise SettingsError("gunicorn is not installed", hint="in MyHealth's source folder: pip install '.[server]'")
    words = ["-m", "gunicorn", application, "--bind", f"fd://{listener.fileno()}", "--worker-class", "gthread"]
    words += ["--workers", str(workers), "--threads", str(threads), "--no-control-socket", "--log-level", "warning"]
    # Workers tell that they live by touching a file: on a disk that is busy they would seem dead.
    shared_memory = Path("/dev/shm")  # noqa: S108 - gunicorn makes its files there safely
    words += ["--worker-tmp-dir", str(shared_memory if shared_memory.is_dir() else tempfile.gettempdir())]
    with started(words, settings, log_file, without, pass_fds=(listener.fileno(),)) as process:
        try:
            _wait_until_ready(process, url_of(listener), application)
        except Unavailable as error:
            raise Unavailable(f"{error.message}{_last_words(log_file)}") from error
        yield process


@contextlib.contextmanager
def started(
    words: list[str],
    settings: Settings,
    log_file: IO[bytes] | None = None,
    without: Collection[str] = (),
    **options: Any,
) -> Iterator[subprocess.Popen[bytes]]:
    """This Python with these arguments and settings (but for the keys in `without`), ended by SIGTERM when the block
    ends (killed if need be), and on Linux also when we are killed ourselves."""
    process = subprocess.Popen(
        [sys.executable, *words],
        stdin=subprocess.DEVNULL,
        stdout=log_file,
        stderr=log_file,
        env=child_environ(settings, without),
        preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        start_new_session=True,  # Ctrl-C is for us; we end it in our own time
        **options,
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _end_with_parent() -> None:
    """Asks the kernel for SIGTERM when our parent dies. Source: prctl(2), PR_SET_PDEATHSIG."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, name: str) -> None:
    client = HttpClient(url, timeout_s=RESPONSE_TIMEOUT_S, response_max_bytes=RESPONSE_MAX_BYTES)
    deadline = time.monotonic() + READY_TIMEOUT_S
    problem = "no response"
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise Unavailable(f"{name} ended with exit code {process.returncode} as it started")
        try:
            response = client.call("GET", "/healthz")
            if response.status == 200:
                return
            problem = response.body[:500].decode(errors="replace")
            if '"wrong_settings"' in problem:
                raise SettingsError(f"{name} does not start; its log, on stderr, says why")
        except Unavailable as error:
            problem = error.message
        time.sleep(0.05)
    raise Unavailable(f"{name} was not ready after {READY_TIMEOUT_S} s: {problem}")


def _last_words(log_file: IO[bytes] | None) -> str:
    """What a server said before it failed; "" where its log goes elsewhere."""
    if log_file is None or not log_file.seekable():
        return ""
    size = log_file.seek(0, 2)
    log_file.seek(max(0, size - 2000))
    said = [line.strip() for line in log_file.read().decode(errors="replace").splitlines()]
    kept = [line for line in said if "Error" in line] or [line for line in said if line]
    return f"; it said: {kept[-1]}" if kept else ""
