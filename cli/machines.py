"""myhealth machines"""

from __future__ import annotations

import click

from cli.context import App, pass_app
from cli.output import as_json, print_records, tell, told_as_json
from myhealth.common.errors import NotFound
from myhealth.common.text import printable
from myhealth.machines import services

COLUMNS = ("serial", "model", "site", "firmware", "last_upload_at")


@click.group()
def machines() -> None:
    """List and register machines, and what they measure without a code.

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
@click.argument("serial", required=False, help="Only of the machine with this serial number.")
@as_json
@pass_app
def unmapped(app: App, serial: str | None, as_json: bool) -> None:
    """List the tests whose results came without a LOINC code.

    They have no range of the catalogue, and a trend by their name only. The columns of a CSV file get codes by a
    layout; other files need them from the machine.
    """
    from myhealth.checkups.services import UNCODED_COLUMNS, list_uncoded_tests  # only this reads check-ups

    with app.database():
        if serial is not None and services.find_machine(serial) is None:
            raise NotFound(f"there is no machine {printable(serial)}")
        rows = list_uncoded_tests(serial)
    print_records(rows, UNCODED_COLUMNS, as_json=as_json)


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
