"""Register and list machines."""

import unicodedata
from collections.abc import Mapping, Set
from functools import lru_cache
from typing import Any

from peewee import EXCLUDED, fn

from myhealth.audit.events import record_event
from myhealth.common.database import fetch_all, transaction
from myhealth.common.errors import BadInput, NotFound
from myhealth.common.text import printable, unstorable_fault
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
    with transaction():
        before = find_machine(serial)
        serial = before.serial if before else serial
        insert = Machine.insert({Machine.serial: serial, **labels})
        insert.on_conflict(conflict_target=[Machine.serial], update=update).execute()
        machine: Machine = Machine.get(Machine.serial == serial)
        changed = [field.name for field in labels if getattr(machine, field.name) != getattr(before, field.name, None)]
        if changed or before is None:
            record_event("machine.change", machine=serial, changed=changed)
    return machine


# Of several new serials that differ in case, the first stands for all.
ALIKE = """
select wanted.serial, coalesce(min(machines.serial), min(wanted.serial) over (partition by lower(wanted.serial)))
from unnest(%s::text[]) as wanted (serial) left join machines on lower(machines.serial) = lower(wanted.serial)
where not exists (select from machines where machines.serial = wanted.serial)
group by wanted.serial having count(machines.id) <= 1"""
FIND = "select serial, id from machines where serial = any(%s)"
ADD = "insert into machines (serial) select unnest(%s) on conflict do nothing returning serial, id"


def known_serials(cursor: Any, serials: Set[str | None]) -> dict[str | None, str]:
    """Return the serial of the machine for each serial that is not stored as it is written. Left out is one that
    several machines have in another case."""
    wanted = sorted(filter(None, serials))
    return dict(fetch_all(cursor, ALIKE, (wanted,))) if wanted else {}


def known_machines(cursor: Any, serials: Set[str | None]) -> dict[str | None, int | None]:
    """Return the id of the machine of each serial, as `known_serials` has it; register those that are not registered
    yet. No serial is no machine."""
    found: dict[str | None, int | None] = {None: None}
    for statement in (FIND, ADD, FIND):
        if missing := sorted(filter(None, serials - found.keys())):
            found.update(fetch_all(cursor, statement, (missing,)))
    return found


def find_machine(serial: str) -> Machine | None:
    with transaction() as cursor:
        return Machine.get_or_none(Machine.serial == known_serials(cursor, {serial}).get(serial, serial))


def get_machine(serial: str) -> Machine:
    """Return a machine by its serial. Raises NotFound."""
    machine = find_machine(serial)
    if machine is None:
        raise NotFound(f"there is no machine {printable(serial)}")
    return machine


def list_machines() -> list[Machine]:
    with transaction():
        return list(Machine.select().order_by(Machine.serial))


TESTS_MAX = 2000  # of one machine
TEXT_MAX = 500  # characters, as of a result's name
ANY_UNIT = ""
NO_KEY: Any = "FOR NO KEY UPDATE"  # so that check-ups of the machine can be stored meanwhile
# By the name of a test, or its code in another system, and by the unit, ANY_UNIT for all others: the LOINC code.
Codes = Mapping[str, Mapping[str, str]]


def mapped_code(codes: Codes, result: Mapping[str, Any]) -> str | None:
    """Return the LOINC code that a machine's codes give to a result without one, None if they give none."""
    unit = result.get("unit") or result.get("unit_text") or ANY_UNIT
    for test in (result.get("other_code"), result.get("name")):
        by_unit = codes.get(test, {}) if isinstance(test, str) else {}
        if code := (isinstance(unit, str) and by_unit.get(unit)) or by_unit.get(ANY_UNIT):
            return code
    return None


def map_test(serial: str, test: str, unit: str, code: str | None) -> str:
    """Store the LOINC code of a test that a machine sends without one; with None, forget it. Return the machine's
    serial as it is stored. Adds an audit event.

    Raises NotFound for an unknown machine, or if there is nothing to forget; BadInput for a text that no result can
    have, or beyond TESTS_MAX tests.
    """
    for name, text in (("test", test), ("unit", unit)):
        if len(text) > TEXT_MAX or unstorable_fault(text) or (name == "test" and not text.strip()):
            raise BadInput(f"{name} must be text of at most {TEXT_MAX} characters, as a result has it")
    with transaction():
        serial = get_machine(serial).serial
        machine = Machine.select().where(Machine.serial == serial).for_update(NO_KEY).get()
        codes = {name: {**by_unit} for name, by_unit in (machine.codes or {}).items()}
        if code is not None:
            codes.setdefault(test, {})[unit] = code
        elif codes.get(test, {}).pop(unit, None) is None:
            raise NotFound(f"no code is stored for {printable(test)}{unit and f' in {printable(unit)}'}")
        codes = {name: by_unit for name, by_unit in codes.items() if by_unit}
        if len(codes) > TESTS_MAX:
            raise BadInput(f"a machine has codes for at most {TESTS_MAX} tests")
        if codes != (machine.codes or {}):
            Machine.update({Machine.codes: codes or None}).where(Machine.id == machine.id).execute()
            record_event("machine.change", machine=serial, changed=["codes"])
    return serial
