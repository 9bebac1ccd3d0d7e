"""People read their reports."""

from __future__ import annotations

from typing import Any

import bottle

from myhealth.common.errors import NotFound
from myhealth.reports.documents import Document
from myhealth.reports.queries import Place, list_reports
from wsgi.browse_api.context import LoggedIn
from wsgi.common.views import json_response, page_limit, page_response

# Whoever may see others' reports. A patient asking for another's gets the answer for one that is not there.
STAFF = ("doctor", "admin")


class ShowsReports(LoggedIn):
    """Lists of one patient's reports, newest first, in keyset pages linked by the Link header (RFC 8288)."""

    def page(self, patient: Document) -> Any:
        limit, after = page_limit(), Place.parse(bottle.request.query.getunicode("after", ""))
        found = list_reports(self.context.reports, patient, limit=limit + 1, after=after)
        return page_response(
            [public(report, patient["username"]) for report in found], limit, lambda report: str(Place.of(report))
        )


class ReportsView(ShowsReports):
    """One's own reports."""

    def get(self) -> Any:
        return self.page(self.user)


class UserReportsView(ShowsReports):
    """A named person's reports: one's own, or anybody's for staff."""

    def get(self, username: str) -> Any:
        patient = self.context.reports.user_named(username)
        if patient is None or (patient["subject"] != self.user["subject"] and self.user["role"] not in STAFF):
            raise NotFound(f"{username} Does not Exists", code="unknown_user")
        return self.page(patient)


class ReportView(LoggedIn):
    """One report: one's own, or anybody's for staff."""

    def get(self, report_id: int) -> Any:
        report = self.context.reports.report(report_id) if abs(report_id) < 2**63 else None
        if report is None or (report["subject"] != self.user["subject"] and self.user["role"] not in STAFF):
            raise NotFound("There is no such report.")
        names = self.context.reports.usernames([report["subject"]])
        return json_response(public(report, names.get(report["subject"])))


def public(report: Document, username: str | None) -> Document:
    """A report as answers show it: the document with `id` for `_id`, and the patient's name."""
    report = dict(report)
    del report["subject"]
    return {"id": report.pop("_id"), "username": username, **report}
