"""Metrics at an address of their own. Each worker listens there; any of them knows the figures of all."""

import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Any

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from myhealth.common.errors import MyHealthError, SettingsError
from myhealth.common.settings_checks import split_address


class _Server(ThreadingMixIn, TCPServer):
    """Workers share the address, and the kernel picks one for each connection."""

    daemon_threads = allow_reuse_address = True
    render: Callable[[], bytes]

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        super().server_bind()


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = 10

    def do_GET(self) -> None:
        status, body = 404, b"There is nothing at this address.\n"
        if self.path == "/metrics":
            try:
                status, body = 200, self.server.render()
            except MyHealthError:  # the settings are wrong; the application's log says why
                status, body = 503, b"The service is not set up.\n"
        self.send_response(status)
        self.send_header("Content-Type", CONTENT_TYPE_PLAIN_0_0_4)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def version_string(self) -> str:
        return "MyHealth"

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: a scrape is no event."""


def bind_metrics_server(address: str) -> _Server | None:
    """Return a server that listens at `HOST:PORT`, None for "". Raises SettingsError."""
    parts = split_address(address)
    if parts is None:
        return None
    _Server.address_family = socket.AF_INET6 if ":" in parts[0] else socket.AF_INET
    try:
        return _Server(parts, _Handler)
    except OSError as error:
        raise SettingsError(f"metrics_listen: cannot listen on {address}: {error.strerror or error}") from error


def answer_scrapes(server: _Server, render: Callable[[], bytes]) -> None:
    """Answer `GET /metrics` in a thread of its own with what `render` returns."""
    server.render = render
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
