"""Find the user whom each record of a batch is about, and say why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from myhealth.audit.events import record_events
from myhealth.common.text import fold_name, printable
from myhealth.intake.results import ERASED, ConcurrentChange, ImportSource, ValidatedRecord
from myhealth.profiles.erasure import find_erased_names
from myhealth.profiles.names import username_error
from myhealth.profiles.services import FULL_NAME_MAX

CREATE_PATIENTS = """
insert into users (username, folded_name, full_name, linked_at)
select *, now() from unnest(%s::text[], %s::text[], %s::text[]) on conflict do nothing returning id, username"""
FIND_USERS = "select folded_name, id, linked_at is not null from users where folded_name = any(%s)"
# A lock: an account that is linked at this moment takes in the records that are rejected before.
STILL_UNLINKED = "select id from users where id = any(%s) and linked_at is null for share"
LINKED_MEANWHILE = "an account was linked while records for it were rejected; try again"


class Refusal(NamedTuple):
    """Why a record has no patient here."""

    field: str
    message: str
    code: str


class Patients:
    """The patients of a batch's records. `created`: the usernames of those that were created. `erased`: the names among
    the records' that were erased."""

    def __init__(self, origin: ImportSource) -> None:
        self.origin = origin
        self.created: list[str] = []
        self.erased: set[str] = set()
        self._found: dict[str, tuple[int, bool]] = {}

    def look_up(self, cursor: Any, items: Sequence[ValidatedRecord]) -> None:
        """Find the users of the records; create missing patients if wanted. Raises ConcurrentChange."""
        names = {name for item in items for name in item.patients}
        self._found = _find_users(cursor, names)
        if self.origin.create_patients and self._create(cursor, items):
            self._found = _find_users(cursor, names)
        unlinked = {id_ for id_, linked in self._found.values() if not linked}
        if unlinked:
            cursor.execute(STILL_UNLINKED, (sorted(unlinked),))
            if cursor.rowcount != len(unlinked):
                raise ConcurrentChange(LINKED_MEANWHILE)
        self.erased = find_erased_names(cursor, names - self._found.keys())

    def of(self, item: ValidatedRecord) -> int | Refusal:
        """Return the id of the record's patient, who is one linked user, or why there is none. Accounts that are not
        linked make nothing ambiguous: anybody can register an account with another's number as its name."""
        found = {self._found[name] for name in item.patients if name in self._found}
        linked = [id_ for id_, is_linked in found if is_linked]
        if len(linked) == 1:
            return linked[0]
        shown = " or ".join(printable(name, 60) for name in item.patients)
        if found and not linked:
            message = f"the account {shown} is not linked to a person yet; an admin must link it"
            return Refusal("checkup_for", message, "account_not_linked")
        if not self.erased.isdisjoint(item.patients):
            return Refusal("checkup_for", f"the user {shown} was erased", ERASED)
        if linked:
            message = f"{shown} are different users here; say who is meant with a patient map"
            return Refusal("checkup_for", message, "ambiguous_user")
        faults = [username_error(name) for name in item.patients] if self.origin.create_patients else []
        fault = faults[0] if faults and all(faults) else ""
        return Refusal("checkup_for", fault or f"there is no user named {shown}", "unknown_user")

    def _create(self, cursor: Any, items: Sequence[ValidatedRecord]) -> bool:
        """Create the patients that are missing; return whether there were any."""
        missing = {}
        for item in items:
            if not any(name in self._found for name in item.patients):
                name = next((name for name in item.patients if not username_error(name)), None)
                if name is not None:
                    missing[name] = item.parsed.full_name[:FULL_NAME_MAX]
        for name in find_erased_names(cursor, missing):
            del missing[name]
        if missing:
            folded = [fold_name(name) for name in missing]
            cursor.execute(CREATE_PATIENTS, ([*missing], folded, [*missing.values()]))
            created = cursor.fetchall()
            record_events("user.create", created, role="patient")
            self.created = [name for _, name in created]
        return bool(missing)


def _find_users(cursor: Any, names: set[str]) -> dict[str, tuple[int, bool]]:
    """Return by name the id of its user and whether that is linked."""
    folds = {name: fold_name(name) for name in names}
    cursor.execute(FIND_USERS, (sorted(set(folds.values())),))
    found = {folded: (id_, linked) for folded, id_, linked in cursor.fetchall()}
    return {name: found[folded] for name, folded in folds.items() if folded in found}
