"""`demo` and `serve` as processes: which processes they start, and which remain."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import psutil
import pytest
from support.mllp import Sender
from support.paths import ROOT

from myhealth.common.errors import Unavailable
from myhealth.embedded import servers
from myhealth.processes import gunicorn, open_listening_socket

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def folder():
    made = Path(tempfile.mkdtemp(prefix="myhealth-tests-"))
    made.chmod(0o711)
    yield made
    for server in servers(made):
        server.stop()
    shutil.rmtree(made, ignore_errors=True)


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "MYHEALTH_DATA_DIR": str(folder), "HOME": str(folder)}


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    words = (sys.executable, "-m", "cli", *words)
    return subprocess.run(words, capture_output=True, text=True, env=environment(folder), cwd=ROOT, timeout=120)


def gunicorns(folder: Path) -> set[int]:
    """The gunicorn processes that work on this data folder."""
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if "gunicorn" in str(process.cmdline()) and process.environ().get("MYHEALTH_DATA_DIR") == str(folder):
                found.add(process.pid)
    return found


def test_the_demo_performs_the_nine_steps_and_again_at_once(folder: Path) -> None:
    before = gunicorns(folder)
    for _ in range(2):
        done = run(folder, "demo")
        assert done.returncode == 0, done.stderr
        assert re.findall(r"^(\d)\. ", done.stdout, re.MULTILINE) == list("123456789")
        assert "HTTP 201: 5 accepted, 0 duplicate, 0 rejected" in done.stdout
        assert "HTTP 200, 0 accepted, 5 duplicate, 0 rejected" in done.stdout
        assert "MongoDB has 5 reports and 3 users" in done.stdout
        assert "A wrong one: HTTP 401" in done.stdout
        assert "answers HTTP 200 with 3 reports of 5" in done.stdout
        assert "▲ above the usual range" in done.stdout
        assert "Savita's reports, asked for by Bholanath: HTTP 404" in done.stdout
        assert f"stop them with: {sys.executable} -m cli db stop" in done.stdout
        assert "\x1b" not in done.stdout, "no colours in a pipe"
        assert done.stderr == ""
    assert gunicorns(folder) == before
    assert all(server.answers() for server in servers(folder))


def test_the_demo_leaves_real_data_alone(folder: Path) -> None:
    run(folder, "users", "create", "somebody", "--no-password")
    assert run(folder, "demo").returncode == 0
    listed = run(folder, "users", "list").stdout
    assert "somebody" in listed
    assert "bholanath" not in listed


def test_a_demo_that_is_interrupted_leaves_nothing_running(folder: Path) -> None:
    before = gunicorns(folder)
    words = [sys.executable, "-m", "cli", "demo"]
    process = subprocess.Popen(words, env=environment(folder), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not gunicorns(folder) - before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert gunicorns(folder) - before
    process.send_signal(signal.SIGSTOP)  # it would be done before the second one has looked
    second = run(folder, "demo")
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Interrupted." in said
    assert b"Traceback" not in said
    assert gunicorns(folder) == before
    assert second.returncode == 75
    assert "another demo is at work here" in second.stderr


def test_serve_runs_both_apis_and_the_sync_until_it_is_told_to_end(folder: Path) -> None:
    before = gunicorns(folder)
    words = [sys.executable, "-m", "cli", "serve", "--upload-port", "0", "--browse-port", "0", "--workers", "1"]
    words += ["--mllp", "0"]
    process = subprocess.Popen(words, env=environment(folder), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    said = []
    while len(urls := re.findall(r"http://\S+", "".join(said))) < 2 or "mllp://" not in "".join(said):
        line = process.stderr.readline()
        assert line, "".join(said)
        said.append(line)
    try:
        assert "Other hosts" not in "".join(said)
        for url in urls[:2]:
            with urllib.request.urlopen(f"{url}/healthz") as answer:
                assert answer.status == 200
        with Sender(int("".join(said).split("mllp://127.0.0.1:")[1].split()[0])) as sender:
            assert sender.ask(b"hello") == "AR"
        syncs = [c for c in psutil.Process(process.pid).children() if "sync" in c.cmdline()]
        assert len(syncs) == 1
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert gunicorns(folder) == before
    assert not syncs[0].is_running()


def test_serving_other_hosts_is_warned_of(folder: Path) -> None:
    words = [sys.executable, "-m", "cli", "serve", "--host", "0.0.0.0", "--upload-port", "0", "--browse-port", "0"]
    words += ["--workers", "1", "--no-sync"]
    process = subprocess.Popen(words, env=environment(folder), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    said = ""
    while "Ctrl-C" not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    process.send_signal(signal.SIGTERM)  # at once: it counts from the first process that was started
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Other hosts reach these ports without HTTPS, and a few slow clients can hold all threads" in said


def test_a_port_that_is_taken_is_told(folder: Path) -> None:
    with open_listening_socket("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        done = run(folder, "serve", "--upload-port", str(port))
    assert done.returncode == 78
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in done.stderr
    assert "choose another port" in done.stderr


def test_a_server_that_cannot_start_is_told_with_its_last_words(settings) -> None:
    told = r"ended with exit code 3 .*: .*No module named 'wsgi.nothing'"
    with tempfile.TemporaryFile() as log_file, contextlib.closing(open_listening_socket("127.0.0.1", 0)) as listener:
        server = gunicorn("wsgi.nothing:app", listener, settings, log_file=log_file)
        with pytest.raises(Unavailable, match=told), server:
            pytest.fail("it is ready")
