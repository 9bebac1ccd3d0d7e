"""Store one batch of validated records within the caller's transaction, and explain the result of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg2.errors

from myhealth.audit.events import record_events
from myhealth.clinical.status import WITHDRAWN
from myhealth.common.text import UNSTORABLE
from myhealth.intake.bulk_insert import (
    COPY_FROM_ROWS,
    CheckupRow,
    RecordKey,
    StoredRow,
    advance_id_sequence,
    copy_text,
    find_by_number,
    find_stored,
    new_ids,
    store_rows,
)
from myhealth.intake.deletions import find_meant
from myhealth.intake.merge import Merge
from myhealth.intake.originals import (
    OriginalFingerprint,
    differing_columns,
    find_deleted,
    find_deleted_originals,
)
from myhealth.intake.parsed_record import ParsedRecord, named_in
from myhealth.intake.patients import Patients, Refusal
from myhealth.intake.person_ranges import fit_to_person
from myhealth.intake.record import Record
from myhealth.intake.record_ids import Occurrences
from myhealth.intake.rejections import Quota, RejectedRecord, store_rejections
from myhealth.intake.results import ERASED, ConcurrentChange, ImportSource, RecordResult, ValidatedRecord, error
from myhealth.intake.settlement import Settlement, Unsettled, find_exported, other_number, was_deleted
from myhealth.intake.small_batch import PreparedElsewhere, insert_small_batch, is_plain
from myhealth.profiles.erasure import erased_form, find_erased_names
from myhealth.profiles.names import username_error

ANY_ERASED = "select exists (select from erased_digests where kind = 'record')"
ERASED_RECORDS = """
select wanted.position from unnest(%s::text[], %s::text[]) with ordinality as wanted (serial, record_id, position)
where exists (
    select from erased_digests where kind = 'record' and digest = keyed_digest(serial, record_id))"""
TOUCH = """
update machines set last_upload_at = now()
where id = any(%s) and (last_upload_at is null or last_upload_at < now() - interval '1 minute')"""
PATIENT_CREATED = "patient_created"
NOT_KEPT = "is not stored among the rejected records either, there are too many: keep it, and send it again tomorrow"
DELETED_MEANWHILE = "records were deleted while the same ones were stored; try again"

Entry = tuple[RecordResult, Record, ValidatedRecord]
Known = tuple[CheckupRow, RecordResult, Record, ValidatedRecord]


class Batch:
    """One attempt to store a batch. `outcomes`: a result for each record, in order. `created`: the usernames of the
    patients that were created. `owners`: the ids of the patients of stored check-ups that differ from a record
    of the batch under the same record_id. `event`: the values of an audit event, or None; `logged`: whether it is
    stored.
    """

    def __init__(
        self, origin: ImportSource, checked: Sequence[ValidatedRecord], event: tuple[Any, ...] | None = None
    ) -> None:
        self.origin = origin
        self.checked = checked
        self.outcomes: list[RecordResult] = []
        self.created: list[str] = []
        self.owners: set[int] = set()
        self.good: list[Entry] = []
        self.refused: list[tuple[RecordResult, ValidatedRecord]] = []
        self.erased: set[str] = set()
        self.logged = False
        self._event = event
        for item in checked:
            outcome = RecordResult(item.parsed.index)
            self.outcomes.append(outcome)
            if item.record is None:
                outcome.errors = [error(outcome.index, name, message) for name, message in item.faults]
                self.refused.append((outcome, item))
            else:
                if item.record.warnings:
                    outcome.warnings = [error(outcome.index, *warning) for warning in item.record.warnings]
                self.good.append((outcome, item.record, item))

    def store(self, cursor: Any) -> None:
        """Store the valid records: plain ones of a small batch in one statement, all others by set operations."""
        pending = self.good
        if 1 < len(pending) < COPY_FROM_ROWS:  # `Intake` tries a single record before its transaction
            pending = self.insert_plain()
        if pending:
            self._store_sets(cursor, pending)

    def insert_plain(self) -> list[Entry]:
        """Insert the plain records in one statement, with the event if these are all records. Return the others."""
        plain = [entry for entry in self.good if is_plain(entry[2])]
        if not plain:
            return self.good
        event = self._event if len(plain) == len(self.outcomes) else None
        try:
            stored = insert_small_batch([item for *_, item in plain], event)
        except psycopg2.errors.IntegrityConstraintViolation as error:
            raise ConcurrentChange(DELETED_MEANWHILE) from error
        except PreparedElsewhere as error:
            raise ConcurrentChange(str(error)) from error
        for position, id_ in stored.items():
            plain[position][0].accept(id_, _effect(plain[position][1]))
        self.logged = event is not None and len(stored) == len(plain)
        return [entry for entry in self.good if entry[0].status != "accepted"]

    def _store_sets(self, cursor: Any, pending: list[Entry]) -> None:
        deletions = [entry for entry in pending if entry[2].names_nobody]
        self._store_records(cursor, [entry for entry in pending if not entry[2].names_nobody] if deletions else pending)
        if deletions:  # a history begins with the newest
            self._withdraw(cursor, deletions)

    def _store_records(self, cursor: Any, pending: list[Entry]) -> None:
        patients = Patients(self.origin)
        patients.look_up(cursor, [item for *_, item in pending])
        self.created, self.erased = patients.created, patients.erased
        pending = [entry for entry in pending if self._has_patient(entry, patients)]
        patients.learn(cursor)
        pending = self._without_erased(cursor, pending)
        if not pending:
            return
        machines = self._machines(cursor, pending)
        rows, entries = [], {}
        for id_, entry in zip(new_ids(cursor, len(pending)), pending, strict=True):
            outcome, record, item = entry
            machine_id = None if record.machine is None else machines[record.machine]
            rows.append(CheckupRow(id_, outcome.patient_id, machine_id, record, item.copied))
            entries[id_] = entry
        exported = find_exported(cursor, rows)
        for row_id, checkup_id in exported.items():
            outcome, record, _ = entries[row_id]
            outcome.status, outcome.id = "duplicate", checkup_id
            if checkup_id is None:
                _warn_of_deletion(outcome, record)
        self._store_rows(cursor, [row for row in rows if row.id not in exported], entries)
        if machines:
            cursor.execute(TOUCH, (sorted(machines.values()),))

    def _store_rows(
        self, cursor: Any, rows: list[CheckupRow], entries: dict[int, Entry], *, again: bool = False
    ) -> None:
        """Insert the rows that are new; settle those whose number is known. `again`: with a number of our own."""
        gone = find_deleted_originals(cursor, rows)
        if gone:
            self._pass_over(cursor, gone, [(row, *entries[row.id]) for row in rows if row.key in gone])
            rows = [row for row in rows if row.key not in gone]
        stored = store_rows(cursor, rows)
        for row in rows:
            if row.id in stored:
                entries[row.id][0].accept(row.id, _effect(row.record))
        if len(stored) < len(rows):
            others = self._settle(cursor, [(row, *entries[row.id]) for row in rows if row.id not in stored], again)
            if others:
                self._store_rows(cursor, others, entries, again=True)
        if stored and find_deleted(cursor, [row for row in rows if row.id in stored]):
            raise ConcurrentChange(DELETED_MEANWHILE)

    def store_rejections_of(self, cursor: Any, occurrences: Occurrences, kept_before: int) -> None:
        """Store every rejected record but those of erased people, and those beyond the user's quota: their sender must
        keep them, so an error says it. Equal ones of a source are numbered. `kept_before`: the number of records stored
        by earlier batches of the source."""
        if self.origin.dry_run or not self.refused:
            return
        erased = find_erased_names(cursor, {form for _, item in self.refused for form in self._forms(item)})
        kept = [
            (outcome, item)
            for outcome, item in sorted(self.refused, key=lambda pair: pair[0].index)
            if outcome.errors[-1].get("code") != ERASED and erased.isdisjoint(self._forms(item))
        ]
        refused = []
        for outcome, item in kept:
            item.occurrence = item.occurrence or occurrences.name(item.parsed.raw)
            refused.append(RejectedRecord(item.parsed.raw, outcome.errors, self._context(item)))
        quota = None if self.origin.user_id is None else Quota.of(cursor, self.origin.user_id, kept_before)
        ids = store_rejections(cursor, self.origin.source, refused, quota)
        for (outcome, _), id_ in zip(kept, ids, strict=True):
            outcome.rejection_id = id_
            if id_ is None:
                outcome.errors.append(error(outcome.index, None, NOT_KEPT, "not_kept"))

    def record_conflicts(self, cursor: Any) -> None:
        """Insert an event for each patient whose stored record the upload does not match: a sender may be guessing."""
        cursor.execute("select id, username from users where id = any(%s)", (sorted(self.owners),))
        reason = "stored with other content"
        record_events("upload", cursor.fetchall(), outcome="refused", machine=self.origin.machine, reason=reason)

    def _context(self, item: ValidatedRecord) -> dict[str, Any]:
        """Return the facts that a retry of the record needs."""
        parsed, origin = item.parsed, self.origin
        record = item.record or parsed.decoded()
        named = {name: getattr(record, name, None) for name in ("record_id", "machine")}
        if isinstance(record, dict):
            named = {name: record[name] for name in named if isinstance(record.get(name), str | int)}
        context = {
            "format": origin.format,
            "machine": (not origin.overrides_machine and named.get("machine")) or origin.machine or None,
            "overrides_machine": origin.overrides_machine,
            "index": parsed.index,
            "line": parsed.line,
            "record_id": named.get("record_id"),
            "derive_ids": origin.derive_ids,
            "occurrence": item.occurrence,
            "zone": origin.zone,
            **({"layout": origin.layout} if origin.layout else {}),
            "patient": origin.patient,
            "patients": list(self._patient_names(item)),
            "identifiers": item.identifiers,
        }
        return {name: _storable(value) for name, value in context.items()}

    def _patient_names(self, item: ValidatedRecord) -> tuple[str, ...]:
        """Return the names that the record's patient may have; for an invalid record, as far as they can be read."""
        if item.patients or item.identifiers:
            return item.patients
        named = (*_named(item.parsed), *([self.origin.patient] if self.origin.patient else []))
        return tuple(dict.fromkeys(self.origin.patient_map.get(name, name) for name in named))

    def _forms(self, item: ValidatedRecord) -> list[str]:
        return [*self._patient_names(item), *(erased_form(*key) for key in item.identifiers)]

    def _refuse(self, outcome: RecordResult, item: ValidatedRecord, name: str | None, message: str, code: str) -> None:
        outcome.errors.append(error(outcome.index, name and item.parsed.locate(name), message, code))
        self.refused.append((outcome, item))

    def _has_patient(self, entry: Entry, patients: Patients) -> bool:
        """Set the record's patient and return True; reject a record that has none here."""
        outcome, record, item = entry
        found = patients.of(item)
        if isinstance(found, Refusal):
            self._refuse(outcome, item, *found)
            return False
        outcome.patient_id = found.id
        born = found.birth_date.isoformat() if found.birth_date else None
        if fit_to_person(record, found.sex, born) and item.copied:
            item.copied = copy_text(record)
        if news := patients.news_of(found.id):
            outcome.warnings.append(error(outcome.index, item.parsed.patient_field, news, PATIENT_CREATED))
        return True

    def _without_erased(self, cursor: Any, pending: list[Entry]) -> list[Entry]:
        """Reject the records that an erased person had, and return the others."""
        cursor.execute(ANY_ERASED)
        if not cursor.fetchone()[0]:  # the usual case: no look-up for each record
            return pending
        keys = [(record.machine, record.record_id) for _, record, _ in pending]
        cursor.execute(ERASED_RECORDS, ([serial for serial, _ in keys], [id_ for _, id_ in keys]))
        erased = {position - 1 for (position,) in cursor.fetchall()}
        for position in erased:
            outcome, record, item = pending[position]
            self._refuse(outcome, item, "record_id", f"{_called(record)} was of a user who was erased", ERASED)
        return [entry for position, entry in enumerate(pending) if position not in erased]

    def _machines(self, cursor: Any, pending: list[Entry]) -> dict[str, int]:
        """The machine id of every serial; a machine that is not registered yet is registered."""
        serials = sorted({record.machine for _, record, _ in pending if record.machine is not None})
        if not serials:
            return {}
        find = "select serial, id from machines where serial = any(%s)"
        cursor.execute(find, (serials,))
        found = dict(cursor.fetchall())
        missing = [serial for serial in serials if serial not in found]
        if missing:
            cursor.execute("insert into machines (serial) select unnest(%s) on conflict do nothing", (missing,))
            cursor.execute(find, (serials,))
            found = dict(cursor.fetchall())
        return found

    def _settle(self, cursor: Any, known: list[Known], again: bool) -> list[CheckupRow]:
        """Tell duplicates, versions of stored check-ups, and records with other content. Return the rows of other
        samples under the same number, with a number of our own."""
        found = find_stored(cursor, (row.key for row, *_ in known))
        if any(row.key not in found for row, *_ in known):
            # the conflicting row was deleted since, or the id was taken by an explicit insert
            advance_id_sequence(cursor)
            raise ConcurrentChange(DELETED_MEANWHILE)
        differing = []
        for row, outcome, record, item in known:
            if differing_columns(row, found[row.key]):
                differing.append((row, outcome, record, item))
            else:
                outcome.status, outcome.id = "duplicate", found[row.key]["id"]
        others: list[CheckupRow] = []
        if not differing:
            return others
        settlement = Settlement(cursor, [row for row, *_ in differing], found, self.origin.format)
        for row, outcome, record, item in differing:
            if not again and settlement.is_other_sample(row):
                record.record_id, row.copied = other_number(row), ""
                others.append(row)
            else:
                self._tell(settlement.settle(row), settlement.stored[row.key], outcome, record, item)
        return others

    def _withdraw(self, cursor: Any, deletions: list[Entry]) -> None:
        """Carry out the records that only name one which was withdrawn."""
        stored: dict[str, list[tuple[int, int, int | None]]] = {}
        names = dict.fromkeys(str(record.record_id) for _, record, _ in deletions)
        for id_, patient_id, machine_id, name in find_by_number(cursor, list(names)):
            stored.setdefault(name, []).append((id_, patient_id, machine_id))
        meant = find_meant(cursor, unknown) if (unknown := names.keys() - stored.keys()) else {}
        found: list[Known] = []
        for outcome, record, item in deletions:
            name = str(record.record_id)
            found += [(CheckupRow(*ids, record), outcome, record, item) for ids in stored.get(name, ())]
            if len(meant.get(name, ())) == 1:
                found.append((meant[name][0].row(record), outcome, record, item))
            elif name in meant:
                message = f"may be {len(meant[name])} check-ups here" if meant[name] else "is not stored here"
                outcome.status = "duplicate"
                text = f"{_called(record)} {message}, so nothing was withdrawn"
                outcome.warnings.append(error(outcome.index, item.parsed.locate("record_id"), text, "not_stored"))
        if found:
            self._settle(cursor, found, again=True)

    def _tell(
        self, done: Merge | Unsettled, stored: StoredRow, outcome: RecordResult, record: Record, item: ValidatedRecord
    ) -> None:
        """Say in the record's result what became of the stored check-up."""
        if isinstance(done, Unsettled):
            message, name = f"{_called(record)} {done.message}", "record_id"
            if self.origin.names_fields and done.places:
                places = dict.fromkeys(map(item.parsed.locate, done.places))
                message, name = f"{message}: {', '.join(places)}", done.places[0]
            self.owners.add(stored["patient_id"])
            self._refuse(outcome, item, name, message, done.code)
            return
        if done.effect == "none":
            outcome.status, outcome.id = "duplicate", stored["id"]
        else:
            outcome.accept(stored["id"], done.effect)
        outcome.warnings += [
            error(outcome.index, item.parsed.locate(name), f"{_called(record)}: {text}", code)
            for name, text, code in done.notes
        ]

    def _pass_over(
        self,
        cursor: Any,
        gone: dict[RecordKey, list[OriginalFingerprint]],
        deleted: list[Known],
    ) -> None:
        """Answers for records that were deleted here: as they came they are known, with other content refused."""
        for row, outcome, record, item in deleted:
            if was_deleted(cursor, row, gone[row.key], self.origin.format):
                outcome.status = "duplicate"
                _warn_of_deletion(outcome, record)
            else:
                message = f"{_called(record)} was deleted here with other content"
                self._refuse(outcome, item, "record_id", message, "deleted_here")


def _warn_of_deletion(outcome: RecordResult, record: Record) -> None:
    message = f"{_called(record)} was deleted here; it is not taken in again"
    outcome.warnings.insert(0, error(outcome.index, "record_id", message, "deleted_here"))


def _storable(value: Any) -> Any:
    """Return a value of a damaged record without the characters that PostgreSQL's JSON cannot hold."""
    if isinstance(value, str):
        return UNSTORABLE.sub("\ufffd", value)
    return [_storable(each) for each in value] if isinstance(value, list | tuple) else value


def _called(record: Record) -> str:
    return f"record {record.record_id}" + (f" of {record.machine}" if record.machine else "")


def _named(parsed: ParsedRecord) -> tuple[str, ...]:
    """Patient names found in an invalid record, so that the rejection can be deleted together with that user."""
    decoded = parsed.decoded()
    named = decoded.get("checkup_for") if isinstance(decoded, dict) else None
    found = parsed.patients or (named_in(parsed.raw) if named is None else (str(named),))
    return tuple(name for name in map(str.strip, found) if not username_error(name))


def _effect(record: Record) -> str:
    """Return what a record does that is stored as a new check-up. A withdrawn one is stored, but not shown."""
    return "withdrawn" if record.status == WITHDRAWN else "created"
