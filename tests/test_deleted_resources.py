"""What was deleted does not come back: here or by its source, alone or within a report, before or after it came."""

from __future__ import annotations

import io
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

import pytest
from support.fhir import observation, quantity, report
from support.stored_results import effects, values
from support.sync_processes import wait_for

from myhealth import stores
from myhealth.common.database import database
from myhealth.intake import file_import
from myhealth.intake.corrections import delete_checkup
from myhealth.intake.file_import import FileImport, ImportOptions
from myhealth.intake.results import RecordResult

AT = {"effectiveDateTime": "2020-11-20T09:14:03+05:30"}
CREATED, WITHDRAWN, DUPLICATE = ("accepted", "created"), ("accepted", "withdrawn"), ("duplicate", "none")
LAB = "http://lab.example/"


def take(*resources: Any, **options: Any) -> list[RecordResult]:
    """Import resources, or whole entries of a Bundle."""
    entries = [each if "resourceType" not in each else {"resource": each} for each in resources]
    text = json.dumps({"resourceType": "Bundle", "type": "transaction", "entry": entries})
    started = FileImport(io.BytesIO(text.encode()), "bundle", ImportOptions(create_patients=True, **options))
    return [result for batch in started for _, result in batch]


def codes(outcomes: list[RecordResult]) -> list[list[str]]:
    return [[each["code"] for each in outcome.warnings] for outcome in outcomes]


def glucose(value: Any = 5.1, **changes: Any) -> dict[str, Any]:
    return observation("a", **{"valueQuantity": quantity(value, "mmol/L"), **AT, **changes})


def sodium(**changes: Any) -> dict[str, Any]:
    return observation("b", code={"text": "Sodium"}, valueQuantity=quantity(140, "mmol/L"), **AT, **changes)


def deleted(url: str, version: str = "") -> dict[str, Any]:
    answer = {"response": {"status": "204", "etag": f'W/"{version}"'}} if version else {}
    return {"request": {"method": "DELETE", "url": url}, **answer}


PANEL = report("Observation/a", "Observation/b", **AT)
OTHER = report("Observation/a", "Observation/b", id="r2", **AT)


@pytest.fixture
def delete(db: Any) -> Any:
    def run(outcome: RecordResult) -> None:
        ((patient,),) = db("select patient_id from checkups where id = %s", outcome.id)
        delete_checkup(patient, outcome.id)

    return run


def test_what_was_deleted_here_alone_is_not_shown_in_a_report(db, people, delete) -> None:
    delete(*take(glucose()))
    (outcome,) = take(PANEL, glucose(), sodium())
    assert ((outcome.status, outcome.effect), codes([outcome])) == (CREATED, [["deleted_here"]])
    assert values(db) == [140]
    for again in ([PANEL, glucose(), sodium()], [glucose()], [glucose(6, status="corrected")], [OTHER, glucose()]):
        assert {outcome.status for outcome in take(*again)} <= {"duplicate", "accepted"}
        assert values(db) == [140]


def test_the_results_of_a_report_that_was_deleted_here_are_shown_nowhere(db, people, delete) -> None:
    delete(*take(PANEL, glucose(), sodium()))
    third = observation("c", code={"text": "Urea"}, **AT)
    assert effects(take(glucose())) == [WITHDRAWN]
    assert effects(take({**OTHER, "result": [*OTHER["result"], {"reference": "Observation/c"}]}, sodium(), third)) == [
        CREATED
    ]
    assert values(db) == [6.3]
    assert effects(take(PANEL, glucose(), sodium())) == [DUPLICATE]
    assert effects(take(sodium())) == [DUPLICATE]
    assert values(db) == [6.3]


def test_what_was_changed_after_it_was_deleted_here_is_refused_also_in_a_report(db, people, delete) -> None:
    delete(*take(glucose()))
    changed = glucose(6, status="corrected", meta={"lastUpdated": "2099-01-01T00:00:00Z"})
    for sent in ([changed], [PANEL, changed, sodium()]):
        (outcome,) = take(*sent)
        assert (outcome.status, outcome.errors[0]["code"]) == ("rejected", "deleted_here")
        assert outcome.rejection_id
    assert values(db) == []


def test_what_another_report_shows_stays_when_one_of_both_was_deleted(db, people, delete) -> None:
    (first,) = take(PANEL, glucose(), sodium())
    take(OTHER, glucose(), sodium())
    delete(first)
    assert effects(take(OTHER, glucose(), sodium())) == [DUPLICATE]
    assert effects(take(glucose())) == [DUPLICATE]
    assert values(db) == [5.1, 140]


@pytest.mark.parametrize("roots", [("", LAB), (LAB, "")], ids=["with its server", "without its server"])
def test_a_deleted_one_is_known_by_its_other_address(db, people, delete, roots) -> None:
    first, again = ({"resource": glucose(), **({"fullUrl": f"{root}Observation/a"} if root else {})} for root in roots)
    delete(*take(first))
    assert effects(take(again)) == [WITHDRAWN]
    assert values(db) == []


def test_the_same_number_of_another_patient_is_another_resource(db, people, delete) -> None:
    delete(*take(glucose()))
    other = {"reference": "Patient/other"}
    assert effects(take({**PANEL, "subject": other}, glucose(7, subject=other))) == [CREATED]
    assert values(db) == [7]


def test_what_was_deleted_before_numbers_were_kept_does_not_come_back(db, people, delete, settings) -> None:
    delete(*take(glucose()))
    stores.migrate(settings, 25)
    stores.migrate(settings)
    take(PANEL, glucose(), sodium())
    assert values(db) == [140]


NUMBERED = {"identifier": [{"system": "http://lab.example", "value": "77"}]}
BEFORE = {
    "the same address": ({}, "", "Observation/a"),
    "by its id, comes with an identifier": (NUMBERED, "", "Observation/a"),
    "by its id, comes with its server": ({}, f"{LAB}Observation/a", "Observation/a"),
    "by its address, comes without": ({}, "", f"{LAB}Observation/a"),
    "by an identifier": (NUMBERED, "", "Observation?identifier=http%3A%2F%2Flab.example%7C77"),
}


@pytest.mark.parametrize(("changes", "url", "deletion"), BEFORE.values(), ids=BEFORE)
@pytest.mark.parametrize("reported", [False, True], ids=["alone", "in a report"])
def test_what_its_source_deleted_before_it_came_is_not_shown(db, people, changes, url, deletion, reported) -> None:
    for _ in range(2):
        (outcome,) = take(deleted(deletion))
        assert ((outcome.status, outcome.effect), codes([outcome])) == (DUPLICATE, [["not_stored"]])
        assert "nothing was withdrawn; if it comes, it is not shown" in outcome.warnings[0]["message"]
    sent = {"resource": glucose(**changes), **({"fullUrl": url} if url else {})}
    whole = [{**PANEL, "result": [{"reference": url or "Observation/a"}, {"reference": "Observation/b"}]}, sodium()]
    (outcome,) = take(sent, *(whole if reported else []))
    assert (outcome.status, outcome.effect) == (CREATED if reported else WITHDRAWN)
    assert codes([outcome])[0][0] == "withdrawn"
    left = [140] if reported else []
    assert values(db) == left
    for again in ([sent, *(whole if reported else [])], [sent], [deleted(deletion)]):
        assert effects(take(*again)) == [DUPLICATE]
        assert values(db) == left
    assert db("select count(*) from superseded") == [(0,)]


def test_a_report_that_its_source_deleted_before_it_came_is_not_shown(db, people) -> None:
    take(glucose())
    take(deleted("DiagnosticReport/r1"))
    assert effects(take(PANEL, glucose(), sodium())) == [WITHDRAWN]
    assert values(db) == [5.1]  # which came alone
    assert effects(take(PANEL, glucose(), sodium())) == [DUPLICATE]


def test_what_was_made_anew_since_is_shown(db, people) -> None:
    take(deleted("Observation/a", "2"))
    assert effects(take(glucose(8, meta={"versionId": "3"}))) == [CREATED]
    assert effects(take(glucose(5, meta={"versionId": "1"}))) == [DUPLICATE]
    take(deleted("Observation/b"))
    assert effects(take(sodium(meta={"lastUpdated": "2099-01-01T00:00:00Z"}))) == [CREATED]
    assert values(db) == [8, 140]


def test_a_deleted_result_of_two_reports_is_withdrawn_in_both(db, people) -> None:
    take(PANEL, glucose(), sodium())
    take({**OTHER, "result": OTHER["result"][:1]}, glucose())
    assert effects(take(deleted("Observation/a"))) == [WITHDRAWN]
    assert values(db) == [140]


def test_a_report_whose_results_were_all_deleted_takes_later_ones(db, people) -> None:
    whole = {**PANEL, "result": PANEL["result"][:1], "meta": {"versionId": "1"}}
    take(whole, glucose(meta={"versionId": "1"}))
    take(deleted("Observation/a", "2"))
    assert values(db) == []
    assert effects(take(whole, glucose(meta={"versionId": "1"}))) == [DUPLICATE]
    assert effects(take({**PANEL, "meta": {"versionId": "1"}}, glucose(6, meta={"versionId": "3"}), sodium())) == [
        ("accepted", "replaced")
    ]
    assert values(db) == [6, 140]


def test_what_came_alone_stays_shown_beside_a_report_that_was_deleted_before_it_came(db, people) -> None:
    take(glucose(meta={"versionId": "1"}))
    take(deleted("DiagnosticReport/r1"))
    sent = [PANEL, glucose(meta={"versionId": "1"}), sodium(meta={"versionId": "1"})]
    take(*sent)
    for again in (sent, [glucose(meta={"versionId": "1"})], [deleted("DiagnosticReport/r1")], sent):
        assert effects(take(*again)) == [DUPLICATE]
        assert values(db) == [5.1]
    assert effects(take(sodium(meta={"versionId": "1"}))) == [DUPLICATE]
    assert effects(take(sodium(meta={"versionId": "2"}))) == [CREATED]  # a later version than the report had
    assert effects(take(*sent)) == effects(take(sodium(meta={"versionId": "2"}))) == [DUPLICATE]
    assert values(db) == [5.1, 140]


def test_a_history_that_begins_with_the_deletion_may_come_in_parts(db, people) -> None:
    with mock.patch.object(file_import.read_batches, "__defaults__", (10**6, 1)):
        sent = [deleted("Observation/a", "2"), glucose(meta={"versionId": "1"})]
        assert effects(take(*sent)) == [DUPLICATE, WITHDRAWN]
    assert values(db) == []


def test_a_deletion_before_several_that_it_may_mean_withdraws_none(db, people) -> None:
    take(deleted("Observation/a"))
    both = [
        {
            "resource": glucose(value, subject={"reference": f"{root}Patient/p{value}"}),
            "fullUrl": f"{root}Observation/a",
        }
        for value, root in ((1, LAB), (2, "http://other.example/"))
    ]
    assert effects(take(*both)) == [CREATED] * 2
    assert values(db) == [1, 2]


@pytest.mark.parametrize("first", ["the deletion", "the result"])
def test_a_deletion_and_its_result_that_come_at_once_find_each_other(db, people, first) -> None:
    take(sodium())  # the patient is known
    sent = [deleted("Observation/a")], [glucose()]
    one, two = sent if first == "the deletion" else sent[::-1]
    with ThreadPoolExecutor(1) as threads:
        with database.atomic():
            take(*one)
            other = threads.submit(take, *two)
            wait_for(lambda: other.done() or db("select 1 from pg_locks where not granted"))
        other.result(timeout=60)
    assert values(db) == [140]
