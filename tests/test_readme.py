"""The documents agree with the code."""

import configparser
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import pytest
from support.paths import ROOT

from cli.main import COMMANDS, cli
from myhealth import __version__
from myhealth.common.settings import Key, keys

README = (ROOT / "README.md").read_text()
COMMAND_LINE = (ROOT / "cli" / "README.md").read_text()
HTTP = (ROOT / "wsgi" / "README.md").read_text()
DOCUMENTS = sorted(ROOT.glob("*.md")) + sorted(ROOT.glob("*/README.md"))


def section(title: str, text: str = README) -> str:
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def table(text: str) -> list[list[str]]:
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def settings_table() -> str:
    lines = ["| key | environment | default | meaning |", "| --- | --- | --- | --- |"]
    for key in keys():
        lines.append(f"| `{key.name}` | `{key.variable}` | {default(key)} | {key.text} |")
    return "\n".join(lines)


def default(key: Key) -> str:
    return f"`{key.default}`" if key.default != "" else "empty"


def test_the_settings_table_is_the_codes() -> None:
    shown = COMMAND_LINE.split("held against it by a test -->\n")[1].split("\n<!-- end of settings")[0]
    assert shown == settings_table(), f"\n{settings_table()}"


def test_the_command_list_is_the_codes() -> None:
    rows = {row[0]: row[1] for row in table(section("Commands", COMMAND_LINE)) if row[0].startswith("`myhealth")}
    assert rows == {f"`myhealth {name}`": text for name, (_, text) in COMMANDS.items()}


def test_the_help_names_every_exit_code_and_place_of_the_settings() -> None:
    shown = cli.get_help(click.Context(cli))
    codes = [row[0] for row in table(section("Commands", COMMAND_LINE)) if row[0].isdigit()]
    assert codes == re.findall(r"\b\d+\b", shown.partition("Exit codes: ")[2].partition(".")[0])
    assert "$MYHEALTH_SETTINGS" in shown


def test_each_commands_first_line_is_its_line_in_the_list() -> None:
    context = click.Context(cli)
    for name, (_, text) in COMMANDS.items():
        command = cli.get_command(context, name)
        assert command is not None
        assert command.help
        assert command.help.strip().splitlines()[0] == text
        assert command.name == name


def test_every_option_and_argument_has_its_line() -> None:
    def walk(command: click.Command) -> list[Any]:
        inner = command.commands.values() if isinstance(command, click.Group) else ()
        return [*command.params, *[p for each in inner for p in walk(each)]]

    context = click.Context(cli)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        for parameter in walk(command):
            assert parameter.help, f"{name} {parameter.name} has no help"


def test_the_two_commands_are_one_line_each() -> None:
    for title in ("Run it", "Test it"):
        blocks = re.findall(r"```sh\n(.*?)```", section(title), re.DOTALL)
        assert len(blocks) == 1
        assert len(blocks[0].strip().splitlines()) == 1
        assert blocks[0].startswith("python3 -m venv .venv && ")


def test_ci_runs_the_readmes_own_test_command(tmp_path: Path) -> None:
    """.ci/run in a checkout whose programs only write down that they were called."""
    log, programs = tmp_path / "log", tmp_path / "programs"
    for folder, name in [
        (programs, "apt-get"),
        *((tmp_path / ".venv" / "bin", name) for name in ("pytest", "ruff", "mypy")),
    ]:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {log}\necho "2 passed in 0.1s"\n')
        (folder / name).chmod(0o755)
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci" / "run")
    (tmp_path / "README.md").write_text(f"## Test it\n\n```sh\necho README >> {log} && echo '1 passed in 0.1s'\n```\n")
    environ = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    done = subprocess.run([tmp_path / ".ci" / "run"], env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    called = [line for line in log.read_text().splitlines() if not line.startswith("apt-get")]
    assert called == ["README", "pytest --quiet -m long", "ruff check .", "ruff format --check .", "mypy "]
    assert done.stdout.endswith("1 passed in 0.1s\n2 passed in 0.1s\n")


def test_every_route_is_documented() -> None:
    from wsgi import browse, upload

    for module, title in ((upload, "The upload API"), (browse, "The browse API")):
        text = section(title, HTTP)
        for path in module.VIEWS:
            shown = re.sub(r"<\w+_id:\w+>", "ID", path).replace("<username>", "U").replace("<serial>", "SERIAL")
            assert shown in text, f"{path} is not in the README"


def test_every_page_is_documented() -> None:
    from wsgi.browse import MY_PAGES

    text = section("The pages", HTTP)
    for path in MY_PAGES:
        shown = re.sub(r"<kind:[^>]*>", "csv", path).replace("<report_id:int>", "ID").replace("<username>", "U")
        assert f"`{shown}`" in text or path == "/my/<path:path>", f"{path} is not in the README"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_to_files_and_headings(path: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", path.read_text()):
        if target.startswith("http"):
            continue
        name, _, heading = target.partition("#")
        linked = path.parent / name if name else path
        assert linked.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
            assert heading in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}, target


def test_a_file_refers_only_to_documents_of_the_repository() -> None:
    folders = [ROOT / name for name in ("myhealth", "cli", "wsgi", "examples", "tests", ".ci")]
    files = [
        path for folder in folders for path in folder.rglob("*") if path.suffix in ("", ".py", ".toml", ".service")
    ]
    names = {
        (path, name) for path in files if path.is_file() for name in re.findall(r"\b\w[\w./-]*\.md\b", path.read_text())
    }
    lost = {
        (path.name, name) for path, name in names if not any((base / name).is_file() for base in (ROOT, path.parent))
    }
    assert lost == set()


def test_the_readme_and_the_changelog_stay_short() -> None:
    assert len(README.splitlines()) <= 150
    assert len((ROOT / "CHANGELOG.md").read_text().splitlines()) <= 40


def test_the_version_is_the_changelogs_top_release() -> None:
    top = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert top
    assert top.group(1) == __version__
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    assert config["metadata"]["version"] == "attr: myhealth.__version__"


def test_help_needs_none_of_the_commands() -> None:
    program = "import sys; from cli.main import cli; cli(['--help'], standalone_mode=False); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    shown, loaded = done.stdout.rsplit("\n[", 1)
    assert "import-machine" in shown
    commands = {module.partition(":")[0] for module, _ in COMMANDS.values()}
    assert not commands & set(re.findall(r"'([^']+)'", loaded))
    assert not {"peewee", "pymongo", "psycopg2", "bottle", "cryptography"} & set(re.findall(r"'([^']+)'", loaded))


@pytest.mark.process
def test_the_first_steps_work(tmp_path, settings) -> None:
    """Each line under "First steps" as it stands there, on embedded servers of its own."""
    from myhealth.embedded import servers

    block = re.findall(r"```sh\n(.*?)```", section("First steps"), re.DOTALL)[0]
    lines = [line.split("#")[0].strip() for line in block.splitlines() if line.startswith("myhealth ")]
    assert lines[0] == "myhealth users create bholanath"
    assert lines[-1] == "myhealth serve"
    folder = Path(tempfile.mkdtemp(prefix="myhealth-tests-"))
    folder.chmod(0o711)
    environ = {**os.environ, "MYHEALTH_DATA_DIR": str(folder), "MYHEALTH_BCRYPT_ROUNDS": "4"}
    try:
        said = []
        for line in [f"{lines[0]} --generate", *lines[1:-1]]:
            words = [sys.executable, "-m", "cli", *line.split()[1:]]
            said.append(subprocess.run(words, capture_output=True, text=True, env=environ, cwd=ROOT, timeout=60))
        assert [done.returncode for done in said] == [0, 0, 1, 0, 0, 0], said
        assert "3 accepted, 0 duplicate, 2 rejected" in said[2].stdout
        assert said[4].stdout.count("accepted, check-up") == 2
    finally:
        for server in servers(folder):
            server.stop()
        shutil.rmtree(folder)
