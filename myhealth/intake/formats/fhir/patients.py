"""Find the patient of a group of FHIR resources, and keep what Patient resources of a source teach.

Source: HL7 FHIR R4 (4.0.1), "Patient", "References", "Data Types" (Identifier); HL7 table 0203 (identifier types).
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from myhealth.clinical.coding_systems import OUR_SUBJECT, OUR_USERNAME
from myhealth.common.text import printable
from myhealth.intake.formats.fhir.bundle import ADDRESS, Entry, KnownPatients, root_of
from myhealth.intake.formats.fhir.element import Element, compact, person_name
from myhealth.intake.formats.fhir.facts import identifiers_of
from myhealth.intake.formats.fhir.grouping import FhirGroup
from myhealth.intake.formats.fhir.moments import is_date
from myhealth.intake.identity import contradiction, may_name_patient
from myhealth.intake.parsed_record import DuplicateKeyDict
from myhealth.intake.record import encode_json
from myhealth.intake.record_types import Patient

# A conditional reference of a transaction: Patient?identifier=http://example.org/mrn|123
CONDITION = re.compile(r"Patient\?(?:.*&)?identifier=(?:([^|&]*)\|)?([^|&]+)(?:&.*)?")
TAUGHT = ("resourceType", "id", "meta", "identifier", "name", "birthDate", "gender", "link", "modifierExtension")
GENDERS = ("male", "female", "other", "unknown")


class Subject(NamedTuple):
    """The patient of a record. `names`: what may identify the patient here, best first. `facts`: record.patient.
    `reference`: how the record names a patient of whom nothing more is known. `doubt`: why it may be another patient.
    `warnings`: what of the patient cannot be read.
    """

    names: list[str]
    facts: dict[str, Any]
    reference: str = ""
    doubt: str = ""
    warnings: tuple[tuple[str, str], ...] = ()


def teach(entries: list[Entry], known: KnownPatients) -> Iterator[tuple[str, dict[str, Any]]]:
    """Keep the Patient resources under the references that mean them; those of two patients mean nobody. Yield each
    reference with what the resource says of the patient."""
    for entry in entries:
        if entry.kind != "Patient" or entry.fault or isinstance(entry.resource, DuplicateKeyDict):
            continue
        patient = {name: entry.resource[name] for name in TAUGHT if name in entry.resource}
        url = {"fullUrl": entry.full_url} if entry.full_url else {}
        try:
            text = encode_json(url | {"resource": patient}).decode()
        except (UnicodeEncodeError, TypeError):  # it has a fault, so it teaches nothing
            continue
        taught = Entry(known.resources, text, entry.line)
        taught.full_url = entry.full_url
        taught.describe(patient)
        for name in {entry.full_url, "" if root_of(entry) else f"Patient/{entry.id}"} - {"", "Patient/"}:
            before = known.get(name, taught)
            known[name] = taught if before is not None and _may_be_one(before, taught) else None
            faults: list[Any] = []
            facts = facts_of_patient(Element(patient, "Patient", faults))
            if not faults and not replacement_of(patient):
                yield name, facts


def replacement_of(patient: dict[str, Any]) -> str:
    """Return the reference of the patient by whom the source replaced this one; "" if it did not."""
    for link in Element(patient, "Patient", []).parts("link"):
        if link.text("type") in ("replaced-by", "replace"):  # replace: DSTU2
            other = link.part("other")
            return other.text("reference") or other.text("display") or "another one"
    return ""


def _may_be_one(one: Entry, other: Entry) -> bool:
    """Return whether two Patient resources may be one: two versions, or nothing that they say contradicts.

    With an identifier in common the name may change."""
    parts = [Element(entry.resource, "", []) for entry in (one, other)]
    versions = {part.part("meta").text("versionId") for part in parts}
    if len(versions) == 2 and "" not in versions and root_of(one) and one.full_url == other.full_url:
        return True
    ours, theirs = map(facts_of_patient, parts)
    length = min(len(facts.get("birth_date", "")) for facts in (ours, theirs))  # to the precision of both
    born, known = (facts.get("birth_date", "")[:length] or None for facts in (ours, theirs))
    if contradiction(Patient(birth_date=born), (), known, None):
        return False
    numbers = [facts.get("identifiers", ()) for facts in (ours, theirs)]
    values = [{(each.get("system"), each["value"]) for each in every} for every in numbers]
    if all(values):
        return not values[0].isdisjoint(values[1])
    patient = Patient(name=ours.get("name"), sex=ours.get("sex"))
    return not contradiction(patient, filter(None, [theirs.get("name")]), None, theirs.get("sex"))


def subject_of(group: FhirGroup) -> Subject:
    """Return the patient of a group. Add a fault if a result is about another patient than its report."""
    subjects = [(entry, part.part("subject")) for entry, part in _group_entries(group) if part.part("subject")]
    if not subjects:
        return Subject([], {})
    found = [group.resolve(part, at) for at, part in subjects]
    identities = [_identity(part, entry) for (_, part), entry in zip(subjects, found, strict=True)]
    for identity, (_, part) in zip(identities[1:], subjects[1:], strict=True):
        if _differ(identities[0], identity):
            part.add_error("", "is another one than the record's")
    subject = _read_subject(group, subjects[0][1], found[0], at=subjects[0][0])
    doubts = (_doubt(group, part, entry) for (_, part), entry in zip(subjects, found, strict=True))
    return subject._replace(doubt=next(filter(None, doubts), ""))


def _doubt(group: FhirGroup, subject: Element, entry: Entry | None) -> str:
    """Return why a subject may mean another patient than its resource; "" if nothing says so."""
    if entry is None or entry.kind != "Patient":
        return ""
    named = printable(subject.text("reference").strip(), 100)
    if other := group.scope.double(subject, entry, _may_be_one):
        group.examine(other.outermost)
        return f"{named} is the address of two different patients here"
    by = replacement_of(entry.resource)
    return f"the source replaced {named} by {printable(by, 100)} (Patient.link)" if by else ""


def _read_subject(group: FhirGroup, subject: Element, entry: Entry | None, at: Entry) -> Subject:
    """Return what names the patient: the identifiers of the Patient resource and of the Reference; where there is none,
    the id in the Reference."""
    named = _conditional_identifier(subject)
    identifiers = [*identifiers_of(subject), *([named] if named else [])]
    facts: dict[str, Any] = {"name": subject.text("display").strip()}
    warnings: list[tuple[str, str]] = []
    if entry is not None and entry.kind == "Patient":
        known = facts_of_patient(Element(entry.resource, "Patient", group.faults))
        identifiers = [*known.pop("identifiers", ()), *identifiers]
        warnings += _birth_date_warnings(entry.resource, known)
        facts |= known
    if not any(
        each.get("system") == OUR_SUBJECT for each in identifiers
    ):  # else of our own export, perhaps elsewhere's
        for each in identifiers:
            if each.get("system") == OUR_USERNAME:
                del each["system"]
    usable = [each for each in identifiers if may_name_patient(each.get("type"))]
    usable = [each for i, each in enumerate(usable) if each not in usable[:i]]
    names = [each["value"].strip() for each in usable]
    if not identifiers:
        names = [entry.id if entry is not None and entry.kind == "Patient" and entry.id else _reference_name(subject)]
    elif not usable:
        subject.add_error("", "has only identifiers that are not a patient's, such as an insurance number")
    names = list(dict.fromkeys(name for name in names if name.strip()))
    reference = "" if identifiers else group.scope.address_of(subject, at)
    if reference and entry is not None:  # it is here: what it is called elsewhere tells only whose server it is on
        reference = f"{root_of(entry)}Patient/{entry.id}" if entry.kind == "Patient" and root_of(entry) else ""
    return Subject(names, compact(identifiers=usable, **facts), reference, warnings=tuple(warnings))


def _birth_date_warnings(patient: dict[str, Any], facts: dict[str, Any]) -> list[tuple[str, str]]:
    born = patient.get("birthDate")
    if not born or "birth_date" in facts or not isinstance(born, str):
        return []
    return [("Patient.birthDate", f"is no date, so it is not compared: '{printable(born, 40)}'")]


def facts_of_patient(patient: Element) -> dict[str, Any]:
    """Return what a Patient resource says of the patient, as record.patient."""
    gender, born = patient.text("gender"), patient.text("birthDate").strip()
    return compact(
        identifiers=identifiers_of(patient),
        name=person_name(patient),
        birth_date=born if is_date(born) else "",
        sex=gender if gender in GENDERS else "",
    )


def _group_entries(group: FhirGroup) -> Iterator[tuple[Entry, Element]]:
    """Return the head and then every Observation, each once."""
    yield group.head, group.top
    yield from ((entry, part) for entry, part in group.observations if entry is not group.head)


def _conditional_identifier(subject: Element) -> dict[str, Any] | None:
    """Return the identifier by which a Reference searches its patient."""
    condition = CONDITION.fullmatch(subject.text("reference").strip())
    return compact(system=condition[1], value=condition[2]) if condition else None


def _reference_name(subject: Element) -> str:
    """Return the patient's name in a Reference: the id after "Patient/", or a whole URN."""
    text = subject.text("reference").strip()
    address = ADDRESS.fullmatch(text)
    if address:
        return address[3] if address[2] == "Patient" else ""
    return text if text.startswith("urn:") else ""


def _identity(subject: Element, entry: Entry | None) -> tuple[str, str, str]:
    """Return (kind of reference, system, value) of a subject; only two of the same kind can be compared."""
    if entry is not None:
        return "here", "", str(id(entry))
    text = subject.text("reference").strip()
    address = ADDRESS.fullmatch(text)
    if address:
        return "address", address[1] or "", f"{address[2]}/{address[3]}"
    if text:
        return "reference", "", text
    identifier = subject.part("identifier")
    return "identifier", identifier.text("system"), identifier.text("value")


def _differ(one: tuple[str, str, str], other: tuple[str, str, str]) -> bool:
    """Return whether both certainly identify different patients; a missing system matches any."""
    systems_differ = bool(one[1] and other[1] and one[1] != other[1])
    return one[0] == other[0] and bool(one[2] and other[2]) and (one[2] != other[2] or systems_differ)
