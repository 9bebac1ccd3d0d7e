"""The CapabilityStatement, derived from the tables of parameters. Source: HL7 FHIR R4, "CapabilityStatement"."""

from typing import Any

from myhealth import __version__
from myhealth.reports.fhir.parameters import INCLUDES, PARAMETERS
from wsgi.browse_api.responses import FHIR

SECURITY = "A token of POST /login/, as Authorization: Bearer. Patients see their own, doctors and admins everybody's."


def capability_statement(base: str) -> dict[str, Any]:
    """Return what the server at this address can do, and no more."""
    rest = {
        "mode": "server",
        "security": {"cors": False, "description": SECURITY},
        "resource": [_resource(kind) for kind in ("Patient", "Observation", "DiagnosticReport", "Device")],
    }
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": "2026-11-28",
        "kind": "instance",
        "software": {"name": "MyHealth", "version": __version__},
        "implementation": {"description": "MyHealth: people's own health check-up reports", "url": base},
        "fhirVersion": "4.0.1",
        "format": ["json", FHIR],
        "rest": [rest],
    }


def _resource(kind: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": kind,
        "interaction": [{"code": "read"}],
        "versioning": "versioned",
        "readHistory": False,
        "conditionalRead": "not-match",
    }
    if kind in PARAMETERS:
        found["interaction"].append({"code": "search-type"})
        found["searchParam"] = [
            {"name": name, "type": each.type, "documentation": each.text} for name, each in PARAMETERS[kind].items()
        ]
        if INCLUDES[kind]:
            found["searchInclude"] = list(INCLUDES[kind])
    if kind == "Patient":
        definition = "http://hl7.org/fhir/OperationDefinition/Patient-everything"
        found["operation"] = [{"name": "everything", "definition": definition}]
    return found
