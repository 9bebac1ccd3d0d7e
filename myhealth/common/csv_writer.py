"""Write tables as CSV (RFC 4180), safe for spreadsheets; for the APIs, the pages and the terminal. Read small ones."""

import csv
import io
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

from myhealth.common.errors import BadInput
from myhealth.common.text import escape_unsafe

# Quotes, and what readers trim or do not show (Unicode's blanks and Default_Ignorable_Code_Point).
BLANKS = (
    ' "\xa0\xad\u034f\u061c\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180f\u2000-\u200f\u202f\u205f-\u206f\u2800'
    "\u3000\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U000e0fff"
)
# Where a cell would begin as a formula, at the text's start or behind any character that a spreadsheet may take for a
# separator, inside quotes too: some readers split there. Source: OWASP, "CSV Injection"; the wide forms are Excel's.
FORMULA = re.compile(f"(?<![^,;|\\t\\r\\n])(?=[{BLANKS}]*[=+@\\t\\r＝＋－＠-]|\\A[{BLANKS}]*\\n)")
SHORT = 40  # characters of a cell that probably comes again: a name, a unit


def csv_lines(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    yield csv_line(columns)
    for row in rows:
        yield csv_line(row)


def csv_line(cells: Sequence[Any]) -> str:
    """Return one line. In a text, a ' goes before the beginning of a formula, and control characters are escaped.
    Numbers are written as they are, and the texts of a tuple with blanks between them."""
    target = io.StringIO()
    csv.writer(target, lineterminator="\r\n").writerow([_cell(cell) for cell in cells])
    return target.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, (int, float, Decimal)):
        return str(value)
    text = " ".join(value) if isinstance(value, tuple) else str(value)
    return _neutralise_again(text) if len(text) <= SHORT else _neutralise(text)


def _neutralise(text: str) -> str:
    return FORMULA.sub("'", escape_unsafe(text))


_neutralise_again = lru_cache(maxsize=1024)(_neutralise)


def read_named_rows(lines: Iterable[str]) -> tuple[list[str], "csv.DictReader[str]"]:
    """Return the names of the columns, without case, and a reader of the rows by them. Commas, semicolons, tabs or bars
    separate the cells. Raises BadInput."""
    rows = iter(lines)
    first = next(rows, "")
    separator = next((each for each in ";\t|" if each in first), ",")
    reader = csv.DictReader(itertools.chain([first], rows), delimiter=separator, strict=True)
    try:
        names = [name.strip().casefold() for name in reader.fieldnames or ()]
    except csv.Error as error:
        raise BadInput(f"line 1: {error}") from error
    reader.fieldnames = names
    return names, reader
