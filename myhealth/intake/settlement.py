"""Settle records whose number is stored with other content: replace, withdraw, keep or reject.

All functions work within the transaction that stores the batch. SQL is raw where it works on sets.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from myhealth.checkups.models import CHANGEABLE, JSON_NAMES, Checkup, select_fields
from myhealth.checkups.services import CORRECTED, Change, change_checkups, find_versions
from myhealth.clinical.coding_systems import OUR_REPORT
from myhealth.clinical.status import WITHDRAWN
from myhealth.intake.content import (
    UNKNOWN,
    Content,
    is_known_before,
    is_other_sample,
    keyed,
    results_in,
    sample_of,
)
from myhealth.intake.insert import STORED_NAMES, StoredRow, find_stored
from myhealth.intake.members import merge_part
from myhealth.intake.merge import Merge, compare_versions, merge
from myhealth.intake.models import Original
from myhealth.intake.originals import OriginalFingerprint, differing_columns, find_originals
from myhealth.intake.record import decode_json, encode_json
from myhealth.intake.result_facts import SUPERSEDED
from myhealth.intake.results import Pending, RecordKey

# In the order in which records are inserted, so that two uploads of the same records never wait for each other.
LOCK = """
select id from checkups where id = any(%s) order by coalesce(machine_id, 0), record_id collate "C" for update"""
# Check-ups of these formats that were stored before have fewer facts: earlier readers kept fewer (migration 16).
UPGRADED = "select fuller_readers_since()"
BY_RESULT = ("fhir", "hl7")
PARTIAL = "hl7"
# The number of a record of our own export: the check-up's id.
EXPORTED = re.compile(re.escape(OUR_REPORT) + r"\|([0-9]{1,18})(?:#|$)")
OTHER_CONTENT = "is stored with other content"
DIFFERS = (OTHER_CONTENT, "stored_with_other_content")
MOMENTS = ("taken_at", "taken_until", "issued_at")


class Unsettled(NamedTuple):
    """Why a record is rejected. `places`: the fields that differ, the first one the error's."""

    message: str
    code: str
    places: list[str]


CORRECTED_HERE = Unsettled("was corrected here, and its source has another version", "corrected_here", ["record_id"])


class Settlement:
    """The stored check-ups of records that differ from them, locked, and the effect of the records on them.

    `settle` notes the changes, and `store_changes` stores them all; `stored` and `versions` have them at once."""

    def __init__(self, cursor: Any, rows: Sequence[Pending], stored: dict[RecordKey, StoredRow], format_: str) -> None:
        self.format = format_
        cursor.execute(LOCK, ([stored[row.key]["id"] for row in rows],))
        keys = {row.key for row in rows}
        self.stored = find_stored(cursor, keys)
        self.originals = find_originals(cursor, keys)
        self.versions = find_contents(cursor, (each["id"] for each in self.stored.values()))
        self._changes: dict[int, Change] = {}
        cursor.execute(UPGRADED)
        self.upgraded_at: datetime = cursor.fetchone()[0]

    def is_other_sample(self, row: Pending) -> bool:
        """Return whether an analyser used the record's number for another sample before."""
        stored = self.stored[row.key]
        if self.format != PARTIAL or self._is_known_before(row, stored):
            return False
        same_patient = row.patient_id == stored["patient_id"]
        versions = (content for _, content in self.versions.get(stored["id"], ()))
        held, sent = (content_of_row(stored), *versions), content_of(row, stored)
        return all(is_other_sample(each, sent, same_patient=same_patient) for each in held)

    def settle(self, row: Pending) -> Merge | Unsettled:
        """Change the stored check-up as the record demands. Return what was done, or why the record is rejected."""
        stored = self.stored[row.key]
        ours, theirs = content_of_row(stored), content_of(row, stored)
        if row.record.all_results:
            theirs = _with_all_results(row, ours, theirs)
        if row.patient_id != stored["patient_id"]:
            return Unsettled(*DIFFERS, differing_columns(row, stored))
        if row.part is None and (self._came_first(row, stored, theirs) or self._is_known_before(row, stored)):
            return Merge(ours)
        versions = self.versions.get(stored["id"], ())
        said, corrected = as_source_said(ours, versions)
        corrected = corrected or any(first.checkup_id == stored["id"] for first in self.originals.get(row.key, ()))
        by_result = self.format in BY_RESULT
        legacy = self._is_legacy(stored["created_at"])
        if row.part is not None:
            done = merge_part(said, row.part, legacy=legacy)
        else:
            earlier = [content for _, content in versions]
            partial = self.format == PARTIAL
            done = merge(said, theirs, by_result=by_result, partial=partial, legacy=legacy, earlier=earlier)
        if not done.effect:
            return Unsettled(*DIFFERS, done.places)
        if done.effect != "none" and corrected:
            return CORRECTED_HERE
        if done.effect != "none":
            self._note_change(row, stored, done)
        return done

    def _note_change(self, row: Pending, stored: StoredRow, done: Merge) -> None:
        if stored["id"] in self._changes:  # each version is kept
            self.store_changes()
        values = {name: done.content[name] for name in CHANGEABLE}
        values |= {name: encoded(values[name]) for name in JSON_NAMES & values.keys()}
        changed = {name: value for name, value in values.items() if value != stored[name]}
        self._changes[stored["id"]] = Change(stored["id"], row.patient_id, done.effect, changed)
        self.versions.setdefault(stored["id"], []).append((done.effect, content_of_row(stored)))
        self.stored[row.key] = {**stored, **values}

    def store_changes(self) -> None:
        if self._changes:
            change_checkups([*self._changes.values()], by="its source")
            self._changes = {}

    def _came_first(self, row: Pending, stored: StoredRow, theirs: Content) -> bool:
        """Return whether the record has the content that the check-up had before it was corrected."""
        originals = [each for each in self.originals.get(row.key, ()) if each.checkup_id == stored["id"]]
        if any(first.is_same(row) for first in originals):
            return True
        # a digest of content that an earlier release read proves no difference
        is_legacy = any(self._is_legacy(first.at) for first in originals)
        return is_legacy and compare_versions(theirs, content_of_row(stored)) <= 0

    def _is_legacy(self, at: datetime) -> bool:
        """Return whether an earlier release, whose readers kept fewer facts, stored it at this moment."""
        return self.format in BY_RESULT and at < self.upgraded_at

    def _is_known_before(self, row: Pending, stored: StoredRow) -> bool:
        if not self._is_legacy(stored["created_at"]) or row.patient_id != stored["patient_id"]:
            return False
        theirs, ours = content_of(row, stored), content_of_row(stored)
        return compare_versions(theirs, ours) <= 0 and is_known_before(ours, theirs)


def find_exported(cursor: Any, rows: Sequence[Pending]) -> dict[int, int | None]:
    """Return, by the ids of the rows, the ids of the check-ups from which our own export made the records; None for a
    check-up that was deleted here.

    Another installation may have given the number to another check-up: patient, moment and values must be those of the
    check-up or of an earlier version of it.
    """
    ours = [row for row in rows if (row.record.record_id or "").startswith(OUR_REPORT)]
    numbers = {row.id: int(match[1]) for row in ours if (match := EXPORTED.match(row.record.record_id or ""))}
    if not numbers:
        return {}
    query = Checkup.select(*select_fields(STORED_NAMES)).where(Checkup.id.in_(list(numbers.values())))
    stored: dict[int, StoredRow] = {each["id"]: each for each in query.dicts()}  # type: ignore[index, misc]
    gone = Original.select().where(Original.deleted, Original.checkup_id.in_(list(numbers.values())))
    deleted: dict[int, Any] = {each.checkup_id: each for each in gone}
    versions = find_contents(cursor, stored)
    found: dict[int, int | None] = {}
    for row in ours:
        number, sent = numbers.get(row.id, 0), content_of(row, None)
        held, original = stored.get(number), deleted.get(number)
        if held is not None and held["patient_id"] == row.patient_id:
            known = [content_of_row(held), *(each for _, each in versions.get(number, ()))]
            known = [each | {"taken_at": _to_millisecond(each["taken_at"])} for each in known]
            if any(is_known_before(each, sent) for each in known):
                found[row.id] = number
        elif (
            original is not None
            and original.patient_id == row.patient_id
            and sent["taken_at"] in (None, _to_millisecond(original.taken_at))
        ):
            found[row.id] = None
    return found


def _to_millisecond(moment: datetime) -> datetime:
    """Return a moment as MongoDB keeps it."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def was_deleted(cursor: Any, row: Pending, deleted: Sequence[OriginalFingerprint], format_: str) -> bool:
    """Return whether the record is that of a check-up which was deleted here, or its source's withdrawal."""
    if row.record.status == WITHDRAWN or any(first.is_same(row) for first in deleted):
        return True
    if format_ not in BY_RESULT:
        return False
    cursor.execute(UPGRADED)
    (upgraded_at,) = cursor.fetchone()
    moment = row.record.taken_at if row.record.taken_precision != UNKNOWN else None
    return any(first.at < upgraded_at and moment in (None, first.taken_at) for first in deleted)


def other_number(row: Pending) -> str:
    """Return the number of a record whose own number is that of another sample."""
    return f"{row.record.record_id}~{sample_of(content_of(row, None), row.patient_id)}"


def _with_all_results(row: Pending, stored: Content, sent: Content) -> Content:
    """Return a content with each of its results, if as many are stored: then none replaces another one."""
    results = decode_json(row.record.all_results)
    held, all_sent = (Counter(key[0] for key, _ in keyed(each)) for each in (results_in(stored), results))
    if all_sent - held:
        return sent
    row.result.warnings = [each for each in row.result.warnings if each.get("code") != SUPERSEDED]
    return {**sent, "results": results}


def as_source_said(current: Content, versions: Sequence[tuple[str, Content]]) -> tuple[Content, bool]:
    """Return the content that the source sent last, and whether a person corrected it since."""
    said, corrected = current, False
    for reason, content in reversed(versions):
        if reason != CORRECTED:
            break
        said, corrected = content, True
    return said, corrected


def content_of_row(row: StoredRow) -> Content:
    """Return the columns of a stored check-up, JSON decoded."""
    found = {name: row[name] for name in CHANGEABLE}
    found |= {name: row[name] and decode_json(row[name]) for name in JSON_NAMES}
    return {**found, "record_id": row.get("record_id")}


def content_of(row: Pending, stored: StoredRow | None) -> Content:
    """Return the columns of a record. A moment that the record lacks is taken from the stored row."""
    record = row.record
    found = content_of_row({name: getattr(record, name) for name in (*CHANGEABLE, "record_id")})
    if record.taken_at is None and stored is not None:
        found |= {name: stored[name] for name in ("taken_at", "taken_precision")}
    return found


def find_contents(cursor: Any, checkup_ids: Iterable[int]) -> dict[int, list[tuple[str, Content]]]:
    """Return by check-up the (reason, columns) of its earlier versions, the oldest first."""
    versions = find_versions(cursor, checkup_ids)
    return {id_: [(reason, _decoded(text)) for reason, text in found] for id_, found in versions.items()}


def _decoded(text: str) -> Content:
    found = decode_json(text)
    moments = {name: datetime.fromisoformat(found[name]) for name in MOMENTS if found.get(name) is not None}
    return {name: moments.get(name, found.get(name)) for name in (*CHANGEABLE, "record_id")}


def encoded(value: Any) -> str | None:
    return None if value is None else encode_json(value).decode()
