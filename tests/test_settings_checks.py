"""Settings that would lead data elsewhere or weaken the system are refused, with what to do."""

import os
from pathlib import Path
from typing import Any

import pytest

from myhealth.common.errors import SettingsError
from myhealth.common.settings import exposed_secrets, load
from myhealth.profiles.tokens import EXAMPLES_SECRET, load_secret

SECRET = "Zq7-a good secret of the tests, 32+"
REMOTE = "postgresql://me@db.example/health"
SYNC = {"sync.username": "runner", "sync.password": "x"}
NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A settings file in a working folder of our own."""
    folder = tmp_path / "work"
    folder.mkdir(mode=0o755)
    monkeypatch.chdir(folder)
    found = folder / "myhealth.toml"
    found.write_text("token_ttl_s = 100\n")
    found.chmod(0o644)
    return found


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o622, 0o666])
@pytest.mark.parametrize("named", ["found", "--settings", "environment"])
def test_a_settings_file_that_others_may_write_is_refused(file: Path, mode: int, named: str) -> None:
    assert load(environ={}).token_ttl_s == 100
    file.chmod(mode)
    with pytest.raises(SettingsError) as caught:
        load(
            file=file if named == "--settings" else None,
            environ={"MYHEALTH_SETTINGS": str(file)} if named == "environment" else {},
        )
    assert "myhealth.toml" in caught.value.message
    assert "chmod go-w" in caught.value.hint
    assert caught.value.exit_code == 78


@pytest.mark.parametrize("name", ["SECRET_KEY", "DATABASE_URL", "SYNC_PASSWORD", "SYNC_SIGNING_KEY"])
@pytest.mark.parametrize(("mode", "owner"), [(0o620, 0), (0o602, 0), pytest.param(0o600, NOBODY, marks=as_root)])
def test_a_secrets_file_is_checked_as_a_settings_file_is(file: Path, name: str, mode: int, owner: int) -> None:
    secret = file.with_name("secret")
    secret.write_text(SECRET if name != "DATABASE_URL" else REMOTE)
    secret.chmod(mode)
    if owner:
        os.chown(secret, owner, owner)
    with pytest.raises(SettingsError, match=r"another user|other users may write") as caught:
        load(environ={f"MYHEALTH_{name}_FILE": str(secret)})
    assert "secret's file" in caught.value.message


def test_a_secrets_file_that_everybody_may_read_is_told(file: Path) -> None:
    secret = file.with_name("secret")
    secret.write_text(SECRET)
    secret.chmod(0o644)
    settings = load(environ={"MYHEALTH_SECRET_KEY_FILE": str(secret)})
    assert exposed_secrets(settings) == {secret: ["secret_key"]}


@as_root
def test_a_settings_file_of_another_user_is_refused(file: Path) -> None:
    os.chown(file, NOBODY, NOBODY)
    with pytest.raises(SettingsError, match=r"myhealth\.toml belongs to another user") as caught:
        load(environ={})
    assert f"chown {os.geteuid()}" in caught.value.hint


@as_root
def test_a_link_of_another_user_is_refused(file: Path) -> None:
    own = file.rename(file.with_name("own.toml"))
    file.symlink_to(own)
    assert load(environ={}).token_ttl_s == 100
    os.chown(file, NOBODY, NOBODY, follow_symlinks=False)
    with pytest.raises(SettingsError, match="belongs to another user"):
        load(environ={})


def test_a_settings_file_in_a_folder_in_which_all_may_replace_it_is_refused(file: Path) -> None:
    file.parent.chmod(0o777)
    with pytest.raises(SettingsError, match="every user may replace the settings file") as caught:
        load(environ={})
    assert "chmod o-w" in caught.value.hint
    file.parent.chmod(0o1777)
    assert load(environ={}).token_ttl_s == 100, "in a sticky folder only its owner replaces it"


def test_a_refused_file_ends_a_command_with_78(file: Path, run_cli: Any) -> None:
    file.chmod(0o666)
    done = run_cli("sync", "--once", cwd=file.parent)
    assert (done.returncode, done.stdout) == (78, "")
    assert "Error: other users may write the settings file myhealth.toml" in done.stderr
    assert "chmod go-w myhealth.toml" in done.stderr


EXPOSED = [
    ({"auth_url": "http://upload.example:5000"}, "auth_url is plain HTTP to another host"),
    ({"auth_url": "http://10.0.0.7"}, "auth_url is plain HTTP"),
    ({"sync.reports_api_url": "http://browse.example", **SYNC}, "sync.reports_api_url is plain HTTP to another host"),
    ({"upload.public_url": "http://upload.example"}, "upload.public_url is plain HTTP"),
    ({"browse.public_url": "http://clinic.example"}, "browse.public_url is plain HTTP"),
    ({"secret_key": "a" * 32}, "secret_key can be guessed"),
    ({"secret_key": "ab" * 31 + "c"}, "secret_key can be guessed"),
    ({"secret_key": "0123456789abcdef" * 4}, "secret_key can be guessed"),
    ({"bcrypt_rounds": 9, "database_url": REMOTE}, "bcrypt_rounds below 10"),
    ({"bcrypt_rounds": 4, "browse.public_url": "https://clinic.example"}, "bcrypt_rounds below 10"),
]


@pytest.mark.usefixtures("file")
@pytest.mark.parametrize(("options", "said"), EXPOSED)
def test_what_exposes_the_system_needs_allow_insecure(options: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(options, environ={})
    assert said in caught.value.message
    assert caught.value.hint
    assert caught.value.exit_code == 78
    assert load({**options, "allow_insecure": True}, environ={}).allow_insecure
    assert load(options, environ={"MYHEALTH_ALLOW_INSECURE": "true"}).allow_insecure


@pytest.mark.usefixtures("file")
@pytest.mark.parametrize(
    "options",
    [
        {"auth_url": "https://upload.example"},
        {"auth_url": "http://127.0.0.2:5000"},
        {"auth_url": "http://[::1]:5000"},
        {"auth_url": "http://localhost:5000"},
        {"sync.reports_api_url": "https://browse.example", **SYNC},
        {"browse.public_url": "https://clinic.example/", "upload.public_url": "https://upload.example:8443"},
        {"browse.public_url": "http://localhost:5001"},
        {"secret_key": SECRET},
        {"secret_key": "0f1e2d3c4b5a69788796a5b4c3d2e1f0"},
        {"bcrypt_rounds": 4},
        {"bcrypt_rounds": 4, "database_url": "postgresql://me@127.0.0.1/health"},
        {"bcrypt_rounds": 4, "database_url": "postgresql://me@%2Frun%2Fpostgresql/health"},
        {"bcrypt_rounds": 10, "database_url": REMOTE},
    ],
)
def test_what_is_safe_enough_is_taken(options: dict[str, Any]) -> None:
    load(options, environ={})


@pytest.mark.usefixtures("file")
def test_the_examples_secret_needs_allow_insecure() -> None:
    options = {"secret_key": EXAMPLES_SECRET, "database_url": REMOTE}
    with pytest.raises(SettingsError, match="the one of the example file"):
        load_secret(load(options, environ={}))
    assert load_secret(load({**options, "allow_insecure": True}, environ={})) == EXAMPLES_SECRET.encode()


@pytest.mark.usefixtures("file")
@pytest.mark.parametrize(
    "text", ["*", "localhost", "127.0.0.1 ::1", "10.0.0.0/33", "proxy.example", "10.0.0.1;10.0.0.2", "any"]
)
def test_proxies_that_are_no_addresses_end_the_start(text: str) -> None:
    with pytest.raises(SettingsError, match="trusted_proxies: ") as caught:
        load({"trusted_proxies": f"127.0.0.1,{text}"}, environ={})
    assert caught.value.exit_code == 78
    assert "10.0.0.0/8" in caught.value.hint


@pytest.mark.usefixtures("file")
@pytest.mark.parametrize("url", ["https://clinic.example/health", "https://clinic.example/?a=1", "https://x/#a", "x"])
def test_a_public_url_is_a_scheme_and_a_host(url: str) -> None:
    with pytest.raises(SettingsError, match=r"browse\.public_url must"):
        load({"browse.public_url": url}, environ={})
