"""Examine an installation: each finding says what is so, and what to do about it. No secret is shown.

needs: everything of ours
"""

from __future__ import annotations

import shutil
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, NamedTuple

from myhealth import grants, stores
from myhealth.common.addresses import parse_networks
from myhealth.common.database import database, fetch_all, transaction
from myhealth.common.errors import MyHealthError, Unavailable
from myhealth.common.http_client import HttpClient
from myhealth.common.settings import Settings, keys
from myhealth.common.settings_checks import is_loopback
from myhealth.profiles.tokens import LEEWAY_S, load_secret
from myhealth.reports.repository import ReportRepository
from myhealth.sync.lag import read_last_pass

OK, ADVICE, FAULT = "ok", "advice", "fault"
TIMEOUT_S = 5
CLOCK_NOTED_S = 2.0
POSTGRESQL_MIN, MONGODB_MIN = 140_000, (6,)
DISK_MIN_BYTES, DISK_MIN_SHARE = 1 << 30, 0.1
NETWORKS_WIDE = {4: 8, 6: 32}  # a shorter prefix is most likely a slip
TRIGGERS = ("feed_stamp_insert", "feed_stamp_update", "feed_bury")
FACTS = """
select current_setting('server_version_num')::int as version, current_setting('server_version') as version_text,
    pg_encoding_to_char(encoding) as encoding, datcollate as locale, current_user as role,
    current_setting('is_superuser')::bool as superuser,
    coalesce((select ssl from pg_stat_ssl where pid = pg_backend_pid()), false) as tls,
    extract(epoch from clock_timestamp())::float8 as clock, pg_has_role('pg_read_all_stats', 'usage') as sees_all,
    (select pg_get_userbyid(relowner) = current_user from pg_class where oid = to_regclass('users')) as owner,
    (select string_agg(c.relname, ', ') from pg_index i join pg_class c on c.oid = i.indexrelid
        where not i.indisvalid and c.relnamespace = 'public'::regnamespace) as broken_indexes,
    (select count(*) from pg_trigger where tgname = any(%s) and tgenabled <> 'D'
        and tgrelid in (to_regclass('users'), to_regclass('checkups'))) as triggers,
    (select has_function_privilege(oid, 'execute') from pg_proc where proname = 'audit_upkeep') as upkeep
from pg_database where datname = current_database()"""


class Finding(NamedTuple):
    """`level`: ok; advice: should be changed; fault: must be changed. `todo`: what to do, "" if nothing."""

    area: str
    level: str
    text: str
    todo: str = ""


Findings = Iterator[Finding]


@dataclass
class _Clock:
    """When an answer of another host came: its moment must lie between these two, in seconds."""

    began: float
    ended: float

    def judge(self, area: str, theirs: float) -> Finding:
        ahead = theirs - self.ended if theirs > self.ended else min(theirs - self.began, 0.0)
        if abs(ahead) <= CLOCK_NOTED_S:
            return Finding(area, OK, "the clock is that of this host")
        level = FAULT if abs(ahead) > LEEWAY_S else ADVICE
        side = "ahead of" if ahead > 0 else "behind"
        text = f"the clock is {abs(ahead):.0f} s {side} this host's; tokens bear {LEEWAY_S} s"
        return Finding(area, level, text, "run NTP (chrony, systemd-timesyncd) on all hosts")


def examine(settings: Settings) -> list[Finding]:
    """Return what was found, area by area. An area that cannot be examined is a fault."""
    found: list[Finding] = []
    areas: tuple[tuple[str, Callable[[Settings], Findings]], ...] = (
        ("settings", _settings), ("secrets", _secrets), ("proxies", _proxies), ("PostgreSQL", _postgresql),
        ("MongoDB", _mongodb), ("upload API", _upload_api), ("disk", _disk),
    )  # fmt: skip
    for area, look in areas:
        try:
            found += look(settings)
        except MyHealthError as error:
            found.append(
                Finding(area, FAULT, error.message, error.hint or "see examples/README.md, Trouble by symptom")
            )
    return found


def _settings(settings: Settings) -> Findings:
    yield Finding("settings", OK, f"{len(settings.origins)} set, from {_sources(settings)}")
    if settings.allow_insecure:
        yield Finding("settings", ADVICE, "allow_insecure is set", "leave it out where other hosts are reached")
    for name in ("upload", "browse"):
        if not getattr(settings, name).public_url and settings.database_url + settings.mongo_url:
            todo = "set it to the address that users see, so that cookies are Secure and links are right"
            yield Finding("settings", ADVICE, f"{name}.public_url is empty", todo)


def _sources(settings: Settings) -> str:
    files = {origin for origin in settings.origins.values() if "/" in origin or origin.endswith(".toml")}
    return (
        ", ".join([*sorted(files), *["the environment"] * (len({*settings.origins.values()}) > len(files))])
        or "defaults"
    )


def _secrets(settings: Settings) -> Findings:
    if settings.secret_key:
        load_secret(settings)
        yield Finding("secrets", OK, f"secret_key has {len(settings.secret_key.encode())} bytes")
    elif settings.database_url:
        text = "secret_key is not set here: this host cannot run the upload API"
        yield Finding("secrets", OK, text)
    for path in sorted({settings.origins[key.name] for key in keys() if key.secret and key.name in settings.origins}):
        if not Path(path).is_file():
            continue
        mode = stat.S_IMODE(Path(path).stat().st_mode)
        if mode & (stat.S_IRWXO | stat.S_IWGRP):
            yield Finding("secrets", FAULT, f"{path} has the mode {mode:o}: others may read it", f"chmod 600 {path}")
        else:
            yield Finding("secrets", OK, f"{path} has the mode {mode:o}")


def _proxies(settings: Settings) -> Findings:
    for network in parse_networks(settings.trusted_proxies):
        if not isinstance(network, str) and network.prefixlen < NETWORKS_WIDE[network.version]:
            todo = "name the proxies' addresses: whoever is trusted may invent where a login comes from"
            yield Finding("proxies", FAULT, f"trusted_proxies contains {network}", todo)
            return
    yield Finding("proxies", OK, f"X-Forwarded-For is believed from {settings.trusted_proxies or 'nobody'}")


def _postgresql(settings: Settings) -> Findings:
    area = "PostgreSQL"
    if not settings.database_url and not _embedded_runs(settings, 0):
        yield Finding(area, OK, "no database_url here, and no embedded server runs: not examined")
        return
    stores.bind_database(settings, connect_timeout=TIMEOUT_S)
    try:
        began = time.time()
        with transaction() as cursor:
            cursor.execute(FACTS, ([*TRIGGERS],))
            facts = dict(zip([column.name for column in cursor.description], cursor.fetchone(), strict=True))
        clock = _Clock(began, time.time())
        yield clock.judge(area, facts["clock"])
        yield from _server(settings, facts)
        stores.require_utf8()
        yield Finding(area, OK, f"encoding {facts['encoding']}, locale {facts['locale']}")
        numbers = stores.schema_numbers()
        stores.require_schema(*numbers)
        yield Finding(area, OK, f"schema at migration {numbers[0]}")
        yield from _objects(facts)
        yield from _rights(facts)
        yield from _sync(settings)
    finally:
        stores.close_database()


def _embedded_runs(settings: Settings, which: int) -> bool:
    from myhealth.embedded import servers

    return not (settings.database_url or settings.mongo_url) and servers(settings.folder)[which].pid() is not None


def _server(settings: Settings, facts: dict[str, Any]) -> Findings:
    area = "PostgreSQL"
    if facts["version"] < POSTGRESQL_MIN:
        yield Finding(area, FAULT, f"version {facts['version_text']}", "MyHealth needs PostgreSQL 14 or later")
    else:
        yield Finding(area, OK, f"version {facts['version_text']}")
    if not facts["tls"] and not is_loopback(settings.database_url):
        yield Finding(area, ADVICE, "the connection is not encrypted", "add ?sslmode=verify-full to database_url")
    if statements := grants.quiet_log_statements():
        todo = f"myhealth migrate --grants, or a superuser runs: {'; '.join(statements)}"
        yield Finding(area, ADVICE, "its log may contain patients' data, in statements that fail", todo)
    else:
        yield Finding(area, OK, "its log gets no data from failing statements")


def _objects(facts: dict[str, Any]) -> Findings:
    if facts["broken_indexes"]:
        names = facts["broken_indexes"]
        yield Finding("PostgreSQL", FAULT, f"invalid indexes: {names}", f"reindex index {names.split(',')[0]}")
    if facts["triggers"] != 2 * len(TRIGGERS):
        todo = "finish the restore, or: alter table … enable trigger all; until then the sync ends with 75"
        yield Finding("PostgreSQL", FAULT, "triggers of users and checkups are missing or off", todo)
    if facts["broken_indexes"] is None and facts["triggers"] == 2 * len(TRIGGERS):
        yield Finding("PostgreSQL", OK, "indexes and triggers are there")


def _rights(facts: dict[str, Any]) -> Findings:
    area, role = "PostgreSQL", facts["role"]
    if facts["superuser"] or facts["owner"]:
        kind = "a superuser" if facts["superuser"] else "the owner of the tables"
        todo = "use a role of its own: myhealth migrate --upload-role NAME --sync-role NAME"
        yield Finding(area, ADVICE, f"the role {role} is {kind}: it may remove audit events", todo)
        return
    lacking = {kind: _lacking(kind) for kind in grants.RIGHTS}
    if not facts["upkeep"]:
        lacking = {kind: [*tables, "audit_upkeep()"] for kind, tables in lacking.items()}
    complete = [kind for kind, tables in lacking.items() if not tables]
    if complete:
        yield Finding(area, OK, f"the role {role} has the rights of the {' and of the '.join(complete)} role")
    else:
        kind = min(lacking, key=lambda each: len(lacking[each]))
        todo = f"the owner runs: myhealth migrate --grants --{kind}-role {role}"
        yield Finding(area, FAULT, f"the role {role} lacks rights to {', '.join(lacking[kind])}", todo)
    if not facts["sees_all"]:
        todo = f"grant pg_read_all_stats to {role}"
        yield Finding(area, ADVICE, "what holds the sync back cannot be seen", todo)


def _lacking(kind: str) -> list[str]:
    rights, found = grants.RIGHTS[kind], []
    for (table,) in fetch_all(database.cursor(), grants.TABLES):
        wanted = rights.get(table, rights.get("", ""))
        asked = ",".join(["has_table_privilege(%s, %s)"] * len(wanted.split(", "))) if wanted else "true"
        values = [each for right in wanted.split(", ") for each in (table, right)] if wanted else []
        if not all(fetch_all(database.cursor(), f"select {asked}", values)[0]):
            found.append(table)
    return found


def _sync(settings: Settings) -> Findings:
    with transaction() as cursor:
        last = read_last_pass(cursor)
    if last is None:
        yield Finding("sync", ADVICE, "it has never run", "start myhealth-sync.service, or install the crontab")
        return
    age_s = (datetime.now(UTC) - last.ended_at).total_seconds()
    late = age_s > 3 * settings.sync.interval_s + TIMEOUT_S
    todo = "look at cron or myhealth-sync.service: is it running?" if late else ""
    yield Finding("sync", FAULT if late else OK, f"the last pass ended {age_s:,.0f} s ago", todo)
    if last.problem:
        yield Finding("sync", FAULT, f"the last pass failed: {last.problem}", "see myhealth status")
    if count := last.done.get("set_aside"):
        yield Finding("sync", ADVICE, f"MongoDB refused {count} documents", "see myhealth status")


def _mongodb(settings: Settings) -> Findings:
    area = "MongoDB"
    if not settings.mongo_url and not _embedded_runs(settings, 1):
        yield Finding(area, OK, "no mongo_url here, and no embedded server runs: not examined")
        return
    url = stores.mongo_url(settings)
    reports = ReportRepository.connect(url, serverSelectionTimeoutMS=TIMEOUT_S * 1000)
    try:
        began = time.time()
        facts = reports.server_facts()
        yield _Clock(began, time.time()).judge(area, facts["clock"])
        old = tuple(facts["version"]) < MONGODB_MIN
        todo = "MyHealth needs MongoDB 6 or later" if old else ""
        yield Finding(area, FAULT if old else OK, f"version {'.'.join(map(str, facts['version'][:3]))}", todo)
        if not facts["authenticated"] and settings.mongo_url:
            todo = (
                "switch authorization on and load mongodb-roles.js"
                if is_loopback(url)
                else "switch authorization on now"
            )
            yield Finding(area, ADVICE if is_loopback(url) else FAULT, "anybody who reaches it may read it", todo)
        if not facts["tls"] and not is_loopback(url):
            yield Finding(area, ADVICE, "the connection is not encrypted", "add tls=true to mongo_url")
        reports.ping(TIMEOUT_S)
        missing = reports.missing_indexes()
        todo = "myhealth migrate" if missing else ""
        yield Finding(area, ADVICE if missing else OK, f"indexes missing: {', '.join(missing) or 'none'}", todo)
    finally:
        reports.close()


def _upload_api(settings: Settings) -> Findings:
    area, began = "upload API", time.time()
    client = HttpClient(settings.auth_url, timeout_s=TIMEOUT_S, response_max_bytes=1 << 20)
    try:
        answer = client.call("GET", "/readyz")
    except Unavailable as error:
        yield Finding(area, ADVICE, error.message, "start it, or set auth_url to where it is: logins need it")
        return
    level, todo = (OK, "") if answer.status == 200 else (FAULT, "its log says why")
    yield Finding(area, level, f"{settings.auth_url} answers /readyz with {answer.status}", todo)
    if date := answer.headers.get("Date"):
        # to the second: the moment lies within the second after it
        yield _Clock(began - 1, time.time()).judge(area, parsedate_to_datetime(date).timestamp())
    else:
        yield Finding(area, OK, "it tells no time")


def _disk(settings: Settings) -> Findings:
    folder = settings.folder
    while not folder.exists():
        folder = folder.parent
    usage = shutil.disk_usage(folder)
    low = usage.free < max(DISK_MIN_BYTES, usage.total * DISK_MIN_SHARE)
    text = f"{usage.free / (1 << 30):,.1f} GiB of {usage.total / (1 << 30):,.1f} are free at {folder}"
    yield Finding("disk", ADVICE if low else OK, text, "make room: a full disk stops every upload" if low else "")
