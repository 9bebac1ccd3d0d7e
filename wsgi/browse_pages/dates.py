"""Dates and times as people read them, in the site's time zone; a page says which one that is."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)


class Dates:
    """Renders moments in one zone (an IANA name). Names of months are English, whatever the server's locale."""

    def __init__(self, zone: str) -> None:
        self.zone = ZoneInfo(zone)
        self.zone_name = zone.replace("_", " ")

    def day(self, moment: Any) -> str:
        """20 November 2026"""
        local = self._local(moment)
        return f"{local.day} {MONTHS[local.month - 1]} {local.year}" if local else "an unknown date"

    def short_day(self, moment: Any) -> str:
        """20 Nov 2026"""
        local = self._local(moment)
        return f"{local.day} {MONTHS[local.month - 1][:3]} {local.year}" if local else "?"

    def clock(self, moment: Any) -> str:
        """09:14"""
        local = self._local(moment)
        return f"{local.hour:02}:{local.minute:02}" if local else ""

    def machine(self, moment: Any) -> str:
        """2026-11-20T03:44:03+00:00, for programs."""
        return moment.astimezone(UTC).isoformat() if isinstance(moment, datetime) else ""

    def now(self) -> datetime:
        return datetime.now(self.zone)

    def begin_of(self, day: date) -> datetime:
        """The first moment of a day here."""
        return datetime.combine(day, time(), self.zone)

    def end_of(self, day: date) -> datetime:
        """The first moment of the day after it."""
        return datetime.combine(day + timedelta(days=1), time(), self.zone)

    def _local(self, moment: Any) -> datetime | None:
        if not isinstance(moment, datetime):
            return None
        try:
            return moment.astimezone(self.zone)
        except OverflowError:  # the first and the last day that Python knows
            return moment
