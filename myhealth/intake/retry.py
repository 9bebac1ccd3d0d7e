"""Store rejected records after all, once the reason for their rejection is gone; link accounts, for which some wait."""

from collections import Counter
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from peewee import Expression, fn

from myhealth.audit.events import record_event
from myhealth.audit.models import AuditEvent
from myhealth.checkups.models import CHANGEABLE, Checkup
from myhealth.common.database import transaction
from myhealth.common.errors import Conflict
from myhealth.common.text import fold_name
from myhealth.intake.formats.format import Format
from myhealth.intake.formats.registry import OBJECT, get_format
from myhealth.intake.formats.tables.layout import GUESSED, Layout, parse_layout
from myhealth.intake.formats.terminology import read_zone
from myhealth.intake.models import Rejection
from myhealth.intake.parsed_record import ParsedRecord, named_in
from myhealth.intake.pipeline import Intake
from myhealth.intake.record_ids import is_derived
from myhealth.intake.rejections import get_rejection, patient_named, payload_text, resolve
from myhealth.intake.results import ImportSource, RecordResult, error
from myhealth.profiles.models import User
from myhealth.profiles.names import username_error
from myhealth.profiles.services import link_user, names_in_rejections

DIGEST_START, DIGEST_LENGTH = "sha256:", len("sha256:") + 40
# A record that comes again need not have the same moment: without one it was stored with that of its upload.
CONTENT_NAMES = ("patient_id", "machine_id", *(name for name in CHANGEABLE if name != "taken_at"))


class _StillRejected(Exception):
    """Roll the attempt back."""


def retry_rejection(
    rejection_id: int,
    *,
    own_authorities: Collection[str] = (),
    patient: str | None = None,
    correction: str = "",
    correction_format: str = OBJECT.name,
    names_fields: bool = True,
) -> RecordResult:
    """Try to store a rejected record again, under its first record_id. If it is rejected again, store the new errors.
    `patient`: the username of its patient, whatever it says. `correction`: a check-up record to store in its place,
    as JSON or in another format; it is kept beside the record as sent, and later retries use it. `names_fields`: as in
    ImportSource.

    An account that its user registered after the record was received, and that staff did not review, may belong to
    another person: its records are rejected again. A record without a record_id that was sent again meanwhile is a
    duplicate of the later one. Raises NotFound, or Conflict if the rejection is resolved.
    """
    rejection = get_rejection(rejection_id)
    if rejection.resolved_at is not None:
        raise Conflict(f"rejection {rejection_id} has been dealt with already: {rejection.resolution}")
    if correction:
        _correct(rejection, correction, correction_format)
    corrected = {"context": rejection.context} if correction else {}
    origin = _origin(rejection, assigned=patient, own_authorities=own_authorities, names_fields=names_fields)
    unresolved = (Rejection.id == rejection_id) & Rejection.resolved_at.is_null()
    result: RecordResult
    try:
        with transaction():
            result = Intake(origin).store_batch([_with_moment(reread(rejection, patient), rejection)])[0]
            if result.status == "accepted":
                _check_changes(rejection, result)
            if result.status == "rejected":
                raise _StillRejected
            if corrected:
                Rejection.update(**corrected).where(unresolved).execute()
            resolve(rejection_id, result.status, result.id)
            subject = patient or patient_named(rejection)
            record_event("rejection.retry", subject=subject, rejection=rejection_id, checkup=result.id)
    except _StillRejected:
        with transaction():
            Rejection.update(errors=result.errors, **corrected).where(unresolved).execute()
        result.rejection_id = rejection_id
    return result


def _origin(rejection: Rejection, **given: Any) -> ImportSource:
    """Return the source as it was when the record first came, with the values `given` for this attempt."""
    context = rejection.context
    number = context.get("record_id")
    occurrence = str((number if is_derived(number) else context.get("occurrence")) or "").rpartition(":")[2]
    return ImportSource(
        rejection.source,
        context.get("machine"),
        context.get("format") or "",
        derive_ids=context.get("derive_ids", False),
        occurrence=int(occurrence) if occurrence.isdecimal() else 1,
        patient=context.get("patient"),
        overrides_machine=context.get("overrides_machine", False),
        zone=context.get("zone") or "UTC",
        layout=context.get("layout") or "",
        **given,
    )


def _correct(rejection: Rejection, correction: str, format_name: str) -> None:
    """Set the correction, and the patients whom it names, so that it is erased with each of them."""
    known = rejection.context.get("patients") or []
    rejection.context |= {"correction": correction, "correction_format": format_name}
    record = reread(rejection).record
    read = record.get("checkup_for") if isinstance(record, dict) and not _is_about_same(rejection, record) else None
    named = [*named_in(correction), *([read] if isinstance(read, str) else [])]
    usable = [name for name in named if not username_error(name)]
    rejection.context["patients"] = list(dict.fromkeys([*known, *usable]))


def _check_changes(rejection: Rejection, result: RecordResult) -> None:
    """Reject the stored record if its user registered since; replace it by its twin if one was stored since."""
    patient = User.select(User.id, User.username, User.needs_review).join(Checkup).where(Checkup.id == result.id).get()
    registered = AuditEvent.select().where(
        AuditEvent.action == "register", AuditEvent.subject_id == patient.id, AuditEvent.at > rejection.received_at
    )
    if patient.needs_review and registered.exists():
        message = (
            f"{patient.username} made the account after this record had come; if it is the same person, link it with"
            f" `myhealth users link {patient.username}`"
        )
        result.status, result.errors = "rejected", [error(result.index, "checkup_for", message, "registered_since")]
        return
    twin = _find_twin(result.id, rejection.received_at)
    if twin is not None:
        Checkup.delete().where(Checkup.id == result.id).execute()
        result.status, result.id = "duplicate", twin


def _find_twin(checkup_id: int | None, since: datetime) -> int | None:
    """Return the id of the check-up that was stored when the file came again with the patient or a value corrected.

    It was stored since and has the same content. Either both check-ups have no record_id; or both have numbers derived
    from different texts, the moments are the same, and no other rejection became the other check-up.
    """
    other = Checkup.alias()
    same = [
        Expression(getattr(other, name), "IS NOT DISTINCT FROM", Checkup._meta.columns[name]) for name in CONTENT_NAMES
    ]
    without_numbers = Checkup.record_id.is_null() & other.record_id.is_null()
    digests = [fn.left(each.record_id, DIGEST_LENGTH) for each in (Checkup, other)]
    derived = [digest.startswith(DIGEST_START) for digest in digests]
    others_text = derived[0] & derived[1] & (digests[0] != digests[1]) & (Checkup.taken_at == other.taken_at)
    claimed = Rejection.select(Rejection.checkup_id).where(Rejection.checkup_id.is_null(False))
    may_be = without_numbers | (others_text & other.id.not_in(claimed))
    query = Checkup.select(other.id.alias("twin_id")).join(other, on=(other.id != Checkup.id))
    query = query.where(Checkup.id == checkup_id, may_be, other.created_at >= since, *same)
    twin = query.order_by(other.id).tuples().first()
    return twin[0] if twin else None


def text_to_read(rejection: Rejection) -> tuple[Format, str]:
    """Return the format and the text of the record: as it was sent, or its correction."""
    context = rejection.context
    if correction := context.get("correction"):
        return get_format(context.get("correction_format") or OBJECT.name), correction
    return get_format(context.get("format") or ""), payload_text(rejection)


def layout_of(rejection: Rejection) -> Layout:
    """Return the layout that the record came with, if it is a table's."""
    return parse_layout(rejection.context["layout"]) if rejection.context.get("layout") else GUESSED


def _is_about_same(rejection: Rejection, record: dict[str, Any]) -> bool:
    """Return whether the correction names the patient as the record does that was sent. Then the patient who was found
    stays: the name may be another user's by now."""
    found = get_format(rejection.context.get("format") or "")
    parsed = found.reread(found, payload_text(rejection), UTC, layout_of(rejection))
    sent = parsed.record if parsed.faults else parsed.decoded()
    return isinstance(sent, dict) and all(sent.get(name) == record.get(name) for name in ("checkup_for", "patient"))


def reread(rejection: Rejection, patient: str | None = None) -> ParsedRecord:
    """Read the record again, with the number and the patient that were found for it when it first came. `patient`: the
    patient whom a person names. A number that was derived from the content then changes, as after a correction."""
    context = rejection.context
    correction = context.get("correction")
    found, text = text_to_read(rejection)
    parsed = found.reread(found, text, read_zone(context.get("zone") or "UTC"), layout_of(rejection))
    parsed.index, parsed.line = context.get("index") or 0, context.get("line") or 1
    record = None if parsed.faults else parsed.decoded()
    has_patient = isinstance(record, dict) and record.get("patient")
    # Earlier releases took numbers with an authority for names too. A correction says itself whose it is.
    keeps_patient = not correction or (isinstance(record, dict) and _is_about_same(rejection, record))
    if keeps_patient and ("identifiers" in context or not has_patient):
        parsed.patients = tuple(context.get("patients") or parsed.patients)
    number = context.get("record_id")
    changes_content = (correction or patient) and context.get("derive_ids") and is_derived(number)
    if isinstance(record, dict) and number and record.get("record_id") is None and not changes_content:
        record["record_id"] = number
    return parsed


def _with_moment(parsed: ParsedRecord, rejection: Rejection) -> ParsedRecord:
    """Use the time of receipt as the moment of a record that a live upload sent without one: it was measured then, not
    now."""
    record = None if parsed.faults else parsed.decoded()
    is_live = not rejection.context.get("derive_ids", False)
    if is_live and isinstance(record, dict) and record.get("taken_at") is None and "taken_precision" not in record:
        record["taken_at"] = rejection.received_at.isoformat()
    return parsed


# Raw SQL: conditions on JSON.
# The errors that end when the account is linked, or that arose only because the patient was not known then.
IS_WAITING = """resolved_at is null
and jsonb_path_query_array(errors, '$[*].code') ?|
    array['account_not_linked', 'unknown_user', 'registered_since', 'ambiguous_user', 'identifier_unconfirmed',
          'identity_conflict']"""
WAITING = f"""
select id from rejections where {IS_WAITING} and (context->'patients' ?| %s::text[] or exists (
    select from patient_identifiers where patient_id = %s
        and context->'identifiers' @> jsonb_build_array(jsonb_build_array(system, value)))) order by id"""
WAITING_FOR_NAMES = f"select jsonb_array_elements_text(context->'patients'), id from rejections where {IS_WAITING}"


def count_waiting() -> Counter[str]:
    """Return the number of rejected records that wait for an account to be linked, by its folded name."""
    with transaction() as cursor:
        cursor.execute(WAITING_FOR_NAMES)
        return Counter(name for name, _ in {(fold_name(name), id_) for name, id_ in cursor.fetchall()})


def link_patient(username: str, own_authorities: Collection[str] = ()) -> Counter[str]:
    """Link the account, and store the rejected records that waited for that; return their number by result.

    If it is interrupted, linking again goes on. Raises NotFound.
    """
    return store_waiting(link_user(username), own_authorities)


def store_waiting(user: User, own_authorities: Collection[str] = ()) -> Counter[str]:
    """Try again to store the rejected records that waited for this user's name, link or identifiers; return their
    number by result."""
    waiting = find_waiting(user)
    done: Counter[str] = Counter(accepted=0, duplicate=0, rejected=0)
    for rejection_id in waiting:
        try:
            done[retry_rejection(rejection_id, own_authorities=own_authorities).status] += 1
        except Conflict:  # another process resolved it
            continue
    return done


def find_waiting(user: User) -> list[int]:
    """Return the ids of the rejected records that wait for this user's name, link or identifiers."""
    with transaction() as cursor:
        cursor.execute(WAITING, (names_in_rejections(cursor, user), user.id))
        return [id_ for (id_,) in cursor.fetchall()]
