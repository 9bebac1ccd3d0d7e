"""What the task runner's calls take and answer, as JSON Schema."""

from __future__ import annotations

from typing import Any

from wsgi.browse_api.schemas import ANYTHING, COUNT, MOMENT, REPORT, WHOLE, listed, shape

KIND = {"enum": ["checkup", "user"]}
FAILED = {"type": "array", "items": shape({"id": WHOLE, "reason": {"type": "string"}})}
REFUSAL = shape({"_id": WHOLE, "epoch": COUNT, "revision": COUNT, "reason": {"type": "string"}})
AFTER = {"type": ["integer", "null"]}
MARK: dict[str, Any] = {"type": ["object", "null"]}
PAIR = {"type": "array", "items": WHOLE, "minItems": 2, "maxItems": 2}
SUBJECT = {"type": "string"}


def taken(ids: str) -> dict[str, Any]:
    return shape({ids: {"type": "array", "items": WHOLE}, "written": COUNT, "unchanged": COUNT, "failed": FAILED})


SYNC_SCHEMAS: dict[str, Any] = {
    "ReportDocument": shape(
        {"_id": WHOLE, "subject": SUBJECT, **{name: REPORT[name] for name in REPORT if name not in ("id", "username")}}
    ),
    "ReportDocuments": listed("ReportDocument"),
    "UserDocument": shape(
        {
            "_id": WHOLE,
            "subject": SUBJECT,
            "username": {"type": "string"},
            "username_key": {"type": "string"},
            "full_name": {"type": "string"},
            "name_keys": {"type": "object", "additionalProperties": {"type": "string"}},
            "role": {"type": "string"},
            "active": {"type": "boolean"},
            "tokens_valid_after": {"anyOf": [MOMENT, {"type": "null"}]},
            "revision": COUNT,
            "epoch": COUNT,
        }
    ),
    "UserDocuments": listed("UserDocument"),
    "TakenReports": taken("report_ids"),
    "TakenUsers": taken("user_ids"),
    "Deletions": shape({"kind": KIND, "epoch": COUNT, "dead": {"type": "array", "items": PAIR}}),
    "Removed": shape({"removed": COUNT}),
    "Sweep": shape({"epoch": COUNT, "after": WHOLE}),
    "Swept": shape({"removed": COUNT, "after": AFTER}),
    "Epoch": shape({"epoch": COUNT, "after": AFTER}),
    "Collections": shape({"identity": {"type": "string"}}),
    "Refusals": shape({"kind": KIND, "refused": {"type": "array", "items": REFUSAL}}),
    "FailedIds": shape({"ids": {"type": "array", "items": WHOLE}}),
    "Kept": shape({"kept": ANYTHING}),
    "Mark": shape({"mark": MARK}),
    "MarkMoved": shape({"mark": {"type": "object"}}, closed=False),
    "Count": shape({"count": COUNT}),
}
