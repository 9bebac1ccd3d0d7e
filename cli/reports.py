"""myhealth reports"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from cli.context import App, operator_name, pass_app
from cli.output import as_json, check_form, print_csv, print_json, print_table
from cli.sparkline import sparkline
from myhealth.clinical import catalog
from myhealth.clinical.ranges import classify, parse_measurement
from myhealth.common.errors import NotFound
from myhealth.common.text import printable
from myhealth.reports.access_log import log_command_access
from myhealth.reports.documents import Document
from myhealth.reports.export.csv_table import COLUMNS, report_rows
from myhealth.reports.filters import PARAMETERS, find_report, list_reports, read_filter
from myhealth.reports.repository import ReportRepository
from myhealth.reports.trends import Point, measured_codes, readable_results, trend_points

as_csv = click.option("--csv", "as_csv", is_flag=True, help="Print CSV, for spreadsheets.")
LIST_HEAD = ("id", "taken at", "type", "disease", "by", "outside its range", "report")
LIST_TEXT_MAX = 60  # characters of a report's text in the list
RESULT_HEAD = ("name", "value", "unit", "low", "high", "flag", "lies", "code", "note")
POINT_HEAD: tuple[str, ...] = ("taken_at", "name", "value", "unit", "low", "high", "flag", "report_id")
TREND_COLUMNS = (*POINT_HEAD, "range_source", "warning", "range_text")
# What must be said beside a result, with the words before it.
NOTES = (("warning", ""), ("range_text", "range: "), ("absent_reason", "no value: "))
MEASURED_HEAD: tuple[str, ...] = ("code", "name", "units", "count", "first_at", "last_at")


@click.group()
def reports() -> None:
    """Read a person's reports out of the report store."""


@reports.command("list")
@click.argument("user")
@click.option("--type", "type_", metavar="TYPE", help="Only of this check-up type.")
@click.option("--disease", metavar="TEXT", help="Only about this disease.")
@click.option("--machine", metavar="SERIAL", help="Only from this machine.")
@click.option("--taken-by", metavar="NAME", help="Only taken by this person.")
@click.option("--from", "from_", metavar="DAY", help="Only of this day (UTC) or later.")
@click.option("--to", metavar="DAY", help="Only of this day (UTC) or earlier.")
@click.option("--abnormal/--normal", default=None, help="Only with a result outside its range, or only without.")
@click.option("--code", metavar="LOINC", help="Only with a result of this code.")
@click.option("--text", metavar="TEXT", help="Only with this text in its words.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most so many.")
@as_csv
@as_json
@pass_app
def list_(app: App, /, user: str, limit: int, as_csv: bool, as_json: bool, **asked: Any) -> None:
    """List a person's reports, the newest first."""
    check_form(as_csv, as_json)
    flag = asked.pop("abnormal")
    values = {name: asked.get(name) or asked.get(f"{name}_") or "" for name in PARAMETERS}
    wanted = replace(read_filter(values), abnormal=flag)
    with app.reports(app.settings()) as store:
        patient = looked_up(store, user, "export" if as_csv or as_json else "reports")
        found = list_reports(store, patient, wanted, limit=limit + 1)
    listed = found[:limit]
    if as_json:
        print_json([shown(report, patient) for report in listed])
    elif as_csv:
        print_csv(list(report_rows(listed, patient["username"])), COLUMNS)
    else:
        columns = ("_id", "taken_at", "checkup_type", "disease", "taken_by", "abnormal")
        rows = [[*(report[name] for name in columns), shortened(report["checkup_report"])] for report in listed]
        print_table(rows, LIST_HEAD)
    tell_of_more(len(found) > limit, limit, "reports")


@reports.command()
@click.argument("user")
@click.argument("report_id", type=click.IntRange(min=0))
@as_csv
@as_json
@pass_app
def show(app: App, /, user: str, report_id: int, as_csv: bool, as_json: bool) -> None:
    """Show one report of a person's, with its results."""
    check_form(as_csv, as_json)
    with app.reports(app.settings()) as store:
        patient = named(store, user)
        found = find_report(store, report_id)
        if found is None or found[1]["subject"] != patient["subject"]:
            raise NotFound(f"{user} has no report {report_id}; `myhealth reports list {user}` shows which there are")
        log_command_access(store, operator_name(), patient, "report", report_id=report_id)
    report = found[0]
    if as_json:
        print_json(shown(report, patient))
    elif as_csv:
        print_csv(list(report_rows([report], patient["username"])), COLUMNS)
    else:
        names = ("checkup_type", "disease", "machine", "taken_by", "taken_at")
        click.echo(f"Report {report_id} of {patient['username']}")
        print_table([[name.replace("_", " "), report[name]] for name in names], ("", ""))
        for line in report["checkup_report"].splitlines():
            click.echo(printable(line, most=len(line)))
        print_table([result_row(result) for result in readable_results(report)], RESULT_HEAD)


@reports.command()
@click.argument("user")
@click.option("--code", metavar="LOINC", help="The measurement; without it, what was measured is listed.")
@click.option("--name", metavar="NAME", help="The name of a measurement, in place of its code.")
@click.option("--limit", type=click.IntRange(1, 5000), default=1000, show_default=True, help="At most so many reports.")
@as_csv
@as_json
@pass_app
def trend(app: App, /, user: str, code: str | None, name: str | None, limit: int, as_csv: bool, as_json: bool) -> None:
    """Show how one measurement of a person's went over time, the newest last, with a line drawn of it."""
    check_form(as_csv, as_json)
    if code is not None and name is not None:
        raise click.UsageError("--code and --name are two; say one of them")
    more = False
    with app.reports(app.settings()) as store:
        patient = looked_up(store, user, "trends")
        if code is None and name is None:
            found: list[Any] = measured_codes(store, patient)
            columns = MEASURED_HEAD
        else:
            found, more = cut(trend_points(store, patient, code, name=name, limit=limit + 1), limit)
            columns = TREND_COLUMNS if as_json or as_csv else POINT_HEAD
            if not found:
                what = f"code {code}" if code is not None else f"name {name!r}"
                raise NotFound(
                    f"{user} has no results of the {what}; `myhealth reports trend {user}` lists which there are"
                )
    rows = [[joined(getattr(each, column)) for column in columns] for each in found]
    if columns == POINT_HEAD:
        rows = [[*row, classify(each.value, each.low, each.high)] for row, each in zip(rows, found, strict=True)]
    if as_json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    elif as_csv:
        print_csv(rows, columns)
    else:
        print_table(rows, (*columns, "lies") if columns == POINT_HEAD else columns)
        if columns == POINT_HEAD:
            draw(found)
    tell_of_more(more, limit, "reports that have it")


def cut(points: list[Point], limit: int) -> tuple[list[Point], bool]:
    """Those of the newest `limit` reports, the newest last, and whether there are more."""
    ids = set(list(dict.fromkeys(point.report_id for point in points))[:limit])
    kept = [point for point in points[::-1] if point.report_id in ids]
    return kept, len(kept) < len(points)


def tell_of_more(more: bool, limit: int, what: str) -> None:
    if more:
        click.echo(f"There are more: these are of the newest {limit:,} {what}; see --limit.", err=True)


def shortened(text: str) -> str:
    """A report's text for the list, which `reports show` has whole."""
    return text if len(text) <= LIST_TEXT_MAX else f"{text[:LIST_TEXT_MAX].rstrip()}…"


def result_row(result: Document) -> list[Any]:
    """A result's cells; `lies`: where the value lies in its range, whatever the machine's flag says."""
    where = classify(*(result.get(name) for name in ("value", "low", "high")))
    told = [f"{words}{result[name]}" for name, words in NOTES if result.get(name)]
    told += ["general range"] if result.get("range_source") == catalog.SOURCE else []
    return [{**result, "lies": where, "note": "; ".join(told)}.get(name) for name in RESULT_HEAD]


def draw(points: list[Point]) -> None:
    """A line for each unit: values in different units are not to be compared. What no living body has would press the
    others flat, and is left out, as are texts; a bound, such as <3, stands for what lies beyond it."""
    for unit in dict.fromkeys(point.unit for point in points):
        same = [each for each in points if each.unit == unit]
        numbers = [(each, found[1]) for each in same if (found := parse_measurement(each.value))]
        values = [float(value) for each, value in numbers if catalog.IMPOSSIBLE not in str(each.warning)]
        left_out = [(len(numbers) - len(values), "hardly possible"), (len(same) - len(numbers), "in words")]
        without = ", ".join(f"{count} {words}" for count, words in left_out if count)
        if len(values) > 1:
            line = f"{sparkline(values)}  {min(values):g} to {max(values):g} {unit or ''}".rstrip()
            click.echo(f"{line}, without {without}" if without else line)


def joined(value: Any) -> Any:
    return " ".join(value) if isinstance(value, tuple) else value


def looked_up(store: ReportRepository, username: str, what: str) -> Document:
    """The user of that name; that somebody looks is kept first. Raises NotFound."""
    patient = named(store, username)
    log_command_access(store, operator_name(), patient, what)
    return patient


def named(store: ReportRepository, username: str) -> Document:
    """The user of that name. Raises NotFound."""
    patient = store.user_named(username)
    if patient is None:
        raise NotFound(f"the report store has no user {username}; the sync may not have brought him or her yet")
    return patient


def shown(report: Document, patient: Document) -> Document:
    return {"id": report["_id"], "username": patient["username"]} | {
        name: value for name, value in report.items() if name not in ("_id", "subject")
    }
