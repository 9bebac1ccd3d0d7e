"""Every command that shows or changes something speaks JSON, and every help ends with an example that works."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from support.factories import record, take

from cli.main import COMMANDS, EXAMPLES, cli
from myhealth.common.settings import keys, load

# These run until they are ended, or print a script.
WITHOUT_JSON = {"completion", "demo", "listen", "serve"}


def leaves(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for word, each in command.commands.items():
            yield from leaves(f"{name} {word}", each)
    else:
        yield name, command


def all_commands() -> dict[str, click.Command]:
    loaded = {name: cli.get_command(click.Context(cli), name) for name in COMMANDS}
    return {full: leaf for name, command in loaded.items() for full, leaf in leaves(name, command)}


def test_every_command_but_those_that_run_on_has_json() -> None:
    with_json = {name for name, each in all_commands().items() if any("--json" in p.opts for p in each.params)}
    assert set(all_commands()) - with_json == WITHOUT_JSON


def test_every_help_ends_with_an_example_that_the_command_takes(tmp_path, monkeypatch) -> None:
    commands = all_commands()
    monkeypatch.chdir(tmp_path)
    for name in ("dump.json", "patients.csv", "cert.pem", "key.pem"):
        (tmp_path / name).touch()
    assert set(EXAMPLES) == set(commands)
    for name, text in EXAMPLES.items():
        words = shlex.split(text.partition(" || ")[0].partition(" > ")[0])
        assert words[: 1 + len(name.split())] == ["myhealth", *name.split()]
        context = click.Context(commands[name], info_name=name)
        assert commands[name].get_help(context).rstrip().endswith(text), name
        arguments = words[1 + len(name.split()) :]
        with commands[name].make_context(name, arguments):  # raises for an unknown option, or a missing argument
            pass


@pytest.mark.process
def test_what_commands_change_is_told_as_json(db, people, sync, run_cli, tmp_path) -> None:
    def told(*words: str, code: int = 0) -> Any:
        done = run_cli(*words, "--json")
        assert done.returncode == code, (words, done.stderr)
        return json.loads(done.stdout)

    made = told("users", "create", "asha", "--generate")
    assert (made["username"], made["password"], len(made["generated_password"]) > 8) == ("asha", True, True)
    assert told("users", "set-name", "asha", "Asha Rao")["full_name"] == "Asha Rao"
    assert told("users", "set-role", "asha", "doctor")["role"] == "doctor"
    assert told("users", "disable", "asha")["active"] is False
    assert told("users", "enable", "asha")["active"] is True
    assert told("users", "set-person", "asha", "--sex", "female")["sex"] == "female"
    assert told("users", "unblock", "asha") == {"forgotten": 0}
    assert told("users", "identifiers", "add", "asha", "HOSP", "7")["accepted"] == 0
    assert told("users", "identifiers", "remove", "asha", "HOSP", "7")["value"] == "7"
    assert told("users", "export", "savita", "--output", str(tmp_path / "s.zip"))["file"] == str(tmp_path / "s.zip")
    table = tmp_path / "people.csv"
    table.write_text("username\nnew.one\nbad name\n")
    assert told("users", "import", str(table), code=1)["refused"] == 1
    assert told("machines", "register", "HC-9")["serial"] == "HC-9"
    take(record(1), record(2, "nobody.knows"))
    ((number,),) = db("select id from rejections")
    assert [each["status"] for each in told("rejections", "retry", str(number), code=1)] == ["still rejected"]
    assert told("rejections", "discard", str(number)) == [{"id": number, "status": "discarded"}]
    assert told("sync", "--once")["written"] > 0
    assert told("migrate") == {"steps": [], "sql": []}
    assert {each["state"].split()[0] for each in told("migrate", "--status")} == {"applied"}


@pytest.mark.process
def test_tests_without_a_code_are_listed_by_machine(people, run_cli) -> None:
    plain = {"name": "Urobilinogen", "value": 1, "unit": "mg/dL"}
    own = {"name": "GLU", "other_code": "G1", "value": 5}
    take(record(1, results=[plain, own]), record(2, results=[plain, {**own, "code": "2345-7"}]), record(3))
    take(record(1, results=[plain]), machine="HC-2")
    take(record(9, results=[plain], status="entered-in-error"))
    told = json.loads(run_cli("machines", "unmapped", "HC-1", "--json").stdout)
    assert [[*each.values()] for each in told] == [
        ["HC-1", "Urobilinogen", "mg/dL", "", 2],
        ["HC-1", "GLU", "", "G1", 1],
    ]
    assert run_cli("machines", "unmapped").stdout.splitlines()[-1].split() == ["HC-2", "Urobilinogen", "mg/dL", "1"]
    unknown = run_cli("machines", "unmapped", "HC-7")
    assert (unknown.returncode, unknown.stderr) == (2, "Error: there is no machine HC-7\n")


@pytest.mark.process
def test_the_example_of_settings_is_a_file_that_can_be_used(run_cli, tmp_path) -> None:
    text = run_cli("settings", "--example", env={}).stdout
    file = tmp_path / "myhealth.toml"
    file.write_text(text)
    assert load(environ={}, file=file) == load(environ={})
    file.write_text("\n".join(line.removeprefix("#") if line.startswith("#") and " = " in line and line[1] != " " else line
                              for line in text.splitlines()))  # fmt: skip
    assert tomllib.loads(file.read_text())["log"]["format"] == "text"
    assert set(load(environ={}, file=file).origins) == {key.name for key in keys()}


@pytest.mark.process
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_completion(shell: str, run_cli) -> None:
    script = run_cli("completion", shell, env={}).stdout
    assert "_MYHEALTH_COMPLETE" in script
    if found := shutil.which(shell):
        assert subprocess.run([found, "-n"], input=script, text=True, capture_output=True).returncode == 0
    asked = {"_MYHEALTH_COMPLETE": "bash_complete", "COMP_WORDS": "myhealth users set", "COMP_CWORD": "2"}
    program = Path(sys.executable).with_name("myhealth")
    answer = subprocess.run([program], env={**os.environ, **asked}, capture_output=True, text=True)
    assert {"plain,set-name", "plain,set-role"} <= set(answer.stdout.split()), answer


PROGRAM = """
import time
from cli.output import counting
began = time.monotonic()
with counting("Rows compared", lambda: 5 * (time.monotonic() - began > 1.2), 10):
    time.sleep({seconds})
"""


@pytest.mark.process
@pytest.mark.parametrize(("seconds", "shown"), [(2, True), (0, False)], ids=["long", "quick"])
def test_a_terminal_sees_how_far_long_work_is(seconds: int, shown: bool) -> None:
    words = [sys.executable, "-c", PROGRAM.format(seconds=seconds)]
    assert subprocess.run(words, capture_output=True).stderr == b"", "nothing in a pipe"
    ours, theirs = pty.openpty()
    running = subprocess.Popen(words, stderr=theirs)
    os.close(theirs)
    text = b""
    with contextlib.suppress(OSError):  # the terminal is closed
        while part := os.read(ours, 65536):
            text += part
    assert running.wait(60) == 0
    assert (b"Rows compared" in text) == shown
