"""What the FHIR API can do: its operations, for the OpenAPI document, and the CapabilityStatement.

Both are derived from the tables of parameters. Source: HL7 FHIR R4, "CapabilityStatement".
"""

from typing import Any

from myhealth import __version__
from myhealth.reports.fhir.parameters import COUNT, INCLUDES, PARAMETERS
from myhealth.reports.filters import FILTER_TEXT_MAX
from wsgi.browse_api.schemas import CACHED, KNOWN_TAG, SEARCH_AFTER, refusals
from wsgi.common.openapi import TEXT, Operation, ref
from wsgi.common.views import FHIR, JSON

VALUE = rf"([^\u0000,\\]|\\[,|$\\]){{1,{FILTER_TEXT_MAX}}}"
VALUES = {**TEXT, "minLength": 1, "pattern": f"^{VALUE}(,{VALUE})*$"}
DATES = {**TEXT, "anyOf": [{"format": "date"}, {"format": "date-time"},
                           {"pattern": "^(eq|ne|gt|lt|ge|le|sa|eb|ap)?[1-9][0-9]{3}(-(0[1-9]|1[0-2]))?$"}]}  # fmt: skip
SCHEMAS = {"date": DATES, "token": VALUES, "string": VALUES, "reference": VALUES}
FORMAT = ("_format", {"enum": ["json", FHIR, JSON, "text/json"]}, "The media type, in place of Accept.")
COUNTED = (
    "_count",
    {"type": "integer", "minimum": 0, "maximum": 10**9, "default": COUNT},
    "Maximum number of resources on a page.",
)
PLACE = {**TEXT, "pattern": r"^-?[0-9]{1,15}_[0-9]{1,18}_[0-9]{1,9}$"}
PREFER = ("Prefer", TEXT, "`handling=strict`: refuse unknown parameters.")
EVERYTHING_KINDS = ("Patient", "DiagnosticReport", "Observation", "Device")
TYPES = {**TEXT, "pattern": rf"^([^\u0000]*,)?({'|'.join(EVERYTHING_KINDS)})(,[^\u0000]*)?$"}
NOT_THERE = {404: "Nothing has this id, or the caller may not see it."}
WHO = "the person, doctor, admin"


def fhir_operation(summary: str, answer: tuple[str, str], roles: str = WHO, **details: Any) -> Operation:
    errors = {**refusals(400, 406), **details.pop("errors", {})}
    headers = (*details.pop("headers", ()), *KNOWN_TAG)
    answers: dict[int, Any] = {200: answer, **CACHED}
    return Operation(
        summary, answers, roles, headers=headers, errors=errors, content=FHIR, others={JSON: ref(answer[1])}, **details
    )


def _after_parameter(schema: dict[str, Any]) -> tuple[str, dict[str, Any], str]:
    return "_after", schema, "Where the page begins; the next link has it."


def search_operation(kind: str, *, form: bool = False) -> Operation:
    """Describe the search of one type of resource; `form`: with its parameters in a form."""
    begin = SEARCH_AFTER[1] if kind == "Patient" else PLACE
    controls = [
        COUNTED,
        _after_parameter(begin),
        FORMAT,
        ("_summary", {"enum": ["count", "false"]}, "`count`: only their number."),
    ]
    if INCLUDES[kind]:
        controls += [
            (
                "_sort",
                {"enum": ["-date", "date"]},
                "`-date`, the default: the newest check-up first; `date`: the oldest.",
            ),
            ("_include", {"enum": list(INCLUDES[kind])}, "Resources to add, to which those that were found refer."),
        ]
    own = [(name, SCHEMAS[each.type], each.text) for name, each in PARAMETERS[kind].items()]
    details: dict[str, Any] = {"query": (*own, *controls)}
    if form:
        schema = {"type": "object", "properties": {name: each for name, each, _ in (*own, *controls)}}
        details = {"body": {"content": {"application/x-www-form-urlencoded": {"schema": schema}}}}
    errors = refusals(415, 429) if form else refusals(429)
    told = "A Bundle of what was found; its link `next` leads to the next page."
    return fhir_operation(
        f"Search {kind}s" + " by a form" * form, (told, "FhirSearchset"), errors=errors, headers=(PREFER,), **details
    )


READ = fhir_operation(
    "Read a resource", ("The resource.", "FhirResource"), query=(FORMAT,), errors={**NOT_THERE, **refusals(410)}
)
METADATA = fhir_operation("Describe the FHIR API", ("A CapabilityStatement.", "FhirResource"), "", query=(FORMAT,))
EVERYTHING = fhir_operation(
    "Read all of a patient's resources",
    ("The Patient, DiagnosticReports, Observations and Devices.", "FhirSearchset"),
    query=(
        ("_type", TYPES, "Only these resource types; unknown ones are ignored."),
        ("_since", {**TEXT, "format": "date-time"}, "Only what was changed since."),
        (COUNTED[0], {**COUNTED[1], "minimum": 1}, COUNTED[2]),
        *(_after_parameter(PLACE), FORMAT),
    ),
    errors={**NOT_THERE, **refusals(429)},
)


SECURITY = "A token of POST /login/, as Authorization: Bearer. Patients see their own, doctors and admins everybody's."


def capability_statement(base: str) -> dict[str, Any]:
    """Return the CapabilityStatement of the server at this address."""
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
