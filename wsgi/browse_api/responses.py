"""How the browse API answers: in the media type that is asked for, packed, and not twice the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote, urlencode

import bottle

from wsgi.common.application import encode_json
from wsgi.common.http_cache import etag, etag_matches, pack

JSON, FHIR, CSV = "application/json", "application/fhir+json", "text/csv"
CONTENT_TYPES = {JSON: JSON, FHIR: FHIR, CSV: "text/csv; charset=utf-8; header=present"}


def answer(content: bytes, kind: str = JSON, link: str = "") -> bottle.HTTPResponse:
    """200 with the content, or 304 where the client has it already (RFC 9110, 13.1.2).

    No cache on the way keeps it; a program may keep it by its ETag. `link`: the header's value.
    """
    tag = etag(content + link.encode())
    headers = {"Cache-Control": "no-store", "ETag": tag, "Vary": "Accept, Accept-Encoding, Authorization"}
    if link:
        headers["Link"] = link
    if etag_matches(tag):
        return bottle.HTTPResponse(status=304, headers=headers)
    headers["Content-Type"] = CONTENT_TYPES[kind]
    headers["X-Content-Type-Options"] = "nosniff"
    return bottle.HTTPResponse(pack(content, headers), headers=headers)


def answer_json(value: Any, link: str = "") -> bottle.HTTPResponse:
    return answer(encode_json(value), JSON, link)


def cut_page(found: Sequence[Any], limit: int, place: Callable[[Any], Any], asked: dict[str, str]) -> tuple[Any, str]:
    """A page of what was looked up, one entry more than `limit`; and the address of the next, "" on the last page.

    `place`: where an entry stands; `asked`: the request's parameters, which the next page keeps.
    """
    if len(found) <= limit:
        return found, ""
    found = found[:limit]
    return found, url_after(place(found[-1]), limit, asked)


def url_after(place: Any, limit: int, asked: dict[str, str]) -> str:
    """The address of the page behind a place."""
    return f"{quote(bottle.request.path)}?{urlencode({**asked, 'limit': limit, 'after': place})}"


def next_link(url: str) -> str:
    """The Link header's value. Source: RFC 8288."""
    return f'<{url}>; rel="next"' if url else ""
