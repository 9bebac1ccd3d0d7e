"""An Observation sent alone and in a report is one result, whichever comes first."""

from __future__ import annotations

import io
import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.factories import record
from support.factories import take as take_plain
from support.fhir import concept, observation, quantity, report
from support.sync_processes import wait_for
from support.work import grows_with_the_square

from myhealth import stores
from myhealth.common.database import database
from myhealth.intake.corrections import change_checkup, delete_checkup
from myhealth.intake.deletions import FIND_NUMBERED, parts_of
from myhealth.intake.file_import import FileImport, ImportOptions
from myhealth.intake.insert import FIND_KNOWN
from myhealth.intake.record_ids import HELD
from myhealth.intake.results import RecordResult

LATER = {"versionId": "2", "lastUpdated": "2026-11-25T10:00:00Z"}
SHOWN = "status is distinct from 'entered-in-error'"


def take(*resources: Any, lines: bool = False, **options: Any) -> list[RecordResult]:
    """Import resources, or whole entries of a Bundle."""
    entries = [each if "resourceType" not in each else {"resource": each} for each in resources]
    text = json.dumps({"resourceType": "Bundle", "type": "transaction", "entry": entries})
    if lines:
        text = "\n".join(map(json.dumps, resources))
    started = FileImport(io.BytesIO(text.encode()), "bundle", ImportOptions(create_patients=True, **options))
    return [result for batch in started for _, result in batch]


def patient_of(db: Any) -> int:
    ((id_,),) = db("select distinct patient_id from checkups")
    return int(id_)


def effects(outcomes: list[RecordResult]) -> list[tuple[str, str]]:
    return [(outcome.status, outcome.effect) for outcome in outcomes]


def deleted(url: str) -> dict[str, Any]:
    return {"request": {"method": "DELETE", "url": url}}


def glucose(value: Any = 5.1, **changes: Any) -> dict[str, Any]:
    return observation("a", **{"valueQuantity": quantity(value, "mmol/L"), **changes})


def sodium(value: Any = 140, **changes: Any) -> dict[str, Any]:
    return observation("b", code={"text": "Sodium"}, valueQuantity=quantity(value, "mmol/L"), **changes)


PRESSURE = {
    "valueQuantity": ...,
    "code": {"text": "Blood pressure"},
}


def pressure(systolic: Any, name: str = "p", **changes: Any) -> dict[str, Any]:
    parts = [{"code": concept(code, system="http://loinc.org"), "valueQuantity": quantity(value, "mm[Hg]")}
             for code, value in (("8480-6", systolic), ("8462-4", 80))]  # fmt: skip
    return observation(name, **PRESSURE, component=parts, **changes)


PANEL = report("Observation/a", "Observation/b", conclusion="See the values.")


@pytest.fixture
def shown(db: Any) -> Any:
    """The check-ups that are shown: each one's number and its results that are shown, as JSON."""

    def read() -> dict[str, list[dict[str, Any]]]:
        return {
            number: [each for each in json.loads(text) if each.get("status") != "entered-in-error"]
            for number, text in db(f"select record_id, results::text from checkups where {SHOWN} order by id")
        }

    return read


def values(found: dict[str, list[dict[str, Any]]]) -> dict[str, list[Any]]:
    return {number: [each["value"] for each in results] for number, results in found.items()}


ENVELOPES = {
    "by its id": ({}, ""),
    "by its address": ({}, "http://lab.example/Observation/a"),
    "by an identifier": ({"identifier": [{"system": "http://lab.example", "value": "77"}]}, ""),
    "with other facts": (
        {
            "effectiveDateTime": "2026-11-20T07:00:00+05:30",
            "performer": [{"display": "Dr. Rao"}],
            "category": [concept("laboratory")],
            "note": [{"text": "fasting"}],
            "issued": "2026-11-20T12:00:00Z",
        },
        "",
    ),
}


@pytest.mark.parametrize(("changes", "url"), ENVELOPES.values(), ids=ENVELOPES)
def test_a_member_corrected_alone_is_corrected_in_its_report(db, people, shown, changes, url) -> None:
    def sent(**other: Any) -> dict[str, Any]:
        entry = {"resource": glucose(**{**changes, **other})}
        return entry | ({"fullUrl": url, "request": {"method": "PUT", "url": "Observation/a"}} if url else {})

    panel = {**PANEL, "result": [{"reference": url or "Observation/a"}, {"reference": "Observation/b"}]}
    take({"resource": panel, "fullUrl": "http://lab.example/DiagnosticReport/r1"}, sent(), sodium())
    (number,) = shown()
    assert effects(take(sent())) == [("duplicate", "none")]
    corrected = sent(value=6.9, status="corrected", meta=LATER)
    (outcome,) = take(corrected)
    assert (outcome.status, outcome.effect) == ("accepted", "replaced")
    assert values(shown()) == {number: [6.9, 140]}
    changed = shown()[number][0]
    assert (changed["previous_value"], changed["status"]) == (5.1, "corrected")
    assert changed["corrected_at"].startswith("2026-11-25T10:00:00")
    assert db("select id, checkup_report, status from checkups") == [(outcome.id, "See the values.", None)]
    for again in (corrected, sent()):
        assert effects(take(again)) == [("duplicate", "none")]
    assert values(shown()) == {number: [6.9, 140]}
    assert len(db("select reason from checkup_versions")) == 1


VERSIONS = {
    "its number": [{"meta": {"versionId": each}} for each in ("2", '"3"', "10")],
    "its moment": [{"meta": {"lastUpdated": f"2026-11-2{day}T10:00:00Z"}} for day in (1, 2, 3)],
    "when it was issued": [{"issued": f"2026-11-2{day}T10:00:00+05:30"} for day in (1, 2, 3)],
}


@pytest.mark.parametrize(("sent", "alone"), [(glucose, False), (pressure, True)], ids=["in its report", "alone"])
@pytest.mark.parametrize("versions", VERSIONS.values(), ids=VERSIONS)
def test_of_a_member_its_own_version_tells_which_is_later(db, people, shown, versions, sent, alone) -> None:
    panel = report("Observation/a", meta={"versionId": "7", "lastUpdated": "2026-11-20T10:00:00Z"})
    first, second, third = (
        sent(value, **({"id": "a"} | meta)) for value, meta in zip((5, 6, 7), versions, strict=True)
    )

    def send(member: Any) -> tuple[str, str, list[str]]:
        outcome = take(*([] if alone else [panel]), member)[0]
        return outcome.status, outcome.effect, [each["code"] for each in outcome.warnings if "code" in each]

    take(panel, second)
    assert [send(second), send(first)] == [("duplicate", "none", []), ("duplicate", "none", ["earlier_version"])]
    assert send(third) == ("accepted", "replaced", [])
    assert [send(third), send(second)] == [("duplicate", "none", []), ("duplicate", "none", ["earlier_version"])]
    ((found, *_),) = values(shown()).values()
    assert found == 7


def test_a_panel_within_a_report_has_a_version_of_its_own_which_is_none_of_its_results(db, people, shown) -> None:
    panel = observation("q", code={"text": "Panel"}, valueQuantity=..., hasMember=PANEL["result"], meta=LATER)
    assert effects(take(report("Observation/q"), panel, glucose(), sodium(meta={"versionId": "1"}))) == [
        ("accepted", "created")
    ]
    assert [each.get("version") for each in shown()["DiagnosticReport/r1"]] == [None, "1"]


def test_a_member_entered_in_error_alone_is_withdrawn_and_not_resurrected(db, people, shown) -> None:
    take(PANEL, glucose(), sodium())
    wrong = glucose(status="entered-in-error", valueQuantity=...)
    assert effects(take(wrong)) == [("accepted", "withdrawn")]
    assert effects(take(wrong)) == [("duplicate", "none")]
    assert effects(take(glucose(meta=LATER))) == [("duplicate", "none")]
    assert effects(take(PANEL, glucose(), sodium())) == [("duplicate", "none")]
    assert values(shown()) == {"DiagnosticReport/r1": [140]}
    assert effects(take(sodium(status="entered-in-error"))) == [("accepted", "withdrawn")]
    assert shown() == {}


def test_the_only_result_of_a_report_leaves_the_report_as_it_is(db, people, shown) -> None:
    take({**PANEL, "result": PANEL["result"][:1]}, glucose())
    assert effects(take(glucose(6.9, status="amended", meta=LATER))) == [("accepted", "replaced")]
    assert db("select record_id, checkup_type, checkup_report, status from checkups") == [
        ("DiagnosticReport/r1", "Lipid panel", "See the values.", None)
    ]


def test_the_same_number_of_another_patient_is_another_result(db, people, shown) -> None:
    take(PANEL, glucose(), sodium())
    other = glucose(7.7, subject={"reference": "Patient/other"}, meta=LATER)
    assert effects(take(other)) == [("accepted", "created")]
    assert values(shown()) == {"DiagnosticReport/r1": [5.1, 140], "Observation/a": [7.7]}
    third = {"reference": "Patient/third"}
    take(report("Observation/a", subject=third, id="r3"), glucose(8.8, subject=third))
    assert values(shown()) == {
        "DiagnosticReport/r1": [5.1, 140], "Observation/a": [7.7], "DiagnosticReport/r3": [8.8]
    }  # fmt: skip


def test_other_content_that_nothing_calls_later_is_refused(db, people, shown) -> None:
    take(PANEL, glucose(), sodium())
    (outcome,) = take(glucose(6.9))
    assert (outcome.status, outcome.errors[0]["code"]) == ("rejected", "stored_with_other_content")
    assert values(shown()) == {"DiagnosticReport/r1": [5.1, 140]}


def test_a_member_that_a_person_corrected_here_is_not_overwritten(db, people, shown) -> None:
    (first,) = take(PANEL, glucose(), sodium())
    results = [{**each, "value": 5.5} if each["name"] == "Glucose" else each for each in shown()["DiagnosticReport/r1"]]
    change_checkup(patient_of(db), first.id, {"results": results})
    (outcome,) = take(glucose(6.9, status="corrected", meta=LATER))
    assert (outcome.status, outcome.errors[0]["code"]) == ("rejected", "corrected_here")
    assert effects(take(glucose())) == [("duplicate", "none")]
    assert values(shown()) == {"DiagnosticReport/r1": [5.5, 140]}


def test_a_blood_pressure_is_found_by_its_panel_and_not_by_its_components(db, people, shown) -> None:
    take(report("Observation/q", "Observation/p"), pressure(130, "q"), pressure(120))
    assert effects(take(pressure(125, status="corrected", meta=LATER))) == [("accepted", "replaced")]
    assert values(shown()) == {"DiagnosticReport/r1": [130, 80, 125, 80]}
    assert effects(take(pressure(125, status="corrected", meta=LATER))) == [("duplicate", "none")]
    assert effects(take(deleted("Observation/p"))) == [("accepted", "withdrawn")]
    assert values(shown()) == {"DiagnosticReport/r1": [130, 80]}


@pytest.mark.parametrize("contained", [True, False], ids=["contains", "refers"])
@pytest.mark.parametrize("lines", [True, False], ids=["one file", "one after the other"])
def test_a_report_takes_in_what_was_sent_alone(db, people, shown, contained, lines) -> None:
    alone = [glucose(), sodium()]
    panel = [PANEL, *(alone if contained else ())]
    if lines and not contained:
        assert [effect for _, effect in effects(take(*alone, PANEL, lines=True))] == ["created"] * 3
    else:
        take(*alone)
        assert effects(take(*panel)) == [("accepted", "created")]
    assert values(shown()) == {"DiagnosticReport/r1": [5.1, 140]}
    for again in (panel, alone):
        assert {effect for _, effect in effects(take(*again))} == {"none"}
    assert effects(take(glucose(6.9, status="corrected", meta=LATER))) == [("accepted", "replaced")]
    assert effects(take(deleted("Observation/b"))) == [("accepted", "withdrawn")]
    assert {effect for _, effect in effects(take(*panel))} == {"none"}
    assert values(shown()) == {"DiagnosticReport/r1": [6.9]}


def test_a_review_of_what_a_report_takes_in_ends(db, people) -> None:
    take(glucose())
    db("update checkups set reviewed_at = now(), reviewed_by = 1, review_note = 'seen'")
    take(PANEL, glucose())
    review = "select status, reviewed_at is null, reviewed_by, review_note from checkups order by id"
    assert db(review) == [("entered-in-error", True, None, "seen"), (None, True, None, None)]
    assert db("select reason from checkup_versions") == [("withdrawn",)]


ORDERS = {
    "the report is later": ({"status": "preliminary"}, {"meta": LATER}, [5.5], 5.1),
    "the report is earlier": ({"status": "corrected", "meta": LATER}, {}, [5.1], 5.5),
    "it was withdrawn": ({"status": "entered-in-error"}, {}, [], None),
}


@pytest.mark.parametrize(("first", "then", "expected", "previous"), ORDERS.values(), ids=ORDERS)
def test_the_later_of_both_counts(db, people, shown, first, then, expected, previous) -> None:
    take(glucose(**first))
    take({**PANEL, "result": PANEL["result"][:1]}, glucose(5.5, **then))
    found = shown()
    assert [value for each in values(found).values() for value in each] == expected
    assert [each.get("previous_value") for results in found.values() for each in results] == (
        [previous] * len(expected)
    )


def test_what_a_person_corrected_alone_stays_in_the_report(db, people, shown) -> None:
    (first,) = take(glucose())
    change_checkup(patient_of(db), first.id, {"results": [{**shown()["Observation/a"][0], "value": 5.5}]})
    (outcome, *_) = take(PANEL, glucose(6.9, status="corrected", meta=LATER), sodium())
    assert (outcome.status, outcome.errors[0]["code"]) == ("rejected", "corrected_here")
    assert values(shown()) == {"Observation/a": [5.5]}
    assert effects(take(PANEL, glucose(), sodium())) == [("accepted", "created")]
    assert values(shown()) == {"DiagnosticReport/r1": [5.5, 140]}


SAME = {"subject": {"reference": "Patient/p1", "identifier": {"value": "p1"}}}  # whatever the server
AT = {"effectiveDateTime": "2026-11-20T07:00:00+05:30"}
LAB, OTHER, HERE = ("http://lab.example/fhir/", "http://other.example/", "")
UUID = {"id": "5b7a1d0e-6f0f-4f43-9a11-3f2c1de0a001"}
ADDRESSES = {
    "at one instant": ((LAB, HERE), [{**AT}, {"valueQuantity": quantity(6, "mmol/L"), **AT}], 1),
    "the other way": ((HERE, LAB), [{**AT}, {"valueQuantity": quantity(6, "mmol/L"), **AT}], 1),
    "on one day": ((LAB, HERE), [{"effectiveDateTime": "2026-11-20"}] * 2, 1),
    "an id that no two have": ((LAB, HERE), [{**AT, **UUID}, {"effectiveDateTime": "2026-11-21", **UUID}], 1),
    "two servers": ((LAB, OTHER), [AT, AT], 2),
    "one of two servers": ((LAB, OTHER, HERE), [AT, AT, AT], 3),
    "other moments": ((LAB, HERE), [AT, {"effectiveDateTime": "2026-11-20T07:01:00+05:30"}], 2),
    "other tests": ((LAB, HERE), [AT, {"code": {"text": "Urea"}, **AT}], 2),
    "other values of one day": (
        (LAB, HERE),
        [{"effectiveDateTime": "2026-11-20", "valueQuantity": quantity(value, "mmol/L")} for value in (5, 6)],
        2,
    ),
}


@pytest.mark.parametrize("reported", [False, True], ids=["alone", "in a report"])
@pytest.mark.parametrize("case", ADDRESSES)
def test_an_address_with_and_without_its_server_is_one_resource(db, people, shown, case, reported) -> None:
    roots, changes, count = ADDRESSES[case]
    for number, (root, changed) in enumerate(zip(roots, changes, strict=True)):
        version = {"valueQuantity": quantity(5, "mmol/L"), "meta": {"versionId": str(number)}}
        sent = observation("a", **{**version, **SAME, **changed})
        url = f"{root}Observation/{sent['id']}"
        same = {name: sent[name] for name in ("id", "effectiveDateTime")} | {"code": {"text": sent["code"]["text"]}}
        entries = [{"resource": report(url, **same, **SAME)}] if reported else []
        entries.append({"resource": sent})
        for each in entries if root else ():
            each["fullUrl"] = f"{root}{each['resource']['resourceType']}/{sent['id']}"
        assert [outcome.status for outcome in take(*entries)] != ["rejected"]
        assert effects(take(*entries)) == [("duplicate", "none")]
    found = shown()
    assert [len(results) for results in found.values()] == [1] * count


def test_a_member_is_corrected_by_its_address_on_its_server(db, people, shown) -> None:
    take(PANEL, glucose(**AT), sodium())
    corrected = {"resource": glucose(6.9, status="corrected", meta=LATER, **AT), "fullUrl": f"{LAB}Observation/a"}
    assert effects(take(corrected)) == [("accepted", "replaced")]
    assert effects(take(corrected)) == [("duplicate", "none")]
    assert values(shown()) == {"DiagnosticReport/r1": [6.9, 140]}


def test_a_report_takes_in_what_it_refers_to_on_its_own_server_alone(db, people, shown) -> None:
    take(
        *(
            {"resource": glucose(value, **AT, **SAME), "fullUrl": f"{root}Observation/a"}
            for value, root in ((5, LAB), (6, OTHER))
        )
    )
    panel = {**PANEL, **SAME, "result": PANEL["result"][:1]}
    take({**panel, "id": "nowhere"})
    assert sorted(each for found in values(shown()).values() for each in found) == [5, 6]
    assert sum(not found for found in shown().values()) == 1
    take({"resource": panel, "fullUrl": f"{OTHER}DiagnosticReport/r1"})
    assert values(shown())[f"{OTHER}DiagnosticReport/r1"] == [6]
    assert values(shown())[f"{LAB}Observation/a"] == [5]


ALONE_CORRECTED = glucose(6.9, status="corrected", meta=LATER)
AT_ONCE = {
    "its report": ([], [glucose()], [PANEL, glucose(), sodium()], [5.1, 140]),
    "it alone": ([], [PANEL, glucose(), sodium()], [glucose()], [5.1, 140]),
    "its report, it corrected": ([glucose()], [ALONE_CORRECTED], [PANEL, glucose(), sodium()], [6.9, 140]),
    "it corrected, its report": ([glucose()], [PANEL, glucose(), sodium()], [ALONE_CORRECTED], [6.9, 140]),
}


@pytest.mark.parametrize(("before", "first", "then", "expected"), AT_ONCE.values(), ids=AT_ONCE)
def test_two_uploads_at_once_find_each_other(db, people, shown, before, first, then, expected) -> None:
    take(observation("z", code={"text": "Potassium"}, valueQuantity=quantity(4, "mmol/L")), *before)
    with ThreadPoolExecutor(1) as threads:
        with database.atomic():
            take(*first)
            other = threads.submit(take, *then)
            wait_for(lambda: other.done() or db("select 1 from pg_locks where not granted"))
        outcomes = other.result(timeout=60)
    assert {outcome.status for outcome in outcomes} <= {"accepted", "duplicate"}
    found = values(shown())
    assert found.pop("Observation/z") == [4]
    assert found == {"DiagnosticReport/r1": expected}


def test_what_a_person_corrects_while_its_report_comes_is_in_the_report(db, people, shown) -> None:
    (alone,) = take(glucose())
    with ThreadPoolExecutor(1) as threads:
        with database.atomic():
            change_checkup(patient_of(db), alone.id, {"results": [{**shown()["Observation/a"][0], "value": 5.5}]})
            report_ = threads.submit(take, PANEL, glucose(), sodium())
            wait_for(lambda: report_.done() or db("select 1 from pg_locks where not granted"))
        assert effects(report_.result(timeout=60)) == [("accepted", "created")]
    assert values(shown()) == {"DiagnosticReport/r1": [5.5, 140]}


def test_the_look_up_uses_an_index_in_which_plain_records_have_no_part(db, people) -> None:
    take_plain(record(0))
    db("delete from checkups")
    db("analyze checkups")  # as a first upload is seen from beside it: pages without a row
    take(PANEL, glucose(), sodium())
    take_plain(*map(record, range(30)))
    with database.atomic():
        for statement in FIND_NUMBERED.replace("%s", "array['Observation/a']").split(";"):
            plan = db(f"{'' if 'set local' in statement else 'explain'} {statement}")
    assert "Bitmap Index Scan on checkups_numbers" in str(plan)
    db("analyze checkups")
    assert db("select reltuples from pg_class where relname = 'checkups'") == [(31,)]
    db("reindex index checkups_numbers")
    assert db("select reltuples from pg_class where relname = 'checkups_numbers'") == [(6,)]


def test_check_ups_from_before_the_index_are_found(db, people, settings, shown) -> None:
    take(PANEL, glucose(), sodium())
    stores.migrate(settings, 21)
    assert db("select to_regclass('checkups_numbers')") == [(None,)]
    stores.migrate(settings)
    assert effects(take(glucose(6.9, status="corrected", meta=LATER))) == [("accepted", "replaced")]


def test_results_that_a_report_names_and_that_are_nowhere_are_told(db, people) -> None:
    def told(*resources: Any) -> list[Any]:
        return [(each["field"], each["message"]) for each in take(*resources)[-1].warnings]

    place, names = "DiagnosticReport.result", ["Observation/a", "Observation/b", "Observation/c"]
    assert told(glucose(), report(*names)) == [(place, "is not here: Observation/b, Observation/c")]
    assert told(glucose(), report(*names)) == []  # as known before
    assert told(sodium()) == []
    assert told(report("Observation/a", "Observation/b", id="r2")) == []  # one is stored alone, one in a report


def temporary(mark: str, *, together: bool, **changes: Any) -> list[RecordResult]:
    """Send a patient's results as a transaction does: with addresses that are made for it."""
    urls = [f"urn:uuid:{mark}{place}" for place in range(4)]
    person = {"resourceType": "Patient", "identifier": [{"system": "http://example.org/mrn", "value": "7"}]}
    results = [{**each, "subject": {"reference": urls[0]}} for each in (glucose(**changes), sodium())]
    entries = [person, *results, {**report(*urls[1:3]), "subject": {"reference": urls[0]}}]
    return take(*[
        {"fullUrl": url, "resource": {name: each for name, each in resource.items() if name != "id"}}
        for url, resource in list(zip(urls, entries, strict=True))[: 4 if together else 3]
    ])  # fmt: skip


@pytest.mark.parametrize("together", [True, False], ids=["in a report", "alone"])
def test_a_transaction_that_is_sent_again_with_new_addresses_stores_nothing_twice(db, people, together) -> None:
    first = temporary("a", together=together)
    assert {each.effect for each in first} == {"created"}
    again = temporary("b", together=together)
    assert effects(again) == [("duplicate", "none")] * len(first)
    assert [each.id for each in again] == [each.id for each in first]
    other = temporary("c", together=together, value=5.2)
    assert effects(other)[0] == ("accepted", "created")  # another result


def test_a_result_is_known_by_its_identifier_and_content_under_another_id(db, people) -> None:
    numbered = glucose(identifier=[{"system": "http://lab.example", "value": "F1"}])
    assert effects(take(numbered)) == [("accepted", "created")]
    assert effects(take({**numbered, "id": "other"})) == [("duplicate", "none")]
    assert effects(take({**numbered, "id": "third", "code": {"text": "Sodium"}})) == [("accepted", "created")]


def test_many_results_of_a_patient_that_come_again_are_not_each_compared_with_each(db, people) -> None:
    def send(count: int) -> list[RecordResult]:
        return take(*(observation(f"o{number}", code={"text": f"t{number}"}) for number in range(count)))

    assert {each.effect for each in send(400)} == {"created"}
    assert not grows_with_the_square(send, 100)


def test_many_deleted_results_that_come_again_are_not_each_compared_with_each(db, people) -> None:
    person = {"resourceType": "Patient", "identifier": [{"system": "http://example.org/mrn", "value": "7"}]}

    def send(mark: str, count: int) -> list[RecordResult]:
        facts = {
            "id": ...,
            "subject": {"reference": f"urn:uuid:{mark}"},
            "effectiveDateTime": f"2026-11-20T09:{count}:00Z",
        }
        sent = [observation(code={"text": f"t{place}"}, **facts) for place in range(count)]
        urls = [f"urn:uuid:{mark}{place}" for place in range(count)]
        entries = [{"fullUrl": url, "resource": each} for url, each in zip(urls, sent, strict=True)]
        return take({"fullUrl": f"urn:uuid:{mark}", "resource": person}, *entries)

    for each in (*send("a", 14), *send("b", 56)):
        delete_checkup(patient_of(db), each.id or 0)
    assert not grows_with_the_square(lambda count: send(f"c{count}", count), 14)
    assert db("select count(*) from checkups") == [(0,)]


@pytest.mark.parametrize("stored_before", [True, False], ids=["of what is stored", "before what they name"])
def test_many_deletions_are_not_each_compared_with_each_result(db, people, stored_before) -> None:
    def run(count: int) -> None:
        sent = [observation(f"{count}-{number}", code={"text": f"t{number}"}) for number in range(count)]
        gone = [deleted(f"Observation/{each['id']}") for each in sent]
        for part in (sent, gone, gone) if stored_before else (gone, gone, sent):
            take(*part)

    assert not grows_with_the_square(run, 100)
    assert db("select count(*) from checkups where status = 'entered-in-error'") == [(500,)]


def test_the_look_ups_use_an_index_for_each_key_whatever_the_statistics_say(db, people) -> None:
    """A first import from a new source: PostgreSQL believes that the parts of its indexes are empty."""
    fill = "insert into checkups (patient_id, machine_id, record_id, checkup_type, checkup_report, disease, results)"
    fill += " select 1, %s, %s || n, 'BP', '', '', '[]' from generate_series(1, %s) n"
    db("insert into machines (id, serial) values (1, 'M1'), (2, 'M2')")
    db(fill, 1, "old", 20_000)
    db("analyze checkups")
    db(fill, 2, "new", 600)
    take(*(observation(str(number), code={"text": "t"}) for number in range(1, 601)))
    addresses, names = ([f"{name}{number}" for number in range(1, 601)] for name in ("Observation/", "new"))
    *settings, look_up = FIND_NUMBERED.split(";")
    cursor, plans = database.cursor(), []

    def explain(statement: str, values: Any) -> None:
        cursor.execute(f"explain (analyze, timing off) {statement}", values)
        plans.append("\n".join(line for (line,) in cursor.fetchall()))

    with database.atomic():
        cursor.execute(";".join(settings))
        explain(look_up, ([part for each in addresses for part in parts_of(each)],))
    explain(FIND_KNOWN, {"machines": [2] * 600, "records": names, "machineless": addresses})
    for serial, numbers in ((None, addresses), ("M2", names)):
        explain(HELD, ([serial] * 600, numbers, [None] * 600))
    for lines in plans:
        read = [int(rows) for rows in re.findall(r"checkups.* rows=(\d+)\S* loops=", lines)]
        assert max(read) <= 2, lines  # for each key its rows, not the table
        assert "Rows Removed" not in lines, lines
