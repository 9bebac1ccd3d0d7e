"""Finding a patient, for staff; and who looked into a record, for everybody into one's own."""

from __future__ import annotations

from typing import Any

import bottle

from myhealth.common.errors import NotFound
from myhealth.reports.access_log import cursor_of, list_access_log, log_access, parse_cursor
from myhealth.reports.user_search import find_people, read_search
from wsgi.browse_api.context import STAFF
from wsgi.browse_pages.base import LoggedInPage, link
from wsgi.browse_pages.reports import PatientPage

PAGE = 50


class PatientsPage(LoggedInPage):
    """Patients by their names. For whoever is not staff there is no such page."""

    def get(self) -> Any:
        if self.user["role"] not in STAFF:
            raise NotFound("There is nothing at this address.")
        asked = bottle.request.query.getunicode("q", "").strip()
        after = bottle.request.query.getunicode("after", "")
        wanted = read_search({"search": asked, "role": "patient", "after": after})
        found = find_people(self.context.reports, wanted, limit=PAGE + 1)
        log_access(self.context.reports, self.user, None, "people", address=self.address)
        older = link("patients", q=asked, after=wanted.place(found[PAGE - 1])) if len(found) > PAGE else ""
        first = link("patients", q=asked) if after else ""
        return self.render("patients", q=asked, people=found[:PAGE], older=older, first=first, here="patients")


class AccessLogPage(PatientPage):
    """Who else looked into a record, the newest look first."""

    def get(self, username: str = "") -> Any:
        after = parse_cursor(bottle.request.query.getunicode("after", ""))
        person = self.whose(username, "access log")
        found = list_access_log(self.context.reports, person, limit=PAGE + 1, after=after)
        older = self.path("looks", after=cursor_of(found[PAGE - 1])) if len(found) > PAGE else ""
        actors = {look.actor_subject for look in found if look.actor_subject}
        return self.render(
            "looks",
            looks=found[:PAGE],
            full_names=self.context.reports.full_names(actors) if actors else {},
            older=older,
            first=self.path("looks"),
            further=after is not None,
            patient=self.patient,
            here=self.tab("looks"),
        )
