"""Siblings of the inputs in tests/data/faults whose meaning or owner came out wrong: one meaning, one person."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from support.fhir import PATIENT, bundle, observation, quantity, report
from support.fhir import read as fhir_read
from support.hl7 import MSH, OBR, OBX, PID, obx
from support.hl7 import read as hl7_read

from myhealth.common.errors import Conflict
from myhealth.intake.file_import import FileImport, ImportOptions
from myhealth.intake.results import RecordResult
from myhealth.profiles.identifiers import add_identifier, list_identifiers, remove_identifier, set_identifiers
from myhealth.profiles.services import get_user

UUID = "550e8400-e29b-41d4-a716-446655440000"


def take(text: str, **options: Any) -> list[RecordResult]:
    started = FileImport(io.BytesIO(text.encode()), "test", ImportOptions(**options))
    return [result for batch in started for _, result in batch]


def of_fhir(system: str, value: str = "4711", **changes: Any) -> str:
    patient = {"resourceType": "Patient", "id": "p1", "identifier": [{"system": system, "value": value}]}
    return json.dumps(bundle(patient, observation(subject={"reference": "Patient/p1"}, **changes)))


def of_hl7(authority: str, value: str = "4711") -> str:
    return "".join(f"{each}\r" for each in (MSH, f"PID|1||{value}^^^{authority}^MR", OBR, OBX))


@pytest.mark.parametrize(
    ("system", "authority"),
    [
        ("urn:oid:1.2.3", "1.2.3"),
        ("urn:oid:1.2.3", "HOSP&1.2.3&ISO"),
        ("URN:OID:1.2.3", "&1.2.3&ISO"),
        ("1.2.3", "1.2.3"),
        (f"urn:uuid:{UUID}", f"HOSP&{UUID.upper()}&UUID"),
        (f"urn:uuid:{UUID.upper()}", f"HOSP&{UUID}&GUID"),
        (UUID, UUID.upper()),
    ],
)
@pytest.mark.parametrize("first", ["fhir", "hl7"])
def test_an_authority_is_one_however_it_is_written(db, people, system: str, authority: str, first: str) -> None:
    files = [of_fhir(system), of_hl7(authority)]
    for text in files if first == "fhir" else reversed(files):
        assert [each.status for each in take(text, create_patients=True)] == ["accepted"]
    assert db("select count(distinct patient_id), count(*) from checkups") == [(1, 2)]
    assert db("select count(*) from patient_identifiers where system <> '' and not starts_with(system, 'fhir')") == [
        (1,)
    ]


@pytest.mark.parametrize("stored", ["1.2.3", "URN:OID:1.2.3"])
def test_an_authority_that_an_earlier_release_stored_as_sent_stays_known(db, people, stored: str) -> None:
    id_ = people["savita"]
    db("insert into patient_identifiers (patient_id, system, value) values (%s, %s, '4711')", id_, stored)
    text = of_fhir(stored)
    assert [each.status for each in take(text)] == ["accepted"]
    assert [each.status for each in take(text)] == ["duplicate"]
    assert db("select patient_id from checkups") == [(id_,)]
    with pytest.raises(Conflict):
        add_identifier("bholanath", stored, "4711")
    remove_identifier("savita", stored, "4711")
    assert list_identifiers(get_user("savita")) == []


def test_an_operator_may_write_an_authority_in_any_way(db, people) -> None:
    add_identifier("savita", "1.2.3", "4711")
    set_identifiers("savita", [{"system": "URN:OID:1.2.3", "value": "4711"}])
    assert list_identifiers(get_user("savita")) == [("urn:oid:1.2.3", "4711")]
    assert [each.status for each in take(of_fhir("urn:oid:1.2.3"))] == ["accepted"]
    remove_identifier("savita", "1.2.3", "4711")
    assert list_identifiers(get_user("savita")) == []


@pytest.mark.parametrize(
    ("period", "valid"),
    [({"start": "2999-01-01"}, False), ({"start": "2999"}, False), ({"end": "2001-12-31"}, False), ({"start": "2001"}, True)],
)  # fmt: skip
def test_a_number_that_is_not_valid_now_names_nobody_by_itself(period: dict[str, str], valid: bool) -> None:
    patient = {"resourceType": "Patient", "id": "p1", "identifier": [{"value": "M1", "period": period}]}
    (of_fhir,) = fhir_read(bundle(patient, observation(subject={"reference": "Patient/p1"})))
    first, last = (period.get(name, "").replace("-", "") for name in ("start", "end"))
    (of_hl7,) = hl7_read(MSH, f"PID|1||M1^^^HOSP^MR^^{first}^{last}", OBR, obx("NM", "5"))
    assert [not each.faults for each in (of_fhir, of_hl7)] == [valid, valid]


HELD = {"name": "return", "resource": observation()}


@pytest.mark.parametrize(
    ("resource", "place"),
    [
        ({"resourceType": "Parameters", "parameter": [{"name": "a"}, HELD]}, "Parameters.parameter[1].resource"),
        (
            {"resourceType": "Parameters", "parameter": [{"name": "a", "part": [HELD]}]},
            "Parameters.parameter[0].part[0].resource",
        ),
        ({"resourceType": "Composition", "contained": [observation()]}, "Composition.contained[0]"),
    ],
)
def test_results_where_they_are_not_looked_for_are_refused_with_their_place(resource: Any, place: str) -> None:
    for sent, name in ((resource, place), (bundle(resource), f"Bundle.entry.resource: {place}")):
        (parsed,) = fhir_read(sent)
        assert parsed.faults == [(name, "is not read: send each resource by itself, or as an entry of a Bundle")]


def test_parameters_without_a_resource_are_refused_by_themselves() -> None:
    (parsed,) = fhir_read({"resourceType": "Parameters", "parameter": [{"name": "a", "valueString": "5"}]})
    assert parsed.faults == [("Parameters", "has no resource, so there is no result in it")]


@pytest.mark.parametrize("head", ["Composition", "MessageHeader"])
def test_the_results_of_a_document_or_a_message_are_read(head: str) -> None:
    first = {"resourceType": head, "id": "c", "section": [{"entry": [{"reference": "DiagnosticReport/r1"}]}]}
    (parsed,) = fhir_read(bundle(first, report("Observation/glucose"), observation(), kind="document"))
    assert (parsed.faults, [each["value"] for each in parsed.record["results"]]) == ([], [6.3])


MARKED = {
    "behind": ("7.2 H", "mmol/L", "", (7.2, "H")),
    "before": ("H 7.2", "mmol/L", "", (7.2, "H")),
    "in brackets, with a comma": ("7,2 (H)", "", "", (7.2, "H")),
    "without a blank": ("7.2H", "mmol/L", "", (7.2, "H")),
    "in words": ("7.2 high", "", "", (7.2, "H")),
    "low, of a unit": ("2.1 L", "mmol/L", "", (2.1, "L")),
    "low, of a range": ("2.1 L", "", "3-5", (2.1, "L")),
    "a bound": ("<5 LL", "mmol/L", "", ("<5", "LL")),
    "a star": ("7.2*", "", "", (7.2, None)),
    "litres": ("2.1 L", "", "", ("2.1 L", None)),
    "litres in a range": ("4 L", "", "3-5", ("4 L", None)),
    "the unit again": ("2.1 L", "L", "", ("2.1 L", None)),
    "hours": ("24 H", "h", "", ("24 H", None)),
    "small letters are units": ("2.1 h", "", "", ("2.1 h", None)),
    "newtons": ("31 N", "", "", ("31 N", None)),
    "a vertebra": ("L 5", "", "", ("L 5", None)),
    "a thousand or one": ("1,000 H", "mmol/L", "", ("1,000 H", None)),
    "nodes": ("3 positive", "", "", ("3 positive", None)),
}


@pytest.mark.parametrize(("text", "unit", "range_", "found"), MARKED.values(), ids=MARKED)
def test_a_mark_beside_a_number_is_a_flag_if_it_can_be_nothing_else(text: str, unit: str, range_: str, found: Any):
    for kind in ("NM", "ST"):
        (parsed,) = hl7_read(MSH, PID, OBR, obx(kind, text, f6=unit, f7=range_))
        (result,) = parsed.record["results"]
        assert (result["value"], result["flag"]) == found
    if not unit:
        ranges = [{"low": quantity(3), "high": quantity(5)}] if range_ else []
        (parsed,) = fhir_read(observation(valueQuantity=..., valueString=text, referenceRange=ranges))
        (result,) = parsed.record["results"]
        assert (result["value"], result["flag"]) == found


@pytest.mark.parametrize(("flag", "found"), [("H", (7.2, "H")), ("L", ("7.2 H", "L")), ("N", ("7.2 H", "N"))])
def test_a_mark_that_contradicts_the_sources_flag_stays_text(flag: str, found: Any) -> None:
    (parsed,) = hl7_read(MSH, PID, OBR, obx("NM", "7.2 H", f6="mmol/L", f8=flag))
    (result,) = parsed.record["results"]
    assert (result["value"], result["flag"]) == found


def test_a_marked_number_that_was_stored_as_text_is_a_duplicate_when_it_comes_again(db, people) -> None:
    text = "".join(f"{each}\r" for each in (MSH, PID, OBR, obx("ST", "7.2 H", f6="mmol/L")))
    assert [each.status for each in take(text, create_patients=True)] == ["accepted"]
    db("update checkups set results = jsonb_set(results, '{0}', results->0 || %s)", '{"value": "7.2 H", "flag": null}')
    assert [each.status for each in take(text)] == ["duplicate"]
    assert db("select results->0->>'value', revision from checkups") == [("7.2 H", 2)]


K, NA = ("Observation/k", "Observation/na")


def versions_of_fhir(second: dict[str, Any]) -> list[str]:
    """Return a report with potassium and sodium, and a later version of it."""
    results = [observation("k", code={"text": "K"}), observation("na", code={"text": "Na"})]
    first = report(K, NA, conclusion="K is high", meta={"versionId": "1"})
    return [json.dumps(bundle(PATIENT, *results, each)) for each in (first, {**first, **second})]


def shown(db: Any) -> tuple[Any, ...]:
    ((status, text, results, details),) = db("select status, checkup_report, results, details from checkups")
    notes = [each["text"] for each in (details or {}).get("notes", ()) if each.get("author") == "MyHealth"]
    return status, text, [each["name"] for each in results if each.get("status") != "entered-in-error"], notes


NOTICE = "The latest version of this report does not name: "


def test_a_later_report_that_names_fewer_results_says_so_and_deletes_none(db, people) -> None:
    later = {"status": "corrected", "conclusion": "All fine", "result": [{"reference": NA}]}
    for meta in ({"versionId": "2"}, {}):
        db("truncate checkups, checkup_versions cascade")
        first, second = versions_of_fhir({**later, "meta": meta})
        take(first, create_patients=True)
        (told,) = [each for each in take(second) if each.effect == "replaced"]
        assert [each["code"] for each in told.warnings] == ["not_repeated"]
        assert shown(db) == ("corrected", "All fine", ["K", "Na"], [f"{NOTICE}K"])
        for again in (second, first):
            assert {each.effect for each in take(again)} <= {"none"}
        assert shown(db) == ("corrected", "All fine", ["K", "Na"], [f"{NOTICE}K"])
    take(versions_of_fhir({**later, "meta": {"versionId": "3"}, "result": [{"reference": K}, {"reference": NA}]})[1])
    assert shown(db) == ("corrected", "All fine", ["K", "Na"], [])


@pytest.mark.parametrize("change", [{"result": [{"reference": NA}, {"reference": "Observation/elsewhere"}]},
                                    {"result": [{"reference": NA}], "meta": {"versionId": "2", "tag": [{"code": "SUBSETTED"}]}}])  # fmt: skip
def test_a_report_of_which_parts_are_not_here_says_nothing_of_the_others(db, people, change: Any) -> None:
    first, second = versions_of_fhir({"status": "amended", **change})
    take(first, create_patients=True)
    take(second)
    assert shown(db)[2:] == (["K", "Na"], [])


@pytest.mark.parametrize(
    ("segments", "notes"),
    [
        ((obx("NM", "140", f3="NA^Na^L"),), [f"{NOTICE}K"]),  # all is sent again, without potassium
        ((obx("NM", "141", f3="NA^Na^L", f11="C"),), []),  # only what was corrected is sent
        ((obx("NM", "140", f3="NA^Na^L"), obx("NM", "", f3="K^K^L", f11="D")), []),
    ],
)
def test_a_corrected_order_that_repeats_its_results_says_which_it_lacks(db, people, segments: Any, notes: Any) -> None:
    head, final = (MSH, PID), OBR + "|" * 18 + "F"
    first = (*head, final, obx("NM", "4", f3="K^K^L"), obx("NM", "140", f3="NA^Na^L"))
    second = (MSH.replace("091500", "101500"), PID, final[:-1] + "C", *segments)
    for each in (first, second):
        (told,) = take("".join(f"{segment}\r" for segment in each), create_patients=True)
        assert told.status == "accepted"
    is_withdrawn = len(segments) > 1
    assert shown(db)[2:] == (["Na"] if is_withdrawn else ["K", "Na"], notes)
