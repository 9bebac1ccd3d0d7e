"""The earlier versions of check-ups, each whole. SQL is raw: whole rows as JSON."""

from collections.abc import Iterable
from typing import Any

from myhealth.audit.events import current_actor, record_event
from myhealth.checkups.columns import REVIEW
from myhealth.common.database import database, transaction
from myhealth.common.errors import NotFound

CORRECTED = "corrected"  # here, by a person; other reasons are a source's
NOT_KEPT = ["id", "patient_id", "machine_id", "revision", "changed_in", *REVIEW]
KEEP = """
insert into checkup_versions (checkup_id, revision, replaced_by, reason, content)
select id, revision, %s, %s, to_jsonb(t) - %s::text[]
from checkups t where id = %s"""
FIND = """
select checkup_id, reason, content::text from checkup_versions where checkup_id = any(%s)
order by checkup_id, revision"""
LIST = """
select t.revision, replaced_at, username as replaced_by, reason, content::text
from checkup_versions t left join users on users.id = replaced_by
where checkup_id = %s order by t.revision desc"""
PATIENT = "select patient_id, username from checkups join users on users.id = patient_id where checkups.id = %s"


def keep_version(checkup_id: int, reason: str) -> None:
    """Store the check-up as it is, in the transaction that will change it. `reason`: as in CheckupVersion."""
    database.execute_sql(KEEP, (current_actor().id, reason, NOT_KEPT, checkup_id))


def find_versions(cursor: Any, checkup_ids: Iterable[int]) -> dict[int, list[tuple[str, str]]]:
    """Return by check-up the (reason, JSON text of the columns) of its earlier versions, the oldest first."""
    cursor.execute(FIND, (sorted(checkup_ids),))
    found: dict[int, list[tuple[str, str]]] = {}
    for checkup_id, *version in cursor.fetchall():
        found.setdefault(checkup_id, []).append((version[0], version[1]))
    return found


def open_history(checkup_id: int, patient_id: int | None = None) -> list[dict[str, Any]]:
    """Return the earlier versions of a check-up, the newest first, and log that access: `revision`, `replaced_at`,
    `replaced_by` (a username or None), `reason`, and `content`, the columns as JSON text. Raises NotFound, also for a
    check-up of another patient than `patient_id`."""
    with transaction() as cursor:
        cursor.execute(PATIENT, (checkup_id,))
        found = cursor.fetchone()
        if found is None or patient_id not in (None, found[0]):
            raise NotFound("There is no such check-up.", code="unknown_checkup")
        record_event("read", subject_id=found[0], subject=found[1], what="history", checkup=checkup_id)
        cursor.execute(LIST, (checkup_id,))
        names = [column.name for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
