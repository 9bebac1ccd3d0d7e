"""Dates and times as people read them, all in one time zone, which each page names: the reader's own if the browser
sent it, else the site's."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta, timezone
from functools import cache, cached_property
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo, available_timezones

from myhealth.reports.facts import LENGTHS

MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
# Earlier names of zones, which browsers still send (CLDR keeps them): the present name. Source: IANA tz, "backward".
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


def reader_zone(cookie: str, default: str) -> str:
    """Return the zone that a browser sent, by its present name; `default` if there is no such zone."""
    name = RENAMED.get(cookie, cookie)
    return name if name in _zones() else default


_zones = cache(available_timezones)


FUTURE = "in the future"  # where the clock of a machine is wrong


class ReportDate(NamedTuple):
    """The moment of a report. `text`: as much as is known, with the time if it is known; `day`: without the time;
    `short`: 20 Nov 2026; `in_month`: 20 Nov, for below the name of its month; `month`: November 2026, or as much as is
    known of it; `ago`: its age in words, if that is less than a month; `iso`: the moment for programs."""

    text: str
    day: str
    short: str
    in_month: str
    month: str
    ago: str
    iso: str


class Dates:
    """Writes moments in one zone (an IANA name). Months have English names in every locale of the server."""

    def __init__(self, zone: str) -> None:
        self.zone = ZoneInfo(zone)
        self.zone_name = zone.replace("_", " ")

    def report_date(self, report: Mapping[str, Any]) -> ReportDate:
        """Return the date of a report: 20 November 2026, 09:14; or only 2 July 1999, July 1999 or 1999; or the day on
        which it was received."""
        at, precision = report["taken_at"], report.get("taken_precision")
        if precision == "unknown":
            received, iso = f"received on {self.day(report['created_at'])}", self.iso(report["created_at"])
            short = _shortened(received)
            return ReportDate(f"time not known; {received}", received, short, received, "Time not known", "", iso)
        local, until = self._local(at), report.get("taken_until")
        future, ago = self._age(local)
        day = self.moment(at, precision) if precision else _day_text(local)
        text = day if precision else f"{day}, {_clock_text(local)}"
        text = f"{text} to {self.moment(until)}" if until else text
        is_whole, short = precision in ("month", "year"), _shortened(day)
        return ReportDate(
            text=f"{text}, {future}" if future else text,
            day=day,
            short=short,
            in_month=day if is_whole else short.rpartition(" ")[0],
            month=day if is_whole else day.partition(" ")[2],
            ago=future or ("" if precision else ago),
            iso=self.iso(at)[: LENGTHS.get(precision or "")],
        )

    def moment(self, at: Any, precision: str | None = None) -> str:
        """Return 20 November 2026, 09:14; or as much as is known. A date of which only the day is known is the same day
        in every zone."""
        if str(precision) not in LENGTHS or not isinstance(at, datetime):
            return f"{self.day(at)}, {self.clock(at)}"
        at = at.astimezone(UTC)
        return " ".join((str(at.day), MONTHS[at.month - 1], str(at.year))[tuple(LENGTHS).index(str(precision)) :])

    def there(self, report: Mapping[str, Any]) -> str:
        """Return the moment by the clock of the place where it was taken, if that is known and differs from here."""
        at, minutes = report["taken_at"], report.get("taken_offset")
        if not isinstance(minutes, int) or report.get("taken_precision"):
            return ""
        offset = timedelta(minutes=minutes)
        if at.astimezone(self.zone).utcoffset() == offset:
            return ""
        local = (at + offset).replace(tzinfo=UTC)
        return f"{Dates('UTC').moment(local)} ({timezone(offset)})"

    def day(self, moment: Any) -> str:
        """Return 20 November 2026."""
        return _day_text(self._local(moment))

    def short_day(self, moment: Any, precision: str | None = None) -> str:
        """Return 20 Nov 2026, or as much as is known."""
        if moment is None:
            return "time not known"
        return _shortened(self.moment(moment, precision) if precision else self.day(moment))

    def day_of_value(self, moment: Any, precision: str | None = None) -> str:
        """Return what `short_day` does, and whether the day is in the future."""
        day = self.short_day(moment, precision)
        future, _ = self._age(self._local(moment))
        return f"{day}, {future}" if future else day

    def _age(self, local: datetime | None) -> tuple[str, str]:
        """Return FUTURE or ""; and today, yesterday or 8 days ago, or "" for a day before the last month."""
        if local is None:
            return "", ""
        days = (self.today - local.date()).days
        if 1 < days < 32:
            return "", f"{days} days ago"
        return FUTURE if days < -1 else "", {0: "today", 1: "yesterday"}.get(days, "")

    def clock(self, moment: Any) -> str:
        """Return 09:14."""
        return _clock_text(self._local(moment))

    def iso(self, moment: Any) -> str:
        """Return 2026-11-20T03:44:03+00:00, for programs."""
        return moment.astimezone(UTC).isoformat() if isinstance(moment, datetime) else ""

    @cached_property
    def today(self) -> date:
        """The present day in this zone."""
        return self.now().date()

    def now(self) -> datetime:
        """Return the present moment in this zone."""
        return datetime.now(self.zone)

    def begin_of(self, day: date) -> datetime:
        """Return the first moment of a day in this zone."""
        return datetime.combine(day, time(), self.zone)

    def _local(self, moment: Any) -> datetime | None:
        if not isinstance(moment, datetime):
            return None
        try:
            return moment.astimezone(self.zone)
        except OverflowError:  # on the first or the last day that Python knows
            return moment


def _day_text(local: datetime | None) -> str:
    return f"{local.day} {MONTHS[local.month - 1]} {local.year}" if local else "an unknown date"


def _clock_text(local: datetime | None) -> str:
    return f"{local.hour:02}:{local.minute:02}" if local else ""


def _shortened(day: str) -> str:
    """Return a day, or as much of it as is known, with the first three letters of its month."""
    *before, year = day.split(" ")
    return " ".join([*before[:-1], before[-1][:3], year] if before else [year])
