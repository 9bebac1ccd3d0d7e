"""All formats of input. To add one, write its module and name it here.

The readers of HL7 v2, FHIR and tables are loaded for the first such source: they take longer than a small dump.
"""

import re
from collections.abc import Iterator
from datetime import UTC, tzinfo
from importlib import import_module
from typing import Any, BinaryIO

from myhealth.common.errors import BadInput
from myhealth.intake.formats.format import ONE_A_LINE, Dump, Format, RejectedLayout, encode_raw, reread_json
from myhealth.intake.formats.json_reader import JsonBuffer, read_list, read_values, require_end
from myhealth.intake.formats.machine_memory import MEMORY
from myhealth.intake.formats.source import Source
from myhealth.intake.formats.tables.layout import GUESSED, Layout
from myhealth.intake.parsed_record import ParsedRecord, is_utf8
from myhealth.machines.services import serial_fault

HL7_START = re.compile(rb"(?:\xef\xbb\xbf)?\s*\x0b?\s*(MSH|FHS|BHS)[^\w\s]")


def _reader(package: str) -> Any:
    return import_module(f"myhealth.intake.formats.{package}.reader")


def _read_json_list(source: Source, dump: Dump) -> Iterator[ParsedRecord]:
    window = JsonBuffer(source.stream())
    yield from read_list(window)
    require_end(window)


def _read_json_object(source: Source, dump: Dump) -> Iterator[ParsedRecord]:
    window = JsonBuffer(source.stream())
    yield window.read_record(0, scan=True)
    require_end(window)


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
    detect=lambda source: source.json_start.alone,
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
    read=lambda source, dump: read_values(JsonBuffer(source.stream())),
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
# In this order they are asked whether they know a source: the particular ones before the general ones.
FORMATS: list[Format] = [HL7, FHIR, LIST, MEMORY, OBJECT, NDJSON, CSV]


def format_names() -> list[str]:
    return [each.name for each in FORMATS]


def get_format(name: str) -> Format:
    """Return the format of this name; for any other name (as of a rejection from before it was stored) OBJECT."""
    return next((each for each in FORMATS if each.name == name), OBJECT)


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
    found = next((each for each in FORMATS if each.detect(source)), None)
    if found is not None:
        return found
    head = source.head()
    if head.startswith(UTF16_BOMS):
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
