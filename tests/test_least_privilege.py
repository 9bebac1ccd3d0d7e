"""Each program with rights of its own in both stores: everything works, and what is not needed is refused."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import secrets
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.errors
import pymongo
import pymongo.errors
import pytest
from support.factories import PASSWORD, dump, record
from support.paths import ROOT

from myhealth import processes, stores
from myhealth.common.settings import Settings

UPLOAD, SYNC = "myhealth_test_upload", "myhealth_test_sync"
Run = Callable[..., subprocess.CompletedProcess[str]]


def as_role(settings: Settings, role: str) -> Settings:
    return dataclasses.replace(settings, database_url=settings.database_url.replace("myhealth@", f"{role}@"))


@pytest.fixture
def roles(db: Any, people: Any, settings: Settings, run_cli: Run) -> Iterator[dict[str, Settings]]:
    """Settings of two roles that own nothing; `migrate` has granted what they need."""
    for role in (UPLOAD, SYNC):
        db(f"drop role if exists {role}")
        db(f"create role {role} login")
    db(f"grant pg_read_all_stats to {UPLOAD}, {SYNC}")
    granted = run_cli("migrate", "--upload-role", UPLOAD, "--sync-role", SYNC)
    assert granted.returncode == 0, granted.stderr
    assert f"grant select, insert on audit_events to {UPLOAD}" in granted.stdout
    stores.close_database()
    yield {"upload": as_role(settings, UPLOAD), "sync": as_role(settings, SYNC)}
    stores.close_database()
    connection = psycopg2.connect(settings.database_url)
    with connection, connection.cursor() as cursor:
        cursor.execute(f"drop owned by {UPLOAD}, {SYNC}; drop role {UPLOAD}, {SYNC}")
    connection.close()


@pytest.mark.process
def test_every_program_works_with_the_rights_that_migrate_grants(
    roles: dict[str, Settings],
    settings: Settings,
    reports: Any,
    run_cli: Run,
    calling: Any,
    log_in: Any,
    tmp_path: Path,
) -> None:
    from wsgi.upload import make_app

    upload = calling(make_app(roles["upload"]))
    tara, root, doctor = log_in("tara"), log_in("root"), log_in("dr.ayush")
    calls: list[tuple[int, tuple[Any, ...], str]] = [
        (200, ("POST", "/login/", {"username": "bholanath", "password": PASSWORD}), ""),
        (401, ("POST", "/login/", {"username": "bholanath", "password": "wrong"}), ""),
        (201, ("POST", "/registration/", {"username": "neha", "password": "a long enough word"}), ""),
        (201, ("POST", "/checkups/", [record(1)]), tara),
        (201, ("POST", "/checkups/", [record(n) for n in range(2, 80)]), tara),
        (422, ("POST", "/checkups/", [{"record_id": "x"}]), tara),
        (201, ("POST", "/machines/HC-7/dumps/", dump([record(100)], "HC-7")), tara),
        (200, ("PUT", "/users/bholanath/checkups/1/", {"disease": "corrected"}), doctor),
        (200, ("GET", "/users/bholanath/checkups/1/history/"), doctor),
        (204, ("DELETE", "/users/bholanath/checkups/2/"), doctor),
        (200, ("GET", "/users/"), root),
        (200, ("GET", "/readyz"), ""),
        (200, ("GET", "/metrics"), ""),
        (204, ("POST", "/logout/"), tara),
    ]
    for status, (method, path, *body), token in calls:
        answer = upload(method, path, *body, token=token)
        assert answer.status_code == status, (method, path, answer.text)
    stores.close_database()

    def run(who: str, *words: str) -> None:
        env = {"MYHEALTH_DATABASE_URL": roles[who].database_url, "MYHEALTH_MONGO_URL": settings.mongo_url}
        env |= {"MYHEALTH_SECRET_KEY": settings.secret_key, "MYHEALTH_BCRYPT_ROUNDS": "4"}
        done = run_cli(*words, env=env, stdin="")
        assert done.returncode in (0, 1), (words, done.stdout, done.stderr)
        assert "denied" not in done.stderr
        assert "Traceback" not in done.stderr

    (tmp_path / "dump.json").write_bytes(dump([record(200), {"record_id": "y"}]))
    for words in (["sync", "--once"], ["status"], ["sync", "--once", "--restart"]):
        run("sync", *words)
    for words in (
        ["import-machine", str(tmp_path / "dump.json")], ["rejections", "list"], ["rejections", "retry", "--all"],
        ["rejections", "discard", "--all", "--yes"], ["audit"], ["verify", "--repair"], ["machines", "list"], ["users", "list"],
        ["users", "set-name", "savita", "Savita Rao"], ["users", "delete", "savita", "--yes"],
    ):  # fmt: skip
        run("upload", *words)
    run("sync", "sync", "--once")
    run("upload", "verify")


UNDO = [
    "alter table audit_events disable trigger audit_events_stay",
    "alter table audit_events disable trigger all",
    "drop trigger audit_events_stay on audit_events",
    "create or replace function audit_events_stay() returns trigger language plpgsql as 'begin return null; end'",
    "set session_replication_role = replica",
    "delete from audit_events",
    "update audit_events set actor = 'somebody else'",
    "truncate audit_events",
    "drop table audit_events",
    "update schema_migration set name = 'x'",
    "update erasure_key set inner_key = ''",
    "create table public.mine (id int)",
]


@pytest.mark.process
def test_no_program_can_undo_the_audit_trail(roles: dict[str, Settings]) -> None:
    for who, own in roles.items():
        connection = psycopg2.connect(own.database_url)
        with contextlib.closing(connection), connection.cursor() as cursor:
            for sql in UNDO:
                with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                    cursor.execute(sql)
                connection.rollback()
            if who == "upload":
                cursor.execute(
                    "insert into audit_events (action, outcome, at) values ('x', 'done', now() - interval '1 day')"
                )
            cursor.execute("select audit_upkeep(now(), 1000)")
            assert cursor.fetchone() == (0,), "an event is younger than 31 days"
            for table in ("users", "checkups", "machines", "tombstones") if who == "sync" else ():
                with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                    cursor.execute(f"delete from {table}")
                connection.rollback()


@pytest.mark.process
def test_grants_say_what_is_missing(db: Any, run_cli: Run) -> None:
    done = run_cli("migrate", "--grants", "--upload-role", "nobody_has_made_it")
    assert (done.returncode, "no role 'nobody_has_made_it'" in done.stderr) == (2, True)
    db(f"drop role if exists {SYNC}")
    db(f"create role {SYNC} login")
    try:
        first = run_cli("migrate", "--grants", "--sync-role", SYNC)
        assert first.stdout.count(f"alter role {SYNC} set ") == 3, first.stderr
        assert "alter role" not in run_cli("migrate", "--grants", "--sync-role", SYNC).stdout
    finally:
        db(f"drop owned by {SYNC}")
        db(f"drop role {SYNC}")


@pytest.fixture
def guarded_mongo(mongo: Any, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[[str], str]]:
    """Run a mongod with authentication and the example's roles; return a function that gives the URL of a role's user.
    The parameter "before trends": the roles as they were before trends were kept."""
    with processes.open_listening_socket("127.0.0.1", 0) as probe:
        port = probe.getsockname()[1]
    words = ["--auth", "--bind_ip", "127.0.0.1", "--port", str(port), "--dbpath", str(tmp_path), "--nounixsocket"]
    log = tmp_path / "log"
    server = subprocess.Popen([str(mongo.binary()), *words, "--wiredTigerCacheSizeGB", "0.25", "--logpath", str(log)])
    client: Any = pymongo.MongoClient("127.0.0.1", port, serverSelectionTimeoutMS=60_000)
    try:
        user = {"createUser": "admin", "pwd": "admin", "roles": ["root"]}
        client.admin.command(user)
        client.close()
        client = pymongo.MongoClient(f"mongodb://admin:admin@127.0.0.1:{port}/admin")
        text = (ROOT / "examples/mongodb-roles.js").read_text()
        for role, rights in json.loads(re.search(r"const roles = (\{.*?\n\});", text, re.DOTALL)[1]).items():
            if getattr(request, "param", "") == "before trends":
                rights.pop("trends", None)
                rights.pop("sync_state" if role == "myhealthBrowse" else "trends", None)
            privileges = [{"resource": {"db": "myhealth", "collection": c}, "actions": a} for c, a in rights.items()]
            client.admin.command({"createRole": role, "privileges": privileges, "roles": []})
            client.admin.command({"createUser": role, "pwd": "x", "roles": [role]})
        yield lambda role: f"mongodb://{role}:x@127.0.0.1:{port}/myhealth?authSource=admin"
    finally:
        client.close()
        server.terminate()
        server.wait(60)


@pytest.mark.process
def test_doctor_has_nothing_to_say_to_a_right_installation(
    guarded_mongo: Any, roles: dict[str, Settings], settings: Settings, run_cli: Run, serving: Any, tmp_path: Path
) -> None:
    """Each program's example of settings, with a role of its own in each store."""
    from wsgi.upload import make_app

    env = {"MYHEALTH_DATABASE_URL": settings.database_url, "MYHEALTH_MONGO_URL": guarded_mongo("myhealthMigrate")}
    assert run_cli("migrate", env=env).returncode == 0
    assert run_cli("migrate", "--grants", "--upload-role", UPLOAD, "--sync-role", SYNC).returncode == 0
    url = serving(make_app(settings))
    values = {"mh_upload": roles["upload"].database_url, "mh_sync": roles["sync"].database_url, "auth_url": url,
              "secret_key": secrets.token_urlsafe(48)}  # fmt: skip
    for name in ("sync", "upload", "browse", "listen"):
        text = (ROOT / f"examples/{name}.toml").read_text()
        values["mongo"] = guarded_mongo("myhealthSync" if name == "sync" else "myhealthBrowse")
        for pattern, value in (
            (r"postgresql://(mh_\w+)[^\"]*", lambda found: values[found[1]]), (r"mongodb://[^\"]*", lambda _: values["mongo"]),
            (r'(?<=secret_key = ")[^"]*', lambda _: values["secret_key"]), (r"http://[^\"]*", lambda _: url),
        ):  # fmt: skip
            text = re.sub(pattern, value, text)
        file = tmp_path / f"{name}.toml"
        file.write_text(text)
        file.chmod(0o400)
        own = {"MYHEALTH_SETTINGS": str(file), **({"MYHEALTH_AUTH_URL": url} if name == "upload" else {})}
        if name == "sync":
            assert run_cli("sync", "--once", env=own).returncode == 0
        done = run_cli("doctor", "--json", env=own)
        found = [each for each in json.loads(done.stdout) if each["level"] != "ok"]
        assert [each for each in found if each["area"] != "disk"] == [], name
        assert done.returncode == (1 if found else 0), "only the disk of this machine may be full"


@pytest.mark.process
@pytest.mark.parametrize("guarded_mongo", ["today", "before trends"], indirect=True)
def test_mongodbs_roles_are_enough_and_not_more(
    guarded_mongo: Any, db: Any, people: Any, settings: Settings, run_cli: Run, calling: Any, log_in: Any, serving: Any,
    monkeypatch: Any, request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    from wsgi.browse import make_app
    from wsgi.upload import make_app as make_upload

    def run(role: str, *words: str) -> None:
        env = {"MYHEALTH_DATABASE_URL": settings.database_url, "MYHEALTH_MONGO_URL": guarded_mongo(role)}
        done = run_cli(*words, env={**env, "MYHEALTH_SECRET_KEY": settings.secret_key})
        assert done.returncode == 0, (words, done.stdout, done.stderr)

    run("myhealthMigrate", "migrate")
    run("myhealthMigrate", "migrate", "--check")
    application = make_upload(settings)
    upload = calling(application)
    assert upload("POST", "/checkups/", [record(1)], token=log_in("tara")).status_code == 201
    for words in (["sync", "--once"], ["sync", "--once", "--restart"], ["verify", "--repair"], ["status"]):
        run("myhealthSync", *words)
    guarded = dataclasses.replace(settings, mongo_url=guarded_mongo("myhealthBrowse"), auth_url=serving(application))
    browse = calling(make_app(guarded))
    token = browse("POST", "/login/", {"username": "bholanath", "password": PASSWORD}).json["token"]
    assert len(browse("GET", "/users/bholanath/reports/", token=log_in("dr.ayush")).json) >= 1
    assert browse("GET", "/users/savita/reports/", token=token).status_code in (403, 404)
    monkeypatch.setattr("myhealth.reports.kept_trends.KEPT_FROM", 1)
    monkeypatch.setattr("myhealth.reports.repository.KEPT_FROM", 1)
    for _ in range(2):
        trend = browse("GET", "/users/bholanath/trends/?code=8480-6", token=log_in("dr.ayush"))
        assert (trend.status_code, len(trend.json)) == (200, 1)
    with pymongo.MongoClient(guarded_mongo("admin").replace(":x@", ":admin@")) as client:
        kept = client.myhealth.trends.count_documents({"content": {"$exists": True}})
        assert kept == (request.node.callspec.params["guarded_mongo"] == "today")
    assert browse("GET", "/readyz").status_code == 200
    assert browse("POST", "/logout/", token=token).status_code == 204
    with pymongo.MongoClient(guarded.mongo_url) as client:
        for change in (
            lambda: client.myhealth.reports.delete_many({}),
            lambda: client.myhealth.reports.update_many({}, {"$set": {"x": 1}}),
            lambda: client.myhealth.audit_events.delete_many({}),
            lambda: client.myhealth.users.insert_one({}),
            lambda: client.myhealth.reports.drop(),
        ):
            with pytest.raises(pymongo.errors.OperationFailure, match="not authorized"):
                change()
