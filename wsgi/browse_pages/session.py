"""The session of a browser: a cookie that holds the token, and what proves that a form is one of ours.

The cookie is for this server alone (`__Host-`, HttpOnly, SameSite=Strict), and Secure everywhere but on localhost,
where there is no HTTPS. The proof is an HMAC under the cookie's own value: whoever cannot read the cookie cannot make
it, it ends with the session, and no process needs a secret of its own.
Source: OWASP, "Cross-Site Request Forgery Prevention Cheat Sheet"; RFC 6265bis, "The __Host- Prefix".
"""

from __future__ import annotations

import hmac
import re
import secrets
from urllib.parse import parse_qsl, urlsplit

import bottle

from myhealth.common.errors import BadInput, NotAllowed
from wsgi.common.requests import header, read_body

HOME = "/my/"
SESSION, VISITOR, ZONE = "myhealth_session", "myhealth_visitor", "myhealth_zone"
FORM_MAX_BYTES = 16 * 1024
SALT = 16  # characters of a form's key
TOKEN_MAX = 3800  # browsers keep 4096 bytes of a cookie, name and attributes included
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
PROXY_HEADERS = ("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Real-IP", "Forwarded", "Via")
VISITOR_FORM = re.compile(r"[\w-]{43}")


class CsrfError(NotAllowed):
    """A form that was not made for this session: another site's, or one from before it began."""

    code = "form_refused"


def is_local() -> bool:
    """Whether the browser is on this very machine, where plain HTTP is as private as HTTPS. What came through a proxy
    did not: many a proxy names us by our local address."""
    if any(bottle.request.get_header(name) for name in PROXY_HEADERS):
        return False
    try:
        host = urlsplit(f"//{header('Host')}").hostname or ""
    except ValueError:
        return False
    return host in LOCAL_HOSTS or host.endswith(".localhost")


def session_token() -> str:
    """The token that the browser holds, or ""."""
    return _cookie(_name(SESSION))


def keep_session(answer: bottle.HTTPResponse, token: str, ttl_s: int | None) -> None:
    """Gives the browser the token for `ttl_s` seconds (None: until it is closed), and takes away what it had before."""
    _set_cookie(answer, SESSION, token, ttl_s)
    _set_cookie(answer, VISITOR, "", 0)


def end_session(answer: bottle.HTTPResponse) -> None:
    """Takes the token from the browser."""
    _set_cookie(answer, SESSION, "", 0)


def presented_visitor() -> str:
    """The random value that the browser brings, which its login form is bound to, or ""."""
    value = _cookie(_name(VISITOR))
    return value if VISITOR_FORM.fullmatch(value) else ""


def visitor() -> str:
    """The browser's value, or a new one where it brings none."""
    return presented_visitor() or secrets.token_urlsafe(32)


def keep_visitor(answer: bottle.HTTPResponse, value: str) -> None:
    """Gives the browser the value that its login form is bound to; it lasts until the browser is closed."""
    _set_cookie(answer, VISITOR, value, None)


def told_zone() -> str:
    """The time zone that the browser says it is in, in a cookie that our script sets, or ""; whatever it says."""
    return _cookie(ZONE)


def form_key(value: str, salt: str = "") -> str:
    """What a form must carry to be taken as one of ours, in the session (or of the visitor) of that cookie value.

    No two pages have the same, so that the length of packed pages tells nothing of it. Source: breachattack.com.
    """
    salt = salt or secrets.token_hex(SALT // 2)
    return salt + hmac.new(value.encode(), f"myhealth form, 2, {salt}".encode("utf-8", "replace"), "sha256").hexdigest()


def read_form() -> dict[str, str]:
    """The fields of the form that was sent, the first of a name. Raises BadInput for what is no form, TooLarge."""
    try:
        fields = parse_qsl(
            read_body(FORM_MAX_BYTES).decode(), keep_blank_values=True, errors="strict", max_num_fields=50
        )
    except ValueError as error:
        raise BadInput("The form cannot be read; please try again.", code="no_form") from error
    return dict(reversed(fields))


def require_form_key(form: dict[str, str], value: str) -> None:
    """Raises NotOurForm unless the form that was sent carries this cookie value's key. Browsers also say themselves
    where a form comes from: https://www.w3.org/TR/fetch-metadata/."""
    sent = form.get("form_key", "")
    foreign = header("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none")
    ours = form_key(value, sent[:SALT])
    if foreign or not value or not hmac.compare_digest(*(each.encode("utf-8", "replace") for each in (sent, ours))):
        raise CsrfError(
            "That form was out of date, so nothing was done: you are still logged in. Please try once more."
        )


def safe_target(path: str) -> str:
    """Where to go on after logging in: a page of ours, else the first one; never an address of elsewhere."""
    if not re.fullmatch(r"/my/(?!/)[\x21-\x7e]{0,1000}", path) or "\\" in path or path.startswith("/my/log"):
        return HOME
    return path


def _name(name: str) -> str:
    return name if is_local() else f"__Host-{name}"


def _cookie(name: str) -> str:
    """The value of a cookie, or "". Python's own reader of cookies gives up all of them where another site on the host
    has set one that is odd."""
    for part in header("Cookie").split(";"):
        key, _, value = part.strip().partition("=")
        if key == name:
            return str(value) if value.isascii() and len(value) <= TOKEN_MAX else ""
    return ""


def _set_cookie(answer: bottle.HTTPResponse, name: str, value: str, max_age_s: int | None) -> None:
    options = {} if max_age_s is None else {"max_age": max_age_s}
    answer.set_cookie(_name(name), value, path="/", httponly=True, samesite="strict", secure=not is_local(), **options)
