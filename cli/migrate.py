"""myhealth migrate"""

from typing import Any

import click

from cli.context import App, pass_app
from cli.output import confirm
from myhealth import stores


@click.command()
@click.option("--status", is_flag=True, help="Only list the migrations; exit 1 if one is pending.")
@click.option(
    "--to", type=click.IntRange(min=0), metavar="N", help="Go to migration N, up or down; 0 empties the database."
)
@click.option(
    "--grants", is_flag=True, help="Only keep data out of PostgreSQL's log: ALTER ROLE for the role of database_url."
)
@click.option("--yes", is_flag=True, help="Do not ask before a migration is reverted.")
@pass_app
def migrate(app: App, status: bool, to: int | None, grants: bool, yes: bool) -> None:
    """Bring the stores' schema up to date.

    Migrates PostgreSQL's tables and triggers, each migration in a transaction of its own, and makes MongoDB's indexes.
    Two runs at once are safe. Going down deletes the data of the tables that a migration made. With an embedded
    PostgreSQL, every other command migrates up again.
    """
    if status + grants + (to is not None) > 1:
        raise click.UsageError("--status, --grants and --to exclude each other")
    settings = app.settings()
    stores.bind_database(settings)
    try:
        if grants:
            for statement in stores.keep_data_out_of_the_log():
                click.echo(statement)
            click.echo("PostgreSQL's log gets no data from failing statements.")
            return
        rows = stores.migrations()
        if status:
            list_migrations(rows)
        else:
            reverted = [row.name for row in rows if row.applied and to is not None and row.idx > to]
            if reverted and not yes:
                confirm(f"This reverts {', '.join(reverted)} and deletes their data. Go on?")
            for change, name in stores.migrate(settings, to):
                click.echo(f"{change} {name}")
            with app.reports(settings) as reports:
                reports.make_indexes()
            click.echo("The schema is up to date." if to is None else f"The schema is at migration {to}.")
    finally:
        stores.close_database()


def list_migrations(rows: list[Any]) -> None:
    for row in rows:
        applied = f"applied {row.applied:%Y-%m-%d %H:%M}" if row.applied else click.style("pending", fg="yellow")
        click.echo(f"{row.name}  {applied}")
    if any(row.applied is None for row in rows):
        click.get_current_context().exit(1)
