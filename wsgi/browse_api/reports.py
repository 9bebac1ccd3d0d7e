"""Patients' reports: lists, and single ones."""

import contextlib
from typing import Any

from myhealth.reports.documents import Document, public_report
from myhealth.reports.export.csv_table import report_lines
from myhealth.reports.export.fhir import fhir_bundle
from wsgi.browse_api.context import AuthenticatedBrowseView
from wsgi.browse_api.cursors import parse_page_cursor, report_cursor
from wsgi.browse_api.parameters import FILTER_PARAMETERS, parse_filter, parse_sort
from wsgi.browse_api.responses import CSV, FHIR, JSON, answer, cut_page, next_link
from wsgi.browse_api.schemas import (
    CACHED,
    KNOWN_TAG,
    LIST_FILTERS,
    PAGE_PARAMETERS,
    REPORT_MEDIA_TYPES,
    UNKNOWN_PERSON,
    UNKNOWN_REPORT,
    refusals,
)
from wsgi.common.application import encode_json
from wsgi.common.openapi import Operation
from wsgi.common.requests import accepted_type, query_parameters
from wsgi.common.site_address import site
from wsgi.common.views import page_limit

REPORT_LIST = {200: ("Reports, the newest first; the `Link` header leads to the next page.", ["Report"]), **CACHED}


class ReportAnswersView(AuthenticatedBrowseView):
    """A view that answers with one patient's reports, as JSON, FHIR or CSV."""

    def page(self, patient: Document, asked: dict[str, str], media_type: str) -> Any:
        """Answer with one page of a list. Raises TooManyAttempts for a user's second export at the same time."""
        with contextlib.nullcontext() if media_type == JSON else self.context.exports.hold(self.user["subject"]):
            return self._page(patient, asked, media_type)

    def _page(self, patient: Document, asked: dict[str, str], media_type: str) -> Any:
        limit, options = read_page(asked)
        found = self.context.reports.find(patient, limit=limit + 1, **options)
        page, next_url = cut_page(found, limit, report_cursor, asked)
        return self.answer_reports(page, patient, media_type, next_url)

    def answer_reports(self, reports: list[Document], patient: Document, media_type: str, next_url: str = "") -> Any:
        username = patient["username"]
        if media_type == CSV:
            content = "".join(report_lines(reports, username)).encode()
        elif media_type == FHIR:
            url = site().base_url() + next_url if next_url else None
            content = encode_json(fhir_bundle(reports, patient, next_url=url))
        else:
            content = encode_json([public_report(report, username) for report in reports])
        return answer(content, media_type, next_link(next_url))


class ReportsView(ReportAnswersView):
    """The caller's own reports."""

    spec = {
        "get": Operation(
            "One's own reports",
            REPORT_LIST,
            "everybody",
            query=(*PAGE_PARAMETERS, *LIST_FILTERS),
            headers=KNOWN_TAG,
            others=REPORT_MEDIA_TYPES,
            errors=refusals(400, 406, 429),
        )
    }

    def get(self) -> Any:
        asked = read_parameters()
        return self.page(self.user, asked, accepted_type(JSON, FHIR, CSV))


class UserReportsView(ReportAnswersView):
    """A named person's reports: the caller's own, or anybody's for staff."""

    spec = {
        "get": Operation(
            "A person's reports",
            REPORT_LIST,
            "the person, doctor, admin",
            query=(*PAGE_PARAMETERS, *LIST_FILTERS),
            headers=KNOWN_TAG,
            others=REPORT_MEDIA_TYPES,
            errors={**refusals(400, 406, 429), **UNKNOWN_PERSON},
        )
    }

    def get(self, username: str) -> Any:
        asked, media_type = read_parameters(), accepted_type(JSON, FHIR, CSV)
        read_page(asked)  # an access is logged only after the query is validated
        return self.page(self.person(username, "reports" if media_type == JSON else "export"), asked, media_type)


class ReportView(ReportAnswersView):
    """One report: the caller's own, or anybody's for staff."""

    spec = {
        "get": Operation(
            "One report",
            {200: ("The report.", "Report"), **CACHED},
            "whose it is, doctor, admin",
            headers=KNOWN_TAG,
            others=REPORT_MEDIA_TYPES,
            errors={**refusals(400, 406), **UNKNOWN_REPORT},
        )
    }

    def get(self, report_id: int) -> Any:
        query_parameters()
        media_type = accepted_type(JSON, FHIR, CSV)
        report, patient = self.report(report_id)
        if media_type == JSON:
            return answer(encode_json(public_report(report, patient["username"])))
        return self.answer_reports([report], patient, media_type)


def read_parameters() -> dict[str, str]:
    """Return the parameters of a page of reports. Raises BadInput."""
    return query_parameters("limit", "after", "sort", *FILTER_PARAMETERS)


def read_page(asked: dict[str, str]) -> tuple[int, dict[str, Any]]:
    """Return the limit, and the other arguments for `ReportRepository.find`. Raises BadInput."""
    sort, after = parse_sort(asked.get("sort", "")), parse_page_cursor(asked.get("after", ""))
    return page_limit(asked), {"wanted": parse_filter(asked), "sort": sort, "after": after}
