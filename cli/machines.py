"""myhealth machines"""

from __future__ import annotations

import click

from cli.context import App, pass_app
from cli.output import as_json, plural, print_records, tell
from myhealth.common.errors import BadInput
from myhealth.common.text import printable
from myhealth.machines import services

COLUMNS = ("serial", "model", "site", "firmware", "last_upload_at")


@click.group()
def machines() -> None:
    """List and register machines, and give codes to their tests.

    A machine that sends records is registered automatically; this command adds its model, site and firmware.
    """


@machines.command("list")
@as_json
@pass_app
def machines_list(app: App) -> None:
    """List machines by serial, with the time of their last upload (to the minute)."""
    with app.database():
        rows = [{name: getattr(machine, name) for name in COLUMNS} for machine in services.list_machines()]
    print_records(rows, COLUMNS)


@machines.command()
@click.argument("serial", required=False, help="Only of the machine with this serial number.")
@as_json
@pass_app
def unmapped(app: App, serial: str | None) -> None:
    """List the tests whose results came without a LOINC code.

    They have no range of the catalogue, and a trend by their name only. `machines map` gives them codes, or, for the
    columns of a CSV file, a layout.
    """
    from myhealth.checkups.services import UNCODED_COLUMNS, list_uncoded_tests  # only this reads check-ups

    with app.database():
        if serial is not None:
            serial = services.get_machine(serial).serial
        rows = list_uncoded_tests(serial)
    print_records(rows, UNCODED_COLUMNS)


@machines.command("map")
@click.argument("serial", help="The machine's serial number.")
@click.argument(
    "test", required=False, help="Its name, or its code of another system, as `machines unmapped` lists it."
)
@click.argument("code", required=False, help="The LOINC code, such as 2345-7.")
@click.option("--unit", default="", help="Only for results in this unit, as listed.")
@click.option("--remove", is_flag=True, help="Forget the code of this test.")
@as_json
@pass_app
def map_test(app: App, serial: str, test: str | None, code: str | None, unit: str, remove: bool) -> None:
    """Give a LOINC code to a test that a machine sends without one; without a test, list those given.

    The check-ups stay as they were sent. Their reports get the code with the next sync, earlier ones too, so that the
    test has one trend with the same test of other machines. Its range remains that of the machine.
    """
    if test is None:
        with app.database():
            codes = services.get_machine(serial).codes or {}
        rows = [{"test": name, "unit": of, "code": by_unit[of]} for name, by_unit in codes.items() for of in by_unit]
        print_records(rows, ("test", "unit", "code"))
        return
    if remove == (code is not None):
        raise click.UsageError("give the LOINC code of the test, or --remove")
    from myhealth.checkups.services import send_again  # only a change of codes needs these two
    from myhealth.clinical.coding_systems import is_loinc

    if code is not None and not is_loinc(code):
        raise BadInput(f"{printable(code)} is not a LOINC code: its form or its last digit is wrong")
    with app.database():
        serial = services.map_test(serial, test, unit, code)
        count = send_again(serial, test)
    named = printable(test) + (f" in {printable(unit)}" if unit else "")
    done = f"{named} of {serial} has the code {code}." if code else f"{named} of {serial} has no code any more."
    told = {"serial": serial, "test": test, "unit": unit, "code": code, "reports": count}
    tell(f"{done} The next sync writes {plural(count, 'report')} again.", told)


@machines.command()
@click.argument("serial", help="The machine's serial number.")
@click.option("--model", help="The machine's model.")
@click.option("--site", help="The machine's location.")
@click.option("--firmware", help="The version of its software.")
@click.option("--layout", help="What the columns of its CSV files mean, as for import-machine.")
@as_json
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
