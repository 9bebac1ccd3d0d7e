"""Digests of machine records whose check-up was corrected or deleted later.

Machines send their whole memory again and again. The digest recognises a record that comes again as it first came. SQL
is raw where it joins with arrays of keys. All functions work within the caller's transaction.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from msgspec import Struct
from peewee import EXCLUDED, SQL

from myhealth.checkups.models import CHANGEABLE, JSON_NAMES
from myhealth.clinical.catalog import as_sent
from myhealth.intake.bulk_insert import StoredRow, find_stored
from myhealth.intake.content import ENVELOPE
from myhealth.intake.models import Original
from myhealth.intake.results import Pending, RecordKey

# A record need not contain a moment: `taken_at` is stored beside the digest. JSON needs a comparison of its own.
MOMENT_NAMES = ("taken_at", "taken_precision")
COMPARED = tuple(name for name in CHANGEABLE if name not in MOMENT_NAMES and name not in JSON_NAMES)
# The columns of a check-up that `remember_original` needs.
ORIGINAL_NAMES = ("machine_id", "record_id", "id", "patient_id", *CHANGEABLE)
ANY_DELETED = "select exists (select from superseded where deleted and coalesce(machine_id, 0) = any(%s::bigint[]))"
FIND = """
select superseded.machine_id, superseded.record_id, checkup_id, digest, taken_at, deleted, at
from unnest(%s::bigint[], %s::text[]) as wanted (machine_id, record_id)
join superseded on coalesce(superseded.machine_id, 0) = wanted.machine_id
    and superseded.record_id = wanted.record_id"""
# Version 1 had no version byte: 32 bytes of SHA-256 over the values of these columns, in this order.
FIRST_VERSION_BYTES = 32
FIRST_VERSION_NAMES = ("checkup_type", "checkup_report", "disease", "taken_by")
VERSION = b"\x02"


class OriginalFingerprint(Struct):
    """The fingerprint of the record that was first received under a (machine, record_id)."""

    checkup_id: int
    digest: bytes
    taken_at: datetime
    deleted: bool
    at: datetime

    def is_same(self, row: Pending) -> bool:
        """Return whether the row has the content that first came. A moment that was not sent does not differ."""
        record = row.record
        if record.taken_at is not None and record.taken_at != self.taken_at:
            return False
        stored = bytes(self.digest)
        content = {name: getattr(record, name) for name in CHANGEABLE}
        digest = first_digest if len(stored) == FIRST_VERSION_BYTES else content_digest
        # earlier releases did not read a range in words
        forms = [content, {**content, "results": record.results_as_sent or record.results}]
        return any(stored == digest(row.patient_id, form) for form in forms)


def remember_original(row: Mapping[str, Any], *, deleted: bool) -> None:
    """Store a digest of a check-up as it first came. `row`: its ORIGINAL_NAMES before it is changed or deleted, JSON
    as text. A row without a record_id is skipped: a resend could not be matched. The first digest remains through later
    corrections and a deletion."""
    if row["record_id"] is None:
        return
    Original.insert(
        checkup_id=row["id"],
        patient=row["patient_id"],
        machine=row["machine_id"],
        record_id=row["record_id"],
        digest=content_digest(row["patient_id"], row),
        taken_at=row["taken_at"],
        deleted=deleted,
    ).on_conflict(
        conflict_target=[Original.checkup_id],
        update={Original.deleted: True, Original.at: SQL("now()")},
        where=EXCLUDED.deleted,
    ).execute()


def find_originals(cursor: Any, keys: Iterable[RecordKey]) -> dict[RecordKey, list[OriginalFingerprint]]:
    """Return the originals of each key whose check-up was corrected or deleted since."""
    wanted = {key for key in keys if key[1] is not None}
    cursor.execute(FIND, ([machine_id or 0 for machine_id, _ in wanted], [record_id for _, record_id in wanted]))
    found: dict[RecordKey, list[OriginalFingerprint]] = {}
    for machine_id, record_id, *rest in cursor.fetchall():
        found.setdefault((machine_id, record_id), []).append(OriginalFingerprint(*rest))
    return found


def find_deleted(cursor: Any, rows: Sequence[Pending]) -> dict[RecordKey, list[OriginalFingerprint]]:
    """Return the originals of the rows whose check-up was deleted, including those that are stored again."""
    cursor.execute(ANY_DELETED, ([*{row.machine_id or 0 for row in rows}],))
    if not cursor.fetchone()[0]:  # the usual case: no look-up for each record
        return {}
    found = find_originals(cursor, (row.key for row in rows))
    gone = {key: [first for first in originals if first.deleted] for key, originals in found.items()}
    return {key: originals for key, originals in gone.items() if originals}


def find_deleted_originals(cursor: Any, rows: Sequence[Pending]) -> dict[RecordKey, list[OriginalFingerprint]]:
    """Return the originals of the rows whose check-up was deleted and is not stored again."""
    deleted = find_deleted(cursor, rows)
    again = find_stored(cursor, deleted) if deleted else {}
    return {key: originals for key, originals in deleted.items() if key not in again}


def differing_columns(row: Pending, stored: StoredRow) -> list[str]:
    """Return the fields in which a record differs from the check-up stored under its number. A moment that was not
    sent does not differ; results are compared as they were sent."""
    record = row.record
    differing = [] if row.patient_id == stored["patient_id"] else ["checkup_for"]
    differing += [name for name in COMPARED if getattr(record, name) != stored[name]]
    if record.taken_at is not None:
        differing += [name for name in MOMENT_NAMES if getattr(record, name) != stored[name]]
    return differing + [name for name in JSON_NAMES if _json_differs(name, getattr(record, name), stored[name])]


def _json_differs(name: str, sent: str | None, stored: str | None) -> bool:
    if sent == stored or sent is None or stored is None:
        return sent != stored
    return bool(_comparable(name, sent) != _comparable(name, stored))


def content_digest(patient_id: int, content: Mapping[str, Any]) -> bytes:
    """Return a version byte and the SHA-256 of a check-up's content by column name, without its moment.

    The source's version and moments of sending are left out: they make no other content.
    Columns without a value are left out, so a new column does not change the digests of records that lack it.
    `content`: the values of the columns CHANGEABLE by name; JSON as text.
    """
    named: dict[str, Any] = {"patient_id": patient_id}
    for name, value in content.items():
        if name in CHANGEABLE and name not in MOMENT_NAMES and value is not None:
            named[name] = _comparable(name, value) if name in JSON_NAMES else _plain(value)
    named.pop("issued_at", None)
    details = {name: value for name, value in (named.pop("details", None) or {}).items() if name not in ENVELOPE}
    if details:
        named["details"] = details
    return VERSION + _sha256(named)


def first_digest(patient_id: int, content: Mapping[str, Any]) -> bytes:
    """Return the digest of version 1, which releases before migration 9 stored. It knows no other columns, so content
    that has one differs from every such digest: then return an empty digest."""
    known = {*FIRST_VERSION_NAMES, *MOMENT_NAMES, "results"}
    if any(value is not None for name, value in content.items() if name not in known):
        return b""
    return _sha256([patient_id, *(content[name] for name in FIRST_VERSION_NAMES), _results(content["results"])])


def _sha256(content: Any) -> bytes:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).digest()


def _plain(value: Any) -> Any:
    """Return a moment as text that its zone does not change, anything else as it is."""
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value


def _comparable(name: str, text: str) -> Any:
    return _results(text) if name == "results" else _exact_json(text)


def _results(text: str) -> list[Any]:
    """Return results as the machine sent them: without the additions of the catalogue, as far as they are known, and
    without the versions of the source."""
    found = [as_sent(each) if isinstance(each, dict) else each for each in _exact_json(text)]
    for each in found:
        if isinstance(each, dict):
            each.pop("version", None)
    return found


def _exact_json(text: str) -> Any:
    return json.loads(text, parse_float=_digits, parse_int=_digits)


def _digits(text: str) -> str:
    """Return a number by its digits, as jsonb writes them: 5.10 is not 5.1, but 1E5 is 100000."""
    written = format(Decimal(text), "f")
    return written.lstrip("-") if not Decimal(text) else written
