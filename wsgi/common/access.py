"""What is done around every request: its id, its access line, its metrics."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from myhealth.common.logs import log_request
from myhealth.common.request_context import HEADER, RequestContext, accept_id, current_request
from wsgi.common.metrics import count_request

log = logging.getLogger("wsgi.access")


class Exchange:
    """A request on its way through the application `app`, and its answer."""

    def __init__(self, app: str, environ: dict[str, Any], start_response: Callable[..., Any]) -> None:
        self._app, self._start = app, start_response
        self._began = time.perf_counter()
        self._status, self.bytes_sent = 500, 0
        sent = environ.get("HTTP_X_REQUEST_ID", "")
        self._request = RequestContext(accept_id(sent), environ.get("REQUEST_METHOD", "")[:20])

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
        return self._start(status, [*headers, (HEADER, self._request.id)], *error)

    def end(self) -> None:
        """Log and count the request, once."""
        if current_request.get() is self._request:
            current_request.set(None)
        seconds, request = time.perf_counter() - self._began, self._request
        count_request(self._app, request.route, request.method, self._status, seconds)
        if log.isEnabledFor(logging.INFO):
            log_request(log, request, self._status, seconds * 1000, self.bytes_sent)


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
