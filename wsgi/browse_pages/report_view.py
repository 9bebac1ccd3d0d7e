"""A report as the pages show it, whole or as a row of a list. Templates only print these values."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

from msgspec import Struct

from myhealth.clinical import status
from myhealth.clinical.in_words import kind_text, known_name, plain_text
from myhealth.reports.facts import Facts, checkup_facts, notes_of
from wsgi.browse_pages.dates import Dates, ReportDate
from wsgi.browse_pages.result_view import ResultView, blocks_of, present_all, shortened, summary

TEXT_MAX = 160  # characters of a report's text in a row
SHOWN_MAX = 3  # values in a row
FARTHEST = attrgetter("is_far", "is_unusual")
# A report may be stored so long before the sync carries it here: what was stored just before a login was not seen then.
SYNC_DELAY = timedelta(minutes=10)


class ReportView(Struct, frozen=True):
    """One report. `kind`: its heading; `status`: in words, "" if it is final; `text`: the report's text, or "";
    `review_note`: the reviewer's, or ""; `notes`: the source's, with their authors; `facts`: what else is known;
    `summary`: one sentence about the results; `unusual`: the results outside their range."""

    number: int
    kind: str
    date: ReportDate
    status: str
    taken_by: str
    text: str
    review_note: str
    notes: list[str]
    facts: Facts
    summary: str
    results: list[ResultView]
    unusual: list[ResultView]
    has_general: bool


class ReportRow(NamedTuple):
    """A report in a list. `is_far`: a value is far outside its range; `day`: of its date; `mark`: "new" or "changed"
    since the last login, or ""; `values`: the first measurements, those far outside their range first, then those
    outside; `more`: the count of the rest; `text`: the beginning of the report's text, if it has no measurements;
    `whose`: the patient's name, in a list of several patients."""

    number: int
    kind: str
    is_far: bool
    date: ReportDate
    day: str
    mark: str
    status: str
    values: list[ResultView]
    more: int
    text: str
    whose: str = ""


def report_views(reports: Sequence[dict[str, Any]], dates: Dates) -> list[ReportView]:
    """Return the views of reports."""
    results = present_all(reports, dates.moment)
    return [_view(report, views, dates) for report, views in zip(reports, results, strict=True)]


def _view(report: dict[str, Any], results: list[ResultView], dates: Dates) -> ReportView:
    return ReportView(
        number=report["_id"],
        kind=kind_text(report["checkup_type"]),
        date=dates.report_date(report),
        status=_status(report),
        taken_by=known_name(plain_text(report["taken_by"])),
        text=plain_text(report["checkup_report"]),
        review_note=plain_text(report.get("review_note")),
        notes=notes_of(report.get("details"), dates.moment),
        facts=checkup_facts(report, dates.moment),
        summary=summary(blocks_of(results)),
        results=results,
        unusual=[result for result in results if result.is_unusual],
        has_general=any(result.is_general for result in results),
    )


def _status(report: dict[str, Any]) -> str:
    sent = report.get("status")
    return plain_text(status.status_text(sent)) if sent else ""


def months_of(rows: list[ReportRow]) -> list[tuple[str, list[ReportRow]]]:
    """Return the rows of a page's reports under the names of their months."""
    return [(month, list(same)) for month, same in groupby(rows, key=lambda row: row.date.month)]


def rows_of_reports(
    reports: Sequence[dict[str, Any]], results: list[list[ResultView]], dates: Dates, since: datetime | None = None
) -> list[ReportRow]:
    """Return the rows of reports. `results`: of `present_all`. `since`: the last login before this one."""
    blocks = [*map(blocks_of, results)]
    days = [*map(dates.report_date, reports)]
    kinds = [*map(kind_text, map(itemgetter("checkup_type"), reports))]
    return [_row(*each, dates, since) for each in zip(reports, blocks, days, kinds, strict=True)]


def _row(
    report: dict[str, Any], blocks: list[ResultView], date: ReportDate, kind: str, dates: Dates, since: datetime | None
) -> ReportRow:
    blocks.sort(key=FARTHEST, reverse=True)
    texts = () if blocks else (report["checkup_report"], *notes_of(report.get("details"), dates.moment))
    text = " ".join(filter(None, map(plain_text, texts)))
    return ReportRow(
        number=report["_id"],
        kind=kind,
        is_far=bool(blocks) and blocks[0].is_far,
        date=date,
        day=date.in_month,
        mark=_mark(report, since),
        status=_status(report),
        values=blocks[:SHOWN_MAX],
        more=max(len(blocks) - SHOWN_MAX, 0),
        text=text and shortened(text, TEXT_MAX),
    )


def _mark(report: dict[str, Any], since: datetime | None) -> str:
    """Return "new" or "changed" for a report that was stored, or changed, after `since`."""
    if since is None:
        return ""
    seen = since - SYNC_DELAY
    if report["created_at"] > seen:
        return "new"
    return "changed" if report["revision"] > 1 and report["updated_at"] > seen else ""
