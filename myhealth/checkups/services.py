"""Read check-ups in the source of truth."""

from __future__ import annotations

from typing import Any

from myhealth.audit.events import record_event
from myhealth.common.database import transaction
from myhealth.common.errors import NotFound
from myhealth.profiles.models import User

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


def record_change(action: str, patient_id: int, checkup_id: int, **details: Any) -> None:
    patient = User.get_or_none(User.id == patient_id)
    name = patient.username if patient else None
    record_event(action, subject_id=patient_id, subject=name, checkup=checkup_id, **details)
