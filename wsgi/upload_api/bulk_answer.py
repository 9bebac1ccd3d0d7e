"""The answer to an upload: a result for each record, of bounded length."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from myhealth.intake.formats.format import Dump
from myhealth.intake.idempotency import Answer
from myhealth.intake.parsed_record import ParsedRecord
from myhealth.intake.results import ERASED, RecordResult, counts
from myhealth.reports.documents import encode_json
from wsgi.common.application import error_body

UNKNOWN_USER = "User does not exist!"
# The bytes of all items. The shortest item has 51, so the items of 100,000 records fit.
ITEMS_MAX_BYTES = 5_200_000
DETAILS_MAX_BYTES = 2_500_000  # the items with errors or warnings among them
REJECTED_FILE_MAX_BYTES = 2_000_000
PLAIN = b',"effect":"%s","errors":[],"rejection_id":null}'  # the rest of the item of a record without errors
ALREADY = "Every record that could be stored was stored already."
NO_RECORD = "There is no record in it."
NOTHING_WITHDRAWN = "What was to be withdrawn is not stored here."
NOT_LISTED = " The errors of {} more are not listed; `myhealth rejections` shows them, or send these alone."
NOT_IN_FILE = " {} more are not in refused_file."


class BulkAnswer:
    """Collect the results of an upload, batch by batch. `with_rejected`: answer with the rejected records too.

    All items have `index`, `status` and `id`. If all items together are too large, the last ones lack the other names;
    items of accepted and duplicate records lose them first.
    """

    def __init__(self, dump: Dump, with_rejected: bool) -> None:
        self.dump = dump
        self._with_rejected = with_rejected
        self.counts = counts([])
        self._short: list[bytes] = []
        self._effects: list[bytes] = []
        self._detailed: dict[int, bytes] = {}
        self._details_bytes = 0
        self._first: RecordResult | None = None
        self._unknown = 0  # withdrawals of what is not stored
        self._file: list[bytes] = []
        self._file_bytes = self._not_in_file = 0

    def add(self, parsed: Sequence[ParsedRecord], results: Sequence[RecordResult]) -> None:
        """Add a batch."""
        for record, result in zip(parsed, results, strict=True):
            self._first = self._first or result
            self.counts[result.status] += 1
            short = {"index": result.index, "status": result.status, "id": result.id}
            self._short.append(encode_json(short))
            self._effects.append(result.effect.encode())
            if result.errors or result.warnings:
                self._unknown += any(warning.get("code") == "not_stored" for warning in result.warnings)
                self._add_detailed(record, result)
            if result.errors and self._with_rejected:
                self._add_rejected(record)

    def _add_detailed(self, record: ParsedRecord, result: RecordResult) -> None:
        if self._details_bytes < DETAILS_MAX_BYTES:
            encoded = encode_json(item_of(record, result))
            self._details_bytes += len(encoded)
            self._detailed[len(self._short) - 1] = encoded

    def _add_rejected(self, record: ParsedRecord) -> None:
        raw = self.dump.format.write_rejected(self.dump).encode(record)
        size = len(encode_json(raw.decode("utf-8", "replace")))
        if self._file_bytes + size > REJECTED_FILE_MAX_BYTES:
            self._not_in_file += 1
        else:
            self._file_bytes += size
            self._file.append(raw)

    def finish(self) -> Answer:
        """Return the answer, as JSON, without the rejected records."""
        if (
            self.dump.format.is_single
            and self._first
            and any(error.get("code") == "unknown_user" for error in self._first.errors)
        ):
            # not an exception: under an Idempotency-Key it would roll back the storing of the rejected record
            body = error_body(UNKNOWN_USER, "unknown_user", self._first.errors)
            return Answer(404, body.decode(), lasting=False)
        found = self.counts
        if found["accepted"]:
            status, details = 201, "User checkup created…"
        elif found["rejected"] and not found["duplicate"]:
            status, details = 422, "No record was stored; each has its errors in items."
        elif not self._short:
            status, details = 200, NO_RECORD
        else:
            status, details = 200, NOTHING_WITHDRAWN if self._unknown == len(self._short) else ALREADY
        items, shortened = self._items()
        details += NOT_LISTED.format(shortened) if shortened else ""
        details += NOT_IN_FILE.format(self._not_in_file) if self._not_in_file else ""
        answer: dict[str, Any] = {"details": details, **found, "items": msgspec.Raw(items)}
        if self.dump.skipped:
            answer["skipped"] = dict(self.dump.skipped.most_common(100))
        if self.dump.notices:
            answer["notices"] = self.dump.notices[:100]
        return Answer(status, encode_json(answer).decode(), lasting=found["accepted"] > 0)

    def collect_rejected(self, records: Iterable[ParsedRecord], earlier: Answer) -> None:
        """Collect the rejected records of the same request as they came; those that were erased since are left out."""
        for record, item in zip(records, json.loads(earlier.body)["items"], strict=False):
            erased = any(error.get("code") == ERASED for error in item.get("errors", ()))
            if item["status"] == "rejected" and not erased:
                self._add_rejected(record)

    def with_file(self, answer: Answer) -> str:
        """Return the JSON of an answer with the rejected records, if they are wanted; they are not kept with it."""
        if not self._with_rejected or answer.status == 404:
            return answer.body
        layout = self.dump.format.write_rejected(self.dump)
        file = layout.before + layout.between.join(self._file) + layout.after if self._file else b""
        return f'{answer.body[:-1]},"refused_file":{encode_json(file.decode("utf-8", "replace")).decode()}}}'

    def _items(self) -> tuple[bytes, int]:
        """Return the list of all items, and the number of rejected ones without their errors."""
        items = self._short
        room = ITEMS_MAX_BYTES - sum(map(len, items)) - len(items)
        shortened = self.counts["rejected"]
        for place, encoded in self._detailed.items():
            room -= len(encoded) - len(items[place])
            if room < 0:
                break
            shortened -= b'"status":"rejected"' in encoded[:60]
            items[place] = encoded
        for place, short in enumerate(items if room > 0 else []):
            if place not in self._detailed and b'"rejected"' not in short:
                rest = PLAIN % self._effects[place]
                room -= len(rest)
                if room < 0:
                    break
                items[place] = short[:-1] + rest
        return b"[" + b",".join(items) + b"]", shortened


def item_of(parsed: ParsedRecord, result: RecordResult) -> dict[str, Any]:
    """Return the result of a record; with errors or warnings, also its place in the body and its record_id."""
    item: dict[str, Any] = {
        "index": result.index,
        "status": result.status,
        "id": result.id,
        "effect": result.effect,
        "errors": result.errors,
        "rejection_id": result.rejection_id,
    }
    if result.warnings:
        item["warnings"] = result.warnings
    if result.errors or result.warnings:
        record = parsed.decoded()
        record_id = record.get("record_id") if isinstance(record, dict) else None
        number = str(record_id)[:200] if type(record_id) in (str, int) else None
        item |= {"line": parsed.line, "record_id": number}
    return item
