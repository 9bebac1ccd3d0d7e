"""Store one batch of validated records within the caller's transaction, and explain the result of each."""

from collections.abc import Sequence
from typing import Any

import psycopg2.errors
from msgspec.structs import replace

from myhealth.audit.events import record_events
from myhealth.common.database import PreparedElsewhere, fetch_all
from myhealth.common.text import storable
from myhealth.intake.deletions import LOCK_DELETIONS, LOCK_RECORDS, find_meant, keep_deletion
from myhealth.intake.formats.registry import get_format
from myhealth.intake.insert import (
    COPY_FROM_ROWS,
    StoredRows,
    advance_id_sequence,
    find_by_number,
    find_stored,
    insert_small_batch,
    is_plain,
    new_ids,
    store_rows,
)
from myhealth.intake.members import is_alone
from myhealth.intake.merge import Merge
from myhealth.intake.originals import differing_columns, find_deleted, find_deleted_originals
from myhealth.intake.parsed_record import ParsedRecord, named_in
from myhealth.intake.patients import NoPatient, Patients
from myhealth.intake.record_ids import Occurrences
from myhealth.intake.rejections import Quota, store_rejections
from myhealth.intake.results import (
    ERASED,
    ConcurrentChange,
    ImportSource,
    Pending,
    RecordResult,
    ValidatedRecord,
    error,
)
from myhealth.intake.reunion import LOCK_PATIENTS, Reunion
from myhealth.intake.settlement import (
    DIFFERS,
    PARTIAL,
    Settlement,
    Unsettled,
    find_exported,
    other_number,
    was_deleted,
)
from myhealth.intake.stored_numbers import find_known_orders, find_numbers, split_rounds
from myhealth.intake.validation import fit_to_person
from myhealth.machines.services import known_machines
from myhealth.profiles.held_names import find_erased_names
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


class Batch:
    """One attempt to store a batch. `outcomes`: a result for each record, in order. `created`: the usernames of created
    patients. `owners`: the ids of the patients of stored check-ups that differ from a record under their record_id.
    `event`: the values of an audit event, or None; `logged`: whether it is stored.
    """

    def __init__(
        self, origin: ImportSource, checked: Sequence[ValidatedRecord], event: tuple[Any, ...] | None = None
    ) -> None:
        self.origin = origin
        self.checked = checked
        self.outcomes: list[RecordResult] = []
        self.created: list[str] = []
        self.owners: set[int] = set()
        self.good: list[Pending] = []
        self.refused: list[tuple[RecordResult, ValidatedRecord]] = []
        self.erased: set[str] = set()
        self.logged = False
        self._event = event
        self._shares_results = get_format(origin.format).shares_results
        for item in checked:
            result, record = RecordResult(item.parsed.index), item.record
            self.outcomes.append(result)
            if record is None:
                for name, message in item.faults:
                    result.reject(name, message)
                self.refused.append((result, item))
            else:
                for warning in record.warnings:
                    result.warn(*warning)
                self.good.append(Pending(record, item, result))

    def store(self, cursor: Any) -> None:
        """Store the valid records: plain ones of a small batch in one statement, all others by set operations."""
        pending = self.good
        if 1 < len(pending) < COPY_FROM_ROWS:  # `Intake` tries a single record before its transaction
            pending = self.insert_plain()
        if not pending:
            return
        deletions = [entry for entry in pending if entry.item.is_bare_withdrawal]
        if self._shares_results:
            cursor.execute(LOCK_DELETIONS if deletions else LOCK_RECORDS)
        self._store_records(cursor, [entry for entry in pending if not entry.item.is_bare_withdrawal])
        if deletions:  # a history begins with the newest
            self._withdraw(cursor, deletions)

    def insert_plain(self) -> list[Pending]:
        """Insert the plain records in one statement, with the event if these are all records. Return the others."""
        plain = [*filter(is_plain, self.good)] if not self._shares_results else []
        if not plain:
            return self.good
        event = self._event if len(plain) == len(self.outcomes) else None
        try:
            stored = insert_small_batch(plain, event)
        except psycopg2.errors.IntegrityConstraintViolation as error:
            raise ConcurrentChange(DELETED_MEANWHILE) from error
        except PreparedElsewhere as error:
            raise ConcurrentChange(str(error)) from error
        for position, id_ in stored.items():
            plain[position].accept(id_)
        self.logged = event is not None and len(stored) == len(plain)
        return [entry for entry in self.good if entry.result.status != "accepted"]

    def _store_records(self, cursor: Any, pending: list[Pending]) -> None:
        patients = Patients(self.origin)
        patients.look_up(cursor, [entry.item for entry in pending])
        self.created, self.erased = patients.created, patients.erased
        pending = [entry for entry in pending if self._has_patient(entry, patients)]
        if shared := {entry.patient_id for entry in pending if self._shares_results or entry.item.parsed.unnumbered}:
            cursor.execute(LOCK_PATIENTS, (sorted(shared),))
        patients.learn(cursor)
        pending = self._without_erased(cursor, pending)
        if not pending:
            return
        machines = known_machines(cursor, {entry.record.machine for entry in pending})
        for entry, id_ in zip(pending, new_ids(cursor, len(pending)), strict=True):
            entry.id, entry.machine_id = id_, machines[entry.record.machine]
        if exported := find_exported(cursor, pending):
            for entry in [entry for entry in pending if entry.id in exported]:
                entry.result.status, entry.result.id = "duplicate", exported[entry.id]
                if entry.result.id is None:
                    _warn_of_deletion(entry)
            pending = [entry for entry in pending if entry.id not in exported]
        if self._shares_results:
            # Observations first: a report of this batch takes in those that are alone in it.
            for rows in ([row for row in pending if is_alone(row)], [row for row in pending if not is_alone(row)]):
                self._store_related(cursor, rows)
        else:
            for part in split_rounds(pending, self.origin.format):
                self._store_rows(cursor, part)
        if touched := sorted(filter(None, machines.values())):
            cursor.execute(TOUCH, (touched,))

    def _store_related(self, cursor: Any, rows: list[Pending]) -> None:
        """Store records of FHIR: an Observation within the report that contains it, and a report with its results."""
        if not rows:
            return
        reunion = Reunion(cursor, rows)
        for row, why in reunion.refused:
            self._refuse(row, why.places[0] if why.places else "record_id", f"{row.called} {why.message}", why.code)
        if reunion.others:
            self._store_rows(cursor, reunion.others)
        if reunion.parts:
            self._settle(cursor, reunion.parts, {}, again=True)
        reunion.retire()

    def _store_rows(self, cursor: Any, rows: list[Pending], *, again: bool = False) -> None:
        """Insert the rows that are new; settle those whose number is known. `again`: with a number of our own."""
        rows = self._without_deleted(cursor, rows)
        if not again and find_numbers(cursor, rows, self.origin.format):
            rows = self._without_deleted(cursor, rows)
        stored, found = store_rows(cursor, rows)
        for row in [row for row in rows if row.id in stored]:
            row.accept(row.id)
        if len(stored) < len(rows):
            others = self._settle(cursor, [row for row in rows if row.id not in stored], found, again=again)
            if others:
                self._store_rows(cursor, others, again=True)
        if stored and find_deleted(cursor, [row for row in rows if row.id in stored]):
            raise ConcurrentChange(DELETED_MEANWHILE)

    def store_rejections_of(self, cursor: Any, occurrences: Occurrences, kept_before: int) -> None:
        """Store the rejected records, but those of erased people and those beyond the user's quota (an error tells the
        sender to keep these). Number equal ones of a source. `kept_before`: how many earlier batches of the source
        stored."""
        if self.origin.dry_run or not self.refused:
            return
        erased = find_erased_names(cursor, {form for _, item in self.refused for form in self._forms(item)}, lock=True)
        kept = [
            (outcome, item)
            for outcome, item in sorted(self.refused, key=lambda pair: pair[0].index)
            if outcome.errors[-1].get("code") != ERASED and erased.isdisjoint(self._forms(item))
        ]
        refused = []
        for outcome, item in kept:
            item.occurrence = item.occurrence or occurrences.names(item.parsed.raw)[0]
            refused.append((item.parsed.raw, outcome.errors, self._context(item)))
        quota = None if self.origin.user_id is None else Quota.of(cursor, self.origin.user_id, kept_before)
        ids = store_rejections(cursor, self.origin.source, refused, quota)
        for (outcome, _), id_ in zip(kept, ids, strict=True):
            outcome.rejection_id = id_
            if id_ is None:
                outcome.reject(None, NOT_KEPT, "not_kept")

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
        return {name: storable(value) for name, value in context.items()}

    def _patient_names(self, item: ValidatedRecord) -> tuple[str, ...]:
        """Return the names that the record's patient may have; for an invalid record, as far as they can be read."""
        if item.patients or item.identifiers:
            return item.patients
        named = (*_named(item.parsed), *([self.origin.patient] if self.origin.patient else []))
        return tuple(dict.fromkeys(self.origin.patient_map.get(name, name) for name in named))

    def _forms(self, item: ValidatedRecord) -> list[str]:
        return [*self._patient_names(item), *item.erased_forms]

    def _refuse(self, entry: Pending, name: str | None, message: str, code: str) -> None:
        entry.result.reject(name and entry.item.parsed.locate(name), message, code)
        self.refused.append((entry.result, entry.item))

    def _has_patient(self, entry: Pending, patients: Patients) -> bool:
        """Set the record's patient and return True; reject a record that has none here."""
        found = patients.of(entry.item)
        if isinstance(found, NoPatient):
            self._refuse(entry, *found)
            return False
        entry.patient_id = found.id
        if found.sex or found.birth_date:
            fit_to_person(entry.record, found.sex, found.birth_date)
        if patients.news and (news := patients.news.pop(found.id, "")):
            entry.result.warn(entry.item.parsed.patient_field, news, PATIENT_CREATED)
        return True

    def _without_erased(self, cursor: Any, pending: list[Pending]) -> list[Pending]:
        """Reject the records that an erased person had, and return the others."""
        cursor.execute(ANY_ERASED)
        if not cursor.fetchone()[0]:  # the usual case: no look-up for each record
            return pending
        keys = [(entry.record.machine, entry.record.record_id) for entry in pending]
        positions = fetch_all(cursor, ERASED_RECORDS, ([serial for serial, _ in keys], [id_ for _, id_ in keys]))
        erased = {position - 1 for (position,) in positions}
        for position in erased:
            entry = pending[position]
            self._refuse(entry, "record_id", f"{entry.called} was of a user who was erased", ERASED)
        return [entry for position, entry in enumerate(pending) if position not in erased]

    def _settle(self, cursor: Any, known: list[Pending], found: StoredRows, *, again: bool) -> list[Pending]:
        """Find duplicates, versions of stored check-ups, and records with other content, and set their results. Return
        the rows of other samples, with a number of our own, and of deleted orders. `found`: known check-ups."""
        found |= find_stored(cursor, [row.key for row in known if row.key not in found])
        if any(row.key not in found for row in known):
            # the conflicting row was deleted since, or the id was taken by an explicit insert
            advance_id_sequence(cursor)
            raise ConcurrentChange(DELETED_MEANWHILE)
        differing = []
        for row in known:
            if row.part is not None or differing_columns(row, found[row.key]):
                differing.append(row)
            else:
                row.result.status, row.result.id = "duplicate", found[row.key]["id"]
        if not differing:
            return []
        hl7 = self.origin.format == PARTIAL and not again
        unclear = find_known_orders(cursor, differing, found) if hl7 else ()
        others = [row for row in differing if row.key not in found]  # deleted
        differing = [row for row in differing if row.key in found]
        settlement = Settlement(cursor, differing, found, self.origin.format)
        for row in differing:
            if row.id in unclear:
                self._tell(Unsettled(*DIFFERS, ["checkup_type"]), found[row.key], row)
            elif not again and settlement.is_other_sample(row):
                row.record.record_id = other_number(row)
                others.append(row)
            else:
                self._tell(settlement.settle(row), settlement.stored[row.key], row)
        settlement.store_changes()
        return others

    def _withdraw(self, cursor: Any, deletions: list[Pending]) -> None:
        """Carry out the records that only name a withdrawn record."""
        stored: dict[str, list[tuple[int, int, int | None]]] = {}
        names = dict.fromkeys(str(entry.record.record_id) for entry in deletions)
        for id_, patient_id, machine_id, name in find_by_number(cursor, list(names)):
            stored.setdefault(name, []).append((id_, patient_id, machine_id))
        meant, withdrawn = find_meant(cursor, names)
        found = []
        for entry in deletions:
            name = str(entry.record.record_id)
            of = stored.get(name, ())
            found += [replace(entry, id=ids[0], patient_id=ids[1], machine_id=ids[2]) for ids in of]
            if of:  # a report of the same patient may contain it
                members = [each for each in meant[name] if each.member and each.patient_id in {ids[1] for ids in of}]
                found += [each.carry_out(entry) for each in members]
            elif len({each.resource for each in meant[name]}) == 1:  # it may be in several reports
                found += [each.carry_out(entry) for each in meant[name]]
            else:
                message = f"may be {len(meant[name])} check-ups" if meant[name] else "is not stored"
                message += " here, so nothing was withdrawn"
                if self._shares_results and not meant[name] and name not in withdrawn:
                    keep_deletion(cursor, name, entry.record.details)
                    message += "; if it comes, it is not shown"
                entry.result.status = "duplicate"
                entry.warn("record_id", f"{entry.called} {message}", "not_stored")
        if found:
            self._settle(cursor, found, {}, again=True)

    def _tell(self, done: Merge | Unsettled, stored: dict[str, Any], row: Pending) -> None:
        """Say in the record's result what became of the stored check-up."""
        if isinstance(done, Unsettled):
            message, name = f"{row.called} {done.message}", "record_id"
            if self.origin.names_fields and done.places:
                places = dict.fromkeys(map(row.item.parsed.locate, done.places))
                message, name = f"{message}: {', '.join(places)}", done.places[0]
            self.owners.add(stored["patient_id"])
            self._refuse(row, name, message, done.code)
            return
        if done.effect == "none":
            row.result.status, row.result.id = "duplicate", stored["id"]
        else:
            row.result.accept(stored["id"], done.effect)
        for name, text, code in done.notes:
            row.warn(name, f"{row.called}: {text}", code)

    def _without_deleted(self, cursor: Any, rows: list[Pending]) -> list[Pending]:
        """Return the rows without those whose check-up was deleted here, and set the results of these: a duplicate as
        it first came, else rejected."""
        gone = find_deleted_originals(cursor, rows)
        if gone and self.origin.format == PARTIAL:
            find_known_orders(cursor, [row for row in rows if row.key in gone], {})
            gone = find_deleted_originals(cursor, rows)
        for row in [row for row in rows if row.key in gone]:
            if was_deleted(cursor, row, gone[row.key], self.origin.format):
                row.result.status = "duplicate"
                _warn_of_deletion(row)
            else:
                self._refuse(row, "record_id", f"{row.called} was deleted here with other content", "deleted_here")
        return [row for row in rows if row.key not in gone] if gone else rows


def _warn_of_deletion(entry: Pending) -> None:
    message = f"{entry.called} was deleted here; it is not taken in again"
    entry.result.warnings.insert(0, error(entry.result.index, "record_id", message, "deleted_here"))


def _named(parsed: ParsedRecord) -> tuple[str, ...]:
    """Patient names found in an invalid record, so that the rejection can be deleted together with that user."""
    decoded = parsed.decoded()
    named = decoded.get("checkup_for") if isinstance(decoded, dict) else None
    found = parsed.patients or (named_in(parsed.raw) if named is None else (str(named),))
    return tuple(name for name in map(str.strip, found) if not username_error(name))
