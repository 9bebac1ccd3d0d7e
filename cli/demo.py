"""myhealth demo: the nine steps of myhealth/README.md, with real servers and processes."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import secrets
import tempfile
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from cli.context import App, pass_app
from cli.output import called_as, plural
from myhealth import embedded, examples, processes, stores
from myhealth.common import http_client
from myhealth.common.errors import Unavailable
from myhealth.profiles import passwords, services
from myhealth.reports import writer
from myhealth.sync import runner

if TYPE_CHECKING:
    from myhealth.common.settings import Settings
    from myhealth.embedded.mongo import Mongo
    from myhealth.embedded.postgres import Postgres
    from myhealth.reports.repository import ReportRepository

RESPONSE_MAX_BYTES = 1024 * 1024
DATABASE = "myhealth_demo"  # the demo's own databases, so that no other data changes


@click.command()
@pass_app
def demo(app: App) -> None:
    """Perform the whole system's nine steps, for you to watch.

    Real PostgreSQL and MongoDB servers, both APIs under gunicorn on free ports, a machine's dump, the task runner
    and a patient who logs in. It uses databases of its own, made anew each time, and leaves nothing running but the
    embedded servers.
    """
    started = time.monotonic()
    with prepared(app.settings()) as (settings, listeners):
        summary = perform(settings, *listeners)
    click.secho(f"\nThe nine steps took {time.monotonic() - started:.1f} s. {summary}", bold=True)
    click.echo(f"Only the embedded servers are still running; stop them with: {called_as()} db stop")


@contextlib.contextmanager
def prepared(settings: Settings) -> Iterator[tuple[Settings, tuple[Any, Any]]]:
    """Start both servers with empty databases, and open two free ports, for one demo at a time."""
    postgres, mongo = embedded.servers(settings.folder)
    print_step(0, "Starting real servers.")
    begun = time.monotonic()
    postgres.ensure()
    mongo.ensure()
    filelock = postgres.lock_library()
    lock = filelock.FileLock(settings.folder / "demo.lock", timeout=0)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock)
        except filelock.Timeout:
            raise Unavailable("another demo is at work here; wait for its end") from None
        upload, browse = (stack.enter_context(processes.open_listening_socket("127.0.0.1", 0)) for _ in range(2))
        settings = demo_settings(settings, postgres, mongo, processes.url_of(upload))
        versions = f"PostgreSQL {postgres.version()} and MongoDB {mongo.version()}"
        print_result(f"{versions} run ({since(begun)}); data in {settings.folder}.")
        stack.callback(stores.close_database)
        yield settings, (upload, browse)


def demo_settings(settings: Settings, postgres: Postgres, mongo: Mongo, auth_url: str) -> Settings:
    postgres.make_database(DATABASE, anew=True)
    settings = dataclasses.replace(
        settings,
        database_url=postgres.url_of(DATABASE),
        mongo_url=mongo.url_of(DATABASE),
        secret_key=secrets.token_urlsafe(48),
        auth_url=auth_url,
    )
    stores.bind_database(settings)
    stores.migrate(settings)
    return settings


def perform(settings: Settings, upload: Any, browse: Any) -> str:
    reports = stores.open_reports(settings)
    with contextlib.ExitStack() as stack:
        stack.callback(reports.close)
        reports.drop()
        reports.make_indexes()
        log_file = stack.enter_context(tempfile.TemporaryFile())
        people = step_1_and_2(settings)
        begun = time.monotonic()
        stack.enter_context(processes.gunicorn("wsgi.upload:app", upload, settings, log_file=log_file))
        stack.enter_context(processes.gunicorn("wsgi.browse:app", browse, settings, log_file=log_file))
        upload_url, browse_url = processes.url_of(upload), processes.url_of(browse)
        print_result(f"Upload API at {upload_url}, browse API at {browse_url}, both under gunicorn ({since(begun)}).")
        stored = step_3_and_4(upload_url, people)
        step_5_and_6(settings, reports)
        return steps_7_to_9(browse_url, people, stored)


def step_1_and_2(settings: Settings) -> dict[str, str]:
    """Create the users; return their passwords by username."""
    print_step(1, "Bholanath and Savita come for a health check-up.")
    begun = time.monotonic()
    people = {name: passwords.generate_password() for name in ("bholanath", "savita", "tara")}
    for name, password in people.items():
        role = "technician" if name == "tara" else "patient"
        services.create_user(name, password=password, role=role, rounds=settings.bcrypt_rounds)
    print_result(
        f"Two patients and the technician Tara have accounts; passwords are kept as bcrypt hashes ({since(begun)})."
    )
    dump = json.loads(examples.example("machine-dump.json").read_text("utf-8"))
    serial = dump["machine"]["serial"]
    print_step(2, f"Dr. Ayush examines them with the machine {serial}, which keeps the reports in its memory.")
    print_result(f"{plural(len(dump['records']), 'report')} in it; the first: {dump['records'][0]['checkup_report']}")
    return people


def step_3_and_4(upload_url: str, people: dict[str, str]) -> int:
    path = examples.example("machine-dump.json")
    body = path.read_bytes()
    serial = json.loads(body)["machine"]["serial"]
    print_step(3, "The tablet pulls all reports out of the machine.")
    print_result(f"{path.name}: {len(body):,} bytes.")
    print_step(4, "The tablet uploads them, all at once, and each is acknowledged by itself.")
    _, login = call(upload_url, "/login/", basic=("tara", people["tara"]))
    begun = time.monotonic()
    status, answer = call(upload_url, f"/machines/{serial}/dumps/", login["token"], body)
    ids = [item["id"] for item in answer["items"]]
    counts = "{accepted} accepted, {duplicate} duplicate, {rejected} rejected"
    print_result(f"HTTP {status}: {counts.format(**answer)} ({since(begun)}).")
    print_result(f"PostgreSQL has them as check-ups {ids[0]} to {ids[-1]}; only what is acknowledged may be erased.")
    status, again = call(upload_url, f"/machines/{serial}/dumps/", login["token"], body)
    print_result(f"Sent once more, as a tablet does that lost its network: HTTP {status}, {counts.format(**again)}.")
    return int(answer["accepted"])


def step_5_and_6(settings: Settings, reports: ReportRepository) -> None:
    print_step(5, "The task runner wakes up and looks for check-ups that are new since the last one it stored.")
    done = runner.run_pass(settings.database_url, writer.ReportWriter(reports), settings)
    print_result(
        f"{plural(done.read, 'row')} read (people and check-ups); checkpoint: check-up {done.last_checkup_id}."
    )
    print_step(6, "It turns them into JSON report documents and hands them to the report store.")
    documents, users = reports.count()
    print_result(f"MongoDB has {plural(documents, 'report')} and {plural(users, 'user')} ({done.secs:.2f} s).")
    again = runner.run_pass(settings.database_url, writer.ReportWriter(reports), settings)
    print_result(f"The next pass finds {plural(again.read, 'row')} to do ({again.secs:.2f} s).")


def steps_7_to_9(browse_url: str, people: dict[str, str], stored: int) -> str:
    print_step(7, "Bholanath opens the ReportsApp and logs in.")
    begun = time.monotonic()
    status, login = call(browse_url, "/login/", basic=("bholanath", people["bholanath"]))
    print_step(8, "The browse API lets the upload API check the username and the password.")
    wrong, _ = call(browse_url, "/login/", basic=("bholanath", "not-my-password"))
    print_result(
        f"The right password: HTTP {status}, a signed token ({since(begun)} for both). A wrong one: HTTP {wrong}."
    )
    print_step(9, "Bholanath browses his reports.")
    begun = time.monotonic()
    status, mine = call(browse_url, "/reports/", login["token"])
    count = f"{plural(len(mine), 'report')} of {stored}"
    print_result(f"GET /reports/ answers HTTP {status} with {count} ({since(begun)}), newest first:")
    for report in mine:
        show_report(report)
    other, _ = call(browse_url, "/users/savita/reports/", login["token"])
    print_result(f"Savita's reports, asked for by Bholanath: HTTP {other}.")
    return f"{stored} reports went from the machine to their people; Bholanath sees his {len(mine)}, and no other."


def show_report(report: dict[str, Any]) -> None:
    """Print a report as the customer sees it."""
    when = report["taken_at"].replace("T", " ")[:16]
    click.secho(f"\n     {report['checkup_type'].capitalize()}, {when} UTC, by {report['taken_by']}", bold=True)
    click.echo(f"     {report['checkup_report']}")
    from myhealth.clinical.in_words import unit_of  # imported here: help shows no report

    for result in report["results"]:
        low, high = result["low"], result["high"]
        usual = (
            f"usual: {low} to {high}" if None not in (low, high) else f"usual: up to {high}" if high is not None else ""
        )
        mark = {"H": "▲ above the usual range", "L": "▼ below the usual range"}.get(result["flag"] or "", "")
        value = f"{result['value']} {unit_of(result['unit'])}"
        line = f"       {result['name']:<26} {value:<14} {usual:<18}"
        click.echo(f"{line} {click.style(mark, fg='yellow')}" if mark else line.rstrip())


def call(
    url: str, path: str, token: str = "", body: bytes | None = None, basic: tuple[str, str] | None = None
) -> tuple[int, Any]:
    """Send one HTTP request, a POST if it has a body; return its status and its JSON, whatever the status is."""
    headers = {"Content-Type": "application/json"} if body is not None else {}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    if basic:
        headers["Authorization"] = "Basic " + base64.b64encode(":".join(basic).encode()).decode()
    client = http_client.HttpClient(url, timeout_s=60, response_max_bytes=RESPONSE_MAX_BYTES)
    response = client.call("GET" if body is None else "POST", path, body, headers)
    return response.status, json.loads(response.body)


def print_step(number: int, text: str) -> None:
    click.echo(
        f"\n{click.style(f'{number}.' if number else '  ', fg='cyan', bold=True)} {click.style(text, bold=True)}"
    )


def print_result(text: str) -> None:
    click.echo(f"   {text}")


def since(begun: float) -> str:
    return f"{time.monotonic() - begun:.2f} s"
