"""Finding a patient, for staff; and who looked into a record, for everybody into one's own."""

from __future__ import annotations

from typing import Any

import bottle

from myhealth.common.errors import NotFound
from wsgi.browse_api.context import STAFF
from wsgi.browse_api.cursors import access_cursor, format_search_cursor, parse_access_cursor
from wsgi.browse_api.parameters import parse_search
from wsgi.browse_pages.base import LoggedInPage, Page, redirect
from wsgi.browse_pages.navigation import link
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
    """The accesses of others to a record, the newest first."""

    def get(self, username: str = "") -> Any:
        after = parse_access_cursor(bottle.request.query.getunicode("after", ""))
        person = self.whose(username, "access log")
        found = self.context.reports.access_log.find_for_patient(person, limit=PAGE + 1, after=after)
        older = self.path("access-log", after=access_cursor(found[PAGE - 1])) if len(found) > PAGE else ""
        actors = {event.actor_subject for event in found if event.actor_subject}
        return self.render(
            "access_log",
            events=found[:PAGE],
            full_names=self.context.reports.people.full_names(actors) if actors else {},
            older=older,
            first=self.path("access-log"),
            further=after is not None,
            patient=self.patient,
            here=self.tab("access-log"),
        )


class AccessLogMoved(Page):
    """Redirects from the earlier address of the access log, /my/looks."""

    def get(self, username: str = "") -> Any:
        path = link("patients", username, "access-log") if username else link("access-log")
        query = bottle.request.query_string
        return redirect(f"{path}?{query}" if query else path, 301)
