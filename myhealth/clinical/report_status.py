"""What an import says in a report's words for want of a field, and what an export reads there again. Pure.

A line of its own each: `Status: preliminary.`, `Status of Glucose: cancelled.`, `Only the day is known.`
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, time

# What is not final, as FHIR calls it (DiagnosticReport.status). The further words are those of HL7's tables 0085 and
# 0123; FHIR's words for these: HL7 Version 2 to FHIR, concept maps of these tables.
STATUSES = {
    **{word: word for word in ("registered", "partial", "preliminary", "cancelled", "unknown")},
    "not verified": "preliminary",
    "some results only": "partial",
    "pending": "registered",
}
STATUS = re.compile(rf"Status(?: of (.+))?: ({'|'.join(STATUSES)})\.")
KNOWN = re.compile(r"Only the (day|month|year) is known\.")
NOON_TIME = time(12)  # UTC: the moment that stands for what is known by its day alone (machines/formats/clinical.py)


@dataclass(frozen=True, slots=True)
class StatusLines:
    """`status`: the report's, "" where nothing is said; `of_results`: those of single results by their names, each on
    one line; `known`: "day", "month" or "year" where it says that no more of the moment is known, "" where not."""

    status: str
    of_results: dict[str, str]
    known: str

    def status_of(self, name: str) -> str:
        """A result's own status, else the report's, as results can have it: none is partial. Of "", the report's."""
        status = self.of_results.get(on_one_line(name), self.status)
        return "preliminary" if status == "partial" else status


def on_one_line(name: str) -> str:
    return " ".join(name.split())


def status_line(status: str, name: str = "") -> str:
    """The line that `read_remarks` reads. `name`: of which result, if not of the whole report."""
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
    """day, month or year where the source told no more of the moment; "" where it is known, or was set since."""
    return parse_status_lines(report).known if taken_at.astimezone(UTC).time() == NOON_TIME else ""


def already_stated(remark: str, lines: list[str]) -> bool:
    """Whether a report that has these lines says that already, of a status perhaps in other words.

    Worked example: of an exported report "Status: pending." the import would say "Status: registered." once more.
    """
    found = STATUS.fullmatch(remark)
    if found is None:
        return KNOWN.fullmatch(remark) is not None and remark in lines
    told = parse_status_lines("\n".join(lines))
    status = told.status if found[1] is None else told.status_of(found[1])
    return remark in lines or status == STATUSES[found[2]]
