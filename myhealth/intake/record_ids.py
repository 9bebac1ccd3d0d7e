"""What has come before in one source: kept in a temporary file, so that memory does not grow with the source."""

import hashlib
import re
import sqlite3
from decimal import Decimal

import msgspec

from myhealth.clinical.catalog import first_findings
from myhealth.intake.parsed_record import DECODER
from myhealth.intake.record import NUMBERS, Result

# Text whose results had to be written anew, as `results_as_sent` judges it.
FIRST_FIELDS = frozenset(Result.__struct_fields__[:7])
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


def results_as_sent(raw: str, stored: str) -> str:
    """Return the text of a record's results if they are stored as they came, else "".

    The number of a record that has none is derived from this text. The rule must not change: with another number, a
    dump that is imported again would be stored twice.
    """
    sent = str(_decode_results_text(raw).results, "utf-8")
    results = DECODER.decode(sent)
    if results is None:
        return ""
    broken = False
    for result in results:
        numbers = [result.get(name) for name in NUMBERS]
        fraction = any(isinstance(number, (float, Decimal)) for number in numbers)
        if result.keys() != FIRST_FIELDS or (fraction and 0 in numbers):
            return ""
        value, unit = result["value"], result["unit"]
        if type(value) is str and first_findings(result["code"], value, unit, None, None, None, None):
            return ""
        broken = broken or fraction
    if results != DECODER.decode(stored) or (broken and MANY_DIGITS.search(raw)) or SURROGATE_ESCAPE.search(raw):
        return ""
    return sent
