"""myhealth sync"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from cli.context import App, pass_app
from cli.output import counting, is_json, print_json, tell, told_as_json
from myhealth import stores
from myhealth.common.errors import BadInput, MissingPrivilege, Unavailable
from myhealth.common.text import printable
from myhealth.sync import pass_result, runner, source


@click.command()
@click.option("--once", is_flag=True, help="Do one pass and end, for cron; print nothing when all is well, unless -v.")
@click.option(
    "--interval",
    type=click.FloatRange(min=0, min_open=True, max=86400),
    metavar="S",
    help="Seconds from the end of a pass to the next one; overrides sync.interval_s.",
)
@click.option("--restart", is_flag=True, help="Read everything anew, whatever the checkpoint is.")
@click.option(
    "--expect-removals",
    type=click.IntRange(min=0),
    metavar="N",
    help="With --restart: up to N documents of the report store may go. Needed once when database_url names"
    " another system and more than a tenth would go.",
)
@click.option("--retry-failed", is_flag=True, help="Write again the documents that MongoDB refused earlier.")
@click.option(
    "--away-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="With --once: say only once that a store is unavailable, and that it is available again; FILE remembers it.",
)
@click.option(
    "--new-key",
    type=click.Path(),
    metavar="FILE",
    is_eager=True,
    expose_value=False,
    callback=lambda context, _, path: write_new_key(context, path),
    help="Make a key pair for the sync over HTTP: write the private key to FILE, print the public one, and end.",
)
@click.option("-v", "--verbose", count=True, help="Print what was done.")
@told_as_json
@pass_app
def sync(
    app: App,
    once: bool,
    interval: float | None,
    restart: bool,
    expect_removals: int | None,
    retry_failed: bool,
    away_file: Path | None,
    verbose: int,
) -> None:
    """Take new check-ups over into the report store.

    Reads the rows that were added, changed or deleted in PostgreSQL since the last pass and writes them to MongoDB, or
    to the browse API of sync.reports_api_url. Without --once it runs pass after pass, the interval counted from the
    end of each, and logs one line a pass, until SIGTERM or Ctrl-C, which end it between two batches. A store that
    becomes unavailable within a pass is tried again for a minute. A second runner at the same time does nothing and
    exits 0. Exit 1 if MongoDB refused a document, 75 if a store is unavailable, 78 if database_url names another system
    than before and more than a tenth of the documents would go.
    """
    if once and interval is not None:
        raise click.UsageError("--interval is for the loop; leave out --once or --interval")
    if is_json() and not once:
        raise click.UsageError("--json goes with --once; the loop logs JSON lines with log.format")
    if expect_removals is not None and not restart:
        raise click.UsageError("--expect-removals is for --restart")
    if away_file is not None and not once:
        raise click.UsageError("--away-file is for --once")
    settings = app.settings(**{"sync.interval_s": interval})
    with report_once(away_file), stores.opened_database(settings), app.target(settings) as target:
        source_url = stores.database_url(settings)
        if restart and not runner.restart_epoch(source_url, target, settings.sync.source_url, expect_removals):
            tell("Another sync is at work; nothing was restarted.", {"locked_out": True}, err=True)
        elif once:
            done = pass_result.Pass()
            with counting("Rows carried over", lambda: done.read, source.count_at_most() if sys.stderr.isatty() else 0):
                runner.run_pass(source_url, target, settings, retry_quarantined=retry_failed, done=done)
            report(done, app.verbose or verbose)
        else:
            from myhealth.sync.scheduler import run_loop  # one pass needs neither `schedule` nor `verify`

            logging.getLogger("myhealth.sync").setLevel(settings.log.level.upper())
            run_loop(source_url, target, settings)


@contextlib.contextmanager
def report_once(path: Path | None) -> Iterator[None]:
    """Report an unavailable store only in the first of several runs. `path`: the file that remembers it."""
    try:
        yield
    except MissingPrivilege:
        raise
    except Unavailable as error:
        if path is not None and path.exists():
            raise click.exceptions.Exit(error.exit_code) from error
        if path is not None:
            path.touch()
        raise
    if path is not None and path.exists():
        path.unlink()
        click.echo("The stores are available again.", err=True)


def write_new_key(context: click.Context, path: str | None) -> None:
    """Write a new private key to a file that only its owner may read, print its public half, and end the command."""
    if path is None:
        return
    from myhealth.sync.signature import new_key  # it loads cryptography

    private, public = new_key()
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(private + "\n")
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror}") from error
    click.echo(public)
    click.echo("Set it as browse.sync_public_key at the browse API, and here", err=True)
    click.echo(f"MYHEALTH_SYNC_SIGNING_KEY_FILE={Path(path).absolute()}", err=True)
    context.exit()


def report(done: pass_result.Pass, verbose: int) -> None:
    """Print the result of a pass; exit 1 if MongoDB refused a document."""
    if is_json():
        print_json({**done.figures(), "secs": round(done.secs, 3), "locked_out": done.locked_out})
    if done.locked_out:
        if verbose:
            click.echo("Another sync is at work; nothing to do.", err=True)
        return
    if verbose:
        click.echo(done.line(), err=True)
    for document in done.quarantined:
        click.echo(f"MongoDB refused {document.kind} {document.id}: {printable(document.reason)}", err=True)
    if done.quarantined_count > len(done.quarantined):
        click.echo(f"… and {done.quarantined_count - len(done.quarantined):,} more.", err=True)
    if done.quarantined_count:
        click.get_current_context().exit(1)
