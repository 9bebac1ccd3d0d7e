"""Query strings as the repository's query objects. The pages read their forms with the same functions.

Cursors are the parameter `after` of an address, which the Link header gives. Clients treat them as opaque."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from myhealth.common.decoding import INT_MAX
from myhealth.common.errors import BadInput
from myhealth.common.text import UNSTORABLE
from myhealth.profiles import ROLES
from myhealth.reports.access_log import AccessCursor, AccessEvent
from myhealth.reports.documents import KEYS, Document
from myhealth.reports.fhir.search import SearchPosition
from myhealth.reports.filters import SORTS, PageCursor, ReportFilter, Sort, check_filter_text, parse_moment
from myhealth.reports.trends import TrendQuery
from myhealth.reports.user_search import Search, SearchCursor
from wsgi.common.requests import parse_boolean

UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_MS, LAST_MS = -62_135_596_800_000, 253_402_300_799_999  # the years 1 to 9999, since 1970
PAGE_CURSOR = re.compile(r"(-?[0-9]{1,15})_([0-9]{1,19})", re.ASCII)
PLACE_CURSOR = re.compile(rf"{PAGE_CURSOR.pattern}_([0-9]{{1,9}})", re.ASCII)
ACCESS_CURSOR = re.compile(r"([0-9]{1,14})_([0-9a-f]{24})", re.ASCII)
# The key comes last, because it may contain any character.
SEARCH_CURSOR = re.compile(rf"([0-{KEYS}])_([0-9]{{1,19}})_([^\0]*)", re.ASCII | re.DOTALL)


def _read(cursor: re.Pattern[str], text: str) -> re.Match[str] | None:
    """Match a cursor; None for "". Raises BadInput."""
    found = cursor.fullmatch(text)
    if text and (found is None or UNSTORABLE.search(text)):
        raise BadInput("after must be the value that a Link header gave.")
    return found


def format_page_cursor(cursor: PageCursor) -> str:
    """Return milliseconds since 1970, _, the report's id."""
    return f"{(cursor.taken_at - UNIX_EPOCH) // timedelta(milliseconds=1)}_{cursor.report_id}"


def report_cursor(report: Document) -> str:
    return format_page_cursor(PageCursor.of(report))


def parse_page_cursor(text: str) -> PageCursor | None:
    """Return None for "". Raises BadInput."""
    match = _read(PAGE_CURSOR, text)
    return match and _page_cursor(match)


def _page_cursor(match: re.Match[str]) -> PageCursor:
    # No report is outside these years, so the first or the last moment finds the same.
    milliseconds = min(max(int(match[1]), FIRST_MS), LAST_MS)
    return PageCursor(UNIX_EPOCH + timedelta(milliseconds=milliseconds), min(int(match[2]), INT_MAX))


def format_place(place: SearchPosition) -> str:
    """Return the cursor of the report at which a page begins, _, how many of its resources were shown."""
    return f"{format_page_cursor(place.report)}_{place.skipped}"


def parse_place(text: str) -> SearchPosition | None:
    """Return None for "". Raises BadInput."""
    match = _read(PLACE_CURSOR, text)
    return match and SearchPosition(_page_cursor(match), int(match[3]))


def access_cursor(event: AccessEvent) -> str:
    """Return the cursor behind an event: milliseconds since 1970, _, the event's id."""
    return f"{round(event.at.timestamp() * 1000)}_{event.id}"


def parse_access_cursor(text: str) -> AccessCursor | None:
    """Return None for "". Raises BadInput."""
    match = _read(ACCESS_CURSOR, text)
    return match and AccessCursor(UNIX_EPOCH + timedelta(milliseconds=int(match[1])), match[2])


def format_search_cursor(cursor: SearchCursor) -> str:
    """Return the field's number, _, the user's id, _, the key."""
    return f"{cursor.field}_{cursor.user_id}_{cursor.key}"


def parse_search_cursor(text: str) -> SearchCursor | None:
    """Return None for "". Raises BadInput."""
    match = _read(SEARCH_CURSOR, text)
    return match and SearchCursor(int(match[1]), match[3], min(int(match[2]), INT_MAX))


SPAN_FIELD = {"from": "since", "to": "until"}
# Parameter of an address: the filter's field.
FILTER_PARAMETERS = SPAN_FIELD | {
    name: name for name in ReportFilter.__struct_fields__ if name not in SPAN_FIELD.values()
}


def parse_filter(values: Mapping[str, str]) -> ReportFilter:
    """Return the filter for parameters or form fields, by the names in FILTER_PARAMETERS; empty ones do not count.

    `from` and `to`: RFC 3339 with a zone, or the first and the last day (UTC). Raises BadInput, which names the
    parameter.
    """
    return ReportFilter(
        **{field: _parse_value(name, values[name]) for name, field in FILTER_PARAMETERS.items() if values.get(name)}
    )


def _parse_value(name: str, text: str) -> Any:
    check_filter_text(name, text)
    if name in SPAN_FIELD:
        return parse_moment(name, text)
    return parse_boolean(name, text) if name == "abnormal" else text


def parse_sort(text: str) -> Sort:
    """Return the sort order; "" is the newest first. Raises BadInput."""
    for sort in SORTS:
        if text in (sort, ""):
            return sort
    raise BadInput(f"sort must be one of {', '.join(SORTS)}.")


def parse_search(values: Mapping[str, str]) -> Search:
    """Return the search for the parameters `search`, `role` and `after`. Raises BadInput."""
    text, role, after = (values.get(name) or "" for name in ("search", "role", "after"))
    check_filter_text("search", text)
    if role not in ("", *ROLES):
        raise BadInput(f"role must be one of {', '.join(ROLES)}.")
    return Search(text, role or None, parse_search_cursor(after))


def parse_trend(values: Mapping[str, str]) -> TrendQuery:
    """Return the measurement, span and position of a trend. If `code` is given, `name` is ignored. Raises BadInput."""
    span: dict[str, Any] = {
        field: parse_moment(name, values[name]) for name, field in SPAN_FIELD.items() if values.get(name)
    }
    code = values.get("code")
    name = values.get("name") if code is None else None
    return TrendQuery(code, name, after=parse_page_cursor(values.get("after", "")), **span)
