"""The list of reports, one report, the filter's form, and many reports for paper."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import bottle

from myhealth.clinical.in_words import plain_text
from myhealth.reports.facts import Facts
from wsgi.browse_api.context import STAFF
from wsgi.browse_api.cursors import parse_page_cursor, report_cursor
from wsgi.browse_api.parameters import FILTER_PARAMETERS
from wsgi.browse_pages import session
from wsgi.browse_pages.base import LoggedInPage
from wsgi.browse_pages.filters import BACKWARDS, ReportQuery, choices, parse_report_query
from wsgi.browse_pages.meter import meter_of
from wsgi.browse_pages.navigation import PATIENT_MENU, link, menu_links
from wsgi.browse_pages.person_view import person_view
from wsgi.browse_pages.report_view import ReportView, report_view, report_views
from wsgi.browse_pages.result_view import GENERAL, IMPOSSIBLE, ResultView, kind_text, name_text

PAGE, PRINT_MAX = 20, 200
SET_BY_ANOTHER = (
    "Since your last login, somebody else has set your password. If you did not ask for that, please change it, and ask"
    " the place where you had your check-up."
)
MANY = 12  # more results than a reader sees at a glance


class PatientPage(LoggedInPage):
    """A page about one person: the user, or for staff a patient by name. `patient` is None on the user's own pages."""

    patient: dict[str, Any] | None = None

    def read_person(self, username: str, what: str) -> dict[str, Any]:
        """Return the person of the page: the user if `username` is "". An access of staff to `what` is logged before
        anything is shown. Raises NotFound alike for an unknown name and for a person whom the user may not see."""
        person = self.person(username, what) if username else self.user
        self.set_patient(person)
        return person

    def set_patient(self, person: dict[str, Any]) -> None:
        """Set whose record the page shows."""
        self.patient = None if person["subject"] == self.user["subject"] else person

    def menus(self, here: str) -> dict[str, Any]:
        """Return the menus of the frame, with the patient's own menu on a patient's page."""
        if self.patient is None:
            return super().menus(here)
        menu = menu_links(PATIENT_MENU, here, "patients", self.patient["username"])
        return {**super().menus(""), "patient": person_view(self.patient), "patient_menu": menu}

    def report_query(self) -> ReportQuery:
        """Return the filter that the address asks for. Raises BadInput."""
        return parse_report_query(self.dates)

    @property
    def path(self) -> Callable[..., str]:
        """`link` for the pages about the same person."""
        return partial(link, "patients", self.patient["username"]) if self.patient else link


class ReportsPage(PatientPage):
    """Reports, newest first."""

    parameters = (*FILTER_PARAMETERS, "after")

    def get(self, username: str = "") -> Any:
        query, after = self.report_query(), parse_page_cursor(bottle.request.query.getunicode("after", ""))
        person = self.read_person(username, "reports")
        found = self.context.reports.find(person, query.wanted, limit=PAGE + 1, after=after)
        path = self.path
        has_notice = self.patient is None and session.has_notice()
        answer = self.render(
            "reports",
            notice=SET_BY_ANOTHER if has_notice else "",
            to_access_log=path("access-log"),
            title="My reports" if self.patient is None else "Reports",
            reports=report_views(found[:PAGE], self.dates),
            older=path(**query.values, after=report_cursor(found[PAGE - 1])) if len(found) > PAGE else "",
            first=path(),
            first_of_these=path(**query.values),
            to_print=path("print", **query.values),
            to_csv=path("download", "csv", **query.values),
            to_fhir=path("download", "fhir", **query.values),
            to_filter=path("filter", **query.values),
            is_later_page=after is not None,
            filter_words=query.words(self.dates, found),
            backwards=BACKWARDS if query.is_backwards else "",
            here="reports",
        )
        if has_notice:
            session.end_notice(answer)
        return answer


class FilterPage(PatientPage):
    """The form that asks for certain reports. It is a page of its own, for its choices cost a read of all reports."""

    parameters = FILTER_PARAMETERS

    def get(self, username: str = "") -> Any:
        query = self.report_query()
        person = self.read_person(username, "reports")
        types = [(each, kind_text(each)) for each in self.context.filter_choices(person).types]
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

    def get(self, report_id: int) -> Any:
        report, person = self.report(report_id)
        self.set_patient(person)
        view = report_view(report, self.dates)
        meters = [
            None if each.position == IMPOSSIBLE else meter_of(each.number, each.low, each.high) for each in view.results
        ]
        changed = [("Last changed", self.dates.day(report["updated_at"]))] if report["revision"] > 1 else []
        return self.render(
            "report",
            report=view,
            results=list(enumerate(zip(view.results, meters, strict=True))),
            has_meter=any(meters),
            general_note=GENERAL if view.has_general else "",
            to_jump=unusual_among(view.results),
            owner=person_view(person).whole_name,
            facts=facts(report, view, self.dates.there(report), person_view(person).whole_name) + changed,
            up=self.path(),
            trends=self.path("trends") if view.results else "",
            to_history=link("reports", view.number, "history") if changed and self.user["role"] in STAFF else "",
            to_csv=link("reports", view.number, "download", "csv"),
            to_fhir=link("reports", view.number, "download", "fhir"),
        )


class PrintPage(PatientPage):
    """All reports that match the filter, one after the other, for paper."""

    parameters = FILTER_PARAMETERS

    def get(self, username: str = "") -> Any:
        query = self.report_query()
        person = self.read_person(username, "reports to print")
        found = self.context.reports.find(person, query.wanted, limit=PRINT_MAX + 1)
        return self.render(
            "print",
            person=person_view(person),
            today=self.dates.day(self.dates.now()),
            reports=report_views(found[:PRINT_MAX], self.dates),
            more=len(found) > PRINT_MAX,
            most=PRINT_MAX,
            filter_words=query.words(self.dates, found),
            backwards=BACKWARDS if query.is_backwards else "",
            general_note=GENERAL,
            up=self.path(**query.values),
        )


def unusual_among(results: list[ResultView]) -> list[tuple[int, ResultView]]:
    """Return the unusual results with their numbers, for links to them, if there are many results."""
    return [(number, each) for number, each in enumerate(results) if each.is_unusual] if len(results) > MANY else []


def facts(report: dict[str, Any], view: ReportView, there: str, owner: str) -> Facts:
    """Return the other facts of a check-up, each with its name. `there`: its moment by the clock of its place."""
    known = [
        ("Report of", owner),
        ("Checked for", report["disease"]),
        ("Taken by", report["taken_by"]),
        *view.facts,
        ("Time there", there),
        ("Machine", report["machine"]),
        ("Report number", report["_id"]),
    ]
    return [(name, plain_text(value)) for name, value in known if value not in (None, "")]
