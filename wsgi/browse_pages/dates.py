"""Dates and times as people read them: all in one time zone, which each page names. It is the reader's own where the
browser has told it, else the site's."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from myhealth.clinical.report_status import known_precision

MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
# What browsers go on calling a zone, and what it is called now. Source: IANA tz, "backward"; CLDR keeps first names.
RENAMED = {
    "Africa/Asmera": "Africa/Asmara",
    "America/Buenos_Aires": "America/Argentina/Buenos_Aires",
    "America/Godthab": "America/Nuuk",
    "America/Indianapolis": "America/Indiana/Indianapolis",
    "Asia/Calcutta": "Asia/Kolkata",
    "Asia/Katmandu": "Asia/Kathmandu",
    "Asia/Rangoon": "Asia/Yangon",
    "Asia/Saigon": "Asia/Ho_Chi_Minh",
    "Atlantic/Faeroe": "Atlantic/Faroe",
    "Etc/UTC": "UTC",
    "Europe/Kiev": "Europe/Kyiv",
}


def reader_zone(told: str, otherwise: str) -> str:
    """The zone that a browser told, by its name of today; `otherwise` where it told none that there is."""
    name = RENAMED.get(told, told)
    return name if name in _zones() else otherwise


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


def _known_part(report: Mapping[str, Any]) -> str:
    at = report["taken_at"]
    return known_precision(str(report["checkup_report"]), at) if isinstance(at, datetime) else ""


class Dates:
    """Renders moments in one zone (an IANA name). Names of months are English, whatever the server's locale."""

    def __init__(self, zone: str) -> None:
        self.zone = ZoneInfo(zone)
        self.zone_name = zone.replace("_", " ")

    def when(self, report: Mapping[str, Any]) -> str:
        """20 November 2026, 09:14; or as much of it as is known of when a report was taken."""
        known, at = _known_part(report), report["taken_at"]
        return self.taken_on(report) if known else f"{self.day(at)}, {self.clock(at)}"

    def taken_on(self, report: Mapping[str, Any]) -> str:
        """20 November 2026; or July 1999, or 1999. What is known by its day has that day in every zone."""
        known, at = _known_part(report), report["taken_at"]
        if not known:
            return self.day(at)
        at = at.astimezone(UTC)
        parts = (str(at.day), MONTHS[at.month - 1], str(at.year))
        return " ".join(parts[("day", "month", "year").index(known) :])

    def stamp(self, report: Mapping[str, Any]) -> str:
        """The same for programs: 2026-11-20T03:44:03+00:00, 1999-07-02, 1999-07 or 1999."""
        length = {"day": 10, "month": 7, "year": 4}.get(_known_part(report))
        return self.machine(report["taken_at"])[:length]

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
