"""myhealth migrate"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from cli.context import App, pass_app
from cli.output import as_json, cell_text, confirm, is_json, print_json, print_table, tell
from myhealth import grants as rights
from myhealth import stores

if TYPE_CHECKING:
    from myhealth.common.settings import Settings

DONE = "applied"


@click.command("migrate")
@click.option(
    "--status", is_flag=True, help="Only list what both stores have and lack; exit 1 if anything would change."
)
@click.option("--check", is_flag=True, help="The same without a list: print nothing.")
@click.option(
    "--to", type=click.IntRange(min=0), metavar="N", help="Go to migration N, up or down; 0 empties the database."
)
@click.option("--upload-role", metavar="NAME", help="Afterwards grant this role what the upload API and commands need.")
@click.option("--sync-role", metavar="NAME", help="Afterwards grant this role what the sync needs.")
@click.option(
    "--grants", is_flag=True, help="Only grant, and keep data out of PostgreSQL's log, for these roles and our own."
)
@click.option("--yes", is_flag=True, help="Do not ask before a migration is reverted.")
@as_json
@pass_app
def migrate_command(
    app: App, /, status: bool, check: bool, to: int | None, grants: bool, yes: bool, **named: str | None
) -> None:
    """Bring the stores' schema up to date.

    Migrates PostgreSQL's tables and triggers, each migration in a transaction of its own, and makes MongoDB's indexes.
    It may run while the programs of the release before and of this one are at work: each step waits until nobody has
    used the tables for longer than a second, and names who has; after ten minutes of that it ends with 75, and the next
    run goes on. Two runs at once are safe. Going down deletes the data of the tables that a migration made. Exit 78 if
    the schema is newer than this program. With an embedded PostgreSQL, every other command migrates up again.
    """
    if grants and (status or check or to is not None):
        raise click.UsageError("--grants goes with none of --status, --check and --to")
    settings, roles = app.settings(), {kind: role for kind in rights.RIGHTS if (role := named[f"{kind}_role"])}
    stores.bind_database(settings)
    try:
        if grants:
            statements = [*grant_all(roles), *rights.keep_data_out_of_the_log(roles.values())]
            text = "\n".join([*statements, "PostgreSQL's log gets no data from failing statements."])
            tell(text, {"sql": statements})
        elif status or check:
            with app.reports(settings) as reports:
                found = [*planned(to), *((name, "missing") for name in reports.missing_indexes())]
            if is_json():
                print_json([{"name": name, "state": state} for name, state in found])
            elif status:
                print_table(found, ("", ""))
            click.get_current_context().exit(int(any(not state.startswith(DONE) for _, state in found)))
        else:
            steps = go_to(app, settings, to, yes)
            statements = grant_all(roles)
            reached = "The schema is up to date." if to is None else f"The schema is at migration {to}."
            text = "\n".join([*(f"{change} {name}" for change, name in steps), reached, *statements])
            tell(text, {"steps": [{"name": name, "state": change} for change, name in steps], "sql": statements})
    finally:
        stores.close_database()


def grant_all(roles: Mapping[str, str]) -> list[str]:
    """Grant roles, by their kind, what they need; return the SQL."""
    return [statement for kind, role in roles.items() for statement in rights.grant(kind, role)]


def go_to(app: App, settings: Settings, to: int | None, yes: bool) -> list[tuple[str, str]]:
    """Migrate, and make the report store's indexes; return the steps. Asks before one is reverted, unless `yes`."""
    reverted = [name for name, state in planned(to) if state == "would be reverted"]
    if reverted and not yes:
        confirm(f"This reverts {', '.join(reverted)} and deletes their data. Go on?")
    steps = stores.migrate(settings, to, show_step if sys.stderr.isatty() else lambda name: None)
    with app.reports(settings) as reports:
        reports.make_indexes()
    return steps


def show_step(name: str) -> None:
    click.echo(f"{name} …", err=True)


def planned(to: int | None) -> list[tuple[str, str]]:
    """Return each migration that is applied, or would be, with its state. Raises SchemaMismatch if one is unknown."""
    found = []
    for row in stores.migrations():
        if row.applied and to is not None and row.idx > to:
            found.append((row.name, "would be reverted"))
        elif row.applied:
            found.append((row.name, f"{DONE} {cell_text(row.applied)}"))
        elif to is None or row.idx <= to:
            found.append((row.name, "pending"))
    return found
