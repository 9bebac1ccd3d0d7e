"""myhealth import-machine"""

from __future__ import annotations

import contextlib
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

import click

from cli.context import App, pass_app
from cli.output import as_json, cell_text, is_json, plural, print_error, print_json, print_table
from myhealth.common.errors import BadInput
from myhealth.examples import NAMES as LAYOUTS
from myhealth.examples import named_layout
from myhealth.intake import file_import, identity
from myhealth.intake.formats import NAMES as FORMATS
from myhealth.intake.formats import registry, terminology
from myhealth.intake.formats.tables import layout as layouts
from myhealth.profiles import services

if TYPE_CHECKING:
    from myhealth.intake.file_import import FileImport
    from myhealth.intake.formats.format import Dump
    from myhealth.intake.formats.tables.layout import Layout
    from myhealth.intake.parsed_record import ParsedRecord
    from myhealth.intake.results import RecordResult

NOTHING_STORED = " (dry run: nothing was stored)"
SHOWN_MAX = 20  # rejected records that the summary names; all of them are stored
JSON_MAX = 1000
STATUSES = ("accepted", "duplicate", "rejected")
EFFECTS = ("replaced", "withdrawn")  # of accepted records, beside those that were created


@dataclass
class Summary:
    """The result of importing one file. `items`: the rejected records and those with warnings, at most JSON_MAX.
    `replaced`, `withdrawn`: the accepted records that replaced or withdrew a stored check-up.

    `kept`: the rejected records that are stored as rejections; those of erased people are not. `resolved`: the records
    that were rejected before and are stored now. `notices`: faults of the file as a whole that reject no record.
    `preview`: of a dry run of a table, the first records.
    """

    file: str
    accepted: int = 0
    duplicate: int = 0
    rejected: int = 0
    replaced: int = 0
    withdrawn: int = 0
    kept: int = 0
    resolved: int = 0
    warnings: int = 0
    patients_created: int = 0
    error: str = ""
    skipped: dict[str, int] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    items: list[dict[str, Any]] = field(default_factory=list)
    preview: list[list[str]] = field(default_factory=list)

    def add(self, batch: Sequence[tuple[ParsedRecord, RecordResult]], *, shown: bool) -> None:
        for parsed, result in batch[: file_import.PREVIEWED - len(self.preview)] if shown else ():
            self.preview.append(file_import.preview_row(parsed, result))
        count = Counter([result.status for _, result in batch] + [result.effect for _, result in batch])
        for name in (*STATUSES, *EFFECTS):
            setattr(self, name, getattr(self, name) + count[name])
        told = [(parsed, result) for parsed, result in batch if result.warnings or result.status == "rejected"]
        self.kept += sum(result.rejection_id is not None for _, result in told)
        self.warnings += sum(result.status == "accepted" for _, result in told)
        for parsed, result in told[: JSON_MAX - len(self.items)]:
            record = parsed.decoded()
            record_id = record.get("record_id") if isinstance(record, dict) else None
            self.items.append(
                {
                    "index": result.index,
                    "line": parsed.line,
                    "record_id": record_id if isinstance(record_id, (str, int)) else None,
                    "status": result.status,
                    "effect": result.effect,
                    "errors": result.errors,
                    "warnings": result.warnings,
                    "rejection_id": result.rejection_id,
                }
            )


class FormatName(click.Choice[str]):
    """The name of a format. The registry, which loads readers, is asked when one is given, and not for help."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        self.choices = tuple(registry.format_names())
        return super().convert(value, param, ctx)


# Options of every command that takes in what machines send.
READING = (
    click.option(
        "--patient-map",
        type=click.File("r", encoding="utf-8-sig"),
        metavar="FILE.csv",
        help="Usernames for the patient names that machines use: columns patient, username, and for numbers of an"
        " authority also authority.",
    ),
    click.option(
        "--timezone", "zone", metavar="ZONE",
        help="The zone of moments without one in FHIR and HL7 (else UTC) and CSV (else the layout's, else they are"
        " rejected), like Asia/Kolkata or +05:30.",
    ),
    click.option("--create-patients", is_flag=True, help="Create unknown patients, without a password."),
    click.option("--include-training", is_flag=True, help="Treat HL7 messages for training or debugging as results."),
)  # fmt: skip


def reading_options(command: Any) -> Any:
    """Add the options of READING to a command."""
    for option in reversed(READING):
        command = option(command)
    return command


@click.command("import-machine")
@click.argument(
    "files",
    nargs=-1,
    required=True,
    metavar="FILE...",
    type=click.Path(path_type=Path, allow_dash=True),
    help="Files to read; - is standard input.",
)
@click.option("--format", type=FormatName(FORMATS), help="Force the format; detected by default.")
@click.option("--machine", metavar="SERIAL", help="The machine's serial, for files that do not name it.")
@click.option("--patient", metavar="USERNAME", help="The patient of all records, for files that name no patient.")
@click.option(
    "--layout", metavar="NAME",
    help=f"What the columns of a CSV file mean: a TOML file, or {', '.join(LAYOUTS)}. Else the machine's, or guessed.",
)  # fmt: skip
@click.option(
    "--date-format",
    metavar="FORMAT",
    help="Form of days in CSV whose year does not come first: dmy, mdy, or like %d/%m/%Y.",
)
@click.option("--decimal", type=click.Choice([".", ","]), help="The decimal separator of numbers in CSV; a point.")
@click.option("--encoding", metavar="NAME", help="Encoding of a CSV file that is not UTF-8, such as windows-1252.")
@reading_options
@click.option("--dry-run", is_flag=True, help="Check everything, store nothing.")
@click.option(
    "--rejected",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Write rejected records there, to be corrected and imported again: a file, or for several files an existing"
    " folder.",
)
@as_json
@pass_app
def import_machine(
    app: App, /, files: tuple[Path, ...], patient_map: TextIO | None, rejected: Path | None, **given: Any
) -> None:
    """Take in what machines keep in their memory.

    Reads machine-memory dumps, JSON lists, NDJSON, FHIR R4 (JSON), HL7 v2 results and CSV, gzipped or not; - is
    standard input. A record that is stored already is a duplicate, so importing a file again stores nothing twice.
    Rejected records are kept (`myhealth rejections`), and the import continues. Exit 1 if a record was rejected, 2 if a
    file could not be read to its end.
    """
    _check_rejected(rejected, files)
    for name in ("machine", "patient"):
        if given[name] is not None and not given[name].strip():
            raise click.UsageError(f"--{name} is empty")
    terminology.read_zone(given["zone"] or "UTC")
    overrides = {name: value for name in ("date_format", "decimal", "encoding") if (value := given.pop(name))}
    named = given.pop("layout")
    found = load_layout(named) if named else layouts.GUESSED
    layout = layouts.check_layout(found, **overrides, zone=given["zone"])
    if named or overrides:
        given["format"] = given["format"] or "csv"
    chosen = {name: value for name, value in given.items() if value is not None}
    mapped = load_map(patient_map)
    summaries = []
    with app.database() as settings:
        if given["patient"] and not given["create_patients"]:
            services.get_user(given["patient"])  # else each record would be rejected, and kept, for one mistyped name
        options = file_import.ImportOptions(
            layout=layout, patient_map=mapped, own_authorities=settings.intake.folded_authorities, **chosen
        )
        for file in files:
            summary = Summary("standard input" if str(file) == "-" else str(file))
            summaries.append(summary)
            import_file(file, summary, options, rejected)
            if not is_json():
                print_summary(summary, given["dry_run"])
    if is_json():
        print_json([vars(summary) for summary in summaries])
    elif len(files) > 1:
        _print_total(summaries, options.dry_run)
    if any(summary.error for summary in summaries):
        click.get_current_context().exit(BadInput.exit_code)
    if any(summary.rejected for summary in summaries):
        click.get_current_context().exit(1)


def _check_rejected(rejected: Path | None, files: Sequence[Path]) -> None:
    """Raise UsageError if rejected records cannot be written there."""
    if rejected is None or rejected.is_dir():
        return
    if len(files) > 1:
        raise click.UsageError("--rejected must name a folder that is there when several files are imported")
    if not rejected.absolute().parent.is_dir():
        raise click.UsageError(f"--rejected: there is no folder {cell_text(rejected.absolute().parent)}")


def _print_total(summaries: Sequence[Summary], is_dry_run: bool) -> None:
    counts = {name: sum(getattr(s, name) for s in summaries) for name in STATUSES}
    in_all = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    unread = [cell_text(summary.file) for summary in summaries if summary.error]
    failed = f"; {plural(len(unread), 'file')} could not be read: {', '.join(unread)}" if unread else ""
    click.echo(f"In all: {in_all}{NOTHING_STORED if is_dry_run else ''}{failed}.")


def load_layout(name: str) -> Layout:
    """Return the layout of a name or of a TOML file. Raises BadInput."""
    if name in LAYOUTS:
        return named_layout(name)
    try:
        return layouts.parse_layout(Path(name).read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        known, reason = ", ".join(LAYOUTS), getattr(error, "strerror", None) or error
        hint = f"it is built in: --layout {Path(name).stem}" if Path(name).stem in LAYOUTS else ""
        raise BadInput(
            f"--layout must be {known}, or a file: {cell_text(name)} cannot be read: {reason}", hint=hint
        ) from error


def load_map(file: TextIO | None) -> identity.PatientMap:
    if file is None:
        return identity.PatientMap()
    try:
        return identity.read_patient_map(file)
    except BadInput as error:
        raise BadInput(f"{file.name}: {error.message}") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{file.name}: it is not UTF-8: {error.reason} at byte {error.start}") from error


def import_file(file: Path, summary: Summary, options: file_import.ImportOptions, rejected: Path | None) -> None:
    """Import one file. A file that cannot be read, or is broken, is reported in `summary.error`."""
    try:
        with opened(file) as source, file_import.audited_import(source, summary.file, options) as coming:
            try:
                store_batches(coming, summary, source, rejected_file(file, rejected, coming.dump))
            finally:
                summary.patients_created, summary.resolved = coming.created, coming.resolved
                summary.skipped.update(coming.dump.skipped)
                summary.notices.extend(coming.dump.notices)
    except OSError as error:
        summary.error = f"it cannot be read: {error.strerror or error}"
    except BadInput as error:
        summary.error = error.message + (f" ({error.hint})" if error.hint else "")


def store_batches(
    coming: FileImport, summary: Summary, source: BinaryIO, rejected: file_import.RejectedFile | None
) -> None:
    closing = contextlib.closing(rejected) if rejected else contextlib.nullcontext()
    with closing, progress(source, summary.file) as advance, message_if_interrupted(coming):
        for batch in coming:
            summary.add(batch, shown=coming.options.dry_run and coming.dump.header != "")
            if rejected is not None:
                for parsed in [parsed for parsed, result in batch if result.status == "rejected"]:
                    rejected.add(parsed)
            advance()


def rejected_file(file: Path, rejected: Path | None, dump: Dump) -> file_import.RejectedFile | None:
    """Return the file for rejected records: the one that --rejected names, or one in the folder that it names."""
    if rejected is None:
        return None
    name = "standard-input" if str(file) == "-" else file.name
    return file_import.RejectedFile(rejected / name if rejected.is_dir() else rejected, dump)


@contextlib.contextmanager
def opened(file: Path) -> Iterator[BinaryIO]:
    if str(file) == "-":
        yield sys.stdin.buffer
        return
    with file.open("rb") as source:
        yield source


@contextlib.contextmanager
def progress(source: BinaryIO, name: str) -> Iterator[Callable[[], None]]:
    """Draw a bar on stderr that counts the file's bytes, if stderr is a terminal and the size is known."""
    size = os.fstat(source.fileno()).st_size if source.seekable() else 0
    if not size or not sys.stderr.isatty():
        yield lambda: None
        return
    with click.progressbar(length=size, label=Path(name).name, file=sys.stderr) as bar:
        yield lambda: bar.update(source.tell() - bar.pos)


@contextlib.contextmanager
def message_if_interrupted(coming: FileImport) -> Iterator[None]:
    """After Ctrl-C, print the number of records in whole batches, and that the next import continues."""
    try:
        yield
    except KeyboardInterrupt:
        done = 0 if coming.options.dry_run else coming.stored
        click.echo(f"\n{coming.name}: {plural(done, 'record')} stored so far; import it again to go on.", err=True)
        raise


def print_summary(summary: Summary, dry_run: bool) -> None:
    """Print the counts on stdout, and before them on stderr each rejection and warning with its place and reason."""
    for item in summary.items[:SHOWN_MAX]:
        record_id = f" (record_id {cell_text(item['record_id'])})" if item["record_id"] is not None else ""
        place = f"{summary.file}, line {item['line']}: record {item['index'] + 1}{record_id}"
        errors = [] if item["index"] < len(summary.preview) else item["errors"]  # the preview has them
        for error in [*errors, *item["warnings"]]:
            named = f"{error['field']}: " if error["field"] else ""
            as_it_is = error in item["warnings"] and not error.get("code")
            taken = "taken as it is, but " if as_it_is else ""
            click.echo(f"{place}: {cell_text(named + taken + error['message'])}", err=True)
    more = summary.rejected + summary.warnings - SHOWN_MAX
    if more > 0:
        click.echo(f"… and {more:,} more.", err=True)
    if summary.skipped:
        kinds = ", ".join(f"{count:,} {'× ' * (count > 1)}{kind}" for kind, count in sorted(summary.skipped.items()))
        click.echo(f"{summary.file}: not results, passed over: {cell_text(kinds)}", err=True)
    for notice in summary.notices:
        click.echo(f"{summary.file}: {cell_text(notice)}", err=True)
    if summary.error:
        print_error(f"{summary.file}: {cell_text(summary.error)}")
        if not (summary.accepted or summary.duplicate or summary.rejected):
            return
    would = NOTHING_STORED if dry_run else ""
    if summary.preview:
        print_table(summary.preview, file_import.PREVIEW_COLUMNS)
    done = [f"{count:,} {name}" for name in EFFECTS if (count := getattr(summary, name))]
    effects = f" ({', '.join(done)})" if done else ""
    counts = f"{summary.accepted:,} accepted{effects}, {summary.duplicate:,} duplicate, {summary.rejected:,} rejected"
    click.echo(f"{summary.file}: {counts}{would}.")
    if summary.patients_created:
        made = "would be created" if dry_run else "created"
        patients = plural(summary.patients_created, "patient")
        they = "this patient" if summary.patients_created == 1 else "they"
        click.echo(f"{summary.file}: {patients} {made}, without a password: {they} cannot log in yet.", err=True)
    if summary.resolved:
        are = "is" if summary.resolved == 1 else "are"
        before = f"{plural(summary.resolved, 'record')} rejected before {are} stored now"
        click.echo(f"{summary.file}: {before}, and not listed by myhealth rejections list any more.", err=True)
    if any(error.get("code") == "unknown_user" for item in summary.items for error in item["errors"]):
        click.echo("Unknown patients can be created (--create-patients) or mapped (--patient-map).", err=True)
    if summary.rejected > summary.kept and not dry_run:
        lost = plural(summary.rejected - summary.kept, "rejected record")
        click.echo(f"{lost} not kept, for example of an erased person; keep them on the machine.", err=True)
    if summary.kept and not dry_run:
        kept = f"{plural(summary.kept, 'rejected record')} kept; see them with: myhealth rejections list"
        click.echo(f"{kept}; then: myhealth rejections retry ID, or myhealth rejections discard ID", err=True)
