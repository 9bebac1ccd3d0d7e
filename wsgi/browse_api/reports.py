"""Patients' reports: lists, and single ones."""

import contextlib
from functools import cached_property
from typing import Any

import bottle

from myhealth.reports.documents import Document, encode_json, public_report
from myhealth.reports.export.csv_table import report_lines
from myhealth.reports.export.fhir import fhir_bundle
from myhealth.reports.filters import OwnReports, own_report, own_reports
from wsgi.browse_api.context import ApiView
from wsgi.browse_api.parameters import parse_filter, parse_page_cursor, parse_sort, report_cursor
from wsgi.browse_api.schemas import (
    LIST_FILTERS,
    PAGE_PARAMETERS,
    REPORT_MEDIA_TYPES,
    UNKNOWN_PERSON,
    UNKNOWN_REPORT,
    reading,
    refusals,
)
from wsgi.common.requests import site
from wsgi.common.views import CSV, FHIR, JSON, answer, answer_json, cut_page, next_link, page_limit

REPORT_LIST = "Reports, the newest first; the `Link` header leads to the next page.", ["Report"]
LIST_PARAMETERS = (*PAGE_PARAMETERS, *LIST_FILTERS)


class ReportAnswersView(ApiView):
    """A view that answers with one patient's reports, as JSON, FHIR or CSV."""

    def own_asked(self) -> OwnReports | None:
        if self.media_type != JSON:
            return None  # an export waits for its turn before it reads
        limit, options = self.read
        return own_reports(limit=limit + 1, **options)

    @cached_property
    def read(self) -> tuple[int, dict[str, Any]]:
        """The limit, and the other arguments for `ReportRepository.find`. Raises BadInput."""
        sort, after = parse_sort(self.asked.get("sort", "")), parse_page_cursor(self.asked.get("after", ""))
        return page_limit(self.asked), {"wanted": parse_filter(self.asked), "sort": sort, "after": after}

    def page(self, patient: Document, limit: int, options: dict[str, Any]) -> Any:
        """Answer with one page of a list, as `read` has it. Raises TooManyAttempts for a user's second export
        at the same time."""
        with contextlib.nullcontext() if self.media_type == JSON else self.context.exports.enter(self.user["subject"]):
            found = self.find(patient, limit=limit + 1, **options)
            page, next_url = cut_page(found, limit, report_cursor, self.asked)
            return self.answer_reports(page, patient, next_url)

    def answer_reports(self, reports: list[Document], patient: Document, next_url: str = "") -> Any:
        username = patient["username"]
        if self.media_type == CSV:
            content = "".join(report_lines(reports, username)).encode()
        elif self.media_type == FHIR:
            url = site().base_url() + next_url if next_url else None
            content = encode_json(fhir_bundle(reports, patient, next_url=url))
        else:
            content = encode_json([public_report(report, username) for report in reports])
        return answer(content, self.media_type, next_link(next_url))


class ReportsView(ReportAnswersView):
    """The caller's own reports."""

    @reading(
        "List one's own reports",
        REPORT_LIST,
        "everybody",
        query=LIST_PARAMETERS,
        others=REPORT_MEDIA_TYPES,
        errors=refusals(429),
    )
    def get(self) -> Any:
        return self.page(self.user, *self.read)


class UserReportsView(ReportAnswersView):
    """A named person's reports: the caller's own, or anybody's for staff."""

    @reading(
        "List a person's reports",
        REPORT_LIST,
        "the person, doctor, admin",
        query=LIST_PARAMETERS,
        others=REPORT_MEDIA_TYPES,
        errors={**refusals(429), **UNKNOWN_PERSON},
    )
    def get(self, username: str) -> Any:
        page = self.read  # an access is logged only after the query is validated
        return self.page(self.person(username, "reports" if self.media_type == JSON else "export"), *page)


class SingleReportView(ReportAnswersView):
    """One report: the caller's own, or anybody's for staff."""

    def own_asked(self) -> OwnReports | None:
        return own_report(bottle.request.url_args["report_id"])

    @reading(
        "Show a report",
        ("The report.", "Report"),
        "the person, doctor, admin",
        others=REPORT_MEDIA_TYPES,
        errors=UNKNOWN_REPORT,
    )
    def get(self, report_id: int) -> Any:
        report, patient = self.report(report_id)
        if self.media_type == JSON:
            return answer_json(public_report(report, patient["username"]))
        return self.answer_reports([report], patient)
