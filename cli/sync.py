"""myhealth sync, status and verify"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.context import App, pass_app
from cli.output import as_json, cell_text, counting, is_json, plural, print_json, print_table, tell
from myhealth import stores
from myhealth.common.errors import BadInput, MissingPrivilege, Unavailable
from myhealth.common.text import printable
from myhealth.sync import pass_result, runner, source, status

if TYPE_CHECKING:
    from myhealth.sync.status import Holder, LastPass, Status
    from myhealth.sync.verify import StoreComparison


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
@as_json
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


QUARANTINE_FIELDS = ("kind", "row_id", "since", "at", "tries", "reason")


@click.command("status")
@click.option(
    "--max-lag",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Exit 1 if the oldest change that is not carried over yet is older than this.",
)
@click.option(
    "--max-age",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Exit 1 if the sync's last pass ended longer ago than this, or none has.",
)
@as_json
@pass_app
def status_command(app: App, max_lag: float | None, max_age: float | None) -> None:
    """Show how far the report store is behind, and why.

    Shows the rows and seconds behind PostgreSQL, the checkpoint, the last pass of the sync, the documents that MongoDB
    refused, the sizes of both stores, and the oldest writing transaction, which holds the sync back until it ends. Exit
    1 if the store is further behind than --max-lag, or the last pass older than --max-age. Exit 75 if a store is
    unavailable; the figures of the other one are shown all the same.
    """
    settings = app.settings()
    with contextlib.suppress(Unavailable):  # collect_status reports it, and goes on
        stores.open_database(settings)
    try:
        with app.target(settings) as target:
            found = status.collect_status(stores.database_url(settings), target)
    finally:
        stores.close_database()
    print_json(status_as_dict(found)) if is_json() else print_status(found)
    if found.unavailable:
        raise Unavailable("; ".join(found.unavailable.values()))
    if found.is_behind(max_lag) or found.is_old(max_age):
        click.get_current_context().exit(1)


def status_as_dict(found: Status) -> dict[str, Any]:
    """Return the status in the names that scripts read."""
    from msgspec.structs import asdict  # help needs no msgspec

    checkpoint, last = found.checkpoint, found.last_pass
    done = {
        "quarantined" if name == "set_aside" else name: value for name, value in (last.done if last else {}).items()
    }
    return {
        "unavailable": found.unavailable,
        "behind": asdict(found.lag) if found.lag else None,
        "checkpoint": checkpoint
        and {
            "checkup_id": checkpoint.last_checkup_id,
            "epoch": checkpoint.epoch,
            "phase": checkpoint.phase,
            "feeds": {feed: asdict(position) for feed, position in checkpoint.feeds.items()},
        },
        "epoch_ended": found.new_epoch or None,
        "held_back_by": asdict(found.held_back_by) if found.held_back_by else None,
        "last_pass": last
        and {"began_at": last.began_at, "ended_at": last.ended_at, "problem": last.problem or None, **done},
        "quarantined": {"count": found.quarantined_count, "first": found.quarantined},
        "source": {"checkups": found.checkups, "users": found.users},
        "verified": last and last.verified,
        "store": {"reports": found.reports, "users": found.report_users},
    }


def print_status(found: Status) -> None:
    checkpoint, last, count = found.checkpoint, found.last_pass, found.quarantined_count
    rows = [
        ("PostgreSQL", counts_line(found, "PostgreSQL", "check-up", found.checkups, found.users)),
        ("report store", counts_line(found, "MongoDB", "report", found.reports, found.report_users)),
    ]
    further = [
        (
            "checkpoint",
            checkpoint and f"check-up {checkpoint.last_checkup_id}, epoch {checkpoint.epoch}, {checkpoint.phase}",
        ),
        ("behind", found.lag and f"{plural(found.lag.rows, 'row')}, {found.lag.seconds:,.0f} s"),
        ("next pass", found.new_epoch and f"reads everything anew: {found.new_epoch}"),
        ("held back by", found.held_back_by and holder_line(found.held_back_by)),
        ("last pass", last and last_pass_line(last)),
        ("verified", last and last.verified and verified_line(last.verified)),
        ("quarantined", count and f"{plural(count, 'document')} that MongoDB refused"),
    ]
    print_table([*rows, *(row for row in further if row[1])], ["", ""])
    if found.quarantined:
        print_table([[entry.get(name) for name in QUARANTINE_FIELDS] for entry in found.quarantined], QUARANTINE_FIELDS)


def counts_line(found: Status, store: str, word: str, records: int | None, users: int | None) -> str:
    if records is None or users is None:
        return found.unavailable.get(store, "")
    return f"{plural(records, word)}, {plural(users, 'user')}"


def holder_line(holder: Holder) -> str:
    session = f"process {holder.pid}" if holder.pid else f"the prepared transaction {holder.prepared!r}"
    details = ", ".join(filter(None, [holder.user, holder.database, holder.application, holder.state]))
    return f"{session} ({details}), which writes since {cell_text(holder.since)}"


def verified_line(verified: dict[str, Any]) -> str:
    differences = [f"{count:,} {what}" for what, count in verified["differences"].items() if count]
    result = f"DIFFERENCES: {', '.join(differences)}; see `myhealth verify`" if differences else "no difference"
    return f"{verified['at']}: {verified['ids']:,} ids picked at random, {result}"


def last_pass_line(last: LastPass) -> str:
    figures = f"read {last.done.get('read')}, written {last.done.get('written')}, removed {last.done.get('removed')}"
    return f"{cell_text(last.ended_at)}: " + (f"FAILED: {last.problem}" if last.problem else figures)


HEADER = ("what", "kind", "id", "row's revision", "report's revision")


@click.command("verify")
@click.option("--repair", is_flag=True, help="Mend the differences. No sync may be at work meanwhile.")
@as_json
@pass_app
def verify_command(app: App, repair: bool) -> None:
    """Compare both stores row by row, and mend what differs.

    Compares users and check-ups of PostgreSQL with the documents of MongoDB: ids, revisions and contents; then the
    trends that are kept there (kind trend, id of the patient) with their reports. Writers and the sync may go on; a row
    that the sync has yet to carry over is no difference. The kinds of difference: lost (no document), ghost (no row),
    stale (an older revision), altered (the row's revision with other content) and refused (MongoDB did not take it: see
    `myhealth status`). Exit 1 on a difference that is not mended, 75 if a store is unavailable.
    """
    from msgspec.structs import asdict

    from myhealth.audit import events  # the sync needs none of these
    from myhealth.reports import writer
    from myhealth.sync import verify

    with app.database() as settings, app.reports(settings) as reports:
        events.record_event("read", what="verify")
        growing = verify.StoreComparison()
        with counting("Rows compared", lambda: growing.rows, source.count_at_most()):
            target, rows = writer.ReportWriter(reports), settings.sync.batch_rows
            found = verify.verify(stores.database_url(settings), target, rows, repair=repair, found=growing)
    if is_json():
        figures = {"rows": found.rows, "documents": found.documents, "not_yet": found.not_yet}
        first = [{**asdict(each), "id": each.id if isinstance(each.id, int) else str(each.id)} for each in found.first]
        print_json({**figures, "differences": found.counts, "mended": found.mended, "first": first})
    else:
        show(found)
    if found.differences > found.mended:
        click.get_current_context().exit(1)


def show(found: StoreComparison) -> None:
    from msgspec.structs import asdict  # help needs no msgspec

    from myhealth.sync.verify import SHOWN

    click.echo(
        f"Compared {plural(found.rows, 'row')} with {plural(found.documents, 'document')};"
        f" {found.not_yet:,} not carried over yet."
    )
    if not found.differences:
        click.echo("No difference.")
        return
    counts = [f"{count:,} {what}" for what, count in found.counts.items() if count]
    click.echo(f"{plural(found.differences, 'difference')}: {', '.join(counts)}; {found.mended:,} mended.")
    print_table([list(asdict(each).values()) for each in found.first], HEADER)
    if max(found.counts.values()) > SHOWN:
        click.echo(f"… the first {SHOWN} of each.")
    if found.differences > found.mended + found.counts.get("refused", 0):
        click.echo("Hint: `myhealth verify --repair` mends the differences.", err=True)
