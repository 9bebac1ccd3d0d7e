"""OpenAPI 3.1, built from the operations that the views describe."""

import re
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from myhealth import __version__
from wsgi.common.application import FHIR, FHIR_ID

JSON = "application/json"
ERROR, OUTCOME = "Error", "OperationOutcome"
# Answers that every call can give, whatever it does.
ALWAYS = {
    500: "A server error; it has been logged.",
    503: "A store is unavailable; `Retry-After` says when to try again.",
}
LOGGED_IN = {401: "The token is missing, wrong or expired."}
ROLE_NEEDED = {403: "The caller's role may not do this."}
BODY = {
    400: "The request cannot be understood.",
    413: "The body is too large.",
    415: "The body's encoding or type is not known.",
}
TEXT: dict[str, Any] = {"type": "string"}
COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
MOMENT: dict[str, Any] = {"type": "string", "format": "date-time"}
NEXT_PAGE = ("Link", TEXT, 'The next page, as `<…>; rel="next"` (RFC 8288); none on the last.')
TAG = (
    "ETag",
    TEXT,
    "The version of this answer; with it in `If-None-Match`, the answer is 304 while nothing has changed.",
)
CHALLENGE = ("WWW-Authenticate", TEXT, "How to log in (RFC 9110).")
PAUSE = ("Retry-After", COUNT, "Seconds after which to try again, where that may help.")
Parameter = tuple[str, dict[str, Any], str]
Method = TypeVar("Method", bound=Callable[..., Any])
# The variables of a path, by their filters in Bottle.
PATH_TYPES: dict[str, dict[str, Any]] = {"": TEXT, ":int": {"type": "integer"}}
PATH_TYPES[":fhir_id"] = {**TEXT, "pattern": f"^{FHIR_ID}$"}
# The tag of a path, by its first part; other paths have that part itself.
TAGS = {
    **dict.fromkeys(("login", "logout", "registration", "invitations", "welcome", ".well-known"), "logging in"),
    **dict.fromkeys(("livez", "readyz", "healthz", "metrics"), "running it"),
    "fhir": "FHIR R4",
}
# The headers of errors.
SENT = {401: CHALLENGE, **dict.fromkeys((429, 502, 503, 504), PAUSE)}


class Operation(Struct, frozen=True, dict=True):
    """The description of one verb of a view; a decorator of its method. `answers`: status -> (description, schema name,
    or None for no content); errors are added. `roles`: the roles that may call it, or the callers in words; "" for
    everybody, logged in or not. `body`: schema name, or a full request body. `query`, `headers`: parameters as (name,
    schema, description). `others`: further media types of the answer, each with its schema; the Accept header chooses.
    `sends`: headers of the answers, like parameters; those that follow from the parameters are added."""

    summary: str
    answers: Mapping[int, tuple[str, Any]]
    roles: str | tuple[str, ...] = ""
    body: Any = None
    query: tuple[Parameter, ...] = ()
    headers: tuple[Parameter, ...] = ()
    errors: Mapping[int, str] = {}
    security: tuple[str, ...] = ("bearer", "token")
    content: str = JSON
    others: Mapping[str, Any] = {}
    sends: tuple[Parameter, ...] = ()

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        return tuple(name for name, *_ in self.query)

    def __call__(self, method: Method) -> Method:
        setattr(method, "operation", self)  # noqa: B010 - a function has no such attribute for mypy
        return method


def build(title: str, description: str, views: Mapping[str, Any], schemas: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document: every path and verb that is routed, and no other."""
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "description": description, "version": __version__, "license": {"name": "MIT"}},
        "paths": {
            re.sub(r"<(\w+)(:\w+)?>", r"{\1}", path): {verb: _operation(view, verb, path) for verb in view.verbs()}
            for path, view in views.items()
        },
        "components": {
            "schemas": {**SCHEMAS, **schemas},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "token": {"type": "apiKey", "in": "header", "name": "x-access-token"},
                "basic": {"type": "http", "scheme": "basic"},
            },
        },
    }


def _operation(view: Any, verb: str, path: str) -> dict[str, Any]:
    said: Operation = view.spec[verb]
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": PATH_TYPES[kind]}
        for name, kind in re.findall(r"<(\w+)(:\w+)?>", path)
    ]
    parameters += [
        {"name": name, "in": place, "required": False, "schema": schema, "description": text}
        for place, described in (("query", said.query), ("header", said.headers))
        for name, schema, text in described
    ]
    first = path.split("/")[1]
    found: dict[str, Any] = {
        "tags": [TAGS.get(first, first)],
        "summary": said.summary,
        "operationId": f"{verb}_{re.sub(r'[^a-z]+', '_', path.lower()).strip('_') or 'page'}",
        "parameters": parameters,
        "responses": _responses(said),
    }
    if said.roles:
        found["description"] = f"For {said.roles if isinstance(said.roles, str) else ', '.join(said.roles)}."
        found["security"] = [{name: []} for name in said.security]
    elif said.security == ("basic",):
        found["security"] = [{"basic": []}]
    if said.body is not None:
        body = {"content": {JSON: {"schema": ref(said.body)}}} if isinstance(said.body, str) else said.body
        found["requestBody"] = {"required": True, **body}
    return found


def _responses(said: Operation) -> dict[str, Any]:
    errors = {**ALWAYS, **(LOGGED_IN if said.roles else {}), **(BODY if said.body is not None else {})}
    errors |= {**(ROLE_NEEDED if isinstance(said.roles, tuple) else {}), **said.errors}
    responses: dict[str, Any] = {}
    sent = _headers(*said.sends, *_usual_headers(said))
    for status, (text, schema) in said.answers.items():
        content = {said.content: {"schema": ref(schema)}} if schema is not None else None
        if content:
            content |= {kind: {"schema": ref(other)} for kind, other in said.others.items()}
        responses[str(status)] = {"description": text, **sent, **({"content": content} if content else {})}
    for status, text in errors.items():
        if str(status) not in responses:
            headers = _headers(SENT[status]) if status in SENT else {}
            content = {FHIR: {"schema": ref(OUTCOME)}} if said.content == FHIR else {JSON: {"schema": ref(ERROR)}}
            responses[str(status)] = {"description": text, **headers, "content": content}
    return dict(sorted(responses.items()))


def _usual_headers(said: Operation) -> list[Parameter]:
    """Return the headers of a page of a list, and those of an answer that a client may keep."""
    taken = {name for name, _, _ in (*said.query, *said.headers)}
    return [NEXT_PAGE] * ({"limit", "after"} <= taken) + [TAG] * ("If-None-Match" in taken)


def _headers(*sent: Parameter) -> dict[str, Any]:
    found = {name: {"schema": schema, "description": text} for name, schema, text in sent}
    return {"headers": found} if found else {}


def shape(required: dict[str, Any], optional: dict[str, Any] | None = None, *, closed: bool = True) -> dict[str, Any]:
    """Return the schema of an object with these properties, and no others if it is closed."""
    properties = {**required, **(optional or {})}
    found: dict[str, Any] = {"type": "object", "required": list(required), "properties": properties}
    return {**found, "additionalProperties": False} if closed else found


def errors_of(**more: Any) -> dict[str, Any]:
    """Return the schema of a list of errors with their places; `more`: further properties that one may have."""
    place = {"index": {"type": ["integer", "null"]}, "field": {"type": ["string", "null"]}, "message": TEXT}
    return {"type": "array", "items": shape(place, more, closed=False)}


def limit_parameter(most: int, default: int) -> Parameter:
    return (
        "limit",
        {"type": "integer", "minimum": 1, "maximum": most, "default": default},
        "Maximum number of entries on a page.",
    )


def after_parameter(**schema: Any) -> Parameter:
    return "after", schema, "Where the page begins; the `Link` header has it."


def maybe(schema: dict[str, Any]) -> dict[str, Any]:
    return {"oneOf": [schema, {"type": "null"}]}


def listed(name: str, **limits: Any) -> dict[str, Any]:
    return {"type": "array", "items": ref(name), **limits}


def struct_schemas(*types: type[Any]) -> dict[str, dict[str, Any]]:
    _, found = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    return {name: {**undescribed(schema), "additionalProperties": False} for name, schema in found.items()}


def undescribed(schema: dict[str, Any]) -> dict[str, Any]:
    """Return msgspec's schema without the class's title and its docstring, which is for programmers."""
    return {name: value for name, value in schema.items() if name not in ("title", "description")}


def ref(schema: Any) -> Any:
    """Return the reference to a schema by its name, or to a list of it by `[name]`; any other schema as it is."""
    if isinstance(schema, str):
        return {"$ref": f"#/components/schemas/{schema}"}
    if isinstance(schema, list):
        return listed(schema[0])
    return schema


def one_of(*names: str) -> dict[str, Any]:
    return {"oneOf": [ref(name) for name in names]}


# Of both APIs.
SCHEMAS: dict[str, Any] = {
    ERROR: shape(
        {
            "details": {**TEXT, "description": "A sentence for a person."},
            "code": {**TEXT, "description": "A word for a program."},
            "errors": errors_of(),
        },
        closed=False,
    ),
    OUTCOME: shape(
        {
            "resourceType": {"const": OUTCOME},
            "issue": {"type": "array", "minItems": 1, "items": shape({"severity": TEXT, "code": TEXT}, closed=False)},
        }
    ),
    "Credentials": shape({"username": TEXT, "password": TEXT}),
    "Token": shape({"token": TEXT, "expires_at": MOMENT}, {"password_reset_at": MOMENT}),
    "Alive": shape({"status": {"const": "ok"}}),
    "Health": shape({"status": {"const": "ok"}}, {"schema": COUNT, "sync_age_s": maybe({"type": "number"})}),
}
