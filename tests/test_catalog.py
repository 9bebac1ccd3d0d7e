"""The catalogue completes missing units, ranges and codes, marks them as its own, and changes no value."""

import json
from decimal import Decimal

import pytest
from support.factories import record, statuses, take

from myhealth.clinical import catalog
from myhealth.clinical.catalog import ANALYTES, BY_CODE, as_sent, findings
from myhealth.clinical.units import series_unit
from myhealth.intake.validation import validate_record


def result(code: str, value: object, unit: str | None, **said: object) -> dict:
    return {"code": code, "name": "x", "value": value, "unit": unit, "low": None, "high": None, "flag": None, **said}


def annotate(made: dict) -> str:
    """Set what the catalogue finds in a result. Return its warning, or ""."""
    known = (made[name] for name in ("code", "value", "unit", "low", "high", "flag"))
    found = findings(*known, made.get("range_text"))
    made.update(found)
    return found.get("warning", "")


def test_every_code_has_the_check_digit_of_loinc() -> None:
    """Mod 10 (Luhn) over the digits before the hyphen: LOINC Users' Guide, "LOINC check digit"."""
    for code in BY_CODE:
        number, check = code.split("-")
        digits = [int(d) * (2 if i % 2 == 0 else 1) for i, d in enumerate(reversed(number))]
        assert -sum(d - 9 if d > 9 else d for d in digits) % 10 == int(check), code


def test_no_code_means_two_things_and_each_range_is_possible() -> None:
    codes = [code for analyte in ANALYTES for code in analyte.codes]
    assert len(codes) == len(set(codes))
    for analyte in ANALYTES:
        for unit, found in analyte.ranges.items():
            assert series_unit(unit) == unit
            bounds = [b for b in (found.least, found.low, found.high, found.most) if b is not None]
            assert bounds == sorted(bounds), (analyte.name, unit)


def test_the_tests_of_a_usual_checkup_are_there() -> None:
    names = {analyte.name.lower() for analyte in ANALYTES}
    for wanted in ("blood pressure", "heart rate", "respiratory", "temperature", "saturation", "weight", "height", "mass index",
                   "glucose", "a1c", "total cholesterol", "hdl", "ldl", "triglycerides", "haemoglobin", "creatinine"):  # fmt: skip
        assert any(wanted in name for name in names), wanted


@pytest.mark.parametrize(
    ("code", "value", "unit", "low", "high", "flag"),
    [("8480-6", 119, "mm[Hg]", 90, 120, "N"), ("8480-6", 121, "mmHg", 90, 120, "H"), ("8462-4", 59, "mm Hg", 60, 80, "L"),
     ("8867-4", 60, "bpm", 60, 100, "N"), ("8310-5", Decimal("36.10"), "Cel", 36.1, 37.2, "N"),
     ("8310-5", 37.3, "°C", 36.1, 37.2, "H"), ("8310-5", 98.6, "[degF]", 97, 99, "N"), ("59408-5", 94, "%", 95, 100, "L"),
     ("39156-5", 18.4, "kg/m2", 18.5, 24.9, "L"), ("4548-4", 5.7, "%", None, 5.6, "H"), ("2093-3", 200, "mg/dL", None, 199, "H"),
     ("2093-3", 5.0, "mmol/L", None, 5.17, "N"), ("2085-9", 39, "mg/dl", 40, None, "L"),  ("15074-8", 6.3, "mmol/L", 3.9, 7.7, "N")],
)  # fmt: skip
def test_without_a_range_of_the_machines_the_catalogues_holds(code, value, unit, low, high, flag) -> None:
    found = result(code, value, unit)
    assert annotate(found) == ""
    assert (found["low"], found["high"], found["flag"]) == (low, high, flag)
    assert found["range_source"] == "catalogue"
    assert (found["value"], found["unit"]) == (value, unit)


@pytest.mark.parametrize("said", [{"low": 80}, {"high": 140}, {"low": 80, "high": 140}, {"range_text": "see report"}])
def test_a_range_of_the_machines_always_wins(said: dict) -> None:
    found = result("8480-6", 130, "mm[Hg]", **said)
    before = dict(found)
    annotate(found)
    assert found == before


def test_a_flag_of_the_machines_stays_where_the_range_is_ours() -> None:
    found = result("8480-6", 130, "mm[Hg]", flag="HH")
    annotate(found)
    assert (found["high"], found["flag"]) == (120, "HH")


@pytest.mark.parametrize(
    ("code", "value", "unit"),
    [("8480-6", "128/82", "mm[Hg]"), ("8480-6", 128, None), ("8480-6", 17, "kPa"), ("9999-9", 1, "kg"), (None, 1, "kg"),
     ("29463-7", 70, "kg"), ("8302-2", 170, "cm")],
)  # fmt: skip
def test_what_it_does_not_know_it_leaves_alone(code, value, unit) -> None:
    found = result(code, value, unit)
    before = dict(found)
    assert annotate(found) == ""
    assert found == before


@pytest.mark.parametrize(
    ("code", "value", "unit"),
    [
        ("8310-5", 370, "Cel"),
        ("8867-4", 0, "/min"),
        ("59408-5", 101, "%"),
        ("29463-7", 7000, "kg"),
        ("8480-6", -1, "mm[Hg]"),
    ],
)
def test_what_no_living_body_has_is_taken_with_flag_a_and_a_warning(code, value, unit) -> None:
    found = result(code, value, unit, low=1, high=2, flag="H")
    warning = annotate(found)
    assert f"{value} {unit} is outside what a living body has" in warning
    assert (found["value"], found["low"], found["high"], found["flag"]) == (value, 1, 2, "A")
    assert found["warning"] == warning


def test_the_warning_comes_with_the_record(db, people) -> None:
    hot = record(1, results=[{"code": "8310-5", "name": "Temperature", "value": 370, "unit": "Cel"}])
    checked, faults = validate_record(hot)
    assert faults == []
    assert checked.warnings[0][0] == "results[0].value"
    (outcome,) = take(hot)
    assert outcome.status == "accepted"
    assert "outside what a living body has" in outcome.warnings[0]["message"]
    stored = db("select results from checkups")[0][0][0]
    assert (stored["value"], stored["unit"], stored["flag"]) == (370, "Cel", "A")


def test_another_catalogue_makes_no_known_record_a_different_one(db, people, monkeypatch) -> None:
    sent = record(1, results=[{"code": "8480-6", "name": "Systolic", "value": 128, "unit": "mm[Hg]"},
                              {"code": "8310-5", "name": "Temperature", "value": 370, "unit": "Cel"}])  # fmt: skip
    take(sent)
    before = db("select results from checkups")
    systolic, heat = (catalog.BY_CODE[code] for code in ("8480-6", "8310-5"))
    wider = {"mm[Hg]": catalog.Range(80, 140, 20, 370)}
    monkeypatch.setitem(catalog.BY_CODE, "8480-6", catalog.Analyte(systolic.name, systolic.codes, wider))
    monkeypatch.setitem(catalog.BY_CODE, "8310-5", catalog.Analyte(heat.name, heat.codes, {}))
    assert statuses(take(sent)) == ["duplicate"]
    assert db("select results from checkups") == before
    other = json.loads(json.dumps(sent))
    other["results"][0]["value"] = 129
    assert statuses(take(other)) == ["rejected"]


def test_what_was_sent_can_be_told_from_what_was_added() -> None:
    for said in ({}, {"low": 1.0, "high": 2.0}, {"range_text": "x"}):
        sent = result("8480-6", 128, "mm[Hg]", **said)
        stored = dict(sent)
        annotate(stored)
        assert as_sent(stored) == sent


@pytest.mark.parametrize(
    ("value", "flag"),
    [("230", "H"), ("128", "H"), ("118.0", "N"), (" 80 ", "L"), ("high", None), ("23O", None), ("", None)],
)
def test_text_that_is_a_number_is_judged_like_one_and_kept_as_text(value: str, flag: str | None) -> None:
    made = result("8480-6", value, "mm[Hg]")
    assert annotate(made) == ""
    assert (made["value"], made["flag"]) == (value, flag)
    assert (made.get("range_source"), made["high"]) == (("catalogue", 120) if flag else (None, None))
    impossible = result("8310-5", "370", "Cel")
    assert "370 Cel is outside" in annotate(impossible)
    assert (impossible["value"], impossible["flag"]) == ("370", "A")


@pytest.mark.usefixtures("people")
def test_a_moment_in_the_future_is_taken_with_a_warning(db) -> None:
    known = [record(1, taken_at="2136-11-20T09:14:03Z"), record(2)]
    outcomes = take(*known)
    assert statuses(outcomes) == ["accepted", "accepted"]
    (warning,) = outcomes[0].warnings
    assert (warning["field"], "lies in the future" in warning["message"]) == ("taken_at", True)
    assert outcomes[1].warnings == []
    assert statuses(take(*known)) == ["duplicate", "duplicate"]
