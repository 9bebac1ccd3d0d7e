"""The sources of settings, their validation, and the protection of secrets."""

import json
from pathlib import Path

import pytest

from myhealth.common import settings as module
from myhealth.common.errors import SettingsError
from myhealth.common.settings import child_environ, keys, load, setting_rows

URL = "postgresql://me:hunter2@db.example/health"


@pytest.fixture(autouse=True)
def somewhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "SYSTEM_FILE", tmp_path / "etc.toml")
    return tmp_path


def test_defaults_hold_where_nothing_is_said() -> None:
    found = load(environ={})
    assert (found.token_ttl_s, found.sync.interval_s, found.upload.max_body_bytes) == (18000, 300, 67108864)
    assert found.auth_url == "http://127.0.0.1:5000"
    assert {row["origin"] for row in setting_rows(found)} == {"default"}


def test_an_option_beats_the_environment_which_beats_the_file(somewhere_else: Path) -> None:
    (somewhere_else / "myhealth.toml").write_text("token_ttl_s = 100\nbcrypt_rounds = 10\n[sync]\ninterval_s = 7.5\n")
    environ = {"MYHEALTH_TOKEN_TTL_S": "200", "MYHEALTH_BCRYPT_ROUNDS": "11"}
    found = load({"token_ttl_s": 300, "auth_url": None}, environ=environ)
    assert (found.token_ttl_s, found.bcrypt_rounds, found.sync.interval_s) == (300, 11, 7.5)
    origins = {row["key"]: row["origin"] for row in setting_rows(found)}
    assert origins["token_ttl_s"] == "option"
    assert origins["bcrypt_rounds"] == "MYHEALTH_BCRYPT_ROUNDS"
    assert origins["sync.interval_s"] == "myhealth.toml"
    assert origins["auth_url"] == "default"


def test_the_first_file_that_is_there_is_read(somewhere_else: Path) -> None:
    (somewhere_else / "etc.toml").write_text("token_ttl_s = 61")
    assert load(environ={}).token_ttl_s == 61
    (somewhere_else / "myhealth.toml").write_text("token_ttl_s = 62")
    assert load(environ={}).token_ttl_s == 62
    (somewhere_else / "named.toml").write_text("token_ttl_s = 63")
    assert load(environ={"MYHEALTH_SETTINGS": "named.toml"}).token_ttl_s == 63
    (somewhere_else / "other.toml").write_text("token_ttl_s = 64")
    assert load(environ={"MYHEALTH_SETTINGS": "named.toml"}, file="other.toml").token_ttl_s == 64


def test_a_secret_may_lie_in_a_file(somewhere_else: Path) -> None:
    (somewhere_else / "url").write_text(URL + "\n")
    found = load(environ={"MYHEALTH_DATABASE_URL_FILE": str(somewhere_else / "url")})
    assert found.database_url == URL


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"MYHEALTH_TOKEN_TLL_S": "1"}, "MYHEALTH_TOKEN_TLL_S in the environment is not a setting; the nearest one is "
         "MYHEALTH_TOKEN_TTL_S"),
        ({"MYHEALTH_TOKEN_TTL_S": "soon"}, "MYHEALTH_TOKEN_TTL_S is wrong: 'soon'"),
        ({"MYHEALTH_TOKEN_TTL_S": "soon"}, "; it must be a whole number, not text"),
        ({"MYHEALTH_TOKEN_TTL_S": "-1"}, "; it must be a whole number >= 60"),
        ({"MYHEALTH_LOG_LEVEL": "loud"}, "; it is not one of the allowed values"),
        ({"MYHEALTH_SYNC_INTERVAL_S": "nan"}, "MYHEALTH_SYNC_INTERVAL_S"),
        ({"MYHEALTH_SYNC_INTERVAL_S": ""}, "MYHEALTH_SYNC_INTERVAL_S"),
        ({"MYHEALTH_SECRET_KEY": "short"}, "secret_key is shorter than 32 bytes"),
        ({"MYHEALTH_SECRET_KEY_FILE": "/nowhere"}, "MYHEALTH_SECRET_KEY_FILE names a file that cannot be read"),
        ({"MYHEALTH_MONGO_URL": "mongodb://host"}, "mongo_url names no database"),
        ({"MYHEALTH_DATABASE_URL": "mysql://host/x"}, "database_url must begin with postgresql://"),
        ({"MYHEALTH_DATABASE_URL": "postgresql://[::1/x"}, "database_url is not a URL"),
        ({"MYHEALTH_AUTH_URL": "file:///etc/passwd"}, "auth_url must begin with http://"),
        ({"MYHEALTH_SETTINGS": "gone.toml"}, "MYHEALTH_SETTINGS names 'gone.toml', which is not a file"),
        ({"MYHEALTH_DATA_DIR": "a", "MYHEALTH_DATA_DIR_FILE": "b"}, "keep one of them"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)  # fmt: skip
def test_a_wrong_environment_is_told_with_its_place(environ: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(environ=environ)
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("token_tll_s = 5", "'token_tll_s' in myhealth.toml is not a setting; the nearest one is token_ttl_s"),
        ("[sinc]\ninterval_s = 5", "the nearest one is sync.interval_s"),
        ("qqqqqq = 5", "'qqqqqq' in myhealth.toml is not a setting; `myhealth settings` shows all"),
        ("time_zone = 'Qqq'", "time_zone 'Qqq' is not a time zone; one is like Asia/Kolkata"),
        ("token_ttl_s = '5'x", "myhealth.toml cannot be read"),
        ("token_ttl_s = true", "token_ttl_s in myhealth.toml is wrong"),
        ("[sync]\ninterval_s = nan", "NaN is not a number"),
        ("sync = 5", "'sync' in myhealth.toml is not a setting"),
    ],
)
def test_a_wrong_file_is_told_with_its_place(somewhere_else: Path, text: str, said: str) -> None:
    (somewhere_else / "myhealth.toml").write_text(text)
    with pytest.raises(SettingsError) as caught:
        load(environ={})
    assert said in caught.value.message


def test_what_kubernetes_injects_for_a_service_is_no_setting() -> None:
    load(environ={"MYHEALTH_SERVICE_HOST": "10.0.0.1", "MYHEALTH_PORT_80_TCP_ADDR": "x", "MYHEALTH_PORT": "tcp://x"})


@pytest.mark.parametrize(
    "url",
    [
        URL,
        "postgresql://me:hunt@er2@db.example/health",
        "postgresql://db.example/health?user=me&password=hunter2",
        "mongodb://me:hunter2@a,b,c/health?replicaSet=r",
    ],
)
def test_no_secret_is_ever_shown(url: str) -> None:
    name = "mongo_url" if url.startswith("mongodb") else "database_url"
    found = load({name: url, "secret_key": "hunter2 and 32 bytes more of WXYZ"}, environ={})
    text = json.dumps(setting_rows(found))
    assert "hunter2" not in text
    assert "er2" not in text
    assert "example" in text or "a,b,c" in text


def test_a_wrong_secret_is_not_repeated_in_the_error() -> None:
    with pytest.raises(SettingsError) as caught:
        load({"secret_key": 5}, environ={})
    assert "5" not in caught.value.message.replace("secret_key", "")


def test_a_child_process_gets_the_very_same_settings(somewhere_else: Path) -> None:
    found = load({"database_url": URL, "sync.interval_s": 12.5}, environ={})
    (somewhere_else / "myhealth.toml").write_text("token_ttl_s = 99\n[sync]\nreports_api_url = 'https://other'")
    own = {name: value for name, value in child_environ(found).items() if name.startswith("MYHEALTH_")}
    assert load(environ=own) == found


def test_every_key_has_a_line_for_people() -> None:
    assert all(key.text.endswith(".") for key in keys())


def test_the_command_shows_each_value_and_its_origin(run_cli, tmp_path: Path) -> None:
    environ = {"MYHEALTH_DATABASE_URL": URL, "MYHEALTH_DATA_DIR": str(tmp_path)}
    done = run_cli("--mongo-url", "mongodb://m/x", "settings", "--json", env=environ)
    rows = {row["key"]: row for row in json.loads(done.stdout)}
    assert rows["database_url"]["value"] == "postgresql://me:********@db.example/health"
    assert rows["database_url"]["origin"] == "MYHEALTH_DATABASE_URL"
    assert rows["mongo_url"]["origin"] == "option"
    assert list(tmp_path.iterdir()) == [], "showing settings starts nothing"
    plain = run_cli("settings", env=environ)
    assert "hunter2" not in plain.stdout
    assert "(embedded server)" in plain.stdout


def test_wrong_settings_end_with_exit_code_78(run_cli) -> None:
    done = run_cli("settings", env={"MYHEALTH_NONSENSE": "1"})
    assert (done.returncode, done.stdout) == (78, "")
    assert "Error: MYHEALTH_NONSENSE in the environment is not a setting" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("mode", "text", "warned"),
    [
        (0o644, f'[sync]\nsource_url = "{URL}"\npassword = "x"', "sync.source_url, sync.password"),
        (0o640, '[sync]\npassword = "x"', ""),
        (0o644, f'token_ttl_s = 100\n[sync]\nsource_url = "{URL.replace(":hunter2", "")}"', ""),
    ],
)  # fmt: skip
def test_a_file_of_secrets_that_everybody_may_read_is_warned_of(run_cli, tmp_path: Path, mode, text, warned) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    file.chmod(mode)
    done = run_cli("--settings", str(file), "settings", "--json")
    assert done.returncode == 0
    told = f"Warning: every user of this machine may read {file}, which contains {warned}: chmod o-r {file}\n"
    assert done.stderr == (told if warned else "")
    assert json.loads(done.stdout)
