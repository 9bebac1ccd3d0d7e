"""NDJSON: one check-up record after another, usually each on a line of its own (github.com/ndjson/ndjson-spec)."""

from __future__ import annotations

from collections.abc import Iterator

from myhealth.intake.formats.format import ONE_A_LINE, Dump, Format, reread_json
from myhealth.intake.formats.json_reader import JsonBuffer, read_values
from myhealth.intake.formats.source import Source
from myhealth.intake.parsed_record import ParsedRecord


def read(source: Source, dump: Dump) -> Iterator[ParsedRecord]:
    return read_values(JsonBuffer(source.stream()))


NDJSON = Format(
    "ndjson",
    "application/x-ndjson",
    detect=lambda source: source.json_start.first == "{",
    read=read,
    write_rejected=lambda dump: ONE_A_LINE,
    reread=reread_json,
)
