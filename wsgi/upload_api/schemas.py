"""JSON Schemas of the upload API's bodies, parameters and answers, for its OpenAPI document."""

from typing import Any

import msgspec

from myhealth.checkups.models import CHANGEABLE, OMITTED_NULLS, SHOWN_COLUMNS
from myhealth.checkups.services import NOTE_MAX
from myhealth.common.decoding import Count, Id, StoredMoment
from myhealth.examples import NAMES
from myhealth.intake.formats.registry import FORMATS, MEMORY_FORMAT
from myhealth.intake.formats.tables.layout import ORDERS
from myhealth.intake.idempotency import KEY_MAX
from myhealth.intake.record import DetailedRecord
from myhealth.intake.record_types import SERIAL_PATTERN, TEXT_MAX
from myhealth.machines.services import SERIAL_MAX
from myhealth.profiles import ROLES, SEXES
from myhealth.profiles.identifiers import IDENTIFIER_MAX
from myhealth.profiles.models import FULL_NAME_MAX
from myhealth.profiles.names import USERNAME_MAX
from myhealth.profiles.passwords import MAX_BYTES, MIN_CHARACTERS
from wsgi.common.openapi import (
    COUNT,
    MOMENT,
    TEXT,
    Operation,
    after_parameter,
    errors_of,
    limit_parameter,
    listed,
    maybe,
    one_of,
    ref,
    shape,
    struct_schemas,
    undescribed,
)
from wsgi.common.views import LIMIT, LIMIT_MAX

ID = {"type": "integer", "minimum": 1}
FLAG = {"type": "boolean"}
STATUSES = ("accepted", "duplicate", "rejected")


def text(most: int = TEXT_MAX, least: int = 0, pattern: str = r"^[^\x00]*$") -> dict[str, Any]:
    return {**TEXT, "maxLength": most, **({"minLength": least} if least else {}), "pattern": pattern}


# The answer explains rules beyond a pattern: characters that look like others, the bytes of a password.
USERNAME = text(USERNAME_MAX, 1, r"^[^\s/\\:\x00-\x1f\x7f-\x9f]+$")
NEW_PASSWORD = text(MAX_BYTES, MIN_CHARACTERS)
DATE = {"type": "string", "format": "date"}
IDENTIFIER_PART = text(IDENTIFIER_MAX, 1, r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$")
# Given as a whole; a change replaces the list.
IDENTIFIERS = {"type": "array", "items": shape({"system": IDENTIFIER_PART, "value": IDENTIFIER_PART})}
SERIAL = text(SERIAL_MAX, 1, SERIAL_PATTERN)
LABEL = text(SERIAL_MAX, 0, r"^[^\x00-\x1f\x7f-\x9f]*$")
# A name, or a layout as TOML: its keys are explained in examples/table-layout.toml.
LAYOUT = {
    "anyOf": [{"enum": [*NAMES, None]}, {"type": "string", "pattern": r"^\[\[results\]\]\ncolumn = '[ -&(-~]+'\n"}]
}
FULL_NAME = text(FULL_NAME_MAX, 0, r"^[^\x00-\x1f\x7f-\x9f]*$")
# A record and a result are declared once, by the Structs that validate them.
_, GENERATED = msgspec.json.schema_components([DetailedRecord], ref_template="#/components/schemas/{name}")
PARTS = {name: undescribed(schema) for name, schema in GENERATED.items()}
RECORD = PARTS.pop("DetailedRecord")
FIELDS = RECORD["properties"]
# The address may name the patient, or `patient`, so `checkup_for` need not.
WITH_IDENTIFIER = {
    "required": ["patient"],
    "properties": {
        "patient": {
            "type": "object",
            "required": ["identifiers"],
            "properties": {"identifiers": {"type": "array", "minItems": 1}},
        }
    },
}
PATIENT_RECORD = {**RECORD, "required": [name for name in RECORD["required"] if name != "checkup_for"]}
CHECKUP_FIELDS: list[tuple[Any, ...]] = [
    ("id", Id),
    ("username", str),
    ("machine", str | None),
    *(column.struct_field for column in SHOWN_COLUMNS),
    ("created_at", StoredMoment),
    ("updated_at", StoredMoment),
    ("revision", Count),
]
CHECKUP = struct_schemas(msgspec.defstruct("Checkup", CHECKUP_FIELDS, kw_only=True))["Checkup"]
# Details are those of a record; a moment that is not known is null.
CHECKUP["properties"] |= {**{name: FIELDS[name] for name in OMITTED_NULLS & FIELDS.keys()}, "taken_at": maybe(MOMENT)}
# A corrected check-up keeps its patient, machine and number, and always has a moment.
CHANGES = shape({}, {**{name: FIELDS[name] for name in CHANGEABLE}, "taken_at": MOMENT, "revision": ID})

ROLE = {"enum": list(ROLES)}
SEX = {"enum": [*SEXES, None]}
COUNTS = dict.fromkeys(STATUSES, COUNT)
PERSON = {"role": ROLE, "full_name": FULL_NAME, "birth_date": maybe(DATE), "sex": SEX}
MACHINE_LABELS = ("model", "site", "firmware")


def dump_of(record: str) -> dict[str, Any]:
    return shape(
        {
            "machine": {"oneOf": [SERIAL, shape({"serial": SERIAL}, closed=False)]},
            "records": listed(record, minItems=1),
        },
        {"format": {"const": MEMORY_FORMAT}, "dumped_at": MOMENT},
        closed=False,
    )


ITEM = shape(
    {"index": COUNT, "status": {"enum": list(STATUSES)}, "id": maybe(ID)},
    {
        "effect": {"enum": ["created", "replaced", "withdrawn", "none"]},
        "errors": errors_of(code=TEXT),
        "rejection_id": maybe(ID),
        "warnings": errors_of(code=TEXT),
        "line": COUNT,
        "record_id": {"type": ["string", "null"]},
    },
)
REASON_MAX = 150  # characters
NULLABLE_TEXT = {"type": ["string", "null"]}
REJECTION = shape(
    {
        "id": ID,
        "received_at": MOMENT,
        "source": TEXT,
        **dict.fromkeys(("machine", "format", "record_id", "patient"), NULLABLE_TEXT),
        "line": maybe(COUNT),
        "errors": errors_of(code=TEXT),
        "times": ID,
        "resolved_at": maybe(MOMENT),
        "resolution": NULLABLE_TEXT,
        "checkup_id": maybe(ID),
    }
)
WHOLE = {
    "payload": {**TEXT, "description": "The record as it was sent; in base64 if `base64` is true."},
    "base64": FLAG,
    "correction": {**NULLABLE_TEXT, "description": "The corrected record, JSON or rows of a table; `payload` stays."},
}
SCHEMAS: dict[str, Any] = {
    "NewAccount": shape({"username": USERNAME, "password": NEW_PASSWORD}),
    "NewInvitation": shape({"username": TEXT}),
    "Invitation": shape({"username": TEXT, "code": TEXT, "expires_at": MOMENT}),
    "Welcome": shape({"username": TEXT, "code": TEXT, "password": NEW_PASSWORD}),
    "Details": shape({"details": TEXT}),
    "Jwks": shape({"keys": {"type": "array", "items": {"type": "object"}}}),
    "User": shape(
        {
            "id": ID,
            "username": TEXT,
            "role": ROLE,
            "full_name": TEXT,
            "birth_date": maybe(DATE),
            "sex": SEX,
            "active": FLAG,
            "linked_at": maybe(MOMENT),
            "created_at": MOMENT,
            "updated_at": MOMENT,
        },
        {"identifiers": IDENTIFIERS, "waiting": COUNT},
    ),
    "NewUser": shape({"username": USERNAME}, {"password": maybe(NEW_PASSWORD), **PERSON, "reuse_erased_name": FLAG}),
    "Linked": shape({"details": TEXT, **COUNTS}),
    "UserChanges": shape(
        {},
        {
            "username": USERNAME,
            "full_name": FULL_NAME,
            "password": NEW_PASSWORD,
            "current_password": TEXT,
            "role": ROLE,
            "active": FLAG,
            "birth_date": maybe(DATE),
            "sex": SEX,
            "identifiers": IDENTIFIERS,
        },
    ),
    **PARTS,
    "Record": {**PATIENT_RECORD, "anyOf": [{"required": ["checkup_for"]}, WITH_IDENTIFIER]},
    "PatientRecord": PATIENT_RECORD,
    "Records": listed("Record", minItems=1),
    "PatientRecords": listed("PatientRecord", minItems=1),
    "Dump": dump_of("Record"),
    "PatientDump": dump_of("PatientRecord"),
    "FhirUpload": shape({"resourceType": {"enum": ["Bundle", "Observation", "DiagnosticReport"]}}, closed=False),
    "FhirResource": shape({"resourceType": TEXT}, closed=False),
    "BulkAnswer": shape(
        {"details": TEXT, **COUNTS, "items": {"type": "array", "items": ITEM}},
        {
            "skipped": {"type": "object", "additionalProperties": COUNT},
            "notices": {"type": "array", "items": TEXT},
            "refused_file": TEXT,
        },
    ),
    "Checkup": CHECKUP,
    "CheckupVersion": shape(
        {
            "revision": ID,
            "replaced_at": MOMENT,
            "replaced_by": {"type": ["string", "null"], "description": "The user who changed it here, if one did."},
            "reason": {"enum": ["corrected", "replaced", "withdrawn"]},
            "content": {"type": "object", "description": "The check-up as it was, with all its columns."},
        }
    ),
    "CheckupChanges": CHANGES,
    "Rejection": REJECTION,
    "RejectionWhole": {
        **REJECTION,
        "required": [*REJECTION["required"], *WHOLE],
        "properties": REJECTION["properties"] | WHOLE,
    },
    "RejectionRetry": shape({}, {"patient": maybe({"oneOf": [USERNAME, ID]}), "record": maybe(ref("Record"))}),
    "RejectionDiscard": shape({}, {"reason": text(REASON_MAX)}),
    "Reviewed": shape(
        {"id": ID, "revision": ID, "reviewed_at": MOMENT, "reviewed_by": ID}, {"review_note": maybe(TEXT)}
    ),
    "Review": shape({}, {"note": maybe(text(NOTE_MAX)), "revision": maybe(ID)}),
    "Machine": shape(
        {
            "id": ID,
            "serial": TEXT,
            **{label: {"type": ["string", "null"]} for label in (*MACHINE_LABELS, "layout")},
            "last_upload_at": maybe(MOMENT),
            "created_at": MOMENT,
            "updated_at": MOMENT,
        }
    ),
    "NewMachine": shape({"serial": SERIAL}, {**{label: maybe(LABEL) for label in MACHINE_LABELS}, "layout": LAYOUT}),
}

BULK_HEADERS = (
    (
        "Idempotency-Key",
        {
            "type": "string",
            "minLength": 1,
            "maxLength": KEY_MAX,
            "pattern": "^[\\x21-\\x7e]([\\x20-\\x7e]*[\\x21-\\x7e])?$",
        },
        "Makes the request repeatable: the same key gets the same answer, and nothing is done twice.",
    ),
    (
        "Content-Disposition",
        {"type": "string", "pattern": "filename\\*=UTF-8''"},
        "The file's name, with which rejected records are listed: `attachment; filename*=UTF-8''dump.json` (RFC 8187).",
    ),
)
LIMIT_QUERY = limit_parameter(LIMIT_MAX, LIMIT)
WRONG_PAGE = {400: "`limit` or `after` is wrong."}
BEFORE_QUERY = after_parameter(type="integer", minimum=0, maximum=10**18 - 1)
BULK_ANSWERS = {
    201: ("At least one record was accepted.", "BulkAnswer"),
    200: ("All records that can be stored were stored already.", "BulkAnswer"),
    422: ("Every record was rejected.", "BulkAnswer"),
}
BODY_DESCRIPTION = "A record, a list of them, NDJSON, a machine-memory dump, FHIR R4, HL7 v2 or CSV; gzipped or not."


def bulk_body(*json_schemas: str) -> dict[str, Any]:
    """Describe a body in any format; the JSON formats have schemas."""
    content: dict[str, Any] = {"application/json": {"schema": one_of(*json_schemas)}}
    for media_type in sorted({each.media_type for each in FORMATS}, reverse=True):
        content.setdefault(media_type, {"schema": {"type": "string"}})
    return {"description": BODY_DESCRIPTION, "content": content}


BULK_BODY = bulk_body("Record", "Records", "Dump", "FhirUpload")
# The address names the patient, so a record may leave it out.
PATIENT_BODY = bulk_body("PatientRecord", "PatientRecords", "PatientDump", "FhirUpload")
BULK_QUERY = (
    ("atomic", {"type": "boolean", "default": False}, "Store all records or none."),
    ("refused_file", {"type": "boolean", "default": False}, "Also return the rejected records, as they were sent."),
)
ZONE = {"type": "string", "minLength": 1, "maxLength": 100}
TABLE_QUERY = (
    ("layout", {"enum": [*NAMES]}, "What a table's columns mean; if not given, the machine's layout, or by names."),
    ("date_format", {"enum": [*ORDERS]}, "The order of day and month in a table."),
    ("decimal", {"enum": [".", ","]}, "The decimal separator of a table's numbers; a point, if nothing else is said."),
    ("timezone", ZONE, "The time zone of a table's times that have none, such as Asia/Kolkata."),
)
UNKNOWN_USER = "User does not exist!"
UNKNOWN = {404: UNKNOWN_USER}
SENDERS = ("doctor", "technician")
REPLAYED = (
    "Idempotent-Replayed", {"const": "true"}, "Present if this is the earlier answer to the same `Idempotency-Key`."
)  # fmt: skip


def bulk(
    summary: str, roles: tuple[str, ...], body: dict[str, Any] | None = None, query: tuple[Any, ...] = ()
) -> Operation:
    return Operation(
        summary, BULK_ANSWERS, roles, body=body or BULK_BODY, query=(*BULK_QUERY, *TABLE_QUERY, *query),
        headers=BULK_HEADERS, sends=(REPLAYED,),
        errors={**UNKNOWN, 409: "The answer stored under the Idempotency-Key has just expired."},
    )  # fmt: skip
