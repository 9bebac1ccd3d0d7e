"""The address under which users see an application, and the refusal of forged requests from other sites (CSRF)."""

import re
from dataclasses import dataclass

import bottle

from myhealth.common.addresses import is_trusted
from wsgi.common.requests import header, peer_address

HOST = re.compile(r"[A-Za-z0-9._~-]+(:\d+)?|\[[0-9A-Fa-f:.]+\](:\d+)?")
DEFAULT_PORT = re.compile(r":(80|443)$")
LOCAL_HOST = re.compile(r"(([\w-]+\.)*localhost|127\.0\.0\.1|\[::1\])(:\d+)?", re.ASCII | re.IGNORECASE)
PROXY_HEADERS = ("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Real-IP", "Forwarded", "Via")
HSTS = "max-age=31536000"  # a year, as hstspreload.org asks for


@dataclass(frozen=True)
class Site:
    """The site that a request came to.

    `public_url`: the setting, "" to take the address from each request; `trusted_proxies`: the setting.
    """

    public_url: str = ""
    trusted_proxies: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """Headers of every response. Browsers keep to HTTPS where users see it (RFC 6797)."""
        secure = {"Strict-Transport-Security": HSTS} if self.public_url.lower().startswith("https:") else {}
        return {"X-Content-Type-Options": "nosniff", **secure}

    def link_base(self) -> str:
        """Return the prefix of paths in Link headers; "" without `public_url`, so that links are relative."""
        return self.public_url.rstrip("/")

    def base_url(self) -> str:
        """Return scheme and host as the user sees them: `public_url`, else those of the request. Headers of proxies
        count only if a trusted proxy sent them."""
        if self.public_url:
            return self.link_base()
        scheme, host = bottle.request.environ.get("wsgi.url_scheme", "http"), header("Host")
        if is_trusted(peer_address(), self.trusted_proxies):
            scheme, host = _last("X-Forwarded-Proto") or scheme, _last("X-Forwarded-Host") or host
        return f"{'https' if scheme == 'https' else 'http'}://{host if HOST.fullmatch(host) else 'localhost'}"

    def needs_secure_cookies(self) -> bool:
        """Return whether cookies must be Secure: over HTTPS, and without `public_url` wherever the browser is not
        certainly on this machine. Many proxies send our local address as the host."""
        if self.public_url:
            return self.public_url.lower().startswith("https:")
        return any(map(header, PROXY_HEADERS)) or not LOCAL_HOST.fullmatch(header("Host"))

    def is_foreign(self, *, takes_null: bool = False) -> bool:
        """Return whether another site made the browser send this request.

        `takes_null`: whether to accept `Origin: null`, which browsers send with forms of pages that give no referrer.
        Source: https://www.w3.org/TR/fetch-metadata/; RFC 6454.
        """
        fetched, origin = header("Sec-Fetch-Site"), header("Origin")
        if fetched:
            return fetched not in ("same-origin", "none")
        if not origin or (origin == "null" and takes_null):
            return False
        if self.public_url:
            return origin.lower() != DEFAULT_PORT.sub("", self.link_base().lower())
        return _authority(origin) != _authority(self.base_url())


def site() -> Site:
    """Return the site of the application that handles the request."""
    found: Site = bottle.request.app.site
    return found


def _last(name: str) -> str:
    """Return the value that the nearest proxy added."""
    return header(name).rpartition(",")[2].strip()


def _authority(url: str) -> str:
    """Return host and port; the scheme does not count, because a proxy may not report it."""
    return DEFAULT_PORT.sub("", url.partition("://")[2].lower())
