"""The search for patients, for staff; and the access log of a record, for its owner and for staff."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import bottle

from myhealth.common.errors import NotFound
from myhealth.reports.access_log import AccessEvent
from wsgi.browse_api.cursors import access_cursor, format_search_cursor, parse_access_cursor
from wsgi.browse_api.parameters import parse_search
from wsgi.browse_pages.base import LoggedInPage, Page, redirect
from wsgi.browse_pages.dates import Dates
from wsgi.browse_pages.navigation import link
from wsgi.browse_pages.person_view import person_view
from wsgi.browse_pages.reports import PatientPage

PAGE = 50
# The words for an event's `what`, for the person whose record it is.
ACCESS_WORDS = {
    "reports": "the list of reports",
    "reports to print": "reports, to print them",
    "export": "reports, to download them",
    "access log": "who looked",
    "to review": "the list of reports to review",
    "profile": "name and account",
    "checkups": "check-ups, where they are entered",
    "history": "earlier versions of a check-up",
    "rejection": "a record that was sent and not accepted",
    "password": "set a new password",
}


@dataclass(frozen=True)
class AccessView:
    """One access as the page shows it. `actor`: a full name, or a username without one; `details`: the username beside
    a full name, and the role; `report_id`: with its address `path`, if a single report was read."""

    time: str
    iso: str
    actor: str
    details: str
    words: str
    report_id: int | None
    path: str


class PatientsPage(LoggedInPage):
    """Patients by their names. For users who are not staff this page does not exist."""

    parameters = ("q", "after")

    def get(self) -> Any:
        if not self.is_staff:
            raise NotFound("There is nothing at this address.")
        search = bottle.request.query.getunicode("q", "").strip()
        after = bottle.request.query.getunicode("after", "")
        wanted = parse_search({"search": search, "role": "patient", "after": after})
        found = self.context.reports.people.search(wanted, limit=PAGE + 1)
        self.log_access(None, "people")
        return self.render(
            "patients",
            search=search,
            people=[person_view(person) for person in found[:PAGE]],
            older=link("patients", q=search, after=format_search_cursor(wanted.cursor_of(found[PAGE - 1])))
            if len(found) > PAGE
            else "",
            first=link("patients", q=search) if after else "",
            here="patients",
        )


class AccessLogPage(PatientPage):
    """The accesses of others to a record, the newest first."""

    parameters = ("after",)

    def get(self, username: str = "") -> Any:
        after = parse_access_cursor(bottle.request.query.getunicode("after", ""))
        person = self.read_person(username, "access log")
        found = self.context.reports.access_log.find_for_patient(person, limit=PAGE + 1, after=after)
        actors = {event.actor_subject for event in found if event.actor_subject}
        full_names = self.context.reports.people.full_names(actors) if actors else {}
        return self.render(
            "access_log",
            events=[access_view(event, full_names, self.dates) for event in found[:PAGE]],
            older=self.path("access-log", after=access_cursor(found[PAGE - 1])) if len(found) > PAGE else "",
            first=self.path("access-log"),
            is_later_page=after is not None,
            here="access-log",
        )


class AccessLogMoved(Page):
    """Redirects the page's earlier address, /my/looks."""

    def get(self, username: str = "") -> Any:
        path = link("patients", username, "access-log") if username else link("access-log")
        query = bottle.request.query_string
        return redirect(f"{path}?{query}" if query else path, 301)


def access_view(event: AccessEvent, full_names: dict[str, str], dates: Dates) -> AccessView:
    """Return the view of one access. `full_names`: by subject, of the actors who have one."""
    full_name = full_names.get(event.actor_subject or "", "")
    details = [event.actor] * bool(full_name) + [event.actor_role] * bool(event.actor_role)
    return AccessView(
        time=f"{dates.day(event.at)}, {dates.clock(event.at)}",
        iso=dates.iso(event.at),
        actor=full_name or event.actor,
        details=", ".join(details),
        words=ACCESS_WORDS.get(event.what, event.what),
        report_id=event.report_id,
        path=link("reports", event.report_id) if event.report_id is not None else "",
    )
