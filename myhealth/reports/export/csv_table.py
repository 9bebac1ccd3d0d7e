"""Reports as CSV (RFC 4180, UTF-8), for spreadsheets: one line a result. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from myhealth.clinical.ranges import classify
from myhealth.common.csv_writer import csv_line
from myhealth.reports.documents import Document
from myhealth.reports.trends import readable_results

REPORT_COLUMNS = ("taken_at", "checkup_type", "disease", "checkup_report", "machine", "taken_by", "abnormal")
RESULT_COLUMNS = ("code", "name", "value", "unit", "low", "high", "flag", "range_source", "warning")
# Where the value lies in its range, whatever the flag says; a range in words; why there is no value.
MORE_COLUMNS = ("lies", "range_text", "absent_reason")
COLUMNS = ("id", "username", *REPORT_COLUMNS, *RESULT_COLUMNS, *MORE_COLUMNS)


def report_lines(reports: Iterable[Document], username: str | None) -> Iterator[str]:
    """The head line, then a line for each result; a report without results has one line of its own."""
    yield csv_line(COLUMNS)
    for row in report_rows(reports, username):
        yield csv_line(row)


def report_rows(reports: Iterable[Document], username: str | None) -> Iterator[list[Any]]:
    """The same as values, without the head line."""
    for report in reports:
        shared = [report["_id"], username, *(report[name] for name in REPORT_COLUMNS)]
        for result in readable_results(report) or [{}]:
            place = classify(*(result.get(name) for name in ("value", "low", "high")))
            yield [*shared, *({**result, "lies": place}.get(name) for name in (*RESULT_COLUMNS, *MORE_COLUMNS))]
