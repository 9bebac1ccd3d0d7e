"""Metrics for Prometheus: counters of this process, or of all workers that share a folder, and figures of the stores.

gunicorn's workers share a folder if its configuration sets PROMETHEUS_MULTIPROC_DIR before this module is loaded.
Source: prometheus.github.io/client_python/multiprocess.
"""

import logging
import platform
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import cache, lru_cache
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Any

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.values import MutexValue, ValueClass

from myhealth import __version__
from myhealth.common.database import Pool
from myhealth.common.errors import MissingPrivilege, MyHealthError, SettingsError
from myhealth.common.settings_checks import split_address

log = logging.getLogger(__name__)
prometheus_client.disable_created_metrics()
COUNTED = CollectorRegistry()
LABELS = ("app", "route", "method", "status")
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

REQUESTS = Counter("http_requests", "Requests answered.", LABELS, registry=COUNTED)
DURATION = Histogram(
    "http_request_duration_seconds", "Seconds until the answer was sent.", LABELS, buckets=SECONDS, registry=COUNTED
)
RECORDS = Counter("myhealth_upload_records", "Records received over HTTP.", ("outcome",), registry=COUNTED)
records_of = cache(RECORDS.labels)
for _outcome in ("accepted", "duplicate", "rejected"):
    records_of(_outcome)  # 0 until the first
LOGINS = Counter("myhealth_logins", "Attempts to log in at the upload API.", ("outcome",), registry=COUNTED)
POOL = Gauge(
    "myhealth_database_connections", "Connections to PostgreSQL, every half second.", ("state",),
    registry=COUNTED, multiprocess_mode="livesum",
)  # fmt: skip
POOL_MAX = Gauge(
    "myhealth_database_connections_max",
    "Maximum number of connections to PostgreSQL.",
    registry=COUNTED,
    multiprocess_mode="livesum",
)
POOL_WAITS = Counter(
    "myhealth_database_connection_waits", "Times that a request found no free connection.", registry=COUNTED
)
STARTED = Gauge(
    "myhealth_start_time_seconds", "When the oldest process of the API started.", registry=COUNTED,
    multiprocess_mode="livemin",
)  # fmt: skip
Gauges = Mapping[str, tuple[str, float]]


def count_request(app: str, route: str, method: str, status: int, seconds: float) -> None:
    labels = (app, route, method if method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS") else "other", status)
    requests, duration = _with_labels(*labels)
    requests.inc()
    duration.observe(seconds)


@lru_cache(maxsize=1024)
def _with_labels(*labels: Any) -> tuple[Counter, Histogram]:
    return REQUESTS.labels(*labels), DURATION.labels(*labels)


def observe_pool(pool: Pool) -> None:
    in_use, idle, most, waits = pool.count()
    POOL.labels("in_use").set(in_use)
    POOL.labels("idle").set(idle)
    POOL_MAX.set(most)
    POOL_WAITS.inc(waits)


def render(gauges: Callable[[], Gauges]) -> bytes:
    """Return all metrics, version 0.0.4 of the format. `gauges`: figures of the stores, each (help, value) by name; if
    a store is unavailable they are left out, and `myhealth_stores_available` is 0."""
    registry = CollectorRegistry()
    registry.register(_Stores(gauges))
    shown: Any = COUNTED if ValueClass is MutexValue else MultiProcessCollector(registry)
    return generate_latest(registry) + (generate_latest(shown) if shown is COUNTED else b"")


class _Stores:
    def __init__(self, gauges: Callable[[], Gauges]) -> None:
        self._gauges = gauges

    def collect(self) -> Iterable[GaugeMetricFamily]:
        build = GaugeMetricFamily("myhealth_build_info", "The version that runs.", labels=("version", "python"))
        build.add_metric((__version__, platform.python_version()), 1)
        yield build
        try:
            found, available = self._gauges(), 1
        except MyHealthError as error:
            log.log(logging.ERROR if isinstance(error, MissingPrivilege) else logging.WARNING, "%s", error.message)
            found, available = {}, 0
        yield GaugeMetricFamily("myhealth_stores_available", "Whether the figures of the stores are here.", available)
        for name, (text, value) in found.items():
            yield GaugeMetricFamily(name, text, value)


class _Server(ThreadingMixIn, TCPServer):
    """The server of the metrics. Workers share its address, and the kernel picks one of them for each connection."""

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
