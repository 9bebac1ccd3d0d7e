"""Every file in examples/ does what it is there for.

myhealth.postman_collection.json is run in test_postman.py.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import click
import pytest
from support.factories import PASSWORD
from support.paths import ROOT

from cli.main import cli
from myhealth.common.settings import keys, load
from myhealth.processes import listen, url_of

EXAMPLES = ROOT / "examples"


def own_copy(folder: Path) -> Path:
    """Copy the example's settings as a user does: the checkout may belong to somebody else."""
    path = folder / "myhealth.toml"
    path.write_text((EXAMPLES / "myhealth.toml").read_text())
    path.chmod(0o600)
    return path


def test_myhealth_toml_has_every_key_with_its_explanation(tmp_path: Path) -> None:
    found = load(environ={}, file=own_copy(tmp_path))
    assert {name for name, origin in found.origins.items() if origin} == {key.name for key in keys()}
    lines = (EXAMPLES / "myhealth.toml").read_text().splitlines()
    for i, line in enumerate(lines):
        if re.match(r"\w+ = ", line):
            assert lines[i - 1].startswith("#"), f"{line} has no explanation"
    values = tomllib.loads((EXAMPLES / "myhealth.toml").read_text())
    assert values["token_ttl_s"] == 18000


def test_machine_dump_json_goes_in(db, people, run_cli) -> None:
    done = run_cli("import-machine", str(EXAMPLES / "machine-dump.json"))
    assert (done.returncode, done.stdout.split(": ")[1]) == (0, "5 accepted, 0 duplicate, 0 rejected.\n")


def test_machine_dump_with_faults_json_goes_in_as_far_as_it_is_good(db, people, run_cli) -> None:
    done = run_cli("import-machine", str(EXAMPLES / "machine-dump-with-faults.json"))
    assert (done.returncode, done.stdout.split(": ")[1]) == (1, "2 accepted, 0 duplicate, 4 rejected.\n")
    for said in (
        "no user named nobody.knows.me",
        "has no zone",
        "disease: is missing",
        "must be a number or text, not null",
    ):
        assert said in done.stderr


@pytest.mark.process
def test_crontabs_line_runs_and_says_nothing(db, people, reports, settings, tmp_path: Path) -> None:
    (line,) = [text for text in (EXAMPLES / "crontab").read_text().splitlines() if re.match(r"[*\d]", text)]
    fields = line.split(maxsplit=5)
    assert fields[:5] == ["*/5", "*", "*", "*", "*"]
    program, *words = fields[5].split()
    assert program.endswith("/bin/myhealth")
    file = tmp_path / "myhealth.toml"
    file.write_text(f"database_url = '{settings.database_url}'\nmongo_url = '{settings.mongo_url}'\n")
    environ = {"PATH": "/usr/bin:/bin", "MYHEALTH_SETTINGS": str(file)}  # cron gives hardly more
    done = subprocess.run([sys.executable, "-m", "cli", *words], env=environ, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert reports.count()[1] == 6


@pytest.mark.process
@pytest.mark.parametrize(
    ("name", "wrong", "said"),
    [
        ("upload", {"MYHEALTH_NOPE": "1"}, "MYHEALTH_NOPE in the environment is not a setting"),
        ("browse", {"MYHEALTH_NOPE": "1"}, "MYHEALTH_NOPE in the environment is not a setting"),
        ("upload", {"MYHEALTH_SECRET_KEY": ""}, "MYHEALTH_SECRET_KEY is not set"),
        ("upload", {"MYHEALTH_SETTINGS": "example"}, "still the one of the example"),
    ],
)
def test_gunicorn_conf_ends_with_wrong_settings(
    name: str, wrong: dict[str, str], said: str, tmp_path: Path, tmp_path_factory
) -> None:
    """`gunicorn-{name}.conf.py`: it does not start, and says why; nothing is left behind."""
    known = {"MYHEALTH_DATABASE_URL": "postgresql://db.invalid/x", "MYHEALTH_MONGO_URL": "mongodb://db.invalid/x"}
    environ = {**os.environ, **known, "TMPDIR": str(tmp_path), **wrong}
    if "MYHEALTH_SETTINGS" in wrong:
        environ["MYHEALTH_SETTINGS"] = str(own_copy(tmp_path_factory.mktemp("settings")))
    words = [
        sys.executable,
        "-m",
        "gunicorn",
        "-c",
        str(EXAMPLES / f"gunicorn-{name}.conf.py"),
        "--bind",
        "127.0.0.1:0",
    ]
    done = subprocess.run(words, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 78, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_two_gunicorn_configurations_share_nothing() -> None:
    texts = {name: (EXAMPLES / f"gunicorn-{name}.conf.py").read_text() for name in ("upload", "browse")}
    binds = {re.search(r'^bind = "(.*)"', text, re.MULTILINE).group(1) for text in texts.values()}
    assert binds == {"127.0.0.1:5000", "127.0.0.1:5001"}


@pytest.mark.process
@pytest.mark.parametrize("named", ["upload", "browse"])
def test_gunicorn_confs_serve_both_apis_that_do_not_meet(named: str, people, reports, settings, tmp_path: Path) -> None:
    """gunicorn-upload.conf.py and gunicorn-browse.conf.py, with one home and one temporary folder.

    Run from another folder, with settings from the environment, one of the applications named on the command line.
    The browse API ends; the upload API goes on.
    """
    short = Path(tempfile.mkdtemp(prefix="mh"))  # a socket's path has 108 characters at most
    listeners = {name: listen("127.0.0.1", 0) for name in ("upload", "browse")}
    urls = {name: url_of(listener) for name, listener in listeners.items()}
    environ = {
        **os.environ,
        "MYHEALTH_DATABASE_URL": settings.database_url,
        "MYHEALTH_MONGO_URL": settings.mongo_url,
        "MYHEALTH_SECRET_KEY": settings.secret_key,
        "MYHEALTH_AUTH_URL": urls["upload"],
        "TMPDIR": str(short),
        "HOME": str(tmp_path / "home"),
    }
    running = {}
    try:
        for name, url in urls.items():
            listeners[name].close()
            words = ["-c", str(EXAMPLES / f"gunicorn-{name}.conf.py"), "--bind", url.removeprefix("http://")]
            words = [sys.executable, "-m", "gunicorn", *words, *([f"wsgi.{name}:app"] if name == named else [])]
            with (tmp_path / name).open("w") as log:
                running[name] = subprocess.Popen(words, env=environ, cwd=tmp_path, stderr=log)
        for name, url in urls.items():
            assert fetched(f"{url}/openapi.json")["info"]["title"] == f"MyHealth {name} API"
            assert fetched(f"{url}/healthz")["status"] == "ok"
            with urllib.request.urlopen(f"{url}/healthz") as answer:
                assert answer.headers.get_all("Server") == ["MyHealth"]
        deadline = time.monotonic() + 20  # gunicorn creates its control socket after it begins to serve
        while len(sockets := list(short.rglob("gunicorn.ctl"))) < 2:
            assert time.monotonic() < deadline, list(short.rglob("*"))
            time.sleep(0.05)
        assert all(any(f"myhealth-{name}" in str(socket) for socket in sockets) for name in urls)
        login = json.dumps({"username": "bholanath", "password": PASSWORD}).encode()
        token = fetched(f"{urls['browse']}/login/", login)["token"]
        assert fetched(f"{urls['upload']}/users/bholanath/checkups/", token=token) == []
        running["browse"].terminate()
        assert running["browse"].wait(40) == 0
        assert len(list(short.rglob("gunicorn.ctl"))) == 1
        assert fetched(f"{urls['upload']}/healthz")["status"] == "ok"
    finally:
        for process in running.values():
            process.terminate()
            process.wait(40)
        left = list(short.iterdir())
        shutil.rmtree(short)
    assert left == []
    assert not (tmp_path / "home").exists()
    for name in urls:
        log_text = (tmp_path / name).read_text()
        assert "Using worker: gthread" in log_text, log_text


def fetched(url: str, body: bytes | None = None, token: str = "") -> Any:
    """The answer, once there is a server."""
    deadline = time.monotonic() + 30
    while True:
        try:
            headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
            request = urllib.request.Request(url, body, headers)
            with urllib.request.urlopen(request, timeout=20) as answer:
                return json.load(answer)
        except urllib.error.HTTPError:
            raise
        except OSError:
            assert time.monotonic() < deadline, f"{url} does not answer"
            time.sleep(0.05)


@pytest.mark.parametrize("name", ["upload", "browse", "sync", "listen"])
def test_systemd_unit_is_one(name: str, tmp_path: Path) -> None:
    """`myhealth-{name}.service`: read by systemd itself where it is there; its command is one of ours."""
    unit = EXAMPLES / f"myhealth-{name}.service"
    text = unit.read_text()
    for part in ("[Unit]", "[Service]", "[Install]", "User=myhealth", "NoNewPrivileges=yes"):
        assert part in text
    command = re.search(r"^ExecStart=(.*)$", text, re.MULTILINE).group(1).split()
    if name in ("sync", "listen"):
        assert command[:2] == ["/opt/myhealth/.venv/bin/myhealth", name]
        given = cli.get_command(click.Context(cli), name)
        assert given is not None
        given.make_context(name, command[2:])
    else:
        assert command[:2] == ["/opt/myhealth/.venv/bin/gunicorn", "-c"]
        assert (EXAMPLES / Path(command[2]).name).is_file()
        assert f"RuntimeDirectory=myhealth-{name}" in text
    analyze = shutil.which("systemd-analyze")
    if analyze:
        done = subprocess.run([analyze, "verify", str(unit)], capture_output=True, text=True)
        complaints = [
            line for line in done.stderr.splitlines() if unit.name in line and "is not executable" not in line
        ]
        assert complaints == []
