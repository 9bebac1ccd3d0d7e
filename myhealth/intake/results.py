"""What goes into intake beside the records, and what comes out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from myhealth.intake.parsed_record import ParsedRecord
from myhealth.intake.record import Record


@dataclass(slots=True)
class RecordResult:
    """What became of one record. `status`: accepted, duplicate or rejected. `id`: the check-up's, None if rejected.

    `errors`: why it was rejected; `warnings`: what was taken as it is, and looks wrong.
    """

    index: int
    status: str = "rejected"
    id: int | None = None
    errors: list[dict[str, Any]] = field(default_factory=list)
    rejection_id: int | None = None
    warnings: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class ImportSource:
    """Where records come from, and what holds for all of them.

    `source`: a file's name or a request, for people. `machine`: the serial that the source names for all. `derive_ids`:
    a record without record_id gets one from its content and its occurrence number in the source, so that the same
    source taken in twice stores nothing twice. `create_patients`: unknown patients are made, without a password.
    `dry_run`: everything is done, nothing is kept. `patient`: the username whom every record is about; a record that
    names somebody else is refused. `patient_map`: usernames by the names that machines have for their patients. `zone`:
    the name of the zone that was taken for moments without one. `log_upload`: each batch adds an audit event of the
    upload in the transaction that stores it.
    """

    source: str
    machine: str | None = None
    format: str = ""
    derive_ids: bool = False
    create_patients: bool = False
    dry_run: bool = False
    patient: str | None = None
    patient_map: Mapping[str, str] = field(default_factory=dict)
    zone: str = "UTC"
    log_upload: bool = False


@dataclass(slots=True)
class ValidatedRecord:
    """A reading with what its check found. `patients`: the names that its patient may have here. `occurrence`: its name
    among the refused, given when it is refused. `copied`: its `copy_text`, where many are stored at once."""

    reading: ParsedRecord
    record: Record | None
    faults: list[tuple[str, str]]
    patients: tuple[str, ...] = ()
    occurrence: str = ""
    copied: str = ""


def counts(outcomes: Iterable[RecordResult]) -> dict[str, int]:
    """How many became what."""
    found = dict.fromkeys(("accepted", "duplicate", "rejected"), 0)
    for outcome in outcomes:
        found[outcome.status] += 1
    return found


def error(index: int | None, name: str | None, message: str, code: str = "") -> dict[str, Any]:
    """One place of the error shape of wsgi/README.md; `code` only where a program may want to know."""
    return {"index": index, "field": name or None, "message": message, **({"code": code} if code else {})}
