"""Valid records, dumps and documents, and records that go through the intake."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import msgspec

from myhealth.intake.parsed_record import ParsedRecord
from myhealth.intake.pipeline import Intake
from myhealth.intake.results import ImportSource, RecordResult
from myhealth.sync.rows import FURTHER_NAMES, CheckupRow, report_document

PASSWORD = "correct-horse"
NOW = datetime(2026, 11, 20, 3, 44, 3, 123000, tzinfo=UTC)


def record(number: int | str | None = 1, patient: str = "bholanath", **changes: Any) -> dict[str, Any]:
    """Return a valid record with these changes; the value ... removes a field."""
    made = {
        "record_id": None if number is None else str(number),
        "checkup_for": patient,
        "taken_by": "dr.ayush",
        "taken_at": "2026-11-20T09:14:03+05:30",
        "checkup_type": "BLOOD PRESSURE",
        "disease": "BP",
        "checkup_report": "ALL FINE. 128/82",
        "results": [
            {"code": "8480-6", "name": "Systolic blood pressure", "value": 128, "unit": "mm[Hg]", "low": 90,
             "high": 120, "flag": "H"}
        ],
        **changes,
    }  # fmt: skip
    return {name: value for name, value in made.items() if value is not ... and (name, value) != ("record_id", None)}


def dump(records: list[Any], serial: str = "HC-1") -> bytes:
    """Return a machine-memory dump of these records."""
    return json.dumps(
        {"format": "myhealth.machine-memory/1", "machine": {"serial": serial}, "records": records}
    ).encode()


def readings(*records: object) -> list[ParsedRecord]:
    return [
        ParsedRecord(i, i + 1, r if isinstance(r, str) else json.dumps(r), None if isinstance(r, str) else r)
        for i, r in enumerate(records)
    ]


def take(*records: object, atomic: bool = False, **origin: object) -> list[RecordResult]:
    known = {"source": "test.json", "machine": "HC-1", **origin}
    return Intake(ImportSource(**known)).store_batch(readings(*records), atomic=atomic)


def statuses(outcomes: list[RecordResult]) -> list[str]:
    return [outcome.status for outcome in outcomes]


def document(id_: int = 1, revision: int = 1, epoch: int = 1, **changes) -> dict:
    row = {"id": id_, "xid": 1, "patient_id": 7, "subject": "s7", "checkup_type": "T", "checkup_report": "R",
           "disease": "D", "machine": "M", "taken_by": None, "taken_at": NOW, "created_at": NOW, "updated_at": NOW,
           "results": "[]", "revision": revision, **changes}  # fmt: skip
    further = {name: row.pop(name) for name in FURTHER_NAMES if name in row}
    if isinstance(details := further.get("details"), str):
        further["details"] = msgspec.Raw(details.encode())
    return report_document(CheckupRow(**row, further=msgspec.json.encode(further).decode() if further else None), epoch)
