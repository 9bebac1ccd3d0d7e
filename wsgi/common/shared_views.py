"""Views that both APIs have: liveness, readiness, metrics, and the description of the API.

The description is OpenAPI for programs, and a page for people that loads nothing from other sites. It has an
example of each call: a curl command with a body that the API takes. A test runs them all.
"""

import html
import json
import re
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

import bottle
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from wsgi.common.metrics import render
from wsgi.common.openapi import Operation, build
from wsgi.common.requests import site
from wsgi.common.views import View, html_response, json_response, static_file


def description_views(
    title: str, description: str, views: Mapping[str, Any], schemas: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the views that serve the description of `views`, by path."""
    document = build(title, description, views, schemas)

    class DescriptionView(View):
        described = document

        def get(self) -> Any:
            return json_response(document, headers={"Cache-Control": "no-cache"})

    class DocsPage(View):
        def get(self) -> Any:
            shown: dict[str, Any] = {
                "groups": by_tag(document),
                "errors": shared_errors(document),
                "show": show_schema,
                "marked": marked,
                "curl": partial(curl, site().base_url()),
            }
            return html_response("docs.html", document=document, **shown)

    return {"/openapi.json": DescriptionView, "/docs/": DocsPage, "/docs/docs.css": DocsStyle}


class DocsStyle(View):
    def get(self) -> Any:
        return static_file("docs.css")


Operations = dict[str, list[tuple[str, str, Mapping[str, Any]]]]


def by_tag(document: Mapping[str, Any]) -> Operations:
    """Return the operations of each tag, as (method, path, operation)."""
    found: Operations = {}
    for path, verbs in document["paths"].items():
        for verb, operation in verbs.items():
            found.setdefault(operation["tags"][0], []).append((verb.upper(), path, operation))
    return found


def shared_errors(document: Mapping[str, Any]) -> dict[str, str]:
    """Return, by status, the description of the error that most operations with this status have."""
    told: dict[str, Counter[str]] = {}
    for verbs in document["paths"].values():
        for operation in verbs.values():
            for status, answer in operation["responses"].items():
                if status >= "4":
                    told.setdefault(status, Counter())[answer["description"]] += 1
    usual = {status: (*count.most_common(1)[0], count.total()) for status, count in sorted(told.items())}
    return {status: text for status, (text, times, of) in usual.items() if times > max(2, of / 2)}


def marked(text: str) -> str:
    """Return a text as HTML, with the parts between backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


def show_schema(schema: Any) -> str:
    """Return a schema in a few words; a named schema by its name."""
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if schema.get("type") == "array":
        if schema.get("items"):
            return f"list of {show_schema(schema['items'])}"
        return f"{schema.get('title', '')}[{', '.join(map(show_schema, schema.get('prefixItems', [])))}]"
    for choice in ("oneOf", "anyOf"):
        if choice in schema:
            return " or ".join(show_schema({**each, "type": each.get("type", "")}) for each in schema[choice])
    if "enum" in schema:
        return " | ".join(json.dumps(value) for value in schema["enum"])
    if "const" in schema:
        return json.dumps(schema["const"])
    kind = schema.get("type") or schema.get("format") or "anything"
    words = " or ".join(kind) if isinstance(kind, list) else str(schema.get("format", kind))
    span = [f"{word} {schema[key]}" for key, word in (("minimum", "from"), ("maximum", "to")) if key in schema]
    return " ".join([words, *span])


class LiveView(View):
    """200 as long as the process answers, whatever the stores do."""

    @Operation("Check that the process answers", {200: ("The process answers.", "Alive")})
    def get(self) -> Any:
        return json_response({"status": "ok"})


class ReadyView(View):
    """200 if requests can be served, else 503. It uses a connection of its own, and takes two seconds at most."""

    @Operation("Check that requests can be served", {200: ("Requests can be served.", "Health")})
    def get(self) -> Any:
        return json_response({"status": "ok", **self.context.check_ready()})


class MetricsView(View):
    """Metrics for Prometheus, without personal data; 404 if they have an address of their own."""

    @Operation(
        "Metrics for Prometheus; 404 if `metrics_listen` is set",
        {200: ("Text, version 0.0.4.", {"type": "string"})},
        errors={404: "The metrics have an address of their own."},
        content="text/plain",
    )
    def get(self) -> Any:
        if self.context.metrics_listen:
            raise bottle.HTTPError(404)
        headers = {"Content-Type": CONTENT_TYPE_PLAIN_0_0_4, "Cache-Control": "no-store"}
        return bottle.HTTPResponse(render(self.context.gauges), headers=headers)


HEALTH_VIEWS = {"/livez": LiveView, "/readyz": ReadyView, "/healthz": ReadyView, "/metrics": MetricsView}


NAMES = {"username": "bholanath", "serial": "HC-2031-0007"}  # of variables of a path; others are numbers
NEW_WORDS = "three plain words"  # a password
RECORD = {
    "record_id": "1182",
    "checkup_for": "bholanath",
    "taken_at": "2026-11-20T09:14:03+05:30",
    "checkup_type": "BLOOD PRESSURE",
    "checkup_report": "128/82",
    "disease": "BP",
    "results": [{"code": "8480-6", "name": "Systolic blood pressure", "value": 128, "unit": "mm[Hg]"}],
}
OBSERVATION = {
    "resourceType": "Observation",
    "status": "final",
    "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]},
    "subject": {"identifier": {"value": "bholanath"}},
    "effectiveDateTime": "2026-11-20",
    "valueQuantity": {"value": 71, "unit": "per minute", "system": "http://unitsofmeasure.org", "code": "/min"},
}
# By path; a text is a form.
BODIES: dict[str, Any] = {
    "/login/": {"username": "bholanath", "password": NEW_WORDS},
    "/registration/": {"username": "new.patient", "password": NEW_WORDS},
    "/invitations/": {"username": "bholanath"},
    "/welcome/": {"username": "bholanath", "code": "K7WD-9XQM-TT3C-HV5P-2AJR", "password": NEW_WORDS},
    "/users/": {"username": "new.doctor", "password": NEW_WORDS, "role": "doctor"},
    "/users/{username}/": {"full_name": "Bholanath Joshi"},
    "/users/{username}/checkups/{checkup_id}/": {"disease": "none"},
    "/users/{username}/checkups/{checkup_id}/review/": {"note": "Please repeat it in three months."},
    "/machines/": {"serial": "HC-2031-0007", "site": "Pune Camp"},
    "/machines/{serial}/dumps/": {"machine": "HC-2031-0007", "records": [RECORD]},
    "/rejections/{rejection_id}/retry/": {"patient": "bholanath"},
    "/rejections/{rejection_id}/discard/": {"reason": "sent twice"},
    "/fhir/": {
        "resourceType": "Bundle",
        "type": "batch",
        "entry": [{"resource": OBSERVATION, "request": {"method": "POST", "url": "Observation"}}],
    },
    "/fhir/Observation/": OBSERVATION,
    "/fhir/DiagnosticReport/": {
        **{name: value for name, value in OBSERVATION.items() if name != "valueQuantity"},
        "resourceType": "DiagnosticReport",
    },
    "/fhir/Patient/_search/": "name=bholanath",
    "/fhir/Observation/_search/": "code=8480-6",
    "/fhir/DiagnosticReport/_search/": "date=ge2026-01-01",
}


def curl(base: str, method: str, path: str, said: Mapping[str, Any]) -> str:
    """Return the command of a call, "" for one that the sync alone makes. `base`: the API's address."""
    if "MyHealth-Signature" in (each["name"] for each in said["parameters"]):
        return ""
    words = ["curl"] if method == "GET" or "requestBody" in said else ["curl", "--request", method]
    schemes = [name for scheme in said.get("security", ()) for name in scheme]
    if "basic" in schemes:
        words.append("--user bholanath")
    elif schemes:
        words.append("--header 'Authorization: Bearer TOKEN'")
    if "requestBody" in said:
        words += ["--request PUT"] * (method == "PUT")
        body = BODIES.get(path, [RECORD])
        words.append(f"--data '{body}'" if isinstance(body, str) else f"--json '{json.dumps(body)}'")
    address = re.sub(r"{(\w+)}", lambda found: NAMES.get(found[1], "1"), path)
    return " ".join([*words, base.rstrip("/") + address])
