"""The figures of a server of MLLP connections, for Prometheus, at an address of their own."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import prometheus_client
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from myhealth.common.errors import SettingsError
from myhealth.mllp.server import Figures


@dataclass(eq=False)
class _Collector:
    figures: Figures

    def collect(self) -> Iterable[Metric]:
        found = self.figures
        answers = CounterMetricFamily("myhealth_mllp_messages", "Messages by acknowledgement.", labels=("code",))
        for code, count in list(found.answers.items()):
            answers.add_metric((code,), count)
        yield answers
        yield CounterMetricFamily("myhealth_mllp_seconds", "Seconds until messages were stored.", found.seconds)
        yield CounterMetricFamily("myhealth_mllp_refused", "Connections that were not taken.", found.refused)
        yield GaugeMetricFamily("myhealth_mllp_connections", "Open connections.", found.connections)


def serve_metrics(figures: Figures, address: str) -> Any:
    """Answer scrapes at `HOST:PORT` in a thread; return the server. Raises SettingsError."""
    host, _, port = address.rpartition(":")
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(figures))
    try:
        return prometheus_client.start_http_server(int(port), host.strip("[]"), registry)[0]
    except (OSError, ValueError, OverflowError) as error:
        raise SettingsError(f"metrics cannot be served at {address}: {error}", hint="name HOST:PORT") from error
