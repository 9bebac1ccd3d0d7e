"""The description of an API: OpenAPI for programs, and a page for people that loads nothing from other sites."""

import html
import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from wsgi.common.openapi import build
from wsgi.common.pages import html_response, static_file
from wsgi.common.views import View, json_response


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
    """Return the description of each error, by its status, as most of the operations that may answer it have it."""
    told: dict[str, Counter[str]] = {}
    for verbs in document["paths"].values():
        for operation in verbs.values():
            for status, answer in operation["responses"].items():
                if status >= "4":
                    told.setdefault(status, Counter())[answer["description"]] += 1
    usual = {status: count.most_common(1)[0] for status, count in sorted(told.items())}
    return {status: text for status, (text, times) in usual.items() if times > 2}


def marked(text: str) -> str:
    """Return a text as HTML, with what stands between backticks as code."""
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
