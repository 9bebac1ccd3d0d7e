"""Register and list machines."""

import unicodedata
from functools import lru_cache
from typing import Any

from peewee import EXCLUDED, fn

from myhealth.audit.events import record_event
from myhealth.common.database import transaction
from myhealth.common.errors import BadInput
from myhealth.machines.models import Machine

SERIAL_MAX = 200


def serial_fault(serial: Any) -> str:
    """Return why this cannot be a machine's serial, "" if it can."""
    return _serial_fault(serial) if isinstance(serial, str) else "a machine's serial is needed"


@lru_cache(maxsize=256)  # every record of a list names its machine
def _serial_fault(serial: str) -> str:
    if not serial.strip():
        return "a machine's serial is needed"
    if len(serial) > SERIAL_MAX:
        return f"the serial has {len(serial)} characters; at most {SERIAL_MAX} are allowed"
    if serial != serial.strip() or "/" in serial:
        return "the serial begins or ends with a space, or contains a /"
    if any(unicodedata.category(character)[0] == "C" for character in serial):
        return "the serial contains a control character"
    return ""


def label_fault(label: Any) -> str:
    """Return why this cannot be a machine's model, site or firmware, "" if it can."""
    if not isinstance(label, str) or len(label) > SERIAL_MAX:
        return f"must be text of at most {SERIAL_MAX} characters"
    return "contains a control character" if any(unicodedata.category(c)[0] == "C" for c in label) else ""


def register_machine(
    serial: str,
    *,
    model: str | None = None,
    site: str | None = None,
    firmware: str | None = None,
    layout: str | None = None,
) -> Machine:
    """Register a machine, or update its labels, with an audit event; a label that is None remains as it was. `layout`:
    of its tables, which must be valid.

    Raises BadInput for an invalid serial or label.
    """
    fault = serial_fault(serial)
    if fault:
        raise BadInput(fault)
    for name, value in (("model", model), ("site", site), ("firmware", firmware)):
        if value is not None and (fault := label_fault(value)):
            raise BadInput(f"{name} {fault}")
    labels = {Machine.model: model, Machine.site: site, Machine.firmware: firmware, Machine.layout: layout}
    update = {field: fn.coalesce(getattr(EXCLUDED, field.name), field) for field in labels}
    insert = Machine.insert({Machine.serial: serial, **labels})
    with transaction():
        before = Machine.get_or_none(Machine.serial == serial)
        insert.on_conflict(conflict_target=[Machine.serial], update=update).execute()
        machine: Machine = Machine.get(Machine.serial == serial)
        changed = [field.name for field in labels if getattr(machine, field.name) != getattr(before, field.name, None)]
        if changed or before is None:
            record_event("machine.change", machine=serial, changed=changed)
    return machine


def find_machine(serial: str) -> Machine | None:
    with transaction():
        return Machine.get_or_none(Machine.serial == serial)


def list_machines() -> list[Machine]:
    with transaction():
        return list(Machine.select().order_by(Machine.serial))
