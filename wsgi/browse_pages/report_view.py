"""A report as the pages show it. Templates only print these values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from myhealth.clinical import status
from myhealth.clinical.in_words import plain_text
from myhealth.reports.facts import Facts, checkup_facts, notes_of
from wsgi.browse_pages.dates import Dates, ReportDate
from wsgi.browse_pages.navigation import link
from wsgi.browse_pages.result_view import ResultView, kind_text, present_all
from wsgi.browse_pages.summary import counted, summary

TEXT_MAX = 240  # characters of a report's text in a list
MARKED_MAX = 3  # unusual results of one report in a list


@dataclass(frozen=True)
class ReportView:
    """One report. `kind`: its heading; `status`: in words, "" if it is final; `text`: the report's text, or "";
    `notes`: with their authors; `excerpt`: the first TEXT_MAX characters of both; `facts`: what else is known;
    `summary`: one sentence about the results; `unusual`: the results outside their range; `marked`: the first of these,
    for a list; `more_marked`: the count of the others, "2 more results", or ""; `path`: the report's address."""

    number: int
    kind: str
    date: ReportDate
    status: str
    taken_by: str
    text: str
    notes: list[str]
    excerpt: str
    facts: Facts
    summary: str
    results: list[ResultView]
    unusual: list[ResultView]
    marked: list[ResultView]
    more_marked: str
    has_general: bool
    path: str


def report_views(reports: Sequence[dict[str, Any]], dates: Dates) -> list[ReportView]:
    """Return the views of a page's reports."""
    results = present_all(reports, dates.moment)
    return [_view(report, views, dates) for report, views in zip(reports, results, strict=True)]


def report_view(report: dict[str, Any], dates: Dates) -> ReportView:
    """Return the view of one report."""
    return report_views([report], dates)[0]


def _view(report: dict[str, Any], results: list[ResultView], dates: Dates) -> ReportView:
    text, notes = plain_text(report["checkup_report"]), notes_of(report.get("details"), dates.moment)
    unusual = [result for result in results if result.is_unusual]
    return ReportView(
        number=report["_id"],
        kind=kind_text(report["checkup_type"]),
        date=dates.report_date(report),
        status=plain_text(status.words_of(report.get("status"))),
        taken_by=plain_text(report["taken_by"]),
        text=text,
        notes=notes,
        excerpt=" ".join(filter(None, (text, *notes)))[:TEXT_MAX],
        facts=checkup_facts(report, dates.moment),
        summary=summary(results),
        results=results,
        unusual=unusual,
        marked=unusual[:MARKED_MAX],
        more_marked=counted(len(unusual) - MARKED_MAX, "more result") if len(unusual) > MARKED_MAX else "",
        has_general=any(result.is_general for result in results),
        path=link("reports", report["_id"]),
    )
