"""The parameters, bodies and answers of the browse API: their JSON Schemas for its OpenAPI document, and query strings
as the repository's query objects. The pages read their forms with the same functions.

Cursors are the parameter `after` of an address, which the Link header gives. Clients treat them as opaque."""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from myhealth.common.decoding import INT_MAX
from myhealth.common.errors import BadInput
from myhealth.common.text import UNSTORABLE
from myhealth.profiles import ROLES
from myhealth.reports import TREND_LIMIT, TREND_LIMIT_MAX
from myhealth.reports.access_log import AccessCursor, AccessEvent
from myhealth.reports.documents import KEYS, Document
from myhealth.reports.fhir.search import SearchPosition
from myhealth.reports.filters import (
    FILTER_TEXT_MAX,
    SORTS,
    PageCursor,
    ReportFilter,
    Sort,
    check_filter_text,
    parse_moment,
)
from myhealth.reports.trends import Measurement, TrendPoint, TrendQuery
from myhealth.reports.user_search import Search, SearchCursor
from myhealth.sync.calls import ReportDocument, UserDocument
from wsgi.common.openapi import (
    MOMENT,
    Operation,
    after_parameter,
    limit_parameter,
    listed,
    maybe,
    ref,
    shape,
    struct_schemas,
)
from wsgi.common.requests import parse_boolean
from wsgi.common.views import CSV, FHIR, LIMIT, LIMIT_MAX

WHOLE = {"type": "integer"}
# No stored text contains NUL. Lone surrogates are not valid either.
SOUGHT = {"type": "string", "minLength": 1, "maxLength": FILTER_TEXT_MAX, "pattern": r"^[^\u0000]*$"}
WHEN = {"type": "string", "anyOf": [{"format": "date"}, {"format": "date-time"}]}
ANYTHING: dict[str, Any] = {}


PAGE_PARAMETERS = (
    limit_parameter(LIMIT_MAX, LIMIT),
    after_parameter(type="string", pattern=r"^-?[0-9]{1,15}_[0-9]{1,18}$"),
    ("sort", {"enum": list(SORTS), "default": SORTS[0]}, "`-taken_at`: the newest first; `taken_at`: the oldest."),
)
SPAN_PARAMETERS = (
    ("from", WHEN, "Taken on this day (UTC) or at this moment, or later."),
    ("to", WHEN, "Taken on this day (UTC) or earlier; or before this moment."),
)
LIST_FILTERS = (
    ("type", SOUGHT, "Of this check-up type."),
    ("disease", SOUGHT, "About this disease."),
    ("machine", SOUGHT, "From the machine of this serial."),
    ("taken_by", SOUGHT, "Taken by the person of this name."),
    *SPAN_PARAMETERS,
    ("abnormal", {"type": "boolean"}, "Whether a result is flagged as abnormal or outside its range."),
    ("code", SOUGHT, "With a result of this LOINC code."),
    ("text", SOUGHT, "With this text in its words; case does not matter."),
)
SEARCH_PARAMETERS = (
    (
        "search",
        SOUGHT,
        "The beginning of the username, or of words of the full name, in any order. Case does not matter, nor do"
        " accents, hyphens and apostrophes in full names. In a name with more than five words, the longest of the words"
        " sought must begin one of the first four or the last.",
    ),
    ("role", {"enum": list(ROLES)}, "Of this role."),
)
SEARCH_AFTER = after_parameter(type="string", pattern=rf"^[0-{KEYS}]_[0-9]{{1,18}}_[^\u0000]*$")
ACCESS_LOG_AFTER = after_parameter(type="string", pattern=r"^[0-9]{1,13}_[0-9a-f]{24}$")
TREND_PARAMETERS = (
    limit_parameter(TREND_LIMIT_MAX, TREND_LIMIT),
    PAGE_PARAMETERS[1],
    ("code", SOUGHT, "The measurement's LOINC code."),
    ("name", SOUGHT, "The name of a measurement, with a code or without; no effect if `code` is given."),
    *SPAN_PARAMETERS,
)

ACCESS_LOG_COLUMNS = ("at", "actor", "actor_role", "what", "report_id")
CACHED = {304: ("It is still what `If-None-Match` names.", None)}
KNOWN_TAG = (("If-None-Match", {"type": "string"}, "The `ETag` of what the client has."),)
CSV_MEDIA_TYPE = {CSV: {"type": "string"}}
REPORT_MEDIA_TYPES = {FHIR: ref("FhirBundle"), **CSV_MEDIA_TYPE}
UNKNOWN_PERSON = {404: "No user of that name, or the caller may not see the user."}
UNKNOWN_REPORT = {404: "No such report, or the caller may not see it."}
RESULT_NOTES = {
    400: "A parameter is unknown or wrong.",
    403: "The caller's role may not do this.",
    406: "The answer has no media type that `Accept` allows.",
    429: "Another export of the caller's is still running; `Retry-After` says when to try again.",
    410: "Its source withdrew it.",
    415: "A search by POST is a form.",
    409: "The upload API refused it; `details` says why.",
}


def reading(summary: str, answer: tuple[str, Any], roles: str, **details: Any) -> Operation:
    """Describe a GET whose answer clients may keep. `errors`: those beside wrong parameters and media types."""
    errors = {**refusals(400, 406), **details.pop("errors", {})}
    headers = (*details.pop("headers", ()), *KNOWN_TAG)
    return Operation(summary, {200: answer, **CACHED}, roles, headers=headers, errors=errors, **details)


def refusals(*statuses: int) -> dict[int, str]:
    return {status: RESULT_NOTES[status] for status in statuses}


def selected(schema: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: schema["properties"][name] for name in names}


STRUCTS = struct_schemas(ReportDocument, UserDocument, TrendPoint, Measurement, AccessEvent)
# An answer has `id` and `username` instead, and nothing that only sorts.
HIDDEN = ("_id", "subject", "far")
DOCUMENTS = {name: STRUCTS[name] for name in ("ReportDocument", "UserDocument")}
REPORT = STRUCTS["ReportDocument"]
REPORT = {
    **REPORT,
    "required": ["id", "username", *(name for name in REPORT["required"] if name not in HIDDEN)],
    "properties": {
        "id": WHOLE,
        "username": {"type": "string"},
        **selected(REPORT, (name for name in REPORT["properties"] if name not in HIDDEN)),
        "taken_at": {**maybe(MOMENT), "description": "Null if it is not known."},
    },
}
BROWSE_SCHEMAS: dict[str, Any] = {
    "Report": REPORT,
    "FhirBundle": shape({"resourceType": {"const": "Bundle"}, "type": {"const": "collection"}}, closed=False),
    "FhirResource": shape({"resourceType": {"type": "string"}}, closed=False),
    "FhirSearchset": shape({"resourceType": {"const": "Bundle"}, "type": {"const": "searchset"}}, closed=False),
    "Person": shape(
        {
            "id": WHOLE,
            **selected(STRUCTS["UserDocument"], ("username", "full_name", "role", "active")),
            "role": {"enum": list(ROLES)},
        }
    ),
    "TrendPoint": STRUCTS["TrendPoint"],
    "Measurement": STRUCTS["Measurement"],
    "TrendPoints": listed("TrendPoint"),
    "Measurements": listed("Measurement"),
    "AccessEvent": shape(
        {
            **selected(STRUCTS["AccessEvent"], ACCESS_LOG_COLUMNS),
            "actor_role": {"enum": [*ROLES, ""], "description": "Empty if it was done at the server's command line."},
        }
    ),
}

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
    return format_page_cursor(PageCursor(report["taken_at"], report["_id"]))


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
