"""Turn parsed records into check-ups: the one path of files and HTTP uploads.

A batch is one transaction. Users and machines are looked up in sets, rows are stored in sets, and each record gets a
result, in the order of the records. A stored record is known by (machine, record_id): with the same content it is a
duplicate, a later version of its source takes its place (merge.py; the earlier one is kept), and with other content it
is rejected. Rejected records are kept whole in `rejections`.
"""

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any

import msgspec
import psycopg2
import psycopg2.errors

from myhealth.audit.events import current_actor, event_values, record_event
from myhealth.clinical.status import WITHDRAWN
from myhealth.common.database import cause_of, database, first_line, notify_sync, transaction
from myhealth.common.errors import BadInput, Unavailable
from myhealth.common.text import fold_name
from myhealth.intake.batch import Batch
from myhealth.intake.formats.format import reread_json
from myhealth.intake.formats.marked_numbers import part_marks
from myhealth.intake.formats.registry import get_format
from myhealth.intake.identity import claim_of, composed, identifiers_of_invalid
from myhealth.intake.parsed_record import ParsedRecord
from myhealth.intake.patients import Patients
from myhealth.intake.record import Record, warn_of_withdrawn
from myhealth.intake.record_ids import DERIVED, Occurrences, use_former_numbers
from myhealth.intake.record_types import Patient
from myhealth.intake.results import ConcurrentChange, ImportSource, RecordResult, ValidatedRecord, counts, first_faults
from myhealth.intake.validation import accept_text, latest_moment, validate_record
from myhealth.machines.services import known_serials

ATTEMPTS = 3
UNKNOWN = "unknown"  # the precision of a moment that the source does not contain
# The required fields of a record that only names another record.
WITHDRAWAL = {"checkup_for": "-", "checkup_type": "-", "checkup_report": "", "disease": ""}
RETRYABLE = (psycopg2.errors.DeadlockDetected, psycopg2.errors.SerializationFailure)


BATCH_RECORDS = 5000
# A batch ends early if its records are large, so that memory stays bounded.
BATCH_CHARACTERS = 8 * 1024 * 1024


class Rollback(Exception):
    """Undo the transaction of a dry run, or of an atomic batch with a rejected record."""


class Intake:
    """Store the records of one source, batch by batch. `people`: the queue of the source's Dump.

    A dry run undoes each batch at once, because live uploads of the same records, machines or patients wait for its
    locks. So a batch does not find the rows of those before it.
    """

    def __init__(self, origin: ImportSource, people: deque[tuple[str, dict[str, Any]]] | None = None) -> None:
        self.origin = origin
        self._is_ours = get_format(origin.format).reread is reread_json  # the others have parted marks themselves
        self._created: set[str] = set()
        self._people = people
        self._stored = Occurrences(origin.occurrence)
        self._refused = Occurrences()
        self._kept = 0

    @property
    def created(self) -> int:
        """The number of patients that were created."""
        return len(self._created)

    def store_batch(self, parsed: Sequence[ParsedRecord], *, atomic: bool = False) -> list[RecordResult]:
        """Validate and store one batch in one transaction; return the results in the order of the records.

        When it returns, all records reported as accepted or duplicate are committed, unless the caller has a
        transaction open. `atomic`: one rejected record rejects all. Raises Unavailable; then the source may be sent
        again, from its beginning, by another Intake.
        """
        return self.store_validated(self.validate(parsed), atomic=atomic)

    def validate(self, parsed: Sequence[ParsedRecord]) -> list[ValidatedRecord]:
        """Validate without the database. May run in another thread than `store_validated`, one batch earlier."""
        latest = latest_moment()
        return [self._check(record, latest) for record in parsed]

    def store_validated(self, checked: Sequence[ValidatedRecord], *, atomic: bool = False) -> list[RecordResult]:
        """Store validated records, as `store_batch` does, and notify the sync."""
        if not atomic and self._people:
            self.learn_people()
        batch = self._store_single(checked) or self._store(checked, atomic)
        if atomic and not batch.refused:
            self.learn_people()
        for outcome, _ in batch.refused:
            self._kept += outcome.rejection_id is not None
        if not self.origin.dry_run:
            notify_sync()
        return batch.outcomes

    def patients_of(self, parsed: Sequence[ParsedRecord]) -> list[int | None]:
        """Return the id of each record's patient; None if it has none here, or is not valid. Stores no record."""
        checked, patients = self.validate(parsed), Patients(self.origin)
        valid = [item for item in checked if item.record is not None]
        with contextlib.suppress(ConcurrentChange), transaction() as cursor:
            patients.look_up(cursor, valid)
            found = {id(item): patients.of(item) for item in valid}
            return [getattr(found.get(id(item)), "id", None) for item in checked]
        return [None] * len(checked)

    def learn_people(self) -> None:
        """Store the references of the Patient resources that were read so far, with the known patients whom they
        name."""
        people = []
        while self._people:
            reference, patient = self._people.popleft()
            if reference.startswith("urn:") or not patient.get("identifiers"):
                continue  # the reference is valid only in its Bundle, or names nobody here
            with contextlib.suppress(msgspec.ValidationError, UnicodeEncodeError):
                people.append((reference, msgspec.convert(patient, Patient)))
        if not people:
            return
        for attempt in range(ATTEMPTS):
            patients = Patients(self.origin)
            try:
                with contextlib.suppress(Rollback), transaction() as cursor:
                    patients.teach(cursor, people)
                    if self.origin.dry_run:
                        raise Rollback
            except (ConcurrentChange, psycopg2.errors.UniqueViolation) as error:
                if attempt == ATTEMPTS - 1:
                    raise Unavailable(f"the patients could not be stored: {first_line(error)}") from error
            else:
                self._created.update(patients.created)
                return

    def _store_single(self, checked: Sequence[ValidatedRecord]) -> Batch | None:
        """Store a single plain record and its event in one statement, which is a transaction by itself. Return None if
        it is not stored. Not within a transaction of the caller: an error would abort it."""
        record = checked[0].record if len(checked) == 1 and not checked[0].former_ids else None
        is_derived = record is not None and DERIVED.fullmatch(record.record_id or "")
        if record is None or is_derived or self.origin.dry_run or database.in_transaction():
            return None
        batch = Batch(self.origin, checked, self._event(checked))
        with contextlib.suppress(psycopg2.DataError, psycopg2.IntegrityError, ConcurrentChange):
            return None if batch.insert_plain() else batch
        return None

    def _store(self, checked: Sequence[ValidatedRecord], atomic: bool) -> Batch:
        """Store a batch in a transaction. Repeat it if another session stored or deleted the same rows meanwhile."""
        for attempt in range(ATTEMPTS):
            try:
                return self._attempt(checked, atomic)
            except psycopg2.DataError as error:
                self._reject_culprits(checked, error)
                if attempt == ATTEMPTS - 1:
                    raise
            except ConcurrentChange as error:
                if attempt == ATTEMPTS - 1:
                    raise Unavailable(str(error)) from None
            except (psycopg2.errors.ForeignKeyViolation, psycopg2.errors.UniqueViolation, Unavailable) as error:
                # a patient or a machine came or went between two statements, or two sessions waited for each other
                if attempt == ATTEMPTS - 1 or (isinstance(error, Unavailable) and not _is_deadlock(error)):
                    raise Unavailable(f"the records could not be stored: {first_line(error)}") from error
        raise AssertionError("unreachable")

    def _attempt(self, checked: Sequence[ValidatedRecord], atomic: bool) -> Batch:
        batch = Batch(self.origin, checked, self._event(checked))
        with contextlib.suppress(Rollback), transaction() as cursor:
            records = [item.record for item in checked if item.record]
            serials = known_serials(cursor, {record.machine for record in records})
            for record in records:
                record.machine = serials.get(record.machine, record.machine)
            use_former_numbers(cursor, checked)
            batch.store(cursor)
            if self.origin.dry_run or (atomic and batch.refused):
                raise Rollback
            self._keep(cursor, batch)
        if atomic and batch.refused:
            self._reject_all(batch)
        else:
            self._created.update(batch.created)
        return batch

    def _keep(self, cursor: Any, batch: Batch) -> None:
        """Store the rejected records and the event of a batch, in its transaction."""
        batch.store_rejections_of(cursor, self._refused, self._kept)
        if self.origin.log_upload and not batch.logged:
            if batch.owners:
                batch.record_conflicts(cursor)
            found: dict[str, Any] = counts(batch.outcomes)
            named = _only_patient(batch.checked)
            subject = None if named in batch.erased else named  # the name of an erased person is not stored anew
            record_event("upload", subject=subject, machine=self.origin.machine, **found)

    def _event(self, checked: Sequence[ValidatedRecord]) -> tuple[Any, ...] | None:
        """Return the values of the audit event of an upload in which every record is accepted."""
        if not self.origin.log_upload:
            return None
        details = {"machine": self.origin.machine, "accepted": len(checked), "duplicate": 0, "rejected": 0}
        return event_values("upload", details, current_actor(), subject=_only_patient(checked))

    def _reject_culprits(self, checked: Sequence[ValidatedRecord], cause: psycopg2.DataError) -> None:
        """Find the records that validation accepted and PostgreSQL refuses, and turn them into invalid ones."""
        if len(checked) == 1:
            checked[0].record, checked[0].faults = None, [("", f"PostgreSQL refuses it: {first_line(cause)}")]
            return
        half = len(checked) // 2
        for part in (checked[:half], checked[half:]):
            try:
                with contextlib.suppress(Rollback, ConcurrentChange), transaction() as cursor:
                    Batch(self.origin, part).store(cursor)
                    raise Rollback
            except psycopg2.DataError as error:
                self._reject_culprits(part, error)

    def _check(self, parsed: ParsedRecord, latest: datetime) -> ValidatedRecord:
        if parsed.faults:
            return self._invalid(parsed, parsed.faults)
        faults: list[tuple[str, str]] = []
        record = accept_text(parsed, self.origin.machine, latest)
        if record is None:
            decoded = parsed.decoded()
            if parsed.faults:
                return self._invalid(parsed, parsed.faults)
            about = self._about(decoded)
            if _is_withdrawal(about):
                return ValidatedRecord(parsed, validate_record(WITHDRAWAL | about)[0], [])
            if self._is_ours:
                parsed.before_marks = part_marks(about)
            record, faults = validate_record(about, self.origin.machine)
        if record is None:
            return self._invalid(parsed, _located(parsed, faults))
        origin = self.origin
        if origin.patient and record.patient is None and not _same_name(record.checkup_for, origin.patient):
            faults = [("checkup_for", f"is not {origin.patient}, the patient of all records")]
            return ValidatedRecord(parsed, None, _located(parsed, faults))
        item = ValidatedRecord(parsed, record, [], former_ids=(parsed.former_id,) if parsed.former_id else ())
        if record.record_id and record.record_id != (number := record.record_id.strip()):
            item.former_ids, record.record_id = (*item.former_ids, record.record_id), number
        self._name_patient(item, record)
        if former := parsed.former or (parsed.before_marks and {"results": parsed.before_marks}):
            item.former = validate_record(self._about(parsed.record | former), origin.machine)[0]
        if record.record_id is None and origin.derive_ids:
            self._derive_number(item, record)
        if record.taken_at is None and origin.derive_ids:  # not a live upload, which is made as it is measured
            record.taken_precision = UNKNOWN
        if record.status == WITHDRAWN or WITHDRAWN in record.results:
            warn_of_withdrawn(record)
        if record.warnings or parsed.warnings:
            record.warnings = [*parsed.warnings, *_located(parsed, record.warnings)]
        return item

    def _derive_number(self, item: ValidatedRecord, record: Record) -> None:
        """Derive a record's number from its content. A patient whom the caller or a patient map names takes the place
        of the record's."""
        said = item.patients[0] if self.origin.assigned or item.is_mapped else record.checkup_for
        readings = [record]
        if item.parsed.before_marks:
            about = self._about(item.parsed.record | {"results": item.parsed.before_marks})
            machine, text = self.origin.machine, ParsedRecord(0, 1, item.parsed.raw)
            before = accept_text(text, machine, latest_moment(), with_marks=True) if self._is_ours else None
            readings += filter(None, [before or validate_record(about, machine)[0]])
        former = [each.identity_by_order(said) for each in readings]
        former += [each.former_identity() for each in (readings[-1], item.former or record)]
        record.record_id, *numbers = self._stored.names(record.identity(said), *dict.fromkeys(former))
        item.is_derived, item.former_ids = True, (*numbers,)

    def _invalid(self, parsed: ParsedRecord, faults: list[tuple[str, str]]) -> ValidatedRecord:
        item = ValidatedRecord(parsed, None, first_faults(faults))
        item.identifiers = identifiers_of_invalid(parsed.record, self.origin.own_authorities)
        _forget_values(parsed)
        return item

    def _name_patient(self, item: ValidatedRecord, record: Record) -> None:
        """Set the possible patients of a record: those whom the caller gives, else those whom the record or the map
        names."""
        origin, parsed = self.origin, item.parsed
        if origin.assigned:
            item.patients, parsed.patient_doubt = (origin.assigned,), ""
            return
        if record.patient is None:
            item.patients = (composed(record.checkup_for),)
        else:
            item.patients, item.identifiers = claim_of(record.checkup_for, record.patient, origin.own_authorities)
            item.patient = record.patient
        if origin.patient and _same_name(record.checkup_for, origin.patient):
            item.patients = (origin.patient,)
        elif parsed.patients:
            item.patients = (*map(composed, parsed.patients),)
        else:
            item.reference = parsed.patient_reference
        if origin.patient_map:
            mapped = origin.patient_map.find(item.patients, item.identifiers)
            if mapped is not None:
                item.patients, item.reference, parsed.patient_doubt = (mapped,), "", ""
                item.is_mapped = True

    def _about(self, record: Any) -> Any:
        """Return the record; with the patient of all records of the source if it names none, and with the source's
        machine if that overrides."""
        if self.origin.overrides_machine and isinstance(record, dict):
            record["machine"] = self.origin.machine
        if self.origin.assigned and isinstance(record, dict):
            record["checkup_for"] = record.get("checkup_for") or self.origin.assigned
        if self.origin.patient and isinstance(record, dict):
            record.setdefault("checkup_for", self.origin.patient)
        return record

    def _reject_all(self, batch: Batch) -> None:
        for outcome in batch.outcomes:
            if not outcome.errors:  # a valid record: the sender still has it
                outcome.reject(None, "not stored: another record of this all-or-nothing request was rejected")
            outcome.status, outcome.id, outcome.rejection_id, outcome.effect = "rejected", None, None, "none"
        batch.logged = False
        if not self.origin.dry_run:
            with transaction() as cursor:
                self._keep(cursor, batch)


def read_batches(
    records: Iterable[ParsedRecord], characters_max: int = BATCH_CHARACTERS, records_max: int = BATCH_RECORDS
) -> Iterator[list[ParsedRecord]]:
    """Group records into batches; one ends when it has so many characters or records. If the source is broken, give the
    records before that place, then raise BadInput."""
    batch: list[ParsedRecord] = []
    characters = 0
    try:
        for parsed in records:
            batch.append(parsed)
            characters += len(parsed.raw)
            if len(batch) >= records_max or characters >= characters_max:
                yield batch
                batch, characters = [], 0
    except BadInput:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def _is_withdrawal(record: Any) -> bool:
    """Return whether the record only names a record that its source withdrew; its patient is then the stored one's."""
    names = record.keys() - {"details"} if isinstance(record, dict) else ()
    return names == {"record_id", "status"} and record["status"] == WITHDRAWN


def _located(parsed: ParsedRecord, faults: Iterable[tuple[str, ...]]) -> list[Any]:
    """Return faults or warnings with the source's own names of their fields, each once."""
    return list(dict.fromkeys((parsed.locate(name), *rest) for name, *rest in faults))


def _forget_values(parsed: ParsedRecord) -> None:
    """Keep only the names in an invalid record: decoded, its other values take many times the memory of its text."""
    if isinstance(parsed.record, dict):
        names = ("record_id", "checkup_for", "machine")
        parsed.record = {name: parsed.record[name] for name in names if isinstance(parsed.record.get(name), str | int)}


def _only_patient(checked: Sequence[ValidatedRecord]) -> str | None:
    """Return the name of the patient whom all records are about, None if they name several."""
    named = {*map(attrgetter("patients"), checked)}
    return next(iter(named))[0] if len(named) == 1 and () not in named else None


def _same_name(one: str, other: str) -> bool:
    return fold_name(one.strip()) == fold_name(other)


def _is_deadlock(error: Unavailable) -> bool:
    return error.__cause__ is not None and isinstance(cause_of(error.__cause__), RETRYABLE)
