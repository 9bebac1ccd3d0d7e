"""Read a source of records in any format; the format is detected from the content.

Source: cli/README.md, "Import a machine's file"; the module of each format describes it.
"""

from datetime import UTC, tzinfo
from typing import BinaryIO

from myhealth.common.errors import BadInput
from myhealth.intake.formats.format import Dump, Format
from myhealth.intake.formats.registry import FORMATS, get_format
from myhealth.intake.formats.source import Source
from myhealth.intake.formats.tables.layout import GUESSED, Layout
from myhealth.intake.parsed_record import is_utf8
from myhealth.machines.services import serial_fault

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
