"""The types of the intake pipeline: the source of records, validated records, and results."""

from collections.abc import Collection, Iterable
from typing import Any

from msgspec import Struct

from myhealth.clinical.status import WITHDRAWN
from myhealth.intake.identity import PatientMap
from myhealth.intake.parsed_record import ParsedRecord
from myhealth.intake.record import Record
from myhealth.intake.record_types import Patient
from myhealth.profiles.held_names import erased_form
from myhealth.profiles.models import FHIR_REFERENCE, Key

FAULTS_MAX = 20  # errors reported for one record
ERASED = "erased"  # the code of an error

RecordKey = tuple[int | None, str | None]  # machine's id, record_id


class ConcurrentChange(Exception):
    """Roll the batch back, because another transaction changed its rows; the batch is then tried again."""


class RecordResult(Struct):
    """The result of one record. `status`: accepted, duplicate or rejected. `id`: the check-up's, None if rejected.
    `effect`: what an accepted record did to the check-up: created, replaced or withdrawn; else "none".

    `errors`: the reasons for its rejection; `warnings`: values that were accepted but look wrong.
    """

    index: int
    status: str = "rejected"
    id: int | None = None
    errors: list[dict[str, Any]] = []
    rejection_id: int | None = None
    warnings: list[dict[str, Any]] = []
    effect: str = "none"

    def accept(self, checkup_id: int, effect: str) -> None:
        """Say that the record is stored as this check-up. `effect`: created, replaced or withdrawn."""
        self.status, self.id, self.effect = "accepted", checkup_id, effect

    def reject(self, name: str | None, message: str, code: str = "") -> None:
        self.status, self.id, self.effect = "rejected", None, "none"
        self.errors.append(error(self.index, name, message, code))

    def warn(self, name: str | None, message: str, code: str = "") -> None:
        self.warnings.append(error(self.index, name, message, code))


class ImportSource(Struct):
    """The source of records, and the options that hold for all of them.

    `source`: a file's name or a request, for people. `machine`: the serial that the source names for all. `derive_ids`:
    a record without record_id gets one from its content and its occurrence number in the source, so that sending the
    source twice stores nothing twice; `occurrence`: the number of the first one. `create_patients`: create unknown
    patients, without a password. `dry_run`: do everything and roll it back. `patient`: the username of every record's
    patient; a record that names another one is rejected. `assigned`: the username of every record's patient, whatever
    the records say. `overrides_machine`: every record is of `machine`, whatever it says. `own_authorities`: folded,
    those whose numbers are usernames. `patient_map`: the usernames for the names that machines give to patients.
    `zone`: the name of the zone of moments that name none. `layout`: of tables, as text. `names_fields`: errors name
    the fields in which a record differs from the stored one; for senders who may read that one. `log_upload`: add an
    audit event of the upload in the transaction that stores each batch. `user_id`: the user who uploads; bounds the
    rejected records that are stored.
    """

    source: str
    machine: str | None = None
    format: str = ""
    derive_ids: bool = False
    occurrence: int = 1
    create_patients: bool = False
    dry_run: bool = False
    patient: str | None = None
    assigned: str | None = None
    overrides_machine: bool = False
    own_authorities: Collection[str] = ()
    patient_map: PatientMap = PatientMap()
    zone: str = "UTC"
    layout: str = ""
    names_fields: bool = True
    log_upload: bool = False
    user_id: int | None = None


class ValidatedRecord(Struct):
    """A parsed record after validation. `record`: None if it is not valid; then `faults` has the reasons. `patients`:
    the possible usernames of its patient; `identifiers`: those that authorities gave; `patient`: what the source knows
    of the patient; `reference`: how a FHIR resource names the patient, if that counts. `occurrence`: its name among the
    rejected records, set when it is rejected. `former_ids`: the numbers that earlier releases may have given it.
    `former`: the record as they would have read it, None if otherwise in nothing. `is_derived`: whether its number was
    derived from its content here. `is_mapped`: whether a patient map says whose it is."""

    parsed: ParsedRecord
    record: Record | None
    faults: list[tuple[str, str]]
    patients: tuple[str, ...] = ()
    occurrence: str = ""
    former_ids: tuple[str, ...] = ()
    is_derived: bool = False
    former: Record | None = None
    is_mapped: bool = False
    identifiers: tuple[Key, ...] = ()
    patient: Patient | None = None
    reference: str = ""

    @property
    def is_bare_withdrawal(self) -> bool:
        """Whether it is a withdrawal that gives only the number of a record."""
        return not self.patients and self.patient is None

    @property
    def is_detailed(self) -> bool:
        """Whether more than a name says who its patient is."""
        return self.patient is not None or self.reference != "" or self.parsed.patient_doubt != ""

    @property
    def erased_forms(self) -> list[str]:
        """The names and keys of its patient in the form in which erased ones are stored as digests."""
        return [*self.patients, *(erased_form(*key) for key in self.keys)]

    @property
    def keys(self) -> tuple[Key, ...]:
        """The identifiers of its patient, and the address on a FHIR server."""
        is_address = self.reference.startswith("http")
        return (*self.identifiers, (FHIR_REFERENCE, self.reference)) if is_address else self.identifiers


class Pending(Struct):
    """A valid record in one attempt to store its batch. `id`: that its check-up will have; `patient_id`, `machine_id`:
    set once they are found. `part`: its content, if it is a result of the report that is stored as the check-up."""

    record: Record
    item: ValidatedRecord
    result: RecordResult
    id: int = 0
    patient_id: int = 0
    machine_id: int | None = None
    part: dict[str, Any] | None = None

    @property
    def has_content_of_number(self) -> bool:
        """Whether an equal number means equal content: it was derived from it, and withdraws nothing."""
        record = self.record
        return self.item.is_derived and record.status != WITHDRAWN and WITHDRAWN not in record.results

    @property
    def key(self) -> RecordKey:
        return self.machine_id, self.record.record_id

    @property
    def called(self) -> str:
        machine = f" of {self.record.machine}" if self.record.machine else ""
        return f"record {self.record.record_id}{machine}"

    def warn(self, name: str, message: str, code: str) -> None:
        """Add a warning with the source's own name of the field."""
        self.result.warn(self.item.parsed.locate(name), message, code)

    def accept(self, checkup_id: int) -> None:
        """Say that the record is stored as a new check-up. A withdrawn one is stored, but not shown."""
        is_withdrawn = self.record.status == WITHDRAWN
        self.result.accept(checkup_id, "withdrawn" if is_withdrawn else "created")
        if is_withdrawn and self.item.parsed.unnumbered and self.record.taken_at is None:
            self.warn("status", "nothing tells what it withdraws: it has neither a number nor a moment", "not_stored")


def first_faults(faults: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the faults, at most FAULTS_MAX, and then one that says that there are more."""
    if len(faults) <= FAULTS_MAX:
        return faults
    return [*faults[:FAULTS_MAX], ("", f"and more errors than these {FAULTS_MAX}")]


def counts(outcomes: Iterable[RecordResult]) -> dict[str, int]:
    """Return the number of records by status."""
    found = dict.fromkeys(("accepted", "duplicate", "rejected"), 0)
    for outcome in outcomes:
        found[outcome.status] += 1
    return found


def error(index: int | None, name: str | None, message: str, code: str = "") -> dict[str, Any]:
    """Return one error in the shape of wsgi/README.md; `code` only if programs need to distinguish it."""
    return {"index": index, "field": name or None, "message": message, **({"code": code} if code else {})}
