"""Pages and their static files. A Content-Security-Policy lets pages load only files of this server, none inline."""

from pathlib import Path
from typing import Any, ClassVar

import bottle

from myhealth.common.text import strip_unsafe
from wsgi.common.views import View, etag, etag_matches, pack

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
