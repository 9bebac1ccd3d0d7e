"""The examples for systemd, containers, log rotation and locked dependencies are right, as far as they run here."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support.paths import ROOT

from cli.main import COMMANDS, cli
from myhealth.common.settings import keys, load

EXAMPLES = ROOT / "examples"
PARTS = ("upload", "browse", "sync", "listen")
EXPOSURE_MOST = 2.0
SECRETS = {"upload": {"database_url", "secret_key"}, "browse": {"mongo_url"}, "sync": {"database_url", "mongo_url"},
           "listen": {"database_url"}}  # fmt: skip


def unit(name: str) -> configparser.RawConfigParser:
    found = configparser.RawConfigParser(strict=False, interpolation=None, delimiters=("=",))
    found.optionxform = str  # type: ignore[assignment,method-assign]
    found.read(EXAMPLES / name)
    return found


@pytest.mark.parametrize("part", PARTS)
def test_each_program_has_a_user_and_settings_of_its_own(part: str, tmp_path: Path) -> None:
    """So the browse API's host has neither PostgreSQL's password nor the secret key."""
    service = unit(f"myhealth-{part}.service")["Service"]
    assert service["User"] == f"myhealth-{part}"
    assert service["Environment"] == f"MYHEALTH_SETTINGS=/etc/myhealth/{part}.toml"
    values = tomllib.loads((EXAMPLES / f"{part}.toml").read_text())
    assert {name for name in values if name in {"database_url", "mongo_url", "secret_key"}} == SECRETS[part]
    path = tmp_path / "own.toml"
    path.write_text((EXAMPLES / f"{part}.toml").read_text())
    path.chmod(0o600)
    load(environ={}, file=str(path))


@pytest.mark.parametrize("part", PARTS)
def test_the_service_runs_our_command(part: str) -> None:
    service = unit(f"myhealth-{part}.service")["Service"]
    command = service["ExecStart"].split()
    if part in ("sync", "listen"):
        assert command[:2] == ["/opt/myhealth/.venv/bin/myhealth", part]
        given = cli.get_command(click.Context(cli), part)
        assert given is not None
        given.make_context(part, command[2:])
        return
    assert command[:2] == ["/opt/myhealth/.venv/bin/gunicorn", "-c"]
    assert (EXAMPLES / Path(command[2]).name).is_file()
    assert (service["Type"], service["RuntimeDirectory"]) == ("notify", f"myhealth-{part}")
    assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"
    text = (EXAMPLES / f"myhealth-{part}.socket").read_text()
    listening = re.findall(r"^ListenStream=(.*)$", text, re.MULTILINE)
    bind = re.search(r'^bind = "(.*)"', (EXAMPLES / f"gunicorn-{part}.conf.py").read_text(), re.MULTILINE)
    assert bind is not None
    assert listening == [f"/run/myhealth-{part}.sock", bind[1]]
    assert f"unix:{listening[0]} " in (EXAMPLES / "nginx.conf").read_text()


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("myhealth-*.s*")))
def test_systemd_reads_the_units_and_finds_them_hardened(name: str) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("there is no systemd here")
    done = subprocess.run([analyze, "verify", str(EXAMPLES / name)], capture_output=True, text=True, check=False)
    complaints = [line for line in done.stderr.splitlines() if "myhealth" in line and "is not executable" not in line]
    assert complaints == []
    if name.endswith(".service"):
        words = [analyze, "security", "--offline=true", "--no-pager", str(EXAMPLES / name)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        exposure = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
        assert exposure is not None, done.stdout + done.stderr
        assert float(exposure[1]) <= EXPOSURE_MOST


def test_the_lock_file_is_what_setup_cfg_asks_for() -> None:
    text = (EXAMPLES / "requirements.lock").read_text()
    assert "://" not in text
    entries = [re.sub(r"\\\n", " ", each) for each in re.split(r"\n(?=\S)", text) if not each.startswith("#")]
    pinned = {}
    for entry in entries:
        requirement = Requirement(entry.partition(" --hash")[0])
        (pin,) = requirement.specifier
        assert pin.operator == "=="
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry
        pinned[canonicalize_name(requirement.name)] = pin.version
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    wanted = setup["options"]["install_requires"] + setup["options.extras_require"]["server"]
    for line in wanted.split("\n"):
        if line.strip() and not line.startswith("#"):
            requirement = Requirement(line)
            assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), line


def test_the_compose_file_has_right_commands_and_settings() -> None:
    text = (EXAMPLES / "compose.yaml").read_text()
    assert text.startswith("# NOT RUN")
    compose: Any = yaml.safe_load(text)
    known = {f"MYHEALTH_{key.name.upper().replace('.', '_')}" for key in keys()}
    for name, service in compose["services"].items():
        variables = {variable.removesuffix("_FILE") for variable in service.get("environment", {})}
        assert {each for each in variables if each.startswith("MYHEALTH_")} <= known, name
        program, *words = service.get("command", ["none"])
        if program == "myhealth":
            assert words[0] in COMMANDS
        elif program == "gunicorn":
            assert (EXAMPLES / Path(words[1]).name).is_file()
        assert set(service.get("secrets", [])) <= set(compose["secrets"])
        assert set(service.get("depends_on", [])) <= set(compose["services"])
        assert "latest" not in service.get("image", "")
    assert "MYHEALTH_DATABASE_URL_FILE" not in compose["services"]["browse"]["environment"]


def test_logrotate_reads_its_file(tmp_path: Path) -> None:
    logrotate = shutil.which("logrotate", path="/usr/sbin:/usr/bin")
    if logrotate is None:
        pytest.skip("there is no logrotate here")
    copy = tmp_path / "myhealth"
    copy.write_text((EXAMPLES / "myhealth.logrotate").read_text())
    copy.chmod(0o644)
    words = [logrotate, "--debug", "--state", str(tmp_path / "state"), str(copy)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "error" not in done.stderr.lower()
