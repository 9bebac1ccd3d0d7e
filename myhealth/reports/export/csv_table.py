"""Reports as CSV (RFC 4180, UTF-8), for spreadsheets: one line for each result. Pure."""

from collections.abc import Iterable, Iterator
from typing import Any

from myhealth.clinical.absent_reasons import absent_reason_text
from myhealth.clinical.in_words import concept_texts, mappings, plain_text, range_words
from myhealth.clinical.ranges import compare
from myhealth.common.csv_writer import csv_line
from myhealth.reports.documents import Document
from myhealth.reports.export.fhir_values import code_element, details_of
from myhealth.reports.trends import readable_results

REPORT_COLUMNS = ("taken_at", "checkup_type", "disease", "checkup_report", "machine", "taken_by", "abnormal")
RESULT_COLUMNS = ("code", "name", "value", "unit", "low", "high", "flag", "range_source", "warning")
# The value's position in its range, independent of the flag; a range in words; the reason of a missing value.
MORE_COLUMNS = ("position", "range_text", "absent_reason")
# Of a result: its number in the report, all its codes, and what it has of its own or from its check-up.
LATER_COLUMNS = (
    *("number", "result_status", "result_taken_at", "taken_precision", "codes", "interpretations", "ranges"),
    *("unit_text", "specimen", "method", "body_site", "performers", "notes", "category", "group"),
)
CSV_COLUMNS = ("id", "username", *REPORT_COLUMNS, *RESULT_COLUMNS, *MORE_COLUMNS, *LATER_COLUMNS)


def report_lines(reports: Iterable[Document], username: str | None) -> Iterator[str]:
    """Yield the header line, then a line for each result. A report without results has one line."""
    yield csv_line(CSV_COLUMNS)
    for row in csv_rows(reports, username):
        yield csv_line(row)


def csv_rows(reports: Iterable[Document], username: str | None) -> Iterator[list[Any]]:
    """Yield the lines as lists of values, without the header."""
    for report in reports:
        shared = [report["_id"], username, *(report[name] for name in REPORT_COLUMNS)]
        if report.get("taken_precision") == "unknown":
            shared[2] = None
        for place, result in enumerate(readable_results(report) or [{}], 1):
            position = compare(result).position
            row = {**result, "position": position, **_later(report, result, place)}
            if code := plain_text(result.get("absent_code")):
                row["absent_reason"] = result.get("absent_reason") or absent_reason_text(code)
            yield [*shared, *(row.get(name) for name in (*RESULT_COLUMNS, *MORE_COLUMNS, *LATER_COLUMNS))]


def _later(report: Document, result: Document, place: int) -> Document:
    """Return the values of LATER_COLUMNS; those of the check-up where the result has none of its own."""
    shared = details_of(report)
    found = {name: result.get(name) or shared.get(name) for name in ("specimen", "performers", "category")}
    found |= {name: result.get(name) for name in ("method", "body_site", "notes")}
    found["interpretations"] = [{**each, "codings": [each]} for each in mappings(result.get("interpretations"))]
    return {
        **{name: concept_texts(value if isinstance(value, list) else [value]) for name, value in found.items()},
        "number": result.get("number", place) if result else None,
        "result_status": result.get("status") or report.get("status") or "final",
        "result_taken_at": result.get("taken_at"),
        "taken_precision": result.get("taken_precision") or report.get("taken_precision"),
        "codes": "; ".join(
            f"{each.get('system', '')}|{each['code']}" for each in code_element(result).get("coding", ())
        ),
        "ranges": "; ".join(map(range_words, mappings(result.get("ranges")))),
    }
