"""Liveness and readiness."""

from __future__ import annotations

from typing import Any

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


HEALTH_VIEWS = {"/livez": LiveView, "/readyz": ReadyView, "/healthz": ReadyView}
