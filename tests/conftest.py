"""Real PostgreSQL and MongoDB servers, started once a run in a folder of their own, and ended with it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any

import browser
import hypothesis
import psycopg2
import pytest
from werkzeug.test import Client, TestResponse

from myhealth import processes, stores
from myhealth.common.database import database
from myhealth.common.settings import Settings
from myhealth.embedded.mongo import Mongo
from myhealth.embedded.postgres import Postgres
from myhealth.profiles.services import create_user, get_user
from myhealth.profiles.tokens import Signer, load_secret
from myhealth.profiles.upload_client import TOKENS_VALID_AFTER
from myhealth.reports.repository import ReportRepository

ROOT = Path(__file__).parent.parent
NAME = "myhealth_test"
PASSWORD = "correct-horse"

# Nothing that a busy machine does slowly is a fault.
hypothesis.settings.register_profile(
    "whatever the load", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("whatever the load")


def pytest_configure() -> None:
    """Whatever MYHEALTH_ variables there are in the environment, tests do not touch what they name."""
    for name in list(os.environ):
        if name.startswith("MYHEALTH_"):
            del os.environ[name]
    # A shell that runs us in the background has Ctrl-C ignored, and every program that we start would ignore it too.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def data_dir() -> Iterator[Path]:
    """A folder that PostgreSQL's own user may pass through when the tests run as root."""
    folder = Path(tempfile.mkdtemp(prefix="myhealth-tests-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres(data_dir: Path) -> Iterator[Postgres]:
    server = Postgres(data_dir)
    server.ensure()
    server.make_database(NAME)
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
    """Settings of the test servers. Hashes are cheap here: tests make many users."""
    found = Settings(
        database_url=postgres.url_of(NAME),
        mongo_url=mongo.url_of(NAME),
        data_dir=str(postgres.root),
        secret_key="a secret of the tests, 32 bytes and more",
        bcrypt_rounds=4,
    )
    stores.bind_database(found)
    stores.migrate(found)
    stores.close_database()
    return found


TABLES = ("idempotency_keys", "login_attempts", "audit_events", "rejections", "superseded", "checkups", "machines",
          "users", "tombstones", "sync_witness", "sync_pass")  # fmt: skip
MANY_ROWS = 1000


def empty_tables() -> None:
    """Empties every table and begins its numbers anew. A few rows are deleted, which is quicker by far than to truncate:
    that makes new files for each table and index."""
    many = " union all ".join(f"(select from {table} offset {MANY_ROWS} limit 1)" for table in TABLES)
    with database.atomic():
        database.execute_sql("alter table audit_events disable trigger audit_events_stay")
        if database.execute_sql(f"select exists ({many})").fetchone()[0]:
            database.execute_sql(f"truncate {', '.join(TABLES)}")
        for table in TABLES:
            database.execute_sql(f"delete from {table}")
        database.execute_sql("alter table audit_events enable always trigger audit_events_stay")
        database.execute_sql(
            "select setval(format('%%I.%%I', schemaname, sequencename)::regclass, 1, false) from pg_sequences"
            " where schemaname = 'public' and sequencename <> 'schema_migration_id_seq'", ()
        )  # fmt: skip


@pytest.fixture
def db(settings: Settings) -> Iterator[Any]:
    """The empty, migrated database, bound; gives a function that runs SQL and returns all rows."""
    stores.open_database(settings)
    assert "test" in database.database, "tests only ever empty a database that is called so"
    empty_tables()

    def run(sql: str, *values: Any) -> list[tuple[Any, ...]]:
        cursor = database.cursor()
        cursor.execute(sql, values or None)
        return cursor.fetchall() if cursor.description else []

    yield run
    stores.close_database()


@pytest.fixture
def reports(settings: Settings) -> Iterator[ReportRepository]:
    """The empty report store."""
    repository = ReportRepository.connect(settings.mongo_url)
    assert "test" in repository.state.database.name
    repository.drop()
    repository.make_indexes()
    yield repository
    repository.close()


@pytest.fixture
def connect(settings: Settings) -> Iterator[Callable[[], Any]]:
    """Further connections to the test database, each a writer of its own."""
    opened = []

    def open_one() -> Any:
        opened.append(psycopg2.connect(settings.database_url))
        return opened[-1]

    yield open_one
    for connection in opened:
        connection.close()


@pytest.fixture
def people(db: Any) -> dict[str, int]:
    """One user of each role and a second patient, by name, with their ids; all have PASSWORD."""
    roles = {"bholanath": "patient", "savita": "patient", "dr.ayush": "doctor", "tara": "technician"}
    roles |= {"root": "admin", "runner": "service"}
    return {name: create_user(name, password=PASSWORD, role=role, rounds=4).id for name, role in roles.items()}


@pytest.fixture
def run_cli(settings: Settings) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command line as a process of its own, on the test servers unless `env` says otherwise."""

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


@contextlib.contextmanager
def running_apis(settings: Settings, **options: Any) -> Iterator[tuple[str, str]]:
    """Both APIs under gunicorn on free ports: their URLs."""
    with contextlib.ExitStack() as stack:
        upload, browse = (stack.enter_context(processes.listen("127.0.0.1", 0)) for _ in range(2))
        settings = dataclasses.replace(settings, auth_url=processes.url_of(upload))
        stack.enter_context(processes.gunicorn("wsgi.upload:app", upload, settings, **options))
        stack.enter_context(processes.gunicorn("wsgi.browse:app", browse, settings, **options))
        yield processes.url_of(upload), processes.url_of(browse)


@pytest.fixture(scope="session")
def served(settings: Settings) -> Iterator[tuple[str, str]]:
    """The URLs of both APIs, which run on the test servers until the run ends; `people` fills their stores."""
    with running_apis(settings) as urls:
        yield urls


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A real browser; see browser.py."""
    path = browser.find_chromium()
    if path is None:
        pytest.skip("there is no Chromium here; install one for the pages' tests: apt-get install chromium")
    with browser.running_chromium(path) as running:
        yield running


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    """An empty page in it, with a profile of its own."""
    with browser.open_page(chromium) as opened:
        yield opened


def record(number: int | str | None = 1, patient: str = "bholanath", **changes: Any) -> dict[str, Any]:
    """A good record, with these changes; a change to ... takes the field away."""
    made = {
        "record_id": None if number is None else str(number),
        "checkup_for": patient,
        "taken_by": "dr.ayush",
        "taken_at": "2026-11-20T09:14:03+05:30",
        "checkup_type": "BLOOD PRESSURE",
        "disease": "BP",
        "checkup_report": "ALL FINE. 128/82",
        "results": [
            {"code": "8480-6", "name": "Systolic blood pressure", "value": 128, "unit": "mm[Hg]", "low": 90,
             "high": 120, "flag": "H"}
        ],
        **changes,
    }  # fmt: skip
    return {name: value for name, value in made.items() if value is not ... and (name, value) != ("record_id", None)}


def dump(records: list[Any], serial: str = "HC-1") -> bytes:
    """A machine-memory dump of these records."""
    return json.dumps(
        {"format": "myhealth.machine-memory/1", "machine": {"serial": serial}, "records": records}
    ).encode()


class Caller:
    """Calls a WSGI application as a client would, optionally as somebody."""

    def __init__(self, application: Any) -> None:
        self.application = application
        self.client = Client(application)
        self.token = ""

    def __call__(self, method: str, path: str, body: Any = None, **options: Any) -> TestResponse:
        """`body`: bytes as they are, anything else as JSON. `options`: headers, token, query_string."""
        headers = dict(options.pop("headers", {}))
        token = options.pop("token", self.token)
        if token:
            headers["Authorization"] = f"Bearer {token}"
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        answer = self.client.open(path, method=method, data=body, headers=headers, **options)
        if answer.mimetype == "application/json" and answer.status_code >= 400:
            check_error_shape(answer.json)
            assert answer.headers["Cache-Control"] == "no-store"
        return answer


def check_error_shape(body: Any) -> None:
    """The one error shape of DESIGN.md, "HTTP"; a bulk answer that refuses every record has its items instead."""
    assert isinstance(body["details"], str)
    assert body["details"]
    if "items" in body:
        return
    assert set(body) == {"details", "code", "errors"}
    assert isinstance(body["code"], str)
    for error in body["errors"]:
        assert set(error) == {"index", "field", "message"}


@pytest.fixture
def calling() -> Iterator[Callable[[Any], Caller]]:
    """Makes a Caller of an application, which is closed with the test."""
    callers: list[Caller] = []

    def make(application: Any) -> Caller:
        callers.append(Caller(application))
        return callers[-1]

    yield make
    for caller in callers:
        caller.application.close()


@pytest.fixture
def upload(people: dict[str, int], settings: Settings, calling: Callable[[Any], Caller]) -> Caller:
    """The upload API on the test database."""
    from wsgi.upload import make_app

    return calling(make_app(settings))


@pytest.fixture
def serving() -> Iterator[Callable[[Any], str]]:
    """Serves a WSGI application on a free port, in threads; gives its URL."""
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
    """A token for a user, by name."""
    signer = Signer(load_secret(settings), settings.token_ttl_s)
    return lambda name: signer.sign(get_user(name).subject)[0]


class UploadStub(BaseHTTPRequestHandler):
    """What the upload API says to a browse API: its keys, a login that is refused, a deletion that is done."""

    keys = b""
    deletions: list[tuple[str, str]] = []

    def _say(self, status: int, body: bytes = b"", headers: Mapping[str, str] = MappingProxyType({})) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self._say(200, self.keys)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/logout/":
            self._say(204, headers={TOKENS_VALID_AFTER: datetime.now(UTC).isoformat()})
        else:
            self._say(401, b"{}")

    def do_DELETE(self) -> None:
        self.deletions.append((self.path, self.headers["Authorization"]))
        self._say(204)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def stub(settings) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """A running stub: its URL, and what it was asked to delete."""
    keys = json.dumps(Signer(load_secret(settings), 60).jwks()).encode()
    handler = type("Handler", (UploadStub,), {"keys": keys, "deletions": []})
    server = HTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", handler.deletions
    server.shutdown()
    server.server_close()


@pytest.fixture
def browse(people, settings, reports, stub, calling) -> Caller:
    """The browse API with three reports of Bholanath's and one of Savita's."""
    from test_intake import take

    from myhealth.reports.writer import ReportWriter
    from myhealth.sync.runner import run_pass
    from wsgi.browse import make_app

    take(*[record(i, taken_at=f"2026-11-0{i}T09:00:00Z") for i in (1, 2, 3)], record(8, patient="savita"))
    run_pass(settings.database_url, ReportWriter(reports), settings)
    return calling(make_app(dataclasses.replace(settings, auth_url=stub[0])))
