"""A report as the pages show it. Templates only print these values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

from wsgi.browse_pages.dates import Dates, ReportDate
from wsgi.browse_pages.navigation import link
from wsgi.browse_pages.result_view import ResultView, kind_text, plain_text, present_all
from wsgi.browse_pages.summary import counted, summary

TEXT_MAX = 240  # characters of a report's text in a list
MARKED_MAX = 3  # unusual results of one report in a list


@dataclass(frozen=True)
class ReportView:
    """One report. `kind`: its heading; `text`: the report's text, or ""; `excerpt`: its first TEXT_MAX characters;
    `summary`: one sentence about the results; `unusual`: the results outside their range; `marked`: the first of these,
    for a list; `more_marked`: the count of the others, "2 more results", or ""; `path`: the report's address."""

    number: int
    kind: str
    date: ReportDate
    taken_by: str
    text: str
    excerpt: str
    summary: str
    results: list[ResultView]
    unusual: list[ResultView]
    marked: list[ResultView]
    more_marked: str
    has_general: bool
    path: str


def report_views(reports: Sequence[dict[str, Any]], dates: Dates) -> list[ReportView]:
    """Return the views of a page's reports. Each step runs once over all of them."""
    numbers = [report["_id"] for report in reports]
    paths = list(map(link, repeat("reports"), numbers))
    results = present_all(reports)
    summaries = list(map(summary, results))
    taken = dates.report_dates(reports)
    texts = [
        (plain_text(report["taken_by"]), plain_text(report["checkup_report"]), kind_text(report["checkup_type"]))
        for report in reports
    ]
    unusual = [[result for result in each if result.is_unusual] for each in results]
    more = [counted(len(each) - MARKED_MAX, "more result") if len(each) > MARKED_MAX else "" for each in unusual]
    return [
        ReportView(
            number=numbers[i],
            kind=kind,
            date=taken[i],
            taken_by=taken_by,
            text=text,
            excerpt=text[:TEXT_MAX],
            summary=summaries[i],
            results=results[i],
            unusual=unusual[i],
            marked=unusual[i][:MARKED_MAX],
            more_marked=more[i],
            has_general=any(result.is_general for result in results[i]),
            path=paths[i],
        )
        for i, (taken_by, text, kind) in enumerate(texts)
    ]


def report_view(report: dict[str, Any], dates: Dates) -> ReportView:
    """Return the view of one report."""
    return report_views([report], dates)[0]
