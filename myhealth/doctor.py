"""Examine an installation: each finding has the state of one thing, and what to do about it. No secret is shown.

needs: everything of ours
"""

import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

from myhealth import grants, stores
from myhealth.common.addresses import parse_networks
from myhealth.common.database import database, fetch_all, transaction
from myhealth.common.errors import MyHealthError, SchemaMismatch, Unavailable
from myhealth.common.http_client import HttpClient
from myhealth.common.settings import Settings, exposed_secrets
from myhealth.common.settings_checks import is_loopback
from myhealth.profiles.tokens import LEEWAY_S, load_secret
from myhealth.reports.repository import ReportRepository
from myhealth.sync.status import read_last_pass

OK, NOTE, ADVICE, FAULT = "ok", "note", "advice", "fault"
TIMEOUT_S = 5
CLOCK_NOTED_S = 2.0
DISK_MIN_GIB, DISK_MIN_SHARE = 1, 0.1
NETWORKS_WIDE = {4: 8, 6: 32}  # a shorter prefix is most likely a slip
TRIGGERS = ("feed_stamp_insert", "feed_stamp_update", "feed_bury")
FACTS = """
select current_setting('server_version_num')::int as version, current_user as role,
    format('version %%s, %%s, %%s', current_setting('server_version'), pg_encoding_to_char(encoding), datcollate) as of,
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
Facts = dict[str, Any]


class Finding(NamedTuple):
    """The result of one check.

    `level`: ok; note: need not be changed; advice: should be; fault: must be. `todo`: what to do, "" if nothing.
    """

    area: str
    level: str
    text: str
    todo: str = ""


class Check(NamedTuple):
    """A condition on the facts of an area; it is skipped while these are not known. Texts contain facts in braces. If
    `right` is "", a condition that holds is not shown. `of_servers`: on embedded servers it is only a note."""

    area: str
    is_right: Callable[[Facts], Any]
    right: str
    level: str
    wrong: str
    todo: str
    of_servers: bool = False


def _clock_checks(area: str) -> tuple[Check, Check]:
    wrong, todo = "the clock is {off_s:.0f} s {side} this host's", "run NTP (chrony, systemd-timesyncd) on all hosts"
    return (
        Check(area, lambda f: f["drift_s"] <= CLOCK_NOTED_S, "the clock is that of this host", ADVICE, wrong, todo),
        Check(area, lambda f: f["gap_s"] <= LEEWAY_S, "", FAULT, f"{wrong}; tokens bear {LEEWAY_S} s", todo),
    )


SEE_STATUS = "see myhealth status"
URL_TODO = "set it to the address that users see, so that cookies are Secure and links are right"
SETTINGS = (
    Check("settings", lambda f: f["count"] >= 0, "{count} set, from {sources}", OK, "", ""),
    Check("settings", lambda f: not f["insecure"], "", ADVICE, "allow_insecure is set",
          "leave it out where other hosts are reached"),
    Check("settings", lambda f: f["upload_url"], "", ADVICE, "upload.public_url is empty", URL_TODO),
    Check("settings", lambda f: f["browse_url"], "", ADVICE, "browse.public_url is empty", URL_TODO),
    Check("secrets", lambda f: not f["exposed"], "no file that others may read contains one", FAULT,
          "others may read {exposed}", "chmod 600 {exposed}"),
    Check("proxies", lambda f: not f["wide"], "X-Forwarded-For is believed from {proxies}", FAULT,
          "trusted_proxies contains {wide}",
          "name the proxies' addresses: whoever is trusted may invent where a login comes from"),
)  # fmt: skip
POSTGRESQL = (
    *_clock_checks("PostgreSQL"),
    Check("PostgreSQL", lambda f: f["version"] >= 140_000, "{of}", FAULT, "{of}", "MyHealth needs version 14 or later"),
    Check("PostgreSQL", lambda f: f["tls"] or f["is_local"], "", ADVICE, "the connection is not encrypted",
          "add ?sslmode=verify-full to database_url"),
    Check("PostgreSQL", lambda f: not f["log"], "its log gets no data from failing statements", ADVICE,
          "its log may contain patients' data, in statements that fail",
          "myhealth migrate --grants, or a superuser runs: {log}"),
    Check("PostgreSQL", lambda f: not f["mismatch"], "schema at migration {schema}", FAULT, "{mismatch}",
          "see examples/README.md, Upgrade", of_servers=True),
    Check("PostgreSQL", lambda f: not f["broken_indexes"], "", FAULT, "invalid indexes: {broken_indexes}",
          "reindex index NAME"),
    Check("PostgreSQL", lambda f: f["mismatch"] or f["triggers"] == 2 * len(TRIGGERS), "", FAULT,
          "triggers of users and checkups are missing or off",
          "finish the restore, or: alter table … enable trigger all; until then the sync ends with 75"),
    Check("PostgreSQL", lambda f: not f["standing"], "", ADVICE,
          "the role {role} is {standing}: it may remove audit events",
          "use a role of its own: myhealth migrate --upload-role NAME --sync-role NAME", of_servers=True),
    Check("PostgreSQL", lambda f: not f["lacking"], "the role {role} has the rights of the {complete} role", FAULT,
          "the role {role} lacks rights to {lacking}", "the owner: myhealth migrate --grants --{kind}-role {role}"),
    Check("PostgreSQL", lambda f: f["sees_all"], "", ADVICE, "what holds the sync back cannot be seen",
          "grant pg_read_all_stats to {role}"),
    Check("sync", lambda f: f["has_run"], "", ADVICE, "it has never run",
          "start myhealth-sync.service, or install the crontab", of_servers=True),
    Check("sync", lambda f: f["age_s"] <= f["late_s"], "{age}", FAULT, "{age}", "look at cron or myhealth-sync.service",
          of_servers=True),
    Check("sync", lambda f: not f["problem"], "", FAULT, "the last pass failed: {problem}", SEE_STATUS),
    Check("sync", lambda f: not f["set_aside"], "", ADVICE, "MongoDB refused {set_aside} documents", SEE_STATUS),
)  # fmt: skip
MONGODB = (
    *_clock_checks("MongoDB"),
    Check("MongoDB", lambda f: f["version"] >= [6], "{of}", FAULT, "{of}", "MyHealth needs version 6 or later"),
    Check("MongoDB", lambda f: f["authenticated"] or f["is_local"], "", FAULT, "anybody who reaches it may read it",
          "switch authorization on now, and load mongodb-roles.js"),
    Check("MongoDB", lambda f: f["authenticated"] or not f["is_local"], "", ADVICE, "whoever connects here may read it",
          "switch authorization on, and load mongodb-roles.js", of_servers=True),
    Check("MongoDB", lambda f: f["tls"] or f["is_local"], "", ADVICE, "the connection is not encrypted",
          "add tls=true to mongo_url"),
    Check("MongoDB", lambda f: not f["missing"], "indexes missing: none", ADVICE, "indexes missing: {missing}",
          "myhealth migrate", of_servers=True),
)  # fmt: skip
UPLOAD_API = (
    Check("upload API", lambda f: not f["problem"], "", ADVICE, "{problem}",
          "start it, or set auth_url to where it is: logins need it", of_servers=True),
    Check("upload API", lambda f: f["status"] == 200, "{url} answers /readyz with 200", FAULT,
          "{url} answers /readyz with {status}", "its log says why"),
    *_clock_checks("upload API"),
)  # fmt: skip
DISK = (
    Check("disk", lambda f: f["free"] >= max(DISK_MIN_GIB, f["total"] * DISK_MIN_SHARE), "{of}", ADVICE, "{of}",
          "make room: a full disk stops every upload"),
)  # fmt: skip


def examine(settings: Settings) -> list[Finding]:
    """Return what was found, area by area. An area that cannot be examined is a fault."""
    found: list[Finding] = []
    for look, checks in AREAS.items():
        area = checks[0].area
        try:
            facts = look(settings)
        except MyHealthError as error:
            todo = error.hint or "see examples/README.md, Trouble by symptom"
            found.append(Finding(area, FAULT, error.message, todo))
        else:
            judged = [each for check in checks if (each := judge(check, facts, _is_embedded(settings)))]
            found += judged or [Finding(area, OK, "not examined: these settings do not name it")]
    return found


def judge(check: Check, facts: Facts, is_embedded: bool = False) -> Finding | None:
    """Return the finding; None if there is nothing to say."""
    try:
        is_right = check.is_right(facts)
    except KeyError:
        return None
    if is_right:
        return Finding(check.area, OK, check.right.format_map(facts)) if check.right else None
    level = NOTE if is_embedded and check.of_servers else check.level
    return Finding(check.area, level, check.wrong.format_map(facts), check.todo.format_map(facts))


def clock_facts(began: float, ended: float, theirs: float) -> Facts:
    """Return how far (s) another host's clock is off. `began`, `ended`: our clock before and after its answer
    `theirs`."""
    ahead = theirs - ended if theirs > ended else min(theirs - began, 0.0)
    off, side = abs(ahead), "ahead of" if ahead > 0 else "behind"
    return {"off_s": off, "side": side, "drift_s" if off <= LEEWAY_S else "gap_s": off}


def _settings(settings: Settings) -> Facts:
    sources = {
        each if "/" in each or each.endswith(".toml") else "the environment" for each in settings.origins.values()
    }
    facts: Facts = {"count": len(settings.origins), "sources": ", ".join(sorted(sources)) or "defaults",
                    "insecure": settings.allow_insecure, "proxies": settings.trusted_proxies or "nobody",
                    "exposed": " ".join(map(str, exposed_secrets(settings)))}  # fmt: skip
    # This host runs the API whose secrets it has.
    if settings.secret_key:
        load_secret(settings)
        facts["upload_url"] = settings.upload.public_url
    if settings.mongo_url and (settings.secret_key or not settings.database_url):
        facts["browse_url"] = settings.browse.public_url
    wide = (each for each in parse_networks(settings.trusted_proxies)
            if not isinstance(each, str) and each.prefixlen < NETWORKS_WIDE[each.version])  # fmt: skip
    return facts | {"wide": str(next(wide, ""))}


def _is_embedded(settings: Settings) -> bool:
    return not (settings.database_url or settings.mongo_url)


def _runs(settings: Settings, which: int) -> bool:
    from myhealth.embedded import servers

    return _is_embedded(settings) and servers(settings.folder)[which].pid() is not None


def _postgresql(settings: Settings) -> Facts:
    if not settings.database_url and not _runs(settings, 0):
        return {}
    stores.bind_database(settings, connect_timeout=TIMEOUT_S)
    try:
        began = time.time()
        with transaction() as cursor:
            cursor.execute(FACTS, ([*TRIGGERS],))
            facts = dict(zip([column.name for column in cursor.description], cursor.fetchone(), strict=True))
        facts |= clock_facts(began, time.time(), facts["clock"])
        facts |= {"log": "; ".join(grants.quiet_log_statements()), "is_local": is_loopback(settings.database_url)}
        stores.require_utf8()
        try:
            numbers = stores.schema_numbers()
            stores.require_schema(*numbers)
        except SchemaMismatch as error:
            return facts | {"mismatch": error.message}
        return facts | {"mismatch": "", "schema": numbers[0]} | _rights(facts) | _last_pass(settings)
    finally:
        stores.close_database()


def _rights(facts: Facts) -> Facts:
    standing = "a superuser" if facts["superuser"] else "the owner of the tables" if facts["owner"] else ""
    if standing:
        return {"standing": standing}
    lacking = {kind: _lacking(kind) + ([] if facts["upkeep"] else ["audit_upkeep()"]) for kind in grants.RIGHTS}
    kind = min(lacking, key=lambda each: len(lacking[each]))
    complete = " and of the ".join(each for each in lacking if not lacking[each])
    return {"standing": "", "complete": complete, "kind": kind, "lacking": ", ".join(lacking[kind])}


def _lacking(kind: str) -> list[str]:
    """Return the tables to which our role lacks a right that a role of this kind needs."""
    rights, asked = grants.RIGHTS[kind], "select bool_and(has_table_privilege(%s, r)) from unnest(%s) as r"
    wanted = {table: rights.get(table, rights.get("", "")) for (table,) in fetch_all(database.cursor(), grants.TABLES)}
    return [table for table, names in wanted.items()
            if names and fetch_all(database.cursor(), asked, (table, names.split(", "))) != [(True,)]]  # fmt: skip


def _last_pass(settings: Settings) -> Facts:
    with transaction() as cursor:
        last = read_last_pass(cursor)
    if last is None:
        return {"has_run": False}
    age_s, late_s = (datetime.now(UTC) - last.ended_at).total_seconds(), 3 * settings.sync.interval_s + TIMEOUT_S
    return {"has_run": True, "age_s": age_s, "late_s": late_s, "age": f"the last pass ended {age_s:,.0f} s ago",
            "problem": last.problem, "set_aside": last.done.get("set_aside")}  # fmt: skip


def _mongodb(settings: Settings) -> Facts:
    if not settings.mongo_url and not _runs(settings, 1):
        return {}
    url = stores.mongo_url(settings)
    reports = ReportRepository.connect(url, serverSelectionTimeoutMS=TIMEOUT_S * 1000)
    try:
        began = time.time()
        facts = reports.server_facts()
        facts |= clock_facts(began, time.time(), facts["clock"])
        reports.ping(TIMEOUT_S)
        facts |= {"of": "version " + ".".join(map(str, facts["version"][:3])), "is_local": is_loopback(url)}
        return {**facts, "missing": ", ".join(reports.missing_indexes())}
    finally:
        reports.close()


def _upload_api(settings: Settings) -> Facts:
    if not settings.secret_key and "auth_url" not in settings.origins and settings.database_url + settings.mongo_url:
        return {}
    began = time.time()
    client = HttpClient(settings.auth_url, timeout_s=TIMEOUT_S, response_max_bytes=1 << 20)
    try:
        answer = client.call("GET", "/readyz")
    except Unavailable as error:
        return {"problem": error.message}
    facts = {"problem": "", "status": answer.status, "url": settings.auth_url}
    if date := answer.headers.get("Date"):  # to the second: the moment lies within the second after it
        facts |= clock_facts(began - 1, time.time(), parsedate_to_datetime(date).timestamp())
    return facts


def _disk(settings: Settings) -> Facts:
    folder = settings.folder
    while not folder.exists():
        folder = folder.parent
    total, _, free = (each / (1 << 30) for each in shutil.disk_usage(folder))
    return {"free": free, "total": total, "of": f"{free:,.1f} GiB of {total:,.1f} are free at {folder}"}


AREAS = {_settings: SETTINGS, _postgresql: POSTGRESQL, _mongodb: MONGODB, _upload_api: UPLOAD_API, _disk: DISK}
