"""The application around the views: its errors, all in one JSON form, and its creation at the first request."""

import json
import logging
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import bottle
import msgspec

from myhealth.common.errors import (
    Busy,
    MissingPrivilege,
    MyHealthError,
    SettingsError,
    TooManyAttempts,
    Unavailable,
)
from myhealth.common.refusals import MinuteTexts
from wsgi.common.fhir_outcome import FHIR_HEADERS, FHIR_ID, is_fhir, operation_outcome
from wsgi.common.once import Once
from wsgi.common.requests import has_token
from wsgi.common.site_address import Site

log = logging.getLogger(__name__)
_logged = MinuteTexts()


def _plain(value: Any) -> int:
    """Convert Int64, the type of MongoDB's integers beyond 32 bits."""
    if isinstance(value, int):
        return int(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


encode_json = msgspec.json.Encoder(decimal_format="number", enc_hook=_plain).encode

# No cache keeps an error: the next request may succeed, and an error may contain a username.
ERROR_HEADERS = {"Content-Type": "application/json", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
# Default messages, for statuses that no view has described.
SENTENCES = {
    400: ("The request cannot be understood.", "bad_request"),
    404: ("There is nothing at this address.", "not_found"),
    405: ("This address does not take that method.", "method_not_allowed"),
    413: ("The request is too large.", "too_large"),
    500: ("Something went wrong here. It has been logged.", "internal_error"),
}


class Application(bottle.Bottle):
    """A Bottle application that returns errors as JSON, never with a traceback."""

    def __init__(self, release: Callable[[], None], site: Site) -> None:
        """`release`: closes the stores that the application opened; `close()` calls it. `site`: its public address."""
        super().__init__()
        self.site = site
        self._headers = site.headers
        self.config["json.enable"] = False  # views encode their own answers
        self.router.add_filter("fhir_id", lambda _: (FHIR_ID, None, None))
        self.install(ErrorPlugin())
        self.add_hook("before_request", _check_path)
        self.add_hook("before_request", self._refuse_foreign)
        self.add_hook("after_request", self._add_headers)
        self._release = release

    def close(self) -> None:
        super().close()
        self._release()

    def _refuse_foreign(self) -> None:
        """Refuse a change, or a login, that a page of another site makes a browser send.

        Such a page cannot add a token. The pages under /my/ check their forms themselves.
        """
        path, method = bottle.request.path, bottle.request.method
        changes = method not in ("GET", "HEAD", "OPTIONS") or path.rstrip("/") == "/login"
        if changes and not path.startswith("/my/") and not has_token() and self.site.is_foreign():
            raise json_error(403, "A page of another site sent this; nothing was done.", "cross_site")

    def _add_headers(self) -> None:
        for name, value in self._headers.items():
            bottle.response.set_header(name, value)

    def default_error_handler(self, res: Any) -> bytes:
        details, code = SENTENCES.get(res.status_code, (f"{res.status_line[4:]}.", "error"))
        if res.exception is not None:
            log.error("a request failed: %s", type(res.exception).__name__)
        body, headers = error_content(res.status_code, details, code)
        for name, value in headers.items():
            bottle.response.set_header(name, value)
        return body


def _check_path() -> None:
    """Refuse a path that is not UTF-8: Bottle drops such bytes, and the rest may be another user's name."""
    try:
        bottle.request.environ["bottle.raw_path"].encode("latin-1").decode()
    except UnicodeError:
        raise json_error(400, "The address is not UTF-8.", "bad_request") from None


class ErrorPlugin:
    """Translates the domain's errors into responses."""

    name = "errors"
    api = 2

    def apply(self, callback: Callable[..., Any], route: Any) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            try:
                return callback(*args, **kwargs)
            except MyHealthError as error:
                return error_response(error)
            except bottle.HTTPResponse:
                raise
            except Exception:  # noqa: BLE001 - the edge of the program
                log_exception(route.rule)
                return json_error(500, *SENTENCES[500])

        return wrapped


def log_exception(rule: str) -> None:
    """Log the traceback and the type of the current exception, but not its message, which may contain stored data."""
    kind, error, trace = sys.exc_info()
    frames = "".join(traceback.format_tb(trace))
    log.error("%s failed: %s %s\n%s", rule, kind and kind.__name__, getattr(error, "pgcode", None) or "", frames)


def error_response(error: MyHealthError) -> bottle.HTTPResponse:
    """Return the response for an error of the domain. An error in our own settings is only logged."""
    headers: dict[str, str] = {}
    if isinstance(error, Unavailable):
        headers["Retry-After"] = str(error.retry_after_s)
    if error.status == 401:
        headers["WWW-Authenticate"] = getattr(error, "challenge", 'Bearer realm="MyHealth"')
    message, errors = error.message, error.errors
    status = error.status
    if isinstance(error, SettingsError):
        log.error("%s", error.message)
        headers["Retry-After"] = "5"
        status, message, errors = 503, "The service is not set up; its log says why.", []
    elif isinstance(error, (Busy, TooManyAttempts)):
        network = getattr(error, "network", "")
        if _logged.add(f"{error.code} {network}") == "new":
            log.warning("%s: %s; further ones of this minute are not logged", network or "all networks", error.message)
    elif isinstance(error, Unavailable):
        log.log(logging.ERROR if isinstance(error, MissingPrivilege) else logging.WARNING, "%s", error.message)
        # Messages that name a store are for the log only; other subclasses have messages for people.
        if type(error) in (Unavailable, MissingPrivilege):
            message = "The service cannot answer right now; try again in a moment."
    body, always = error_content(status, message, error.code, errors)
    return bottle.HTTPResponse(body, status=status, headers=always | headers)


def json_error(status: int, details: str, code: str, **headers: str) -> bottle.HTTPResponse:
    """Return an error response; `headers` are written with _ for -."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    body, always = error_content(status, details, code)
    return bottle.HTTPResponse(body, status=status, headers=always | named)


def error_content(
    status: int, details: str, code: str, errors: Sequence[dict[str, Any]] = ()
) -> tuple[bytes, dict[str, str]]:
    """Return the body and the headers of an error: FHIR's OperationOutcome under /fhir/, else our own JSON."""
    if is_fhir():
        return encode_json(operation_outcome(status, details, code, errors)), ERROR_HEADERS | FHIR_HEADERS
    return error_body(details, code, errors), ERROR_HEADERS


def error_body(details: str, code: str, errors: Iterable[dict[str, Any]] = ()) -> bytes:
    """Return the JSON of an error: `details` for people, `code` for programs, `errors` with their positions."""
    places = [{"index": e.get("index"), "field": e.get("field"), "message": e["message"]} for e in errors]
    return json.dumps({"details": details, "code": code, "errors": places}, ensure_ascii=False).encode()


class LazyApplication:
    """A WSGI application that is created at the first request, so that importing its module opens nothing.

    While that fails (settings are wrong), each request gets the error; see `Once`.
    """

    def __init__(self, make: Callable[[], Callable[..., Any]], check: Callable[[], object] = lambda: None) -> None:
        """`check`: raises an error if the settings are wrong; opens nothing."""
        self._make = make
        self._application = Once(self._start)
        self._check = check

    def check(self) -> None:
        """End the process, with the reason, if the settings are wrong. The server calls it before it starts."""
        try:
            self._check()
        except MyHealthError as error:
            print("\n".join(filter(None, (f"Error: {error.message}", error.hint))), file=sys.stderr)
            raise SystemExit(error.exit_code) from None

    def _start(self) -> Callable[..., Any]:
        logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
        return self._make()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        try:
            application = self._application()
        except MyHealthError as error:
            bottle.request.bind(environ)
            answer = error_response(error)
            start_response(answer.status_line, answer.headerlist)
            return [answer.body]
        return application(environ, start_response)
