"""All formats of input. To add one, write its module and name it here.

The readers of HL7 v2, FHIR and tables are loaded for the first such source: they take longer than a small dump. The one
of a machine-memory dump is here: an object with the machine and a list named `records`.

    {"format": "myhealth.machine-memory/1", "machine": {"serial": "HC-2031-0007"}, "records": [...]}

`format` may be missing; `machine` may be the serial alone, and may follow the records if the source can be read twice.
`dumped_at`, when the machine wrote the dump, changes nothing: each record has its own moment.
"""

import json
import re
import sys
from collections.abc import Iterator
from datetime import UTC, tzinfo
from importlib import import_module
from operator import attrgetter
from typing import Any, BinaryIO

from myhealth.common.errors import BadInput
from myhealth.common.text import printable
from myhealth.intake.formats.format import ONE_A_LINE, Dump, Format, RejectedLayout, encode_raw, reread_json
from myhealth.intake.formats.json_reader import (
    RECORD_MAX,
    JsonBuffer,
    read_list,
    read_members,
    read_values,
    require_end,
    truncation,
)
from myhealth.intake.formats.source import REQUIRED_NAMES, Source
from myhealth.intake.formats.tables.layout import GUESSED, Layout
from myhealth.intake.parsed_record import DuplicateKeyDict, ParsedRecord, is_utf8
from myhealth.machines.services import label_fault, serial_fault

NOTICES_MAX = 20
LABELS = ("model", "firmware", "site")
MEMORY_FORMAT = "myhealth.machine-memory/1"


def detect_memory(source: Source) -> bool:
    """Return whether the source is a dump. An object that cannot be decoded and has no field of a record counts as one:
    it may be a long or a malformed dump."""
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
        elif name not in ("format", "dumped_at"):
            _tell_unread(dump, f"line {line}: {printable(name, 60)} is not read")
    if not rest:
        raise BadInput("the dump has no records: an object with a list named records is expected")
    return named


def _describe_machine(value: Any, line: int, dump: Dump) -> None:
    described = {"serial": value} if isinstance(value, str) else value
    if not isinstance(described, dict):
        raise BadInput(f"line {line}: machine must be an object with a serial")
    if isinstance(described, DuplicateKeyDict):
        raise BadInput(f"line {line}: machine.{printable(described.name, 60)} occurs twice")
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
    """Add a notice of an unknown member, once: the header may be read twice."""
    if notice not in dump.notices and len(dump.notices) < NOTICES_MAX:
        dump.notices.append(notice)


def write_rejected(dump: Dump) -> RejectedLayout:
    machine = json.dumps(dump.machine, ensure_ascii=False)
    before = f'{{"format": "{MEMORY_FORMAT}", "machine": {machine}, "records": [\n'
    return RejectedLayout(before.encode(), b",\n", b"\n]}\n", encode_raw)


MEMORY = Format(
    "memory",
    "application/json",
    detect=detect_memory,
    read=read_memory,
    write_rejected=write_rejected,
    reread=reread_json,
    has_record_numbers=True,
)


HL7_START = re.compile(rb"(?:\xef\xbb\xbf)?\s*\x0b?\s*(MSH|FHS|BHS)[^\w\s]")


def _reader(package: str) -> Any:
    return import_module(f"myhealth.intake.formats.{package}.reader")


def _read_json_list(source: Source, dump: Dump) -> Iterator[ParsedRecord]:
    window = JsonBuffer(source.stream())
    yield from read_list(window)
    require_end(window)


def _read_ndjson(source: Source, dump: Dump) -> Iterator[ParsedRecord]:
    window = JsonBuffer(source.stream())
    yield from read_values(window)
    dump.truncated = truncation(window)


def _read_json_object(source: Source, dump: Dump) -> Iterator[ParsedRecord]:
    start = source.json_start
    if start.alone and sys.getsizeof(start.text) <= RECORD_MAX:
        yield ParsedRecord(0, start.line, start.text)
        return
    window = JsonBuffer(source.stream())
    yield window.read_record(0, scan=True)
    require_end(window)
    dump.truncated = truncation(window)


HL7 = Format(
    "hl7",
    "application/hl7-v2",
    detect=lambda source: bool(HL7_START.match(source.head())),
    read=lambda source, dump: _reader("hl7v2").read_hl7(source.stream(), dump),
    # the text of a message includes its line ends
    write_rejected=lambda dump: RejectedLayout(b"", b"", b"", encode_raw),
    has_record_numbers=True,
)
FHIR = Format(
    "fhir",
    "application/json",
    # no resource has a list named records: that is a dump
    detect=lambda source: "resourceType" in source.json_start.names and "records" not in source.json_start.names,
    read=lambda source, dump: _reader("fhir").read_fhir(JsonBuffer(source.stream()), dump),
    write_rejected=lambda dump: ONE_A_LINE,
    has_record_numbers=True,
    shares_results=True,
)
# A list of check-up records, each with its machine if it has one.
LIST = Format(
    "list",
    "application/json",
    detect=lambda source: source.json_start.first == "[",
    read=_read_json_list,
    write_rejected=lambda dump: RejectedLayout(b"[\n", b",\n", b"\n]\n", encode_raw),
    reread=reread_json,
)
# A single check-up record: what today's clients post.
OBJECT = Format(
    "object",
    "application/json",
    detect=attrgetter("json_start.alone"),
    read=_read_json_object,
    write_rejected=lambda dump: ONE_A_LINE,
    reread=reread_json,
    is_single=True,
)
# One record after another, usually each on a line of its own (github.com/ndjson/ndjson-spec).
NDJSON = Format(
    "ndjson",
    "application/x-ndjson",
    detect=lambda source: source.json_start.first == "{",
    read=_read_ndjson,
    write_rejected=lambda dump: ONE_A_LINE,
    reread=reread_json,
)
# Each row of a table, or each group of rows with one number.
CSV = Format(
    "csv",
    "text/csv",
    detect=lambda source: _reader("tables").is_table(source),
    read=lambda source, dump: _reader("tables").read_table(source, dump),
    write_rejected=lambda dump: _reader("tables").write_rejected_rows(dump),
    has_record_numbers=True,
)
# They are asked in this order whether a source is theirs: special formats before general ones.
FORMATS: list[Format] = [HL7, FHIR, LIST, MEMORY, OBJECT, NDJSON, CSV]


def format_names() -> list[str]:
    return [each.name for each in FORMATS]


def get_format(name: str) -> Format:
    """Return the format of this name; OBJECT for any other name, such as that of an old rejection without one."""
    for each in FORMATS:
        if each.name == name:
            return each
    return OBJECT


HL7_REST = re.compile(rb"(?:\xef\xbb\xbf)?\s*(SFT|EVN|PID|PV1|ORC|OBR|OBX)[|][^\r\n]*[|]")
NO_TABLE = re.compile(r"\s*(?:MSH|[FB]HS)[^\w\s]")  # HL7 v2, which would be a table in UTF-16
UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")
BOM = b"\xef\xbb\xbf"


def read_dump(
    source: BinaryIO,
    *,
    format: str = "",
    machine: str = "",
    max_bytes: int = 0,
    zone: tzinfo = UTC,
    include_training: bool = False,
    layout: Layout = GUESSED,
    patient_given: bool = False,
) -> Dump:
    """Open a source in any of FORMATS, gzipped or not; its records are read as they are iterated.

    `format`: the name of a format, to force it. `machine`: the serial, for a source that names none. `max_bytes`: raise
    TooLarge beyond so many unpacked bytes (0: no bound). `zone`: the zone of moments that name none.
    `include_training`: also read messages for training or debugging. `layout`: of a table; `patient_given`: whether its
    patient is known otherwise.
    Memory does not grow with the source, except for a FHIR Bundle, which is read whole.

    Raises BadInput if the source is empty, in no known format, or of another machine than `machine`.
    """
    error = serial_fault(machine) if machine else ""
    if error:
        raise BadInput(error)
    opened = Source(source, max_bytes)
    if not opened.head().removeprefix(BOM).strip():
        raise BadInput("the file is empty")
    dump = Dump(get_format(format) if format else detect_format(opened), {"serial": machine} if machine else {}, zone)
    dump.include_training, dump.layout, dump.patient_given = include_training, layout, patient_given
    dump.records = dump.format.read(opened, dump)
    return dump


def detect_format(source: Source) -> Format:
    """Return the first format of the registry that knows the source. Raises BadInput if none does."""
    head = source.head()
    if found := HL7_REST.match(head):
        raise BadInput(f"it is HL7 v2, but begins with {found[1].decode()}: a message begins with MSH")
    is_utf16 = head.startswith(UTF16_BOMS)
    if not (is_utf16 and NO_TABLE.match(head.decode("utf-16", "ignore"))):
        for each in FORMATS:
            if each.detect(source):
                return each
    if is_utf16:
        raise BadInput("it is UTF-16; save it as UTF-8")
    if b"\0" in head:
        raise BadInput("it is a binary file; JSON, HL7 v2, tables and gzip are read")
    start = head.removeprefix(BOM).lstrip(b" \t\r\n")
    line = 1 + head[: len(head) - len(start)].count(b"\n")
    if start.startswith(b"<"):
        raise BadInput(f"line {line}: it is XML; FHIR is read as JSON")
    text = start.decode("utf-8", "surrogateescape")[:20]
    shown = ascii(text) if is_utf8(text) else repr(text.encode("utf-8", "surrogateescape"))
    raise BadInput(f"line {line}: it is neither JSON, HL7 v2, a table nor gzip; it begins with {shown}")
