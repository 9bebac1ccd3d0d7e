"""A list of reports, one report, and many on paper."""

from __future__ import annotations

from typing import Any

import bottle

from myhealth.common.errors import NotFound
from myhealth.reports.access import note_look
from myhealth.reports.queries import Place, find_report, list_reports
from myhealth.reports.trends import known_values, measured_codes
from wsgi.browse_api.context import STAFF
from wsgi.browse_pages import wording
from wsgi.browse_pages.base import LoggedInPage, link
from wsgi.browse_pages.dates import Dates
from wsgi.browse_pages.filters import Asked, choices, read_asked
from wsgi.common.requests import client_address

PAGE, PRINT_MAX = 20, 200


class OfAPatient(LoggedInPage):
    """For pages about one person: oneself, or for staff a patient by name. `patient` is None on one's own pages."""

    patient: dict[str, Any] | None = None

    def person(self, username: str = "") -> dict[str, Any]:
        """Whose pages these are. Raises NotFound alike for a name that nobody has and for one that is another's."""
        if not username:
            return self.user
        found = self.context.reports.user_named(username)
        if found is None or (found["subject"] != self.user["subject"] and self.user["role"] not in STAFF):
            raise NotFound("There is nothing at this address.")
        if found["subject"] != self.user["subject"]:
            self.patient = found
        return found

    def looked(self, person: dict[str, Any], what: str, report_id: int | None = None) -> None:
        """Notes a look at what is another's, before anything is shown. Raises Unavailable where that fails."""
        address = client_address(self.context.settings.trusted_proxies)
        note_look(self.context.reports, self.user, person, what, report_id=report_id, address=address)

    def asked(self) -> Asked:
        return read_asked(Dates(self.context.settings.time_zone))

    def path(self, *parts: object, **query: object) -> str:
        """The address of a page about the same person."""
        before = ("patients", self.patient["username"]) if self.patient else ()
        return link(*before, *parts, **query)

    def tab(self, name: str) -> str:
        return f"their {name}" if self.patient else name


class ReportsPage(OfAPatient):
    """Reports, newest first."""

    def get(self, username: str = "") -> Any:
        person, asked = self.person(username), self.asked()
        after = Place.parse(bottle.request.query.getunicode("after", ""))
        self.looked(person, "reports")
        found = list_reports(self.context.reports, person, asked.wanted, limit=PAGE + 1, after=after)
        return self.render(
            "reports",
            title="My reports" if self.patient is None else "Reports",
            reports=[(report, wording.shown_results(report)) for report in found[:PAGE]],
            older=self.path(**asked.values, after=Place.of(found[PAGE - 1])) if len(found) > PAGE else "",
            first=self.path(),
            first_of_these=self.path(**asked.values),
            to_print=self.path("print", **asked.values),
            to_filter=self.path("filter", **asked.values),
            further=after is not None,
            asked=asked,
            patient=self.patient,
            here=self.tab("reports"),
        )


class FilterPage(OfAPatient):
    """The form that asks for certain reports; a page of its own, for its choices cost a look at all of them."""

    def get(self, username: str = "") -> Any:
        person, asked = self.person(username), self.asked()
        self.looked(person, "reports")
        types = [(each, wording.kind_text(each)) for each in known_values(self.context.reports, person).types]
        measured = measured_codes(self.context.reports, person)
        codes = [(each.code, wording.plain_text(each.name) or each.code) for each in measured if each.code]
        return self.render(
            "filter",
            asked=asked,
            types=choices(asked.values, "type", types),
            codes=choices(asked.values, "code", codes),
            up=self.path(),
            patient=self.patient,
        )


class ReportPage(OfAPatient):
    """One report, as it reads on a screen and on paper."""

    def get(self, report_id: int) -> Any:
        found = find_report(self.context.reports, report_id)
        own = found is not None and found[1]["subject"] == self.user["subject"]
        if found is None or not (own or self.user["role"] in STAFF):
            raise NotFound("There is no such report.")
        report, person = found
        self.patient = None if own else person
        self.looked(person, "report", report_id)
        return self.render(
            "report",
            report=report,
            results=wording.shown_results(report),
            text=wording.plain_text(report["checkup_report"]),
            facts=facts(report, person),
            up=self.path(),
            trends=self.path("trends") if wording.shown_results(report) else "",
            patient=self.patient,
        )


class PrintPage(OfAPatient):
    """The reports that were asked for, one behind the other, for paper."""

    def get(self, username: str = "") -> Any:
        person, asked = self.person(username), self.asked()
        self.looked(person, "reports to print")
        found = list_reports(self.context.reports, person, asked.wanted, limit=PRINT_MAX + 1)
        return self.render(
            "print",
            person=person,
            reports=[(report, wording.shown_results(report)) for report in found[:PRINT_MAX]],
            more=len(found) > PRINT_MAX,
            most=PRINT_MAX,
            asked=asked,
            up=self.path(**asked.values),
            patient=self.patient,
        )


def facts(report: dict[str, Any], person: dict[str, Any]) -> list[tuple[str, str]]:
    """What else is known of a check-up, each with its name."""
    known = [
        ("Report of", f"{person['full_name']} ({person['username']})" if person["full_name"] else person["username"]),
        ("Checked for", report["disease"]),
        ("Taken by", report["taken_by"]),
        ("Machine", report["machine"]),
        ("Report number", report["_id"]),
    ]
    return [(name, wording.plain_text(value)) for name, value in known if value not in (None, "")]
