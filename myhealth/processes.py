"""Run our own programs as processes: both APIs under gunicorn, and the sync.

The parent opens a server's listening socket, so a port that is in use is reported before the server starts.
needs: common
"""

import contextlib
import ctypes
import errno
import importlib.util
import ipaddress
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from myhealth.common.errors import SettingsError, Unavailable
from myhealth.common.http_client import HttpClient
from myhealth.common.settings import DIRECT, Settings, child_environ

READY_TIMEOUT_S = 30
RESPONSE_TIMEOUT_S = 5  # the parent holds the socket: after a server's end, callers would wait
RESPONSE_MAX_BYTES = 64 * 1024
STOP_TIMEOUT_S = 30


def open_listening_socket(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 is any free port. Raises SettingsError if the port is in use."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or error
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        hint = "choose another port, or end what holds this one" if taken else ""
        raise SettingsError(f"cannot listen on {host}:{port}: {reason}", hint=hint) from error
    return listener


def url_of(listener: socket.socket) -> str:
    """Return the URL at which this machine reaches the listener."""
    host, port = listener.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = "::1" if ":" in host else "127.0.0.1"
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
    """Serve `application` (like `wsgi.upload:app`) on `listener` with these settings, until the block ends.

    Raises SettingsError without the extra `server`, Unavailable if it does not become ready.
    """
    if importlib.util.find_spec("gunicorn") is None:
        raise SettingsError("gunicorn is not installed", hint="in MyHealth's source folder: pip install '.[server]'")
    words = ["-m", "gunicorn", application, "-c", "python:wsgi.common.server", "--bind", f"fd://{listener.fileno()}"]
    words += ["--workers", str(workers), "--threads", str(threads), "--no-control-socket", "--log-level", "warning"]
    # Workers report that they are alive by touching a file; on a busy disk that takes too long.
    shared_memory = Path("/dev/shm")  # noqa: S108 - gunicorn creates its files there safely
    words += ["--worker-tmp-dir", str(shared_memory if shared_memory.is_dir() else tempfile.gettempdir())]
    environ = {DIRECT: "1"} if ipaddress.ip_address(listener.getsockname()[0]).is_loopback else {}
    with contextlib.ExitStack() as stack:
        metrics = stack.enter_context(tempfile.TemporaryDirectory(prefix="myhealth-metrics-"))
        environ["PROMETHEUS_MULTIPROC_DIR"] = metrics
        server = started(words, settings, log_file, without, environ, pass_fds=(listener.fileno(),))
        process = stack.enter_context(server)
        try:
            _wait_until_ready(process, url_of(listener), application)
        except (Unavailable, SettingsError) as error:
            raise type(error)(f"{error.message}{_last_words(log_file)}") from error
        yield process


@contextlib.contextmanager
def started(
    words: list[str],
    settings: Settings,
    log_file: IO[bytes] | None = None,
    without: Collection[str] = (),
    environ: Mapping[str, str] | None = None,
    **options: Any,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run this Python with these arguments and settings, except for the keys in `without`, until the block ends.

    `environ`: further variables.

    The process then gets SIGTERM, and SIGKILL if that does not end it; on Linux SIGTERM also if its parent is killed.
    """
    process = subprocess.Popen(
        [sys.executable, *words],
        stdin=subprocess.DEVNULL,
        stdout=log_file,
        stderr=log_file,
        env=child_environ(settings, without) | dict(environ or {}),
        preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        start_new_session=True,  # Ctrl-C is for the parent, which ends the process itself
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
    """Ask the kernel for SIGTERM when the parent dies. Source: prctl(2), PR_SET_PDEATHSIG."""
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
                raise SettingsError(f"{name} does not start because of its settings")
        except Unavailable as error:
            problem = error.message
        time.sleep(0.05)
    raise Unavailable(f"{name} was not ready after {READY_TIMEOUT_S} s: {problem}")


def _last_words(log_file: IO[bytes] | None) -> str:
    """Return the last error in a server's log; "" if the log cannot be read."""
    if log_file is None or not log_file.seekable():
        return ""
    size = log_file.seek(0, 2)
    log_file.seek(max(0, size - 2000))
    lines = [line.strip() for line in log_file.read().decode(errors="replace").splitlines()]
    found = [line for line in lines if "Error" in line] or [line for line in lines if line]
    return f": {found[-1]}" if found else ""
