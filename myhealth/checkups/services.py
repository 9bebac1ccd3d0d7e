"""Looking at check-ups in the source of truth, and correcting them."""

from __future__ import annotations

from typing import Any

from myhealth.audit.trail import note
from myhealth.checkups.records import check_record
from myhealth.checkups.superseded import COLUMNS, keep
from myhealth.common.database import transaction
from myhealth.common.errors import BadInput, Conflict, NotFound
from myhealth.profiles.models import User

CHANGEABLE = ("checkup_type", "checkup_report", "disease", "taken_by", "taken_at", "results")
SELECT = """
select checkups.id, username, serial as machine, record_id, checkup_type, checkup_report, disease, taken_by, taken_at,
       results::text, checkups.created_at, checkups.updated_at, checkups.revision, patient_id
from checkups join users on users.id = patient_id left join machines on machines.id = machine_id"""
NAMES = (
    "id",
    "username",
    "machine",
    "record_id",
    "checkup_type",
    "checkup_report",
    "disease",
    "taken_by",
    "taken_at",
    "results",
    "created_at",
    "updated_at",
    "revision",
    "patient_id",
)


def list_checkups(*, patient_id: int | None = None, before: int | None = None, limit: int) -> list[dict[str, Any]]:
    """Check-ups, the one stored last first; those with an id below `before`, at most `limit`. `results`: JSON text."""
    conditions, values = ["true"], []
    if patient_id is not None:
        conditions.append("patient_id = %s")
        values.append(patient_id)
    if before is not None:
        conditions.append("checkups.id < %s")
        values.append(before)
    with transaction() as cursor:
        cursor.execute(
            f"{SELECT} where {' and '.join(conditions)} order by checkups.id desc limit %s", (*values, limit)
        )
        return [dict(zip(NAMES, row, strict=True)) for row in cursor.fetchall()]


def get_checkup(patient_id: int, checkup_id: int) -> dict[str, Any]:
    """One check-up of this patient. Raises NotFound, also for one of somebody else's."""
    with transaction() as cursor:
        cursor.execute(f"{SELECT} where checkups.id = %s and patient_id = %s", (checkup_id, patient_id))
        row = cursor.fetchone()
    if row is None:
        raise NotFound("There is no such check-up.", code="unknown_checkup")
    return dict(zip(NAMES, row, strict=True))


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
            keep(cursor, row[1:], deleted=False)
            assignments = ", ".join(f"{name} = %s" for name in values)
            cursor.execute(f"update checkups set {assignments} where id = %s", (*values.values(), checkup_id))
            _note("checkup.change", patient_id, checkup_id, changed=sorted(values))
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
        keep(cursor, row, deleted=True)
        _note("checkup.delete", patient_id, checkup_id)


def _checked(changes: dict[str, Any]) -> dict[str, Any]:
    """The columns' new values; what a record could not hold cannot be changed to either."""
    whole = {"checkup_for": "-", "checkup_type": "-", "checkup_report": "", "disease": ""}
    record, faults = check_record({**whole, **{k: v for k, v in changes.items() if k != "revision"}})
    if record is None:
        errors = [{"index": None, "field": field, "message": message} for field, message in faults]
        raise BadInput("The check-up was not changed.", errors=errors)
    if "taken_at" in changes and record.taken_at is None:
        errors = [{"index": None, "field": "taken_at", "message": "must be a moment"}]
        raise BadInput("The check-up was not changed.", errors=errors)
    return {name: getattr(record, name) for name in CHANGEABLE if name in changes}


def _note(action: str, patient_id: int, checkup_id: int, **details: Any) -> None:
    patient = User.get_or_none(User.id == patient_id)
    name = patient.username if patient else None
    note(action, subject_id=patient_id, subject=name, checkup=checkup_id, **details)
