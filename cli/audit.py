"""myhealth audit"""

from __future__ import annotations

from typing import Any

import click

from cli.context import App, pass_app
from cli.output import as_json, check_form, is_json, print_records
from myhealth.audit import ACTIONS, SOURCES, events, merged


class Moment(click.DateTime):
    """A day, or a day and a time."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            self.fail(f"{value!r} is not like 2026-11-28 or 2026-11-28T09:30", param, ctx)


MOMENT = Moment(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M"])
COLUMNS = ("id", "source", "at", "actor", "action", "subject", "address", "outcome", "details")


@click.command()
@click.option("--actor", metavar="NAME", help="Only events of this user.")
@click.option("--subject", metavar="NAME", help="Only events that concern this user's data or account.")
@click.option("--action", type=click.Choice(ACTIONS), help="Only this kind of event.")
@click.option(
    "--since",
    type=MOMENT,
    metavar="MOMENT",
    help="Only from this moment on, like 2026-11-28 or 2026-11-28T09:30, in this machine's time zone.",
)
@click.option("--until", type=MOMENT, metavar="MOMENT", help="Only before this moment.")
@click.option("--source", type=click.Choice(SOURCES), help="Only events that this API recorded.")
@click.option("--after", default="", metavar="ID", help="Only later events of this event's API.")
@click.option(
    "--limit", type=click.IntRange(1, 1_000_000), default=1000, show_default=True, help="Maximum number of events."
)
@click.option("--newest/--oldest", default=None, help="Which, if there are more; the newest unless --after is given.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV, for spreadsheets.")
@as_json
@pass_app
def audit(app: App, /, source: str | None, limit: int, newest: bool | None, as_csv: bool, **filters: Any) -> None:
    """Show who did what, to whose data, from where.

    Every login, refusal, access to another user's record, upload, import and change of an account, oldest first. The
    upload API records events in PostgreSQL, the browse API in MongoDB; this command shows both. Events are only ever
    added; they contain no measured values and no passwords.
    """
    from msgspec.structs import asdict  # help needs no msgspec

    check_form(as_csv)
    newest = not filters["after"] if newest is None else newest
    for name in ("since", "until"):
        filters[name] = filters[name].astimezone() if filters[name] else None
    with app.database() as settings, app.reports(settings) as store:
        sources = (source,) if source else SOURCES
        found = list(merged.find_all_events(store, sources=sources, limit=limit + 1, newest=newest, **filters))
        events.record_event("read", what="audit")
    shown = found[:limit]
    if newest:
        shown.reverse()
    records = [asdict(event) for event in shown]
    if not is_json():
        records = [{**record, "details": details_text(record["details"])} for record in records]
    print_records(records, COLUMNS, as_csv=as_csv)
    if len(found) > limit:
        which, others = ("last", "--until") if newest else ("first", "--newest, --since")
        click.echo(f"There are more: these are the {which} {limit:,}; see {others} or a higher --limit.", err=True)


def details_text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {details_text(each)}" for name, each in value.items() if each is not None)
    return ", ".join(map(details_text, value)) if isinstance(value, list) else str(value)
