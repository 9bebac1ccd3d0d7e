"""Read when something was measured and issued: moments with the precision and the offset that were sent.

Source: HL7 FHIR R4 (4.0.1), "Data Types" (dateTime, instant, Period, Timing).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, timedelta, timezone, tzinfo
from typing import Any

from myhealth.common.text import printable
from myhealth.intake.formats.fhir.element import Element, compact
from myhealth.intake.formats.terminology import parse_partial

TWO = "([0-9]{2})"
DATE_TIME = re.compile(
    rf"([0-9]{{4}})(?:-{TWO}(?:-{TWO}(?:T{TWO}:{TWO}(?::{TWO}(\.[0-9]+)?)?(Z|[+-][0-9]{{2}}:[0-5][0-9])?)?)?)?"
)


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment as RFC 3339 text. `precision`: if it is only a day, a month or a year. `offset`: minutes east of UTC, if
    they were sent."""

    text: str
    precision: str = ""
    offset: int | None = None


@dataclass(frozen=True, slots=True)
class Moments:
    """Reads moments; those that name no zone are in `zone`."""

    zone: tzinfo

    def of(self, part: Element) -> dict[str, Any]:
        """Return taken_at, taken_precision, taken_offset, taken_until and issued_at of a resource, if it has them."""
        start = next((self._read(part, place, text.strip()) for place, text in _effective(part)), None)
        end = part.part("effectivePeriod").text("end").strip()
        until = self._read(part, "effectivePeriod.end", end) if end and start else None
        issued = self._read(part, "issued", text) if (text := part.text("issued").strip()) else None
        return compact(
            taken_at=start.text if start else None,
            taken_precision=start.precision if start else None,
            taken_offset=start.offset if start else None,
            # An end of another precision than the beginning's is in `sent`.
            taken_until=until.text if until and start and until.precision == start.precision else None,
            issued_at=issued.text if issued else None,
        )

    def _read(self, part: Element, place: str, text: str) -> Moment | None:
        """Parse a dateTime or an instant. Return None and add a fault if it is not valid."""
        match = DATE_TIME.fullmatch(text)
        if match is not None:
            *digits, fraction, offset = match.groups()
            numbers = tuple(int(each) for each in digits if each)
            numbers += (0,) * (6 - len(numbers)) if len(numbers) > 3 else ()
            try:
                found = parse_partial(numbers, int(f"{fraction or '.'}000000"[1:7]), _zone(offset, self.zone))
            except ValueError:
                match = None
            else:
                as_sent = offset and digits[5] not in (None, "60")
                return Moment(text if as_sent else found.text, found.known, _minutes(offset))
        part.add_error(place, f"is no date and time: '{printable(text, 40)}'")
        return None


def _effective(part: Element) -> Iterator[tuple[str, str]]:
    """Return (name, text) of the clinically relevant moments."""
    period = part.part("effectivePeriod")
    found = [(name, part.text(name)) for name in ("effectiveDateTime", "effectiveInstant")]
    found += [(f"effectivePeriod.{name}", period.text(name)) for name in ("start", "end")]
    found += [("effectiveTiming.event", text) for text in part.part("effectiveTiming").texts("event")]
    return ((name, text) for name, text in found if text.strip())


def _minutes(offset: str | None) -> int | None:
    """Return the minutes of an offset; Z is 0."""
    if not offset:
        return None
    shift = 0 if offset == "Z" else int(offset[1:3]) * 60 + int(offset[4:])
    return -shift if offset[0] == "-" else shift


def _zone(offset: str | None, zone: tzinfo) -> tzinfo:
    """Return the zone of an offset, else `zone`. Raises ValueError if there is no such zone."""
    return zone if not offset else UTC if offset == "Z" else timezone(timedelta(minutes=_minutes(offset) or 0))


def is_date(text: str) -> bool:
    """Return whether a text is a date that exists, or a month or a year."""
    match = DATE_TIME.fullmatch(text)
    numbers = tuple(int(each) for each in match.groups()[:6] if each) if match else ()
    try:
        return 0 < len(numbers) < 4 and bool(parse_partial(numbers, 0, UTC).known)
    except ValueError:
        return False
