"""A toy format in one file: a table with bars between its cells. Importing it registers it, which is one line.

!toy|record_id|checkup_for|value
1|bholanath|128
"""

from __future__ import annotations

import io
from collections.abc import Iterator

from myhealth.intake.formats.format import Dump, Format, RejectedLayout
from myhealth.intake.formats.registry import FORMATS
from myhealth.intake.formats.source import Source
from myhealth.intake.parsed_record import ParsedRecord, parse_int

MAGIC = "!toy|"


def read(source: Source, dump: Dump) -> Iterator[ParsedRecord]:
    stream = source.stream()
    lines = io.StringIO(b"".join(iter(lambda: stream.read(10**6), b"")).decode())
    dump.header = lines.readline()
    names = dump.header.strip().removeprefix(MAGIC).split("|")
    for index, line in enumerate(lines):
        row = dict(zip(names, line.strip().split("|"), strict=True))
        result = {"code": "8480-6", "name": "Systolic blood pressure", "value": parse_int(row.pop("value"))}
        texts = {"checkup_type": "BP", "checkup_report": "", "disease": ""}
        yield ParsedRecord(index, index + 2, dump.header + line, {**row, **texts, "results": [result]})


def write_rejected(dump: Dump) -> RejectedLayout:
    """A record's text begins with the header, so that it can be read again; in the file the header comes once."""
    return RejectedLayout(dump.header.encode(), b"", b"", lambda parsed: parsed.raw.split("\n", 1)[1].encode())


TOY = Format(
    "toy",
    "text/x-toy",
    detect=lambda source: source.head().startswith(MAGIC.encode()),
    read=read,
    write_rejected=write_rejected,
    has_record_numbers=True,
)
FORMATS.insert(0, TOY)
