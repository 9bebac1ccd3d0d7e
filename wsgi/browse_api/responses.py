"""The browse API's answers: media type, ETag, compression, and links to the next page."""

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote, urlencode

import bottle

from wsgi.common import fhir_outcome
from wsgi.common.application import encode_json
from wsgi.common.site_address import site
from wsgi.common.views import etag, etag_matches, pack

JSON, FHIR, CSV = "application/json", fhir_outcome.FHIR, "text/csv"
CONTENT_TYPES = {JSON: JSON, FHIR: FHIR, CSV: "text/csv; charset=utf-8; header=present"}


def answer(content: bytes, media_type: str = JSON, link: str = "", tag: str = "", **more: str) -> bottle.HTTPResponse:
    """Return 200 with the content, or 304 if the client has it already (RFC 9110, 13.1.2).

    Caches on the way must not store it; a client may keep it by its ETag. `link`: the Link header's value. `tag`: the
    ETag, if it is not that of the content. `more`: further headers, written with _ for -.
    """
    tag = tag or etag(content + link.encode())
    headers = {"Cache-Control": "no-store", "ETag": tag, "Vary": "Accept, Accept-Encoding, Authorization"}
    headers |= {name.replace("_", "-"): value for name, value in more.items()}
    if link:
        headers["Link"] = link
    if etag_matches(tag):
        return bottle.HTTPResponse(status=304, headers=headers)
    headers["Content-Type"] = CONTENT_TYPES[media_type]
    return bottle.HTTPResponse(pack(content, headers), headers=headers)


def answer_json(value: Any, link: str = "") -> bottle.HTTPResponse:
    """Return `answer` with the value as JSON."""
    return answer(encode_json(value), JSON, link)


def cut_page(
    found: Sequence[Any], limit: int, cursor_of: Callable[[Any], str], asked: dict[str, str]
) -> tuple[Any, str]:
    """Split a query's results, one entry more than `limit`, into the page and the next page's address; "" on the last.

    `cursor_of`: gives the cursor behind an entry. `asked`: the request's parameters, which the next page keeps.
    """
    if len(found) <= limit:
        return found, ""
    found = found[:limit]
    return found, url_after(cursor_of(found[-1]), limit, asked)


def url_after(cursor: str, limit: int, asked: dict[str, str]) -> str:
    """Return the address of the page behind a cursor."""
    return f"{quote(bottle.request.path)}?{urlencode({**asked, 'limit': limit, 'after': cursor})}"


def next_link(url: str) -> str:
    """Return the Link header's value, "" without a next page. Source: RFC 8288."""
    return f'<{site().link_base()}{url}>; rel="next"' if url else ""
