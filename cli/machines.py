"""myhealth machines"""

from __future__ import annotations

import click

from cli.context import App, pass_app
from cli.output import as_json, print_records, tell, told_as_json
from myhealth.machines import services

COLUMNS = ("serial", "model", "site", "firmware", "last_upload_at")


@click.group()
def machines() -> None:
    """List and register machines.

    A machine that sends records is registered automatically; this command adds its model, site and firmware.
    """


@machines.command("list")
@as_json
@pass_app
def machines_list(app: App, as_json: bool) -> None:
    """List machines by serial, with the time of their last upload (to the minute)."""
    with app.database():
        rows = [{name: getattr(machine, name) for name in COLUMNS} for machine in services.list_machines()]
    print_records(rows, COLUMNS, as_json=as_json)


@machines.command()
@click.argument("serial", help="The machine's serial number.")
@click.option("--model", help="The machine's model.")
@click.option("--site", help="The machine's location.")
@click.option("--firmware", help="The version of its software.")
@click.option("--layout", help="What the columns of its CSV files mean, as for import-machine.")
@told_as_json
@pass_app
def register(
    app: App, serial: str, model: str | None, site: str | None, firmware: str | None, layout: str | None
) -> None:
    """Register a machine, or update its details."""
    text = None
    if layout:  # imported here: only this reads CSV
        from cli.import_machine import load_layout
        from myhealth.intake.formats.tables.layout import dump_layout

        text = dump_layout(load_layout(layout))
    with app.database():
        machine = services.register_machine(serial, model=model, site=site, firmware=firmware, layout=text)
    tell(f"Registered {machine.serial} (id {machine.id}).", {"id": machine.id, "serial": machine.serial})
