"""People: found by staff, seen as far as one may; their trends, and who looked at what is theirs."""

from __future__ import annotations

from typing import Any

import bottle

from myhealth.common.csv_writer import csv_lines
from myhealth.common.errors import NotFound
from myhealth.reports.access_log import cursor_of, list_access_log, log_access, parse_cursor
from myhealth.reports.documents import Document
from myhealth.reports.filters import PageCursor, read_moment
from myhealth.reports.trends import POINTS_MAX, Point, measured_codes, trend_points
from myhealth.reports.user_search import find_people, read_search
from wsgi.browse_api.context import STAFF, AuthenticatedBrowseView
from wsgi.browse_api.responses import CSV, JSON, answer, answer_json, cut_page, next_link, url_after
from wsgi.browse_api.schemas import (
    CACHED,
    CSV_KIND,
    KNOWN_TAG,
    LOOKS_AFTER,
    PAGE,
    PEOPLE,
    PEOPLE_AFTER,
    TREND,
    UNKNOWN_USER,
    refusals,
)
from wsgi.common.application import encode_json, json_error
from wsgi.common.openapi import Operation
from wsgi.common.requests import accepted_type, bearer_token, query_parameters
from wsgi.common.views import page_limit

POINT_COLUMNS = (
    "report_id",
    "taken_at",
    "name",
    "value",
    "unit",
    "low",
    "high",
    "flag",
    "range_source",
    "warning",
    "range_text",
)
SPANNED = {"from": "since", "to": "until"}
LOOK_COLUMNS = ("at", "actor", "actor_role", "what", "report_id")


def describe(user: Document) -> Document:
    return {"id": user["_id"], **{name: user[name] for name in ("username", "full_name", "role", "active")}}


class UsersView(AuthenticatedBrowseView):
    spec = {
        "get": Operation(
            "Find people",
            {200: ("People by name; whoever is neither doctor nor admin finds only himself or herself.", ["Person"])}
            | CACHED,
            "everybody",
            query=(PAGE[0], PEOPLE_AFTER, *PEOPLE),
            headers=KNOWN_TAG,
            errors=refusals(400, 406),
        )
    }

    def get(self) -> Any:
        asked = query_parameters("limit", "after", "search", "role")
        accepted_type(JSON)
        limit, wanted = page_limit(asked), read_search(asked)
        if self.user["role"] not in STAFF:
            return answer_json([describe(self.user)] if wanted.finds(self.user) else [])
        found = find_people(self.context.reports, wanted, limit=limit + 1)
        log_access(self.context.reports, self.user, None, "people", address=self.address)
        page, next_url = cut_page(found, limit, wanted.place, asked)
        return answer_json([describe(user) for user in page], next_link(next_url))


class UserView(AuthenticatedBrowseView):
    spec = {
        "get": Operation(
            "A person",
            {200: ("The person.", "Person"), **CACHED},
            "the person, doctor, admin",
            headers=KNOWN_TAG,
            errors={**refusals(400, 406), **UNKNOWN_USER},
        ),
        "delete": Operation(
            "Delete a person and all of his or her reports",
            {204: ("The upload API has done it; the sync carries it out here.", None)},
            "admin; it is the upload API that decides",
            errors={
                **refusals(400, 403, 409),
                **UNKNOWN_USER,
                502: "The upload API is not well.",
                504: "The upload API takes too long.",
            },
        ),
    }

    def get(self, username: str) -> Any:
        query_parameters()
        accepted_type(JSON)
        return answer_json(describe(self.person(username, "profile")))

    def delete(self, username: str) -> Any:
        query_parameters()
        self.require("admin")
        if username in (".", ".."):  # these lead elsewhere
            raise NotFound(f"{username} Does not Exists", code="unknown_user")
        options: dict[str, Any] = {"action": "user.delete", "address": self.address}
        log_access(self.context.reports, self.user, self.context.reports.user_named(username), "account", **options)
        status, said = self.context.upload_api.delete_user(username, bearer_token())
        return json_error(status, **said) if said else bottle.HTTPResponse(status=status)


class TrendsView(AuthenticatedBrowseView):
    """Without a code or a name: what was measured; with one: its results."""

    spec = {
        "get": Operation(
            "What was measured, or how one measurement went",
            {
                200: (
                    "With `code` or `name`: its results, the newest first, out of `limit` reports a page. Without: what"
                    " there is.",
                    {"anyOf": [{"$ref": f"#/components/schemas/{name}"} for name in ("Points", "Measurements")]},
                ),
                **CACHED,
            },
            "the person, doctor, admin",
            query=TREND,
            headers=KNOWN_TAG,
            others=CSV_KIND,
            errors={**refusals(400, 406), **UNKNOWN_USER},
        )
    }

    def get(self, username: str) -> Any:
        asked = query_parameters("code", "name", "from", "to", "limit", "after")
        kind, limit, options = accepted_type(JSON, CSV), page_limit(asked, 1000, POINTS_MAX), read_trend(asked)
        patient = self.person(username, "trends")
        if not options.keys() & {"code", "name"}:
            return answer_measurements(measured_codes(self.context.reports, patient), kind)

        def make() -> tuple[bytes, str]:
            points, place = cut_trend(trend_points(self.context.reports, patient, limit=limit + 1, **options), limit)
            return encode_points(points, kind), str(place or "")

        key = (patient["_id"], patient["subject"], kind, limit, *sorted(options.items(), key=lambda each: each[0]))
        content, place = self.context.trends.answer(key, make)
        return answer(content, kind, next_link(url_after(place, limit, asked) if place else ""))


def read_trend(asked: dict[str, str]) -> dict[str, Any]:
    """The measurement, span and place that an address asks for, as `trend_points` takes them. Raises BadInput."""
    which: dict[str, Any] = {name: asked[name] for name in ("code", "name") if name in asked}
    if "code" in which:
        which.pop("name", None)
    span = {field: read_moment(name, asked[name]) for name, field in SPANNED.items() if asked.get(name)}
    after = PageCursor.parse(asked.get("after", ""))
    return {**which, **span, **({"after": after} if after else {})}


class AccessLogView(AuthenticatedBrowseView):
    """Who looked at what is a person's; he or she sees it, and so do doctors and admins."""

    spec = {
        "get": Operation(
            "Who looked",
            {200: ("Each look by staff, the newest first.", ["Look"]), **CACHED},
            "the person, doctor, admin",
            query=(PAGE[0], LOOKS_AFTER),
            headers=KNOWN_TAG,
            others=CSV_KIND,
            errors={**refusals(400, 406), **UNKNOWN_USER},
        )
    }

    def get(self, username: str) -> Any:
        asked = query_parameters("limit", "after")
        kind, limit, after = accepted_type(JSON, CSV), page_limit(asked), parse_cursor(asked.get("after", ""))
        patient = self.person(username, "access log")
        found = list_access_log(self.context.reports, patient, limit=limit + 1, after=after)
        page, next_url = cut_page(found, limit, cursor_of, asked)
        rows = [{name: getattr(look, name) for name in LOOK_COLUMNS} for look in page]
        if kind == CSV:
            lines = csv_lines(LOOK_COLUMNS, [list(row.values()) for row in rows])
            return answer("".join(lines).encode(), CSV, next_link(next_url))
        return answer_json(rows, next_link(next_url))


def cut_trend(found: list[Point], limit: int) -> tuple[list[Point], PageCursor | None]:
    """The points of `limit` reports, of which a report may have several, and where the next page begins."""
    ids = list(dict.fromkeys(point.report_id for point in found))
    if len(ids) <= limit:
        return found, None
    page = [point for point in found if point.report_id != ids[-1]]
    return page, PageCursor(page[-1].taken_at, page[-1].report_id)


def encode_points(points: list[Point], kind: str) -> bytes:
    if kind == CSV:
        rows = ([getattr(point, name) for name in POINT_COLUMNS] for point in points)
        return "".join(csv_lines(POINT_COLUMNS, rows)).encode()
    return encode_json(points)


def answer_measurements(found: list[Any], kind: str) -> Any:
    columns = ("code", "name", "units", "count", "first_at", "last_at")
    if kind == CSV:
        rows = ([getattr(each, c) if c != "units" else " ".join(each.units) for c in columns] for each in found)
        return answer("".join(csv_lines(columns, rows)).encode(), CSV)
    return answer_json(found)
