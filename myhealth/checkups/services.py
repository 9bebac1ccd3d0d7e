"""Read check-ups in the source of truth. Nothing that its source withdrew is among them."""

from typing import Any

import peewee

from myhealth.audit.events import record_event
from myhealth.checkups.columns import SHOWN_COLUMNS, select_fields
from myhealth.checkups.models import Checkup
from myhealth.checkups.withdrawn import shown_results
from myhealth.clinical.status import WITHDRAWN
from myhealth.common.database import transaction
from myhealth.common.errors import NotFound
from myhealth.machines.models import Machine
from myhealth.profiles.models import User


def list_checkups(*, patient_id: int | None = None, before: int | None = None, limit: int) -> list[dict[str, Any]]:
    """Return at most `limit` check-ups, the newest id first, each as `get_checkup` returns it. `before`: only ids below
    it."""
    query = _select().order_by(Checkup.id.desc()).limit(limit)
    if patient_id is not None:
        query = query.where(Checkup.patient == patient_id)
    if before is not None:
        query = query.where(Checkup.id < before)
    with transaction():
        return [_with_shown_results(row) for row in query.dicts()]


def get_checkup(patient_id: int, checkup_id: int) -> dict[str, Any]:
    """Return one check-up of this patient by column name, with the patient's `username` and the serial as `machine`.
    `results` is JSON text. Raises NotFound, also for a check-up of another patient."""
    with transaction():
        found = _select().where(Checkup.id == checkup_id, Checkup.patient == patient_id).dicts().first()
    if found is None:
        raise NotFound("There is no such check-up.", code="unknown_checkup")
    return _with_shown_results(found)


def _select() -> Any:
    return (
        Checkup.select(
            Checkup.id,
            User.username,
            Machine.serial.alias("machine"),
            *select_fields(
                (*(column.name for column in SHOWN_COLUMNS), "created_at", "updated_at", "revision", "patient_id")
            ),
        )
        .join(User)
        .switch(Checkup)
        .join(Machine, peewee.JOIN.LEFT_OUTER)
        .where(Checkup.status.is_null() | (Checkup.status != WITHDRAWN))
    )


def _with_shown_results(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "results": shown_results(row["results"])}


def record_change(action: str, patient_id: int, checkup_id: int, **details: Any) -> None:
    """Add an audit event of a correction or a deletion, within the caller's transaction."""
    patient = User.get_or_none(User.id == patient_id)
    name = patient.username if patient else None
    record_event(action, subject_id=patient_id, subject=name, checkup=checkup_id, **details)
