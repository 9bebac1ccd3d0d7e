"""The browse API's answers: media type, ETag, compression, and links to the next page."""

from typing import Any

import bottle

from wsgi.common import fhir_outcome
from wsgi.common.application import encode_json
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
