"""Write status and date precision as lines of a report's text, because no field holds them; parse them. Pure.

Each is a separate line: `Status: preliminary.`, `Status of Glucose: cancelled.`, `Only the day is known.`
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, time

# The values of FHIR's DiagnosticReport.status that are not final, then the words of HL7's tables 0085 and 0123 with
# their FHIR values. Source: HL7 Version 2 to FHIR, concept maps of these tables.
STATUSES = {
    **{word: word for word in ("registered", "partial", "preliminary", "cancelled", "unknown")},
    "not verified": "preliminary",
    "some results only": "partial",
    "pending": "registered",
}
STATUS = re.compile(rf"Status(?: of (.+))?: ({'|'.join(STATUSES)})\.")
KNOWN = re.compile(r"Only the (day|month|year) is known\.")
NOON_TIME = time(12)  # UTC: stored as the time of a check-up of which only the date is known


@dataclass(frozen=True, slots=True)
class StatusLines:
    """The status lines of a report. `status`: the report's status, or "". `of_results`: the status of single results,
    by the result's name on one line. `known`: the precision of the date, "day", "month" or "year", or ""."""

    status: str
    of_results: dict[str, str]
    known: str

    def status_of(self, name: str) -> str:
        """Return the status of a result, else the report's; "preliminary" for "partial", which no result can have."""
        status = self.of_results.get(on_one_line(name), self.status)
        return "preliminary" if status == "partial" else status


def on_one_line(name: str) -> str:
    return " ".join(name.split())


def status_line(status: str, name: str = "") -> str:
    """Return the line that `parse_status_lines` parses. `name`: the result's name, or "" for the whole report."""
    return f"Status of {on_one_line(name)}: {status}." if name else f"Status: {status}."


def parse_status_lines(report: str) -> StatusLines:
    statuses: dict[str, str] = {}
    known = ""
    for line in report.splitlines():
        if found := STATUS.fullmatch(line):
            statuses.setdefault(found[1] or "", STATUSES[found[2]])
        elif match := KNOWN.fullmatch(line):
            known = known or match[1]
    return StatusLines(statuses.pop("", ""), statuses, known)


def known_precision(report: str, taken_at: datetime) -> str:
    """Return "day", "month" or "year" if the source sent only that; "" if the time is known or was corrected."""
    return parse_status_lines(report).known if taken_at.astimezone(UTC).time() == NOON_TIME else ""


def already_stated(remark: str, lines: list[str]) -> bool:
    """Return whether the lines contain this remark already, or an equal status in other words.

    Worked example: "Status: registered." is not added to a report that contains "Status: pending."
    """
    found = STATUS.fullmatch(remark)
    if found is None:
        return KNOWN.fullmatch(remark) is not None and remark in lines
    told = parse_status_lines("\n".join(lines))
    status = told.status if found[1] is None else told.status_of(found[1])
    return remark in lines or status == STATUSES[found[2]]
