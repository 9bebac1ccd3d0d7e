"""A single check-up record as a JSON object: what today's clients post."""

from __future__ import annotations

from collections.abc import Iterator

from myhealth.intake.formats.format import ONE_A_LINE, Dump, Format, reread_json
from myhealth.intake.formats.json_reader import JsonBuffer, require_end
from myhealth.intake.formats.source import Source
from myhealth.intake.parsed_record import ParsedRecord


def read(source: Source, dump: Dump) -> Iterator[ParsedRecord]:
    window = JsonBuffer(source.stream())
    yield window.read_record(0, scan=True)
    require_end(window)


OBJECT = Format(
    "object",
    "application/json",
    detect=lambda source: source.json_start.alone,
    read=read,
    write_rejected=lambda dump: ONE_A_LINE,
    reread=reread_json,
    is_single=True,
)
