"""Reading FHIR R4: which resources become a record, of whom, when and by whom."""

import io
import json
from typing import Any

import pytest
from support.fhir import (
    KOLKATA,
    PATIENT,
    bundle,
    concept,
    faults_of,
    named,
    observation,
    patients_of,
    quantity,
    read,
    read_text,
    record_of,
    report,
    same_again,
)

from myhealth.intake.formats.fhir.reader import read_fhir
from myhealth.intake.formats.format import Dump
from myhealth.intake.formats.json_reader import JsonBuffer
from myhealth.intake.formats.registry import FHIR, read_dump
from myhealth.intake.parsed_record import ParsedRecord


@pytest.mark.parametrize(
    ("changes", "taken_at", "precision"),
    [
        ({"effectiveDateTime": "2026-11-20T09:14:03+05:30"}, "2026-11-20T09:14:03+05:30", ""),
        ({"effectiveDateTime": "2026-11-20T09:14:03.125Z"}, "2026-11-20T09:14:03.125Z", ""),
        ({"effectiveDateTime": "2026-11-20T09:14:03"}, "2026-11-20T09:14:03+05:30", ""),
        ({"effectiveDateTime": "2026-11-20T09:14Z"}, "2026-11-20T09:14:00+00:00", ""),
        ({"effectiveDateTime": "2016-12-31T23:59:60Z"}, "2017-01-01T00:00:00+00:00", ""),
        ({"effectiveDateTime": "2026-11-20"}, "2026-11-20T12:00:00+00:00", "day"),
        ({"effectiveDateTime": "2026-11"}, "2026-11-01T12:00:00+00:00", "month"),
        ({"effectiveDateTime": "2026"}, "2026-01-01T12:00:00+00:00", "year"),
        ({"effectiveDateTime": ..., "effectiveInstant": "2026-11-20T09:14:03Z"}, "2026-11-20T09:14:03Z", ""),
        ({"effectiveDateTime": ..., "effectivePeriod": {"start": "2026-11-20T09:00:00Z", "end": "2026-11-21"}},
         "2026-11-20T09:00:00Z", ""),
        ({"effectiveDateTime": ..., "issued": "2026-11-22T01:02:03Z"}, None, "unknown"),
        ({"issued": "2026-11-22T01:02:03Z"}, "2026-11-20T09:14:03+05:30", ""),
        ({"effectiveDateTime": ...}, None, "unknown"),
        ({"effectiveDateTime": "1905-06-01T10:00:00"}, "1905-06-01T04:38:50+00:00", ""),
    ],
    ids=lambda value: str(value)[:70] if isinstance(value, dict) else "",
)  # fmt: skip
def test_when_it_was_taken(changes: dict[str, Any], taken_at: str | None, precision: str) -> None:
    record = record_of(observation(**changes), zone=KOLKATA)
    assert record.get("taken_at") == taken_at
    assert record.get("taken_precision", "") == precision
    assert record["checkup_report"] == ""


@pytest.mark.parametrize(
    "text",
    [
        "2026-13",
        "2026-02-30",
        "yesterday",
        "2026-11-20T25:00:00Z",
        "0000",
        "2026-11-20T09:00:00+99:00",
        "2026-11-20T09:00:00+05:75",
    ],
)
def test_a_moment_that_is_none_is_a_fault(text: str) -> None:
    assert faults_of(observation(effectiveDateTime=text)) == [
        ("Observation.effectiveDateTime", f"is not a date and time: '{text}'")
    ]


@pytest.mark.parametrize(
    ("changes", "url", "record_id"),
    [
        ({"identifier": [{"system": "http://acme.com", "value": "17"}]}, "urn:uuid:1", "http://acme.com|17#glucose"),
        ({"identifier": [{"use": "old", "value": "16"}, {"value": "17"}]}, "", "17#glucose"),
        ({"id": ..., "identifier": [{"value": "17"}]}, "", "17"),
        ({"identifier": [{"system": "http://acme.com"}]}, "urn:uuid:1", "urn:uuid:1"),
        ({}, "https://example.com/Observation/glucose", "https://example.com/Observation/glucose"),
        ({}, "", "Observation/glucose"),
        ({"id": ...}, "", None),
    ],
    ids=["identifier", "use", "no-id", "system-only", "url", "id", "nothing"],
)  # fmt: skip
def test_the_number_of_a_record(changes: dict[str, Any], url: str, record_id: str | None) -> None:
    (reading,) = read(bundle(observation(**changes), urls=(url,)))
    assert reading.record.get("record_id") == record_id


@pytest.mark.parametrize(
    ("subject", "patients", "full_name"),
    [
        ({"reference": "Patient/p1"}, ("bholanath", "CARD-7", "OLD-1"), "Bholanath V Kulkarni"),
        ({"reference": "Patient/p1/_history/2"}, ("bholanath", "CARD-7", "OLD-1"), "Bholanath V Kulkarni"),
        ({"reference": "Patient/p2", "display": "Savita"}, ("p2",), "Savita"),
        ({"reference": "https://example.com/fhir/Patient/p1"}, ("p1",), ""),
        ({"reference": "urn:uuid:5"}, ("urn:uuid:5",), ""),
        ({"identifier": {"value": "MRN-9"}}, ("MRN-9",), ""),
        ({"reference": "Patient?identifier=http://example.org/mrn|123"}, ("123",), ""),
        ({"reference": "#gone"}, (), ""),
        ({"reference": "", "identifier": {"value": " "}}, (), ""),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, dict) else "",
)  # fmt: skip
def test_the_patient_is_known_by(subject: Any, patients: tuple[str, ...], full_name: str) -> None:
    (reading,) = read(bundle(PATIENT, observation(subject=subject)))
    assert (patients_of(reading), reading.full_name) == (patients, full_name)
    assert reading.record.get("checkup_for") == (patients[0] if patients else None)
    assert ("checkup_for" in reading.record) == bool(patients)


def test_a_number_on_another_server_is_another_person() -> None:
    here = ("https://a.example/fhir/Patient/p1", "https://a.example/fhir/Observation/glucose")
    there = ("https://b.example/fhir/Patient/p1", "https://a.example/fhir/Observation/glucose")
    assert patients_of(read(bundle(PATIENT, observation(), urls=here))[0])[0] == "bholanath"
    assert patients_of(read(bundle(PATIENT, observation(), urls=there))[0]) == ("p1",)


def test_a_reference_to_a_version_means_that_version() -> None:
    versions = [{**PATIENT, "meta": {"versionId": n}, "identifier": [{"value": f"MRN-{n}"}]} for n in ("3", "2")]
    urls = ("https://a.example/Patient/p1",) * 2 + ("https://a.example/Observation/glucose",)
    for text, name in (("Patient/p1", "MRN-3"), ("Patient/p1/_history/2", "MRN-2"), ("Patient/p1/_history/9", "MRN-3")):
        for reference in (text, f"https://a.example/{text}"):
            (reading,) = read(bundle(*versions, observation(subject={"reference": reference}), urls=urls))
            assert patients_of(reading)[0] == name
            same_again(reading)


@pytest.mark.parametrize(
    ("performer", "taken_by"),
    [
        ([{"reference": "Practitioner/d1", "display": "Dr Ayush"}], "Dr Ayush"),
        ([{"reference": "Practitioner/d1"}], "Ayush Rao"),
        ([{"reference": "PractitionerRole/r1"}], "Ayush Rao"),
        ([{"reference": "Organization/o1"}], "Pune Camp"),
        ([{"reference": "Practitioner/unknown"}], "Practitioner/unknown"),
        ([{"identifier": {"value": "L-77"}}], "L-77"),
        ([{"actor": {"reference": "Practitioner/d1"}}], "Ayush Rao"),
        ([{}, {"display": "Tara"}], "Tara"),
        ([], None),
    ],
    ids=lambda value: str(value)[:50] if isinstance(value, list) else "",
)  # fmt: skip
def test_who_took_it(performer: Any, taken_by: str | None) -> None:
    people = [
        {"resourceType": "Practitioner", "id": "d1", "name": [{"family": "Rao", "given": ["Ayush"]}]},
        {"resourceType": "PractitionerRole", "id": "r1", "practitioner": {"reference": "Practitioner/d1"}},
        {"resourceType": "Organization", "id": "o1", "name": "Pune Camp"},
    ]
    (reading,) = read(bundle(*people, observation(performer=performer)))
    assert reading.record["taken_by"] == taken_by


@pytest.mark.parametrize(
    ("device", "serial"),
    [
        ({"identifier": [{"value": "345675"}]}, "345675"),
        ({"identifier": [{"value": "ASSET-1"}], "serialNumber": "SN-2"}, "SN-2"),
        ({"identifier": [{"value": "ASSET-1"}, {"type": concept("SNO"), "value": "SN-3"}]}, "SN-3"),
        ({}, "d1"),
        ({"identifier": [{"value": "A/B"}]}, None),
        (None, "d1"),
    ],
    ids=["identifier", "serial-number", "type", "id", "unusable", "elsewhere"],
)  # fmt: skip
def test_the_machine_is_known_by_a_serial(device: Any, serial: str | None) -> None:
    devices = [] if device is None else [{"resourceType": "Device", "id": "d1", **device}]
    (reading,) = read(bundle(*devices, observation(device={"reference": "Device/d1"})))
    assert reading.record.get("machine") == serial
    assert ("machine" in reading.record) == (serial is not None)


def test_results_of_two_machines_are_of_none_and_both_are_named() -> None:
    both = [observation(name, device={"identifier": {"value": f"HC-{name}"}}) for name in ("1", "2")]
    (reading,) = read(bundle(report("Observation/1", "Observation/2"), *both))
    assert "machine" not in reading.record
    assert [result["device"] for result in reading.record["results"]] == ["HC-1", "HC-2"]


def test_what_is_not_kept_is_told() -> None:
    film = {"title": "Film", "data": "AAAA", "contentType": "application/dicom"}
    much = observation("1", extension=[{"url": "http://x.example/e", "valueString": "x" * 70_000}])
    (found,) = read(bundle(report("Observation/1", presentedForm=[{"url": "http://x.example/f"}, film]), much))
    assert found.warnings == [
        ("DiagnosticReport.presentedForm[1].data", "the attached file is not kept"),
        ("Observation", "contains too much besides its result: that was not kept"),
    ]
    assert "results" not in found.record["sent"]
    (found,) = read(much)
    assert [place for place, _ in found.warnings] == ["Observation"]


def test_a_value_with_a_reason_for_its_absence_is_told() -> None:
    reason = {"dataAbsentReason": concept("error")}
    for sent in ({"valueInteger": 5, **reason}, {"component": [{"code": concept("x"), "valueInteger": 5, **reason}]}):
        (found,) = read(observation("1", **sent))
        assert found.warnings == [("Observation.dataAbsentReason", "there is a value too, which is shown")]
    (found,) = read(observation("1", valueQuantity=None, **reason))
    assert found.warnings == []


def test_the_report_says_what_a_person_should_know() -> None:
    record = record_of(
        report(
            conclusion="All fine.",
            conclusionCode=[{"coding": [{"code": "1", "display": "Healthy"}]}],
            presentedForm=[{"title": "Film", "data": "AAAA", "contentType": "application/dicom"}],
            status="preliminary",
            category=[concept("HM"), concept(text="Laboratory")],
            result=[{"reference": "#a"}],
            contained=[
                observation("a", status="cancelled", note=[{"text": "clotted"}], bodySite=concept(text="Left arm"))
            ],
        )
    )
    assert record["checkup_report"] == "All fine."
    assert record["status"] == "preliminary"
    assert record["details"]["category"] == [{"codings": [{"code": "HM"}]}, "Laboratory"]
    assert record["details"]["conclusion_codes"] == [{"codings": [{"code": "1", "display": "Healthy"}]}]
    assert record["sent"]["resource"]["presentedForm"] == [{"title": "Film", "contentType": "application/dicom"}]
    (result,) = record["results"]
    assert (result["status"], result["notes"], result["body_site"]) == ("cancelled", [{"text": "clotted"}], "Left arm")
    for status in ("final", "amended", "corrected"):
        assert record_of(observation(status=status)).get("status", "final") == status


# --- What makes one record ------------------------------------------------------------------------------------------


def names(readings: list[ParsedRecord]) -> list[tuple[str, list[str]]]:
    """The number of each record and the names of its results."""
    return [(r.record["record_id"], [result["name"] for result in r.record["results"]]) for r in readings]


def test_a_report_with_its_results_is_one_record_in_its_order() -> None:
    found, skipped = read_text(json.dumps(bundle(
        PATIENT, named("c"), named("x"), report("Observation/a", "#b", "urn:uuid:c", contained=[named("b"), named("z")]),
        named("a"), urls=("", "urn:uuid:c"))))  # fmt: skip
    assert names(found) == [("Observation/x", ["x"]), ("DiagnosticReport/r1", ["a", "b", "c"])]
    assert [reading.index for reading in found] == [0, 1]
    assert skipped == {"Patient": 1, "contained Observation of no result": 1}


def test_a_panel_takes_its_members_and_their_members_once() -> None:
    found = read(bundle(named("inner", "Observation/a", "Observation/b"), named("a"), named("b"),
                        named("outer", "Observation/inner", "Observation/a", "Observation/gone")))  # fmt: skip
    assert names(found) == [("Observation/outer", ["a", "b"])]
    assert found[0].record["sent"]["missing"] == ["Observation/gone"]
    assert [result["group"] for result in found[0].record["results"]] == ["inner", "inner"]
    assert [panel.get("group") for panel in found[0].record["details"]["panels"]] == [None, "outer"]


def test_references_in_a_circle_end() -> None:
    assert names(
        read(bundle(named("a", "Observation/b"), named("b", "Observation/a"), named("c", "Observation/c")))
    ) == [
        ("Observation/a", []),
        ("Observation/c", []),
    ]
    assert names(read(bundle(named("b"), named("a", "Observation/a", "Observation/b")))) == [("Observation/a", ["b"])]
    circle = [
        named("a", "Observation/c", valueString="1"),
        named("c", "Observation/a", "Observation/d", valueString="2"),
        named("d"),
    ]
    assert names(read(bundle(*circle))) == [("Observation/a", ["a", "c", "d"])]


def test_a_result_in_two_reports_is_in_both_and_not_alone() -> None:
    found = read(bundle(report("Observation/a"), report("Observation/a", id="r2"), named("a")))
    assert names(found) == [("DiagnosticReport/r1", ["a"]), ("DiagnosticReport/r2", ["a"])]


def test_what_was_entered_in_error_says_so_and_a_withdrawn_report_keeps_no_results() -> None:
    wrong = {"status": "entered-in-error"}
    found, skipped = read_text(json.dumps(bundle(
        report("Observation/a", "Observation/b"), named("a"), named("b", **wrong), named("c", **wrong),
        report("Observation/d", id="r2", **wrong), named("d"))))  # fmt: skip
    assert names(found) == [("DiagnosticReport/r1", ["a", "b"]), ("Observation/c", ["c"]),
                            ("DiagnosticReport/r2", []), ("Observation/d", ["d"])]  # fmt: skip
    assert [reading.record.get("status") for reading in found] == [None, *[wrong["status"]] * 2, None]
    assert [result.get("status") for result in found[0].record["results"]] == [None, "entered-in-error"]
    assert not skipped


@pytest.mark.parametrize(("kind", "url"), [("transaction", ""), ("history", "http://x.example/Observation/o6")])
def test_a_deleted_resource_withdraws_its_record(kind: str, url: str) -> None:
    deleted = {"request": {"method": "DELETE", "url": "Observation/o6"}} | ({"fullUrl": url} if url else {})
    whole = bundle(observation("a"), kind=kind)
    whole["entry"] += [deleted, {"request": {"method": "DELETE", "url": "Patient/p9"}}]
    found, skipped = read_text(json.dumps(whole))
    assert found[1].record == {"record_id": url or "Observation/o6", "status": "entered-in-error"}
    assert skipped == {"Bundle entry without a resource": 1}
    same_again(found[1])


def test_a_result_about_another_patient_spoils_its_report() -> None:
    other = named("a", subject={"reference": "Patient/p2"})
    second = {**PATIENT, "id": "p2", "identifier": [{"value": "savita"}]}
    found = read(bundle(PATIENT, second, report("Observation/a"), other))
    place = "DiagnosticReport.result[0].resolve().subject"
    assert [reading.faults for reading in found] == [[(place, "is another one than the record's")]]
    assert read(bundle(report("Observation/a"), other))[0].faults == [(place, "is another one than the record's")]
    assert patients_of(read(bundle(report("Observation/a", subject=...), other))[0]) == ("p2",)


@pytest.mark.parametrize("kind", ["transaction", "batch", "collection", "searchset", "document", "message", "history"])
def test_every_kind_of_bundle_is_read(kind: str) -> None:
    assert len(read(bundle(observation(), PATIENT, kind=kind))) == 1


def test_bundles_in_a_bundle_are_read_each_for_itself() -> None:
    inner = bundle(observation("b"), PATIENT, kind="searchset")
    outer = bundle(observation("a"), inner, {"resourceType": "Bundle", "type": "searchset"}, kind="batch-response")
    found, skipped = read_text(json.dumps(outer, indent=1))
    assert [(r.record["record_id"], r.record["checkup_for"]) for r in found] == [
        ("Observation/a", "p1"), ("Observation/b", "bholanath")]  # fmt: skip
    assert skipped == {"Patient": 1, "empty Bundle": 1}
    assert found[1].line > found[0].line


def test_resources_one_after_another_are_records_in_order() -> None:
    data = "\n".join(
        [
            json.dumps(observation("a")),
            json.dumps(PATIENT),
            "",
            json.dumps(observation("b", valueInteger=4, valueQuantity=...)),
        ]
    )
    found, skipped = read_text(data)
    assert names(found) == [("Observation/a", ["Glucose"]), ("Observation/b", ["Glucose"])]
    assert [(reading.index, reading.line) for reading in found] == [(0, 1), (1, 4)]
    assert skipped == {"Patient": 1}


def test_a_bare_list_of_resources_is_read_one_by_one() -> None:
    data = json.dumps([observation("a"), PATIENT, observation("b")], indent=1).encode()
    found = read_dump(io.BytesIO(data))
    assert names(list(found.records)) == [("Observation/a", ["Glucose"]), ("Observation/b", ["Glucose"])]
    assert (found.format.name, found.skipped) == ("fhir", {"Patient": 1})


def test_a_broken_line_is_told_and_the_next_one_read() -> None:
    found, _ = read_text('{"resourceType": \n' + json.dumps(observation()) + '\n[1]\n{"a": 1}\n{"resourceType": 5}')
    assert [reading.faults[0][0] if reading.faults else "good" for reading in found] == [
        "", "good", "", "resourceType", "resourceType"]  # fmt: skip


def test_records_share_no_part_of_what_is_read_once() -> None:
    told = observation(
        code=concept("x", "y", system="http://lab.example", text="T"),
        category=[concept("lab", system="http://lab.example")],
        interpretation=[concept("H", text="high")],
        referenceRange=[{"low": quantity(1), "text": "a"}, {"high": quantity(9), "appliesTo": [concept("x")]}],
    )
    patient = {**PATIENT, "identifier": [{"system": "http://h.example", "value": "7"}]}
    whole = json.dumps(bundle(patient, told, {**told, "id": "second"}))
    found = []
    for parsed in read_fhir(JsonBuffer(io.BytesIO(whole.encode())), Dump(FHIR)):
        found.append(str(parsed.record))
        spoil(parsed.record)
    assert found[1] == found[0].replace("Observation/glucose", "Observation/second")
    assert str(read_text(whole)[0][0].record) == found[0]


def spoil(value: Any) -> None:
    """Empty every list and object, at every depth."""
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        spoil(each)
    if isinstance(value, (dict, list)):
        value.clear()


@pytest.mark.parametrize(
    ("name", "sound", "broken"),
    [
        ("code", {"text": "T"}, {"text": "T", "coding": [{"code": 5}]}),
        ("code", {"text": "T", "coding": [{"code": "5"}]}, {"text": "T", "coding": [{"code": 5}]}),
        ("interpretation", [concept("H")], [{**concept("H"), "modifierExtension": [{"url": "u"}]}]),
        ("referenceRange", [{"text": "1 - 2"}], [{"text": "1 - 2", "low": "1"}]),
    ],
)
def test_a_fault_is_found_in_every_record(name: str, sound: Any, broken: Any) -> None:
    readings = read(*(observation(str(i), **{name: each}) for i, each in enumerate((sound, broken, broken, sound))))
    assert [bool(reading.faults) for reading in readings] == [False, True, True, False]


def test_a_key_that_is_there_twice_is_found_in_every_record() -> None:
    once = json.dumps(observation(code={"text": "T"}))
    twice = once.replace('{"text": "T"}', '{"text": "T", "text": "T"}')
    assert [bool(reading.faults) for reading in read_text("\n".join((once, twice, once, twice)))[0]] == [0, 1, 0, 1]
