"""Reading what a machine sent: recognises the format from the content and gives the records one by one.

Source: DESIGN.md, "A machine-memory dump".
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from typing import Any, BinaryIO

from myhealth.common.errors import BadInput, TooLarge
from myhealth.intake.formats.fhir.reader import read_fhir
from myhealth.intake.formats.hl7v2.reader import read_hl7
from myhealth.intake.formats.json_reader import (
    CHUNK_BYTES,
    JsonBuffer,
    Readable,
    read_list,
    read_members,
    read_values,
    require_end,
    top_names,
)
from myhealth.intake.parsed_record import DECODER, ParsedRecord, is_utf8
from myhealth.machines.services import label_fault, serial_fault

MEMORY_FORMAT = "myhealth.machine-memory/1"
FORMATS = ("memory", "list", "ndjson", "fhir", "hl7")
GZIP_MAGIC = b"\x1f\x8b"
HEAD_BYTES = 1024  # what it takes to tell HL7 v2 and XML from JSON
HL7_START = re.compile(rb"(?:\xef\xbb\xbf)?\s*\x0b?\s*(MSH|FHS|BHS)[^\w\s]")
XML_START = re.compile(rb"(\xef\xbb\xbf)?\s*<")


@dataclass
class Dump:
    """A source of records. `machine`: what it says of the machine itself (`serial`, `model`, `firmware`, `site`).

    `readings` gives the records in their order, and raises BadInput naming the line where the source is broken in a
    way that no further record can be found; those before it have been given by then. `skipped` counts, by kind, what
    was found so far that is no result.
    """

    format: str
    machine: dict[str, str] = field(default_factory=dict)
    readings: Iterator[ParsedRecord] = field(default_factory=lambda: iter(()))
    skipped: Counter[str] = field(default_factory=Counter)

    @property
    def serial(self) -> str | None:
        return self.machine.get("serial")


def read_dump(source: BinaryIO, *, format: str = "", machine: str = "", max_bytes: int = 0, zone: tzinfo = UTC) -> Dump:
    """The records of a source in any of FORMATS, gzipped or not.

    `format`: one of FORMATS, to force it. `machine`: the serial for a source that names none. `max_bytes`: raise
    TooLarge beyond so many bytes once unpacked (0: no bound). `zone`: what FHIR and HL7 v2 moments without one are in.
    Memory does not grow with the source, but for a FHIR Bundle, which is read whole.

    Raises BadInput where the source is empty, of no known format, or of another machine than `machine`.
    """
    fault = serial_fault(machine) if machine else ""
    if fault:
        raise BadInput(fault)
    unpacked = _Unpacked(source, max_bytes)
    head = b""
    while len(head) < HEAD_BYTES and (part := unpacked.read(CHUNK_BYTES)):
        head += part
    if not head.strip():
        raise BadInput("the file is empty")
    dump = Dump(format, machine={"serial": machine} if machine else {})
    if format == "hl7" or (not format and HL7_START.match(head)):
        dump.format = "hl7"
        dump.readings = read_hl7(_Joined(head, unpacked), zone, dump.skipped)
        return dump
    window = JsonBuffer(_Joined(head, unpacked))
    if not window.peek():
        raise BadInput("the file is empty")
    dump.format = format or detect_format(window, head)
    if dump.format == "memory":
        dump.readings = _open_memory(unpacked, window, dump)
    elif dump.format == "fhir":
        dump.readings = read_fhir(window, zone, dump.skipped)
    else:
        dump.readings = _read_list(window) if dump.format == "list" else read_values(window)
    return dump


def detect_format(window: JsonBuffer, head: bytes) -> str:
    """Which of the JSON formats the text at the window's position is. Raises BadInput where it is none."""
    first = window.peek()
    if first == "[":
        inner = window.text[window.position + 1 :].lstrip()
        return "fhir" if "resourceType" in top_names(inner[:CHUNK_BYTES]) else "list"
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise BadInput("it is UTF-16; save it as UTF-8")
    if XML_START.match(head):
        raise BadInput(f"line {window.line}: it is XML; FHIR is read as JSON")
    while True:
        start = window.text[window.position :]
        if first != "{":
            beginning = start[:20].encode("utf-8", "surrogateescape")
            shown = repr(beginning) if not is_utf8(start[:20]) else ascii(start[:20])
            raise BadInput(f"line {window.line}: it is neither JSON, HL7 v2 nor gzip; it begins with {shown}")
        try:
            value, _ = DECODER.raw_decode(start)
            if "resourceType" in value:
                return "fhir"
            return "memory" if "records" in value or "format" in value else "ndjson"
        except (json.JSONDecodeError, RecursionError):
            if len(start) >= CHUNK_BYTES or not window.more():
                break
    names = top_names(start)
    if "resourceType" in names:
        return "fhir"
    if names & {"records", "format"}:
        return "memory"
    return "ndjson" if names & {"checkup_for", "checkup_type", "checkup_report"} or "\n{" in start else "memory"


def _read_list(window: JsonBuffer) -> Iterator[ParsedRecord]:
    yield from read_list(window)
    require_end(window)


def _open_memory(source: _Unpacked, window: JsonBuffer, dump: Dump) -> Iterator[ParsedRecord]:
    """The records of a machine-memory dump, with the machine known before the first is given."""
    members = read_members(window)
    named = _read_header(members, window, dump)
    if not named and source.seekable():  # its parts may stand in any order: look behind the records
        for _ in read_list(window):
            pass
        _read_header(members, window, dump, rest=True)
        window = JsonBuffer(source.rewound())
        members = read_members(window)
        _read_header(members, window, dump)
    if dump.serial is None:
        raise BadInput("the dump does not say which machine it is of", hint="name it: --machine SERIAL")
    return _read_memory(members, window, dump)


def _read_memory(members: Iterator[tuple[str, int]], window: JsonBuffer, dump: Dump) -> Iterator[ParsedRecord]:
    yield from read_list(window)
    _read_header(members, window, dump, rest=True)
    require_end(window)


def _read_header(members: Iterator[tuple[str, int]], window: JsonBuffer, dump: Dump, *, rest: bool = False) -> bool:
    """Takes in what stands before the records, or the `rest` behind them; whether the machine stood there.

    Raises BadInput naming the line.
    """
    named = False
    for name, line in members:
        if name == "records":
            if rest:
                raise BadInput(f"line {line}: the dump has two lists named records")
            return named
        value = window.value()
        if name == "format" and value != MEMORY_FORMAT:
            raise BadInput(f"line {line}: format {value!r} is not known; this program reads {MEMORY_FORMAT!r}")
        if name == "machine":
            _take_machine(value, line, dump)
            named = True
    if not rest:
        raise BadInput("the dump has no records: an object with a list named records is expected")
    return named


def _take_machine(value: Any, line: int, dump: Dump) -> None:
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
    for name in ("model", "firmware", "site"):  # labels for people: no record is refused for them
        label = described.get(name)
        text = str(label) if isinstance(label, (str, int, float)) else ""
        if text and not label_fault(text):
            dump.machine[name] = text


class _Unpacked:
    """The source as plain bytes: gzip is recognised by its first bytes. Raises TooLarge beyond `max_bytes`."""

    def __init__(self, source: BinaryIO, max_bytes: int) -> None:
        self._source = source
        self._max_bytes = max_bytes
        self._start(source.read(len(GZIP_MAGIC)))

    def _start(self, head: bytes) -> None:
        self._count = 0
        whole: Any = _Joined(head, self._source)
        self._stream = gzip.GzipFile(fileobj=whole, mode="rb") if head == GZIP_MAGIC else whole

    def read(self, size: int) -> bytes:
        try:
            data: bytes = self._stream.read(size)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise BadInput(f"the gzipped file is damaged or cut short: {error}") from error
        self._count += len(data)
        if self._max_bytes and self._count > self._max_bytes:
            raise TooLarge(f"unpacked it has more than {self._max_bytes} bytes")
        return data

    def seekable(self) -> bool:
        return self._source.seekable()

    def rewound(self) -> _Unpacked:
        """The same source from its beginning."""
        self._source.seek(0)
        return _Unpacked(self._source, self._max_bytes)


class _Joined:
    """A head that was read already, then the rest of its stream: what cannot be sought back is not lost."""

    def __init__(self, head: bytes, rest: Readable) -> None:
        self._head = head
        self._rest = rest

    def read(self, size: int = -1) -> bytes:
        if self._head:
            head, self._head = self._head[:size] if size >= 0 else self._head, self._head[size:] if size >= 0 else b""
            return head
        return self._rest.read(size)
