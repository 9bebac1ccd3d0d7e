"""What machines sent and is no longer stored as it came: check-ups that were corrected or deleted here since.

Machines send their whole memory again and again. A record that comes as it first came is known again by a digest of
what it said; everything here works within the caller's transaction.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from myhealth.clinical.catalog import as_sent
from myhealth.intake.bulk_insert import CheckupRow, RecordKey, StoredCheckup, find_stored
from myhealth.intake.validation import Record

COMPARED = ("checkup_type", "checkup_report", "disease", "taken_by")
# The columns that `keep` needs, in its order.
COLUMNS = (
    "machine_id, record_id, id, patient_id, checkup_type, checkup_report, disease, taken_by, taken_at, results::text"
)
# What came first stays, however often it is corrected, and when it is deleted in the end.
KEEP = """
insert into superseded (machine_id, record_id, checkup_id, patient_id, digest, taken_at, deleted)
values (%s, %s, %s, %s, %s, %s, %s)
on conflict (checkup_id) do update set deleted = true, at = now() where excluded.deleted"""
ANY_DELETED = "select exists (select from superseded where deleted and coalesce(machine_id, 0) = any(%s::bigint[]))"
FIND = """
select superseded.machine_id, superseded.record_id, checkup_id, digest, taken_at, deleted
from unnest(%s::bigint[], %s::text[]) as wanted (machine_id, record_id)
join superseded on coalesce(superseded.machine_id, 0) = wanted.machine_id
    and superseded.record_id = wanted.record_id"""


@dataclass(slots=True)
class OriginalFingerprint:
    """What came first under a (machine, record_id)."""

    checkup_id: int
    digest: bytes
    taken_at: datetime
    deleted: bool

    def is_same(self, row: CheckupRow) -> bool:
        """Whether the row says what came first; a moment that was not sent does not differ."""
        if row.record.taken_at is not None and row.record.taken_at != self.taken_at:
            return False
        return _digest(row.patient_id, row.record) == bytes(self.digest)


def remember_original(cursor: Any, columns: Sequence[Any], *, deleted: bool) -> None:
    """Keeps by what a check-up is known again as it came, given COLUMNS of its row before it is changed or deleted. One
    without a number is none that could be known again."""
    machine_id, record_id, *rest = columns
    if record_id is None:
        return
    stored = StoredCheckup(*rest)
    digest = _digest(stored.patient_id, stored)
    cursor.execute(KEEP, (machine_id, record_id, stored.id, stored.patient_id, digest, stored.taken_at, deleted))


def find_originals(cursor: Any, keys: Iterable[RecordKey]) -> dict[RecordKey, list[OriginalFingerprint]]:
    """What came first under each of these keys and was corrected or deleted since."""
    wanted = {key for key in keys if key[1] is not None}
    cursor.execute(FIND, ([machine_id or 0 for machine_id, _ in wanted], [record_id for _, record_id in wanted]))
    found: dict[RecordKey, list[OriginalFingerprint]] = {}
    for machine_id, record_id, *rest in cursor.fetchall():
        found.setdefault((machine_id, record_id), []).append(OriginalFingerprint(*rest))
    return found


def find_deleted(cursor: Any, rows: Sequence[CheckupRow]) -> dict[RecordKey, list[OriginalFingerprint]]:
    """Those of the rows' records that were deleted here, also where they are stored again."""
    cursor.execute(ANY_DELETED, ([*{row.machine_id or 0 for row in rows}],))
    if not cursor.fetchone()[0]:  # as nearly always: nothing is to be asked of each record
        return {}
    found = find_originals(cursor, (row.key for row in rows))
    gone = {key: [first for first in kept if first.deleted] for key, kept in found.items()}
    return {key: kept for key, kept in gone.items() if kept}


def find_deleted_originals(cursor: Any, rows: Sequence[CheckupRow]) -> dict[RecordKey, list[OriginalFingerprint]]:
    """Those of the rows' records that were deleted here and are not stored."""
    deleted = find_deleted(cursor, rows)
    again = find_stored(cursor, deleted) if deleted else {}
    return {key: kept for key, kept in deleted.items() if key not in again}


def same_results(stored: str, sent: str) -> bool:
    """Whether the machine sent the same, whatever the catalogue of the day made of it."""
    return _results(stored) == _results(sent)


def _digest(patient_id: int, said: Record | StoredCheckup) -> bytes:
    """What a check-up says, but for its moment, in 32 bytes."""
    texts = [getattr(said, name) for name in COMPARED]
    content = json.dumps([patient_id, *texts, _results(said.results)], sort_keys=True)
    return hashlib.sha256(content.encode()).digest()


def _results(text: str) -> list[Any]:
    """Results as they were sent, as far as that is known, with numbers by their digits."""
    found = json.loads(text, parse_float=_digits, parse_int=_digits)
    return [as_sent(result) if isinstance(result, dict) else result for result in found]


def _digits(text: str) -> str:
    """A number by its digits, as jsonb writes them: 5.10 is not 5.1, but 1E5 is 100000."""
    written = format(Decimal(text), "f")
    return written.lstrip("-") if not Decimal(text) else written
