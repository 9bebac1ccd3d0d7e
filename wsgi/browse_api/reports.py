"""People read their reports."""

from __future__ import annotations

from typing import Any

import bottle

from myhealth.reports.documents import Document
from myhealth.reports.export.csv_table import report_lines
from myhealth.reports.export.fhir import fhir_bundle
from myhealth.reports.filters import PARAMETERS, PageCursor, list_reports, read_filter, read_sort
from wsgi.browse_api.context import AuthenticatedBrowseView
from wsgi.browse_api.responses import CSV, FHIR, JSON, answer, cut_page, next_link
from wsgi.browse_api.schemas import CACHED, FILTERS, KINDS, KNOWN_TAG, PAGE, UNKNOWN_REPORT, UNKNOWN_USER, refusals
from wsgi.common.application import encode_json
from wsgi.common.openapi import Operation
from wsgi.common.requests import accepted_type, query_parameters
from wsgi.common.views import page_limit

LIST = {200: ("Reports, the newest first; the `Link` header leads to the next page.", ["Report"]), **CACHED}


class ShowsReports(AuthenticatedBrowseView):
    """Lists of one patient's reports in keyset pages, as JSON, FHIR or CSV."""

    def page(self, patient: Document, asked: dict[str, str], kind: str) -> Any:
        limit, options = read_page(asked)
        found = list_reports(self.context.reports, patient, limit=limit + 1, **options)
        page, next_url = cut_page(found, limit, PageCursor.of, asked)
        return self.answer_reports(page, patient, kind, next_url)

    def answer_reports(self, reports: list[Document], patient: Document, kind: str, next_url: str = "") -> Any:
        username = patient["username"]
        if kind == CSV:
            content = "".join(report_lines(reports, username)).encode()
        elif kind == FHIR:
            url = bottle.request.urlparts._replace(path="", query="", fragment="").geturl() + next_url
            content = encode_json(fhir_bundle(reports, patient, next_url=url if next_url else None))
        else:
            content = encode_json([public(report, username) for report in reports])
        return answer(content, kind, next_link(next_url))


class ReportsView(ShowsReports):
    """One's own reports."""

    spec = {
        "get": Operation(
            "One's own reports",
            LIST,
            "everybody",
            query=(*PAGE, *FILTERS),
            headers=KNOWN_TAG,
            others=KINDS,
            errors=refusals(400, 406),
        )
    }

    def get(self) -> Any:
        asked = read_parameters()
        return self.page(self.user, asked, accepted_type(JSON, FHIR, CSV))


class UserReportsView(ShowsReports):
    """A named person's reports: one's own, or anybody's for staff."""

    spec = {
        "get": Operation(
            "A person's reports",
            LIST,
            "the person, doctor, admin",
            query=(*PAGE, *FILTERS),
            headers=KNOWN_TAG,
            others=KINDS,
            errors={**refusals(400, 406), **UNKNOWN_USER},
        )
    }

    def get(self, username: str) -> Any:
        asked, kind = read_parameters(), accepted_type(JSON, FHIR, CSV)
        read_page(asked)  # before a look is noted, of which nothing would come
        return self.page(self.person(username, "reports" if kind == JSON else "export"), asked, kind)


class ReportView(ShowsReports):
    """One report: one's own, or anybody's for staff."""

    spec = {
        "get": Operation(
            "One report",
            {200: ("The report.", "Report"), **CACHED},
            "whose it is, doctor, admin",
            headers=KNOWN_TAG,
            others=KINDS,
            errors={**refusals(400, 406), **UNKNOWN_REPORT},
        )
    }

    def get(self, report_id: int) -> Any:
        query_parameters()
        kind = accepted_type(JSON, FHIR, CSV)
        report, patient = self.report(report_id)
        if kind == JSON:
            return answer(encode_json(public(report, patient["username"])))
        return self.answer_reports([report], patient, kind)


def read_parameters() -> dict[str, str]:
    """The parameters of a page of reports. Raises BadInput."""
    return query_parameters("limit", "after", "sort", *PARAMETERS)


def read_page(asked: dict[str, str]) -> tuple[int, dict[str, Any]]:
    """How many reports the parameters ask for, and which, as `list_reports` takes it. Raises BadInput."""
    after = PageCursor.parse(asked.get("after", ""))
    return page_limit(asked), {"wanted": read_filter(asked), "sort": read_sort(asked.get("sort", "")), "after": after}


def public(report: Document, username: str | None) -> Document:
    """A report as answers show it: the document with `id` for `_id`, and the patient's name."""
    shown = {"id": report["_id"], "username": username, **report}
    del shown["_id"], shown["subject"]
    return shown
