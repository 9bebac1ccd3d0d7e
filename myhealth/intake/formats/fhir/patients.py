"""Find the patient of a group of FHIR resources, and remember the facts of the Patient resources of a source.

Source: HL7 FHIR R4 (4.0.1), "Patient", "References", "Data Types" (Identifier); HL7 table 0203 (identifier types).
"""

import itertools
import re
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import unquote

from myhealth.clinical.coding_systems import OUR_SUBJECT, OUR_USERNAME
from myhealth.common.text import printable, unstorable_fault
from myhealth.intake.formats.fhir.bundle import Entry, KnownPatients, root_of, url_key
from myhealth.intake.formats.fhir.element import Element, compact, is_former, own_copy, parse_address, person_name
from myhealth.intake.formats.fhir.facts import identifiers_of
from myhealth.intake.formats.fhir.grouping import FhirGroup
from myhealth.intake.formats.fhir.moments import is_date
from myhealth.intake.formats.terminology import FORMER_ALONE
from myhealth.intake.identity import contradiction, may_name_patient
from myhealth.intake.parsed_record import DuplicateKeyDict
from myhealth.intake.record import encode_json
from myhealth.intake.record_types import Patient
from myhealth.profiles.names import authority_forms, may_be_one_person

SUBJECTS_MAX = 10_000  # that a Bundle keeps
TAUGHT = ("resourceType", "id", "meta", "identifier", "name", "birthDate", "gender", "link", "modifierExtension")
GENDERS = ("male", "female", "other", "unknown")
ENCOUNTER = ("encounter", "context")  # the name in R4 and in STU3

UNCERTAIN = "a result may be another patient's than its report: they name the patient in different ways"
# Words that a display has in place of a patient's name.
NO_NAME = re.compile(
    r"\S*[0-9]\S*|\b(?:patient(?:in)?|mrn|pid|id|subject|anonym(?:ous|isiert)?|test)\b\W*", re.IGNORECASE
)


class Subject(NamedTuple):
    """The patient of a record. `names`: possible names of the patient here, best first. `facts`: record.patient.
    `reference`: how the record names a patient of whom nothing more is known. `doubt`: why it may be another patient.
    `warnings`: for parts of the patient that cannot be read."""

    names: list[str]
    facts: dict[str, Any]
    reference: str = ""
    doubt: str = ""
    warnings: tuple[tuple[str, str], ...] = ()


def teach(entries: list[Entry], known: KnownPatients) -> Iterator[tuple[str, dict[str, Any]]]:
    """Store the Patient resources by the references to them; a reference to two patients then means nobody. Yield each
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
            before = known.get(key := url_key(name), taught)
            known[key] = taught if before is not None and _may_be_one(before, taught) else None
            faults: list[Any] = []
            facts = _current_facts(Element(patient, "Patient", faults))
            if not faults and not replacement_of(Element(patient, "", [])) and not unstorable_fault(name):
                yield name, facts


def replacement_of(patient: Element) -> str:
    """Return the reference of the patient by whom the source replaced this one; "" if it did not."""
    for link in patient.parts("link"):
        if link.text("type") in ("replaced-by", "replace"):  # replace: DSTU2
            other = link.part("other")
            return other.text("reference") or other.text("display") or "another one"
    return ""


def _may_be_one(one: Entry, other: Entry) -> bool:
    """Return whether two Patient resources may be one: they are two versions, or do not contradict each other.

    With an identifier in common the name may change.
    """
    parts = [Element(entry.resource, "", []) for entry in (one, other)]
    versions = {part.part("meta").text("versionId") for part in parts}
    if len(versions) == 2 and "" not in versions and root_of(one) and one.full_url == other.full_url:
        return True
    ours, theirs = map(facts_of_patient, parts)
    length = min(len(facts.get("birth_date", "")) for facts in (ours, theirs))  # to the precision of both
    born, known = (facts.get("birth_date", "")[:length] or None for facts in (ours, theirs))
    if contradiction(Patient(birth_date=born), (), known, None):
        return False
    values = [*map(_numbers, parts)]
    if all(values):
        return not values[0].isdisjoint(values[1])
    patient = Patient(name=ours.get("name"), sex=ours.get("sex"))
    return not contradiction(patient, filter(None, [theirs.get("name")]), None, theirs.get("sex"))


def subject_of(group: FhirGroup) -> Subject:
    """Return the patient of a group. Add a fault if a result is about another patient than its report; a doubt if it is
    not certain that it is about the same one."""
    subjects = [(entry, named) for entry, part in _group_entries(group) if (named := part.part("subject"))]
    if not subjects:
        return Subject([], {})
    first, *others = [(part, group.resolve(part, at)) for at, part in subjects]
    others = [(part, entry) for part, entry in others if part.data != first[0].data or entry is not first[1]]
    identities = [_identity(group, *each) for each in (first, *others)] if others else []
    differences = [_difference(identities[0], each) for each in identities[1:]]
    for fault, (part, _) in zip(differences, others, strict=True):
        if fault and fault != UNCERTAIN:
            part.add_error("", fault)
    subject = _lone_subject(group, *first, at=subjects[0][0])
    if not others or subject.doubt:
        return subject
    doubts = (_doubt(group, *each) for each in others)
    return subject._replace(doubt=next(filter(None, doubts), "") or (UNCERTAIN if UNCERTAIN in differences else ""))


def _lone_subject(group: FhirGroup, subject: Element, entry: Entry | None, at: Entry) -> Subject:
    """Return the patient that a Reference means, with the doubt about it. The records of one patient share an answer
    without faults and doubts."""
    key, known = (repr(subject.data), entry, root_of(at.outermost)), group.scope.subjects
    if key in known:
        kept: Subject = known[key]
        return kept._replace(facts=own_copy(kept.facts))
    found = _read_subject(group, subject, entry, at)
    if doubt := _doubt(group, subject, entry):
        return found._replace(doubt=doubt)
    if not group.faults and len(known) < SUBJECTS_MAX:
        known[key] = found._replace(facts=own_copy(found.facts))
    return found


def _doubt(group: FhirGroup, subject: Element, entry: Entry | None) -> str:
    """Return why a subject may mean another patient than its resource; "" if nothing says so."""
    if entry is None or entry.kind != "Patient":
        return ""
    named = printable(subject.text("reference").strip(), 100)
    if other := group.scope.double(subject, entry, _may_be_one):
        group.examine(other.outermost)
        return f"{named} is the address of two different patients here"
    patient = Element(entry.resource, "", [])
    if by := replacement_of(patient):
        return f"the source replaced {named} by {printable(by, 100)} (Patient.link)"
    if _contradict(_numbers(subject), _numbers(Element(entry.resource, entry.kind, group.faults))):
        return f"{named} has another number than subject.identifier says"
    display = " ".join(NO_NAME.sub(" ", subject.text("display")).split())
    names = _words_of_names(patient) if " " in display else ""  # "Patient 4711" is none
    if names and not may_be_one_person(display, names):
        return f"{named} has another name than subject.display says"
    return ""


def _words_of_names(patient: Element) -> str:
    """Return all names of a patient; "" if no whole one is known."""
    names = ((*each.texts("given"), *each.texts("family"), each.text("text")) for each in patient.parts("name"))
    return " ".join(word for name in names for word in name) if person_name(patient) else ""


def _numbers(part: Element) -> set[tuple[str, str]]:
    """Return the identifiers of a Patient, or of a Reference, as (system, value)."""
    found = identifiers_of(part)
    if isinstance(part.data.get("reference"), str) and (named := _conditional_identifier(part)):
        found.append(named)
    return {(authority_forms(each.get("system", ""))[0], each["value"].strip()) for each in found}


def _contradict(ours: set[tuple[str, str]], theirs: set[tuple[str, str]]) -> bool:
    """Return whether two patients have other numbers of one system, and none in common."""
    systems = {system for system, _ in ours} & {system for system, _ in theirs} - {""}
    return bool(systems) and ours.isdisjoint(theirs)


def _read_subject(group: FhirGroup, subject: Element, entry: Entry | None, at: Entry) -> Subject:
    """Return the patient's names: the identifiers of the Patient resource and of the Reference; if there is none, the
    id in the Reference."""
    named = _conditional_identifier(subject)
    identifiers = [*identifiers_of(subject), *([named] if named else [])]
    facts: dict[str, Any] = {"name": subject.text("display").strip()}
    warnings: list[tuple[str, str]] = []
    if entry is not None and entry.kind == "Patient":
        patient = Element(entry.resource, entry.kind, group.faults)
        known = _current_facts(patient)
        identifiers = [*known.pop("identifiers", ()), *identifiers]
        warnings = _birth_date_warnings(patient)
        facts |= known
    told = [subject, *([Element(entry.resource, "", [])] if entry is not None and entry.kind == "Patient" else [])]
    numbers = [each for part in told for each in part.parts("identifier")] if identifiers and not named else []
    if numbers and all(map(is_former, numbers)) and not (facts["name"] or facts.get("birth_date")):
        subject.add_error("", FORMER_ALONE)
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
        is_patient = entry is not None and entry.kind == "Patient" and entry.container is None  # #p1 is anybody's
        names = [entry.id if entry is not None and is_patient and entry.id else _reference_name(subject)]
    elif not usable:
        subject.add_error("", "has only identifiers that are not a patient's, such as an insurance number")
    names = list(dict.fromkeys(name for name in names if name.strip()))
    if not names and not identifiers and (sent := subject.text("reference").strip()):
        lacks = "has no identifier" if entry is not None else "names no patient who is here"
        subject.add_error("reference", f"{lacks}: '{printable(sent, 100)}'")
    reference = "" if identifiers else group.scope.address_of(subject, at)
    if reference and entry is not None:  # the patient is here: the address in the reference only names the server
        reference = f"{root_of(entry)}Patient/{entry.id}" if entry.kind == "Patient" and root_of(entry) else ""
    return Subject(names, compact(identifiers=usable, **facts), reference, warnings=tuple(warnings))


def _current_facts(patient: Element) -> dict[str, Any]:
    return facts_of_patient(_without_former(patient))


def _without_former(patient: Element) -> Element:
    """Return a Patient without its expired numbers, if nothing else could tell it from a later holder of such a
    number."""
    every = patient.parts("identifier")
    current = [each.data for each in every if not is_former(each)]
    if len(current) in (0, len(every)) or patient.data.get("name") or patient.data.get("birthDate"):
        return patient
    return Element({**patient.data, "identifier": current}, patient.path, [])


def _birth_date_warnings(patient: Element) -> list[tuple[str, str]]:
    born = patient.data.get("birthDate")
    if not isinstance(born, str) or not born or is_date(born.strip()):
        return []
    return [("Patient.birthDate", f"is not a date, so it is not compared: '{printable(born, 40)}'")]


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
    """Return the head and then every Observation, each once, and the specimens, orders and encounters that are a
    patient's."""
    yield group.head, group.top
    yield from ((entry, part) for entry, part in group.observations if entry is not group.head)
    parts = [(group.head, group.top), *group.observations]
    references = [
        (each, entry) for entry, part in parts for name in ("specimen", "basedOn") for each in part.parts(name)
    ]
    references += [
        (part.part(name), entry) for entry, part in parts for name in ENCOUNTER if isinstance(part.data.get(name), dict)
    ]
    for found in dict.fromkeys(filter(None, itertools.starmap(group.resolve, references))):
        part = Element(found.resource, found.kind, group.faults)
        if not found.withdrawn and group.scope.about(found)[0] == "Patient":
            yield found, part


def _conditional_identifier(subject: Element) -> dict[str, Any] | None:
    """Return the identifier by which a Reference of a transaction searches its patient, such as
    Patient?identifier=http://example.org/mrn|123; None if it names none or several."""
    kind, _, query = subject.text("reference").strip().partition("?")
    found = [unquote(each.partition("=")[2]) for each in query.split("&") if each.startswith("identifier=")]
    if kind != "Patient" or len(found) != 1 or "," in found[0]:
        return None
    system, _, value = found[0].rpartition("|")
    return compact(system=system, value=value) if value else None


def _reference_name(subject: Element) -> str:
    """Return the patient's name in a Reference: the id after "Patient/", or a whole URN."""
    text = subject.text("reference").strip()
    address = parse_address(text)
    if address:
        return address[3] if address[2] == "Patient" else ""
    return text if text.startswith("urn:") else ""


class Identity(NamedTuple):
    """The names of a subject. `address`: (server, type and id), or ("", a URN); `numbers`: its identifiers."""

    entry: Entry | None
    address: tuple[str, str]
    numbers: set[tuple[str, str]]


def _identity(group: FhirGroup, subject: Element, entry: Entry | None) -> Identity:
    text = subject.text("reference").strip()
    address = parse_address(text)
    numbers = _numbers(subject)
    if entry is not None and entry.kind == "Patient":
        numbers |= _numbers(Element(entry.resource, entry.kind, group.faults))
    where = (address[1] or "", f"{address[2]}/{address[3]}") if address else ("", "" if text[:1] == "#" else text)
    return Identity(entry, where, numbers)


def _difference(one: Identity, other: Identity) -> str:
    """Return why a subject is not certainly the record's; "" if it is, or if it says nothing. A missing server matches
    any, and so does a missing system."""
    if one.entry is not None and one.entry is other.entry:
        return ""
    values = [{value for _, value in each.numbers} for each in (one, other)]
    bare = ("", "") in {(system, "") for system, _ in one.numbers | other.numbers}
    if not one.numbers.isdisjoint(other.numbers) or (bare and not values[0].isdisjoint(values[1])):
        return ""
    both = bool(one.address[1] and other.address[1])
    server = bool(one.address[0] and other.address[0] and one.address[0] != other.address[0])
    is_one = both and one.address[1] == other.address[1] and not server
    if (one.entry and other.entry) or (both and not is_one) or _contradict(one.numbers, other.numbers):
        return "is another one than the record's"
    says_nothing = not (other.entry or other.address[1] or other.numbers)
    return "" if is_one or says_nothing else UNCERTAIN
