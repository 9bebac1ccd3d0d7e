"""Digests of machine records whose check-up was corrected or deleted later.

Machines send their whole memory again and again. The digest recognises a record that comes again as it first came. SQL
is raw where it joins with arrays of keys. All functions work within the caller's transaction.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct
from peewee import EXCLUDED, SQL

from myhealth.checkups.models import CHANGEABLE, JSON_NAMES
from myhealth.clinical.catalog import as_sent
from myhealth.intake.content import ENVELOPE, TEMPORARY, digits, numbers_in
from myhealth.intake.insert import StoredRow, find_stored
from myhealth.intake.models import Original
from myhealth.intake.record import Record, decode_json
from myhealth.intake.results import Pending, RecordKey

# A record need not contain a moment: `taken_at` is stored beside the digest. JSON needs a comparison of its own.
MOMENT_NAMES = ("taken_at", "taken_precision")
COMPARED = tuple(name for name in CHANGEABLE if name not in MOMENT_NAMES and name not in JSON_NAMES)
# The columns of a check-up that `remember_original` needs.
ORIGINAL_NAMES = ("machine_id", "record_id", "id", "patient_id", *CHANGEABLE)
ANY_DELETED = """
select exists (select from superseded
    where deleted and patient_id is not null and coalesce(machine_id, 0) = any(%s::bigint[]))"""
FIND = """
select superseded.machine_id, superseded.record_id, checkup_id, digest, taken_at, deleted, at, patient_id
from unnest(%s::bigint[], %s::text[]) as wanted (machine_id, record_id)
join superseded on coalesce(superseded.machine_id, 0) = wanted.machine_id
    and superseded.record_id = wanted.record_id
where patient_id is not null"""
OF_PATIENTS = """
select machine_id, record_id, checkup_id, digest, taken_at, deleted, at, patient_id
from superseded where patient_id = any(%s)"""
FIND_AT = f"{OF_PATIENTS} and taken_at = any(%s)"
# Version 1 had no version byte: 32 bytes of SHA-256 over the values of these columns, in this order.
FIRST_VERSION_BYTES = 32
FIRST_VERSION_NAMES = ("checkup_type", "checkup_report", "disease", "taken_by")
VERSION = b"\x02"
_encode_sorted = msgspec.json.Encoder(decimal_format="number", order="deterministic").encode


class OriginalFingerprint(Struct):
    """The fingerprint of the record that was first received under a (machine, record_id)."""

    checkup_id: int
    digest: bytes
    taken_at: datetime
    deleted: bool
    at: datetime
    patient_id: int

    def is_same(self, row: Pending) -> bool:
        """Return whether the row has the content that first came. A moment that was not sent does not differ."""
        record = row.record
        if record.taken_at is not None and record.taken_at != self.taken_at:
            return False
        if row.has_content_of_number and row.patient_id == self.patient_id:
            return True
        return bytes(self.digest) in _digests(row, is_first=self.is_first)

    @property
    def is_first(self) -> bool:
        """Whether the digest is one of version 1."""
        return len(self.digest) == FIRST_VERSION_BYTES


def _digests(row: Pending, *, is_first: bool) -> Iterator[bytes]:
    """Yield the digests that the row's content may have had. `is_first`: of version 1."""
    content = {name: getattr(row.record, name) for name in CHANGEABLE}
    # earlier releases did not read a range in words
    forms = [content, {**content, "results": row.record.results_as_sent or row.record.results}]
    if former := row.item.former:
        forms.append({name: getattr(former, name) for name in CHANGEABLE})
    forms.append(_lasting(content))
    digest = first_digest if is_first else content_digest
    return (digest(row.patient_id, form) for form in forms)


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
        digest=content_digest(row["patient_id"], _lasting(row)),
        taken_at=row["taken_at"],
        deleted=deleted,
        numbers=_numbers_in(row) if deleted else None,
    ).on_conflict(
        conflict_target=[Original.checkup_id],
        update={Original.deleted: True, Original.at: SQL("now()"), Original.numbers: EXCLUDED.numbers},
        where=EXCLUDED.deleted,
    ).execute()


def _numbers_in(row: Mapping[str, Any]) -> list[str]:
    """Return the numbers of the FHIR resources in a check-up."""
    decoded = {name: decode_json(row[name] or "null") for name in ("results", "details")}
    return sorted({str(row["record_id"]), *numbers_in({**decoded, "record_id": row["record_id"]})})


def find_originals(cursor: Any, keys: Iterable[RecordKey]) -> dict[RecordKey, list[OriginalFingerprint]]:
    """Return the originals of each key whose check-up was corrected or deleted since."""
    wanted = {key for key in keys if key[1] is not None}
    cursor.execute(FIND, ([machine_id or 0 for machine_id, _ in wanted], [record_id for _, record_id in wanted]))
    found: dict[RecordKey, list[OriginalFingerprint]] = {}
    for machine_id, record_id, *rest in cursor.fetchall():
        found.setdefault((machine_id, record_id), []).append(OriginalFingerprint(*rest))
    return found


def find_originals_at(cursor: Any, rows: Sequence[Pending]) -> dict[int, str]:
    """Return by the rows' ids the number of the check-up that had their content before it was corrected or deleted
    here. `rows`: all have a moment."""
    cursor.execute(FIND_AT, ([*{row.patient_id for row in rows}], [*{row.record.taken_at for row in rows}]))
    found = {}
    kinds = set()
    for machine_id, name, *rest in cursor.fetchall():
        first = OriginalFingerprint(*rest)
        kinds.add(first.is_first)
        found[machine_id, first.taken_at, bytes(first.digest)] = name
    keys = (
        (row.id, (row.machine_id, row.record.taken_at, digest))
        for row in (rows if found else ())
        for is_first in kinds
        for digest in _digests(row, is_first=is_first)
    )
    return {id_: found[key] for id_, key in keys if key in found}


def find_deleted(cursor: Any, rows: Sequence[Pending]) -> dict[RecordKey, list[OriginalFingerprint]]:
    """Return the originals of the rows whose check-up was deleted, including those that are stored again."""
    cursor.execute(ANY_DELETED, ([*{row.machine_id or 0 for row in rows}],))
    if not cursor.fetchone()[0]:  # the usual case: no look-up for each record
        return {}
    found = find_originals(cursor, (row.key for row in rows))
    gone = {key: [first for first in originals if first.deleted] for key, originals in found.items()}
    return {key: originals for key, originals in gone.items() if originals}


def find_deleted_of(cursor: Any, patient_ids: Collection[int]) -> list[tuple[RecordKey, OriginalFingerprint]]:
    """Return the originals of all deleted check-ups of these patients, with their keys."""
    cursor.execute(f"{OF_PATIENTS} and deleted order by checkup_id", ([*patient_ids],))
    return [((machine_id, name), OriginalFingerprint(*rest)) for machine_id, name, *rest in cursor.fetchall()]


def find_deleted_originals(cursor: Any, rows: Sequence[Pending]) -> dict[RecordKey, list[OriginalFingerprint]]:
    """Return the originals of the rows whose check-up was deleted and is not stored again."""
    deleted = find_deleted(cursor, rows)
    again = find_stored(cursor, deleted) if deleted else {}
    return {key: originals for key, originals in deleted.items() if key not in again}


def differing_columns(row: Pending, stored: StoredRow) -> list[str]:
    """Return the fields in which a record differs from the check-up stored under its number. A moment that was not
    sent does not differ; results are compared as they were sent."""
    if row.has_content_of_number and row.patient_id == stored["patient_id"]:
        return []
    found = _differing(row, row.record, stored)
    former = row.item.former
    return [] if found and former is not None and not _differing(row, former, stored) else found


def _differing(row: Pending, record: Record, stored: StoredRow) -> list[str]:
    differing = [] if row.patient_id == stored["patient_id"] else ["checkup_for"]
    differing += [name for name in COMPARED if getattr(record, name) != stored[name]]
    if record.taken_at is not None:
        differing += [name for name in MOMENT_NAMES if getattr(record, name) != stored[name]]
    return differing + [name for name in JSON_NAMES if _json_differs(name, getattr(record, name), stored[name])]


def _json_differs(name: str, sent: str | None, stored: str | None) -> bool:
    if sent == stored or sent is None or stored is None:
        return sent != stored
    if _encode_sorted(decode_json(sent)) == _encode_sorted(decode_json(stored)):  # nearly all, and ten times quicker
        return False
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


def _lasting(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a content with one address in place of temporary ones."""
    return {
        name: TEMPORARY.sub("urn:uuid:", value) if name in JSON_NAMES and value else value
        for name, value in content.items()
    }


def first_digest(patient_id: int, content: Mapping[str, Any]) -> bytes:
    """Return the digest of version 1, which releases before migration 9 stored. Return an empty digest for content with
    a column that version 1 does not know: such content differs from every digest of it."""
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
    return json.loads(text, parse_float=digits, parse_int=digits)
