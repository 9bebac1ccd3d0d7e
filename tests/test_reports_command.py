"""`myhealth reports`: a person's reports in the terminal."""

import csv
import io
import json
import re
from typing import Any

import pytest
from support.factories import record, take
from support.page_data import rich, temperatures

from cli.reports import sparkline
from myhealth.reports.writer import ReportWriter
from myhealth.sync.runner import run_pass


@pytest.fixture
def reports_of_two(people, settings, reports) -> Any:
    def pressure(value: int) -> list[dict[str, Any]]:
        return [{**record()["results"][0], "value": value}]

    take(
        *[record(i, taken_at=f"2026-11-0{i}T09:00:00Z", results=pressure(110 + i)) for i in (1, 2, 3)],
        record(8, patient="savita"),
    )
    run_pass(settings.database_url, ReportWriter(reports), settings)
    return reports


def test_a_report_that_nobody_changed_has_a_sentence_for_its_history(run_cli, people) -> None:
    take(record(1))
    told = run_cli("reports", "history", "1")
    assert (told.returncode, told.stdout) == (0, "Report 1 has no earlier version: nobody changed it.\n")
    assert run_cli("reports", "history", "1", "--json").stdout.strip() == "[]"
    assert run_cli("reports", "history", "9").returncode != 0


def test_a_persons_reports_are_listed_shown_and_drawn(run_cli, reports_of_two) -> None:
    listed = run_cli("reports", "list", "bholanath", "--from", "2026-11-02")
    assert listed.returncode == 0, listed.stderr
    assert [line.split()[0] for line in listed.stdout.splitlines()[1:]] == ["3", "2"]
    shown = run_cli("reports", "show", "bholanath", "1")
    assert "Systolic blood pressure" in shown.stdout
    assert "ALL FINE. 128/82" in shown.stdout
    drawn = run_cli("reports", "trend", "bholanath", "--code", "8480-6")
    assert drawn.stdout.splitlines()[-1] == "▁▅█  111 to 113 mm[Hg]"
    assert "8480-6" in run_cli("reports", "trend", "bholanath").stdout
    looks = [
        (look.actor.endswith(" at the command line"), look.what, look.report_id)
        for look in reports_of_two.access_log.find_events()
    ]
    assert looks == [(True, "reports", None), (True, "report", 1), (True, "trends", None), (True, "trends", None)]


def test_programs_get_json_and_csv(run_cli, reports_of_two) -> None:
    found = json.loads(run_cli("reports", "list", "bholanath", "--json", "--limit", "2").stdout)
    assert [report["id"] for report in found] == [3, 2]
    assert found[0]["results"][0]["value"] == 113
    rows = list(csv.DictReader(io.StringIO(run_cli("reports", "list", "bholanath", "--csv").stdout)))
    assert [row["value"] for row in rows] == ["113", "112", "111"]
    assert json.loads(run_cli("reports", "show", "bholanath", "1", "--json").stdout)["username"] == "bholanath"
    points = json.loads(run_cli("reports", "trend", "bholanath", "--code", "8480-6", "--json").stdout)
    assert [point["value"] for point in points] == [111, 112, 113]
    named = json.loads(run_cli("reports", "trend", "bholanath", "--name", "Systolic blood pressure", "--json").stdout)
    assert named == points


def test_that_there_are_more_is_told(run_cli, reports_of_two) -> None:
    for words in (["list", "bholanath"], ["trend", "bholanath", "--code", "8480-6"]):
        for form in ([], ["--json"], ["--csv"]):
            some, all_ = (run_cli("reports", *words, *form, "--limit", limit) for limit in ("2", "3"))
            assert "There are more: these are of the newest 2 reports" in some.stderr
            assert all_.stderr == ""
            assert len(some.stdout) < len(all_.stdout)
    points = json.loads(run_cli("reports", "trend", "bholanath", "--code", "8480-6", "--json", "--limit", "2").stdout)
    assert [point["value"] for point in points] == [112, 113]
    done = run_cli("reports", "trend", "bholanath", "--code", "8480-6", "--name", "x")
    assert (done.returncode, done.stdout) == (2, "")


def test_a_report_is_shown_whole_and_listed_short(run_cli, people, settings, reports, monkeypatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    text = "First of all.\n" + "It goes on and on. " * 100 + "\x1b[31mEnd."
    results = [
        {"name": "Pulse", "value": 130, "unit": "/min", "low": 60, "high": 100},
        {"name": "Grip", "value": "<3", "unit": "kg", "low": 20, "high": None, "flag": None},
        {"name": "Colour", "value": "red", "range_text": "as a rule"},
    ]
    take(record(1, checkup_report=text, results=results, taken_at="2026-11-01T09:00:00Z"))
    run_pass(settings.database_url, ReportWriter(reports), settings)
    listed = run_cli("reports", "list", "bholanath").stdout.splitlines()[1]
    assert len(listed) < 150
    assert "2026-11-01 14:30 IST" in listed
    assert listed.endswith("…")
    shown = run_cli("reports", "show", "bholanath", "1").stdout
    assert "First of all.\nIt goes on" in shown
    assert shown.count("It goes on and on.") == 100
    assert r"\x1b[31mEnd." in shown
    assert "range: as a rule" in shown
    ends = [line.split() for line in shown.splitlines()[-3:]]
    assert [("above" in line, "below" in line) for line in ends] == [(True, False), (False, True), (False, False)]


def test_numbers_keep_their_digits_and_no_text_is_a_formula(run_cli, people, settings, reports) -> None:
    sent = {**record()["results"][0], "value": 5, "low": -5, "high": None}
    del sent["flag"]
    text = json.dumps([record(1, results=[sent, {**sent, "value": "＝1"}])])
    done = run_cli("import-machine", "-", stdin=text.replace('"value": 5', '"value": 5.10'))
    assert done.returncode == 0, done.stderr
    run_pass(settings.database_url, ReportWriter(reports), settings)
    for words in (["list", "bholanath"], ["show", "bholanath", "1"], ["trend", "bholanath", "--code", sent["code"]]):
        told = run_cli("reports", *words, "--json").stdout
        assert "5.10" in re.findall(r'"value": (.*?),?\n', told), told
        assert json.loads(told)
        rows = csv.DictReader(io.StringIO(run_cli("reports", *words, "--csv").stdout))
        assert {(row["value"], row["low"]) for row in rows} == {("5.10", "-5"), ("'＝1", "-5")}


def test_a_report_that_is_not_that_persons_is_no_look_at_it(run_cli, reports_of_two) -> None:
    for report_id in ("4", "99", str(2**63)):
        done = run_cli("reports", "show", "bholanath", report_id)
        assert (done.returncode, done.stdout) == (2, "")
        assert f"bholanath has no report {report_id}" in done.stderr
    assert list(reports_of_two.access_log.find_events()) == []


@pytest.mark.parametrize("words", [["list", "nobody"], ["show", "bholanath", "99"], ["show", "savita", "1"], ["trend", "nobody"], ["trend", "bholanath", "--code", "nope"], ["trend", "bholanath", "--name", "Body weight", "--json"],
                                   ["list", "bholanath", "--from", "x"], ["list", "bholanath", "--from", "2026-02-02", "--to", "2026-02-01"]])  # fmt: skip
def test_what_is_not_there_is_told(run_cli, reports_of_two, words: list[str]) -> None:
    done = run_cli("reports", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Error: " in done.stderr


def test_what_no_living_body_has_presses_no_line_flat(run_cli, people, settings, reports) -> None:
    take(*temperatures("savita"))
    run_pass(settings.database_url, ReportWriter(reports), settings)
    drawn = run_cli("reports", "trend", "savita", "--code", "8310-5").stdout.splitlines()
    assert len(drawn) == 5
    assert drawn[-1] == "▁█  36.6 to 37.9 Cel, without 1 hardly possible"


def test_the_line_of_a_trend_has_values_as_sent_and_says_what_it_leaves_out(run_cli, people, settings, reports) -> None:
    values = ["5.4", "<3", "trace", 1234567]
    take(
        *[
            record(i, taken_at=f"2026-11-0{i + 1}T09:00:00Z", results=[{"name": "Sugar", "value": value, "unit": "mmol/L", "low": 3.9, "high": 6.1}])
            for i, value in enumerate(values)
        ]
    )  # fmt: skip
    run_pass(settings.database_url, ReportWriter(reports), settings)
    drawn = run_cli("reports", "trend", "bholanath", "--name", "Sugar").stdout.splitlines()
    assert drawn[-1] == "▁▁█  <3 to 1234567 mmol/L, without 1 in words"
    assert [line.split()[-1] for line in drawn[1:-1]] == ["within", "below", "3", "above"]


@pytest.mark.parametrize(("values", "line"), [([1, 2, 3], "▁▅█"), ([5, 5], "▄▄"), ([0, -1], "█▁")])
def test_a_sparkline(values: list[float], line: str) -> None:
    assert sparkline(values) == line


def test_a_long_sparkline_fits() -> None:
    assert len(sparkline([float(i % 7) for i in range(1000)])) == 60


def test_what_is_known_of_a_report_is_told(run_cli, people, settings, reports, monkeypatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    ids = [each.id for each in take(*rich("bholanath"))]
    run_pass(settings.database_url, ReportWriter(reports), settings)
    listed = [line.split()[1:3] for line in run_cli("reports", "list", "bholanath").stdout.splitlines()[1:]]
    assert listed == [["not", "known"], ["2026-11-20", "09:14"], ["2026-11", "ECG"]]
    whole, _, unknown = (
        " ".join(run_cli("reports", "show", "bholanath", str(number)).stdout.split()) for number in ids
    )
    for expected in ("status preliminary; it may still change", "clinical information Known diabetes", "Patient was not fasting.", "range: women: 12 to 16 g/dL · men: 14 to 18 g/dL",
                     "Hemoglobin corrected on 2026-11-21 09:10 IST; before: 12.1 g/dL", "Protein specimen Urine, taken 2026-11-20 06:30 IST", "note Slightly haemolysed (Dr. Rao, 2026-11-20)"):  # fmt: skip
        assert expected in whole, expected
    assert "taken at not known" in unknown
    printed = json.loads(run_cli("reports", "show", "bholanath", str(ids[2]), "--json").stdout)
    assert printed["taken_at"] is None
    trend = run_cli("reports", "trend", "bholanath", "--code", "718-7").stdout.splitlines()
    assert [line.split()[:2] for line in trend[1:3]] == [["not", "known"], ["2026-11-20", "09:14"]]


def test_a_name_in_place_of_a_command_is_told_the_command(run_cli) -> None:
    assert "shown by: myhealth reports list USER" in run_cli("reports", "bholanath").stderr
