"""A machine-memory dump: an object with the machine and a list named `records`.

    {"format": "myhealth.machine-memory/1", "machine": {"serial": "HC-2031-0007"}, "records": [...]}

`format` may be missing; `machine` may be the serial alone, and may follow the records if the source can be read twice.
"""

import json
from collections.abc import Iterator
from typing import Any

from myhealth.common.errors import BadInput
from myhealth.common.text import printable
from myhealth.intake.formats.format import Dump, Format, RejectedLayout, encode_raw, reread_json
from myhealth.intake.formats.json_reader import JsonBuffer, read_list, read_members, require_end
from myhealth.intake.formats.source import REQUIRED_NAMES, Source
from myhealth.intake.parsed_record import ParsedRecord
from myhealth.machines.services import label_fault, serial_fault

NOTICES_MAX = 20
LABELS = ("model", "firmware", "site")
MEMORY_FORMAT = "myhealth.machine-memory/1"


def detect(source: Source) -> bool:
    """An object that cannot be decoded and has no name of a record is taken for a dump that is long or broken."""
    start = source.json_start
    if start.first != "{":
        return False
    if start.names & {"records", "format"}:
        return True
    return not (start.whole or start.by_line or start.names & REQUIRED_NAMES)


def read_memory(source: Source, dump: Dump) -> Iterator[ParsedRecord]:
    """Return the records of a dump; the machine is known before the first of them.

    Raises BadInput if no machine is named, or another one than `dump.machine` names already.
    """
    window = JsonBuffer(source.stream())
    members = read_members(window)
    named = _read_header(members, window, dump)
    if not named and source.seekable():  # the machine may follow the records
        for _ in read_list(window):
            pass
        _read_header(members, window, dump, rest=True)
        window = JsonBuffer(source.rewound().stream())
        members = read_members(window)
        _read_header(members, window, dump)
    if dump.serial is None:
        raise BadInput("the dump does not say which machine it is of", hint="name it: --machine SERIAL")
    return _read_records(members, window, dump)


def _read_records(members: Iterator[tuple[str, int]], window: JsonBuffer, dump: Dump) -> Iterator[ParsedRecord]:
    yield from read_list(window)
    _read_header(members, window, dump, rest=True)
    require_end(window)


def _read_header(members: Iterator[tuple[str, int]], window: JsonBuffer, dump: Dump, *, rest: bool = False) -> bool:
    """Read the members before the records, or the `rest` after them; return whether the machine was among them.

    Raises BadInput naming the line.
    """
    named = False
    for name, line in members:
        if name == "records":
            if rest:
                raise BadInput(f"line {line}: the dump has two lists named records")
            return named
        value = window.read_value()
        if name == "format" and value != MEMORY_FORMAT:
            raise BadInput(f"line {line}: format {value!r} is not known; this program reads {MEMORY_FORMAT!r}")
        if name == "machine":
            _describe_machine(value, line, dump)
            named = True
        elif name != "format":
            _tell_unread(dump, f"line {line}: {printable(name, 60)} is not read")
    if not rest:
        raise BadInput("the dump has no records: an object with a list named records is expected")
    return named


def _describe_machine(value: Any, line: int, dump: Dump) -> None:
    described = {"serial": value} if isinstance(value, str) else value
    if not isinstance(described, dict):
        raise BadInput(f"line {line}: machine must be an object with a serial")
    serial = described.get("serial")
    if serial is not None or dump.serial is None:
        fault = serial_fault(serial)
        if fault:
            raise BadInput(f"line {line}: machine.serial: {fault}")
        if dump.serial not in (None, serial):
            raise BadInput(f"line {line}: the dump is of the machine {serial}, not of {dump.serial}")
        dump.machine["serial"] = str(serial)
    for name in described.keys() - {"serial", *LABELS}:
        _tell_unread(dump, f"line {line}: machine.{printable(name, 60)} is not read")
    for name in LABELS:  # for people: a bad one rejects no record
        label = described.get(name)
        text = str(label) if isinstance(label, (str, int, float)) else ""
        if text and not label_fault(text):
            dump.machine[name] = text


def _tell_unread(dump: Dump, notice: str) -> None:
    """Tell of a member that is not known, once: the header may be read twice."""
    if notice not in dump.notices and len(dump.notices) < NOTICES_MAX:
        dump.notices.append(notice)


def write_rejected(dump: Dump) -> RejectedLayout:
    machine = json.dumps(dump.machine, ensure_ascii=False)
    before = f'{{"format": "{MEMORY_FORMAT}", "machine": {machine}, "records": [\n'
    return RejectedLayout(before.encode(), b",\n", b"\n]}\n", encode_raw)


MEMORY = Format(
    "memory",
    "application/json",
    detect=detect,
    read=read_memory,
    write_rejected=write_rejected,
    reread=reread_json,
    has_record_numbers=True,
)
