"""Prompts, pipes, colours and wrong arguments, which all commands treat alike."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.paths import ROOT

from cli.main import COMMANDS, EXAMPLES
from myhealth.common.settings import Settings
from myhealth.profiles import services

TIMEOUT_S = 60


@pytest.fixture
def environ(settings: Settings, db: Any) -> dict[str, str]:
    own = {"MYHEALTH_DATABASE_URL": settings.database_url, "MYHEALTH_MONGO_URL": settings.mongo_url}
    return {**os.environ, **own, "MYHEALTH_DATA_DIR": settings.data_dir, "TERM": "xterm"}


@pytest.fixture
def at_terminal(environ: dict[str, str]) -> Callable[..., tuple[int, str]]:
    """Runs a command at a terminal and types `keys` when it shows `prompt`: exit code and all that was shown."""

    def run(*words: str, prompt: str = "", keys: bytes = b"", **more: str) -> tuple[int, str]:
        leader, follower = pty.openpty()
        shown = b""
        process = subprocess.Popen(
            [sys.executable, "-m", "cli", *words], stdin=follower, stdout=follower, stderr=follower, cwd=ROOT,
            env={**environ, **more}, start_new_session=True, preexec_fn=lambda: take_terminal(follower),
        )  # fmt: skip
        os.close(follower)
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            if keys and prompt.encode() in shown:
                os.write(leader, keys)
                keys = b""
            if select.select([leader], [], [], 0.1)[0]:
                try:
                    shown += os.read(leader, 65536)
                except OSError:  # so Linux says that the other end is closed
                    break
            elif process.poll() is not None:
                break
        process.wait(TIMEOUT_S)
        os.close(leader)
        return process.returncode, shown.decode()

    return run


def take_terminal(follower: int) -> None:
    """Makes it the session's own, so that Ctrl-C is a signal."""
    import fcntl
    import termios

    fcntl.ioctl(follower, termios.TIOCSCTTY, 0)


@pytest.mark.parametrize("keys", [b"\x03", b"\x04"], ids=["Ctrl-C", "Ctrl-D"])
def test_a_prompt_that_is_left_does_nothing(at_terminal: Any, db: Any, keys: bytes) -> None:
    code, shown = at_terminal("users", "create", "ann", prompt="Password", keys=keys)
    assert code == 130
    assert "Interrupted." in shown
    assert "Traceback" not in shown
    assert db("select count(*) from users") == [(0,)]


def test_a_question_that_is_answered_no_changes_nothing(at_terminal: Any, people: Any, db: Any) -> None:
    code, shown = at_terminal("users", "delete", "savita", prompt="[y/N]", keys=b"n\n")
    assert code == 1
    assert "Nothing was changed." in shown
    assert db("select count(*) from users where username = 'savita'") == [(1,)]
    code, shown = at_terminal("users", "delete", "savita", prompt="[y/N]", keys=b"y\n")
    assert code == 0
    assert db("select count(*) from users where username = 'savita'") == [(0,)]


def test_a_terminal_gets_colours_unless_they_are_unwanted(at_terminal: Any, people: Any) -> None:
    assert "\x1b[" in at_terminal("users", "list")[1]
    assert "\x1b[" not in at_terminal("users", "list", NO_COLOR="1")[1]


def test_a_table_is_cut_to_a_terminal_and_whole_in_a_pipe(at_terminal: Any, run_cli: Any, people: Any) -> None:
    name = "Savita " + "of the long name " * 8
    services.set_full_name("savita", name.strip())
    lines = at_terminal("users", "list", COLUMNS="60", NO_COLOR="1")[1].splitlines()
    assert max(len(line) for line in lines) == 60
    assert any(line.endswith("…") for line in lines)
    assert name.strip() in run_cli("users", "list").stdout


def test_a_misspelt_command_is_told_the_nearest(run_cli: Any) -> None:
    done = run_cli("user")
    assert done.returncode == 2
    assert "No such command 'user'. Did you mean users?" in done.stderr
    assert "Did you mean" not in run_cli("zzz").stderr


@pytest.mark.process
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_is_told(environ: dict[str, str]) -> None:
    with Path("/dev/full").open("wb") as full:
        words = [sys.executable, "-m", "cli", "users", "list"]
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, env=environ, cwd=ROOT)
    assert done.returncode == 74
    assert done.stderr == "Error: the output cannot be written: No space left on device\n"


def test_the_program_tells_how_it_can_be_called_once_more(monkeypatch: Any, tmp_path: Path) -> None:
    from cli.output import called_as

    program = tmp_path / "myhealth"
    shutil.copy("/bin/sh", program)
    monkeypatch.setattr(sys, "argv", [str(program)])
    monkeypatch.setenv("PATH", "/usr/bin")
    assert called_as() == str(program)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert called_as() == "myhealth"
    monkeypatch.setattr(sys, "argv", [str(ROOT / "cli" / "__main__.py")])
    assert called_as() == f"{sys.executable} -m cli"


def test_json_steers_no_terminal_and_reads_as_what_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    from cli.output import print_json

    value = {"name": "Röntgen\n\x1b[31m\x7f\u202e\u2028\U000e0001y\U000f0000 🩺"}
    print_json(value)
    told = capsys.readouterr().out
    assert json.loads(told) == value
    assert all(c.isprintable() for c in told.replace("\n", ""))


# What only a command that runs may load.
HEAVY = {"asyncio", "bcrypt", "bson", "cryptography", "filelock", "jwt", "msgspec", "peewee", "prometheus_client",
         "psycopg2", "pymongo", "schedule", "segno", "ssl", "urllib3", "zoneinfo"}  # fmt: skip
# Runs commands in one process, and prints for each the modules that are loaded after it; a module of the domain that
# waits for its first use is none.
PROGRAM = """
import contextlib, io, json, sys, types
from cli.main import cli
for words in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()):
        cli(words, prog_name="myhealth", standalone_mode=False)
    print(json.dumps([name for name, module in sys.modules.items() if type(module) is types.ModuleType]))
"""


def loaded_after(commands: list[list[str]], environ: dict[str, str]) -> Iterator[tuple[str, set[str]]]:
    words = [sys.executable, "-c", PROGRAM, json.dumps(commands)]
    done = subprocess.run(words, capture_output=True, text=True, env=environ, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    for command, line in zip(commands, done.stdout.splitlines(), strict=True):
        yield " ".join(command), set(json.loads(line))


def test_the_help_of_a_command_loads_neither_the_domain_nor_a_driver(environ: dict[str, str]) -> None:
    commands = [[*name.split(), "--help"] for name in (*COMMANDS, *EXAMPLES)]
    small = {"myhealth.common.errors", "myhealth.common.text", "myhealth.examples"}
    packages = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "myhealth").rglob("__init__.py")}
    for command, loaded in loaded_after(commands, environ):
        domain = {name for name in loaded if name.startswith("myhealth.")} - packages - small
        assert (command, loaded & HEAVY, domain) == (command, set(), set())


def test_a_command_that_reads_postgresql_loads_what_that_needs(environ: dict[str, str], people: Any) -> None:
    for command, loaded in loaded_after([["users", "list"], ["machines", "list"], ["rejections", "list"]], environ):
        unneeded = HEAVY - {"bcrypt", "msgspec", "peewee", "psycopg2", "ssl"}
        assert (command, loaded & unneeded) == (command, set())
        assert "myhealth.profiles.services" in loaded or not command.startswith("users")


def test_an_empty_pass_loads_what_that_needs(environ: dict[str, str], people: Any) -> None:
    for _, loaded in loaded_after([["sync", "--once"]] * 2, environ):
        assert not loaded & (HEAVY - {"asyncio", "bson", "msgspec", "peewee", "psycopg2", "pymongo", "ssl"})


@pytest.mark.parametrize("words", ["sync --help", "users list"])
def test_python_ends_without_a_search_of_all_modules_for_garbage(
    environ: dict[str, str], people: Any, words: str
) -> None:
    program = """
import atexit, gc, sys
from cli.main import main
atexit.register(lambda: print(gc.isenabled(), len(gc.get_objects()), file=sys.stderr))
main()
"""
    command = [sys.executable, "-c", program, *words.split()]
    done = subprocess.run(command, capture_output=True, text=True, env=environ, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    enabled, searched = done.stderr.split()
    assert (enabled, int(searched) < 1000) == ("True", True)
