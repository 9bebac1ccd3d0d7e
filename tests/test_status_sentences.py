"""Migration 18 turns the lines in which reports had statuses into fields, and alters nothing else."""

from __future__ import annotations

import importlib
import json
from typing import Any

from support.factories import record, take

from myhealth.common.database import database

migration = importlib.import_module("myhealth.migrations.0018_status_sentences")
REPORT = """Looks well.
Status: some results only.
Status of Blood  glucose: not verified.
Only the day is known.
Status of Sodium: cancelled.
Status of Potassium: final.
Status: unheard of."""
LEFT = "Looks well.\nStatus of Sodium: cancelled.\nStatus of Potassium: final.\nStatus: unheard of."
NAMES = ["Blood  glucose", "Sodium", "Sodium", "Potassium"]


def test_lines_become_fields_and_every_digit_stays(db: Any, people: Any) -> None:
    results = ",".join(f'{{"name": "{name}", "value": 5.10}}' for name in NAMES)
    take(record(1), record(2), record(3), record(4))
    db("update checkups set checkup_report = %s, results = %s, taken_at = '2026-11-01T12:00Z' where id = 1",
       REPORT.replace("Blood  glucose", "Blood glucose"), f"[{results}]")  # fmt: skip
    db("update checkups set checkup_report = 'Only the year is known.' where id = 2")
    db("update checkups set checkup_report = 'Status: preliminary.', status = 'final' where id = 3")
    before = db("select * from checkups where id > 1 order by id")
    migration.up(None, database)
    migration.up(None, database)
    assert db("select * from checkups where id > 1 order by id") == before
    ((report, status, known, text),) = db(
        "select checkup_report, status, taken_precision, results::text from checkups where id = 1"
    )
    assert (report, status, known) == (LEFT, "partial", "day")
    assert text.count("5.10") == 4
    assert [(each["name"], each.get("status")) for each in json.loads(text)] == [
        ("Blood  glucose", "preliminary"), ("Sodium", None), ("Sodium", None), ("Potassium", None)
    ]  # fmt: skip
