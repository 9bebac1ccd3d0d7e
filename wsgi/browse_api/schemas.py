"""What the browse API's parameters, bodies and answers look like, as JSON Schema for its OpenAPI document."""

from __future__ import annotations

from typing import Any

from myhealth.profiles.models import ROLES
from myhealth.reports.filters import FILTER_TEXT_MAX, SORTS
from myhealth.reports.name_matching import KEYS
from myhealth.reports.trends import TREND_LIMIT, TREND_LIMIT_MAX
from wsgi.browse_api.responses import CSV, FHIR
from wsgi.common.views import LIMIT, LIMIT_MAX

MOMENT = {"type": "string", "format": "date-time"}
NUMBER = {"type": ["number", "null"]}
TEXT = {"type": ["string", "null"]}
COUNT = {"type": "integer", "minimum": 0}
WHOLE = {"type": "integer"}
# No NUL, which no text of ours holds; and every code point is a whole character.
SOUGHT = {"type": "string", "minLength": 1, "maxLength": FILTER_TEXT_MAX, "pattern": r"^[^\u0000]*$"}
WHEN = {"type": "string", "anyOf": [{"format": "date"}, {"format": "date-time"}]}
ANYTHING: dict[str, Any] = {}


def limit(most: int, default: int) -> tuple[str, dict[str, Any], str]:
    return "limit", {"type": "integer", "minimum": 1, "maximum": most, "default": default}, "Most entries of a page."


def after(pattern: str) -> tuple[str, dict[str, Any], str]:
    return "after", {"type": "string", "pattern": pattern}, "Where the page begins; the `Link` header has it."


PAGE = (
    limit(LIMIT_MAX, LIMIT),
    after(r"^-?[0-9]{1,15}_[0-9]{1,18}$"),
    ("sort", {"enum": list(SORTS), "default": SORTS[0]}, "The newest first, or the oldest."),
)
SPAN = (
    ("from", WHEN, "Taken on this day (UTC) or at this moment, or later."),
    ("to", WHEN, "Taken on this day (UTC) or earlier; or before this moment."),
)
FILTERS = (
    ("type", SOUGHT, "Of this check-up type."),
    ("disease", SOUGHT, "About this disease."),
    ("machine", SOUGHT, "From the machine of this serial."),
    ("taken_by", SOUGHT, "Taken by whoever is called so."),
    *SPAN,
    ("abnormal", {"type": "boolean"}, "Whether a result is flagged as not normal, or lies outside its range."),
    ("code", SOUGHT, "With a result of this LOINC code."),
    ("text", SOUGHT, "With this text somewhere in its words, case aside."),
)
PEOPLE = (
    (
        "search",
        SOUGHT,
        "Whose username begins so, or in whose full name a word begins with each of its words; case aside, and in full"
        " names accents, hyphens and apostrophes too. Of a name with more than five words, the longest of the words"
        " that are looked for must begin one of the first four or the last.",
    ),
    ("role", {"enum": list(ROLES)}, "Of this role."),
)
PEOPLE_AFTER = after(rf"^[0-{KEYS}]_[0-9]{{1,18}}_[^\u0000]*$")
ACCESS_LOG_AFTER = after(r"^[0-9]{1,13}_[0-9a-f]{24}$")
TREND = (
    limit(TREND_LIMIT_MAX, TREND_LIMIT),
    PAGE[1],
    ("code", SOUGHT, "The measurement's LOINC code."),
    ("name", SOUGHT, "The name of a measurement, with a code or without; of no effect beside `code`."),
    *SPAN,
)

CACHED = {304: ("The same as what `If-None-Match` names.", None)}
KNOWN_TAG = (("If-None-Match", {"type": "string"}, "The `ETag` of what the client has."),)
CSV_MEDIA_TYPE = {CSV: {"type": "string"}}
REPORT_MEDIA_TYPES = {FHIR: {"$ref": "#/components/schemas/FhirBundle"}, **CSV_MEDIA_TYPE}
UNKNOWN_USER = {404: "Nobody of that name, or nobody whom the caller may see."}
UNKNOWN_REPORT = {404: "No such report, or none that the caller may see."}
RESULT_NOTES = {
    400: "A parameter is not known or not right.",
    403: "Not with this role.",
    406: "The answer's media type is none that `Accept` takes.",
    409: "The upload API says why it is not done.",
}


def refusals(*statuses: int) -> dict[int, str]:
    return {status: RESULT_NOTES[status] for status in statuses}


def shape(required: dict[str, Any], optional: dict[str, Any] | None = None, *, closed: bool = True) -> dict[str, Any]:
    properties = {**required, **(optional or {})}
    found: dict[str, Any] = {"type": "object", "required": list(required), "properties": properties}
    return {**found, "additionalProperties": False} if closed else found


def listed(name: str) -> dict[str, Any]:
    return {"type": "array", "items": {"$ref": f"#/components/schemas/{name}"}}


REPORT = {
    "id": WHOLE,
    "username": {"type": "string"},
    "patient_id": WHOLE,
    "checkup_type": {"type": "string"},
    "checkup_report": {"type": "string"},
    "disease": {"type": "string"},
    "machine": TEXT,
    "taken_by": TEXT,
    "taken_at": MOMENT,
    "created_at": MOMENT,
    "updated_at": MOMENT,
    "results": {
        "description": "A list of results, each with `code` (LOINC), `name`, `value` (a number or text), `unit`, `low`,"
        " `high` and `flag`, as the upload API's Result has them; a program that writes to the source itself may have"
        " stored others."
    },
    "abnormal": {"type": "boolean"},
    "revision": WHOLE,
    "epoch": WHOLE,
}
SCHEMAS: dict[str, Any] = {
    "Credentials": shape({"username": {"type": "string"}, "password": {"type": "string"}}),
    "Token": shape({"token": {"type": "string"}, "expires_at": MOMENT}),
    "Health": shape({"status": {"const": "ok"}}),
    "Report": shape(REPORT),
    "FhirBundle": shape({"resourceType": {"const": "Bundle"}, "type": {"const": "collection"}}, closed=False),
    "Person": shape(
        {
            "id": WHOLE,
            "username": {"type": "string"},
            "full_name": {"type": "string"},
            "role": {"enum": list(ROLES)},
            "active": {"type": "boolean"},
        }
    ),
    "TrendPoint": shape(
        {
            "report_id": WHOLE,
            "taken_at": MOMENT,
            "name": ANYTHING,
            "value": ANYTHING,
            "unit": ANYTHING,
            "low": ANYTHING,
            "high": ANYTHING,
            "flag": ANYTHING,
        },
        {"range_source": ANYTHING, "warning": ANYTHING, "range_text": ANYTHING, "code": ANYTHING},
    ),
    "Measurement": shape(
        {
            "code": TEXT,
            "name": TEXT,
            "units": {"type": "array", "items": {"type": "string"}},
            "count": COUNT,
            "first_at": MOMENT,
            "last_at": MOMENT,
        }
    ),
    "TrendPoints": listed("TrendPoint"),
    "Measurements": listed("Measurement"),
    "AccessEvent": shape(
        {
            "at": MOMENT,
            "actor": {"type": "string"},
            "actor_role": {"enum": [*ROLES, ""], "description": "Empty: at the server's command line."},
            "what": {"type": "string"},
            "report_id": {"type": ["integer", "null"]},
        }
    ),
}
