"""Reviews of check-ups: that somebody has looked at the results, with a note for the patient."""

from datetime import UTC, datetime
from typing import Any

from myhealth.audit.events import current_actor
from myhealth.checkups.models import Checkup
from myhealth.checkups.services import get_checkup, record_change
from myhealth.common.database import transaction
from myhealth.common.errors import BadInput, Conflict
from myhealth.common.exact_numbers import whole_number

NOTE_MAX = 2000  # characters


def review_checkup(patient_id: int, checkup_id: int, note: Any = None, revision: Any = None) -> dict[str, Any]:
    """Store the caller's review in place of an earlier one, and return the check-up.

    `note`: for the patient; blank or None is none. `revision`, if given, must be the stored one. Raises NotFound,
    BadInput, Conflict (code `changed_meanwhile`).
    """
    text = "" if note is None else note
    if not isinstance(text, str) or len(text) > NOTE_MAX or "\0" in text:
        raise BadInput(f"note must be text of at most {NOTE_MAX} characters, without NUL.")
    revision = whole_number(revision)
    if revision is not None and type(revision) is not int:
        raise BadInput("revision must be a number.")
    by = {"reviewed_at": datetime.now(UTC), "reviewed_by": current_actor().id, "review_note": text.strip() or None}
    return _store(patient_id, checkup_id, by, revision)


def withdraw_review(patient_id: int, checkup_id: int) -> None:
    """Remove the review with its note. Raises NotFound."""
    nothing = {"reviewed_at": None, "reviewed_by": None, "review_note": None}
    _store(patient_id, checkup_id, nothing, None)


def _store(patient_id: int, checkup_id: int, values: dict[str, Any], revision: int | None) -> dict[str, Any]:
    with transaction():
        Checkup.select(Checkup.id).where(Checkup.id == checkup_id).for_update().execute()
        found = get_checkup(patient_id, checkup_id)["revision"]
        if revision not in (None, found):
            message = f"The check-up has been changed meanwhile; it is at revision {found} now."
            raise Conflict(message, code="changed_meanwhile")
        Checkup.update(values).where(Checkup.id == checkup_id).execute()
        taken_back = {} if values["reviewed_at"] else {"taken_back": True}
        record_change("checkup.review", patient_id, checkup_id, **taken_back)
        return get_checkup(patient_id, checkup_id)
