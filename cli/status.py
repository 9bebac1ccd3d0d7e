"""myhealth status"""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from typing import Any

import click

from cli.context import App, pass_app
from cli.output import as_json, cell_text, plural, print_json, print_table
from myhealth.common.errors import Unavailable
from myhealth.reports.writer import ReportWriter
from myhealth.sync.checkpoint import Checkpoint
from myhealth.sync.lag import Holder, LastPass
from myhealth.sync.status import Status, collect_status, raise_if_unavailable

FAILURE = ("kind", "row_id", "since", "at", "tries", "reason")


@click.command()
@click.option(
    "--max-lag",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Exit 1 if the oldest change that is not carried over yet is older than this.",
)
@as_json
@pass_app
def status(app: App, max_lag: float | None, as_json: bool) -> None:
    """Show how far the report store is behind, and why.

    Rows and seconds behind PostgreSQL, the mark, the last pass of the sync, what MongoDB refused, how much both
    stores hold, and the oldest writing transaction, which holds the sync back until it ends. Exit 1 if the store is
    further behind than --max-lag, 75 if a store is away; what the other one knows is told all the same.
    """
    from myhealth import stores

    settings = app.settings()
    with contextlib.suppress(Unavailable):  # look() finds out for itself, and goes on
        stores.open_database(settings)
    try:
        with app.reports(settings) as reports:
            found = collect_status(stores.database_url(settings), ReportWriter(reports))
    finally:
        stores.close_database()
    print_json(as_dict(found)) if as_json else print_status(found)
    raise_if_unavailable(found)
    if found.is_behind(max_lag):
        click.get_current_context().exit(1)


def as_dict(found: Status) -> dict[str, Any]:
    return {
        "away": found.away,
        "behind": asdict(found.lag) if found.lag else None,
        "mark": checkpoint_as_dict(found.mark) if found.mark else None,
        "epoch_ended": found.epoch_ended or None,
        "held_back_by": asdict(found.held_back_by) if found.held_back_by else None,
        "last_pass": last_pass_as_dict(found.last_pass) if found.last_pass else None,
        "set_aside": {"count": found.set_aside_count, "first": found.set_aside},
        "source": {"checkups": found.checkups, "users": found.users},
        "store": {"reports": found.reports, "users": found.report_users},
    }


def last_pass_as_dict(last: LastPass) -> dict[str, Any]:
    return {"began_at": last.began_at, "ended_at": last.ended_at, "problem": last.problem or None, **last.done}


def checkpoint_as_dict(mark: Checkpoint) -> dict[str, Any]:
    feeds = {feed: asdict(place) for feed, place in mark.feeds.items()}
    return {"checkup_id": mark.last_checkup_id, "epoch": mark.epoch, "phase": mark.phase, "feeds": feeds}


def print_status(found: Status) -> None:
    print_table([["PostgreSQL", source_line(found)], ["report store", store_line(found)], *lines(found)], ["", ""])
    if found.set_aside:
        print_table([[failure.get(name) for name in FAILURE] for failure in found.set_aside], FAILURE)


def source_line(found: Status) -> str:
    if found.checkups is None or found.users is None:
        return found.away.get("PostgreSQL", "")
    return f"{plural(found.checkups, 'check-up')}, {plural(found.users, 'user')}"


def store_line(found: Status) -> str:
    if found.reports is None or found.report_users is None:
        return found.away.get("MongoDB", "")
    return f"{plural(found.reports, 'report')}, {plural(found.report_users, 'user')}"


def lines(found: Status) -> list[list[str]]:
    told = []
    if found.mark:
        told.append(["mark", f"check-up {found.mark.last_checkup_id}, epoch {found.mark.epoch}, {found.mark.phase}"])
    if found.lag:
        told.append(["behind", f"{plural(found.lag.rows, 'row')}, {found.lag.seconds:,.0f} s"])
    if found.epoch_ended:
        told.append(["next pass", f"reads everything anew: {found.epoch_ended}"])
    if found.held_back_by:
        told.append(["held back by", holder_line(found.held_back_by)])
    if found.last_pass:
        told.append(["last pass", last_pass_line(found.last_pass)])
    if found.set_aside_count:
        told.append(["set aside", f"{plural(found.set_aside_count, 'document')} that MongoDB refused"])
    return told


def holder_line(holder: Holder) -> str:
    who = f"process {holder.pid}" if holder.pid else f"the prepared transaction {holder.prepared!r}"
    what = ", ".join(filter(None, [holder.user, holder.database, holder.application, holder.state]))
    return f"{who} ({what}), which writes since {cell_text(holder.since)}"


def last_pass_line(last: LastPass) -> str:
    figures = f"read {last.done.get('read')}, written {last.done.get('written')}, removed {last.done.get('removed')}"
    return f"{cell_text(last.ended_at)}: " + (f"FAILED: {last.problem}" if last.problem else figures)
