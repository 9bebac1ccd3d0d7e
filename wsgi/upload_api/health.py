"""Metrics."""

from datetime import datetime
from typing import Any

import bottle

from myhealth.common.database import transaction
from myhealth.stores import schema_numbers
from myhealth.sync.lag import find_holder, measure_lag, read_last_pass
from wsgi.common.openapi import Operation
from wsgi.common.views import View
from wsgi.upload_api.context import UploadContext

GAUGES = """
select (select count(*) from rejections where resolved_at is null),
       (select coalesce(max(id), 0) from checkups), (select coalesce(max(id), 0) from tombstones)"""
# A scrape must be quick, however far the sync is behind.
LAG_COUNTED = 100_000


class MetricsView(View):
    """Metrics for Prometheus, without personal data. Source: prometheus.io, "Exposition formats"."""

    context: UploadContext
    spec = {
        "get": Operation(
            "Figures for Prometheus", {200: ("Text, version 0.0.4.", {"type": "string"})}, content="text/plain"
        )
    }

    def get(self) -> Any:
        self.context.open()
        with transaction() as cursor:
            cursor.execute(GAUGES)
            open_rejections, newest_checkup, newest_tombstone = cursor.fetchone()
            sync = sync_gauges(cursor)
        lines = [
            *_gauge("myhealth_schema_migration", "Number of the newest migration.", schema_numbers()[0]),
            *_gauge("myhealth_rejections_open", "Refused records that nobody has dealt with.", open_rejections),
            *_gauge("myhealth_checkups_newest_id", "Highest check-up id.", newest_checkup),
            *_gauge("myhealth_tombstones_newest_id", "Highest id of a deletion.", newest_tombstone),
            *(line for name, (text, value) in sync.items() for line in _gauge(name, text, value)),
        ]
        headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8", "Cache-Control": "no-store"}
        return bottle.HTTPResponse("\n".join(lines) + "\n", headers=headers)


def sync_gauges(cursor: Any) -> dict[str, tuple[str, float]]:
    """Return the sync's metrics from PostgreSQL alone, where the runner records each pass.

    So they are available, and as quick, while MongoDB is unavailable; `last_pass_ok` is 0 then.
    """
    last, holder = read_last_pass(cursor), find_holder(cursor)
    lag = measure_lag(cursor, last.checkpoint if last else None, most=LAG_COUNTED)
    cursor.execute("select extract(epoch from now() - %s)::float8", (holder.since if holder else None,))
    (held_s,) = cursor.fetchone()
    mark = last.checkpoint if last else None
    verified = (last and last.verified) or {"at": "1970-01-01T00:00:00+00:00", "ids": 0, "differences": {}}
    return {
        "myhealth_sync_rows_behind": (f"Rows not carried over yet; of a table at most {LAG_COUNTED}.", lag.rows),
        "myhealth_sync_seconds_behind": ("Seconds since the first change not carried over yet.", lag.seconds),
        "myhealth_sync_mark_checkup_id": ("Last check-up id stored.", mark.last_checkup_id if mark else 0),
        "myhealth_sync_epoch": ("Number of the epoch.", mark.epoch if mark else 0),
        "myhealth_sync_last_pass_ok": ("Whether it reached both stores.", int(bool(last and not last.problem))),
        "myhealth_sync_last_pass_timestamp_seconds": ("When it ended.", last.ended_at.timestamp() if last else 0),
        "myhealth_sync_last_pass_seconds": (
            "How long it took.", (last.ended_at - last.began_at).total_seconds() if last else 0,
        ),
        "myhealth_sync_set_aside": ("Documents that MongoDB refused.", (last and last.done.get("set_aside")) or 0),
        "myhealth_sync_verify_timestamp_seconds": (
            "When a sample of both stores was compared.", datetime.fromisoformat(verified["at"]).timestamp(),
        ),
        "myhealth_sync_verify_ids": ("Ids in that sample.", verified["ids"]),
        "myhealth_sync_verify_differences": ("Differences in it.", sum(verified["differences"].values())),
        "myhealth_sync_held_back_seconds": ("Age of the oldest writing transaction.", held_s or 0),
    }  # fmt: skip


def _gauge(name: str, text: str, value: float) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} gauge", f"{name} {value}"]
