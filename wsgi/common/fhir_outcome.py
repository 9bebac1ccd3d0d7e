"""Errors as FHIR's OperationOutcome. Source: HL7 FHIR R4 (4.0.1), "OperationOutcome", value set issue-type."""

from collections.abc import Sequence
from typing import Any

import bottle

FHIR = "application/fhir+json"
FHIR_ID = r"[A-Za-z0-9.\-]{1,64}"  # a logical id
FHIR_HEADERS = {"Content-Type": FHIR}
OUR_ERROR = "tag:myhealth.example,2026:error"
ISSUE_TYPES = {
    200: "informational", 401: "login", 403: "forbidden", 404: "not-found", 405: "not-supported",
    406: "not-supported", 409: "conflict",
    410: "deleted", 413: "too-long", 415: "not-supported", 422: "processing", 429: "throttled", 500: "exception",
    502: "transient", 503: "transient", 504: "timeout",
}  # fmt: skip
# Of errors whose code of ours says more than the status.
ISSUE_TYPES_OF_CODES = {"not_supported": "not-supported", "too_costly": "too-costly", "required": "required"}


def is_fhir() -> bool:
    """Return whether the request is to the FHIR API."""
    path: str = bottle.request.environ.get("PATH_INFO", "")
    return path == "/fhir" or path.startswith("/fhir/")


def operation_outcome(
    status: int, details: str, code: str, errors: Sequence[dict[str, Any]] = (), severity: str = "error"
) -> dict[str, Any]:
    """Return an error of ours: an issue for each of `errors`, whose `field` is the place, or one issue."""
    issues = []
    for error in errors or [{"message": details}]:
        own = error.get("code") or code
        issue = {
            "severity": severity,
            "code": ISSUE_TYPES_OF_CODES.get(own) or ISSUE_TYPES.get(status, "invalid"),
            "details": {"coding": [{"system": OUR_ERROR, "code": own}], "text": details},
            "diagnostics": error["message"],
        }
        issues.append(issue | ({"expression": [place]} if (place := error.get("field")) else {}))
    return {"resourceType": "OperationOutcome", "issue": issues}
