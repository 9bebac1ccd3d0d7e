"""The list of reports, one report and its earlier versions, the filter's form, and many reports for paper."""

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cached_property, partial
from typing import Any, NamedTuple

import bottle

from myhealth.clinical.guide import far_of
from myhealth.clinical.in_words import kind_text, mappings, name_text, plain_text
from myhealth.common.errors import BadInput, Conflict, NotFound
from myhealth.reports.facts import Facts
from myhealth.reports.filters import OwnReports, PageCursor, own_report, own_reports
from wsgi.browse_api.parameters import FILTER_PARAMETERS, parse_page_cursor, report_cursor
from wsgi.browse_pages import session
from wsgi.browse_pages.base import LoggedInPage, redirect
from wsgi.browse_pages.dates import Dates
from wsgi.browse_pages.filters import BACKWARDS, ReportQuery, chips, choices, parse_report_query
from wsgi.browse_pages.glance import POINTS, folded, glance_groups, last_time, newest_results
from wsgi.browse_pages.navigation import link, person_view
from wsgi.browse_pages.report_view import ReportView, months_of, report_views, rows_of_reports
from wsgi.browse_pages.result_view import GENERAL, IMPOSSIBLE, Meter, ResultView, blocks_of, meter_of, present_all

PAGE, PRINT_MAX = 20, 200
SET_BY_ANOTHER = (
    "Since your last login, somebody else has set your password. If you did not ask for that, please change it, and ask"
    " the place where you had your check-up."
)
NOTED = "It is noted. It shows here in a few minutes."
TAKEN_BACK = "The review is taken back, with its note. It leaves this page in a few minutes."
NOT_REVIEWED = (
    "Nothing was noted: the report has been changed meanwhile, perhaps by your own review. Look at it again in a few"
    " minutes."
)
MANY = 12  # more results than a reader sees at a glance
ROUNDS = 4  # queries for the values of the last time, of which the first reads few reports


class ReportBlock(NamedTuple):
    """A measurement of a report. `parts`: its own words, result and bar of each value; `before`: the last time."""

    block: ResultView
    parts: list[tuple[str, ResultView, Meter | None]]
    before: str
    path: str


class PatientPage(LoggedInPage):
    """A page about one person: the user, or for staff a patient by name."""

    def read_person(self, username: str, what: str) -> dict[str, Any]:
        """Return the person of the page: the user if `username` is "". An access of staff to `what` is logged before
        anything is shown. Raises NotFound alike for an unknown name and for a person whom the user may not see."""
        person = self.person(username, what) if username else self.user
        self.set_patient(person)
        return person

    def set_patient(self, person: dict[str, Any]) -> None:
        """Set whose record the page shows."""
        self.patient = None if person["subject"] == self.user["subject"] else person

    @property
    def path(self) -> Callable[..., str]:
        """`link` for the pages about the same person."""
        return partial(link, "patients", self.patient["username"]) if self.patient else link


class ReportsPage(PatientPage):
    """Reports, newest first."""

    parameters = (*FILTER_PARAMETERS, "after")

    @cached_property
    def asked(self) -> tuple[ReportQuery, PageCursor | None]:
        return parse_report_query(self.dates), parse_page_cursor(bottle.request.query.getunicode("after", ""))

    def own_asked(self) -> OwnReports | None:
        query, after = self.asked
        of_patient = "username" in bottle.request.url_args
        return None if of_patient else own_reports(query.wanted, limit=PAGE + 1, after=after)

    def get(self, username: str = "") -> Any:
        query, after = self.asked
        person = self.read_person(username, "reports")
        path, is_first = self.path, not query.values and after is None
        found = self.find(person, wanted=query.wanted, limit=PAGE + 1, after=after)
        if is_first and len(found) > PAGE:
            newest = self.context.glance(self.user, person, POINTS, found)
        else:
            rounds, read = (0, found) if is_first else (1, ())
            newest = self.context.reports.newest(person, POINTS, rounds=rounds, read=read)
        points = newest.points() if is_first else {}
        glanced, *views = present_all([newest_results(points), *found[:PAGE]], self.dates.moment)
        since = None if self.patient else session.previous_login()
        has_notice = self.patient is None and session.cookie(session.NOTICE) == session.SET_BY_ANOTHER
        answer = self.render(
            "reports",
            notice=SET_BY_ANOTHER if has_notice else "",
            title="My reports" if self.patient is None else "Reports",
            glance=folded(glance_groups(points, glanced, self.dates, path)),
            months=months_of(rows_of_reports(found[:PAGE], views, self.dates, since)),
            filter_words=query.words(self.dates, found),
            backwards=BACKWARDS if query.is_backwards else "",
            chips=chips(newest.kinds, query, path),
            older=path(**query.values, after=report_cursor(found[PAGE - 1])) if len(found) > PAGE else "",
            first=path(),
            first_of_these=path(**query.values),
            to_print=path("print", **query.values),
            to_csv=path("download", "csv", **query.values),
            to_fhir=path("download", "fhir", **query.values),
            to_filter=path("filter", **query.values),
            to_matrix=path("matrix"),
            to_access_log=path("access-log"),
            is_later_page=after is not None,
            here="reports",
        )
        if has_notice:
            session.set_cookie(answer, session.NOTICE, "", 0)
        return answer


class FilterPage(PatientPage):
    """The form that asks for certain reports. It has its own page, because its choices need a read of all reports."""

    parameters = FILTER_PARAMETERS

    def get(self, username: str = "") -> Any:
        query = parse_report_query(self.dates)
        person = self.read_person(username, "reports")
        types = [(each, kind_text(each)) for each in self.context.types(person)]
        measured = self.context.measurements(person)
        codes = [(each.code, name_text(each.name) or each.code) for each in measured if each.code]
        return self.render(
            "filter",
            values=query.values,
            types=choices(query.values, "type", types),
            codes=choices(query.values, "code", codes),
            up=self.path(),
        )


class ReportPage(PatientPage):
    """One report, for a screen and for paper."""

    parameters = ("said",)

    def own_asked(self) -> OwnReports | None:
        return own_report(bottle.request.url_args["report_id"])

    def get(self, report_id: int) -> Any:
        report, person = self.report(report_id)
        pending = ("taken-back", TAKEN_BACK) if report.get("reviewed_at") else ("reviewed", NOTED)
        return self.show(report, person, pending[1] if bottle.request.query.get("said") == pending[0] else "")

    def post(self, report_id: int) -> Any:
        """Mark the report as reviewed, or take that back. The upload API decides whether the user may."""
        form = session.read_form()
        try:
            session.require_form_key(form, self.token)
        except session.CsrfError as error:
            if note := session.typed_note(form):  # of the form before another login
                return self.show(*self.report(report_id), error.message, error.status, note)
            raise
        report, person = self.report(report_id)
        note, revision = form.get("note", "").replace("\r\n", "\n"), form.get("revision", "")
        seen = int(revision) if re.fullmatch(r"[0-9]{1,9}", revision) else 0
        review = None if "take_back" in form else {"note": note, "revision": seen}
        try:
            self.context.upload_api.review_checkup(person["username"], report_id, self.token, review, self.address)
        except (BadInput, Conflict, NotFound) as error:
            return self.show(report, person, NOT_REVIEWED, error.status, note)
        return redirect(link("reports", report_id, said="reviewed" if review else "taken-back"))

    def show(
        self, report: dict[str, Any], person: dict[str, Any], message: str = "", status: int = 200, typed: str = ""
    ) -> bottle.HTTPResponse:
        """Return the page of a report. `typed`: a note that was not stored."""
        self.set_patient(person)
        view, reviewed = report_views([report], self.dates)[0], self.reviewed(report)
        blocks = list(enumerate(self.blocks(report, view.results, person)))
        changed = [("Last changed", self.dates.day(report["updated_at"]))] if report["revision"] > 1 else []
        return self.render(
            "report",
            status,
            report=view,
            message=message,
            reviewed=reviewed,
            may_take_back=message == NOTED or (reviewed and message != TAKEN_BACK),
            revision=report["revision"],
            note=typed or view.review_note,
            may_review=self.is_staff,
            blocks=blocks,
            general_note=GENERAL if view.has_general else "",
            far_notes=far_notes(view.results),
            to_jump=[(number, each.block) for number, each in blocks if each.block.is_unusual]
            if len(blocks) > MANY
            else [],
            ask=self.context.settings.browse.ask if view.unusual and self.patient is None else "",
            owner=person_view(person),
            facts=facts(
                report,
                view,
                self.dates.there(report),
                person_view(person).whole_name,
                self.context.taker_name(view.taken_by),
            )
            + changed,
            up=self.path(),
            to_history=link("reports", view.number, "history") if changed and self.is_staff else "",
            to_csv=link("reports", view.number, "download", "csv"),
            to_fhir=link("reports", view.number, "download", "fhir"),
        )

    def reviewed(self, report: dict[str, Any]) -> str:
        """Say who reviewed the report, and when; "" if nobody did, or if it was changed since."""
        if not report.get("reviewed_at"):
            return ""
        reviewer = report.get("reviewed_by")
        name = self.context.reports.people.name_of_id(reviewer) if reviewer else ""
        return f"Reviewed{name and f' by {name}'} on {self.dates.day(report['reviewed_at'])}"

    def blocks(self, report: dict[str, Any], views: list[ResultView], person: dict[str, Any]) -> list[ReportBlock]:
        """Return the measurements of a report, each with its values of the last time and the address of its trend."""
        results = mappings(report["results"])
        details, points = report.get("details"), {}
        if results and report.get("taken_precision") != "unknown":
            specimen = details.get("specimen") if isinstance(details, dict) else None
            before = self.context.reports.newest(person, 1, only=results, after=PageCursor.of(report), rounds=ROUNDS)
            points = {id(view): before.latest(each, specimen) for each, view in zip(results, views, strict=True)}
        found = []
        for block in blocks_of(views):
            parts = [
                (words, view, None if view.position == IMPOSSIBLE else meter_of(view)) for words, view in block.parts
            ]
            earlier = [points.get(id(view)) for _, view in block.parts]
            told = last_time(earlier, [view for _, view in block.parts], self.dates)
            found.append(ReportBlock(block, parts, told, block.trend(self.path)))
        return found


class PrintPage(PatientPage):
    """All reports that match the filter, one after the other, for paper."""

    parameters = FILTER_PARAMETERS

    def get(self, username: str = "") -> Any:
        query = parse_report_query(self.dates)
        person = self.read_person(username, "reports to print")
        found = self.context.reports.find(person, query.wanted, limit=PRINT_MAX + 1)
        reports = report_views(found[:PRINT_MAX], self.dates)
        return self.render(
            "print",
            person=person_view(person),
            today=self.dates.day(self.dates.now()),
            reports=reports,
            takers={name: self.context.taker_name(name) for name in {report.taken_by for report in reports}},
            more=len(found) > PRINT_MAX,
            most=PRINT_MAX,
            filter_words=query.words(self.dates, found),
            backwards=BACKWARDS if query.is_backwards else "",
            general_note=GENERAL,
            up=self.path(**query.values),
        )


def far_notes(results: Sequence[ResultView]) -> list[str]:
    """Return the sources of the second thresholds of the tests that have a value marked as far outside."""
    found = [far_of(each.code, each.raw_unit) for each in results if each.words.startswith(("far ", "a little "))]
    return list(dict.fromkeys(each.source for each in found if each))


def facts(report: dict[str, Any], view: ReportView, there: str, owner: str, taker: str) -> Facts:
    """Return the other facts of a check-up, each with its name. `there`: its moment by the clock of its place."""
    known = [
        ("Report of", owner),
        ("Checked for", kind_text(report["disease"]) if report["disease"] else ""),
        ("Taken by", taker),
        *view.facts,
        ("Time there", there),
        ("Machine", report["machine"]),
        ("Report number", report["_id"]),
    ]
    return [(name, plain_text(value)) for name, value in known if value not in (None, "")]


REASONS = {
    "corrected": "corrected here by {}",
    "replaced": "replaced by its source",
    "withdrawn": "withdrawn by its source",
}
MOMENTS = ("taken_at", "taken_until", "issued_at", "created_at")


class HistoryPage(PatientPage):
    """The earlier versions of one report, the newest first. For patients it does not exist."""

    def get(self, report_id: int) -> Any:
        self.only_for(self.is_staff)
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
    return report_views([{**content, **moments, "_id": report_id}], dates)[0]
