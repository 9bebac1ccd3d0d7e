"""What staff has to review: abnormal reports of all patients that nobody has reviewed."""

from __future__ import annotations

from typing import Any

import bottle

from myhealth.common.errors import NotFound
from myhealth.reports.access_log import Access
from wsgi.browse_api.cursors import parse_page_cursor, report_cursor
from wsgi.browse_pages.base import LoggedInPage
from wsgi.browse_pages.filters import BACKWARDS, parse_report_query
from wsgi.browse_pages.navigation import link
from wsgi.browse_pages.person_view import person_view
from wsgi.browse_pages.report_view import rows_of_reports

PAGE = 20


class ToReviewPage(LoggedInPage):
    """The newest first. Each patient on the page finds the access in the access log."""

    parameters = ("machine", "from", "to", "after")

    def get(self) -> Any:
        if not self.is_staff:
            raise NotFound("There is nothing at this address.")
        query, after = parse_report_query(self.dates), parse_page_cursor(bottle.request.query.getunicode("after", ""))
        found = self.context.reports.to_review(query.wanted, limit=PAGE + 1, after=after)
        shown = found[:PAGE]
        patients = {each["subject"]: each for each in self.patients({report["subject"] for report in shown})}
        rows = [
            (row, person_view(patients[report["subject"]]))
            for report, row in zip(shown, rows_of_reports(shown, self.dates), strict=True)
            if report["subject"] in patients
        ]
        return self.render(
            "to_review",
            rows=rows,
            values=query.values,
            filter_words=query.words(self.dates, found),
            backwards=BACKWARDS if query.is_backwards else "",
            older=link("to-review", **query.values, after=report_cursor(found[PAGE - 1])) if len(found) > PAGE else "",
            first=link("to-review", **query.values) if after else "",
            all_of_them=link("to-review"),
            here="to-review",
        )

    def patients(self, subjects: set[str]) -> list[dict[str, Any]]:
        """Return the patients; the access is logged for all of them in one write."""
        found = self.context.reports.people.named(sorted(subjects), ())
        self.context.reports.access_log.log(
            *(Access(self.user, patient, "to review", address=self.address) for patient in found)
        )
        return found
