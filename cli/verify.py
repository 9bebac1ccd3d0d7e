"""myhealth verify"""

from __future__ import annotations

import click

from cli.context import App, pass_app
from cli.output import as_json, counting, plural, print_json, print_table
from myhealth import stores
from myhealth.audit import events
from myhealth.reports import writer
from myhealth.sync import source, verify

HEADER = ("what", "kind", "id", "row's revision", "report's revision")


@click.command("verify")
@click.option("--repair", is_flag=True, help="Mend the differences. No sync may be at work meanwhile.")
@as_json
@pass_app
def verify_command(app: App, repair: bool, as_json: bool) -> None:
    """Compare both stores row by row, and mend what differs.

    Compares users and check-ups of PostgreSQL with the documents of MongoDB: ids, revisions and contents; then the
    trends that are kept there (kind trend, id of the patient) with their reports. Writers and the sync may go on; a row
    that the sync has yet to carry over is no difference. The kinds of difference: lost (no document), ghost (no row),
    stale (an older revision), altered (the row's revision with other content) and refused (MongoDB did not take it: see
    `myhealth status`). Exit 1 on a difference that is not mended, 75 if a store is unavailable.
    """
    from msgspec.structs import asdict  # help needs no msgspec

    with app.database() as settings, app.reports(settings) as reports:
        events.record_event("read", what="verify")
        growing = verify.StoreComparison()
        with counting("Rows compared", lambda: growing.rows, source.count_at_most()):
            target, rows = writer.ReportWriter(reports), settings.sync.batch_rows
            found = verify.verify(stores.database_url(settings), target, rows, repair=repair, found=growing)
    if as_json:
        figures = {"rows": found.rows, "documents": found.documents, "not_yet": found.not_yet}
        first = [{**asdict(each), "id": each.id if isinstance(each.id, int) else str(each.id)} for each in found.first]
        print_json({**figures, "differences": found.counts, "mended": found.mended, "first": first})
    else:
        show(found)
    if found.differences > found.mended:
        click.get_current_context().exit(1)


def show(found: verify.StoreComparison) -> None:
    from msgspec.structs import asdict  # help needs no msgspec

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
    if max(found.counts.values()) > verify.SHOWN:
        click.echo(f"… the first {verify.SHOWN} of each.")
    if found.differences > found.mended + found.counts.get("refused", 0):
        click.echo("Hint: `myhealth verify --repair` mends the differences.", err=True)
