"""The metrics that come from PostgreSQL."""

from datetime import datetime
from typing import Any

from myhealth.common.database import transaction
from myhealth.stores import schema_numbers
from myhealth.sync.lag import find_holder, measure_lag, read_last_pass

# Raw SQL: several tables in one round trip.
GAUGES = """
select (select count(*) from rejections where resolved_at is null),
       (select coalesce(max(id), 0) from checkups), (select coalesce(max(id), 0) from tombstones)"""
HELD = "select extract(epoch from now() - %s)::float8, pg_has_role('pg_read_all_stats', 'usage')"
# A scrape must be quick, however far the sync is behind.
LAG_COUNTED = 100_000


def database_gauges() -> dict[str, tuple[str, float]]:
    """Return the figures of the schema, the stored data and the sync, each (help, value) by name."""
    with transaction() as cursor:
        cursor.execute(GAUGES)
        open_rejections, newest_checkup, newest_tombstone = cursor.fetchone()
        return {
            "myhealth_schema_migration": ("Number of the newest migration.", schema_numbers()[0]),
            "myhealth_rejections_open": ("Rejected records that nobody has dealt with.", open_rejections),
            "myhealth_checkups_newest_id": ("Highest check-up id.", newest_checkup),
            "myhealth_tombstones_newest_id": ("Highest id of a deletion.", newest_tombstone),
            **sync_gauges(cursor),
        }


def sync_gauges(cursor: Any) -> dict[str, tuple[str, float]]:
    """Return the sync's metrics from PostgreSQL alone, where the runner records each pass.

    So they are available, and as quick, while MongoDB is unavailable; `last_pass_ok` is 0 then.
    """
    last, holder = read_last_pass(cursor), find_holder(cursor)
    lag = measure_lag(cursor, last.checkpoint if last else None, most=LAG_COUNTED)
    cursor.execute(HELD, (holder.since if holder else None,))
    held_s, sees_all = cursor.fetchone()
    # Without that right PostgreSQL hides what other roles do: no figure is better than a wrong one.
    held = (
        {"myhealth_sync_held_back_seconds": ("Age of the oldest writing transaction.", held_s or 0)} if sees_all else {}
    )
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
    } | held  # fmt: skip
