"""What a record says of itself: its number, when it was taken, and its report in words.

Source: HL7 FHIR R4 (4.0.1), "Observation", "DiagnosticReport", "Data Types" (dateTime, instant, Identifier).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, timedelta, timezone, tzinfo

from myhealth.clinical.report_status import already_stated, status_line
from myhealth.common.text import printable
from myhealth.intake.formats.fhir.element import Element, by_use, words
from myhealth.intake.formats.fhir.grouping import FhirGroup
from myhealth.intake.formats.fhir.values import interpretation, lacks_own_value, name_of
from myhealth.intake.formats.terminology import PartialDateTime, lines, parse_partial

ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S+")
TWO = "([0-9]{2})"
DATE_TIME = re.compile(
    rf"([0-9]{{4}})(?:-{TWO}(?:-{TWO}(?:T{TWO}:{TWO}(?::{TWO}(\.[0-9]+)?)?(Z|[+-][0-9]{{2}}:[0-5][0-9])?)?)?)?"
)
# A final report needs no word about it; neither does one that replaces an earlier final one.
SETTLED = ("", "final", "amended", "corrected", "appended")


def record_id_of(group: FhirGroup) -> str | None:
    """The record's number: its own identifier, else where it is to be found; None where it has neither.

    An identifier may be that of an order, which several resources share (Observations f001 and unsat among HL7's own
    examples), so a resource's id is a part of its number. Worked example: {"system": "http://acme.com/lab/reports",
    "value": "5234342"} of the resource with the id 101 is "http://acme.com/lab/reports|5234342#101".
    """
    identity = group.top.text("id")
    for identifier in by_use(group.top.parts("identifier")):
        if identifier.text("value").strip():
            number = "|".join(filter(None, (identifier.text("system"), identifier.text("value"))))
            return f"{number}#{identity}" if identity else number
    if ABSOLUTE.fullmatch(group.head.full_url):
        return group.head.full_url
    return f"{group.head.kind}/{identity}" if identity else None


def taken_at_of(group: FhirGroup, zone: tzinfo) -> PartialDateTime | None:
    """When it was taken: what the report says, else its results, else when it was issued; None if nothing says it."""
    parts = [group.top, *(part for entry, part in group.observations if entry is not group.head)]
    for times in (_effective, _issued):
        for part in parts:
            for place, text in times(part):
                return _moment(part, place, text, zone)
    return None


def _effective(part: Element) -> Iterator[tuple[str, str]]:
    """(name, text) of the moments at which the values held."""
    period = part.part("effectivePeriod")
    found = [(name, part.text(name)) for name in ("effectiveDateTime", "effectiveInstant")]
    found += [(f"effectivePeriod.{name}", period.text(name)) for name in ("start", "end")]
    found += [("effectiveTiming.event", text) for text in part.part("effectiveTiming").texts("event")]
    return ((name, text) for name, text in found if text.strip())


def _issued(part: Element) -> Iterator[tuple[str, str]]:
    return (("issued", text) for text in [part.text("issued")] if text.strip())


def _moment(part: Element, place: str, text: str, zone: tzinfo) -> PartialDateTime | None:
    """The moment that a dateTime or an instant is; a fault where it is none."""
    match = DATE_TIME.fullmatch(text.strip())
    if match is not None:
        *digits, fraction, offset = match.groups()
        numbers = tuple(int(each) for each in digits if each)
        numbers += (0,) * (6 - len(numbers)) if len(numbers) > 3 else ()
        try:
            found = parse_partial(numbers, int(f"{fraction or '.'}000000"[1:7]), _zone(offset, zone))
        except ValueError:
            match = None
        else:
            as_sent = offset and digits[5] not in (None, "60")
            return PartialDateTime(text.strip()) if as_sent else found
    part.add_error(place, f"is no date and time: '{printable(text, 40)}'")
    return None


def _zone(offset: str | None, zone: tzinfo) -> tzinfo:
    """Raises ValueError where there is no such zone."""
    if not offset or offset == "Z":
        return UTC if offset else zone
    shift = timedelta(hours=int(offset[1:3]), minutes=int(offset[4:]))
    return timezone(-shift if offset[0] == "-" else shift)


def report_of(group: FhirGroup, taken_at: PartialDateTime | None, machines: list[str]) -> str:
    """The report for people: what was concluded and noted, and whatever else they should know, one thing a line."""
    top = group.top
    conclusion = top.text("conclusion")
    concluded = [text for name in ("conclusionCode", "codedDiagnosis") for text in map(words, top.parts(name))]
    said = [*concluded]
    said += [f"Attached: {title}." for form in top.parts("presentedForm") if (title := form.text("title").strip())]
    said += _remarks(top, "")
    for entry, part in group.observations:
        if entry is not group.head:
            said += _remarks(part, name_of(part))
    elsewhere = ", ".join(filter(None, group.elsewhere))
    said.append(f"Results that did not come along: {elsewhere}." if elsewhere else "")
    said.append(f"Machines: {', '.join(machines)}." if machines else "")
    said.append(f"Only the {taken_at.known} is known." if taken_at and taken_at.known else "")
    told = conclusion.splitlines()  # what we exported ourselves says some of it already
    return lines(*dict.fromkeys([conclusion, *(each for each in said if not already_stated(each, told))]))


def _remarks(part: Element, name: str) -> Iterator[str]:
    """Status, notes, body site, and a judgement that belongs to no single value. `name`: whose they are, of several."""
    status = part.text("status")
    if status not in SETTLED:
        yield status_line(status, name)
    notes = [note.text("text") for note in part.parts("note")]
    notes += [part.text(old) for old in ("comment", "comments") if isinstance(part.data.get(old), str)]
    yield from (f"{name}: {note}" if name else note for note in notes if note.strip())
    site = words(part.part("bodySite"))
    if site:
        yield f"Body site of {name}: {site}." if name else f"Body site: {site}."
    judged = interpretation(part)[1] if lacks_own_value(part) else ""
    if judged:
        yield f"Interpretation of {name}: {judged}." if name else f"Interpretation: {judged}."
