"""Reports as CSV (RFC 4180, UTF-8), for spreadsheets: one line a result. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from myhealth.reports.documents import Document
from myhealth.reports.trends import readable_results

# What a spreadsheet takes for the beginning of a formula. Source: OWASP, "CSV Injection"; the wide forms are Excel's.
FORMULA = tuple("=+-@\t\r\n＝＋－＠")
REPORT_COLUMNS = ("taken_at", "checkup_type", "disease", "checkup_report", "machine", "taken_by", "abnormal")
RESULT_COLUMNS = ("code", "name", "value", "unit", "low", "high", "flag")
COLUMNS = ("id", "username", *REPORT_COLUMNS, *RESULT_COLUMNS)


def report_lines(reports: Iterable[Document], username: str | None) -> Iterator[str]:
    """The head line, then a line for each result; a report without results has one line of its own."""
    yield line(COLUMNS)
    for row in report_rows(reports, username):
        yield line(row)


def report_rows(reports: Iterable[Document], username: str | None) -> Iterator[list[Any]]:
    """The same as values, without the head line."""
    for report in reports:
        shared = [report["_id"], username, *(report[name] for name in REPORT_COLUMNS)]
        for result in readable_results(report) or [{}]:
            yield [*shared, *(result.get(name) for name in RESULT_COLUMNS)]


def table_lines(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    """Any table, its head line first."""
    yield line(columns)
    for row in rows:
        yield line(row)


def line(cells: Sequence[Any]) -> str:
    """One line. A number is written as it is; no text begins as a formula does: such a one has a ' before it."""
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
    return f"'{text}" if text.lstrip(" ").startswith(FORMULA) else text
