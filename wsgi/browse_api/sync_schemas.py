"""JSON Schemas of the task runner's calls, derived from the table of calls."""

from typing import Any

import msgspec

from myhealth.sync.calls import CALLS
from wsgi.browse_api.schemas import ANYTHING, DOCUMENTS, WHOLE
from wsgi.common.openapi import COUNT, listed, shape

FAILED = {"type": "array", "items": shape({"id": WHOLE, "reason": {"type": "string"}})}
TAKEN = {"report_ids": {"type": "array", "items": WHOLE}, "written": COUNT, "unchanged": COUNT, "failed": FAILED}
ARGUMENTS, STRUCTS = msgspec.json.schema_components(
    [call.arguments for call in CALLS.values()], ref_template="#/components/schemas/{name}"
)
SYNC_SCHEMAS: dict[str, Any] = {
    **STRUCTS,
    **DOCUMENTS,
    "ReportDocuments": listed("ReportDocument"),
    "TakenReports": shape(TAKEN),
    "CallArguments": {"anyOf": [{"title": method, **schema} for method, schema in zip(CALLS, ARGUMENTS, strict=True)]},
    "CallResult": shape({"result": ANYTHING}),
}
