"""Correct or delete a stored check-up."""

from __future__ import annotations

from typing import Any

from myhealth.checkups.services import get_checkup, record_change
from myhealth.common.database import transaction
from myhealth.common.errors import BadInput, Conflict, NotFound
from myhealth.intake.originals import COLUMNS, remember_original
from myhealth.intake.validation import validate_record

CHANGEABLE = ("checkup_type", "checkup_report", "disease", "taken_by", "taken_at", "results")


def change_checkup(patient_id: int, checkup_id: int, changes: dict[str, Any]) -> dict[str, Any]:
    """Corrects the fields that `changes` names; `revision` among them must be the one that is stored.

    The patient, the machine and the machine's number for the record never change. Raises NotFound, BadInput with every
    fault's place, Conflict (code `changed_meanwhile`) where somebody has corrected it since.
    """
    known = (*CHANGEABLE, "revision")
    unknown = [{"index": None, "field": name, "message": "cannot be changed"} for name in changes if name not in known]
    if unknown:
        raise BadInput(f"These can be changed: {', '.join(CHANGEABLE)}.", errors=unknown)
    with transaction() as cursor:
        cursor.execute(
            f"select revision, {COLUMNS} from checkups where id = %s and patient_id = %s for update",
            (checkup_id, patient_id),
        )
        row = cursor.fetchone()
        if row is None:
            raise NotFound("There is no such check-up.", code="unknown_checkup")
        if changes.get("revision", row[0]) != row[0]:
            message = f"The check-up has been changed meanwhile; it is at revision {row[0]} now."
            raise Conflict(message, code="changed_meanwhile")
        values = _checked(changes)
        if values:
            remember_original(cursor, row[1:], deleted=False)
            assignments = ", ".join(f"{name} = %s" for name in values)
            cursor.execute(f"update checkups set {assignments} where id = %s", (*values.values(), checkup_id))
            record_change("checkup.change", patient_id, checkup_id, changed=sorted(values))
    return get_checkup(patient_id, checkup_id)


def delete_checkup(patient_id: int, checkup_id: int) -> None:
    """Deletes a check-up; the sync carries it to the report store, and its machine does not bring it back. Raises
    NotFound."""
    with transaction() as cursor:
        cursor.execute(
            f"delete from checkups where id = %s and patient_id = %s returning {COLUMNS}", (checkup_id, patient_id)
        )
        row = cursor.fetchone()
        if row is None:
            raise NotFound("There is no such check-up.", code="unknown_checkup")
        remember_original(cursor, row, deleted=True)
        record_change("checkup.delete", patient_id, checkup_id)


def _checked(changes: dict[str, Any]) -> dict[str, Any]:
    """The columns' new values; what a record could not hold cannot be changed to either."""
    whole = {"checkup_for": "-", "checkup_type": "-", "checkup_report": "", "disease": ""}
    record, faults = validate_record({**whole, **{k: v for k, v in changes.items() if k != "revision"}})
    if record is None:
        errors = [{"index": None, "field": field, "message": message} for field, message in faults]
        raise BadInput("The check-up was not changed.", errors=errors)
    if "taken_at" in changes and record.taken_at is None:
        errors = [{"index": None, "field": "taken_at", "message": "must be a moment"}]
        raise BadInput("The check-up was not changed.", errors=errors)
    return {name: getattr(record, name) for name in CHANGEABLE if name in changes}
