"""What an import did, and what of the results is stored."""

import json
from typing import Any

from myhealth.intake.results import RecordResult


def effects(outcomes: list[RecordResult]) -> list[tuple[str, str]]:
    return [(outcome.status, outcome.effect) for outcome in outcomes]


def stored(db: Any) -> list[dict[str, Any]]:
    """Return what of the results is shown as current."""
    found = db("select results::text from checkups where status is distinct from 'entered-in-error' order by id")
    return [each for (text,) in found for each in json.loads(text) if each.get("status") != "entered-in-error"]


def values(db: Any) -> list[Any]:
    return [each["value"] for each in stored(db)]


def versions(db: Any) -> list[tuple[str, Any]]:
    found = db("select reason, content->'results' from checkup_versions order by checkup_id, revision")
    return [(reason, [each["value"] for each in results]) for reason, results in found]
