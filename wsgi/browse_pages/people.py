"""The search for patients, for staff; and the access log of a record, for its owner and for staff."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import bottle

from myhealth.common.errors import NotFound
from myhealth.reports.access_log import Access, AccessEvent
from myhealth.reports.user_search import name_cursor
from wsgi.browse_api.parameters import access_cursor, format_search_cursor, parse_access_cursor, parse_search
from wsgi.browse_pages.base import LoggedInPage, Page, redirect
from wsgi.browse_pages.blocks import blocks_of
from wsgi.browse_pages.dates import Dates
from wsgi.browse_pages.navigation import link
from wsgi.browse_pages.person_view import PersonView, person_view
from wsgi.browse_pages.report_view import report_views
from wsgi.browse_pages.reports import PatientPage

EVENTS, PAGE, RECENT = 50, 20, 8
# The words for an event's `what`, for the person whose record it is.
ACCESS_WORDS = {
    "reports": "the list of reports",
    "reports to print": "reports, to print them",
    "export": "reports, to download them",
    "access log": "who looked",
    "search": "a search for patients, with what the last report was",
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


class LastReport(NamedTuple):
    """The newest report of a patient. `outside`: how many measurements are outside their range; `is_far`: one far."""

    kind: str
    day: str
    outside: int
    is_far: bool


class PatientsPage(LoggedInPage):
    """Patients by their names. For users who are not staff this page does not exist."""

    parameters = ("q", "after")

    def get(self) -> Any:
        if not self.is_staff:
            raise NotFound("There is nothing at this address.")
        search = bottle.request.query.getunicode("q", "").strip()
        after = bottle.request.query.getunicode("after", "")
        wanted = parse_search({"search": search, "role": "patient", "after": after})
        people, cursor_of = self.context.reports.people, wanted.cursor_of if search else name_cursor
        if search:
            found = people.search(wanted, limit=PAGE + 1)
        else:
            found = people.patients_by_name(limit=PAGE + 1, after=wanted.after)
        shown = found[:PAGE]
        accesses = [Access(self.user, person, "search", address=self.address) for person in shown if search]
        self.context.reports.access_log.log(Access(self.user, None, "people", address=self.address), *accesses)
        last = self.last_reports(shown) if search else {}
        rows = [(person_view(person), last.get(person["subject"])) for person in shown]
        return self.render(
            "patients",
            search=search,
            people=sorted(rows, key=lambda row: row[0].name.casefold()) if search else rows,
            recent=[] if search or after else self.recent(),
            older=link("patients", q=search, after=format_search_cursor(cursor_of(found[PAGE - 1])))
            if len(found) > PAGE
            else "",
            first=link("patients", q=search) if after else "",
            here="patients",
        )

    def last_reports(self, people: list[dict[str, Any]]) -> dict[str, LastReport]:
        """Return the newest report of each patient who has one, by subject."""
        reports, found = self.context.reports.last_of_each(people), {}
        for subject, view in zip(reports, report_views([*reports.values()], self.dates), strict=True):
            outside = [block for block in blocks_of(view.results) if block.is_unusual]
            is_far = any(block.is_far for block in outside)
            found[subject] = LastReport(view.kind, view.date.day, len(outside), is_far)
        return found

    def recent(self) -> list[PersonView]:
        """Return the patients whose records the user opened last."""
        subjects = self.context.reports.access_log.opened_by(self.user, RECENT)
        known = {each["subject"]: each for each in self.context.reports.people.named(subjects, ())}
        return [person_view(known[subject]) for subject in subjects if subject in known]


class AccessLogPage(PatientPage):
    """The accesses of others to a record, the newest first."""

    parameters = ("after",)

    def get(self, username: str = "") -> Any:
        after = parse_access_cursor(bottle.request.query.getunicode("after", ""))
        person = self.read_person(username, "access log")
        found = self.context.reports.access_log.find_for_patient(person, limit=EVENTS + 1, after=after)
        actors = {event.actor_subject for event in found if event.actor_subject}
        full_names = self.context.reports.people.full_names(actors) if actors else {}
        return self.render(
            "access_log",
            events=[access_view(event, full_names, self.dates) for event in found[:EVENTS]],
            older=self.path("access-log", after=access_cursor(found[EVENTS - 1])) if len(found) > EVENTS else "",
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
