"""The layout that was chosen for the tables of a machine."""

from msgspec.structs import replace

from myhealth.intake.formats.format import Dump
from myhealth.intake.formats.registry import CSV
from myhealth.intake.formats.tables.layout import Layout, dump_layout, parse_layout
from myhealth.machines.services import find_machine, register_machine


def use_layout_of_machine(dump: Dump) -> None:
    """Give a table that came without a layout that of its machine, if it has one."""
    asked = dump.layout
    if dump.format is not CSV or dump.serial is None or asked.is_given or asked.kind:
        return
    machine = find_machine(dump.serial)
    if machine is not None and machine.layout:
        layout = parse_layout(machine.layout)
        named = {name: value for name in ("date_format", "encoding", "zone") if (value := getattr(asked, name))}
        dump.layout = replace(layout, **named)


def remember_layout(serial: str, layout: Layout) -> None:
    """Keep a layout for the tables of a machine. Raises BadInput for an invalid serial."""
    register_machine(serial, layout=dump_layout(layout))
