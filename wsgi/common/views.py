"""Class-based views, one class for each path and one method for each verb; and answers: JSON, lists, ETags, gzip,
pages and their static files. A Content-Security-Policy lets pages load only files of this server, none inline."""

import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote, urlencode

import bottle

from myhealth.common.errors import BadInput
from myhealth.common.request_context import current_request
from myhealth.common.text import strip_unsafe
from myhealth.reports.documents import encode_json
from wsgi.common.application import FHIR as FHIR
from wsgi.common.application import Application
from wsgi.common.openapi import Operation
from wsgi.common.requests import (
    CREDENTIALS_MAX_BYTES,
    basic_credentials,
    header,
    note_login,
    read_json,
    site,
    takes_gzip,
)

VERBS = ("get", "post", "put", "delete")
LIMIT, LIMIT_MAX = 50, 500
JSON, CSV = "application/json", "text/csv"
CONTENT_TYPES = {JSON: JSON, FHIR: FHIR, CSV: "text/csv; charset=utf-8; header=present"}


class View:
    """One request to one path. A subclass defines `get`, `post`, `put` or `delete`, which take the path's variables,
    each with an `Operation` as its decorator. `spec`: these by verb; a subclass adds those of verbs that it inherits.

    `context`: the application's settings and stores.
    """

    spec: ClassVar[dict[str, Operation]] = {}

    def __init_subclass__(cls) -> None:
        described = {verb: getattr(vars(cls).get(verb), "operation", None) for verb in VERBS}
        cls.spec = {**cls.spec, **{verb: operation for verb, operation in described.items() if operation}}

    def __init__(self, context: Any) -> None:
        self.context = context

    def prepare(self) -> None:
        """Run before every verb; subclasses authenticate here."""

    def perform(self, verb: str, **parts: Any) -> Any:
        self.prepare()
        return getattr(self, verb)(**parts)

    @classmethod
    def verbs(cls) -> list[str]:
        return [verb for verb in VERBS if hasattr(cls, verb)]


class LoginView(View):
    """GET with HTTP Basic, or POST with `{"username", "password"}`: a token, or 401."""

    def get(self) -> Any:
        note_login()
        return self.log_in(*basic_credentials())

    def post(self) -> Any:
        note_login()
        body = read_json(CREDENTIALS_MAX_BYTES, "username", "password")
        return self.log_in(body.get("username"), body.get("password"))

    def log_in(self, username: Any, password: Any) -> Any:
        raise NotImplementedError


def merge_views(*views: type[View]) -> type[View]:
    """Return the view of a path whose verbs are in several views, each with its own `prepare`."""
    by_verb = {verb: view for view in views for verb in view.verbs()}

    class MergedView(View):
        spec: ClassVar[dict[str, Operation]] = {verb: view.spec[verb] for verb, view in by_verb.items()}

        def perform(self, verb: str, **parts: Any) -> Any:
            return by_verb[verb](self.context).perform(verb, **parts)

    for verb, view in by_verb.items():
        setattr(MergedView, verb, getattr(view, verb))
    return MergedView


def add_view(application: Application, path: str, view: type[View], context: Any, **options: Any) -> None:
    """Route a path to a view, with and without its closing slash. `options`: for Bottle's `route`, such as plugins."""
    for verb in view.verbs():
        for form in {path, path.rstrip("/") or "/", path.rstrip("/") + "/"}:
            application.route(form, verb.upper(), _callback(path, view, verb, context), **options)


def _callback(path: str, view: type[View], verb: str, context: Any) -> Callable[..., Any]:
    def call(**parts: str) -> Any:
        if request := current_request.get():
            request.route = path
        return view(context).perform(verb, **parts)

    return call


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> bottle.HTTPResponse:
    """Return a JSON answer. No cache may store it, unless `headers` says otherwise."""
    named = {"Content-Type": "application/json", "Cache-Control": "no-store", **(headers or {})}
    body = value if isinstance(value, (bytes, str)) else encode_json(value)
    return bottle.HTTPResponse(body, status=status, headers=named)


def page_limit(asked: Mapping[str, str], default: int = LIMIT, most: int = LIMIT_MAX) -> int:
    """Return the parameter `limit`, or the default if it is missing. Raises BadInput unless it is 1 to `most`."""
    text = asked.get("limit")
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(most)) and 1 <= int(text) <= most):
        raise BadInput(f"limit must be a number from 1 to {most}.")
    return int(text)


def list_response(found: Sequence[Any], limit: int, cursor: str = "id", **query: str) -> bottle.HTTPResponse:
    """Return one page of a list, with a Link header to the next page if `found` has more than `limit` entries.

    `cursor`: the field of an entry that is the parameter `after` of the page behind it. Source: RFC 8288.
    """
    page, url = cut_page(found, limit, lambda entry: str(entry[cursor]), query)
    return json_response(list(page), headers={"Link": next_link(url)} if url else {})


def cut_page(
    found: Sequence[Any], limit: int, cursor_of: Callable[[Any], str], asked: Mapping[str, str]
) -> tuple[Any, str]:
    """Split a query's results, one entry more than `limit`, into the page and the next page's address; "" on the last.

    `cursor_of`: gives the cursor behind an entry. `asked`: the request's parameters, which the next page keeps.
    """
    if len(found) <= limit:
        return found, ""
    return found[:limit], url_after(cursor_of(found[limit - 1]), limit, asked)


def url_after(cursor: str, limit: int, asked: Mapping[str, str]) -> str:
    return f"{quote(bottle.request.path)}?{urlencode({**asked, 'limit': limit, 'after': cursor})}"


def next_link(url: str) -> str:
    """Return the Link header's value, "" without a next page. Source: RFC 8288."""
    return f'<{site().link_base()}{url}>; rel="next"' if url else ""


GZIP_FROM_BYTES = 1024  # a smaller answer fits into one packet
ANSWER_GZIP_LEVEL = 4


def pack(content: bytes, headers: dict[str, str]) -> bytes:
    """Return the content, gzipped if the client accepts it and it is large; set Content-Encoding in `headers`."""
    if len(content) < GZIP_FROM_BYTES or not takes_gzip():
        return content
    packer = zlib.compressobj(ANSWER_GZIP_LEVEL, wbits=31)
    headers["Content-Encoding"] = "gzip"
    return packer.compress(content) + packer.flush()


def pack_stream(blocks: Iterable[bytes], headers: dict[str, str]) -> Iterator[bytes]:
    """Return an iterator over the blocks, gzipped if the client accepts it; set Content-Encoding in `headers`."""
    if not takes_gzip():
        return iter(blocks)
    headers["Content-Encoding"] = "gzip"
    return _gzipped(blocks)


def _gzipped(blocks: Iterable[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(ANSWER_GZIP_LEVEL, wbits=31)
    for block in blocks:
        yield packer.compress(block)
    yield packer.flush()


def etag(content: bytes) -> str:
    """Return the weak ETag of the uncompressed content."""
    return f'W/"{hashlib.blake2b(content, digest_size=16).hexdigest()}"'


def etag_matches(tag: str) -> bool:
    """Return whether If-None-Match contains the tag, by weak comparison. Source: RFC 9110, 13.1.2."""
    known = header("If-None-Match")
    if not known:
        return False
    opaque = tag.removeprefix("W/")
    return any(each.strip() == "*" or each.strip().removeprefix("W/") == opaque for each in known.split(","))


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
    return answer(encode_json(value), JSON, link)


TEMPLATES = Path(__file__).parent.parent / "templates"
STATIC = Path(__file__).parent.parent / "static"
# One list for all calls: Bottle caches compiled templates by the identity of this list.
LOOKUP = [str(TEMPLATES)]
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}


def html_response(template: str, status: int = 200, **values: Any) -> bottle.HTTPResponse:
    """Return a page of wsgi/templates/. The template escapes every value.

    The page has no control characters, and none that turn the direction of text, whatever a stored text contains.
    """
    text = strip_unsafe(bottle.template(template, template_lookup=LOOKUP, **values))
    headers = {**SECURITY_HEADERS, "Vary": "Accept-Encoding", "Content-Type": "text/html; charset=utf-8"}
    return bottle.HTTPResponse(pack(text.encode(), headers), status=status, headers=headers)


class StaticView(View):
    """The static files that pages load, each by its name. They contain no personal data."""

    files: ClassVar[frozenset[str]] = frozenset()

    def get(self, name: str) -> Any:
        if name not in self.files:
            raise bottle.HTTPError(404)
        return static_file(name)


def static_file(name: str) -> bottle.HTTPResponse:
    """Return a static file. Browsers cache it and check each time whether it has changed."""
    path = STATIC / name
    content = path.read_bytes()
    headers = {**SECURITY_HEADERS, "Cache-Control": "no-cache", "ETag": etag(content), "Vary": "Accept-Encoding"}
    if etag_matches(headers["ETag"]):
        return bottle.HTTPResponse(status=304, headers=headers)
    headers["Content-Type"] = TYPES[path.suffix]
    return bottle.HTTPResponse(pack(content, headers), headers=headers)
