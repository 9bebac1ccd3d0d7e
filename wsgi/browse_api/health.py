"""The health check."""

from __future__ import annotations

from typing import Any

from wsgi.browse_api.context import BrowseContext
from wsgi.common.openapi import Operation
from wsgi.common.views import View, json_response


class HealthView(View):
    """Answer 200 if MongoDB answers, else 503."""

    spec = {"get": Operation("Whether MongoDB answers", {200: ("It does.", "Health")})}
    context: BrowseContext

    def get(self) -> Any:
        self.context.reports.ping()
        return json_response({"status": "ok"})
