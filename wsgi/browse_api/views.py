"""The JSON API: login and logout, which the upload API decides; people; reports, trends and access logs."""

import contextlib
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import bottle

from myhealth.common.csv_writer import csv_lines
from myhealth.common.errors import NotFound
from myhealth.common.request_context import client_address
from myhealth.reports import TREND_LIMIT, TREND_LIMIT_MAX
from myhealth.reports.documents import Document, encode_json, public_report
from myhealth.reports.export.csv_table import report_lines
from myhealth.reports.export.fhir import fhir_bundle
from myhealth.reports.filters import OwnReports, own_report, own_reports
from myhealth.reports.trends import MEASUREMENT_COLUMNS, TrendPoint
from wsgi.browse_api import parameters
from wsgi.browse_api.context import STAFF, ApiView, BrowseContext
from wsgi.browse_api.parameters import PAGE_PARAMETERS, UNKNOWN_PERSON, reading, refusals
from wsgi.common.application import json_error
from wsgi.common.openapi import Operation, ref
from wsgi.common.requests import BASIC, bearer_token, site
from wsgi.common.views import (
    CSV,
    FHIR,
    JSON,
    LoginView,
    answer,
    answer_json,
    cut_page,
    json_response,
    next_link,
    page_limit,
    url_after,
)

TOKEN_ANSWER = {200: ("The upload API's token, and when it expires.", "Token")}
LOGIN_ERRORS = {
    401: "The username or the password is wrong.",
    429: "Too many attempts; `Retry-After` says when to try again.",
    502: "The upload API reports an error.",
    503: "The upload API is unavailable or takes too long; `Retry-After` says when to try again.",
}


class BrowseLogin(LoginView):
    spec = {
        "get": Operation("Log in with HTTP Basic", TOKEN_ANSWER, errors=LOGIN_ERRORS, security=("basic",)),
        "post": Operation("Log in", TOKEN_ANSWER, body="Credentials", errors=LOGIN_ERRORS),
    }
    context: BrowseContext

    def log_in(self, username: Any, password: Any) -> Any:
        address = client_address()
        token = self.context.upload_api.log_in(username, password, address)
        if token is None:
            return json_error(401, LOGIN_ERRORS[401], "wrong_credentials", WWW_Authenticate=BASIC)
        token.pop("previous_login_at", None)  # the pages' own
        return json_response(token)


class ForwardedLogoutView(ApiView):
    """Revoke all tokens of the caller, at the upload API and here at once."""

    @Operation(
        "Log out everywhere",
        {204: ("All tokens issued so far are revoked.", None)},
        "everybody",
        errors=refusals(400),
    )
    def post(self) -> Any:
        token = bearer_token()
        self.context.end_tokens(token, self.context.upload_api.log_out(token))
        return bottle.HTTPResponse(status=204)


NESTED = ("code", "specimen", "ranges")  # not in the table: it was asked for, or is no plain value
POINT_COLUMNS = tuple(name for name in TrendPoint.__struct_fields__ if name not in NESTED)


def describe(user: Document) -> Document:
    return {"id": user["_id"], **{name: user[name] for name in ("username", "full_name", "role", "active")}}


class BrowsedUsersView(ApiView):
    @reading(
        "Find people",
        ("People by name; whoever is neither doctor nor admin finds only himself or herself.", ["Person"]),
        "everybody",
        query=(PAGE_PARAMETERS[0], parameters.SEARCH_AFTER, *parameters.SEARCH_PARAMETERS),
    )
    def get(self) -> Any:
        limit, wanted = page_limit(self.asked), parameters.parse_search(self.asked)
        if self.user["role"] not in STAFF:
            return answer_json([describe(self.user)] if wanted.finds(self.user) else [])
        found = self.context.reports.people.search(wanted, limit=limit + 1)
        self.log_access(None, "people")
        page, next_url = cut_page(
            found, limit, lambda user: parameters.format_search_cursor(wanted.cursor_of(user)), self.asked
        )
        return answer_json([describe(user) for user in page], next_link(next_url))


class BrowsedUserView(ApiView):
    @reading("Show a person", ("The person.", "Person"), "the person, doctor, admin", errors=UNKNOWN_PERSON)
    def get(self, username: str) -> Any:
        return answer_json(describe(self.person(username, "profile")))

    @Operation(
        "Delete a person and all of his or her reports",
        {204: ("The upload API has done it; the sync carries it out here.", None)},
        "admin; the upload API decides",
        errors={
            **refusals(400, 403, 409),
            **UNKNOWN_PERSON,
            502: "The upload API reports an error.",
            504: "The upload API takes too long.",
        },
    )
    def delete(self, username: str) -> Any:
        self.require("admin")
        if username in (".", ".."):  # as a part of the upload API's address, these would lead elsewhere
            raise NotFound(f"{username} Does not Exists", code="unknown_user")
        people = self.context.reports.people
        found = people.find_by_username(username)
        self.log_access(found, "account", action="user.delete")
        self.context.upload_api.delete_user(username, bearer_token(), self.address)
        if found is not None:
            people.revoke_tokens(found["subject"], datetime.now(UTC), active=False)
        return bottle.HTTPResponse(status=204)


class TrendsView(ApiView):
    """The results of one measurement, by `code` or `name`; without them, the list of measurements."""

    @reading(
        "List the measurements, or show one over time",
        (
            "With `code` or `name`: its results, the newest first, from `limit` reports a page. Without: all"
            " measurements.",
            {"anyOf": [ref("TrendPoints"), ref("Measurements")]},
        ),
        "the person, doctor, admin",
        query=parameters.TREND_PARAMETERS,
        others=parameters.CSV_MEDIA_TYPE,
        errors={**refusals(429), **UNKNOWN_PERSON},
    )
    def get(self, username: str) -> Any:
        media_type, limit = self.media_type, page_limit(self.asked, TREND_LIMIT, TREND_LIMIT_MAX)
        wanted = parameters.parse_trend(self.asked)
        patient = self.person(username, "trends")
        if wanted.code is None and wanted.name is None:
            content = encode_rows(self.context.measurements(patient), MEASUREMENT_COLUMNS, media_type)
            return answer(content, media_type)

        def make() -> tuple[bytes, str]:
            points, after = self.context.reports.trend(patient, wanted, limit=limit)
            return encode_rows(points, POINT_COLUMNS, media_type), parameters.format_page_cursor(after) if after else ""

        key = (patient["_id"], patient["subject"], media_type, limit, wanted)
        content, cursor = self.context.trends.get(key, make)
        return answer(content, media_type, next_link(url_after(cursor, limit, self.asked) if cursor else ""))


class AccessLogView(ApiView):
    """Accesses by staff to a person's record, for the person, doctors and admins."""

    @reading(
        "List who opened or changed a person's record",
        ("Each access by staff, the newest first.", ["AccessEvent"]),
        "the person, doctor, admin",
        query=(PAGE_PARAMETERS[0], parameters.ACCESS_LOG_AFTER),
        others=parameters.CSV_MEDIA_TYPE,
        errors=UNKNOWN_PERSON,
    )
    def get(self, username: str) -> Any:
        limit, after = page_limit(self.asked), parameters.parse_access_cursor(self.asked.get("after", ""))
        patient = self.person(username, "access log")
        found = self.context.reports.access_log.find_for_patient(patient, limit=limit + 1, after=after)
        page, next_url = cut_page(found, limit, parameters.access_cursor, self.asked)
        if self.media_type == CSV:
            return answer(encode_rows(page, parameters.ACCESS_LOG_COLUMNS, CSV), CSV, next_link(next_url))
        rows = [{name: getattr(event, name) for name in parameters.ACCESS_LOG_COLUMNS} for event in page]
        return answer_json(rows, next_link(next_url))


def encode_rows(found: Sequence[Any], columns: Sequence[str], media_type: str) -> bytes:
    """Return objects whole as JSON, or their columns as CSV."""
    if media_type == JSON:
        return encode_json(found)
    rows = ([getattr(each, name) for name in columns] for each in found)
    return "".join(csv_lines(columns, rows)).encode()


REPORT_LIST = "Reports, the newest first; the `Link` header leads to the next page.", ["Report"]
LIST_PARAMETERS = (*PAGE_PARAMETERS, *parameters.LIST_FILTERS)


class ReportAnswersView(ApiView):
    """A view that answers with one patient's reports, as JSON, FHIR or CSV."""

    def own_asked(self) -> OwnReports | None:
        if self.media_type != JSON:
            return None  # an export waits for its turn before it reads
        limit, options = self.read
        return own_reports(limit=limit + 1, **options)

    @cached_property
    def read(self) -> tuple[int, dict[str, Any]]:
        """The limit, and the other arguments for `ReportRepository.find`. Raises BadInput."""
        sort, after = self.asked.get("sort", ""), self.asked.get("after", "")
        options = {"sort": parameters.parse_sort(sort), "after": parameters.parse_page_cursor(after)}
        return page_limit(self.asked), {"wanted": parameters.parse_filter(self.asked), **options}

    def page(self, patient: Document, limit: int, options: dict[str, Any]) -> Any:
        """Answer with one page of a list, as `read` has it. Raises TooManyAttempts for a user's second export
        at the same time."""
        with contextlib.nullcontext() if self.media_type == JSON else self.context.exports.enter(self.user["subject"]):
            found = self.find(patient, limit=limit + 1, **options)
            page, next_url = cut_page(found, limit, parameters.report_cursor, self.asked)
            return self.answer_reports(page, patient, next_url)

    def answer_reports(self, reports: list[Document], patient: Document, next_url: str = "") -> Any:
        username = patient["username"]
        if self.media_type == CSV:
            content = "".join(report_lines(reports, username)).encode()
        elif self.media_type == FHIR:
            url = site().base_url() + next_url if next_url else None
            content = encode_json(fhir_bundle(reports, patient, next_url=url))
        else:
            content = encode_json([public_report(report, username) for report in reports])
        return answer(content, self.media_type, next_link(next_url))


class ReportsView(ReportAnswersView):
    @reading(
        "List one's own reports",
        REPORT_LIST,
        "everybody",
        query=LIST_PARAMETERS,
        others=parameters.REPORT_MEDIA_TYPES,
        errors=refusals(429),
    )
    def get(self) -> Any:
        return self.page(self.user, *self.read)


class UserReportsView(ReportAnswersView):
    @reading(
        "List a person's reports",
        REPORT_LIST,
        "the person, doctor, admin",
        query=LIST_PARAMETERS,
        others=parameters.REPORT_MEDIA_TYPES,
        errors={**refusals(429), **UNKNOWN_PERSON},
    )
    def get(self, username: str) -> Any:
        page = self.read  # an access is logged only after the query is validated
        return self.page(self.person(username, "reports" if self.media_type == JSON else "export"), *page)


class SingleReportView(ReportAnswersView):
    def own_asked(self) -> OwnReports | None:
        return own_report(bottle.request.url_args["report_id"])

    @reading(
        "Show a report",
        ("The report.", "Report"),
        "the person, doctor, admin",
        others=parameters.REPORT_MEDIA_TYPES,
        errors=parameters.UNKNOWN_REPORT,
    )
    def get(self, report_id: int) -> Any:
        report, patient = self.report(report_id)
        if self.media_type == JSON:
            return answer_json(public_report(report, patient["username"]))
        return self.answer_reports([report], patient)
