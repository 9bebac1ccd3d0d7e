"""A list of reports, one report, and many on paper."""

from __future__ import annotations

from typing import Any

import bottle

from wsgi.browse_api.cursors import parse_page_cursor, report_cursor
from wsgi.browse_pages import result_view
from wsgi.browse_pages.base import LoggedInPage
from wsgi.browse_pages.filters import ReportQuery, choices, parse_report_query
from wsgi.browse_pages.navigation import THEIR, link

PAGE, PRINT_MAX = 20, 200
MANY = 12  # results that one does not see at a glance


class PatientPage(LoggedInPage):
    """For pages about one person: oneself, or for staff a patient by name. `patient` is None on one's own pages."""

    patient: dict[str, Any] | None = None

    def whose(self, username: str, what: str) -> dict[str, Any]:
        """Whose pages these are: one's own without a name. A look of staff at `what` is noted before it is shown.
        Raises NotFound alike for a name that nobody has and for one that is another's."""
        person = self.person(username, what) if username else self.user
        self.patient = None if person["subject"] == self.user["subject"] else person
        return person

    def asked(self) -> ReportQuery:
        return parse_report_query(self.dates)

    def path(self, *parts: object, **query: object) -> str:
        """The address of a page about the same person."""
        before = ("patients", self.patient["username"]) if self.patient else ()
        return link(*before, *parts, **query)

    def tab(self, name: str) -> str:
        return f"{THEIR}{name}" if self.patient else name


class ReportsPage(PatientPage):
    """Reports, newest first."""

    def get(self, username: str = "") -> Any:
        asked, after = self.asked(), parse_page_cursor(bottle.request.query.getunicode("after", ""))
        person = self.whose(username, "reports")
        found = self.context.reports.find(person, asked.wanted, limit=PAGE + 1, after=after)
        return self.render(
            "reports",
            title="My reports" if self.patient is None else "Reports",
            reports=[(report, result_view.present_results(report)) for report in found[:PAGE]],
            older=self.path(**asked.values, after=report_cursor(found[PAGE - 1])) if len(found) > PAGE else "",
            first=self.path(),
            first_of_these=self.path(**asked.values),
            to_print=self.path("print", **asked.values),
            to_csv=self.path("download", "csv", **asked.values),
            to_fhir=self.path("download", "fhir", **asked.values),
            to_filter=self.path("filter", **asked.values),
            further=after is not None,
            asked=asked,
            told=asked.told(self.dates, found),
            patient=self.patient,
            here=self.tab("reports"),
        )


class FilterPage(PatientPage):
    """The form that asks for certain reports; a page of its own, for its choices cost a look at all of them."""

    def get(self, username: str = "") -> Any:
        asked = self.asked()
        person = self.whose(username, "reports")
        types = [(each, result_view.kind_text(each)) for each in self.context.reports.filter_choices(person).types]
        measured = self.context.reports.measurements(person)
        codes = [(each.code, result_view.name_text(each.name) or each.code) for each in measured if each.code]
        return self.render(
            "filter",
            asked=asked,
            types=choices(asked.values, "type", types),
            codes=choices(asked.values, "code", codes),
            up=self.path(),
            patient=self.patient,
        )


class ReportPage(PatientPage):
    """One report, as it reads on a screen and on paper."""

    def get(self, report_id: int) -> Any:
        report, person = self.report(report_id)
        self.patient = None if person["subject"] == self.user["subject"] else person
        results = result_view.present_results(report)
        changed = report["updated_at"] if report["revision"] > 1 else None
        return self.render(
            "report",
            report=report,
            results=results,
            to_jump=unusual_among(results),
            text=result_view.plain_text(report["checkup_report"]),
            facts=facts(report, person) + ([("Last changed", self.dates.day(changed))] if changed else []),
            up=self.path(),
            trends=self.path("trends") if results else "",
            patient=self.patient,
        )


class PrintPage(PatientPage):
    """The reports that were asked for, one behind the other, for paper."""

    def get(self, username: str = "") -> Any:
        asked = self.asked()
        person = self.whose(username, "reports to print")
        found = self.context.reports.find(person, asked.wanted, limit=PRINT_MAX + 1)
        return self.render(
            "print",
            person=person,
            reports=[(report, result_view.present_results(report)) for report in found[:PRINT_MAX]],
            more=len(found) > PRINT_MAX,
            most=PRINT_MAX,
            asked=asked,
            told=asked.told(self.dates, found),
            up=self.path(**asked.values),
            patient=self.patient,
        )


def unusual_among(results: list[result_view.ResultView]) -> list[tuple[int, result_view.ResultView]]:
    """Where many results stand, those outside their range, with their numbers: for links to them."""
    return [(number, each) for number, each in enumerate(results) if each.is_unusual] if len(results) > MANY else []


def facts(report: dict[str, Any], person: dict[str, Any]) -> list[tuple[str, str]]:
    """What else is known of a check-up, each with its name."""
    second = result_view.second_name(person)
    known = [
        ("Report of", f"{result_view.display_name(person)} ({second})" if second else result_view.display_name(person)),
        ("Checked for", report["disease"]),
        ("Taken by", report["taken_by"]),
        ("Machine", report["machine"]),
        ("Report number", report["_id"]),
    ]
    return [(name, result_view.plain_text(value)) for name, value in known if value not in (None, "")]
