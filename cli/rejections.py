"""myhealth rejections"""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from cli.context import App, pass_app
from cli.output import as_json, confirm, is_json, plural, print_json, print_table
from myhealth.audit import events
from myhealth.common.errors import BadInput, Conflict
from myhealth.common.text import printable
from myhealth.intake import rejections as domain
from myhealth.profiles import services

if TYPE_CHECKING:
    from myhealth.intake.models import Rejection

REASON_SHOWN = 400  # characters of an error: its end says what to do
PAYLOAD_SHOWN = 20_000
SHOWN_MAX = 20  # lines of each kind, where all are dealt with at once
ID = click.IntRange(0, 2**63 - 1)


@click.group()
def rejections() -> None:
    """List rejected records, and retry or discard them.

    Every rejected record is stored as it was sent, until it is resolved.
    """


@rejections.command("list")
@click.option("--all", "resolved", is_flag=True, help="Also resolved ones.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="Maximum number of records."
)
@click.option("--after", type=ID, default=0, metavar="ID", help="Only records with a higher id.")
@as_json
@pass_app
def rejections_list(app: App, resolved: bool, limit: int, after: int) -> None:
    """List rejected records, oldest first."""
    with app.database():
        events.record_event("read", what="rejections")
        found = domain.list_rejections(after=after, limit=limit, state="all" if resolved else "open")
    if is_json():
        print_json([rejection_row(rejection) for rejection in found])
        return
    rows = [
        [
            row.id,
            row.received_at,
            row.source,
            row.context.get("line"),
            row.resolution or "open",
            first_reason(row.errors),
        ]
        for row in found
    ]
    print_table(rows, ("id", "received", "source", "line", "state", "reasons"))
    if len(found) == limit:
        click.echo(f"There may be more: --after {found[-1].id}", err=True)


@rejections.command("show")
@click.argument("rejection_id", type=ID, metavar="ID", help="The id of a rejected record.")
@as_json
@pass_app
def rejections_show(app: App, rejection_id: int) -> None:
    """Show one rejected record: its source, its errors, and its text as it was sent."""
    with app.database():
        rejection = domain.open_rejection(rejection_id)
    if is_json():
        print_json({**rejection_row(rejection), "payload": rejection.payload})
        return
    context = rejection.context
    line = f", line {context['line']}" if context.get("line") else ""
    machine = f", of {printable(context['machine'])}" if context.get("machine") else ""
    state = rejection.resolution or "open"
    click.echo(f"Rejection {rejection.id} from {printable(rejection.source)}{line}{machine}: {state}")
    for error in rejection.errors:
        click.echo(f"  {printable(': '.join(filter(None, (error['field'], error['message']))), most=REASON_SHOWN)}")
    text = domain.payload_text(rejection)
    for line in text[:PAYLOAD_SHOWN].splitlines():
        click.echo(printable(line, most=PAYLOAD_SHOWN))
    if len(text) > PAYLOAD_SHOWN:
        click.echo(f"… and {len(text) - PAYLOAD_SHOWN:,} more characters; --json has all", err=True)


@rejections.command()
@click.argument("rejection_ids", type=ID, nargs=-1, metavar="ID...", help="Ids of rejected records.")
@click.option("--all", "everything", is_flag=True, help="Every open one.")
@click.option(
    "--patient", metavar="U", help="With IDs: whose they are, whatever they say. Alone: those that wait for U."
)
@as_json
@pass_app
def retry(app: App, rejection_ids: tuple[int, ...], everything: bool, patient: str | None) -> None:
    """Try again to store rejected records, after the cause of their errors has changed.

    Exit 1 if one is still rejected.
    """
    from myhealth.intake.retry import find_waiting, retry_rejection  # these load all that reads records

    if patient is not None and everything:
        raise click.UsageError("--patient goes with IDs or alone, not with --all")
    done = Progress(everything)
    with app.database() as settings, contextlib.ExitStack() as stack:
        user = None if patient is None else services.get_user(patient)
        found = find_waiting(user) if user and not rejection_ids else chosen(rejection_ids, everything)
        options: dict[str, Any] = {"own_authorities": settings.intake.folded_authorities}
        if user and rejection_ids:
            options["patient"] = user.username
        for rejection_id in stack.enter_context(done.counting(found)):
            try:
                outcome = retry_rejection(rejection_id, **options)
            except Conflict as error:
                if not everything:
                    raise
                click.echo(f"{rejection_id}: {error.message}", err=True)  # another command was quicker
                continue
            if outcome.status == "rejected":
                text = f"{rejection_id}: still rejected: {first_reason(outcome.errors, most=REASON_SHOWN)}"
                done.tell("still rejected", text, id=rejection_id, errors=outcome.errors)
            else:
                what = f"check-up {outcome.id}" if outcome.id else printable(outcome.warnings[0]["message"])
                done.tell(
                    outcome.status, f"{rejection_id}: {outcome.status}, {what}", id=rejection_id, checkup_id=outcome.id
                )
    done.sum_up()
    if done.counts["still rejected"]:
        click.get_current_context().exit(1)


@rejections.command("discard")
@click.argument("rejection_ids", type=ID, nargs=-1, metavar="ID...", help="Ids of rejected records.")
@click.option("--all", "everything", is_flag=True, help="Every open one.")
@click.option("--reason", default="", help="The reason, stored with the record.")
@click.option("--erase", is_flag=True, help="Remove the content of the records, also of resolved ones.")
@click.option("--patient", metavar="U", help="With --all and --erase: only records of this person.")
@click.option("--yes", is_flag=True, help="Do not ask before all of them are discarded.")
@as_json
@pass_app
def rejections_discard(
    app: App, rejection_ids: tuple[int, ...], everything: bool, reason: str, erase: bool, patient: str | None, yes: bool
) -> None:
    """Resolve rejected records without storing them.

    They are not retried any more, and are deleted after retention.rejections_days; --erase removes their content now.
    """
    from myhealth.privacy.erasure import erase_rejection, find_rejections_of

    if patient is not None and not (everything and erase):
        raise click.UsageError("--patient goes with --all --erase")
    done = Progress(everything)
    with app.database():
        ids = chosen(rejection_ids, everything) if patient is None else find_rejections_of(patient).certain
        if everything and ids and not yes:
            confirm(f"{'Erase' if erase else 'Discard'} {plural(len(ids), 'rejected record')}?")
        with done.counting(ids) as counted:
            for rejection_id in counted:
                if erase:
                    erase_rejection(rejection_id)
                else:
                    domain.discard(rejection_id, reason)
                what = "erased" if erase else "discarded"
                done.tell(what, f"{rejection_id}: {what}", id=rejection_id)
    done.sum_up()


class Progress:
    """Print the result of each rejected record. With `everything`, print only the first ones of each status, a progress
    bar and a summary; JSON has all results."""

    def __init__(self, everything: bool) -> None:
        self.everything = everything
        self.counts: Counter[str] = Counter()
        self.items: list[dict[str, Any]] = []

    @contextlib.contextmanager
    def counting(self, ids: Sequence[int]) -> Iterator[Iterable[int]]:
        if not self.everything or len(ids) <= SHOWN_MAX or not sys.stderr.isatty():
            yield ids
            return
        with click.progressbar(ids, label="Rejected records", file=sys.stderr) as bar:
            yield bar

    def tell(self, status: str, line: str, **facts: Any) -> None:
        self.counts[status] += 1
        if is_json():
            self.items.append({**facts, "status": status})
        elif not self.everything or self.counts[status] <= SHOWN_MAX:
            click.echo(line)

    def sum_up(self) -> None:
        if is_json():
            print_json(self.items)
        elif self.everything:
            counts = ", ".join(f"{count:,} {status}" for status, count in self.counts.items())
            click.echo(f"{plural(self.counts.total(), 'rejected record')}: {counts}." if counts else "There is none.")


def chosen(rejection_ids: tuple[int, ...], everything: bool) -> list[int]:
    if bool(rejection_ids) == everything:
        raise BadInput("name the rejections by id" + (", or all of them with --all, not both" if everything else ""))
    return domain.open_ids() if everything else list(rejection_ids)


def first_reason(errors: list[dict[str, Any]], most: int = 80) -> str:
    first = errors[0] if errors else {"field": None, "message": ""}
    more = f" (+{len(errors) - 1})" if len(errors) > 1 else ""
    return printable(": ".join(filter(None, (first["field"], first["message"]))), most=most) + more


def rejection_row(rejection: Rejection) -> dict[str, Any]:
    names = ("id", "received_at", "source", "context", "errors", "times", "resolved_at", "resolution", "checkup_id")
    return {name: getattr(rejection, name) for name in names}
