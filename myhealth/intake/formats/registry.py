"""All formats of input. To add one, write its module and name it here.

The readers of HL7 v2, FHIR and tables are loaded for the first such source: they take longer than a small dump.
"""

import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from myhealth.intake.formats.format import ONE_A_LINE, Dump, Format, RejectedLayout, encode_raw, reread_json
from myhealth.intake.formats.json_reader import JsonBuffer, read_list, read_values, require_end
from myhealth.intake.formats.machine_memory import MEMORY
from myhealth.intake.formats.source import Source
from myhealth.intake.parsed_record import ParsedRecord

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
