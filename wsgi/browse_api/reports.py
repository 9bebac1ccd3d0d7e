"""People read their reports."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import bottle

from myhealth.common.errors import BadInput, NotFound
from myhealth.reports.documents import Document
from wsgi.browse_api.context import LoggedIn
from wsgi.common.views import json_response, page_limit, page_response

# Whoever may see others' reports. A patient asking for another's gets the answer for one that is not there.
STAFF = ("doctor", "admin")


class ShowsReports(LoggedIn):
    """Lists of one patient's reports, newest first, in keyset pages linked by the Link header (RFC 8288)."""

    def page(self, patient: Document) -> Any:
        limit, after = page_limit(), _after()
        found = self.context.reports.reports_of(patient, limit=limit + 1, after=after)
        return page_response([public(report, patient["username"]) for report in found], limit, _place)


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


def _after() -> tuple[datetime, int] | None:
    """The place that the last page ended at: milliseconds since 1970, and the report's id."""
    text = bottle.request.query.get("after", "")
    if not text:
        return None
    moment, _, report_id = text.partition("_")
    try:
        place = datetime.fromtimestamp(int(moment) / 1000, UTC), int(report_id)
        if abs(place[1]) >= 2**63:
            raise ValueError(report_id)
        return place
    except (ValueError, OverflowError, OSError) as error:
        raise BadInput("after must be the value that a Link header gave.") from error


def _place(report: Document) -> str:
    return f"{round(report['taken_at'].timestamp() * 1000)}_{report['id']}"
