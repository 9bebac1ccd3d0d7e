"""The description of a format, and of a source that is being read.

To add a format, write one module with a `Format` and name it in `registry.py`. Nothing else asks for its name.
"""

import io
from collections import Counter, deque
from collections.abc import Callable, Iterator
from datetime import UTC, tzinfo
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from myhealth.common.errors import BadInput
from myhealth.intake.formats.source import Source
from myhealth.intake.formats.tables.layout import GUESSED, Layout
from myhealth.intake.parsed_record import ParsedRecord


class Dump(Struct):
    """A source of records that is being read.

    `machine`: its description of the machine (`serial`, `model`, `firmware`, `site`). `zone`: the zone of moments that
    name none. `records` gives the records in their order; if the source is broken so that no further record can be
    found, it raises BadInput naming the line, after the records before it. `skipped` counts, by kind, the parts read so
    far that are not results; `notices` tell what looks wrong in the source as a whole, each with its place there.
    `people`: what the FHIR Patient resources read so far say of the patients, each with a reference to its patient.
    `include_training`: whether records made for training or debugging count as results. `known`: patients of earlier
    parts of the source. `layout`: of a table; `patient_given`: whether its patient is known otherwise. `header`: the
    text before the records that each of them needs to be read again, such as the column names of a table. `is_reread`:
    whether it is one record, read again: a fault of the whole source is then that of the record. `truncated`: where
    the end of the source truncates its last record, "" if it does not.
    """

    format: "Format"
    machine: dict[str, str] = {}
    zone: tzinfo = UTC
    records: Iterator[ParsedRecord] = iter(())
    skipped: Counter[str] = field(default_factory=Counter)
    notices: list[str] = []
    people: deque[tuple[str, dict[str, Any]]] = field(default_factory=deque)
    include_training: bool = False
    known: Any = None
    layout: Layout = GUESSED
    patient_given: bool = False
    header: str = ""
    is_reread: bool = False
    truncated: str = ""

    @property
    def serial(self) -> str | None:
        return self.machine.get("serial")


class RejectedLayout(Struct, frozen=True):
    """The parts of a file of rejected records: before all, between two, after all, and the bytes of each record."""

    before: bytes
    between: bytes
    after: bytes
    encode: Callable[[ParsedRecord], bytes]


def reread_source(format: "Format", raw: str, zone: tzinfo, layout: Layout) -> ParsedRecord:
    """Read the text as a source of its own, and return its first record."""
    layout = replace(layout, encoding="")
    # what was left out was not rejected
    dump = Dump(format, zone=zone, include_training=True, layout=layout, patient_given=True, is_reread=True)
    try:
        source = Source(io.BytesIO(raw.encode("utf-8", "surrogateescape")))
        return next(iter(format.read(source, dump)))
    except (BadInput, StopIteration) as error:
        return ParsedRecord(0, 1, raw, None, [("", f"it cannot be read: {error}")])


class Format(Struct, frozen=True):
    """One format of input. `name` is stored with each rejection and is a value of `--format`.

    `detect`: returns whether a source is in this format; the registry asks the formats in its order. `read`: yields the
    records of a source, and may add to the Dump (machine, header, skipped). `write_rejected`: returns the layout of a
    file of rejected records, ready to be corrected and imported again. `reread`: reads the text of a rejection
    (ParsedRecord.raw) again; by default as a source with one record.

    `has_record_numbers`: its records usually have numbers of their own. So one without a number gets a derived number
    also over HTTP, and sending it twice stores it once. Otherwise two equal records over HTTP are two measurements.
    `is_single`: a source is one record, and its sender expects one answer. `shares_results`: one result may come alone
    and within a report.
    """

    name: str
    media_type: str
    detect: Callable[[Source], bool]
    read: Callable[[Source, Dump], Iterator[ParsedRecord]]
    write_rejected: Callable[[Dump], RejectedLayout]
    reread: Callable[["Format", str, tzinfo, Layout], ParsedRecord] = reread_source
    has_record_numbers: bool = False
    is_single: bool = False
    shares_results: bool = False


def reread_json(format: Format, raw: str, zone: tzinfo, layout: Layout) -> ParsedRecord:
    """Decode the text, which is one JSON record without the parts of its source around it."""
    parsed = ParsedRecord(0, 1, raw)
    parsed.decoded()
    return parsed


def encode_raw(parsed: ParsedRecord) -> bytes:
    return parsed.raw.encode("utf-8", "surrogateescape")


def encode_line(parsed: ParsedRecord) -> bytes:
    """Encode on one line; a line end in well-formed JSON is white space between its parts."""
    raw = parsed.raw if parsed.faults else " ".join(parsed.raw.splitlines())
    return raw.encode("utf-8", "surrogateescape")


ONE_A_LINE = RejectedLayout(b"", b"\n", b"\n", encode_line)
