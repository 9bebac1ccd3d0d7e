"""Registering and listing machines."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import Any

from myhealth.common.database import transaction
from myhealth.common.errors import BadInput
from myhealth.machines.models import Machine

SERIAL_MAX = 200


def serial_fault(serial: Any) -> str:
    """Why this cannot be a machine's serial, or nothing."""
    return _serial_fault(serial) if isinstance(serial, str) else "a machine's serial is needed"


@lru_cache(maxsize=256)  # every record of a list names its machine
def _serial_fault(serial: str) -> str:
    if not serial.strip():
        return "a machine's serial is needed"
    if len(serial) > SERIAL_MAX:
        return f"the serial has {len(serial)} characters; at most {SERIAL_MAX} are allowed"
    if serial != serial.strip() or "/" in serial:
        return "the serial begins or ends with a space, or holds a /"
    if any(unicodedata.category(character)[0] == "C" for character in serial):
        return "the serial holds a control character"
    return ""


def label_fault(label: Any) -> str:
    """Why this cannot be what a machine is called, where it stands or what it runs, or nothing."""
    if not isinstance(label, str) or len(label) > SERIAL_MAX:
        return f"must be text of at most {SERIAL_MAX} characters"
    return "holds a control character" if any(unicodedata.category(c)[0] == "C" for c in label) else ""


def register_machine(
    serial: str, *, model: str | None = None, site: str | None = None, firmware: str | None = None
) -> Machine:
    """Makes a machine known, or brings what is known of it up to date; what is None stays as it was.

    Raises BadInput for a serial that cannot be one.
    """
    fault = serial_fault(serial)
    if fault:
        raise BadInput(fault)
    for name, value in (("model", model), ("site", site), ("firmware", firmware)):
        if value is not None and (fault := label_fault(value)):
            raise BadInput(f"{name} {fault}")
    with transaction() as cursor:
        cursor.execute(
            "insert into machines (serial, model, site, firmware) values (%s, %s, %s, %s) on conflict (serial)"
            " do update set model = coalesce(excluded.model, machines.model),"
            " site = coalesce(excluded.site, machines.site),"
            " firmware = coalesce(excluded.firmware, machines.firmware)",
            (serial, model, site, firmware),
        )
        return Machine.get(Machine.serial == serial)


def list_machines() -> list[Machine]:
    """Every machine, by serial."""
    with transaction():
        return list(Machine.select().order_by(Machine.serial))
