"""Settings: the only reader of the environment and of the settings file.

Precedence: command-line option, environment (`MYHEALTH_X`, or `MYHEALTH_X_FILE` naming a file that holds the
value), settings file, default. An entry point builds the settings once and passes them down.
"""

import dataclasses
import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import msgspec
from msgspec import Meta

from myhealth.common.decoding import plain
from myhealth.common.errors import SettingsError

PREFIX = "MYHEALTH_"
DIRECT = "SERVED_WITHOUT_PROXY"  # `myhealth serve` sets it for servers on a loopback address
SYSTEM_FILE = Path("/etc/myhealth/myhealth.toml")
# Kubernetes sets these variables for a service named "myhealth"; they are not settings.
INJECTED = re.compile(r"MYHEALTH_(\w+_)?(SERVICE_HOST|SERVICE_PORT\w*|PORT|PORT_\d+_\w+)")


def setting(default: Any, text: str, *, secret: bool = False) -> Any:
    """Return a dataclass field with its one-line explanation, for the documentation's table and the example file."""
    return dataclasses.field(default=default, metadata={"text": text, "secret": secret})


@dataclasses.dataclass(frozen=True)
class SyncSettings:
    interval_s: Annotated[float, Meta(gt=0, le=86400)] = setting(
        300, "Seconds from the end of one pass of the sync to the next."
    )
    batch_rows: Annotated[int, Meta(ge=1, le=100_000)] = setting(2000, "Rows that one read and one bulk write carry.")
    listen: bool = setting(
        False,
        "Whether `myhealth sync` also begins a pass as soon as an upload comes in or a user is changed; `serve` does.",
    )
    source_url: str = setting(
        "", "A standby of `database_url`'s server to read the rows from; empty: from `database_url`.", secret=True
    )
    reports_api_url: str = setting("", "The browse API that takes the reports over HTTP; empty: straight to MongoDB.")
    username: str = setting("", "Who logs in there: a user with the role service.")
    password: str = setting("", "That user's password.", secret=True)
    signing_key: str = setting(
        "", "The private key that signs what is sent there; `myhealth sync --new-key FILE` makes one.", secret=True
    )
    verify_share: Annotated[float, Meta(ge=0, le=1)] = setting(
        0.01, "The share of rows, picked at random, that the loop of `myhealth sync` compares in both stores; 0: none."
    )
    verify_interval_s: Annotated[float, Meta(gt=0, le=31_536_000)] = setting(
        3600, "Seconds from one such comparison to the next."
    )


@dataclasses.dataclass(frozen=True)
class IntakeSettings:
    own_authorities: str = setting(
        "", "Assigning authorities, with commas between them, whose patient numbers are usernames here."
    )

    @cached_property
    def folded_authorities(self) -> frozenset[str]:
        """The authorities as they are compared."""
        return frozenset(filter(None, (each.strip().casefold() for each in self.own_authorities.split(","))))


@dataclasses.dataclass(frozen=True)
class UploadSettings:
    max_body_bytes: Annotated[int, Meta(ge=1024)] = setting(
        64 * 1024 * 1024, "Largest request body in bytes, compressed or not."
    )
    max_records: Annotated[int, Meta(ge=1)] = setting(100_000, "Maximum number of records in one request.")
    public_url: str = setting(
        "", "The upload API's address as users see it, `https://upload.example`; empty: from each request."
    )
    metrics_listen: str = setting(
        "", "HOST:PORT of an own address for the upload API's `/metrics`; empty: at the API's own address."
    )


@dataclasses.dataclass(frozen=True)
class BrowseSettings:
    public_url: str = setting(
        "", "The same of the browse API and its pages. If it is https, cookies are Secure and browsers stay with HTTPS."
    )
    metrics_listen: str = setting(
        "", "The same for the browse API's `/metrics`; another address than the upload API's."
    )
    keys_file: str = setting(
        "", "File in which the browse API keeps the upload API's public keys, to start without it; empty: none."
    )
    sync_public_key: str = setting(
        "",
        "The public half of `sync.signing_key`, for the browse API to check; several with commas, while keys change;"
        " empty: no sync over HTTP.",
    )
    ask: str = setting(
        "the place where you had your check-up",
        "Whom patients may ask about a result: a report ends with “What next: ask …”.",
    )


@dataclasses.dataclass(frozen=True)
class RetentionSettings:
    rejections_days: Annotated[int, Meta(ge=0, le=36_500)] = setting(
        365, "Days that a rejected record is kept after it was retried or discarded; 0: for ever."
    )
    audit_days: Annotated[int, Meta(ge=0, le=36_500)] = setting(
        730, "Days that audit events are kept in both stores, at least 31; 0: for ever."
    )


@dataclasses.dataclass(frozen=True)
class LogSettings:
    format: Literal["text", "json"] = setting("text", "Form of the log's lines: text or json.")
    level: Literal["debug", "info", "warning", "error"] = setting(
        "info",
        "Lowest level that the APIs and the loop of `myhealth sync` log: debug, info, warning or error; info has a line"
        " for each request.",
    )


@dataclasses.dataclass(frozen=True)
class Settings:
    database_url: str = setting(
        "", "PostgreSQL, the source of truth; empty: an embedded server in `data_dir`.", secret=True
    )
    mongo_url: str = setting(
        "", "MongoDB, the report store, with the database's name; empty: an embedded server in `data_dir`.", secret=True
    )
    data_dir: str = setting("", "Folder of the embedded servers; empty: the platform's user data folder.")
    secret_key: str = setting(
        "",
        "At least 32 bytes; the upload API's alone: tokens are signed with a key derived from it. "
        "Empty: made once in `data_dir`, with embedded PostgreSQL only.",
        secret=True,
    )
    auth_url: str = setting("http://127.0.0.1:5000", "The upload API, which checks the browse API's logins.")
    registration_open: bool = setting(True, "Whether anybody may make an account, as a patient, at the upload API.")
    trusted_proxies: str = setting(
        "127.0.0.1,::1,unix",
        "Addresses and networks, with commas between them, whose X-Forwarded-For is believed: proxies, and the browse"
        " API's host; `unix`: whoever comes over a Unix socket.",
    )
    token_ttl_s: Annotated[int, Meta(ge=60, le=31_536_000)] = setting(18000, "Seconds that a login lasts.")
    bcrypt_rounds: Annotated[int, Meta(ge=4, le=18)] = setting(12, "Cost of a password's hash: 2^n rounds.")
    time_zone: str = setting(
        "UTC", "IANA name of the zone in which pages show dates and times, such as `Asia/Kolkata`."
    )
    allow_insecure: bool = setting(
        False, "Whether plain HTTP to another host, a guessable `secret_key` and few `bcrypt_rounds` are accepted."
    )
    sync: SyncSettings = dataclasses.field(default_factory=SyncSettings)
    intake: IntakeSettings = dataclasses.field(default_factory=IntakeSettings)
    upload: UploadSettings = dataclasses.field(default_factory=UploadSettings)
    browse: BrowseSettings = dataclasses.field(default_factory=BrowseSettings)
    retention: RetentionSettings = dataclasses.field(default_factory=RetentionSettings)
    log: LogSettings = dataclasses.field(default_factory=LogSettings)
    origins: Mapping[str, str] = dataclasses.field(default_factory=dict, compare=False, metadata={"internal": True})

    @property
    def folder(self) -> Path:
        """The data folder: `data_dir`, or the platform's folder for a user's data.

        For root on POSIX that is /var/lib/myhealth: PostgreSQL then runs as another user, who cannot enter root's
        private home.
        """
        if self.data_dir:
            return Path(self.data_dir).expanduser().absolute()
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            return Path("/var/lib/myhealth")
        import platformdirs

        return Path(platformdirs.user_data_dir("myhealth", appauthor=False))


@dataclasses.dataclass(frozen=True)
class Key:
    """One setting: its dotted name, type, default, explanation and environment variable."""

    name: str
    type: Any
    default: Any
    text: str
    secret: bool

    @property
    def variable(self) -> str:
        return PREFIX + self.name.replace(".", "_").upper()


def keys(of: type = Settings, prefix: str = "") -> Iterator[Key]:
    """Return every setting in order of declaration, sections last, as `section.name`."""
    hints = get_type_hints(of, include_extras=True)
    for field in dataclasses.fields(of):
        if dataclasses.is_dataclass(hints[field.name]):
            yield from keys(hints[field.name], f"{prefix}{field.name}.")
        elif not field.metadata.get("internal"):
            text, secret = field.metadata["text"], field.metadata["secret"]
            yield Key(prefix + field.name, hints[field.name], field.default, text, secret)


def load(
    options: Mapping[str, Any] | None = None,
    *,
    file: str | os.PathLike[str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Read the settings, each with its origin in `Settings.origins`.

    `options`: values from the command line by dotted name; None means not given. `file`: the settings file; without
    it the first that exists of `$MYHEALTH_SETTINGS`, `./myhealth.toml` and /etc/myhealth/myhealth.toml.
    Raises SettingsError, with the origin, for an unknown key (with the nearest known one), a value of a wrong type or
    out of range, a file that does not exist, is not TOML or may be written by others, and a setting that
    `check_settings` refuses.
    """
    from myhealth.common.settings_checks import check_settings  # it loads what only settings need

    environ = os.environ if environ is None else environ
    known = {key.name: key for key in keys()}
    found: dict[str, tuple[Any, str]] = {}
    found.update(_from_file(_settings_file(file, environ), known))
    found.update(_from_environ(environ, known))
    found.update({name: (value, "option") for name, value in (options or {}).items() if value is not None})
    values = {name: _convert(known[name], value, origin) for name, (value, origin) in found.items()}
    settings: Settings = _build(Settings, values, origins={name: origin for name, (_, origin) in found.items()})
    check_settings(settings)
    return settings


def _settings_file(file: str | os.PathLike[str] | None, environ: Mapping[str, str]) -> Path | None:
    named = file or environ.get("MYHEALTH_SETTINGS")
    if named:
        if not Path(named).is_file():
            origin = "--settings" if file else "MYHEALTH_SETTINGS"
            raise SettingsError(f"{origin} names {str(named)!r}, which is not a file")
        return Path(named)
    return next((path for path in (Path("myhealth.toml"), SYSTEM_FILE) if path.is_file()), None)


def _from_file(path: Path | None, known: Mapping[str, Key]) -> dict[str, tuple[Any, str]]:
    if path is None:
        return {}
    import tomllib

    from myhealth.common.settings_checks import read_private_file

    try:
        tree = tomllib.loads(read_private_file(path).decode())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {error}") from error
    flat = dict(_flatten(tree))
    for name in flat.keys() - known.keys():
        raise SettingsError(_unknown(f"{name!r} in {path}", name, list(known)))
    return {name: (value, str(path)) for name, value in flat.items()}


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        elif isinstance(value, list) and all(isinstance(each, str) for each in value):
            yield prefix + name, ",".join(value)
        else:
            yield prefix + name, value


def _from_environ(environ: Mapping[str, str], known: Mapping[str, Key]) -> dict[str, tuple[Any, str]]:
    variables = {key.variable: key for key in known.values()}
    names = {**variables, **{f"{name}_FILE": key for name, key in variables.items()}}
    found: dict[str, tuple[Any, str]] = {}
    for variable, value in sorted(environ.items()):
        if not variable.startswith(PREFIX) or variable == "MYHEALTH_SETTINGS" or INJECTED.fullmatch(variable):
            continue
        if variable not in names:
            raise SettingsError(_unknown(f"{variable} in the environment", variable, [*names, "MYHEALTH_SETTINGS"]))
        key = names[variable]
        if key.name in found:
            raise SettingsError(f"both {key.variable} and {key.variable}_FILE are set; keep one of them")
        found[key.name] = (value, variable) if variable in variables else (_read_secret(variable, value), value)
    return found


def _read_secret(variable: str, path: str) -> str:
    from myhealth.common.settings_checks import read_private_file

    try:
        return read_private_file(Path(path), "secret's file").decode().rstrip("\r\n")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise SettingsError(f"{variable} names a file that cannot be read: {error}") from error


def _unknown(place: str, name: str, names: list[str]) -> str:
    import difflib  # only a mistake needs it

    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    told = f"the nearest one is {nearest[0]}" if nearest else "`myhealth settings` shows all"
    return f"{place} is not a setting; {told}"


def _convert(key: Key, value: Any, origin: str) -> Any:
    place = key.name if origin in (key.variable, "option") else f"{key.name} in {origin}"
    if origin.startswith(PREFIX):
        place = origin
    if isinstance(value, float) and value != value:
        raise SettingsError(f"{place}: NaN is not a number")
    try:
        return msgspec.convert(value, key.type, strict=not isinstance(value, str))
    except msgspec.ValidationError as error:
        shown = "" if key.secret else f": {value!r}"
        raise SettingsError(f"{place} is wrong{shown}; {plain(error)}", hint=key.text) from None


def _build(of: Any, values: Mapping[str, Any], prefix: str = "", **extra: Any) -> Any:
    hints = get_type_hints(of)
    arguments: dict[str, Any] = {}
    for field in dataclasses.fields(of):
        if dataclasses.is_dataclass(hints[field.name]):
            arguments[field.name] = _build(hints[field.name], values, f"{prefix}{field.name}.")
        elif prefix + field.name in values:
            arguments[field.name] = values[prefix + field.name]
    return of(**arguments, **extra)


def child_environ(settings: Settings, without: Collection[str] = ()) -> dict[str, str]:
    """Return the environment for a child process with exactly these settings, except for the keys in `without`, which
    are left empty."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    return environ | {key.variable: "" if key.name in without else str(_value(settings, key)) for key in keys()}


def is_served_directly() -> bool:
    return DIRECT in os.environ


def sudo_uid() -> int | None:
    """Return the number of the account that called sudo, None without sudo."""
    text = os.environ.get("SUDO_UID", "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else None


def wants_colour() -> bool | None:
    """Return False if the user (NO_COLOR, no-color.org) or the terminal excludes colours, else None."""
    return False if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else None


def _value(settings: Settings, key: Key) -> Any:
    value: Any = settings
    for part in key.name.split("."):
        value = getattr(value, part)
    return value


def masked(key: Key, value: Any) -> str:
    """Return a value as it may be shown: a URL without its password, any other secret as asterisks."""
    text = "" if value is None else str(value)
    if not key.secret or not text:
        return text
    if "://" not in text:
        return "********"
    text = re.sub(r"(?i)([?&](?:password|sslpassword|authMechanismProperties)=)[^&]*", r"\1********", text)
    return re.sub(r"(?<=://)([^/@:]*):(.*)@", r"\1:********@", text)


def exposed_secrets(settings: Settings) -> dict[Path, list[str]]:
    """Return the keys of secrets in settings files that every user of this machine may read, by the file's path."""
    found: dict[Path, list[str]] = {}
    for key in keys():
        path, text = Path(settings.origins.get(key.name, "")), str(_value(settings, key))
        if masked(key, text) != text and path.is_file() and path.stat().st_mode & stat.S_IROTH:
            found.setdefault(path, []).append(key.name)
    return found


def setting_rows(settings: Settings) -> list[dict[str, str]]:
    """Return `key`, `value` (secrets masked) and `origin` of each setting, in order of declaration."""
    defaults = dict.fromkeys(("database_url", "mongo_url"), "(embedded server)")
    defaults |= {} if settings.database_url else {"secret_key": "(made in data_dir)"}
    rows = []
    for key in keys():
        value = settings.folder if key.name == "data_dir" else _value(settings, key)
        shown = masked(key, value) or defaults.get(key.name, "")
        rows.append({"key": key.name, "value": shown, "origin": settings.origins.get(key.name, "default")})
    return rows
