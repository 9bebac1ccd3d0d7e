"""Liveness, readiness and metrics."""

from typing import Any

import bottle
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from wsgi.common.metrics import render
from wsgi.common.openapi import Operation
from wsgi.common.views import View, json_response


class LiveView(View):
    """200 as long as the process answers, whatever the stores do."""

    spec = {"get": Operation("Whether the process answers", {200: ("It does.", "Alive")})}

    def get(self) -> Any:
        return json_response({"status": "ok"})


class ReadyView(View):
    """200 if requests can be served, else 503. It uses a connection of its own, and takes two seconds at most."""

    spec = {"get": Operation("Whether requests can be served", {200: ("They can.", "Health")})}

    def get(self) -> Any:
        return json_response({"status": "ok", **self.context.check_ready()})


class MetricsView(View):
    """Metrics for Prometheus, without personal data; nothing is here if they have an address of their own."""

    spec = {
        "get": Operation(
            "Figures for Prometheus; 404 if `metrics_listen` is set",
            {200: ("Text, version 0.0.4.", {"type": "string"})},
            errors={404: "They have an address of their own."},
            content="text/plain",
        )
    }

    def get(self) -> Any:
        if self.context.metrics_listen:
            raise bottle.HTTPError(404)
        headers = {"Content-Type": CONTENT_TYPE_PLAIN_0_0_4, "Cache-Control": "no-store"}
        return bottle.HTTPResponse(render(self.context.gauges), headers=headers)


HEALTH_VIEWS = {"/livez": LiveView, "/readyz": ReadyView, "/healthz": ReadyView, "/metrics": MetricsView}
