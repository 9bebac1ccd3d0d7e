"""The words and numbers that pages show of a result and of a report."""

import pytest
from support.page_data import result

from wsgi.browse_pages import result_view
from wsgi.browse_pages import summary as summaries

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
    assert summaries.summary([result_view.present(RESULTS[kind]) for kind in kinds]) == summary


def test_why_there_is_no_value_is_told() -> None:
    shown = result_view.present(RESULTS["none"])
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
    assert summaries.summary([result_view.present(result) for result in results]) == said


@pytest.mark.parametrize(
    ("value", "shown"),
    [(5.4, "mmol/L"), ("<5", "mmol/L"), (">= 5", "mmol/L"), ("4 - 6", "mmol/L"), ("-5", "mmol/L"),
     ("Specimen unsatisfactory for evaluation", ""), ("trace", ""), (None, "")],
)  # fmt: skip
def test_a_unit_stands_behind_what_was_measured_alone(value, shown: str) -> None:
    assert result_view.present({"name": "Glucose", "value": value, "unit": "mmol/L"}).unit == shown


@pytest.mark.parametrize(
    ("value", "flag", "words"),
    [(100, "H", "marked as above the usual range"), (100, "LL", "marked as far below the usual range"),
     (100, "A", "marked as not what is usual"), (100, "N", "within the usual range"), (130, "N", "above the usual range")],
)  # fmt: skip
def test_what_lies_within_its_range_is_not_said_to_lie_outside_of_it(value: int, flag: str, words: str) -> None:
    assert (
        result_view.present({"name": "Systolic", "value": value, "low": 90, "high": 120, "flag": flag}).words == words
    )


@pytest.mark.parametrize(
    ("value", "flag", "note"),
    [(130, "L", "The machine itself marked this value as below the usual range."),
     (80, "HH", "The machine itself marked this value as above the usual range."),
     (130, "N", "The machine itself marked this value as usual."), (130, "HH", ""), (130, "A", ""), (130, None, "")],
)  # fmt: skip
def test_where_a_flag_says_otherwise_than_the_range_both_are_told(value: int, flag: str | None, note: str) -> None:
    shown = result_view.present({"name": "Systolic", "value": value, "low": 90, "high": 120, "flag": flag})
    assert (shown.position, shown.note) == ("above" if value == 130 else "below", note)


def test_names_for_programs_and_ranges_in_words_read_as_words() -> None:
    assert result_view.kind_text("MDC_FLOW_AWAY_EXP_FORCED_PEAK") == "Flow away exp forced peak"
    assert result_view.kind_text("BLOOD PRESSURE") == "Blood pressure"
    shown = result_view.present(
        {"name": "MDC_PULS_OXIM_SAT_O2", "value": 70, "unit": "/min", "range_text": "men: 55 - 95"}
    )
    assert (shown.name, shown.usual) == ("Puls oxim sat o2", "men: 55 - 95")
    assert shown.words == "the usual range is told in words, so it is not compared here"
