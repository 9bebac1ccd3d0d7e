"""The permissions at the upload API: this table is the specification.

It has every route, method and kind of caller; anything else is refused.
"""

from __future__ import annotations

from typing import Any

from support.clients import Caller
from support.factories import PASSWORD, record

CALLERS = ("bholanath", "savita", "dr.ayush", "tara", "root", "runner")
USER, CHECKUPS = "/users/<username>/", "/users/<username>/checkups/"
REJECTION, REJECTING = "/rejections/<rejection_id:int>/", ("dr.ayush", "tara", "root")  # it is tara's
CHECKUP = "/users/<username>/checkups/<checkup_id:int>/"


def only(status: int, *names: str, others: int = 403) -> dict[str, int]:
    """Expect `status` for these callers, `others` for the other ones, and 401 without a token."""
    return {"": 401, **dict.fromkeys(CALLERS, others), **dict.fromkeys(names, status)}


def everybody(status: int) -> dict[str, int]:
    return dict.fromkeys(("", *CALLERS), status)


# bholanath is the patient whose data it is.
SPECIFICATION: dict[tuple[str, str], dict[str, int]] = {
    ("GET", "/login/"): everybody(401),  # without a name and a password
    ("POST", "/login/"): everybody(200),
    ("POST", "/logout/"): only(204, *CALLERS),
    ("POST", "/registration/"): everybody(201),
    ("POST", "/invitations/"): only(201, "root"),
    ("POST", "/welcome/"): everybody(401),  # with a wrong code
    ("GET", "/.well-known/jwks.json"): everybody(200),
    **dict.fromkeys((("GET", path) for path in ("/livez", "/readyz", "/healthz")), everybody(200)),
    ("GET", "/metrics"): everybody(200),
    ("GET", "/users/"): only(200, *CALLERS),
    ("POST", "/users/"): only(201, "root"),
    ("GET", USER): only(200, "bholanath", "dr.ayush", "root", others=404),
    ("PUT", USER): only(200, "bholanath", "root", others=404),
    ("DELETE", USER): only(204, "root"),
    ("POST", "/users/<username>/link/"): only(200, "root"),
    ("GET", CHECKUPS): only(200, "bholanath", "dr.ayush", others=404),
    ("POST", CHECKUPS): only(201, "dr.ayush", "tara"),
    ("GET", CHECKUP): only(200, "bholanath", "dr.ayush", others=404),
    ("GET", CHECKUP + "history/"): only(200, "dr.ayush", "root"),
    ("POST", CHECKUP + "review/"): only(200, "dr.ayush", "root"),
    ("DELETE", CHECKUP + "review/"): only(204, "dr.ayush", "root"),
    ("PUT", CHECKUP): only(200, "dr.ayush"),
    ("DELETE", CHECKUP): only(204, "dr.ayush"),
    ("GET", "/checkups/"): only(200, "dr.ayush"),
    ("POST", "/checkups/"): only(201, "dr.ayush", "tara"),
    ("GET", "/reports/"): only(200, "dr.ayush"),
    ("POST", "/reports/"): only(201, "dr.ayush", "tara"),
    ("GET", "/machines/"): only(200, "tara", "dr.ayush", "root"),
    ("POST", "/machines/"): only(201, "tara"),
    ("POST", "/machines/<serial>/dumps/"): only(201, "tara"),
    ("GET", "/rejections/"): only(200, *REJECTING),
    ("GET", REJECTION): only(200, *REJECTING),
    ("POST", REJECTION + "retry/"): only(422, *REJECTING),
    ("POST", REJECTION + "discard/"): {**only(409, *REJECTING), REJECTING[0]: 204},
    ("POST", "/fhir/"): only(200, "dr.ayush", "tara"),
    ("POST", "/fhir/Observation/"): only(201, "dr.ayush", "tara"),
    ("POST", "/fhir/DiagnosticReport/"): only(201, "dr.ayush", "tara"),
}
FHIR_RESULT = {"resourceType": "Observation", "status": "final", "code": {"text": "Pulse"}, "effectiveDateTime": "2026-11-20",
               "subject": {"identifier": {"value": "bholanath"}}}  # fmt: skip
BODIES: dict[str, Any] = {
    "/login/": {"username": "savita", "password": PASSWORD},
    "/registration/": {"username": "new.one", "password": "a long password"},
    "/invitations/": {"username": "bholanath"},
    "/welcome/": {"username": "new.one", "code": "K7WD-9XQM-TT3C-HV5P-2AJR", "password": "a long password"},
    "/users/": {"username": "new.one", "role": "doctor"},
    USER: {"username": "bholanath", "full_name": "Bholanath M"},
    CHECKUP: {"disease": "none"},
    CHECKUP + "review/": {"note": "All is well."},
    "/machines/": {"serial": "HC-9"},
    REJECTION + "retry/": {},
    REJECTION + "discard/": {"reason": "sent twice"},
    "/fhir/": {"resourceType": "Bundle", "type": "batch", "entry": [{"resource": FHIR_RESULT, "request": {"method": "POST", "url": "Observation"}}]},
    "/fhir/Observation/": FHIR_RESULT,
    "/fhir/DiagnosticReport/": {**FHIR_RESULT, "resourceType": "DiagnosticReport"},
}  # fmt: skip


def ask(upload: Caller, method: str, path: str, token: str, number: int = 7, *, closing_slash: bool = True) -> Any:
    """Call a path of the table. A new `number` makes the body a new record, user or machine."""
    body = BODIES.get(path, [record(number)]) if method in ("POST", "PUT", "PATCH") else None
    if isinstance(body, dict) and body.get("username") == "new.one":
        body = {**body, "username": f"new.{number}"}
    if isinstance(body, dict) and path in ("/fhir/Observation/", "/fhir/DiagnosticReport/"):
        body = {**body, "id": str(number)}
    filled_path = filled(path) if closing_slash else filled(path).rstrip("/")
    return upload(method, filled_path, body, token=token)


def filled(path: str) -> str:
    return (
        path.replace("<username>", "bholanath")
        .replace("<checkup_id:int>", "1")
        .replace("<rejection_id:int>", "1")
        .replace("<serial>", "HC-1")
    )
