"""Correct or delete a stored check-up."""

from typing import Any

from myhealth.checkups.models import CHANGEABLE, Checkup, select_fields
from myhealth.checkups.services import CORRECTED, Change, change_checkups, get_checkup, record_changes
from myhealth.clinical.status import WITHDRAWN
from myhealth.common.database import transaction
from myhealth.common.errors import BadInput, Conflict, NotFound
from myhealth.intake.content import keyed
from myhealth.intake.merge import corrected
from myhealth.intake.originals import ORIGINAL_NAMES, remember_original
from myhealth.intake.record import decode_json, encode_json
from myhealth.intake.validation import validate_record


def change_checkup(patient_id: int, checkup_id: int, changes: dict[str, Any]) -> dict[str, Any]:
    """Correct the columns that `changes` names and return the check-up. `revision`, if given, must be the stored one.

    The patient, the machine and the record_id never change. Raises NotFound, BadInput with the place of every error,
    Conflict (code `changed_meanwhile`) if the revision is another one.
    """
    known = (*CHANGEABLE, "revision")
    unknown = [{"index": None, "field": name, "message": "cannot be changed"} for name in changes if name not in known]
    if unknown:
        raise BadInput(f"These can be changed: {', '.join(CHANGEABLE)}.", errors=unknown)
    with transaction():
        wanted = Checkup.select(*select_fields(("revision", *ORIGINAL_NAMES)))
        row = wanted.where(Checkup.id == checkup_id, Checkup.patient == patient_id).for_update().dicts().first()
        if row is None or row["status"] == WITHDRAWN:
            raise NotFound("There is no such check-up.", code="unknown_checkup")
        revision = row["revision"]
        if changes.get("revision", revision) != revision:
            message = f"The check-up has been changed meanwhile; it is at revision {revision} now."
            raise Conflict(message, code="changed_meanwhile")
        values = _validated(changes)
        if "taken_at" in values:
            values.setdefault("taken_precision", None)
        if values:
            if "results" in values:
                values["results"] = _corrected_results(values["results"], row["results"])
            remember_original(row, deleted=False)
            change_checkups([Change(checkup_id, patient_id, CORRECTED, values)])
    return get_checkup(patient_id, checkup_id, withdrawn=True)


def delete_checkup(patient_id: int, checkup_id: int) -> None:
    """Delete a check-up. The sync deletes its report, and a resend from its machine does not store it again. Raises
    NotFound."""
    with transaction():
        deletion = Checkup.delete().where(Checkup.id == checkup_id, Checkup.patient == patient_id)
        row = next(iter(deletion.returning(*select_fields(ORIGINAL_NAMES)).dicts().execute()), None)
        if row is None:
            raise NotFound("There is no such check-up.", code="unknown_checkup")
        remember_original(row, deleted=True)
        record_changes("checkup.delete", [(checkup_id, patient_id, {})])


def _validated(changes: dict[str, Any]) -> dict[str, Any]:
    """Return the new value of each changed column. Raises BadInput for a value that no record may have."""
    whole = {"checkup_for": "-", "checkup_type": "-", "checkup_report": "", "disease": ""}
    record, faults = validate_record({**whole, **{k: v for k, v in changes.items() if k != "revision"}})
    if record is None:
        errors = [{"index": None, "field": field, "message": message} for field, message in faults]
        raise BadInput("The check-up was not changed.", errors=errors)
    if "taken_at" in changes and record.taken_at is None:
        errors = [{"index": None, "field": "taken_at", "message": "must be a moment"}]
        raise BadInput("The check-up was not changed.", errors=errors)
    return {name: getattr(record, name) for name in CHANGEABLE if name in changes}


def _corrected_results(new: str, old: str) -> str:
    """Return a person's correction of results, as JSON, with the numbers and values of those that it replaces.
    Results that the source withdrew are not shown to people, so a correction keeps them."""
    results, before = decode_json(new), [each for each in decode_json(old) if isinstance(each, dict)]
    named = {key for key, _ in keyed(results)}
    results += [each for key, each in keyed(before) if each.get("status") == WITHDRAWN and key not in named]
    return encode_json(corrected(results, before, None)).decode()
