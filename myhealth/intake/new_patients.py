"""Create users for the patients of records who are not known here."""

import itertools
import re
import unicodedata
from collections.abc import Collection, Sequence
from typing import Any

from msgspec import Struct
from psycopg2.extras import execute_values

from myhealth.audit.events import record_events
from myhealth.common.text import fold_name, printable
from myhealth.intake.identity import as_named_today
from myhealth.intake.results import ConcurrentChange, ValidatedRecord
from myhealth.profiles.held_names import find_erased_names
from myhealth.profiles.models import FHIR_REFERENCE, FULL_NAME_MAX, Key, reference_system
from myhealth.profiles.names import is_no_name, may_be_one_person, username_error

# Raw SQL: all patients of a batch in one statement.
CREATE_PATIENTS = """
insert into users (username, folded_name, full_name, birth_date, sex, linked_at)
select *, now() from unnest(%s::text[], %s::text[], %s::text[], %s::date[], %s::text[])
on conflict do nothing returning id, username"""
ADD_IDENTIFIERS = "insert into patient_identifiers (patient_id, system, value, source_name) values %s"
TAKEN = "select folded_name from users where folded_name = any(%s)"
NOT_IN_NAMES = re.compile(r"[^\w.@+-]+")
CLEANED_MAX = 100
SUFFIXES = 20  # tried at once
FULL_DATE = 10
MEANWHILE = "another session created the same patient; try again"


class NewPatient(Struct):
    """A patient to create. `wanted`: the username, as its source gives it. `username`: "" until one is found. `server`:
    the patient's address on its FHIR server, if that is known."""

    wanted: str
    full_name: str
    birth_date: str | None
    sex: str | None
    identifiers: dict[Key, None] = {}
    server: str = ""
    username: str = ""


class NewPatients:
    """The patients of records. `news`: by id, what senders must know of those whose username differs from the
    source's."""

    def __init__(self, items: Sequence[ValidatedRecord]) -> None:
        self.news: dict[int, str] = {}
        self._items = items

    def create(self, cursor: Any, users: Collection[str]) -> list[str]:
        """Create the patients, and return their usernames. `users`: names among the records' that are taken.

        Erased persons are not created. Raises ConcurrentChange."""
        erased = find_erased_names(cursor, {form for item in self._items for form in item.erased_forms})
        new = _group_by_identity(item for item in self._items if erased.isdisjoint(item.erased_forms))
        if not new:
            return []
        _choose_usernames(cursor, new, {*map(fold_name, users)})
        values = [(each.username, fold_name(each.username), each.full_name, each.birth_date, each.sex) for each in new]
        cursor.execute(CREATE_PATIENTS, [list(column) for column in zip(*values, strict=True)])
        created = cursor.fetchall()
        record_events("user.create", created, role="patient")
        ids = {username: id_ for id_, username in created}
        identified = [each for each in new if each.identifiers]
        if not all(each.username in ids for each in identified):
            raise ConcurrentChange(MEANWHILE)
        rows = [
            (id_, reference_system("", id_) if system == FHIR_REFERENCE else system, value, each.full_name or None)
            for each in identified
            for id_ in (ids[each.username],)
            for system, value in each.identifiers
        ]
        if rows:
            execute_values(cursor, ADD_IDENTIFIERS, rows)
        for each in identified:
            if each.username != each.wanted:
                system, value = next(iter(each.identifiers))
                system = system.removeprefix(FHIR_REFERENCE)
                shown = " of ".join(printable(each, 60) for each in (value, system) if each)
                self.news[ids[each.username]] = f"the patient with {shown} was created as {each.username}"
        return [*ids]


def _group_by_identity(items: Any) -> list[NewPatient]:
    """Return a patient for all records that have an identifier or a name in common."""
    new: list[NewPatient] = []
    known: dict[Key | str, NewPatient] = {}
    for item in items:
        server = [(FHIR_REFERENCE, item.reference)] if item.reference.startswith("http") else []
        keys: list[Key | str] = [*item.identifiers, *server, *map(fold_name, item.patients)]
        patient, full_name = item.patient, item.parsed.full_name or (item.patient and item.patient.name) or ""
        full_name = "" if is_no_name(full_name) else full_name[:FULL_NAME_MAX]
        found = next((known[key] for key in keys if key in known), None)
        if found and server and found.server not in ("", item.reference):  # the same id on another server
            found = known.get(server[0])
        if found is None:
            wanted = next((name for name in item.patients if not username_error(name)), None)
            if wanted is None and item.identifiers:
                wanted = item.identifiers[0][1]
            if wanted is None:
                continue
            born = patient and patient.birth_date
            found = NewPatient(wanted, full_name, None, patient and patient.sex)
            found.birth_date = born if born and len(born) == FULL_DATE else None
            new.append(found)
        elif not may_be_one_person(found.full_name, full_name):
            continue
        found.full_name = found.full_name or full_name
        found.identifiers.update(dict.fromkeys([*as_named_today(item.identifiers), *server]))
        found.server = found.server or (item.reference if server else "")
        known.update((key, found) for key in keys if key not in known)
    return new


def _choose_usernames(cursor: Any, new: Sequence[NewPatient], taken: set[str]) -> None:
    """Find a username for each: the wanted one if it is valid and free, else a cleaned one with a suffix."""
    waiting = []
    taken |= {*map(fold_name, find_erased_names(cursor, {each.wanted for each in new}))}
    for each in new:
        if username_error(each.wanted) or fold_name(each.wanted) in taken:
            waiting.append(each)
        else:
            each.username = each.wanted
            taken.add(fold_name(each.wanted))
    for start in itertools.count(2, SUFFIXES):
        if not waiting:
            return
        names = [[f"{_cleaned(each.wanted)}-{n}" for n in range(start, start + SUFFIXES)] for each in waiting]
        every = {name for tried in names for name in tried}
        cursor.execute(TAKEN, ([*map(fold_name, every)],))
        taken |= {folded for (folded,) in cursor.fetchall()} | {*map(fold_name, find_erased_names(cursor, every))}
        for each, tried in zip(waiting, names, strict=True):
            each.username = next((name for name in tried if fold_name(name) not in taken), "")
            taken.add(fold_name(each.username))
        waiting = [each for each in waiting if not each.username]


def _cleaned(value: str) -> str:
    cleaned = NOT_IN_NAMES.sub("-", unicodedata.normalize("NFKC", value)).strip("-.")[:CLEANED_MAX]
    return cleaned if cleaned and not username_error(cleaned) else "patient"
