"""Intake: the one way by which records become check-ups, from a file and over HTTP alike.

A batch is one transaction: users and machines are resolved in sets, rows are stored in sets, and every record gets its
outcome, in the order it came in. A record that is stored
already is known by (machine, record_id): with the same content it is a duplicate, with other content it is refused,
never overwritten. What is refused is kept whole in `rejections`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import psycopg2
import psycopg2.errors

from myhealth.audit.events import record_event
from myhealth.common.database import cause_of, first_line, transaction
from myhealth.common.errors import Unavailable
from myhealth.common.notify import notify_sync
from myhealth.intake.batch import Batch, ConcurrentChange
from myhealth.intake.bulk_insert import COPY_FROM_ROWS, copy_text
from myhealth.intake.parsed_record import ParsedRecord
from myhealth.intake.record import Record
from myhealth.intake.record_ids import Occurrences, Seen
from myhealth.intake.results import ImportSource, RecordResult, ValidatedRecord, counts, error
from myhealth.intake.single_insert import insert_one
from myhealth.intake.validation import accept_text, latest_moment, validate_record

ATTEMPTS = 3
RETRYABLE = (psycopg2.errors.DeadlockDetected, psycopg2.errors.SerializationFailure)


class _DryRun(Exception):
    """Rolls the batch back."""


class _NotAtomic(Exception):
    """Rolls the batch back: one of its records is refused, and it is all or nothing."""


class Intake:
    """Takes records of one origin in, batch by batch. `created`: how many patients were made for them."""

    def __init__(self, origin: ImportSource) -> None:
        self.origin = origin
        self.created = 0
        self._stored = Occurrences()
        self._refused = Occurrences()
        self._seen = Seen()

    def take(self, readings: Sequence[ParsedRecord], *, atomic: bool = False) -> list[RecordResult]:
        """Takes in one batch, in one transaction; the outcomes are in the order of the readings.

        When it returns, everything that it calls accepted or duplicate is committed. `atomic`: one refused record
        refuses them all. Raises Unavailable where the database is away; the source may then be taken in again, from
        its beginning, by another Intake.
        """
        return self.store(self.check(readings), atomic=atomic)

    def take_noted(self, readings: Sequence[ParsedRecord], *, atomic: bool = False) -> list[RecordResult]:
        """As `take`, with an event of the upload, which is kept if what it tells of is kept; the caller announces."""
        checked = self.check(readings)
        if len(checked) == 1 and (outcome := insert_one(self.origin, checked[0])):
            outcomes = [outcome]
        else:
            with transaction():
                outcomes = self.store(checked, atomic=atomic)
                found: dict[str, Any] = counts(outcomes)
                record_event("upload", subject=_only_patient(checked), machine=self.origin.machine, **found)
        return outcomes

    def check(self, readings: Sequence[ParsedRecord]) -> list[ValidatedRecord]:
        """What can be found out without the database; may run in another thread than `store`, ahead of it."""
        latest = latest_moment()
        checked = [self._check(reading, latest) for reading in readings]
        if len(checked) >= COPY_FROM_ROWS:
            for item in checked:
                if item.record is not None:
                    item.copied = copy_text(item.record)
        return checked

    def store(self, checked: Sequence[ValidatedRecord], *, atomic: bool = False) -> list[RecordResult]:
        """The second half of `take`."""
        for attempt in range(ATTEMPTS):
            batch = Batch(self.origin, checked)
            try:
                with transaction() as cursor:
                    batch.store(cursor)
                    if atomic and batch.refused:
                        raise _NotAtomic
                    batch.store_rejections_of(cursor, self._refused)
                    if self.origin.dry_run:
                        raise _DryRun
                notify_sync()
                self.created += len(batch.created)
                return batch.outcomes
            except _DryRun:
                batch.compare_with(self._seen)
                self.created += sum(self._seen.content(f"patient {name}", "") is None for name in batch.created)
                return batch.outcomes
            except _NotAtomic:
                return self._refuse_all(batch)
            except psycopg2.DataError as error:
                return self._find_culprit(checked, error, atomic)
            except ConcurrentChange as error:
                if attempt == ATTEMPTS - 1:
                    raise Unavailable(str(error)) from None
            except (psycopg2.errors.ForeignKeyViolation, psycopg2.errors.UniqueViolation, Unavailable) as error:
                # a patient or a machine went or came between two of our statements, or two waited for each other
                if attempt == ATTEMPTS - 1 or (isinstance(error, Unavailable) and not _is_deadlock(error)):
                    raise Unavailable(f"the records could not be stored: {first_line(error)}") from error
        raise AssertionError("unreachable")

    def _find_culprit(
        self, checked: Sequence[ValidatedRecord], error: psycopg2.DataError, atomic: bool
    ) -> list[RecordResult]:
        """PostgreSQL refuses something that our check let pass: it costs its own record only."""
        if len(checked) > 1 and not atomic:
            half = len(checked) // 2
            return [*self.store(checked[:half]), *self.store(checked[half:])]
        for item in checked:
            item.record, item.faults = None, [("", f"PostgreSQL refuses it: {first_line(error)}")]
        return self.store(checked, atomic=atomic)

    def _check(self, reading: ParsedRecord, latest: datetime) -> ValidatedRecord:
        if reading.faults:
            return ValidatedRecord(reading, None, reading.faults)
        faults: list[tuple[str, str]] = []
        record = accept_text(reading, self.origin.machine, latest)
        if record is None:
            said = reading.decoded()
            if reading.faults:
                return ValidatedRecord(reading, None, reading.faults)
            record, faults = validate_record(self._about(said), self.origin.machine)
        if record is None:
            return ValidatedRecord(reading, None, faults)
        origin = self.origin
        if origin.patient and not _same_name(record.checkup_for, origin.patient):
            return ValidatedRecord(reading, None, [("checkup_for", f"is not {origin.patient}, whose all records are")])
        if record.record_id is None and origin.derive_ids:
            record.record_id = self._stored.name(record.content())
        return ValidatedRecord(reading, record, [], self._names(reading, record))

    def _names(self, reading: ParsedRecord, record: Record) -> tuple[str, ...]:
        """The usernames that the record's patient may have."""
        origin = self.origin
        names = (origin.patient,) if origin.patient else reading.patients or (record.checkup_for,)
        names = (*map(_composed, names),)
        for name in names if origin.patient_map else ():
            if name in origin.patient_map:
                return (origin.patient_map[name],)
        return names

    def _about(self, record: Any) -> Any:
        """The record, about the patient whom all records of this origin are about, if it names none."""
        if self.origin.patient and isinstance(record, dict):
            record.setdefault("checkup_for", self.origin.patient)
        return record

    def _refuse_all(self, batch: Batch) -> list[RecordResult]:
        for outcome in batch.outcomes:
            if not outcome.errors:  # a good one: whoever sent it still has it
                message = "not stored: another record of this all-or-nothing request was refused"
                outcome.errors = [error(outcome.index, None, message)]
            outcome.status, outcome.id, outcome.rejection_id = "rejected", None, None
        if not self.origin.dry_run:
            with transaction() as cursor:
                batch.store_rejections_of(cursor, self._refused)
        return batch.outcomes


def _composed(name: str) -> str:
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _only_patient(checked: Sequence[ValidatedRecord]) -> str | None:
    """Whom all the records are about, where that is one person."""
    named = {item.patients for item in checked}
    return next(iter(named))[0] if len(named) == 1 and () not in named else None


def _same_name(one: str, other: str) -> bool:
    return _composed(one).lower() == _composed(other).lower()


def _is_deadlock(error: Unavailable) -> bool:
    return error.__cause__ is not None and isinstance(cause_of(error.__cause__), RETRYABLE)
