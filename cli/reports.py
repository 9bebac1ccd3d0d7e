"""myhealth reports"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import click

from cli.context import App, operator_name, pass_app
from cli.output import as_json, cell_text, check_form, is_json, print_csv, print_json, print_records, print_table
from myhealth.checkups import services
from myhealth.clinical import catalog, in_words, ranges, status
from myhealth.common.errors import NotFound
from myhealth.common.text import printable
from myhealth.intake import parsed_record
from myhealth.reports import TREND_LIMIT, TREND_LIMIT_MAX, access_log, documents, facts, filters, trends
from myhealth.reports.export import csv_table

if TYPE_CHECKING:
    from myhealth.reports.documents import Document
    from myhealth.reports.repository import ReportRepository
    from myhealth.reports.trends import TrendPoint

as_csv = click.option("--csv", "as_csv", is_flag=True, help="Print CSV, for spreadsheets.")
LIST_HEADER = ("id", "taken at", "type", "disease", "by", "outside its range", "report")
LIST_TEXT_MAX = 60  # characters of a report's text in the list
RESULT_HEADER = ("name", "value", "unit", "low", "high", "flag", "position", "code", "note")
VERSION_HEADER = ("revision", "replaced_at", "replaced_by", "reason", "status", "results")
POINT_HEADER: tuple[str, ...] = ("taken_at", "name", "value", "unit", "low", "high", "flag", "report_id")
TREND_COLUMNS = (*POINT_HEADER, "range_source", "warning", "range_text", "taken_precision", "status")
# Fields that the note of a result shows, with the words before them.
NOTES = (("warning", ""), ("range_text", "range: "), ("absent_reason", "no value: "))


class ReportCommands(click.Group):
    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and self.get_command(ctx, args[0]) is None:
            ctx.fail(f"No such command {args[0]!r}. A person's reports are shown by: myhealth reports list USER")
        return super().resolve_command(ctx, args)


@click.group(cls=ReportCommands)
def reports() -> None:
    """Read a person's reports out of the report store."""


@reports.command("list")
@click.argument("user", help="The patient's user name.")
@click.option("--type", metavar="TYPE", help="Only of this check-up type.")
@click.option("--disease", metavar="TEXT", help="Only about this disease.")
@click.option("--machine", metavar="SERIAL", help="Only from this machine.")
@click.option("--taken-by", metavar="NAME", help="Only taken by this person.")
@click.option("--from", "since", metavar="DAY", help="Only of this day (UTC) or later.")
@click.option("--to", "until", metavar="DAY", help="Only of this day (UTC) or earlier.")
@click.option("--abnormal/--normal", default=None, help="Only with a result outside its range, or only without.")
@click.option("--code", metavar="LOINC", help="Only with a result of this code.")
@click.option("--text", metavar="TEXT", help="Only with this text in its words.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Show at most this many.")
@as_csv
@as_json
@pass_app
def reports_list(app: App, /, user: str, limit: int, as_csv: bool, **asked: Any) -> None:
    """List a person's reports, the newest first."""
    check_form(as_csv)
    for option, name in (("from", "since"), ("to", "until")):
        asked[name] = filters.parse_moment(option, asked[name]) if asked[name] else None
    if asked["since"] and asked["until"] and asked["since"] >= asked["until"]:
        raise click.UsageError("--from is after --to")
    wanted = filters.ReportFilter(**{name: value for name, value in asked.items() if value != ""})
    with app.reports(app.settings()) as store:
        patient = _log_access_by_cli(store, user, "export" if as_csv or is_json() else "reports")
        found = store.find(patient, wanted, limit=limit + 1)
    listed, username = found[:limit], patient["username"]
    if is_json():
        print_json([documents.public_report(report, username) for report in listed])
    elif as_csv:
        print_csv(csv_table.csv_rows(listed, username), csv_table.CSV_COLUMNS)
    else:
        columns = ("checkup_type", "disease", "taken_by", "abnormal")
        rows = [
            [report["_id"], taken_text(report), *(report[name] for name in columns), _shorten(report_text(report))]
            for report in listed
        ]
        print_table(rows, LIST_HEADER)
    warn_of_more(len(found) > limit, limit, "reports")


@reports.command("show")
@click.argument("user", help="The patient's user name.")
@click.argument("report_id", type=click.IntRange(min=0), help="The report's number.")
@as_csv
@as_json
@pass_app
def reports_show(app: App, /, user: str, report_id: int, as_csv: bool) -> None:
    """Show one report of a person, with its results."""
    check_form(as_csv)
    with app.reports(app.settings()) as store:
        patient = find_user(store, user)
        found = store.get_with_patient(report_id)
        if found is None or found[1]["subject"] != patient["subject"]:
            raise NotFound(f"{user} has no report {report_id}; `myhealth reports list {user}` shows which there are")
        store.access_log.log(access_log.Access.by_operator(operator_name(), patient, "report", report_id=report_id))
    report = found[0]
    if is_json():
        print_json(documents.public_report(report, patient["username"]))
    elif as_csv:
        print_csv(csv_table.csv_rows([report], patient["username"]), csv_table.CSV_COLUMNS)
    else:
        print_report(report, patient["username"])


@reports.command()
@click.argument("report_id", type=click.IntRange(0, 2**63 - 1), help="The report's number.")
@as_json
@pass_app
def history(app: App, /, report_id: int) -> None:
    """List the earlier versions of a report, the newest first, from PostgreSQL."""
    with app.database():
        versions = services.open_history(report_id)
    found = [{**each, "content": parsed_record.DECODER.decode(each["content"])} for each in versions]
    if is_json():
        print_json(found)
        return
    if not found:
        click.echo(f"Report {report_id} has no earlier version: nobody changed it.")
        return
    rows = []
    for each in found:
        said = ", ".join(f"{result['name']} {result['value']}" for result in trends.readable_results(each["content"]))
        rows.append([*(each[name] for name in VERSION_HEADER[:-2]), each["content"]["status"] or "final", said])
    print_table(rows, VERSION_HEADER)


@reports.command()
@click.argument("user", help="The patient's user name.")
@click.option("--code", metavar="LOINC", help="The measurement; without it, what was measured is listed.")
@click.option("--name", metavar="NAME", help="The name of a measurement, in place of its code.")
@click.option(
    "--limit",
    type=click.IntRange(1, TREND_LIMIT_MAX),
    default=TREND_LIMIT,
    show_default=True,
    help="Show at most this many reports.",
)
@as_csv
@as_json
@pass_app
def trend(app: App, /, user: str, code: str | None, name: str | None, limit: int, as_csv: bool) -> None:
    """Show one measurement of a person over time, the newest last, with a line drawn of it."""
    from msgspec.structs import asdict  # help needs no msgspec

    check_form(as_csv)
    if code is not None and name is not None:
        raise click.UsageError("give --code or --name, not both")
    more = False
    with app.reports(app.settings()) as store:
        patient = _log_access_by_cli(store, user, "trends")
        if code is None and name is None:
            found: list[Any] = store.measurements(patient)
            columns = trends.MEASUREMENT_COLUMNS
        else:
            newest, behind = store.trend(patient, trends.TrendQuery(code, name), limit=limit)
            found, more = newest[::-1], behind is not None
            columns = TREND_COLUMNS if is_json() or as_csv else POINT_HEADER
            if not found:
                what = f"code {code}" if code is not None else f"name {name!r}"
                raise NotFound(
                    f"{user} has no results of the {what}; `myhealth reports trend {user}` lists which there are"
                )
    records = [{column: joined(getattr(each, column)) for column in columns} for each in found]
    if columns == POINT_HEADER:
        columns = (*columns, "position")
        for record, each in zip(records, found, strict=True):
            record["taken_at"] = facts.moment_text(each.taken_at, written, each.taken_precision) or "not known"
            record["position"] = ranges.compare(asdict(each)).position
    print_records(records, columns, as_csv=as_csv)
    if "position" in columns:
        draw(found, code)
    warn_of_more(more, limit, "reports that have it")


def warn_of_more(more: bool, limit: int, what: str) -> None:
    if more:
        click.echo(f"There are more: these are of the newest {limit:,} {what}; see --limit.", err=True)


def _shorten(text: str) -> str:
    """Shorten a report's text for the list; `reports show` prints all of it."""
    return text if len(text) <= LIST_TEXT_MAX else f"{text[:LIST_TEXT_MAX].rstrip()}…"


def print_report(report: Document, username: str) -> None:
    """Print one report: what is known of the check-up, its text, its results, and what is known of these."""
    click.echo(f"Report {report['_id']} of {username}")
    known = [(name.replace("_", " "), report[name]) for name in ("checkup_type", "disease", "machine", "taken_by")]
    known += [("taken at", taken_text(report)), ("status", status.status_text(report.get("status")))]
    known += [(name.lower(), text) for name, text in facts.checkup_facts(report, written)]
    print_table([line for line in known if line[1] != "" or line[0] != "status"], ("", ""))
    for line in report_text(report).splitlines():
        click.echo(printable(line, most=len(line)))
    results = trends.readable_results(report)
    print_table([result_row(result) for result in results], RESULT_HEADER)
    told = zip(results, facts.results_facts(results, written), strict=True)
    rows = [(result.get("name"), name.lower(), text) for result, named in told for name, text in named]
    if rows:
        print_table(rows, ("of", "what", ""))


def report_text(report: Document) -> str:
    return "\n".join(filter(None, (report["checkup_report"], *facts.notes_of(report.get("details"), written))))


def taken_text(report: Document) -> str:
    """Return the moment of a check-up, as far as it is known."""
    return facts.moment_text(report["taken_at"], written, report.get("taken_precision"), report.get("taken_until"))


def written(moment: datetime, precision: str | None) -> str:
    """Return a moment as cells have it; a date alone is the same in every zone."""
    if str(precision) in facts.LENGTHS:
        return moment.astimezone(UTC).isoformat()[: facts.LENGTHS[str(precision)]]
    return "not known" if precision else cell_text(moment)


def result_row(result: Document) -> list[Any]:
    """Return a result's cells; `position`: of the value in its range, independent of the machine's flag."""
    compared = ranges.compare(result)
    notes = [f"{words}{result[name]}" for name, words in NOTES if result.get(name)]
    usual, other_ranges = in_words.usual_range(result, compared) if result.get("ranges") else ("", "")
    notes += [f"range: {usual}"] if usual else []
    notes += [f"other ranges: {other_ranges}"] if other_ranges else []
    notes += ["general range"] if result.get("range_source") == catalog.SOURCE else []
    return [{**result, "position": compared.position, "note": "; ".join(notes)}.get(name) for name in RESULT_HEADER]


def draw(points: list[TrendPoint], code: str | None) -> None:
    """Print a sparkline for each series: values in different units or of different specimens are not comparable.

    Impossible values would flatten the rest of the line; they are left out, and so are texts. A bound such as <3 is
    drawn at its number.
    """
    for specimen, same in trends.split_series(points, code):
        dated = [each for each in same if each.taken_at]
        numbers = [(each, found[1]) for each in dated if (found := ranges.parse_measurement(each.value))]
        drawn = [(float(value), each) for each, value in numbers if catalog.IMPOSSIBLE not in str(each.warning)]
        left_out = [(len(numbers) - len(drawn), "hardly possible"), (len(dated) - len(numbers), "in words")]
        left_out += [(len(same) - len(dated), "of unknown time")]
        without = ", ".join(f"{count} {words}" for count, words in left_out if count)
        if len(drawn) > 1:
            unit = same[-1].unit or ""
            lowest, highest = (in_words.value_text(end(drawn, key=itemgetter(0))[1].value) for end in (min, max))
            line = f"{sparkline([value for value, _ in drawn])}  {lowest} to {highest} {unit} {specimen}".rstrip()
            click.echo(f"{line}, without {without}" if without else line)


def joined(value: Any) -> Any:
    return " ".join(value) if isinstance(value, tuple) else value


def _log_access_by_cli(store: ReportRepository, username: str, what: str) -> Document:
    """Return the user of that name, after logging the access to `what`. Raises NotFound."""
    patient = find_user(store, username)
    store.access_log.log(access_log.Access.by_operator(operator_name(), patient, what))
    return patient


def find_user(store: ReportRepository, username: str) -> Document:
    patient = store.people.find_by_username(username)
    if patient is None:
        raise NotFound(f"the report store has no user {username}; if `myhealth users show` has, the sync will bring it")
    return patient


BARS = "▁▂▃▄▅▆▇█"
WIDTH = 60


def sparkline(values: Sequence[float]) -> str:
    """Return a bar for each value, scaled from the lowest to the highest; for many values, of each interval's mean.

    Worked example: [1, 2, 3] is "▁▅█".
    """
    if len(values) > WIDTH:
        ends = [len(values) * i // WIDTH for i in range(WIDTH + 1)]
        values = [sum(values[a:b]) / (b - a) for a, b in pairwise(ends)]
    low, span = min(values), max(values) - min(values)
    top = len(BARS) - 1
    return "".join(BARS[int((value - low) / span * top + 0.5) if span else top // 2] for value in values)
