"""The identifiers of patients: numbers that authorities gave them. Each function opens its own transaction."""

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from myhealth.audit.events import record_event
from myhealth.common.database import notify_sync, transaction
from myhealth.common.errors import BadInput, Conflict, NotFound
from myhealth.common.text import printable
from myhealth.profiles.held_names import erased_form, find_erased_names, forget_erased_name
from myhealth.profiles.models import FHIR_REFERENCE, Key, PatientIdentifier, User, reference_system
from myhealth.profiles.names import authority_forms
from myhealth.profiles.services import get_user

IDENTIFIER_MAX = 500
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def list_identifiers(user: User) -> list[Key]:
    """Return a user's identifiers as (system, value)."""
    own = PatientIdentifier.patient == user.id
    query = PatientIdentifier.select(PatientIdentifier.system, PatientIdentifier.value).where(own)
    query = query.where(PatientIdentifier.system != "", ~PatientIdentifier.system.startswith(FHIR_REFERENCE))
    with transaction():
        return [(found.system, found.value) for found in query.order_by(PatientIdentifier.id)]


def add_identifier(username: str, system: str, value: str, *, reuse_erased: bool = False) -> User:
    """Give a user an identifier, and forget the name under which sources sent it. Return the user.

    `reuse_erased`: also one of a user who was deleted. Raises BadInput, NotFound, or Conflict if another user has it
    (code `identifier_taken`) or it was erased (`name_erased`).
    """
    forms, value = authority_forms(clean_part("authority", system)), clean_part("value", value)
    system = forms[0]
    user = get_user(username)
    erased = [erased_form(form, value) for form in forms]
    with transaction() as cursor:
        if reuse_erased:
            for each in erased:
                forget_erased_name(each)
        elif find_erased_names(cursor, erased):
            raise Conflict(f"the user with {value} of {system} was erased; see --reuse-erased", code="name_erased")
        same = PatientIdentifier.system.in_(forms) & (PatientIdentifier.value == value)
        holder = User.select(User.username).join(PatientIdentifier).where(same, PatientIdentifier.patient != user.id)
        insert = PatientIdentifier.insert(patient=user.id, system=system, value=value).on_conflict(
            conflict_target=[PatientIdentifier.value, PatientIdentifier.system],
            update={PatientIdentifier.source_name: None},
            where=PatientIdentifier.patient == user.id,
        )
        if not list(insert.returning(PatientIdentifier.id).execute()) or holder.exists():
            raise Conflict(f"{value} of {system} is {holder.scalar()}'s", code="identifier_taken")
        _record(user, f"identifier of {system} added")
    notify_sync()
    return user


def remember_name(user: User, name: str, *keys: Key) -> None:
    """Store the name that a register has for a user with these identifiers and the username: records with another name
    contradict it. The user's full name cannot serve for that, because its owner may change it."""
    rows = [
        {"patient": user.id, "system": system, "value": value, "source_name": name}
        for system, value in (("", user.folded_name), *keys)
    ]
    with transaction():
        PatientIdentifier.insert_many(rows).on_conflict(
            conflict_target=[PatientIdentifier.value, PatientIdentifier.system],
            preserve=[PatientIdentifier.patient, PatientIdentifier.source_name],
            where=(PatientIdentifier.patient == user.id) | (PatientIdentifier.system == ""),
        ).execute()


def set_identifiers(username: str, wanted: Sequence[Any]) -> None:
    """Give a user exactly these identifiers, each with `system` and `value`. Raises as `add_identifier`."""
    if not all(isinstance(each, dict) and each.keys() == {"system", "value"} for each in wanted):
        raise BadInput("identifiers: each has a system and a value")
    keys = [
        (authority_forms(clean_part("system", each["system"]))[0], clean_part("value", each["value"]))
        for each in wanted
    ]
    with transaction():
        held = list_identifiers(get_user(username))
        for key in held:
            if key not in keys:
                remove_identifier(username, *key)
        for key in keys:
            if key not in held:
                add_identifier(username, *key)


def remove_identifier(username: str, system: str, value: str) -> None:
    """Take an identifier, and what FHIR references it explains, from a user. Raises NotFound."""
    user = get_user(username)
    own = PatientIdentifier.patient == user.id
    with transaction():
        delete, forms = PatientIdentifier.delete(), authority_forms(system)
        if not delete.where(own, PatientIdentifier.system.in_(forms), PatientIdentifier.value == value).execute():
            raise NotFound(f"{user.username} has no identifier {printable(value)} of {printable(system)}")
        references = [FHIR_REFERENCE + form for form in forms]  # of earlier releases
        references += [reference_system(form, user.id) for form in forms]
        delete.where(own, PatientIdentifier.system.in_(references)).execute()
        _record(user, f"identifier of {system} removed")
    notify_sync()


def clean_part(name: str, text: object) -> str:
    """Return an authority or a value as it is stored, without blanks around it. Raises BadInput."""
    cleaned = unicodedata.normalize("NFC", text).strip() if isinstance(text, str) else ""
    if not cleaned or len(cleaned) > IDENTIFIER_MAX or CONTROL.search(cleaned):
        raise BadInput(f"the {name} must be text of 1 to {IDENTIFIER_MAX} characters, without control characters")
    if cleaned.startswith(FHIR_REFERENCE):
        raise BadInput(f"the {name} must not begin with {FHIR_REFERENCE}")
    return cleaned


def _record(user: User, change: str) -> None:
    record_event("user.change", subject_id=user.id, subject=user.username, changed=change)
