"""Refused records in the format they came in, ready to be corrected and taken in again."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from myhealth.common.errors import BadInput
from myhealth.intake.formats.detect import MEMORY_FORMAT, Dump
from myhealth.intake.parsed_record import ParsedRecord


class RejectedFile:
    """Made when the first record is added; none is made where nothing is refused. Closing it makes it whole."""

    def __init__(self, path: Path, dump: Dump) -> None:
        """Raises BadInput where the file is there already: it may hold corrections that nobody has imported yet."""
        if path.exists():
            raise BadInput(f"{path} is there already; move it away first, it may hold what is not imported yet")
        self.path = path
        self._dump = dump
        self._file: BinaryIO | None = None

    def add(self, reading: ParsedRecord) -> None:
        """Raises BadInput where it cannot be written."""
        before, between, _ = _frame(self._dump)
        with self._writing():
            if self._file is None:
                self._file = self.path.open("xb")
                self._file.write(before)
            else:
                self._file.write(between)
            self._file.write(_text(self._dump, reading))

    def close(self) -> None:
        """Raises BadInput where it cannot be written."""
        if self._file is not None:
            with self._writing(), self._file as file:
                file.write(_frame(self._dump)[2])

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise BadInput(f"{self.path} cannot be written: {error.strerror or error}") from error


def rejected_bytes(dump: Dump, readings: Iterable[ParsedRecord]) -> bytes:
    """What a file of these records holds."""
    before, between, behind = _frame(dump)
    return before + between.join(_text(dump, reading) for reading in readings) + behind


def _frame(dump: Dump) -> tuple[bytes, bytes, bytes]:
    """What stands before all records, between two, and behind them."""
    if dump.format == "memory":
        machine = json.dumps(dump.machine, ensure_ascii=False)
        head = f'{{"format": "{MEMORY_FORMAT}", "machine": {machine}, "records": [\n'
        return head.encode(), b",\n", b"\n]}\n"
    if dump.format == "list":
        return b"[\n", b",\n", b"\n]\n"
    if dump.format == "hl7":  # a message has its ends in its text, but for one that was cut short
        return b"", b"", b""
    return b"", b"\n", b"\n"


def _text(dump: Dump, reading: ParsedRecord) -> bytes:
    raw = reading.raw
    if dump.format in ("ndjson", "fhir") and not reading.faults:
        raw = " ".join(raw.splitlines())  # a line end in JSON is white space between its parts
    return raw.encode("utf-8", "surrogateescape")
