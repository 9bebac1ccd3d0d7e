"""The earlier versions of a report, for staff; the upload API has them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from myhealth.clinical.in_words import plain_text
from myhealth.common.errors import NotFound
from wsgi.browse_api.context import STAFF
from wsgi.browse_pages.dates import Dates
from wsgi.browse_pages.navigation import link
from wsgi.browse_pages.report_view import report_view
from wsgi.browse_pages.reports import PatientPage
from wsgi.browse_pages.result_view import GENERAL

REASONS = {
    "corrected": "corrected here by {}",
    "replaced": "replaced by its source",
    "withdrawn": "withdrawn by its source",
}
MOMENTS = ("taken_at", "taken_until", "issued_at", "created_at")


class HistoryPage(PatientPage):
    """The earlier versions of one report, the newest first. For patients it does not exist."""

    def get(self, report_id: int) -> Any:
        if self.user["role"] not in STAFF:
            raise NotFound("There is no such report.")
        _, person = self.report(report_id)
        self.set_patient(person)
        found = self.context.upload_api.list_versions(person["username"], report_id, self.token, self.address)
        versions = [(heading(each, self.dates), sheet(each, report_id, self.dates)) for each in found]
        return self.render("history", versions=versions, general_note=GENERAL, up=link("reports", report_id))


def heading(version: dict[str, Any], dates: Dates) -> str:
    """Say until when a version was the present one, and what ended it."""
    reason = REASONS[version["reason"]].format(plain_text(version["replaced_by"]) or "somebody")
    return (
        f"Version {version['revision']}, until {dates.moment(datetime.fromisoformat(version['replaced_at']))}: {reason}"
    )


def sheet(version: dict[str, Any], report_id: int, dates: Dates) -> Any:
    """Return the view of a version's content, the columns of a check-up."""
    content = version["content"]
    moments = {name: datetime.fromisoformat(content[name]) for name in MOMENTS if content.get(name)}
    return report_view({**content, **moments, "_id": report_id}, dates)
