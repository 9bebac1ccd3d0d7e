"""The words and numbers that pages show of a result and of a report."""

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.page_data import present, result

from myhealth.clinical.in_words import kind_text, range_text, unit_of
from myhealth.clinical.ranges import Number
from myhealth.clinical.series import series_key
from myhealth.intake.record import DetailedResult
from myhealth.intake.record_types import CheckupDetails
from myhealth.reports.facts import checkup_facts
from wsgi.browse_pages.result_view import blocks_of
from wsgi.browse_pages.result_view import summary as summary_of

RESULTS = {
    "?": result("Grip", 5), "N": result("Pulse", 70, None, 60, 100), "H": result("Pulse", 130, None, 60, 100),
    "<": result("TSH", "<0.5", None, 0.4, 4.0), "words": {**result("HIV", "reactive"), "range_text": "non-reactive"},
    "none": {**result("Sodium", "", None, 135, 145), "absent_reason": "Specimen clotted"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("kinds", "summary"),
    [
        (["<"], "1 result, not compared with a usual range"),
        (["words", "none"], "2 results, not compared with a usual range"),
        (["?"], "1 result, without a usual range"),
        (["N", "<"], "1 of 2 results within the usual range; the rest is not compared with one"),
        (["N", "?"], "1 of 2 results within the usual range; no range is given for the rest"),
        (["H", "H", "<"], "2 of 3 results outside the usual range, 1 not compared"),
        (["H", "N", "?"], "1 of 3 results outside the usual range, 1 not compared"),
        (["H", "N"], "1 of 2 results outside the usual range"),
    ],
)
def test_a_summary_leaves_nothing_out(kinds: list[str], summary: str) -> None:
    assert summary_of(blocks_of([present(RESULTS[kind]) for kind in kinds])) == summary


@pytest.mark.parametrize(
    ("value", "words"),
    [(Decimal("-1.500E+245"), "-1.5 ×10²⁴⁵"), (15 * 10**29, "1.5 ×10³⁰"), (3e-20, "3 ×10⁻²⁰"), (1e-5, "0.00001"),
     (Decimal("5.10"), "5.10"), (Decimal("0E-30"), "0." + "0" * 30), (10**18, "1" + "0" * 18), (-7, "-7")],
)  # fmt: skip
def test_no_number_is_a_row_of_zeros(value: Number, words: str) -> None:
    assert (present(result("Mass", value, "kg")).value, range_text(None, value)) == (words, f"up to {words}")


def test_why_there_is_no_value_is_told() -> None:
    shown = present(RESULTS["none"])
    assert (shown.value, shown.words) == ("not given: Specimen clotted", "there is no value to compare")


SUMMARIES = [
    ((), "No single measurements in this report"),
    (("N",), "The result is within its usual range"),
    (("N", "N"), "Both results are within their usual range"),
    (("N", "N", "N"), "All 3 results are within their usual range"),
    (("H",), "The result is outside its usual range"),
    (("H", "L"), "Both results are outside their usual range"),
    (("H", "L", "A"), "All 3 results are outside their usual range"),
    (("H", "N"), "1 of 2 results outside the usual range"),
    (("?",), "The result is hardly possible"),
    (("?", "?"), "Both results are hardly possible"),
    (("?", "N"), "1 of 2 results hardly possible"),
    (("?", "H", "L", "N"), "2 of 4 results outside the usual range, 1 hardly possible"),
    (("N", None), "1 of 2 results within the usual range; no range is given for the rest"),
    ((None,), "1 result, without a usual range"),
]


@pytest.mark.parametrize(("flags", "said"), SUMMARIES)
def test_how_a_report_stands_reads_as_people_speak(flags: tuple[str, ...], said: str) -> None:
    impossible = {"value": 366, "warning": "366 Cel is outside what a living body has (10 to 47)", "flag": "A"}
    results = [impossible if flag == "?" else {"value": 1, "flag": flag} for flag in flags]
    assert summary_of(blocks_of([present(result) for result in results])) == said


@pytest.mark.parametrize(
    ("value", "shown"),
    [("<>23", "other than 23 mg/dL"), ("<> -2.5", "other than -2.5 mg/dL"), ("<>", "<>"), ("<23", "<23 mg/dL")],
)
def test_a_value_that_is_only_known_not_to_be_a_number_reads_so(value: str, shown: str) -> None:
    assert present({"name": "A test", "value": value, "unit": "mg/dL"}).short == shown


def test_a_blood_pressure_counts_as_the_one_result_it_is_shown_as() -> None:
    upper, lower = ({"code": code, "value": 1, "unit": "mm[Hg]", "flag": "H"} for code in ("8480-6", "8462-4"))
    views = [present(each) for each in (upper, lower, {"name": "Pulse", "value": 1, "flag": "N"})]
    assert summary_of(blocks_of(views)) == "1 of 2 results outside the usual range"


@pytest.mark.parametrize(
    ("code", "value", "unit", "shown", "words"),
    [("2345-7", "HI", "mg/dL", "too high to measure", "far above the usual range"),
     ("99504-3", " lo", "mmol/L", "too low to measure", "far below the usual range"),
     ("2345-7", "High", "mg/dL", "too high to measure", "above the usual range"),
     ("1988-5", "LO", "mg/L", "too low to measure", "no usual range given"),
     ("2345-7", "HI", None, "HI", "no usual range given")],
)  # fmt: skip
def test_what_a_meter_cannot_measure_is_told(code: str, value: str, unit: str | None, shown: str, words: str) -> None:
    view = present({"code": code, "name": "A test", "value": value, "unit": unit})
    assert (view.value, view.unit, view.words) == (shown, unit or "", words)
    assert view.is_unusual == ("above" in words or "below" in words)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(5.4, "mmol/L"), ("<5", "mmol/L"), ("<.5", "mmol/L"), (">= 5", "mmol/L"), ("4 - 6", "mmol/L"), ("-5", "mmol/L"),
     ("Specimen unsatisfactory for evaluation", ""), ("trace", ""), (None, "")],
)  # fmt: skip
def test_a_unit_stands_behind_what_was_measured_alone(value, shown: str) -> None:
    assert present({"name": "Glucose", "value": value, "unit": "mmol/L"}).unit == shown


@pytest.mark.parametrize(
    ("value", "flag", "words"),
    [(100, "H", "marked as above the usual range"), (100, "LL", "marked as far below the usual range"),
     (100, "A", "marked as not what is usual"), (100, "N", "within the usual range"), (130, "N", "above the usual range")],
)  # fmt: skip
def test_what_lies_within_its_range_is_not_said_to_lie_outside_of_it(value: int, flag: str, words: str) -> None:
    assert present({"name": "Systolic", "value": value, "low": 90, "high": 120, "flag": flag}).words == words


@pytest.mark.parametrize(
    ("value", "flag", "note"),
    [(130, "L", "The machine itself marked this value as below the usual range."),
     (80, "HH", "The machine itself marked this value as above the usual range."),
     (130, "N", "The machine itself marked this value as usual."), (130, "HH", ""), (130, "A", ""), (130, None, "")],
)  # fmt: skip
def test_where_a_flag_says_otherwise_than_the_range_both_are_told(value: int, flag: str | None, note: str) -> None:
    shown = present({"name": "Systolic", "value": value, "low": 90, "high": 120, "flag": flag})
    assert (shown.position, shown.note) == ("above" if value == 130 else "below", note)


def test_names_for_programs_and_ranges_in_words_read_as_words() -> None:
    assert kind_text("MDC_FLOW_AWAY_EXP_FORCED_PEAK") == "Flow away exp forced peak"
    assert kind_text("BLOOD PRESSURE") == "Blood pressure"
    shown = present({"name": "MDC_PULS_OXIM_SAT_O2", "value": 70, "unit": "/min", "range_text": "men: 55 - 95"})
    assert (shown.name, shown.usual) == ("Puls oxim sat o2", "men: 55 - 95")
    assert shown.words == "the usual range is given in words, so it is not compared here"


@pytest.mark.parametrize(
    ("sent", "shown"),
    [("BS-200E", "BS-200E"), ("MON_PARAM", "MON_PARAM"), ("COVID-19 TEST", "COVID-19 TEST"), ("ECG", "ECG"),
     ("LIVER (LFT), FASTING", "Liver (LFT), fasting"), ("CHEST X-RAY", "Chest X-RAY"), ("Blood COUNT", "Blood COUNT")],
)  # fmt: skip
def test_only_words_in_capitals_are_written_small(sent: str, shown: str) -> None:
    assert kind_text(sent) == shown
    assert present({"name": "MON_PARAM", "value": 1}).name == "MON_PARAM"


@pytest.mark.parametrize(
    ("unit", "shown"),
    [("{copies}/mL", "copies/mL"), ("{Log_copies}/mL", "Log copies/mL"), ("{cells}/uL", "cells/µL"),
     ("{beats}/min", "per minute"), ("10*3{copies}/mL", "×10³/mL"), ("mg{creat}/L", "mg/L"), ("/min/{1.73_m2}", "/min/1.73 m²")],
)  # fmt: skip
def test_a_unit_says_of_what_it_is_where_nothing_else_does(unit: str, shown: str) -> None:
    assert unit_of(unit) == shown


HAEMOGLOBIN = {"name": "Hb", "value": 13, "unit": "g/dL", "ranges": [
    {"low": 12, "high": 16, "sex": "female", "age_low": 18},
    {"low": 14, "high": 18, "sex": "male", "age_low": 18},
    {"low": 11, "high": 14, "age_low": 6, "age_high": 17},
]}  # fmt: skip
WOMEN, MEN = "women, 18 years and older: 12 to 16 g/dL", "men, 18 years and older: 14 to 18 g/dL"
CHILDREN = "6 to 17 years: 11 to 14 g/dL"


def test_a_range_whose_condition_is_not_known_to_be_met_is_shown_and_not_compared() -> None:
    shown = present(HAEMOGLOBIN)
    assert (shown.usual, shown.position) == (f"{WOMEN} · {MEN} · {CHILDREN}", "unknown")
    assert shown.words == "not compared: which range holds is not known"
    chosen = present({**HAEMOGLOBIN, "low": 12, "high": 16})
    assert (chosen.usual, chosen.position) == (WOMEN, "within")
    assert chosen.facts == [("Other ranges", f"{MEN} · {CHILDREN}")]
    general = present({"name": "Hb", "value": 13, "unit": "g/dL", "range_text": "women 12 to 16, men 14 to 18", "range_source": "catalogue"})  # fmt: skip
    assert (general.usual, general.words) == ("women 12 to 16, men 14 to 18 g/dL", shown.words)


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        ({"low": 4, "high": 6, "text": "(4 - 6) mmol/L"}, "4 to 6 mmol/L"),
        ({"high": 200, "text": "Desirable: <200"}, "Desirable: <200"),
        ({"low": 1, "high": 2, "text": "Children"}, "Children: 1 to 2 mmol/L"),
        ({"text": "not detected"}, "not detected"),
        ({"low": 2, "high": 3, "type": {"codings": [{"code": "treatment"}]}}, "treatment: 2 to 3 mmol/L"),
        ({"low": 2, "high": 3, "applies_to": [{"text": "pregnant"}, "fasting"]}, "pregnant, fasting: 2 to 3 mmol/L"),
        ({"low": 2, "age_high": 17, "sex": "male"}, "boys, up to 17 years: 2 mmol/L or more"),
        ({"low": 2, "age_low": 0, "age_high": 6, "age_unit": "mo"}, "0 to 6 months: 2 mmol/L or more"),
        ({"low": 2, "high": 3, "unit": "mg/dL"}, "2 to 3 mg/dL"),
        ({"low": "x", "age_low": [], "applies_to": "y", "type": 5}, "5"),
    ],
)
def test_each_range_reads_with_its_condition(sent: dict, words: str) -> None:
    assert present({"name": "x", "value": "a", "unit": "mmol/L", "ranges": [sent]}).usual == words


FACTS = [
    ({"status": "preliminary"}, [("Status", "preliminary; it may still change")]),
    ({"status": "final"}, []),
    ({"status": "corrected"}, [("Status", "corrected")]),
    (
        {"status": "corrected", "corrected_at": "2026-11-21T03:40:00Z", "previous_value": 6.9, "unit": "mmol/L"},
        [("Corrected", "on 21 November 2026, 09:10; before: 6.9 mmol/L")],
    ),
    ({"taken_at": "2026-11-20T03:44:00+00:00"}, [("Measured", "20 November 2026, 09:14")]),
    ({"taken_at": "2026-11-01T12:00:00Z", "taken_precision": "month"}, [("Measured", "November 2026")]),
    ({"interpretations": [{"code": "H"}, {"code": "D"}], "flag": "H"}, [("Marked as", "significantly lower than before")]),
    ({"interpretations": [{"code": "POS"}, {"system": "urn:x", "code": "z", "text": "own"}]}, [("Marked as", "positive, own")]),
    (
        {"specimen": {"codings": [{"code": "122575003", "display": "Urine"}], "collected_at": "2026-11", "body_site": "bladder"}},
        [("Specimen", "Urine, from bladder, taken November 2026")],
    ),
    ({"method": {"text": "ELISA"}, "body_site": "arm", "device": {"identifiers": [{"value": "D7"}]}}, [("Body site", "arm"), ("Method", "ELISA"), ("Device", "D7")]),
    ({"performers": [{"name": "Lab A"}, "Lab A", {"reference": "Practitioner/1"}]}, [("Done by", "Lab A")]),
    ({"performers": [{"reference": "http://x.example/fhir/Organization/1"}, {"reference": "#lab"}], "device": {"reference": "Device/d-1"}}, []),
    ({"performers": ["A/B", "Dr. Device/1"]}, [("Done by", "A/B, Dr. Device/1")]),
    ({"notes": [{"text": "fasting", "author": "Dr. A", "at": "2026-11-20"}, {"text": "x"}]}, [("Note", "fasting (Dr. A, 20 November 2026)"), ("Note", "x")]),
    ({"notes": "x", "performers": 5, "specimen": 7, "taken_at": "soon", "corrected_at": "2026-13"}, [("Corrected", "on 2026-13"), ("Measured", "soon"), ("Specimen", "7")]),
]  # fmt: skip


@pytest.mark.parametrize(("more", "facts"), FACTS)
def test_what_else_is_known_of_a_result_is_told_in_plain_words(more: dict, facts: list) -> None:
    assert present({"name": "x", "value": 1, **more}).facts == facts


def test_an_absent_value_is_told_with_the_words_of_its_code() -> None:
    absent = {"name": "x", "value": None, "absent_code": "not-performed", "absent_reason": "NP"}
    assert present(absent).value == "not given: not measured"


PART = st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text("aN2 -:T", max_size=12)
NAMES = st.sampled_from(
    [
        "text",
        "name",
        "codings",
        "display",
        "code",
        "system",
        "low",
        "high",
        "unit",
        "type",
        "sex",
        "age_low",
        "age_high",
        "age_unit",
        "applies_to",
        "notes",
        "author",
        "at",
        "identifiers",
        "value",
        "reference",
        "collected_at",
        "body_site",
        "interpretations",
    ]
)
ANYTHING = st.recursive(PART, lambda parts: st.lists(parts, max_size=3) | st.dictionaries(NAMES, parts, max_size=4), max_leaves=12)  # fmt: skip


@settings(max_examples=300)
@given(
    st.dictionaries(st.sampled_from(DetailedResult.__struct_fields__), ANYTHING, max_size=12),
    st.dictionaries(st.sampled_from(CheckupDetails.__struct_fields__), ANYTHING, max_size=4),
)
def test_a_result_of_any_form_is_shown(measured: dict, details: dict) -> None:
    """Another program may have stored it."""
    assert present(measured).words
    assert series_key(measured)
    assert all(text for _, text in checkup_facts({"details": details}, lambda moment, precision: "x"))
