"""The session of a browser: a cookie with the token, and the key that each form carries against forgery.

The cookie is for this server alone (`__Host-`, HttpOnly, SameSite=Strict). It is Secure everywhere but where users see
plain HTTP: on localhost, or at such a `browse.public_url`. The form's key is an HMAC under the cookie's value: another
site cannot read the cookie, so it cannot make the key. The key ends with the session, and no process needs a secret of
its own.
Source: OWASP, "Cross-Site Request Forgery Prevention Cheat Sheet"; RFC 6265bis, "The __Host- Prefix".
"""

import contextlib
import hmac
import re
import secrets
from datetime import datetime
from urllib.parse import parse_qsl

import bottle

from myhealth.common.errors import BadInput, MyHealthError, NotAllowed
from wsgi.common.requests import header, read_body, site

HOME = "/my/"
# The cookies: the token; the random value of a visitor, until the browser is closed; the time zone, which our script
# sets; when the user logged in before this session; that another person has set the password, until a page shows it.
SESSION, VISITOR, ZONE = "myhealth_session", "myhealth_visitor", "myhealth_zone"
SINCE, NOTICE, SET_BY_ANOTHER = "myhealth_since", "myhealth_notice", "set-by-another"
FORM_MAX_BYTES = 32 * 1024  # a note of 2,000 characters takes up to twelve bytes for each
YEARS = range(2000, 9000)  # in which a login may have been
SALT = 16  # characters of the salt in a form's key
TOKEN_MAX = 3800  # browsers keep 4096 bytes of a cookie, name and attributes included
VISITOR_FORM = re.compile(r"[\w-]{43}")


class CsrfError(NotAllowed):
    """The form was not made for this session: it is from another site, or from an earlier session."""

    code = "form_refused"


def keep_session(answer: bottle.HTTPResponse, token: str, ttl_s: int | None) -> None:
    """Set the cookie with the token for `ttl_s` seconds (None: until the browser is closed); delete the visitor's."""
    set_cookie(answer, SESSION, token, ttl_s)
    set_cookie(answer, VISITOR, "", 0)


def end_session(answer: bottle.HTTPResponse) -> None:
    """Delete the cookie with the token, and what belongs to the session."""
    set_cookie(answer, SESSION, "", 0)
    for name in (SINCE, NOTICE):
        if cookie(name):
            set_cookie(answer, name, "", 0)


def previous_login() -> datetime | None:
    """Return when the user logged in before this session, or None."""
    try:
        found = datetime.fromisoformat(cookie(SINCE))
    except ValueError:
        return None
    return found if found.tzinfo and found.year in YEARS else None


def presented_visitor() -> str:
    """Return the random value of the browser's visitor cookie, which its login form is bound to, or ""."""
    value = cookie(VISITOR)
    return value if VISITOR_FORM.fullmatch(value) else ""


def visitor() -> str:
    """Return the value of the visitor cookie, or a new one without a cookie."""
    return presented_visitor() or secrets.token_urlsafe(32)


def form_key(value: str, salt: str = "") -> str:
    """Return the key of a form for the session, or the visitor, with that cookie value.

    Each page gets another key, so that the length of compressed pages reveals nothing. Source: breachattack.com.
    """
    salt = salt or secrets.token_hex(SALT // 2)
    return salt + hmac.new(value.encode(), f"myhealth form, 2, {salt}".encode("utf-8", "replace"), "sha256").hexdigest()


def read_form() -> dict[str, str]:
    """Return the fields of the form in the request; of equal names the first. Raises BadInput, TooLarge."""
    try:
        fields = parse_qsl(
            read_body(FORM_MAX_BYTES).decode(), keep_blank_values=True, errors="strict", max_num_fields=50
        )
    except ValueError as error:
        raise BadInput("The form cannot be read; please try again.", code="no_form") from error
    return dict(reversed(fields))


def typed_note(form: dict[str, str] | None = None) -> str:
    """Return the note of a form of our own pages in the request, or "". `form`: if it has been read already."""
    if bottle.request.method != "POST" or site().is_foreign(takes_null=True):
        return ""
    with contextlib.suppress(MyHealthError):
        return (form or read_form()).get("note", "")
    return ""


def require_form_key(form: dict[str, str], value: str) -> None:
    """Raise CsrfError unless the form carries a key of this cookie value. Browsers also send where a form comes from.
    Source: https://www.w3.org/TR/fetch-metadata/."""
    sent = form.get("form_key", "")
    foreign = site().is_foreign(takes_null=True)
    ours = form_key(value, sent[:SALT])
    if foreign or not value or not hmac.compare_digest(*(each.encode("utf-8", "replace") for each in (sent, ours))):
        raise CsrfError(
            "That form was out of date, so nothing was done: you are still logged in. Please try once more."
        )


def safe_target(path: str) -> str:
    """Return the page to open after the login: `path` if it is a page of this site, else the first page."""
    if not re.fullmatch(r"/my/(?!/)[\x21-\x7e]{0,1000}", path) or "\\" in path or path.startswith("/my/log"):
        return HOME
    if re.search(r"/(?:\.|%2e){1,2}(?:[/?#]|\Z)", path, re.IGNORECASE):  # a browser would go up from there
        return HOME
    return path


def _name(name: str, is_secure: bool) -> str:
    return f"__Host-{name}" if name != ZONE and is_secure else name


def cookie(name: str) -> str:
    """Return the value of a cookie, unchecked, or "". Python's own parser drops all cookies if another site on the same
    host has set one that it cannot read."""
    known = bottle.request.environ.get("myhealth.cookies")  # read once a request
    if known is None:
        is_secure, parts = site().needs_secure_cookies(), header("Cookie").split(";")
        sent = {key: value for key, _, value in [part.strip().partition("=") for part in reversed(parts)]}
        known = {each: sent.get(_name(each, is_secure), "") for each in (SESSION, VISITOR, ZONE, SINCE, NOTICE)}
        bottle.request.environ["myhealth.cookies"] = known
    value: str = known[name]
    return value if value.isascii() and len(value) <= TOKEN_MAX else ""


def set_cookie(answer: bottle.HTTPResponse, name: str, value: str, max_age_s: int | None) -> None:
    options = {} if max_age_s is None else {"max_age": max_age_s}
    secure = site().needs_secure_cookies()
    answer.set_cookie(_name(name, secure), value, path="/", httponly=True, samesite="strict", secure=secure, **options)
