"""myhealth sync"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import click

from cli.context import App, pass_app
from myhealth.common.settings import Settings
from myhealth.common.text import printable
from myhealth.reports.writer import ReportWriter
from myhealth.sync.reports_api_client import ReportsApiClient
from myhealth.sync.runner import Pass, restart_epoch, run_pass
from myhealth.sync.scheduler import run_loop
from myhealth.sync.targets import ReportsApi, Target


@click.command()
@click.option("--once", is_flag=True, help="Do one pass and end, for cron: says nothing when all is well, unless -v.")
@click.option(
    "--interval",
    type=click.FloatRange(min=0, min_open=True, max=86400),
    metavar="S",
    help="Seconds between passes; overrides sync.interval_s.",
)
@click.option("--restart", is_flag=True, help="Read everything anew, whatever the mark says.")
@click.option("--retry-failed", is_flag=True, help="Try again what MongoDB refused earlier.")
@click.option("-v", "--verbose", count=True, help="Say what was done.")
@pass_app
def sync(app: App, once: bool, interval: float | None, restart: bool, retry_failed: bool, verbose: int) -> None:
    """Take new check-ups over into the report store.

    Reads what is new, changed or deleted in PostgreSQL since the last pass and writes it to MongoDB, or to the browse
    API of sync.reports_api_url. Without --once it does so again and again, one log line a pass, until SIGTERM or
    Ctrl-C, which end it between two batches. A store that goes away within a pass is tried again for a minute. A
    second runner at the same time says so and exits 0. Exit 1 if MongoDB refused a document, 75 if a store is away.
    """
    from myhealth import stores

    if once and interval is not None:
        raise click.UsageError("--interval is for the loop; leave --once or --interval away")
    settings = app.settings(**{"sync.interval_s": interval})
    with stores.opened_database(settings), opened_target(app, settings) as target:
        source_url = stores.database_url(settings)
        if restart and not restart_epoch(source_url, target, settings.sync.source_url):
            click.echo("Another sync is at work; nothing was restarted.", err=True)
        elif once:
            report(run_pass(source_url, target, settings, retry_failed=retry_failed), app.verbose or verbose)
        else:
            logging.getLogger("myhealth.sync").setLevel(logging.INFO)
            run_loop(source_url, target, settings)


@contextlib.contextmanager
def opened_target(app: App, settings: Settings) -> Iterator[Target]:
    """The report store itself, or the browse API before it."""
    if settings.sync.reports_api_url:
        yield ReportsApi(ReportsApiClient(settings))
    else:
        with app.reports(settings) as reports:
            yield ReportWriter(reports)


def report(done: Pass, verbose: int) -> None:
    if done.locked_out:
        click.echo("Another sync is at work; nothing to do.", err=True)
        return
    if verbose:
        click.echo(done.line(), err=True)
    for failure in done.failed:
        click.echo(f"MongoDB refused {failure.kind} {failure.id}: {printable(failure.reason)}", err=True)
    if done.failures > len(done.failed):
        click.echo(f"… and {done.failures - len(done.failed):,} more.", err=True)
    if done.failures:
        click.get_current_context().exit(1)
