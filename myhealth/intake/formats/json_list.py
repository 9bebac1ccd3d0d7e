"""A JSON list of check-up records, each with its machine if it has one."""

from __future__ import annotations

from collections.abc import Iterator

from myhealth.intake.formats.format import Dump, Format, RejectedLayout, encode_raw, reread_json
from myhealth.intake.formats.json_reader import JsonBuffer, read_list, require_end
from myhealth.intake.formats.source import Source
from myhealth.intake.parsed_record import ParsedRecord


def read(source: Source, dump: Dump) -> Iterator[ParsedRecord]:
    window = JsonBuffer(source.stream())
    yield from read_list(window)
    require_end(window)


LIST = Format(
    "list",
    "application/json",
    detect=lambda source: source.json_start.first == "[",
    read=read,
    write_rejected=lambda dump: RejectedLayout(b"[\n", b",\n", b"\n]\n", encode_raw),
    reread=reread_json,
)
