"""Fixtures: real PostgreSQL and MongoDB servers, started once a run in a temporary folder, and what runs on them."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import hypothesis
import msgspec
import psycopg2
import pytest
from support.browser import find_chromium, open_page, running_chromium
from support.clients import Caller
from support.factories import PASSWORD, record, take
from support.page_client import Browser
from support.servers import DATABASE_NAME, FixedAnswer, UploadStub, running_apis

from myhealth import stores
from myhealth.common.database import database
from myhealth.common.refusals import refusal_details
from myhealth.common.settings import BrowseSettings, Settings, SyncSettings
from myhealth.embedded.mongo import Mongo
from myhealth.embedded.postgres import Postgres
from myhealth.profiles.services import create_user, get_user
from myhealth.profiles.tokens import Signer, load_secret
from myhealth.reports.repository import ReportRepository
from myhealth.reports.writer import ReportWriter
from myhealth.sync.pass_result import Pass
from myhealth.sync.runner import run_pass
from myhealth.sync.signature import HEADER, RequestSigner, new_key

PROCESS_FIXTURES = {"run_cli", "at_terminal", "served", "chromium"}

# A slow machine makes no test fail.
hypothesis.settings.register_profile(
    "whatever the load", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("whatever the load")


def pytest_configure() -> None:
    """Remove MYHEALTH_ variables from the environment: tests never touch the databases that they name."""
    for name in list(os.environ):
        if name.startswith("MYHEALTH_"):
            del os.environ[name]
    # A shell that runs us in the background has Ctrl-C ignored, and every program that we start would ignore it too.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests as `process` whose fixtures start processes of the program."""
    for item in items:
        if PROCESS_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.process)


def memory_folder(folder: str = "/dev/shm", needed: int = 8 << 30) -> str | None:
    """Return the folder that lies in memory if it has `needed` bytes and runs programs: servers wait for no disk there."""
    if not Path(folder).is_dir() or shutil.disk_usage(folder).free < needed:
        return None
    return None if os.statvfs(folder).f_flag & os.ST_NOEXEC else folder


@pytest.fixture(scope="session")
def data_dir() -> Iterator[Path]:
    """Create a folder that PostgreSQL's system user can enter when the tests run as root."""
    folder = Path(tempfile.mkdtemp(prefix="myhealth-tests-", dir=memory_folder()))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres(data_dir: Path) -> Iterator[Postgres]:
    server = Postgres(data_dir)
    server.ensure()
    server.make_database(DATABASE_NAME)
    yield server
    stores.close_database()
    server.stop()


@pytest.fixture(scope="session")
def mongo(data_dir: Path) -> Iterator[Mongo]:
    server = Mongo(data_dir)
    server.ensure()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def settings(postgres: Postgres, mongo: Mongo) -> Settings:
    """Return the settings of the test servers. Password hashes are cheap, because tests create many users."""
    signing_key, public_key = new_key()
    found = Settings(
        database_url=postgres.url_of(DATABASE_NAME),
        mongo_url=mongo.url_of(DATABASE_NAME),
        data_dir=str(postgres.root),
        secret_key="a secret of the tests, 32 bytes and more",
        bcrypt_rounds=4,
        sync=SyncSettings(signing_key=signing_key),
        browse=BrowseSettings(sync_public_key=public_key),
    )
    stores.bind_database(found)
    stores.migrate(found)
    stores.close_database()
    return found


TABLES = ("idempotency_keys", "invitations", "login_attempts", "audit_events", "rejections", "superseded", "checkup_versions", "checkups", "machines",
          "patient_identifiers", "users", "refusals", "erased_digests", "tombstones", "sync_witness", "sync_pass")  # fmt: skip
MANY_ROWS = 1000


def empty_tables() -> None:
    """Empty every table and restart its numbers.

    A few rows are deleted, which is much faster than TRUNCATE: that creates new files for each table and index.
    """
    many = " union all ".join(f"(select from {table} offset {MANY_ROWS} limit 1)" for table in TABLES)
    with database.atomic():
        database.execute_sql("alter table audit_events disable trigger audit_events_stay")
        if database.execute_sql(f"select exists ({many})").fetchone()[0]:
            database.execute_sql(f"truncate {', '.join(TABLES)}")
        database.execute_sql(
            f"{''.join(f'delete from {table}; ' for table in TABLES)}"
            "alter table audit_events enable always trigger audit_events_stay;"
            " select setval(format('%%I.%%I', schemaname, sequencename)::regclass, 1, false) from pg_sequences"
            " where schemaname = 'public' and sequencename <> 'schema_migration_id_seq'", ()
        )  # fmt: skip


@pytest.fixture
def db(settings: Settings) -> Iterator[Any]:
    """Bind the empty, migrated database; return a function that runs SQL and returns all rows."""
    stores.open_database(settings)
    assert "test" in database.database, "tests only ever empty a database that is called so"
    refusal_details.clear()
    empty_tables()

    def run(sql: str, *values: Any) -> list[tuple[Any, ...]]:
        cursor = database.cursor()
        cursor.execute(sql, values or None)
        return cursor.fetchall() if cursor.description else []

    yield run
    stores.close_database()


@pytest.fixture
def reports(settings: Settings) -> Iterator[ReportRepository]:
    """Return the empty report store."""
    repository = ReportRepository.connect(settings.mongo_url)
    stored = repository.state.database
    assert "test" in stored.name
    found = list(stored.list_collections())
    # A test may have left a validator or the profiler's notes.
    if any(each["options"] or each["name"].startswith("system.") for each in found):
        repository.drop()
        found = []
    # Dropping collections and making their indexes anew takes five times as long.
    for name in [each["name"] for each in found]:
        if stored[name].estimated_document_count() > MANY_ROWS:
            stored[name].drop()
        else:
            stored[name].delete_many({})
    if repository.missing_indexes():
        repository.make_indexes()
    yield repository
    repository.close()


@pytest.fixture
def connect(settings: Settings) -> Iterator[Callable[[], Any]]:
    """Return a function that opens further connections to the test database."""
    opened = []

    def open_one() -> Any:
        opened.append(psycopg2.connect(settings.database_url))
        return opened[-1]

    yield open_one
    for connection in opened:
        connection.close()


@pytest.fixture
def people(db: Any) -> dict[str, int]:
    """Create one user of each role and a second patient, all with PASSWORD; return their ids by name."""
    roles = {"bholanath": "patient", "savita": "patient", "dr.ayush": "doctor", "tara": "technician"}
    roles |= {"root": "admin", "runner": "service"}
    return {name: create_user(name, password=PASSWORD, role=role, rounds=4).id for name, role in roles.items()}


@pytest.fixture
def run_cli(settings: Settings) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs a command as a process, on the test servers unless `env` names others."""

    def run(*words: str, stdin: str | bytes = "", env: dict[str, str] | None = None, **options: Any) -> Any:
        own = {
            "MYHEALTH_DATABASE_URL": settings.database_url,
            "MYHEALTH_MONGO_URL": settings.mongo_url,
            "MYHEALTH_DATA_DIR": settings.data_dir,
            "MYHEALTH_BCRYPT_ROUNDS": "4",
        }
        environ = {**os.environ, **(own if env is None else env)}
        data = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run(
            [sys.executable, "-m", "cli", *words], input=data, capture_output=True, env=environ, timeout=120, **options
        )
        return subprocess.CompletedProcess(
            words, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        )

    return run


@pytest.fixture(scope="session")
def served(settings: Settings) -> Iterator[tuple[str, str]]:
    """Run both APIs on the test servers until the run ends; return their URLs. Use `people` for their users."""
    with running_apis(settings) as urls:
        yield urls


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """Run Chromium; see support/browser.py."""
    path = find_chromium()
    if path is None:
        pytest.skip("there is no Chromium here; install one for the pages' tests: apt-get install chromium")
    with running_chromium(path) as running:
        yield running


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    """Open an empty page of Chromium with a new profile."""
    with open_page(chromium) as opened:
        yield opened


@pytest.fixture
def calling() -> Iterator[Callable[[Any], Caller]]:
    """Return a function that makes a Caller of an application and closes it after the test."""
    callers: list[Caller] = []

    def make(application: Any) -> Caller:
        callers.append(Caller(application))
        return callers[-1]

    yield make
    for caller in callers:
        caller.application.close()


@pytest.fixture
def upload(people: dict[str, int], settings: Settings, calling: Callable[[Any], Caller]) -> Caller:
    """Return a Caller of the upload API on the test database."""
    from wsgi.upload import make_app

    return calling(make_app(settings))


@pytest.fixture
def serving() -> Iterator[Callable[[Any], str]]:
    """Return a function that serves a WSGI application on a free port, in threads, and returns its URL."""
    from werkzeug.serving import make_server

    running = []

    def start(application: Any) -> str:
        server = make_server("127.0.0.1", 0, application, threaded=True)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        running.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


@pytest.fixture
def log_in(settings: Settings, people: dict[str, int]) -> Callable[[str], str]:
    """Return a function that returns a token for a user name."""
    signer = Signer(load_secret(settings), settings.token_ttl_s)
    return lambda name: signer.sign(get_user(name).subject)[0]


@pytest.fixture
def stub(settings) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Run a stub of the upload API; return its URL and the deletions that it was asked for."""
    keys = json.dumps(Signer(load_secret(settings), 60).jwks()).encode()
    handler = type("Handler", (UploadStub,), {"keys": keys, "deletions": []})
    server = HTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", handler.deletions
    server.shutdown()
    server.server_close()


@pytest.fixture
def running() -> Iterator[Callable[[type[BaseHTTPRequestHandler]], str]]:
    """Return a function that starts a server of a handler and returns its URL."""
    servers = []

    def start(handler: type[BaseHTTPRequestHandler]) -> str:
        server = HTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def answering(running: Any) -> Callable[[int, bytes], str]:
    """Return a function that starts a server which answers all with (status, body), and returns its URL."""
    return lambda status, body: running(type("Handler", (FixedAnswer,), {"answer": (status, body)}))


@pytest.fixture
def browse(people, settings, reports, stub, calling) -> Caller:
    """Return a Caller of the browse API, with three reports of Bholanath and one of Savita."""
    from wsgi.browse import make_app

    take(*[record(i, taken_at=f"2026-11-0{i}T09:00:00Z") for i in (1, 2, 3)], record(8, patient="savita"))
    run_pass(settings.database_url, ReportWriter(reports), settings)
    return calling(make_app(dataclasses.replace(settings, auth_url=stub[0])))


@pytest.fixture
def signed(browse: Caller, settings: Settings, log_in: Callable[[str], str]) -> Callable[..., Any]:
    """Return a function that calls the browse API as the task runner does, with its token and its signature."""

    def call(path: str, body: Any, **options: Any) -> Any:
        content = body if isinstance(body, bytes) else msgspec.json.encode(body)
        signer = RequestSigner(options.pop("key", settings.sync.signing_key))
        headers = {HEADER: signer.sign("POST", path, content, options.pop("now", None)), **options.pop("headers", {})}
        return browse("POST", path, content, **{"token": log_in("runner"), "headers": headers, **options})

    return call


@pytest.fixture
def two_checkups(upload: Caller, log_in: Callable[[str], str]) -> None:
    """Store check-up 1 of bholanath and check-up 2 of savita, and rejection 1 of tara's."""
    sent = upload("POST", "/checkups/", [record(1), record(2, "savita"), record(3, "nobody")], token=log_in("tara"))
    assert [item["id"] for item in sent.json["items"]] == [1, 2, None]


@pytest.fixture
def application(upload: Caller, settings, reports, serving, calling):
    """Return the browse API; a real upload API checks its logins over HTTP."""
    from wsgi.browse import make_app

    return calling(make_app(dataclasses.replace(settings, auth_url=serving(upload.application)))).application


@pytest.fixture
def browser(application) -> Browser:
    return Browser(application)


@pytest.fixture
def stored(people, settings, reports) -> None:
    """Put three reports of Bholanath and one of Savita into the report store."""
    take(*[record(i, taken_at=f"2026-11-{i + 1:02}T09:00:00Z") for i in range(3)], record(8, patient="savita"))
    run_pass(settings.database_url, ReportWriter(reports), settings)


@pytest.fixture
def sync(settings: Settings, reports: ReportRepository) -> Callable[..., Pass]:
    """Run one pass of the sync, with the options of `run_pass`."""

    def one_pass(**options: Any) -> Pass:
        return run_pass(settings.database_url, ReportWriter(reports), settings, **options)

    return one_pass
