"""What staff has to review: abnormal reports of all patients that nobody has reviewed."""

from __future__ import annotations

from typing import Any

import bottle

from myhealth.common.errors import NotFound, Unavailable
from myhealth.reports.access_log import Access
from wsgi.browse_api.parameters import parse_page_cursor, report_cursor
from wsgi.browse_pages.base import LoggedInPage
from wsgi.browse_pages.filters import BACKWARDS, choices, parse_report_query
from wsgi.browse_pages.navigation import link
from wsgi.browse_pages.person_view import person_view
from wsgi.browse_pages.report_view import rows_of_reports

PAGE = 20


class ToReviewPage(LoggedInPage):
    """The newest first. Each patient on the page finds the access in the access log."""

    parameters = ("machine", "site", "from", "to", "after")

    def get(self) -> Any:
        if not self.is_staff:
            raise NotFound("There is nothing at this address.")
        query, after = parse_report_query(self.dates), parse_page_cursor(bottle.request.query.getunicode("after", ""))
        site = bottle.request.query.getunicode("site", "").strip()
        sites = self.context.sites(self.token, self.address)
        if site and sites is None:
            raise Unavailable("The machines of a site are not known right now.")
        machines, asked = (sites or {}).get(site, []) if site else None, {**query.values, "site": site}
        found = self.context.reports.to_review(query.wanted, limit=PAGE + 1, after=after, machines=machines)
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
            sites=choices(asked, "site", [(each, each) for each in sites or ()]),
            filter_words=", ".join(filter(None, (query.words(self.dates, found), site and f"at {site}"))),
            backwards=BACKWARDS if query.is_backwards else "",
            older=link("to-review", **asked, after=report_cursor(found[PAGE - 1])) if len(found) > PAGE else "",
            first=link("to-review", **asked) if after else "",
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
