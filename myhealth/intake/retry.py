"""Taking a refused record in after all, once what stood against it has changed."""

from __future__ import annotations

import io
from json import JSONDecodeError
from typing import Any

from myhealth.audit.events import record_event
from myhealth.checkups.models import Rejection
from myhealth.common.database import transaction
from myhealth.common.errors import BadInput, Conflict
from myhealth.common.notify import notify_sync
from myhealth.intake.file_import import read_zone
from myhealth.intake.formats.detect import read_dump
from myhealth.intake.parsed_record import DECODER, ParsedRecord
from myhealth.intake.pipeline import Intake
from myhealth.intake.rejections import get_rejection, patient_named, payload_text, resolve
from myhealth.intake.results import ImportSource, RecordResult, error

# The patient of a check-up, if he or she made the account without anybody's help after a moment.
REGISTERED = """
select users.username from checkups join users on users.id = patient_id
where checkups.id = %s and exists (
    select from audit_events where action = 'register' and subject_id = users.id and at > %s)"""
# Another check-up without a number that says the same and has come since.
TWIN = """
select other.id from checkups as one join checkups as other on other.patient_id = one.patient_id
    and other.id <> one.id and other.record_id is null and other.machine_id is not distinct from one.machine_id
    and other.checkup_type = one.checkup_type and other.checkup_report = one.checkup_report
    and other.disease = one.disease and other.taken_by is not distinct from one.taken_by and other.results = one.results
where one.id = %s and one.record_id is null and other.created_at >= %s limit 1"""


class _StillRefused(Exception):
    """Rolls the attempt back."""


def retry_rejection(rejection_id: int, *, trust_registrations: bool = False) -> RecordResult:
    """Takes the record in as if it came now, under the number that it had then. Still refused, it stays as it was,
    with the errors of today.

    A record for a name that nobody had is not given to whoever made an account of that name since, unless
    `trust_registrations`: anybody may choose a name. A record without a number that has come again meanwhile is that
    one. Raises NotFound, or Conflict where it has been dealt with.
    """
    rejection = get_rejection(rejection_id)
    if rejection.resolved_at is not None:
        raise Conflict(f"rejection {rejection_id} has been dealt with already: {rejection.resolution}")
    context = rejection.context
    origin = ImportSource(
        rejection.source,
        context.get("machine"),
        context.get("format") or "",
        patient=context.get("patient"),
        zone=context.get("zone") or "UTC",
    )
    outcome: RecordResult
    try:
        with transaction() as cursor:
            outcome = Intake(origin).take([_reading(rejection)])[0]
            if outcome.status == "accepted":
                _look_again(cursor, rejection, outcome, trust_registrations)
            if outcome.status == "rejected":
                raise _StillRefused
            resolve(rejection_id, outcome.status, outcome.id)
            record_event(
                "rejection.retry", subject=patient_named(rejection), rejection=rejection_id, checkup=outcome.id
            )
    except _StillRefused:
        with transaction():
            Rejection.update(errors=outcome.errors).where(Rejection.id == rejection_id).execute()
        outcome.rejection_id = rejection_id
    notify_sync()
    return outcome


def _look_again(cursor: Any, rejection: Rejection, outcome: RecordResult, trust_registrations: bool) -> None:
    """What has changed since the record was refused, beside its own reason."""
    cursor.execute(REGISTERED, (outcome.id, rejection.received_at))
    registered = cursor.fetchone()
    if registered is not None and not trust_registrations:
        message = (
            f"{registered[0]} made the account after this record had come; if it is the same person, say so with"
            " --trust-registrations"
        )
        outcome.status, outcome.errors = "rejected", [error(outcome.index, "checkup_for", message, "registered_since")]
        return
    cursor.execute(TWIN, (outcome.id, rejection.received_at))
    twin = cursor.fetchone()
    if twin is not None:
        cursor.execute("delete from checkups where id = %s", (outcome.id,))
        outcome.status, outcome.id = "duplicate", twin[0]


def _reading(rejection: Rejection) -> ParsedRecord:
    """The record read again, with the number and the patient that were found for it when it first came."""
    context = rejection.context
    reading = _read(payload_text(rejection), context)
    reading.index, reading.line = context.get("index") or 0, context.get("line") or 1
    reading.patients = tuple(context.get("patients") or reading.patients)
    record = None if reading.faults else reading.decoded()
    if isinstance(record, dict) and context.get("record_id") and record.get("record_id") is None:
        record["record_id"] = context["record_id"]
        reading.distinct = False  # what its text says is no longer all of it
    return reading


def _read(raw: str, context: dict[str, Any]) -> ParsedRecord:
    if context.get("format") in ("fhir", "hl7"):
        source = io.BytesIO(raw.encode("utf-8", "surrogateescape"))
        zone = read_zone(context.get("zone") or "UTC")
        try:
            return next(iter(read_dump(source, format=context["format"], zone=zone).readings))
        except (BadInput, StopIteration) as fault:
            return ParsedRecord(0, 1, raw, None, [("", f"it cannot be read: {fault}")])
    try:
        return ParsedRecord(0, 1, raw, DECODER.decode(raw))
    except (JSONDecodeError, RecursionError) as fault:
        return ParsedRecord(0, 1, raw, None, [("", f"it is not JSON: {fault}")])
