"""The range of a result is that of the person: of the sex and the age that are known, else in words."""

import json
from datetime import date
from typing import Any

import pytest
from support.factories import record, statuses, take

from myhealth.clinical.catalog import as_sent, findings, source_flag
from myhealth.clinical.range_choice import age_at, for_person
from myhealth.intake.validation import validate_record

HAEMOGLOBIN = {"code": "718-7", "name": "Haemoglobin", "value": 13.0, "unit": "g/dL"}
HEART_RATE = {"code": "8867-4", "name": "Heart rate", "value": 130, "unit": "/min"}
EMPTY = {"low": None, "high": None, "flag": None}
MEN, WOMEN = {"low": 14, "high": 18, "sex": "male"}, {"low": 12, "high": 16, "sex": "female"}
INFANTS, ADULTS = (
    {"low": 100, "high": 160, "age_low": 0, "age_high": 1},
    {"low": 60, "high": 100, "age_low": 18, "age_high": 120},
)


def validated(result: dict[str, Any], **patient: Any) -> dict[str, Any]:
    more = {"patient": patient} if patient else {}
    checked, faults = validate_record(record(1, results=[result]) | more)
    assert faults == []
    found: dict[str, Any] = json.loads(checked.results)[0]
    return found


@pytest.mark.parametrize(
    ("result", "patient", "low", "high", "flag"),
    [
        (HAEMOGLOBIN, {"sex": "female"}, 12, 16, "N"),
        (HAEMOGLOBIN, {"sex": "male"}, 14, 18, "L"),
        (HAEMOGLOBIN, {}, None, None, None),
        (HAEMOGLOBIN, {"sex": "other"}, None, None, None),
        (HAEMOGLOBIN, {"sex": "male", "birth_date": "2020-01-01"}, None, None, None),
        (HEART_RATE, {}, 60, 100, "H"),
        (HEART_RATE, {"birth_date": "1990-01-01"}, 60, 100, "H"),
        (HEART_RATE, {"birth_date": "2026-05-01"}, None, None, None),
        ({**HAEMOGLOBIN, "ranges": [MEN, WOMEN]}, {"sex": "female", "birth_date": "1990-01-01"}, 12, 16, None),
        ({**HAEMOGLOBIN, "ranges": [MEN, WOMEN]}, {}, None, None, None),
        ({**HEART_RATE, "ranges": [INFANTS, ADULTS]}, {"birth_date": "1990-01-01"}, 60, 100, None),
        ({**HEART_RATE, "ranges": [INFANTS, ADULTS]}, {"birth_date": "2026-05-01"}, 100, 160, None),
        ({**HEART_RATE, "ranges": [INFANTS]}, {"birth_date": "1990-01-01"}, None, None, None),
        ({**HEART_RATE, "ranges": [INFANTS]}, {}, None, None, None),
        ({**HAEMOGLOBIN, "low": 11, "high": 15, "ranges": [MEN, WOMEN]}, {"sex": "male"}, 11, 15, None),
        ({**HAEMOGLOBIN, "ranges": [{**WOMEN, "unit": "g/L"}]}, {"sex": "female"}, None, None, None),
        ({**HAEMOGLOBIN, "ranges": [{**WOMEN, "unit": "gm/dl"}]}, {"sex": "female"}, 12, 16, None),
    ],
)
def test_a_result_has_the_range_of_its_patient(
    result: dict[str, Any], patient: dict[str, Any], low: Any, high: Any, flag: Any
) -> None:
    found = validated(result, **patient)
    assert (found["low"], found["high"], found["flag"]) == (low, high, flag)


def test_a_range_that_differs_by_sex_is_told_for_both_and_not_compared() -> None:
    found = validated(HAEMOGLOBIN)
    assert (found["range_text"], found["range_source"]) == ("women 12 to 16, men 14 to 18", "catalogue")
    assert validated({**HAEMOGLOBIN, "flag": "L"})["flag"] == "L"


def test_a_child_has_no_adult_range_but_an_impossible_value_is_still_told() -> None:
    found = validated({**HEART_RATE, "value": 6000}, birth_date="2026-05-01")
    assert (found["flag"], "range_source" in found, "warning" in found) == ("A", False, True)


def test_what_is_learned_of_a_person_changes_the_catalogues_range_and_no_flag_of_the_source() -> None:
    plain = {**HAEMOGLOBIN, **EMPTY}
    unknown = plain | findings("718-7", 13.0, "g/dL", None, None, None, None)
    man = for_person(unknown, "male", None)
    assert (man["low"], man["high"], man["flag"], "range_text" in man) == (14, 18, "L", False)
    assert for_person(man, "female", 40)["flag"] == "N"
    assert for_person(man, None, None) == unknown
    assert for_person(man, "male", 5) == plain
    assert for_person({**man, "flag": "HH"}, "female", None)["flag"] == "HH"
    assert for_person(plain | {"low": 1, "high": 2}, "male", 40) == plain | {"low": 1, "high": 2}


def test_a_mark_of_the_catalogue_is_known_from_one_of_the_source() -> None:
    ours = {**HEART_RATE, **EMPTY} | findings("8867-4", 130, "/min", None, None, None, None)
    assert (ours["flag"], source_flag(ours)) == ("H", None)
    assert source_flag({**ours, "flag": "HH"}) == "HH"
    assert (
        source_flag({**HEART_RATE, **EMPTY, "flag": "H"} | findings("8867-4", 130, "/min", None, None, "H", None))
        == "H"
    )
    assert source_flag({**HEART_RATE, "low": 60, "high": 100, "flag": "H"}) == "H"
    assert source_flag({**HEART_RATE, "flag": "A", "warning": "impossible"}) is None


def test_whoever_it_is_a_record_is_the_same_as_sent() -> None:
    for sent in (HAEMOGLOBIN, HEART_RATE, {**HAEMOGLOBIN, "ranges": [MEN, WOMEN]}):
        plain = as_sent(validated(sent))
        for patient in ({"sex": "male"}, {"sex": "female", "birth_date": "1980-01-01"}, {"birth_date": "2026-05-01"}):
            assert as_sent(validated(sent, **patient)) == plain


def test_a_record_comes_again_as_a_duplicate_once_more_is_known_of_the_patient(db, people) -> None:
    sent = record(1, results=[HAEMOGLOBIN, {**HEART_RATE, "flag": "H"}])
    assert statuses(take(sent)) == ["accepted"]
    assert statuses(take({**sent, "patient": {"sex": "male", "birth_date": "2020-01-01"}})) == ["duplicate"]


@pytest.mark.parametrize(
    ("code", "unit"), [("718-7", "g/dL"), ("2160-0", "mg/dL"), ("8867-4", "bpm"), ("718-7", "gm/dl")]
)
def test_the_number_of_a_record_without_one_is_that_of_the_first_catalogue(code: str, unit: str) -> None:
    """With another content, a dump that comes again would be stored twice."""
    sent = record(1, results=[{"code": code, "name": "x", "value": 1.0, "unit": unit}])
    del sent["record_id"]
    plain = {"code": code, "name": "x", "value": 1.0, "unit": unit, "low": None, "high": None, "flag": None}
    first = {
        ("718-7", "g/dL"): {"low": 12, "high": 18, "flag": "L", "range_source": "catalogue"},
        ("2160-0", "mg/dL"): {"low": 0.5, "high": 1.3, "flag": "N", "range_source": "catalogue"},
        ("8867-4", "bpm"): {"low": 60, "high": 100, "flag": "A", "range_source": "catalogue"}
        | {"warning": "1.0 bpm is outside what a living body has (5 to 600)"},
    }.get((code, unit), {})
    for patient in ({}, {"patient": {"sex": "male", "birth_date": "1990-01-01"}}):
        flagged = {**sent, "results": [sent["results"][0] | {"flag": "HH"}]}
        found = json.loads(json.loads(validate_record({**flagged, **patient})[0].content())[7])
        assert found == [plain | first | {"flag": first.get("flag") if "warning" in first else "HH"}]
        checked, _ = validate_record({**sent, **patient})
        assert json.loads(checked.content())[7] == json.dumps([plain | first], separators=(",", ":"))


@pytest.mark.parametrize(
    ("born", "age"),
    [("1990-01-01", 36), ("2008-11-21", 17), ("2008-11", 17), ("2008", 17), ("2007", 18), ("2027-01-01", None), (None, None),
     ("1990-02-31", 36), ("2026", 0), ("2026-12", None)],
)  # fmt: skip
def test_an_age_is_the_youngest_that_a_birth_date_allows(born: str | None, age: float | None) -> None:
    assert age_at(born, date(2026, 11, 20)) == age


@pytest.mark.parametrize(
    ("born", "low"), [("2008", None), ("2008-11", None), ("2009", 2), ("2007", 1), ("2008-11-21", 2), ("2008-11-20", 1)]
)
def test_a_range_of_an_age_is_used_where_the_birth_date_leaves_no_doubt(born: str, low: int | None) -> None:
    ranges = [{"low": 1, "high": 5, "age_low": 18}, {"low": 2, "high": 9, "age_high": 17}]
    sent = {"checkup_for": "x", "checkup_type": "T", "checkup_report": "", "disease": "", "taken_at": "2026-11-20T09:00:00Z",
            "patient": {"birth_date": born}, "results": [{"name": "T", "value": 5, "ranges": ranges}]}  # fmt: skip
    made, faults = validate_record(sent)
    assert made is not None and faults == []
    assert json.loads(made.results)[0]["low"] == low
