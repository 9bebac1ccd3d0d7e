"""Store a rejected record after all, once the reason for its rejection is gone."""

from __future__ import annotations

from typing import Any

from myhealth.audit.events import record_event
from myhealth.common.database import transaction
from myhealth.common.errors import Conflict
from myhealth.intake.file_import import read_zone
from myhealth.intake.formats.registry import get_format
from myhealth.intake.models import Rejection
from myhealth.intake.parsed_record import ParsedRecord
from myhealth.intake.pipeline import Intake
from myhealth.intake.rejections import get_rejection, patient_named, payload_text, resolve
from myhealth.intake.results import ImportSource, RecordResult, error

# The patient of a check-up, if the account was registered by its user after a moment.
REGISTERED = """
select users.username from checkups join users on users.id = patient_id
where checkups.id = %s and exists (
    select from audit_events where action = 'register' and subject_id = users.id and at > %s)"""
# Another check-up without a record_id that has the same content and was stored since.
TWIN = """
select other.id from checkups as one join checkups as other on other.patient_id = one.patient_id
    and other.id <> one.id and other.record_id is null and other.machine_id is not distinct from one.machine_id
    and other.checkup_type = one.checkup_type and other.checkup_report = one.checkup_report
    and other.disease = one.disease and other.taken_by is not distinct from one.taken_by and other.results = one.results
where one.id = %s and one.record_id is null and other.created_at >= %s limit 1"""


class _StillRejected(Exception):
    """Roll the attempt back."""


def retry_rejection(rejection_id: int, *, trust_registrations: bool = False) -> RecordResult:
    """Store the record as if it came now, under the record_id that it had then. If it is rejected again, it stays
    rejected, with the errors of today.

    If its patient was unknown and the name was registered since, the record is rejected unless `trust_registrations`:
    anybody may register any name. A record without a record_id that was sent again meanwhile is a duplicate of that
    one. Raises NotFound, or Conflict if the rejection is resolved.
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
    result: RecordResult
    try:
        with transaction() as cursor:
            result = Intake(origin).store_batch([_reread(rejection)])[0]
            if result.status == "accepted":
                _check_changes(cursor, rejection, result, trust_registrations)
            if result.status == "rejected":
                raise _StillRejected
            resolve(rejection_id, result.status, result.id)
            record_event("rejection.retry", subject=patient_named(rejection), rejection=rejection_id, checkup=result.id)
    except _StillRejected:
        with transaction():
            Rejection.update(errors=result.errors).where(Rejection.id == rejection_id).execute()
        result.rejection_id = rejection_id
    return result


def _check_changes(cursor: Any, rejection: Rejection, result: RecordResult, trust_registrations: bool) -> None:
    """Reject the stored record if its user registered since; replace it by its twin if one was stored since."""
    cursor.execute(REGISTERED, (result.id, rejection.received_at))
    registered = cursor.fetchone()
    if registered is not None and not trust_registrations:
        message = (
            f"{registered[0]} made the account after this record had come; if it is the same person, say so with"
            " --trust-registrations"
        )
        result.status, result.errors = "rejected", [error(result.index, "checkup_for", message, "registered_since")]
        return
    cursor.execute(TWIN, (result.id, rejection.received_at))
    twin = cursor.fetchone()
    if twin is not None:
        cursor.execute("delete from checkups where id = %s", (result.id,))
        result.status, result.id = "duplicate", twin[0]


def _reread(rejection: Rejection) -> ParsedRecord:
    """Read the record again, with the number and the patient that were found for it when it first came."""
    context = rejection.context
    found = get_format(context.get("format") or "")
    parsed = found.reread(found, payload_text(rejection), read_zone(context.get("zone") or "UTC"))
    parsed.index, parsed.line = context.get("index") or 0, context.get("line") or 1
    parsed.patients = tuple(context.get("patients") or parsed.patients)
    record = None if parsed.faults else parsed.decoded()
    if isinstance(record, dict) and context.get("record_id") and record.get("record_id") is None:
        record["record_id"] = context["record_id"]
    return parsed
