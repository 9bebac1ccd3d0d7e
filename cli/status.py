"""myhealth status"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import click

from cli.context import App, pass_app
from cli.output import as_json, cell_text, plural, print_json, print_table
from myhealth import stores
from myhealth.common.errors import Unavailable
from myhealth.sync import status

if TYPE_CHECKING:
    from myhealth.sync.status import Holder, LastPass, Status

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
def status_command(app: App, max_lag: float | None, max_age: float | None, as_json: bool) -> None:
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
    print_json(status_as_dict(found)) if as_json else print_status(found)
    if found.unavailable:
        raise Unavailable("; ".join(found.unavailable.values()))
    if found.is_behind(max_lag) or found.is_old(max_age):
        click.get_current_context().exit(1)


def status_as_dict(found: Status) -> dict[str, Any]:
    """Return the status in the names that scripts read."""
    from msgspec.structs import asdict  # help needs no msgspec

    checkpoint = found.checkpoint
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
        "last_pass": last_pass_as_dict(found.last_pass) if found.last_pass else None,
        "quarantined": {"count": found.quarantined_count, "first": found.quarantined},
        "source": {"checkups": found.checkups, "users": found.users},
        "verified": found.last_pass.verified if found.last_pass else None,
        "store": {"reports": found.reports, "users": found.report_users},
    }


def last_pass_as_dict(last: LastPass) -> dict[str, Any]:
    done = {"quarantined" if name == "set_aside" else name: value for name, value in last.done.items()}
    return {"began_at": last.began_at, "ended_at": last.ended_at, "problem": last.problem or None, **done}


def print_status(found: Status) -> None:
    source = counts_line(found, "PostgreSQL", "check-up", found.checkups, found.users)
    store = counts_line(found, "MongoDB", "report", found.reports, found.report_users)
    print_table([["PostgreSQL", source], ["report store", store], *lines(found)], ["", ""])
    if found.quarantined:
        print_table([[entry.get(name) for name in QUARANTINE_FIELDS] for entry in found.quarantined], QUARANTINE_FIELDS)


def counts_line(found: Status, store: str, word: str, records: int | None, users: int | None) -> str:
    if records is None or users is None:
        return found.unavailable.get(store, "")
    return f"{plural(records, word)}, {plural(users, 'user')}"


def lines(found: Status) -> list[list[str]]:
    """Return the table's further rows: those that the status has."""
    rows = []
    if checkpoint := found.checkpoint:
        place = f"check-up {checkpoint.last_checkup_id}, epoch {checkpoint.epoch}, {checkpoint.phase}"
        rows.append(["checkpoint", place])
    if found.lag:
        rows.append(["behind", f"{plural(found.lag.rows, 'row')}, {found.lag.seconds:,.0f} s"])
    if found.new_epoch:
        rows.append(["next pass", f"reads everything anew: {found.new_epoch}"])
    if found.held_back_by:
        rows.append(["held back by", holder_line(found.held_back_by)])
    if found.last_pass:
        rows.append(["last pass", last_pass_line(found.last_pass)])
    if found.last_pass and (verified := found.last_pass.verified):
        rows.append(["verified", verified_line(verified)])
    if found.quarantined_count:
        rows.append(["quarantined", f"{plural(found.quarantined_count, 'document')} that MongoDB refused"])
    return rows


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
