"""Join the rows of a table that have one number, and follow each other, to one record."""

from collections import Counter
from collections.abc import Iterator

from myhealth.intake.formats.tables.former import former_results
from myhealth.intake.parsed_record import ParsedRecord
from myhealth.intake.record_types import RESULTS_MAX

SEVERAL = "Measurements"  # the type of a check-up with several tests, where the layout names none
AGAIN = "row again"


def group_rows(records: Iterator[ParsedRecord], skipped: Counter[str]) -> Iterator[ParsedRecord]:
    """Yield the records. A row that occurs twice under one number is counted in `skipped`, and not added twice."""
    first: ParsedRecord | None = None
    rows: set[str] = set()
    for parsed in records:
        if first is not None and _belongs(first, parsed):
            if parsed.raw.rstrip("\r\n") in rows:
                skipped[AGAIN] += 1
                first.former |= {"results": former_results(first) + former_results(parsed)}
                continue
            rows.add(parsed.raw.rstrip("\r\n"))
            _add(first, parsed)
            continue
        if first is not None:
            yield first
        first, rows = parsed, {parsed.raw.rstrip("\r\n")}
    if first is not None:
        yield first


def with_end(text: str) -> str:
    """Return lines of a table with an end of the last one."""
    return text if text.endswith(("\n", "\r")) else f"{text}\n"


def _belongs(first: ParsedRecord, parsed: ParsedRecord) -> bool:
    number, results = first.record.get("record_id"), first.record.get("results", ())
    return number is not None and number == parsed.record.get("record_id") and len(results) < RESULTS_MAX


def _add(first: ParsedRecord, parsed: ParsedRecord) -> None:
    """Add the results of a further row to the record of the first one."""
    record, more = first.record, parsed.record
    for name in sorted((record.keys() | more.keys()) - {"results", "checkup_type"}):
        if record.get(name) != more.get(name):
            parsed.faults.append((first.locate(name), f"is not that of the first row of record {record['record_id']}"))
    if record["checkup_type"] != more["checkup_type"]:
        record["checkup_type"] = SEVERAL
    first.faults += [(f"line {parsed.line}, {name}", message) for name, message in parsed.faults]
    if first.former or parsed.former:
        first.former |= {"results": former_results(first) + former_results(parsed)}
        first.former.pop("checkup_type", None)
    record["results"] += more["results"]
    first.raw = with_end(first.raw) + parsed.raw
