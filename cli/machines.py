"""myhealth machines"""

from __future__ import annotations

import click

from cli.context import App, pass_app
from cli.output import as_json, print_json, print_table
from myhealth.machines import services

COLUMNS = ("serial", "model", "site", "firmware", "last_upload_at")


@click.group()
def machines() -> None:
    """List and register machines.

    A machine that sends records is registered by itself; registering one says what it is and where it stands.
    """


@machines.command("list")
@as_json
@pass_app
def list_(app: App, as_json: bool) -> None:
    """List machines by serial, with the time of their last upload (to the minute)."""
    with app.database():
        rows = [{name: getattr(machine, name) for name in COLUMNS} for machine in services.list_machines()]
    if as_json:
        print_json(rows)
    else:
        print_table([list(row.values()) for row in rows], COLUMNS)


@machines.command()
@click.argument("serial", help="The machine's serial number.")
@click.option("--model", help="What kind of machine it is.")
@click.option("--site", help="Where it stands.")
@click.option("--firmware", help="Its software's version.")
@pass_app
def register(app: App, serial: str, model: str | None, site: str | None, firmware: str | None) -> None:
    """Make a machine known, or bring what is known of it up to date."""
    with app.database():
        machine = services.register_machine(serial, model=model, site=site, firmware=firmware)
    click.echo(f"Registered {machine.serial} (id {machine.id}).")
