"""HTTP calls to one server: pooled connections, timeouts, a limit on the response's size, no redirects.

A redirect is returned like any other response: following it would send the caller's token to another host.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from msgspec import Struct

from myhealth.common.errors import Unavailable
from myhealth.common.request_context import HEADER, request_id
from myhealth.common.text import plain_reason

if TYPE_CHECKING:
    import urllib3  # its import binds a socket, to find out about IPv6: so functions import it when they need it

POOLED_CONNECTIONS = 8
READ_BYTES = 1024 * 1024
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")


class NoResponse(Unavailable):
    """The server cannot be reached, or the connection broke before the response was complete."""


class ResponseTimeout(NoResponse):
    """The server was reached, and did not respond in time; it may have done what was asked."""


class BadResponse(Unavailable):
    """The response is larger than the limit, or is not a JSON object."""


class Response(Struct, frozen=True):
    """A complete response of any status; `headers` are looked up without regard to case."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes

    def json_object(self) -> dict[str, Any]:
        """Return the body as a JSON object. Raises BadResponse."""
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise BadResponse(f"the response ({self.status}) is not JSON") from error
        if not isinstance(value, dict):
            raise BadResponse(f"the response ({self.status}) is not a JSON object")
        return value

    def error(self) -> tuple[str, str]:
        """Return `details` and `code` of a MyHealth error response, else the HTTP reason phrase and ""."""
        try:
            value = self.json_object()
            return str(value["details"]), str(value["code"])
        except (BadResponse, KeyError):
            return self.reason, ""


class HttpClient:
    """The HTTP server at `base_url`. Safe to share between threads; opens nothing before the first call.

    Through the proxy that the environment names (`http_proxy`, `https_proxy`, `no_proxy`), unless the server is on
    this machine.
    """

    def __init__(self, base_url: str, *, timeout_s: float, response_max_bytes: int) -> None:
        self._base_url = base_url.rstrip("/")
        self._timeout_s = timeout_s
        self._response_max_bytes = response_max_bytes
        self._pool = self._make_pool()

    def call(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        timeout_s: float | None = None,
        repeatable: bool = False,
    ) -> Response:
        """Send one request and return the response, whatever its status.

        `repeatable`: the request may reach the server twice without harm. It then uses a connection that stays open
        between calls, and is sent once more if the server has closed that connection meanwhile.
        Raises NoResponse, ResponseTimeout, BadResponse.
        """
        if repeatable:
            try:
                return self._send(self._pool, method, path, body, headers, timeout_s)
            except _ConnectionClosed:
                pass
        pool = self._make_pool()
        try:
            return self._send(pool, method, path, body, headers, timeout_s)
        finally:
            pool.clear()

    def close(self) -> None:
        self._pool.clear()

    def _make_pool(self) -> urllib3.PoolManager:
        import urllib3

        parts = urlsplit(self._base_url)
        host = parts.hostname or ""
        proxy = None if host in LOCAL_HOSTS or proxy_bypass(host) else getproxies().get(parts.scheme)
        options: dict[str, Any] = {"num_pools": 1, "maxsize": POOLED_CONNECTIONS, "retries": False}
        return urllib3.ProxyManager(proxy, **options) if proxy else urllib3.PoolManager(**options)

    def _send(
        self,
        pool: urllib3.PoolManager,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str] | None,
        timeout_s: float | None,
    ) -> Response:
        from urllib3.exceptions import HTTPError

        try:
            answer = pool.request(
                method,
                self._base_url + path,
                body=body,
                headers={**({HEADER: request_id()} if request_id() else {}), **(headers or {})},
                timeout=timeout_s or self._timeout_s,
                redirect=False,
                preload_content=False,
            )
            return self._read(answer)
        except (HTTPError, OSError) as error:
            raise self._translate(error) from error

    def _read(self, answer: urllib3.BaseHTTPResponse) -> Response:
        body = bytearray()
        try:
            while part := answer.read(READ_BYTES):  # to the end: only there a response that was cut off shows
                body += part
                if len(body) > self._response_max_bytes:
                    raise BadResponse(f"{self._base_url} responds with more than {self._response_max_bytes} bytes")
            answer.release_conn()
            return Response(answer.status, answer.reason or "", answer.headers, bytes(body))
        finally:
            answer.close()

    def _translate(self, error: Exception) -> NoResponse:
        from urllib3.exceptions import ConnectTimeoutError, NewConnectionError, ProtocolError, ReadTimeoutError

        timeouts = (ConnectTimeoutError, ReadTimeoutError)
        if isinstance(error, timeouts) and not isinstance(error, NewConnectionError):
            return ResponseTimeout(f"{self._base_url} does not respond in time: {plain_reason(error)}")
        closed = isinstance(error, ProtocolError) and isinstance(error.args[-1], ConnectionError)
        kind = _ConnectionClosed if closed else NoResponse
        return kind(f"{self._base_url} cannot be reached: {plain_reason(error)}")


class _ConnectionClosed(NoResponse):
    """The server closed the connection without a response."""
