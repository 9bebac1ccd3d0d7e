"""Whether the service is well, in one word and in figures."""

from __future__ import annotations

from typing import Any

import bottle

from myhealth.common.database import transaction
from myhealth.stores import schema_number
from wsgi.common.openapi import Operation
from wsgi.common.views import View, json_response

GAUGES = """
select (select count(*) from rejections where resolved_at is null),
       (select coalesce(max(id), 0) from checkups), (select coalesce(max(id), 0) from tombstones)"""


class HealthView(View):
    """200 where PostgreSQL answers, 503 where it does not."""

    spec = {"get": Operation("Whether PostgreSQL answers", {200: ("It does.", "Health")})}

    def get(self) -> Any:
        return json_response({"status": "ok", "schema": schema_number()})


class MetricsView(View):
    """Figures for Prometheus, of nobody in particular. Source: prometheus.io, "Exposition formats"."""

    spec = {
        "get": Operation(
            "Figures for Prometheus", {200: ("Text, version 0.0.4.", {"type": "string"})}, content="text/plain"
        )
    }

    def get(self) -> Any:
        with transaction() as cursor:
            cursor.execute(GAUGES)
            open_rejections, newest_checkup, newest_tombstone = cursor.fetchone()
        lines = [
            *_gauge("myhealth_schema_migration", "Number of the newest migration.", schema_number()),
            *_gauge("myhealth_rejections_open", "Refused records that nobody has dealt with.", open_rejections),
            *_gauge("myhealth_checkups_newest_id", "Highest check-up id.", newest_checkup),
            *_gauge("myhealth_tombstones_newest_id", "Highest id of a deletion.", newest_tombstone),
        ]
        headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8", "Cache-Control": "no-store"}
        return bottle.HTTPResponse("\n".join(lines) + "\n", headers=headers)


def _gauge(name: str, text: str, value: float) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} gauge", f"{name} {value}"]
