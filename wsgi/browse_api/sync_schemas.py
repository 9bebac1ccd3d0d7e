"""What the task runner's calls take and answer, as JSON Schema."""

from __future__ import annotations

from typing import Any

from wsgi.browse_api.schemas import ANYTHING, DOCUMENTS, WHOLE, listed
from wsgi.common.openapi import COUNT, shape

KIND = {"enum": ["checkup", "user"]}
FAILED = {"type": "array", "items": shape({"id": WHOLE, "reason": {"type": "string"}})}
REFUSAL = shape({"_id": WHOLE, "epoch": COUNT, "revision": COUNT, "reason": {"type": "string"}})
AFTER = {"type": ["integer", "null"]}
MARK: dict[str, Any] = {"type": ["object", "null"]}
PAIR = {"type": "array", "items": WHOLE, "minItems": 2, "maxItems": 2}


def taken(ids: str) -> dict[str, Any]:
    return shape({ids: {"type": "array", "items": WHOLE}, "written": COUNT, "unchanged": COUNT, "failed": FAILED})


SYNC_SCHEMAS: dict[str, Any] = {
    **DOCUMENTS,
    "ReportDocuments": listed("ReportDocument"),
    "UserDocuments": listed("UserDocument"),
    "TakenReports": taken("report_ids"),
    "TakenUsers": taken("user_ids"),
    "Deletions": shape({"kind": KIND, "epoch": COUNT, "dead": {"type": "array", "items": PAIR}}),
    "Removed": shape({"removed": COUNT}),
    "Sweep": shape({"epoch": COUNT, "after": WHOLE}),
    "Swept": shape({"removed": COUNT, "after": AFTER}),
    "Epoch": shape({"epoch": COUNT, "after": AFTER, "found": {"type": "boolean"}}),
    "Collections": shape({"identity": {"type": "string"}}),
    "Refusals": shape({"kind": KIND, "refused": {"type": "array", "items": REFUSAL}}),
    "FailedIds": shape({"ids": {"type": "array", "items": WHOLE}}),
    "Kept": shape({"kept": ANYTHING}),
    "Mark": shape({"mark": MARK}),
    "MarkMoved": shape({"mark": {"type": "object"}}, closed=False),
    "Count": shape({"count": COUNT}),
}
