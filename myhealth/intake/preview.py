"""Show in a few lines what an import of a table would store."""

import re
from typing import Any

from myhealth.common.text import printable
from myhealth.intake.parsed_record import ParsedRecord
from myhealth.intake.results import RecordResult

PREVIEWED = 10
MOMENT = re.compile(r"(.{10})T(.{5})(?::[0-9.]*)?([+-].*|Z)")
COLUMNS = ("line", "outcome", "patient", "taken", "results")


def preview_row(parsed: ParsedRecord, result: RecordResult) -> list[str]:
    """Return the cells of COLUMNS for one record; of a rejected one the reasons instead of the results."""
    found = parsed.decoded()
    record: dict[str, Any] = found if isinstance(found, dict) else {}
    taken = str(record.get("taken_at") or "")[: 10 if record.get("taken_precision") == "day" else None]
    if match := MOMENT.fullmatch(taken):
        taken = " ".join(match.groups())
    words = [_in_words(each) for each in record.get("results") or ()] or [record.get("checkup_report") or ""]
    if result.errors:
        words = [": ".join(filter(None, (each["field"], each["message"]))) for each in result.errors]
    cells = (parsed.line, result.status, record.get("checkup_for") or "", taken, "; ".join(words))
    return [printable(str(cell)) for cell in cells]


def _in_words(result: dict[str, Any]) -> str:
    code = result.get("code") or result.get("other_code")
    words = " ".join(str(each) for each in (result["name"], result["value"], result.get("unit")) if each is not None)
    return f"{words} ({code})" if code else words
