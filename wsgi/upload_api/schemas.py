"""What the upload API's bodies and answers look like, as JSON Schema for its OpenAPI document."""

from __future__ import annotations

from typing import Any

from myhealth.checkups.records import FLAGS, REPORT_MAX, RESULTS_MAX, TEXT_MAX, VALUE_MAX
from myhealth.machines.dumps import MEMORY_FORMAT
from myhealth.profiles.models import ROLES

MOMENT = {"type": "string", "format": "date-time"}
COUNT = {"type": "integer", "minimum": 0}
ID = {"type": "integer", "minimum": 1}


def maybe(schema: dict[str, Any]) -> dict[str, Any]:
    return {"oneOf": [schema, {"type": "null"}]}


def text(most: int = TEXT_MAX, least: int = 0) -> dict[str, Any]:
    return {"type": "string", "maxLength": most, **({"minLength": least} if least else {})}


def shape(required: dict[str, Any], optional: dict[str, Any] | None = None, *, closed: bool = True) -> dict[str, Any]:
    properties = {**required, **(optional or {})}
    found: dict[str, Any] = {"type": "object", "required": list(required), "properties": properties}
    return {**found, "additionalProperties": False} if closed else found


RESULT_EXTRAS = {
    name: text() for name in ("code_system", "other_code", "absent_reason", "range_text", "range_source", "warning")
}
FLAG = {"type": ["string", "null"], "enum": [*FLAGS, None]}
NUMBER = {"type": ["number", "null"]}
RESULT = shape(
    {"name": text(least=1), "value": {"oneOf": [{"type": "number"}, text(VALUE_MAX)]}},
    {"code": maybe(text()), "unit": maybe(text()), "low": NUMBER, "high": NUMBER, "flag": FLAG, **RESULT_EXTRAS},
)
# What is stored has every field; programs that write to the database themselves may store others too.
STORED_RESULT: dict[str, Any] = {}
RESULTS = {"type": "array", "items": {"$ref": "#/components/schemas/Result"}, "maxItems": RESULTS_MAX}
TOLD = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["index", "field", "message"],
        "properties": {
            "index": {"type": ["integer", "null"]},
            "field": {"type": ["string", "null"]},
            "message": {"type": "string"},
            "code": {"type": "string"},
        },
    },
}
CHANGEABLE = {
    "checkup_type": text(least=1),
    "checkup_report": text(REPORT_MAX),
    "disease": text(),
    "taken_by": maybe(text()),
    "taken_at": MOMENT,
    "results": RESULTS,
}

SCHEMAS: dict[str, Any] = {
    "Credentials": shape({"username": {"type": "string"}, "password": {"type": "string"}}),
    "Token": shape({"token": {"type": "string"}, "expires_at": MOMENT}),
    "Details": shape({"details": {"type": "string"}}),
    "Jwks": shape({"keys": {"type": "array", "items": {"type": "object"}}}),
    "Health": shape({"status": {"const": "ok"}, "schema": COUNT}),
    "User": shape(
        {
            "id": ID,
            "username": {"type": "string"},
            "role": {"enum": list(ROLES)},
            "full_name": {"type": "string"},
            "active": {"type": "boolean"},
            "created_at": MOMENT,
            "updated_at": MOMENT,
        }
    ),
    "NewUser": shape(
        {"username": {"type": "string", "minLength": 1, "maxLength": 150}},
        {"password": {"type": "string", "minLength": 8}, "role": {"enum": list(ROLES)}, "full_name": text(300)},
    ),
    "UserChanges": shape(
        {},
        {
            "full_name": text(300),
            "password": {"type": "string", "minLength": 8},
            "current_password": {"type": "string"},
            "role": {"enum": list(ROLES)},
            "active": {"type": "boolean"},
        },
    ),
    "Result": RESULT,
    "Record": shape(
        {
            "checkup_for": text(least=1),
            "checkup_type": text(least=1),
            "checkup_report": text(REPORT_MAX),
            "disease": text(),
        },
        {
            "record_id": {"oneOf": [text(least=1), {"type": "integer"}, {"type": "null"}]},
            "machine": maybe(text(200, 1)),
            "taken_by": maybe(text()),
            "taken_at": maybe(MOMENT),
            "results": RESULTS,
        },
    ),
    "Records": {"type": "array", "items": {"$ref": "#/components/schemas/Record"}, "minItems": 1},
    "Dump": shape(
        {
            "machine": {"oneOf": [text(200, 1), shape({"serial": text(200, 1)}, closed=False)]},
            "records": {"type": "array", "items": {"$ref": "#/components/schemas/Record"}},
        },
        {"format": {"const": MEMORY_FORMAT}, "dumped_at": MOMENT},
        closed=False,
    ),
    "FhirResource": shape({"resourceType": {"enum": ["Bundle", "Observation", "DiagnosticReport"]}}, closed=False),
    "BulkAnswer": shape(
        {
            "details": {"type": "string"},
            "accepted": COUNT,
            "duplicate": COUNT,
            "rejected": COUNT,
            "items": {
                "type": "array",
                "items": shape(
                    {
                        "index": COUNT,
                        "status": {"enum": ["accepted", "duplicate", "rejected"]},
                        "id": maybe(ID),
                        "errors": TOLD,
                        "rejection_id": maybe(ID),
                    },
                    {"warnings": TOLD},
                ),
            },
        },
        {"skipped": {"type": "object", "additionalProperties": COUNT}, "refused_file": {"type": "string"}},
    ),
    "Checkup": shape(
        {
            "id": ID,
            "username": {"type": "string"},
            "machine": {"type": ["string", "null"]},
            "record_id": {"type": ["string", "null"]},
            "checkup_type": {"type": "string"},
            "checkup_report": {"type": "string"},
            "disease": {"type": "string"},
            "taken_by": {"type": ["string", "null"]},
            "taken_at": MOMENT,
            "results": {"type": "array", "items": STORED_RESULT},
            "created_at": MOMENT,
            "updated_at": MOMENT,
            "revision": ID,
        }
    ),
    "CheckupChanges": shape({}, {**CHANGEABLE, "revision": ID}),
    "Machine": shape(
        {
            "id": ID,
            "serial": {"type": "string"},
            "model": {"type": ["string", "null"]},
            "site": {"type": ["string", "null"]},
            "firmware": {"type": ["string", "null"]},
            "last_upload_at": maybe(MOMENT),
            "created_at": MOMENT,
            "updated_at": MOMENT,
        }
    ),
    "NewMachine": shape(
        {"serial": text(200, 1)}, {"model": maybe(text(200)), "site": maybe(text(200)), "firmware": maybe(text(200))}
    ),
}
