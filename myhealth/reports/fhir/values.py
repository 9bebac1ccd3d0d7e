"""The values of search parameters, and how elements of resources compare with them. Pure.

Source: HL7 FHIR R4 (4.0.1), "Search" (date, token, string, reference; escaping).
"""

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from myhealth.common.errors import BadInput
from myhealth.common.text import UNSTORABLE
from myhealth.reports.documents import name_words
from myhealth.reports.export.fhir_values import Element
from myhealth.reports.filters import FILTER_TEXT_MAX

Predicate = Callable[[Element], bool]
Tokens = Iterable[tuple[str, str]]
MOMENT = re.compile(
    r"([0-9]{4})(?:-([0-9]{2})(?:-([0-9]{2})(?:T([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]+))?)?"
    r"(Z|[+-][0-9]{2}:[0-9]{2})?)?)?)?",
    re.ASCII,
)
ZONE = re.compile(r"Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9]")
VALUE = re.compile(r"(?:[^\\\0]|\\[,|$\\])+")  # a backslash escapes one of four characters
PREFIX = re.compile(r"(eq|ne|gt|lt|ge|le|sa|eb|ap)?(.*)", re.DOTALL)
FIRST, LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
INSTANT = timedelta(microseconds=1)
REFERENCE = re.compile(r"(?:(?:(https?://\S+)/)?([A-Z][A-Za-z]*)/)?([A-Za-z0-9.-]{1,64})", re.ASCII)


def refuse(name: str, message: str, code: str = "bad_input") -> BadInput:
    """Return the error of a parameter. Its place is "http." and the name, as OperationOutcome has it."""
    place = f"http.{name[:100]}"
    return BadInput(f"{name[:100]}: {message}", code=code, errors=[{"index": None, "field": place, "message": message}])


def split_list(name: str, value: str) -> list[str]:
    """Return the values between commas; a backslash escapes a comma, a bar, a dollar or itself."""
    found = re.split(r"(?<!\\)((?:\\\\)*),", value)
    values = [text + (found[i + 1] if i + 1 < len(found) else "") for i, text in enumerate(found) if i % 2 == 0]
    for each in values:
        if not VALUE.fullmatch(each) or len(unescape(each)) > FILTER_TEXT_MAX or UNSTORABLE.search(each):
            limit = f"each value must be text of 1 to {FILTER_TEXT_MAX} characters, without NUL"
            raise refuse(name, f"{limit}; a backslash stands only before a comma, a bar, a dollar or a backslash.")
    return values


def unescape(text: str) -> str:
    return re.sub(r"\\([,|$\\])", r"\1", text)


def token_pair(text: str) -> tuple[str | None, str]:
    """Return (system, code) of `code`, `system|code`, `|code` (no system: "") or `system|` (any code: "")."""
    system, bar, code = re.match(r"((?:[^\\|]|\\.)*)(\|?)(.*)", text, re.DOTALL).groups()  # type: ignore[union-attr]
    return (unescape(system), unescape(code)) if bar else (None, unescape(system))


def token_predicate(pairs: list[tuple[str | None, str]], tokens_of: Callable[[Element], Tokens]) -> Predicate:
    def matches(resource: Element) -> bool:
        return any(
            (wanted is None or wanted == system) and code in ("", value)
            for system, value in tokens_of(resource)
            for wanted, code in pairs
        )

    return matches


def name_predicate(texts: list[str]) -> Predicate:
    """Match a name in which words begin with all words of one of the texts, whatever the case and the accents."""
    wanted = [name_words(unescape(text)) for text in texts]

    def matches(resource: Element) -> bool:
        words = [word for name in resource.get("name", ()) for word in name_words(name["text"])]
        return any(all(any(has.startswith(word) for has in words) for word in each) for each in wanted if each)

    return matches


class Span(NamedTuple):
    """The moments that a date means: from `low` on, before `high`."""

    low: datetime
    high: datetime


def span_of(text: str) -> Span | None:
    """Return the span of a date of any precision; without a zone in UTC. None if the text is not a date.

    Worked example: "2026-11" is from 2026-11-01T00:00Z on, before 2026-12-01T00:00Z.
    """
    match = MOMENT.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    try:
        low = datetime(int(year), int(month or 1), int(day or 1), int(hour or 0), int(minute or 0), tzinfo=UTC)
        low += timedelta(seconds=min(int(second or 0), 60), microseconds=int((fraction or "0").ljust(6, "0")[:6]))
        if int(second or 0) > 60 or (zone and not ZONE.fullmatch(zone)):
            return None
        if zone and zone != "Z":
            shift = timedelta(hours=int(zone[1:3]), minutes=int(zone[4:]))
            low += -shift if zone[0] == "+" else shift
        return Span(low, _end(low, month, day, hour, second, fraction))
    except (ValueError, OverflowError):
        return None


def _end(low: datetime, *parts: str | None) -> datetime:
    month, day, hour, second, fraction = parts
    try:
        if fraction:
            return low + INSTANT
        if hour:
            return low + timedelta(seconds=1 if second else 60)
        if day:
            return low + timedelta(days=1)
        return low.replace(year=low.year + (not month or low.month == 12), month=low.month % 12 + 1 if month else 1)
    except (ValueError, OverflowError):
        return LAST


class DateValue(NamedTuple):
    """One date of a search: its prefix and its span, which `ap` has widened by a tenth of its distance from now."""

    prefix: str
    span: Span

    @property
    def bounds(self) -> Span:
        """The span outside which nothing matches."""
        low = self.span.low if self.prefix in ("eq", "ap", "gt", "ge", "sa") else FIRST
        return Span(low, self.span.high if self.prefix in ("eq", "ap", "lt", "le", "eb") else LAST)

    def matches(self, target: Span) -> bool:
        (low, high), (start, end) = self.span, target
        inside = low <= start and end <= high
        if self.prefix in ("gt", "ge"):
            return end > high or (inside and self.prefix == "ge")
        if self.prefix in ("lt", "le"):
            return start < low or (inside and self.prefix == "le")
        return {
            "eq": inside, "ne": not inside, "sa": start >= high, "eb": end <= low, "ap": start < high and end > low
        }[self.prefix]  # fmt: skip


def parse_date(name: str, text: str) -> DateValue:
    """Parse one date with its prefix. Raises BadInput."""
    prefix, rest = PREFIX.fullmatch(text).groups()  # type: ignore[union-attr]
    # an unescaped + before the offset arrives as a space
    span = span_of(re.sub(r" (?=[0-9]{2}:[0-9]{2}$)", "+", rest).upper())
    if span is None:
        raise refuse(
            name, "must be a date or a moment (2026, 2026-11, 2026-11-20 or RFC 3339), perhaps after a prefix."
        )
    if prefix == "ap":
        slack = abs(datetime.now(UTC) - span.low) / 10
        span = Span(
            span.low - slack if span.low - FIRST > slack else FIRST,
            span.high + slack if LAST - span.high > slack else LAST,
        )
    return DateValue(prefix or "eq", span)


def date_predicate(dates: list[DateValue], span_in: Callable[[Element], Span | None]) -> Predicate:
    def matches(resource: Element) -> bool:
        target = span_in(resource)
        return target is not None and any(each.matches(target) for each in dates)

    return matches


def effective_span(resource: Element) -> Span | None:
    """Return the span of an Observation's or a DiagnosticReport's moment or period; None if it is not known."""
    period: Any = resource.get("effectivePeriod")
    if period is None:
        return span_of(resource.get("effectiveDateTime", ""))
    ends = span_of(period["start"]), span_of(period["end"])
    return Span(ends[0].low, ends[1].high) if ends[0] and ends[1] else None


def reference_id(text: str, base: str) -> str:
    """Return the id of a reference to a Patient of this server, `base`; "" for any other resource."""
    match = REFERENCE.fullmatch(unescape(text))
    return match[3] if match and match[1] in (None, base) and match[2] in (None, "Patient") else ""
