"""What the faulty FHIR inputs of tests/data/faults must give, as the intake stores it."""

import json
from typing import Any

import pytest
from support.fhir import read_text
from support.paths import DATA

from myhealth.intake.record import Record
from myhealth.intake.validation import validate_record

LOINC, SNOMED = "http://loinc.org", "http://snomed.info/sct"
INTERPRETATIONS = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"


def read_input(name: str) -> tuple[list[Record], dict[str, int]]:
    parsed, skipped = read_text((DATA / "faults" / f"{name}.fhir.json").read_bytes())
    found = []
    for each in parsed:
        assert each.faults == []
        record, faults = validate_record(each.record)
        assert faults == []
        found.append(record)
    return found, dict(skipped)


def results_of(name: str) -> list[dict[str, Any]]:
    return [result for record in read_input(name)[0] for result in json.loads(record.results)]


def part(result: dict[str, Any], *names: str) -> tuple[Any, ...]:
    return tuple(result.get(name) for name in names)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("10-range-text", [(None, 150), (None, 150), (0.0, 5.0), (135, 145)]),
        ("C10-range-type-text", [(1.0, 2.2)]),
        ("14a-sex-two", [(12, 16)]),  # a woman: 13.0 is within her range, and below that of men
        ("14c-age", [(60, 100)]),  # an adult
        ("C11-child", [(None, None), (None, None)]),  # no adult's range for a child
    ],
)
def test_a_range_is_compared_where_it_holds_for_the_patient(name, expected):
    assert [part(result, "low", "high") for result in results_of(name)] == expected


def test_words_of_ranges_are_kept():
    ranges = [result["ranges"][0] for result in results_of("10-range-text")]
    assert [each["text"] for each in ranges] == ["<150", "<150", "0.0-5.0 mg/L", "135 - 145"]
    assert results_of("C10-range-type-text")[0]["ranges"][0]["type"] == "Normal Range"


def test_a_child_has_no_mark_of_ours():
    assert [part(result, "flag", "range_source") for result in results_of("C11-child")] == [(None, None)] * 2


def test_values_of_every_kind_stay_what_they_are():
    found = {result["name"]: result for result in results_of("C1-value-kinds")}
    assert found["SARS-CoV-2 Ag"]["value_coded"]["codings"][0]["code"] == "260373001"
    assert found["Fasting"]["value_boolean"] is True
    assert part(found["Glasgow coma score"], "value", "value_type") == (15, "integer")
    assert found["Rubella titre"]["value_ratio"] == {"numerator": {"value": 1}, "denominator": {"value": 128}}
    assert found["Last menstrual period"]["value_moment"] == "2026-10-28"
    assert found["aPTT"]["value_range"] == {"low": {"value": 25}, "high": {"value": 35}}
    assert found["ECG lead I"]["value_samples"]["period"] == 10


def test_every_coding_and_the_code_of_the_panel_are_kept():
    (pressure,) = results_of("C3-two-codings")
    assert pressure["code"] == "8480-6"
    assert [(each["system"], each["code"]) for each in pressure["codings"]] == [
        (SNOMED, "271649006"),
        (LOINC, "8480-6"),
    ]
    ((record,), _) = read_input("C8-blood-pressure-profile")
    assert json.loads(record.details)["codings"][0]["code"] == "85354-9"
    assert [result["code"] for result in json.loads(record.results)] == ["8480-6", "8462-4"]


def test_interpretations_are_kept_as_they_came():
    found = {result["name"].removeprefix("Test "): result for result in results_of("C4-interpretations")}
    assert {name: [each["code"] for each in result["interpretations"]] for name, result in found.items()} == {
        name: [name] for name in found
    }
    assert all(each["system"] == INTERPRETATIONS for result in found.values() for each in result["interpretations"])
    flags = {name: result["flag"] for name, result in found.items()}
    assert part(flags, "POS", "NEG", "HU", "LU", "<", ">", "I") == ("A", "N", "HH", "LL", None, None, None)


def test_each_result_has_its_own_status():
    ((record,), _) = read_input("C5-status")
    assert record.status == "preliminary"
    assert [result["status"] for result in json.loads(record.results)] == ["final", "amended"]


def test_category_performers_specimen_and_note_have_fields():
    ((record,), _) = read_input("C7-category-performer-note")
    details, (result,) = json.loads(record.details), json.loads(record.results)
    assert details["category"][0]["codings"][0]["code"] == "laboratory"
    assert [each["name"] for each in details["performers"]] == ["Dr Who", "City Lab"]
    assert part(result, "method", "specimen") == ("Hexokinase", "Urine")
    assert result["notes"] == [{"text": "Not fasting", "author": "Dr Who", "at": "2026-11-20T08:00:00Z"}]
    assert record.disease == ""


def test_a_specimen_is_read_from_its_resource():
    ((record,), skipped) = read_input("16b-specimen")
    (result,) = json.loads(record.results)
    assert part(result, "specimen", "method", "low", "high", "flag") == ("Urine", "dipstick", None, None, None)
    assert skipped == {"Specimen": 1}


def test_what_was_entered_in_error_is_withdrawn():
    ((sent,), _), ((withdrawn,), _) = read_input("06d-result"), read_input("06e-entered-in-error")
    assert sent.status is None
    assert withdrawn.status == "entered-in-error"
    assert withdrawn.record_id == sent.record_id


def test_a_result_about_a_device_is_left_out_and_counted():
    assert read_input("A5-subject-is-a-device") == ([], {"Device": 1, "Observation about a Device": 1})
