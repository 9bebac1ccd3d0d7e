"""The application around the views: its errors, all in one JSON form (FHIR's OperationOutcome under /fhir/), its
metrics and access lines, and its creation at the first request.

Source: HL7 FHIR R4 (4.0.1), "OperationOutcome", value set issue-type.
"""

import gc
import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import bottle

from myhealth.common.concurrency import Once
from myhealth.common.errors import Busy, MissingPrivilege, MyHealthError, SettingsError, TooManyAttempts, Unavailable
from myhealth.common.logs import configure_logging, log_request
from myhealth.common.refusals import MinuteTexts
from myhealth.common.request_context import HEADER, ID_FORM, RequestContext, current_request
from myhealth.common.settings import Settings, load
from myhealth.reports.documents import encode_json
from wsgi.common import metrics
from wsgi.common.metrics import count_request
from wsgi.common.requests import Site, find_address, sent_token

log = logging.getLogger(__name__)
_logged = MinuteTexts()


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

    def __init__(self, name: str, context: Any, site: Site) -> None:
        """`name`: upload or browse. `context`: its stores; `close()` closes them. `site`: its public address."""
        super().__init__()
        self.name, self.context, self.site = name, context, site
        self._headers = [*site.headers.items()]
        self.uninstall("json")  # views encode their own answers
        self.router.add_filter("fhir_id", lambda _: (FHIR_ID, None, None))
        self.install(ErrorPlugin())
        self.add_hook("before_request", self._check_request)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        return Exchange(self.name, environ, start_response, self._headers).run(self.wsgi, environ)

    def close(self) -> None:
        super().close()
        self.context.close()

    def _check_request(self) -> None:
        """Refuse a path that is not UTF-8: Bottle drops such bytes, and the rest may be another user's name. Refuse a
        change, or a login, that a page of another site makes a browser send.

        Such a page cannot add a token. The pages under /my/ check their forms themselves.
        """
        if request := current_request.get():
            request.address = find_address(self.site.trusted_proxies)
        path, method = bottle.request.path, bottle.request.method
        try:
            bottle.request.environ["bottle.raw_path"].encode("latin-1").decode()
        except UnicodeError:
            raise json_error(400, "The address is not UTF-8.", "bad_request") from None
        changes = method not in ("GET", "HEAD", "OPTIONS") or path.rstrip("/") == "/login"
        if changes and not path.startswith("/my/") and not sent_token() and self.site.is_foreign():
            raise json_error(403, "A page of another site sent this; nothing was done.", "cross_site")

    def default_error_handler(self, res: Any) -> bytes:
        details, code = SENTENCES.get(res.status_code, (f"{res.status_line[4:]}.", "error"))
        if res.exception is not None:
            log.error("a request failed: %s", type(res.exception).__name__)
        body, headers = error_content(res.status_code, details, code)
        bottle.response.headers.update(headers)
        return body


class ErrorPlugin:
    """Translates errors into responses, which `answer` makes."""

    name = "errors"
    api = 2

    def answer(self, error: MyHealthError) -> bottle.HTTPResponse:
        return error_response(error)

    def apply(self, callback: Callable[..., Any], route: Any) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            try:
                return callback(*args, **kwargs)
            except MyHealthError as error:
                return self.answer(error)
            except bottle.HTTPResponse:
                raise
            except Exception:  # noqa: BLE001 - whatever it is, a client gets an answer and the log the trace
                _log_exception(route.rule)
                details, code = SENTENCES[500]
                return self.answer(MyHealthError(details, code=code))

        return wrapped


def _log_exception(rule: str) -> None:
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
        request = current_request.get()
        network = request.network if request and isinstance(error, TooManyAttempts) else "all networks"
        if _logged.add(f"{error.code} {network}") == "new":
            log.warning("%s for %s: %s; further ones of this minute are not logged", error.code, network, error.message)
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

    def __init__(
        self, name: str, make: Callable[[Settings], Application], check: Callable[[Settings], object] = lambda _: None
    ) -> None:
        """`name`: upload or browse. `check`: raises an error if the settings are wrong; opens nothing."""
        self._name, self._make, self._check_settings = name, make, check
        self._application = Once(self._start)

    def check(self) -> None:
        """End the process, with the reason, if the settings are wrong. The server calls it before it starts."""
        try:
            settings = load()
            self._check_settings(settings)
            if listener := metrics.bind_metrics_server(getattr(settings, self._name).metrics_listen):
                listener.server_close()
        except MyHealthError as error:
            print("\n".join(filter(None, (f"Error: {error.message}", error.hint))), file=sys.stderr)
            raise SystemExit(error.exit_code) from None

    def started(self) -> None:
        """Read the settings, and serve the metrics at their own address, if they have one.

        Each worker calls it before its first request, which may come after the settings file has been changed.
        """
        metrics.STARTED.set(time.time())
        try:
            self._application()
            gc.freeze()  # loaded modules stay; to collect them again takes an eighth of a trend of 1,000 values
            listener = metrics.bind_metrics_server(getattr(load(), self._name).metrics_listen)
        except MyHealthError as error:  # the requests that come report the settings
            log.error("%s", error.message)
        else:
            if listener:
                metrics.answer_scrapes(listener, lambda: metrics.render(self._application().context.gauges))

    def _start(self) -> Application:
        configure_logging()
        settings = load()
        configure_logging(settings.log)
        return self._make(settings)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        try:
            application = self._application()
        except MyHealthError as error:
            return Exchange(self._name, environ, start_response).run(partial(_answer_error, error), environ)
        return application(environ, start_response)


def _answer_error(error: MyHealthError, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    bottle.request.bind(environ)
    answer = error_response(error)
    start_response(answer.status_line, answer.headerlist)
    return [answer.body]


access_log = logging.getLogger("wsgi.access")


class Exchange:
    """A request on its way through the application `app`, and its answer, which gets `headers`."""

    def __init__(
        self,
        app: str,
        environ: dict[str, Any],
        start_response: Callable[..., Any],
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        self._app, self._start, self._headers = app, start_response, headers
        self._began = time.perf_counter()
        self._status, self.bytes_sent = 500, 0
        sent = environ.get("HTTP_X_REQUEST_ID", "")
        own_id = sent if ID_FORM.fullmatch(sent) else os.urandom(8).hex()
        self._request = RequestContext(own_id, environ.get("REQUEST_METHOD", "")[:20])

    def run(self, application: Callable[..., Any], environ: dict[str, Any]) -> Iterable[bytes]:
        """Let the application answer. The request ends when its answer has been sent."""
        current_request.set(self._request)
        try:
            answer = application(environ, self._respond)
        except BaseException:  # whatever ends a request, its line is logged
            self.end()
            raise
        if isinstance(answer, list):
            self.bytes_sent = sum(map(len, answer))
            self.end()
            return answer
        return _Parts(answer, self)

    def _respond(self, status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
        self._status = int(status[:3])
        more = [each for each in self._headers if each not in headers]
        return self._start(status, [*headers, *more, (HEADER, self._request.id)], *error)

    def end(self) -> None:
        """Log and count the request, once."""
        if current_request.get() is self._request:
            current_request.set(None)
        seconds, request = time.perf_counter() - self._began, self._request
        count_request(self._app, request.route, request.method, self._status, seconds)
        log_request(access_log, request, self._status, seconds * 1000, self.bytes_sent)


class _Parts:
    """An answer that is sent part by part. The server calls `close` in the end, whatever happens."""

    def __init__(self, parts: Iterable[bytes], exchange: Exchange) -> None:
        self._parts, self._exchange = parts, exchange
        self._ended = False

    def __iter__(self) -> Iterator[bytes]:
        for part in self._parts:
            self._exchange.bytes_sent += len(part)
            yield part
        self.close()

    def close(self) -> None:
        if not self._ended:
            self._ended = True
            getattr(self._parts, "close", lambda: None)()
            self._exchange.end()


FHIR = "application/fhir+json"
FHIR_ID = r"[A-Za-z0-9.\-]{1,64}"  # a logical id
FHIR_HEADERS = {"Content-Type": FHIR}
OUR_ERROR = "tag:myhealth.example,2026:error"
ISSUE_TYPES = {
    200: "informational", 401: "login", 403: "forbidden", 404: "not-found", 405: "not-supported",
    406: "not-supported", 409: "conflict",
    410: "deleted", 413: "too-long", 415: "not-supported", 422: "processing", 429: "throttled", 500: "exception",
    502: "transient", 503: "transient", 504: "timeout",
}  # fmt: skip
# For errors whose `code` says more than the HTTP status.
ISSUE_TYPES_OF_CODES = {"not_supported": "not-supported", "too_costly": "too-costly", "required": "required"}


def is_fhir() -> bool:
    path: str = bottle.request.environ.get("PATH_INFO", "")
    return path == "/fhir" or path.startswith("/fhir/")


def operation_outcome(
    status: int, details: str, code: str, errors: Sequence[dict[str, Any]] = (), severity: str = "error"
) -> dict[str, Any]:
    """Return an error of ours: an issue for each of `errors`, whose `field` is the place, or one issue."""
    issues = []
    for error in errors or [{"message": details}]:
        own = error.get("code") or code
        issue = {
            "severity": severity,
            "code": ISSUE_TYPES_OF_CODES.get(own) or ISSUE_TYPES.get(status, "invalid"),
            "details": {"coding": [{"system": OUR_ERROR, "code": own}], "text": details},
            "diagnostics": error["message"],
        }
        issues.append(issue | ({"expression": [place]} if (place := error.get("field")) else {}))
    return {"resourceType": "OperationOutcome", "issue": issues}
