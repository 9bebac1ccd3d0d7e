"""A digest recognises a record that comes again as it first came, also across releases and new columns."""

import hashlib
import json
from typing import Any

import pytest
from support.factories import record

from myhealth.checkups.models import CHANGEABLE
from myhealth.intake import originals
from myhealth.intake.corrections import change_checkup, delete_checkup
from myhealth.intake.parsed_record import ParsedRecord
from myhealth.intake.pipeline import Intake
from myhealth.intake.results import ImportSource, RecordResult

CONTENT = dict.fromkeys(CHANGEABLE) | {
    "checkup_type": "BLOOD PRESSURE",
    "checkup_report": "128/82",
    "disease": "BP",
    "results": '[{"name": "Glucose", "value": 5.10, "unit": "mmol/L"}]',
}


def send(**changes: Any) -> RecordResult:
    raw = json.dumps(record(77, **changes))
    return Intake(ImportSource("test.json", "HC-1")).store_batch([ParsedRecord(0, 1, raw)])[0]


def test_a_digest_that_an_earlier_release_stored_still_matches(db, people) -> None:
    """Written as that release wrote it: a list of values, without a version."""
    delete_checkup(people["bholanath"], send().id)
    said = record(77)
    (result,) = said["results"]
    digits = {name: str(value) if name in ("value", "low", "high") else value for name, value in result.items()}
    values = [people["bholanath"], *(said[n] for n in ("checkup_type", "checkup_report", "disease", "taken_by"))]
    earlier = hashlib.sha256(json.dumps([*values, [digits]], sort_keys=True).encode()).digest()
    db("update superseded set digest = %s", earlier)
    assert send().status == "duplicate"
    assert send(disease="X").errors[0]["code"] == "deleted_here"
    db("update superseded set digest = %s", bytes(32))
    assert send().status == "rejected"


@pytest.mark.parametrize("algorithm", [originals.content_digest, originals.first_digest])
def test_a_new_column_changes_no_digest_of_content_without_it(monkeypatch: pytest.MonkeyPatch, algorithm: Any) -> None:
    before = algorithm(7, CONTENT)
    monkeypatch.setattr(originals, "CHANGEABLE", (*CHANGEABLE, "notes"))
    assert algorithm(7, {**CONTENT, "notes": None}) == before
    assert algorithm(7, {**CONTENT, "notes": "fasting"}) != before
    assert algorithm(8, CONTENT) != before


def test_values_do_not_move_between_columns() -> None:
    one, other = {**CONTENT, "disease": "x", "taken_by": None}, {**CONTENT, "disease": "", "taken_by": "x"}
    assert originals.content_digest(7, one) != originals.content_digest(7, other)


@pytest.mark.parametrize(
    "facts",
    [
        {"taken_until": "2026-11-20T09:30:00+05:30"},
        {"issued_at": "2026-11-21T08:00:00Z"},
        {"status": "final", "details": {"clinical_information": "Fasting"}, "sent": {"a": [1.50, None]}},
        {"taken_at": "2026-11-20T09:00:00+05:30"},
    ],
)
def test_a_record_with_any_fact_is_known_again_after_a_correction_and_a_deletion(db, people, facts: Any) -> None:
    first = send(**facts).id
    for disease in ("corrected", "corrected again"):
        change_checkup(people["bholanath"], first, {"disease": disease})
        assert send(**facts).status == "duplicate"
    delete_checkup(people["bholanath"], first)
    assert send(**facts).status == "duplicate"
    assert send(**facts, checkup_report="other").errors[0]["code"] == "deleted_here"
    assert db("select count(*) from checkups") == [(0,)]


@pytest.mark.parametrize("algorithm", [originals.content_digest, originals.first_digest])
@pytest.mark.parametrize(("words", "flag"), [("135 - 145", None), ("> 60", "H"), ("M: 10-20; F: 8-18", None)])
def test_a_range_in_words_that_earlier_releases_did_not_read_is_known(db, people, algorithm, words, flag) -> None:
    result = {"code": None, "name": "X", "value": 150, "unit": "mmol/L", "low": None, "high": None, "flag": flag}
    results = [{**result, "range_text": words}]
    delete_checkup(people["bholanath"], send(results=results).id)
    said = record(77, results=results)
    content = dict.fromkeys(CHANGEABLE) | {name: said.get(name) for name in originals.FIRST_VERSION_NAMES}
    digest = algorithm(people["bholanath"], {**content, "results": json.dumps(results)})
    assert digest not in [bytes(each) for (each,) in db("select digest from superseded")]
    db("update superseded set digest = %s", digest)
    assert send(results=results).status == "duplicate"
    assert send(results=[{**results[0], "value": 151}]).errors[0]["code"] == "deleted_here"
