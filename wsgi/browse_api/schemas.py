"""JSON Schemas of the browse API's parameters, bodies and answers, for its OpenAPI document."""

from collections.abc import Iterable
from typing import Any

from myhealth.profiles import ROLES
from myhealth.reports import TREND_LIMIT, TREND_LIMIT_MAX
from myhealth.reports.access_log import AccessEvent
from myhealth.reports.documents import KEYS
from myhealth.reports.filters import FILTER_TEXT_MAX, SORTS
from myhealth.reports.trends import Measurement, TrendPoint
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
