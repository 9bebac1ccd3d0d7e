"""Reports as CSV (RFC 4180, UTF-8), for spreadsheets: one line for each result. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from myhealth.clinical.ranges import classify
from myhealth.common.csv_writer import csv_line
from myhealth.reports.documents import Document
from myhealth.reports.trends import readable_results

REPORT_COLUMNS = ("taken_at", "checkup_type", "disease", "checkup_report", "machine", "taken_by", "abnormal")
RESULT_COLUMNS = ("code", "name", "value", "unit", "low", "high", "flag", "range_source", "warning")
# The value's position in its range, independent of the flag; a range in words; the reason of a missing value.
MORE_COLUMNS = ("position", "range_text", "absent_reason")
CSV_COLUMNS = ("id", "username", *REPORT_COLUMNS, *RESULT_COLUMNS, *MORE_COLUMNS)


def report_lines(reports: Iterable[Document], username: str | None) -> Iterator[str]:
    """Yield the header line, then a line for each result. A report without results has one line."""
    yield csv_line(CSV_COLUMNS)
    for row in report_rows(reports, username):
        yield csv_line(row)


def report_rows(reports: Iterable[Document], username: str | None) -> Iterator[list[Any]]:
    """Yield the lines as lists of values, without the header."""
    for report in reports:
        shared = [report["_id"], username, *(report[name] for name in REPORT_COLUMNS)]
        for result in readable_results(report) or [{}]:
            position = classify(*(result.get(name) for name in ("value", "low", "high")))
            yield [*shared, *({**result, "position": position}.get(name) for name in (*RESULT_COLUMNS, *MORE_COLUMNS))]
