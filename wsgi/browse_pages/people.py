"""Finding a patient, for staff; and who looked into a record, for everybody into one's own."""

from __future__ import annotations

from typing import Any

import bottle

from myhealth.common.errors import NotFound
from wsgi.browse_api.context import STAFF
from wsgi.browse_api.cursors import access_cursor, format_search_cursor, parse_access_cursor
from wsgi.browse_api.parameters import parse_search
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
        wanted = parse_search({"search": asked, "role": "patient", "after": after})
        found = self.context.reports.people.search(wanted, limit=PAGE + 1)
        self.log_access(None, "people")
        older = ""
        if len(found) > PAGE:
            cursor = format_search_cursor(wanted.cursor_of(found[PAGE - 1]))
            older = link("patients", q=asked, after=cursor)
        first = link("patients", q=asked) if after else ""
        return self.render("patients", q=asked, people=found[:PAGE], older=older, first=first, here="patients")


class AccessLogPage(PatientPage):
    """Who else looked into a record, the newest look first."""

    def get(self, username: str = "") -> Any:
        after = parse_access_cursor(bottle.request.query.getunicode("after", ""))
        person = self.whose(username, "access log")
        found = self.context.reports.access_log.find_for_patient(person, limit=PAGE + 1, after=after)
        older = self.path("looks", after=access_cursor(found[PAGE - 1])) if len(found) > PAGE else ""
        actors = {look.actor_subject for look in found if look.actor_subject}
        return self.render(
            "looks",
            looks=found[:PAGE],
            full_names=self.context.reports.people.full_names(actors) if actors else {},
            older=older,
            first=self.path("looks"),
            further=after is not None,
            patient=self.patient,
            here=self.tab("looks"),
        )
