"""Checks of settings that no type expresses: the forms of URLs, secrets, insecure combinations, the file's owner."""

from __future__ import annotations

import os
import stat
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from myhealth.common.addresses import parse_networks
from myhealth.common.errors import SettingsError

if TYPE_CHECKING:
    from myhealth.common.settings import Settings

SECRET_HINT = "make one with: python3 -c 'import secrets; print(secrets.token_urlsafe(48))'"  # noqa: S105 - no secret
# 32 random hexadecimal digits have fewer distinct ones once in 10,000 secrets.
SECRET_CHARACTERS_MIN = 10
# Source: OWASP, "Password Storage Cheat Sheet", bcrypt.
ROUNDS_MIN = 10


def read_private_file(path: Path, kind: str = "settings file") -> bytes:
    """Return a file's content. Raises SettingsError if another user may have written it, OSError.

    As ssh does, it refuses a file that is not ours or root's, or that group or others may write; and one in a folder in
    which everybody may replace it.
    """
    with path.open("rb") as file:
        if hasattr(os, "geteuid"):
            _require_private(path, kind, os.fstat(file.fileno()))
        return file.read()


def _require_private(path: Path, kind: str, info: os.stat_result) -> None:
    folder = path.resolve().parent
    if {info.st_uid, path.lstat().st_uid} - {0, os.geteuid()}:
        raise SettingsError(
            f"the {kind} {path} belongs to another user, who could change where data goes",
            hint=f"check it, then: chown {os.geteuid()} {path}",
        )
    if info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise SettingsError(f"other users may write the {kind} {path}", hint=f"check it, then: chmod go-w {path}")
    mode = folder.stat().st_mode
    is_writable = mode & stat.S_IWOTH and not mode & stat.S_ISVTX
    if is_writable and not os.statvfs(folder).f_flag & os.ST_RDONLY:  # Kubernetes mounts such folders read-only
        raise SettingsError(f"every user may replace the {kind} {path}", hint=f"check it, then: chmod o-w {folder}")


def check_settings(settings: Settings) -> None:
    """Raise SettingsError for URLs of a wrong form, a short secret, unknown zones, proxies that are not addresses, and
    settings that would expose the system, unless `allow_insecure` is set."""
    if any("\ud800" <= character <= "\udfff" for character in settings.data_dir):
        raise SettingsError("data_dir is not UTF-8")
    if settings.secret_key and len(settings.secret_key.encode()) < 32:
        raise SettingsError("secret_key is shorter than 32 bytes", hint=SECRET_HINT)
    _check_url("database_url", settings.database_url, ("postgresql", "postgres"), needs_path=True)
    _check_url("mongo_url", settings.mongo_url, ("mongodb", "mongodb+srv"), needs_path=True)
    _check_url("sync.source_url", settings.sync.source_url, ("postgresql", "postgres"), needs_path=True)
    for name, url in _web_addresses(settings).items():
        _check_url(name, url, ("http", "https"))
        if name.endswith("public_url") and urlsplit(url)._replace(scheme="", netloc="").geturl() not in ("", "/"):
            raise SettingsError(f"{name} must end with its host or port: https://HOST")
    if settings.sync.reports_api_url and not (settings.sync.username and settings.sync.password):
        raise SettingsError(
            "sync.reports_api_url needs sync.username and sync.password, of a user with the role service"
        )
    parse_networks(settings.trusted_proxies)
    listens = settings.upload.metrics_listen, settings.browse.metrics_listen
    if all(map(split_address, listens)) and listens[0] == listens[1]:
        raise SettingsError("upload.metrics_listen and browse.metrics_listen must differ")
    _check_time_zone(settings.time_zone)
    if not settings.allow_insecure:
        _check_exposure(settings)


def split_address(text: str) -> tuple[str, int] | None:
    """Return host and port of `HOST:PORT`, with brackets around an IPv6 address; None for "". Raises SettingsError."""
    if not text:
        return None
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise SettingsError(f"metrics_listen {text!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


def _web_addresses(settings: Settings) -> dict[str, str]:
    return {
        "auth_url": settings.auth_url,
        "sync.reports_api_url": settings.sync.reports_api_url,
        "upload.public_url": settings.upload.public_url,
        "browse.public_url": settings.browse.public_url,
    }


def _check_exposure(settings: Settings) -> None:
    addresses = _web_addresses(settings)
    for name, url in addresses.items():
        if urlsplit(url).scheme == "http" and not is_loopback(url):
            raise SettingsError(
                f"{name} is plain HTTP to another host: everybody on the way can read and change what is sent",
                hint="use https://, or set allow_insecure if the network between is private",
            )
    secret = settings.secret_key
    if secret and (len(set(secret)) < SECRET_CHARACTERS_MIN or secret in (secret * 2)[1:-1]):
        raise SettingsError("secret_key can be guessed: it repeats a few characters", hint=SECRET_HINT)
    if settings.bcrypt_rounds < ROUNDS_MIN and not all(map(is_loopback, [settings.database_url, *addresses.values()])):
        raise SettingsError(
            f"bcrypt_rounds below {ROUNDS_MIN} is for tests on one machine: stolen hashes would be quick to guess",
            hint="leave it out, or set allow_insecure",
        )


def is_loopback(url: str) -> bool:
    """Return whether a URL's host is this machine: loopback, a Unix socket, or no host at all."""
    host = (urlsplit(url).hostname or "").lower()
    if host in ("", "localhost") or host.endswith(".localhost") or host.startswith("%2f"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _check_time_zone(name: str) -> None:
    if name == "UTC":
        return
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones  # these take a while to load

    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        import difflib  # only a mistake needs it

        nearest = difflib.get_close_matches(name, available_timezones(), n=1, cutoff=0.5)
        told = f"the nearest name is {nearest[0]}" if nearest else "one is like Asia/Kolkata"
        raise SettingsError(f"time_zone {name!r} is not a time zone; {told}") from None


def _check_url(name: str, url: str, schemes: tuple[str, ...], *, needs_path: bool = False) -> None:
    if not url:
        return
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise SettingsError(f"{name} is not a URL: {error}") from error
    if any("\ud800" <= character <= "\udfff" for character in url):
        raise SettingsError(f"{name} is not UTF-8")
    if parts.scheme not in schemes:
        raise SettingsError(f"{name} must begin with {schemes[0]}://")
    if schemes[0] == "http":
        try:
            usable = bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise SettingsError(f"{name} names no host, or not a valid port")
    if needs_path and not parts.path.strip("/"):
        raise SettingsError(f"{name} names no database; put its name after the host: {schemes[0]}://HOST/NAME")
