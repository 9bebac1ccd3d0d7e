"""Read when something was measured and issued: moments with the precision and the offset that were sent.

Source: HL7 FHIR R4 (4.0.1), "Data Types" (dateTime, instant, Period, Timing).
"""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from typing import Any

from myhealth.common.text import printable
from myhealth.intake.formats.fhir.element import Element
from myhealth.intake.formats.terminology import (
    PartialDateTime,
    microseconds,
    numbers_of,
    offset_of,
    parse_offset,
    parse_partial,
)

TWO = "([0-9]{2})"
DATE_TIME = re.compile(
    rf"([0-9]{{4}})(?:-{TWO}(?:-{TWO}(?:T{TWO}:{TWO}(?::{TWO}(\.[0-9]+)?)?(Z|[+-][0-9]{{2}}:[0-5][0-9])?)?)?)?"
)
OFFSET = re.compile(r"(?:Z|[+-][0-9]{2}:[0-9]{2})$")


@dataclass(frozen=True, slots=True)
class Moments:
    """Reads moments; those that name no zone are in `zone`. `doubts`: of moments that the clocks of the zone skipped or
    repeated, each with its place."""

    zone: tzinfo
    doubts: list[tuple[str, str]] = field(default_factory=list)

    def of(self, part: Element) -> dict[str, Any]:
        """Return taken_at, taken_precision, taken_offset, taken_until and issued_at of a resource, if it has them."""
        found: dict[str, Any] = {}
        names = [name for name, value in part.data.items() if name[:9] == "effective" and value is not None]
        if len(names) > 1:
            part.add_error(names[1], f"is beside {names[0]}: which moment is meant?")
        place, text = next(_effective(part), ("", "")) if names else ("", "")
        if names and not text:
            self.doubts.append((f"{part.path}.{names[0]}", "has no moment that is read here, so the time is not known"))
        if text and (start := self._read(part, place, text.strip())):
            found["taken_at"] = start.text
            if start.known:
                found["taken_precision"] = start.known
            elif OFFSET.search(text.strip()):
                found["taken_offset"] = offset_of(start)
            if until := self._end(part, start):
                found["taken_until"] = until.text
        if (text := part.text("issued").strip()) and (issued := self._read(part, "issued", text)):
            found["issued_at"] = issued.text
        return found

    def _end(self, part: Element, start: PartialDateTime) -> PartialDateTime | None:
        """Return the end of a period; one of another precision than the beginning's is in `sent`."""
        end = part.part("effectivePeriod").text("end").strip()
        until = self._read(part, "effectivePeriod.end", end) if end else None
        if until is None or until.known != start.known:
            return None
        if start.is_after(until):
            part.add_error("effectivePeriod.end", f"lies before the start: '{printable(end, 40)}'")
        return until

    def _read(self, part: Element, place: str, text: str) -> PartialDateTime | None:
        """Parse a dateTime or an instant, and keep its text. Return None and add a fault if it is not valid."""
        found = _moment(text, self.zone)
        if found is None:
            part.add_error(place, f"is not a date and time: '{printable(text, 40)}'")
        elif found.doubt:
            self.doubts.append((f"{part.path}.{place}", found.doubt))
        return found


@lru_cache(maxsize=1024)
def _moment(text: str, zone: tzinfo) -> PartialDateTime | None:
    match = DATE_TIME.fullmatch(text)
    if match is not None:
        *digits, fraction, offset = match.groups()
        with contextlib.suppress(ValueError):
            if offset and digits[5] not in (None, "60"):  # it can stay as it was sent, if there is such a moment
                datetime.fromisoformat(text)
                return PartialDateTime(text)
            return parse_partial(numbers_of(digits), microseconds(fraction), parse_offset(offset) if offset else zone)
    return None


def _effective(part: Element) -> Iterator[tuple[str, str]]:
    """Return (name, text) of the clinically relevant moments."""
    for name in ("effectiveDateTime", "effectiveInstant"):
        if (text := part.text(name)).strip():
            yield name, text
    period = part.part("effectivePeriod")
    found = [(f"effectivePeriod.{name}", period.text(name)) for name in ("start", "end")]
    found += [("effectiveTiming.event", text) for text in part.part("effectiveTiming").texts("event")]
    yield from ((name, text) for name, text in found if text.strip())


def is_moment(text: str) -> bool:
    """Return whether a text is a dateTime that exists."""
    return _moment(text, UTC) is not None


def is_date(text: str) -> bool:
    """Return whether a text is a date that exists, or a month or a year."""
    found = _moment(text, UTC)
    return found is not None and found.known != ""
