"""For staff: the search for patients, and what is to be reviewed; for admins: the accounts that registered themselves,
which the upload API links to persons. And the access log of a record, for its owner and for staff."""

from datetime import datetime
from typing import Any, NamedTuple

import bottle
from msgspec import Struct

from myhealth.common.errors import NotFound, Unavailable
from myhealth.reports.access_log import Access, AccessEvent
from myhealth.reports.user_search import name_cursor
from wsgi.browse_api.parameters import (
    access_cursor,
    format_search_cursor,
    parse_access_cursor,
    parse_page_cursor,
    parse_search,
    report_cursor,
)
from wsgi.browse_pages import session
from wsgi.browse_pages.base import LoggedInPage, Page, redirect
from wsgi.browse_pages.dates import Dates
from wsgi.browse_pages.filters import BACKWARDS, choices, parse_report_query
from wsgi.browse_pages.navigation import PersonView, link, person_view
from wsgi.browse_pages.report_view import report_views, rows_of_reports
from wsgi.browse_pages.reports import PatientPage
from wsgi.browse_pages.result_view import blocks_of, present_all

EVENTS, RECENT = 50, 8
PAGE = 20
# The words for an event's `what`, for the person whose record it is.
ACCESS_WORDS = {
    "reports": "the list of reports",
    "reports to print": "reports, to print them",
    "export": "reports, to download them",
    "access log": "who looked",
    "search": "a search for patients, with their last reports",
    "to review": "the list of reports to review",
    "profile": "name and account, to see or to change them",
    "checkups": "check-ups, where they are entered",
    "history": "earlier versions of a check-up",
    "rejection": "a record that was sent and not accepted",
    "correction": "a check-up, to correct it",
    "password": "set a new password",
    "invitation": "made a code that sets a password",
}


class AccessView(Struct, frozen=True):
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
    """The newest report of a patient. `outside`: how many measurements are outside their range, in words, or ""."""

    kind: str
    day: str
    outside: str


def outside_words(outside: int, far: int) -> str:
    """Return "3 outside the usual range, 1 of them far"; "" if none is outside."""
    if outside and far == outside:
        return f"{far} far outside the usual range"
    return f"{outside} outside the usual range{(far and f', {far} of them far') or ''}" if outside else ""


class PatientsPage(LoggedInPage):
    """Patients by their names. For users who are not staff this page does not exist."""

    parameters = ("q", "after")

    def get(self) -> Any:
        self.only_for(self.is_staff)
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
            outside = [block.is_far for block in blocks_of(view.results) if block.is_unusual]
            found[subject] = LastReport(view.kind, view.date.day, outside_words(len(outside), sum(outside)))
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


class ToReviewPage(LoggedInPage):
    """Those far outside first, then the newest first. Each patient on the page finds the access in the access log."""

    parameters = ("machine", "site", "from", "to", "after", "far")

    def get(self) -> Any:
        self.only_for(self.is_staff)
        query, after = parse_report_query(self.dates), parse_page_cursor(bottle.request.query.getunicode("after", ""))
        site = bottle.request.query.getunicode("site", "").strip()
        sites = self.context.sites(self.token, self.address)
        if site and sites is None:
            raise Unavailable("The machines of a site are not known right now.")
        machines, asked = (sites or {}).get(site, []) if site else None, {**query.values, "site": site}
        behind_far = bottle.request.query.get("far") == "no"
        found = self.context.reports.to_review(
            query.wanted, limit=PAGE + 1, after=after, machines=machines, behind_far=behind_far
        )
        shown, older = found[:PAGE], ""
        if len(found) > PAGE:
            far = None if shown[-1].get("far") else "no"
            older = link("to-review", **asked, after=report_cursor(shown[-1]), far=far)
        patients = self.patients({report["subject"] for report in shown})
        names = {each["subject"]: person_view(each).name for each in patients}
        views = present_all(shown, self.dates.moment)
        rows = [
            row._replace(whose=names[report["subject"]], day=row.date.short, mark="far outside" if row.is_far else "")
            for report, row in zip(shown, rows_of_reports(shown, views, self.dates), strict=True)
            if report["subject"] in names
        ]
        return self.render(
            "to_review",
            rows=rows,
            values=query.values,
            sites=choices(asked, "site", [(each, each) for each in sites or ()]),
            filter_words=", ".join(filter(None, (query.words(self.dates, found), site and f"at {site}"))),
            backwards=BACKWARDS if query.is_backwards else "",
            older=older,
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


GONE = "There is no account {} any more. Nothing was changed."
LINKED = "The account {} is linked. {}"
NONE_WAITED = "Records that come from now on are stored."


class AccountsPage(LoggedInPage):
    """GET lists accounts that are not linked to a person; POST links one. For others than admins it does not exist."""

    parameters = ("after",)

    def prepare(self) -> None:
        super().prepare()
        self.only_for(self.is_admin)

    def get(self) -> Any:
        return self._list()

    def post(self) -> Any:
        form = session.read_form()
        session.require_form_key(form, self.token)
        username = form.get("username", "")
        try:
            done = self.context.upload_api.link_user(username, self.token, self.address)
        except NotFound:
            return self._list(GONE.format(username), 404)
        return self._list(LINKED.format(username, account_outcome(done)))

    def _list(self, message: str = "", status: int = 200) -> bottle.HTTPResponse:
        after = bottle.request.query.getunicode("after", "")
        found = self.context.upload_api.list_accounts_to_review(self.token, after, PAGE + 1, self.address)
        accounts = [
            (
                person_view(each),
                each["username"],
                self.dates.day(datetime.fromisoformat(each["created_at"])),
                waiting_words(each["waiting"]),
            )
            for each in found[:PAGE]
        ]
        more = link("accounts", after=found[PAGE - 1]["username"]) if len(found) > PAGE else ""
        return self.render(
            "accounts", status, accounts=accounts, more=more, first=after and link("accounts"), message=message,
            tone="bad" if status != 200 else "", here="accounts",
        )  # fmt: skip


def waiting_words(count: int) -> str:
    """Say how many rejected records wait for an account."""
    return f"{count:,} record{'s'[: count != 1]} waiting" if count else "no record waiting"


def account_outcome(done: dict[str, Any]) -> str:
    """Say what became of the records that waited for an account."""
    counts = [(done["accepted"], "stored"), (done["duplicate"], "duplicate"), (done["rejected"], "still rejected")]
    told = ", ".join(f"{count:,} {what}" for count, what in counts if count)
    return f"Of the records that waited: {told}." if told else NONE_WAITED
