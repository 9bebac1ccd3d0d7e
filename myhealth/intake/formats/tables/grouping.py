"""Join the rows of a table that have one number, and follow each other, to one record.

Rows are noted as releases before migration 24 read them too, so that what they stored is known when it comes again.
"""

import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

from myhealth.intake.parsed_record import ParsedRecord
from myhealth.intake.record_types import RESULTS_MAX, TEXT_MAX

SEVERAL = "Measurements"  # the type of a check-up with several tests, where the layout names none
AGAIN = "row again"
Results = list[dict[str, Any]]
FAILED_BEFORE = re.compile(r"#(?:N/A|(?:DIV/0|VALUE|REF|NUM|NULL)!|NAME\?|[*#.\s]*)")
PRESSURE_IN_MMHG = re.compile(r"[0-9 ]+/[0-9 ]+mm\s?Hg", re.IGNORECASE)
AGE_BEFORE = re.compile(r"([0-9]{1,3})\s*(?:a|y|yrs?|years?)?", re.IGNORECASE)


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


def only_one(records: Iterator[ParsedRecord]) -> Iterator[ParsedRecord]:
    """Yield the first record, with a fault if there are more: only one record can take the place of a rejected one."""
    first, *others = islice(records, 2)
    if others:
        first.faults.append(("", "these are rows of several records; leave those of one"))
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


def was_text(text: str, value: dict[str, Any]) -> bool:
    """Return whether a cell that has this value today was a text: with its unit, in other digits, the error of a
    formula in another language."""
    if "unit" in value or PRESSURE_IN_MMHG.fullmatch(text) or (text[0] == "#" and not FAILED_BEFORE.fullmatch(text)):
        return True
    return not text.isascii() and any(each.isdecimal() and not each.isascii() for each in text)


def note_former(parsed: ParsedRecord, results: Results, several: str) -> None:
    """Note the results of a row as they were. `several`: the type of a check-up with several."""
    named = results[0]["name"][:TEXT_MAX] if len(results) == 1 else ""
    parsed.former = {"results": results, "checkup_type": named or several}


def with_replaced(results: Results, before: dict[int, tuple[int, dict[str, Any]]]) -> Results:
    """Return results with others in their place. `before`: by the place of the first, how many, and what they were."""
    found = [*results]
    for at, (count, then) in reversed(before.items()):
        found[at : at + count] = [then]
    return found


def note_former_age(parsed: ParsedRecord, about: dict[str, Any], text: str) -> None:
    """Note the patient with the age that was read in a text, if that was another one."""
    match = AGE_BEFORE.fullmatch(text)
    before = {name: value for name, value in about.items() if name != "age"} | ({"age": int(match[1])} if match else {})
    if before != about:
        parsed.former |= {"patient": before or None}


def former_results(parsed: ParsedRecord) -> Results:
    """Return the results of a row as they were read before."""
    found: Results = parsed.former.get("results", parsed.record["results"])
    return [*found]
