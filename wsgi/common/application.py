"""The application around the views: every answer is JSON or a page, every error has one shape."""

from __future__ import annotations

import json
import logging
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from typing import Any

import bottle
import msgspec

from myhealth.common.errors import MyHealthError, SchemaMismatch, SettingsError, Unavailable

log = logging.getLogger(__name__)


def _plain(value: Any) -> int:
    """MongoDB gives integers beyond 32 bits in a type of its own."""
    if isinstance(value, int):
        return int(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


encode_json = msgspec.json.Encoder(decimal_format="number", enc_hook=_plain).encode

# What is not there yet may be in a minute, and an error names who was asked for: nobody keeps it.
ERROR_HEADERS = {"Content-Type": "application/json", "Cache-Control": "no-store"}
# What a status means where no view has said it better.
SENTENCES = {
    400: ("The request cannot be understood.", "bad_request"),
    404: ("There is nothing at this address.", "not_found"),
    405: ("This address does not take that method.", "method_not_allowed"),
    413: ("The request is too large.", "too_large"),
    500: ("Something went wrong here. It has been logged.", "internal_error"),
}


class Application(bottle.Bottle):
    """A Bottle that answers errors as JSON, and never with a traceback."""

    def __init__(self, give_up: Callable[[], None]) -> None:
        """`give_up`: closes what the application opened; `close()` calls it."""
        super().__init__()
        self.config["json.enable"] = False  # views encode their own answers
        self.install(ErrorPlugin())
        self.add_hook("before_request", _check_path)
        self._give_up = give_up

    def close(self) -> None:
        super().close()
        self._give_up()

    def default_error_handler(self, res: Any) -> bytes:
        details, code = SENTENCES.get(res.status_code, (f"{res.status_line[4:]}.", "error"))
        if res.exception is not None:
            log.error("a request failed: %s", type(res.exception).__name__)
        for name, value in ERROR_HEADERS.items():
            bottle.response.set_header(name, value)
        return error_body(details, code)


def _check_path() -> None:
    """Bottle drops bytes of a path that are not UTF-8, and a name without them is somebody else's."""
    try:
        bottle.request.environ["bottle.raw_path"].encode("latin-1").decode()
    except UnicodeError:
        raise json_error(400, "The address is not UTF-8.", "bad_request") from None


class ErrorPlugin:
    """Turns the domain's errors into answers: the one place that knows both."""

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
                log_fault(route.rule)
                return json_error(500, *SENTENCES[500])

        return wrapped


def log_fault(what: str) -> None:
    """Logs the exception being handled: where it came from and of what kind it is, not what it says, for a database's
    errors say what stands in its rows."""
    kind, error, trace = sys.exc_info()
    frames = "".join(traceback.format_tb(trace))
    log.error("%s failed: %s %s\n%s", what, kind and kind.__name__, getattr(error, "pgcode", None) or "", frames)


def error_response(error: MyHealthError) -> bottle.HTTPResponse:
    """The answer that an error of the domain is. What is wrong with our own settings is for the log only."""
    headers = {**ERROR_HEADERS}
    if isinstance(error, Unavailable):
        headers["Retry-After"] = str(error.retry_after_s)
    if error.status == 401:
        headers["WWW-Authenticate"] = getattr(error, "challenge", 'Bearer realm="MyHealth"')
    message, errors = error.message, error.errors
    status = error.status
    if isinstance(error, SettingsError):
        log.error("%s", error.message)
        status, message, errors = 503, "The service is not set up; its log says why.", []
    elif isinstance(error, Unavailable):
        log.warning("%s", error.message)
        if type(error) in (Unavailable, SchemaMismatch):  # what is away is for the log; others say it for people
            message = "The service cannot answer right now; try again in a moment."
    return bottle.HTTPResponse(error_body(message, error.code, errors), status=status, headers=headers)


def json_error(status: int, details: str, code: str, **headers: str) -> bottle.HTTPResponse:
    """An error as an answer; `headers` with _ for -."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return bottle.HTTPResponse(error_body(details, code), status=status, headers={**ERROR_HEADERS, **named})


def error_body(details: str, code: str, errors: Iterable[dict[str, Any]] = ()) -> bytes:
    """The one error shape: DESIGN.md, "HTTP"."""
    places = [{"index": e.get("index"), "field": e.get("field"), "message": e["message"]} for e in errors]
    return json.dumps({"details": details, "code": code, "errors": places}, ensure_ascii=False).encode()


class LazyApplication:
    """A WSGI application that is made at the first request, so that importing its module opens nothing.

    While it cannot be made (a store is away, settings are wrong) every request is answered so, and the next one
    tries again.
    """

    def __init__(self, make: Callable[[], Callable[..., Any]], check: Callable[[], object] = lambda: None) -> None:
        """`check`: raises what is wrong with the settings; opens nothing."""
        self._make = make
        self._check = check
        self._application: Callable[..., Any] | None = None
        self._lock = threading.Lock()

    def check(self) -> None:
        """For whatever serves it, before it starts: ends the process where the settings are wrong, with the reason."""
        try:
            self._check()
        except MyHealthError as error:
            print("\n".join(filter(None, (f"Error: {error.message}", error.hint))), file=sys.stderr)
            raise SystemExit(error.exit_code) from None

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        if self._application is None:
            logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
            try:
                with self._lock:
                    self._application = self._application or self._make()
            except MyHealthError as error:
                answer = error_response(error)
                start_response(answer.status_line, answer.headerlist)
                return [answer.body]
        return self._application(environ, start_response)
