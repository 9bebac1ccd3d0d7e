"""Split the text of a table into rows, in bounded memory; a row that cannot be split is one with a fault."""

from __future__ import annotations

import codecs
import csv
import io
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from msgspec import Struct, field

from myhealth.common.errors import BadInput
from myhealth.common.text import printable
from myhealth.intake.formats.json_reader import CHUNK_BYTES, Readable
from myhealth.intake.formats.source import Source
from myhealth.intake.formats.tables.layout import FittedLayout, Layout, fit
from myhealth.intake.parsed_record import is_utf8

DELIMITERS = (",", ";", "\t", "|")
LINE_MAX = 1_000_000  # characters, also of a row of several lines
ENCODING = "name the encoding (--encoding windows-1252, charset= in the Content-Type, or encoding in the layout)"
NOT_UTF8 = f"contains bytes that are not {{}}; {ENCODING}"
QUOTES = f"a quote is not closed, or has text behind it, or a cell has more than {csv.field_size_limit():,} characters"
ROWS_IN_TEXT = (
    "has lines like rows in quotes: if they are rows, close the quote before them; if not, replace their separators"
)
HEADER_LINES = 20  # a title may come before the header
BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


class TableRow(Struct, frozen=True):
    """A row. `line`: the number of its first line. `fault`: why its cells cannot be told apart, "" if they can."""

    line: int
    text: str
    cells: list[str]
    fault: str = ""


class _Raw(io.RawIOBase):
    """A stream as the text layer of `io` needs it."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        part = self._stream.read(len(target))
        target[: len(part)] = part
        return len(part)


class Lines(Struct):
    """The lines of a table. Iterating gives the rest of them; those given since `begin_row` can be given back.

    Raises BadInput for a line without an end, and where the bytes are not in the encoding at all.
    """

    text: io.TextIOWrapper
    encoding: str
    number: int = 0
    row: list[str] = []
    _waiting: deque[str] = field(default_factory=deque)
    _size: int = 0
    _read_lines: int = 0

    @classmethod
    def of(cls, head: bytes, stream: Readable, encoding: str) -> Lines:
        found = next((name for bom, name in BOMS.items() if head.startswith(bom)), encoding or "utf-8")
        buffer = io.BufferedReader(_Raw(stream), CHUNK_BYTES)
        return cls(io.TextIOWrapper(buffer, found, "surrogateescape", newline=""), found.upper().removesuffix("-SIG"))

    def __iter__(self) -> Lines:
        return self

    def __next__(self) -> str:
        line = self._waiting.popleft() if self._waiting else self._read()
        if not line:
            raise StopIteration
        self.number += 1
        self.row.append(line)
        self._size += len(line)
        if self._size > LINE_MAX:
            raise csv.Error(f"it has more than {LINE_MAX:,} characters")
        return line

    def _read(self) -> str:
        self._read_lines += 1
        try:
            line = self.text.readline(LINE_MAX + 1)
        except UnicodeError as error:
            raise BadInput(f"line {self._read_lines}: it is not {self.encoding}: {error}") from error
        if len(line) > LINE_MAX:
            column = max(len(cells_of(line, mark)) for mark in DELIMITERS)
            place = f"line {self._read_lines}, in or behind column {column}"
            raise BadInput(f"{place}: the line has more than {LINE_MAX:,} characters")
        return line

    def read_first(self, count: int) -> list[str]:
        """Return the first lines; `begin_behind` says which of them are given again."""
        return [line for _ in range(count) if (line := self._read())]

    def begin_behind(self, first: Sequence[str], count: int) -> None:
        self._waiting.extend(first[count:])
        self.number = count

    def ahead(self, delimiter: str) -> Iterator[list[str]]:
        """Yield the cells of the lines that are read already, without taking them."""
        return (cells_of(line, delimiter) for line in self._waiting)

    def begin_row(self) -> None:
        self.row, self._size = [], 0

    def give_back(self, kept: int) -> None:
        """Give the lines of this row again, but the first `kept` of them."""
        self._waiting.extendleft(reversed(self.row[kept:]))
        self.number -= len(self.row) - kept
        del self.row[kept:]


def is_table(source: Source) -> bool:
    """Return whether a source begins with rows of several cells, and not with anything else that is known."""
    head = source.head()
    text = head.decode("utf-16" if BOMS.get(head[:2]) else "utf-8", "ignore")
    text = text.strip("\ufeff \r\n")
    for line in text.splitlines():
        if "\0" in line:
            return False
        if line.replace("\t", " ").isprintable() and any(map(line.count, DELIMITERS)):
            return not text.startswith(("<", "{", "[{"))
    return False


def cells_of(text: str, delimiter: str) -> list[str]:
    """Return the cells of one row, as far as they can be told apart."""
    try:
        return next(csv.reader([text], delimiter=delimiter), [])
    except csv.Error:
        return text.split(delimiter)


def read_header(lines: Lines, layout: Layout) -> tuple[FittedLayout, str, str]:
    """Find the header among the first lines; return the table, its delimiter, and the text of the header.

    Raises BadInput naming the line that is most like a header, and what it lacks.
    """
    first = lines.read_first(HEADER_LINES)
    marks = [layout.delimiter] if layout.delimiter else list(DELIMITERS)
    why: list[tuple[int, str]] = []
    for place in range(len(first)):
        found: list[tuple[int, FittedLayout, str, int]] = []
        for mark in marks:
            reader = csv.reader(first[place:], delimiter=mark)
            try:
                cells = next(reader)
            except csv.Error:
                continue
            table = fit(layout, cells)
            if isinstance(table, FittedLayout):
                found.append((len(cells), table, mark, reader.line_num))
            else:
                why.append((len(cells), f"line {place + 1}: {table}; the columns are {_shown(cells)}"))
        if found:
            _, table, mark, count = max(found, key=lambda each: each[0])
            text = "".join(first[place : place + count])
            if not is_utf8(text):
                raise BadInput(f"line {place + 1}: the header {NOT_UTF8.format(lines.encoding)}")
            lines.begin_behind(first, place + count)
            return table, mark, text
    if any("\0" in line for line in first):
        raise BadInput(
            "it is a binary file, or UTF-16 without a byte order mark", hint="name its encoding, if it is text"
        )
    raise BadInput(
        max(why, key=lambda each: each[0])[1] if why else "there is no header",
        hint="name a layout that fits: --layout wide, long or a file; examples/table-layout.toml explains it",
    )


def _shown(cells: Sequence[str]) -> str:
    return printable(", ".join(filter(None, cells)), 100)


def read_rows(
    lines: Lines, delimiter: str, table: FittedLayout, is_whole: Callable[[list[str]], bool]
) -> Iterator[TableRow]:
    """Return the rows. A row whose quotes are not closed gets only its first line, and reading continues behind it, so
    that it swallows no other row.

    `is_whole`: returns whether cells are those of a whole row. If each line between two quotes is a whole row, the
    first quote counts as not closed too. But a text for people may have such lines: then all of them are one row with a
    fault, so that neither a row is lost in a text nor a text becomes rows.
    """
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        lines.begin_row()
        number = lines.number + 1
        try:
            cells = next(reader)
            if len(lines.row) > 1 and all(is_whole(line.replace('"', "").split(delimiter)) for line in lines.row):
                if not table.words.issuperset(place for place, cell in enumerate(cells) if len(cell.splitlines()) > 1):
                    raise csv.Error(QUOTES)
                yield TableRow(number, "".join(lines.row), cells, ROWS_IN_TEXT)
                continue
        except StopIteration:
            return
        except csv.Error:
            lines.give_back(1)
            text = lines.row[0]
            cells = cells_of(text, delimiter)
            yield TableRow(number, text, cells, QUOTES)
            continue
        if any(cell and not cell.isspace() for cell in cells):
            yield TableRow(number, "".join(lines.row), cells)


def may_be_cut(table: FittedLayout, row: TableRow) -> bool:
    """Return whether the last row has no end, and its last cell would mean something else if it were longer: neither a
    text for people nor a whole one in quotes."""
    last = len(row.cells) - 1
    return last not in table.words and row.cells[-1].strip() != "" and not row.text.endswith(("\n", "\r", '"'))


def is_utf8_read_as(cell: str, encoding: str) -> bool:
    """Return whether a text is UTF-8 that was decoded in this other encoding."""
    try:
        cell.encode(encoding).decode()
    except ValueError:
        return False
    return True
