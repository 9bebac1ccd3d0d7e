"""Write tables as CSV (RFC 4180), safe for spreadsheets; for the APIs, the pages and the terminal."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

from myhealth.common.text import escape_unsafe

# Where a cell would begin as a formula, at the text's start or behind any character that a spreadsheet may take for a
# separator, inside quotes too: some readers split there. Source: OWASP, "CSV Injection"; the wide forms are Excel's.
FORMULA = re.compile('(?<![^,;|\\t\\r\\n])(?=[ "]*[=+@\\t\\r＝＋－＠-]|\\A[ "]*\\n)')
SHORT = 40  # characters of a cell that probably comes again: a name, a unit


def csv_lines(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    """Return the lines of a table, its header first."""
    yield csv_line(columns)
    for row in rows:
        yield csv_line(row)


def csv_line(cells: Sequence[Any]) -> str:
    """Return one line. In a text, a ' goes before what would begin a formula, and control characters are escaped;
    numbers are written as they are."""
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
    text = str(value)
    return _neutralise_again(text) if len(text) <= SHORT else _neutralise(text)


def _neutralise(text: str) -> str:
    return FORMULA.sub("'", escape_unsafe(text))


_neutralise_again = lru_cache(maxsize=1024)(_neutralise)
