"""The patient of a record as its source names it: usernames, and numbers that authorities gave. Pure."""

import csv
import re
import unicodedata
from collections.abc import Collection, Iterable
from functools import cached_property
from typing import Any

import msgspec

from myhealth.clinical.coding_systems import OUR_USERNAME
from myhealth.common.csv_writer import read_named_rows
from myhealth.common.errors import BadInput
from myhealth.common.spreadsheets import spoilt, unguarded
from myhealth.common.text import fold_name
from myhealth.intake.record_types import Identifier, Patient
from myhealth.profiles.models import FHIR_REFERENCE, Key
from myhealth.profiles.names import authority_forms, is_no_name, may_be_one_person, names_nobody

# HL7 table 0203: numbers of insurers, accounts, visits, banks and organisations are not the patient's own.
OTHERS_KIND = re.compile(
    "HC|SN|MB|MC[DNRT]?|MA|NIIP?|WCN?|PNT|AM|AN[CDT]?|ANON|VN|VS|ACSN|BA|BCT?|DI|DS|GCC|GI|CC|GN|XX"
    r"|.*\b(?:INSUR\w*|POLICY|MEMBER\w*|PAYER|CLAIM|ACCOUNT|VISIT|ENCOUNTER)\b.*"  # in words
)
# Numbers that a state gives to persons: they identify nobody without their authority.
STATE_KIND = re.compile("SS|NI|NN[A-Z]+|PPN|DL|BR|CZ|TAX|JHN|MI|PRC|SL")
# A username of our own export identifies nobody beside the subject: elsewhere it may be another person's.
NOT_COMPARED = (FHIR_REFERENCE, OUR_USERNAME)


# How a record calls its patient: usernames that the patient may have, best first, and identifiers of authorities.
Claim = tuple[tuple[str, ...], tuple[Key, ...]]


def as_named_today(identifiers: Collection[Key]) -> list[Key]:
    """Return identifiers without those in which earlier releases would have stored the same number."""
    return [
        key for key in identifiers if (first := (authority_forms(key[0])[0], key[1])) == key or first not in identifiers
    ]


def may_name_patient(kind: str | None) -> bool:
    """Return whether an identifier of this kind (table 0203; None or "" if not known) may be the patient's own."""
    return not OTHERS_KIND.fullmatch((kind or "").strip().upper())


def claim_of(named: str, patient: Patient | None, own_authorities: Collection[str] = ()) -> Claim:
    """Return the names of a record's patient. `named`: its `checkup_for`, which counts unless it is one of the
    identifiers.

    `own_authorities`: folded; their numbers are usernames, as numbers without an authority are.
    """
    names: list[str] = []
    found: dict[Key, bool] = {}
    values = set()
    for each in (patient and patient.identifiers) or ():
        value, system = composed(each.value), composed(each.system or "")
        kind = (each.type or "").strip().upper()
        values.add(value)
        if not value or (kind and not may_name_patient(kind)) or system.startswith(NOT_COMPARED):
            continue
        form, *others = authority_forms(system)
        if system and not any(each.casefold() in own_authorities for each in (form, *others)):
            found[form, value] = bool(STATE_KIND.fullmatch(kind))
            for each_form in others:  # as earlier releases stored it
                found.setdefault((each_form, value), True)
        elif not STATE_KIND.fullmatch(kind):
            names.append(value)
    name = composed(named)
    if name and name not in values:
        names.insert(0, name)
    all_names = {*names, *(value for _, value in found)}
    nobodies = {each for each in all_names if names_nobody(each)}
    if nobodies and nobodies != all_names:  # UNKNOWN beside a number
        names = [each for each in names if each not in nobodies]
        found = {key: is_states for key, is_states in found.items() if key[1] not in nobodies}
    # A patient who is created is called by the first one: not by a state's number, which is secret.
    return tuple(dict.fromkeys(names)), tuple(sorted(found, key=found.__getitem__))


def identifiers_of_invalid(record: Any, own_authorities: Collection[str]) -> tuple[Key, ...]:
    """Return the identifiers of an invalid record's patient, as far as they can be read."""
    patient = record.get("patient") if isinstance(record, dict) else None
    identifiers = patient.get("identifiers") if isinstance(patient, dict) else None
    readable = []
    for each in identifiers if isinstance(identifiers, list) else ():
        try:
            readable.append(msgspec.convert(each, Identifier))
        except (msgspec.ValidationError, UnicodeEncodeError):
            continue
    named = record.get("checkup_for") if readable else None
    return claim_of(named if isinstance(named, str) else "", Patient(identifiers=readable), own_authorities)[1]


def contradiction(patient: Patient, source_names: Iterable[str], birth_date: str | None, sex: str | None) -> str:
    """Return the fact in which a source contradicts what is known of a person: "name", "birth date", "sex", or ""."""
    says_name = patient.name and not is_no_name(patient.name)  # UNKNOWN is none
    if says_name and any(not may_be_one_person(patient.name or "", known) for known in source_names):
        return "name"
    if patient.birth_date and birth_date and not birth_date.startswith(patient.birth_date):
        return "birth date"
    return "sex" if {patient.sex, sex} == {"male", "female"} else ""


def composed(text: str) -> str:
    """Return a name or a number as it is compared: stripped, and in the Unicode form NFC."""
    text = text.strip()
    return text if text.isascii() else unicodedata.normalize("NFC", text)


class PatientMap(dict[str | Key, str]):
    """Usernames by the names that machines use, and by (folded authority, number).

    A name without an authority also stands for a number, but only of the first authority that is seen with it: the same
    number of another authority is another patient's. A name in other letters is the same name, as it is of usernames,
    unless the map has both.
    """

    def __init__(self, *given: dict[str | Key, str]) -> None:
        super().__init__(*given)
        self._authorities: dict[str, str] = {}

    @cached_property
    def _by_folded_name(self) -> dict[str, str | None]:
        """None for a name that is mapped to two users."""
        found: dict[str, str | None] = {}
        for name, username in self.items():
            if isinstance(name, str):
                first = found.setdefault(fold_name(name), username)
                if first is None or fold_name(first) != fold_name(username):
                    found[fold_name(name)] = None
        return found

    def find(self, names: Iterable[str], identifiers: Iterable[Key]) -> str | None:
        """Return the username of a record's patient, None if the map does not say it."""
        for name in names:
            if mapped := self.get(name) or self._by_folded_name.get(fold_name(name)):
                return mapped
        for system, value in identifiers:
            authority = system.casefold()
            if (authority, value) in self:
                return self[authority, value]
            if value in self and self._authorities.setdefault(value, authority) == authority:
                return self[value]
        return None


def read_patient_map(lines: Iterable[str]) -> PatientMap:
    """Read CSV with the columns `patient`, `username` and optionally `authority`, between commas, semicolons, tabs
    or bars.

    Raises BadInput naming the line if the header is another, a cell is empty, or a patient is mapped twice.
    """
    found, header, reader = PatientMap(), *read_named_rows(lines)
    try:
        if sorted({*header, "authority"} - {""}) != ["authority", "patient", "username"] or len(header) != len(
            {*header}
        ):
            raise BadInput("line 1: the header must be patient,username or patient,authority,username")
        for row in reader:
            patient, username, authority = (
                composed(unguarded(row.get(name) or "")) for name in ("patient", "username", "authority")
            )
            if not patient or not username or None in row or (row.get("") or "").strip():
                raise BadInput(f"line {reader.line_num}: it must have a patient and a username")
            if why := spoilt(patient) or spoilt(username):
                raise BadInput(f"line {reader.line_num}: patient {why}")
            key = (authority.casefold(), patient) if authority else patient
            if found.setdefault(key, username) != username:
                raise BadInput(f"line {reader.line_num}: {patient} is mapped twice")
    except csv.Error as error:
        raise BadInput(f"line {reader.line_num}: {error}") from error
    return found
