"""myhealth audit"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from cli.context import App, pass_app
from cli.output import as_json, check_form, print_csv, print_json, print_table
from myhealth.audit.events import ACTIONS, Event
from myhealth.audit.merged import SOURCES, find_all_events

MOMENT = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M"])
COLUMNS = ("id", "source", "at", "actor", "action", "subject", "address", "outcome", "details")


@click.command()
@click.option("--actor", metavar="NAME", help="Only what this user did.")
@click.option("--subject", metavar="NAME", help="Only what was done to this user's data or account.")
@click.option("--action", type=click.Choice(ACTIONS), help="Only this kind of event.")
@click.option("--since", type=MOMENT, help="Only from this moment on, in this machine's zone.")
@click.option("--until", type=MOMENT, help="Only before this moment.")
@click.option("--source", type=click.Choice(SOURCES), help="Only what this API noted.")
@click.option("--after", default="", metavar="ID", help="Only what the same API noted beyond this event.")
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=1000, show_default=True, help="At most so many.")
@click.option("--newest", is_flag=True, help="The last ones, instead of the first.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV, for spreadsheets.")
@as_json
@pass_app
def audit(
    app: App, /, source: str | None, limit: int, newest: bool, as_csv: bool, as_json: bool, **filters: Any
) -> None:
    """Show who did what, to whose data, from where.

    Every login, refusal, look at another's record, upload, import and change of an account, oldest first: what the
    upload API noted in PostgreSQL and what the browse API noted in MongoDB, as one. Events are
    only ever added; they hold no measured values and no passwords.
    """
    check_form(as_csv, as_json)
    for name in ("since", "until"):
        filters[name] = filters[name].astimezone() if filters[name] else None
    with app.database() as settings, app.reports(settings) as store:
        sources = (source,) if source else SOURCES
        found = list(find_all_events(store, sources=sources, limit=limit + 1, newest=newest, **filters))
    events = found[:limit]
    if newest:
        events.reverse()
    if as_json:
        print_json([asdict(event) for event in events])
    elif as_csv:
        print_csv([row(event) for event in events], COLUMNS)
    else:
        print_table([row(event) for event in events], COLUMNS)
    if len(found) > limit:
        others = "--since or a higher --limit" if newest else "--newest, --since or a higher --limit"
        click.echo(f"There are more: these are the {'last' if newest else 'first'} {limit:,}; see {others}.", err=True)


def row(event: Event) -> list[Any]:
    values = asdict(event)
    values["details"] = in_words(event.details)
    return [values[name] for name in COLUMNS]


def in_words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {in_words(each)}" for name, each in value.items() if each is not None)
    return ", ".join(map(in_words, value)) if isinstance(value, list) else str(value)
