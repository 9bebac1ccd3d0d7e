"""The earlier versions of check-ups, each whole."""

from collections.abc import Iterable
from typing import Any

from peewee import JOIN

from myhealth.audit.events import current_actor, record_event
from myhealth.checkups.columns import REVIEW
from myhealth.checkups.models import Checkup, CheckupVersion
from myhealth.common.database import database, transaction
from myhealth.common.errors import NotFound
from myhealth.profiles.models import User

CORRECTED = "corrected"  # here, by a person; other reasons are a source's
NOT_KEPT = ["id", "patient_id", "machine_id", "revision", "changed_in", *REVIEW]
# Raw SQL: a whole row as JSON, and the versions of thousands of check-ups at once.
KEEP = """
insert into checkup_versions (checkup_id, revision, replaced_by, reason, content)
select id, revision, %s, %s, to_jsonb(t) - %s::text[]
from checkups t where id = %s"""
FIND = """
select checkup_id, reason, content::text from checkup_versions where checkup_id = any(%s)
order by checkup_id, revision"""


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
    kept = CheckupVersion
    columns = kept.revision, kept.replaced_at, User.username.alias("replaced_by"), kept.reason
    versions = kept.select(*columns, kept.content.cast("text").alias("content")).where(kept.checkup == checkup_id)
    versions = versions.join(User, JOIN.LEFT_OUTER, on=User.id == kept.replaced_by).order_by(kept.revision.desc())
    with transaction():
        patient = User.select(User.id, User.username).join(Checkup).where(Checkup.id == checkup_id).first()
        if patient is None or patient_id not in (None, patient.id):
            raise NotFound("There is no such check-up.", code="unknown_checkup")
        record_event("read", subject_id=patient.id, subject=patient.username, what="history", checkup=checkup_id)
        found: list[Any] = list(versions.dicts())
        return found
