"""Read rows as releases before migration 24 read them, so that what they stored is known again when it comes again."""

import re
from typing import Any

from myhealth.intake.parsed_record import ParsedRecord
from myhealth.intake.record_types import TEXT_MAX

Results = list[dict[str, Any]]
FAILED_BEFORE = re.compile(r"#(?:N/A|(?:DIV/0|VALUE|REF|NUM|NULL)!|NAME\?|[*#.\s]*)")
PRESSURE_IN_MMHG = re.compile(r"[0-9 ]+/[0-9 ]+mm\s?Hg", re.IGNORECASE)
AGE_BEFORE = re.compile(r"([0-9]{1,3})\s*(?:a|y|yrs?|years?)?", re.IGNORECASE)


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
