"""What has come before in one source: kept in a temporary file, so that memory does not grow with the source."""

import hashlib
import re
import sqlite3
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

import msgspec
from msgspec.structs import astuple

from myhealth.clinical.catalog import first_findings
from myhealth.intake.record import Result

# Text whose results had to be written anew, as `results_as_sent` judges it.
FIRST_FIELDS = 7
NO_OTHERS = (None,) * (len(Result.__struct_fields__) - FIRST_FIELDS)
MANY_DIGITS = re.compile(r"[0-9.eE+-]{18}")
SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


class Occurrences:
    """Names contents by a digest and the number of times that they have come; of many, the digests are on disk."""

    def __init__(self) -> None:
        self._opened: sqlite3.Connection | None = None

    @property
    def _database(self) -> sqlite3.Connection:
        if self._opened is None:  # opened by the thread that uses it, if any does
            self._opened = sqlite3.connect("", isolation_level=None)
            self._opened.execute("create table counts (digest text primary key, n integer) without rowid")
        return self._opened

    def name(self, content: str) -> str:
        digest = hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:40]
        row = self._database.execute(
            "insert into counts values (?, 1) on conflict do update set n = n + 1 returning n", (digest,)
        ).fetchone()
        return f"sha256:{digest}:{row[0]}"


class _ResultsText(msgspec.Struct):
    results: msgspec.Raw = msgspec.Raw(b"[]")


_decode_results_text = msgspec.json.Decoder(_ResultsText).decode


def results_as_sent(results: Sequence[Result], findings: Iterable[tuple[int, Any]], raw: str) -> str:
    """Return the text of a record's results if they are stored as they came, else "".

    The number of a record that has none is derived from this text. The rule must not change: with another number, a
    dump that is imported again would be stored twice. `results`: complete as sent; `findings`: what the catalogue finds
    in them, by index. `raw`: the record's text.
    """
    broken = False
    for result in results:
        code, value, unit = result.code, result.value, result.unit
        numbers = (value, result.low, result.high)
        fraction = any(isinstance(number, float | Decimal) for number in numbers)
        if (fraction and 0 in numbers) or astuple(result)[FIRST_FIELDS:] != NO_OTHERS:
            return ""
        if type(value) is str and first_findings(code, value, unit, None, None, None, None):
            return ""
        broken = broken or fraction
    for place, _ in findings:
        found = results[place]
        if first_findings(found.code, found.value, found.unit, found.low, found.high, found.flag, None):
            return ""
    if (broken and MANY_DIGITS.search(raw)) or ("\\" in raw and SURROGATE_ESCAPE.search(raw)):
        return ""
    return str(_decode_results_text(raw).results, "utf-8")
