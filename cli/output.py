"""Print results: tables for people, JSON and CSV for scripts."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from myhealth.common.text import escape_unsafe, printable

if TYPE_CHECKING:
    from myhealth.common.settings import Settings

# `is_json` tells whether it was given.
as_json = click.option(
    "--json",
    is_flag=True,
    expose_value=False,
    help="Print JSON, for scripts.",
    callback=lambda context, _, given: context.meta.update({"json": given}),
)


def is_json() -> bool:
    return bool(click.get_current_context().meta.get("json"))


def tell(text: str, value: Any, *, err: bool = False) -> None:
    """Print what was done: the value as JSON, or the text for people."""
    print_json(value) if is_json() else click.echo(text, err=err)


def print_json(value: Any) -> None:
    text = _json(value)
    click.echo("".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text))


def print_records(
    records: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    *,
    as_csv: bool = False,
    header: Sequence[str] = (),
) -> None:
    """Print records whole as JSON, or their columns as CSV or as a table, under the columns' names or `header`."""
    if is_json():
        print_json(list(records))
    else:
        print_rows = print_csv if as_csv else print_table
        print_rows([[record[name] for name in columns] for record in records], header or columns)


def print_table(rows: Sequence[Sequence[Any]], header: Sequence[str]) -> None:
    """Print columns as wide as their longest cell. A terminal gets a bold header and lines cut at its width."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    texts = [[cell_text(cell) for cell in row] for row in rows]
    widths = [max(len(line[i]) for line in [list(header), *texts]) for i in range(len(header))]
    lines = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in [list(header), *texts]]
    if any(header):
        click.secho(_cut("  ".join(lines[0]).rstrip(), width), bold=True)
    for line in lines[1:]:
        click.echo(_cut("  ".join(line).rstrip(), width))


def _cut(line: str, width: int | None) -> str:
    return line if width is None or len(line) <= width else line[: width - 1] + "…"


def check_form(as_csv: bool) -> None:
    """Raise UsageError if JSON is asked for too."""
    if as_csv and is_json():
        raise click.UsageError("--csv and --json exclude each other")


def print_csv(rows: Iterable[Sequence[Any]], header: Sequence[str]) -> None:
    """Print CSV, with each cell as the browse API writes it; a terminal obeys TAB and CR, so they are escaped too."""
    from myhealth.common.csv_writer import csv_lines  # few commands print CSV

    def escaped(cell: Any) -> Any:
        return cell.replace("\r\n", "\n").translate({9: r"\t", 13: r"\r"}) if isinstance(cell, str) else cell

    sys.stdout.writelines(csv_lines(header, ([escaped(cell) for cell in row] for row in rows)))


def cell_text(value: Any) -> str:
    """Return a cell: "" for None, minutes and the zone for a moment, control characters escaped."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M %Z")
    return printable(str(value), most=1000)


def print_error(message: str) -> None:
    """Print an error to stderr, in the form of the error that ends a command."""
    from myhealth.common.settings import wants_colour

    click.echo(f"{click.style('Error:', fg='red', bold=True)} {escape_unsafe(message)}", err=True, color=wants_colour())


def warn_of_exposed_secrets(settings: Settings) -> None:
    """Warn on stderr of each settings file with secrets that every user of this machine may read."""
    from myhealth.common.settings import exposed_secrets, wants_colour

    for path, names in exposed_secrets(settings).items():
        what = f"every user of this machine may read {path}, which contains {', '.join(names)}: chmod o-r {path}"
        click.echo(f"{click.style('Warning:', fg='yellow', bold=True)} {what}", err=True, color=wants_colour())


def confirm(question: str) -> None:
    """Ask on the terminal; any answer but yes ends the command with 1. Raises UsageError without a terminal."""
    if not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask on; add --yes to confirm")
    if not click.confirm(question, err=True):
        click.echo("Nothing was changed.", err=True)
        raise click.exceptions.Exit(1)


@contextlib.contextmanager
def counting(label: str, count: Callable[[], int], total: int) -> Iterator[None]:
    """Draw a bar on stderr, if it is a terminal, while the block takes longer than a second."""
    ended = threading.Event()

    def draw() -> None:
        if not ended.wait(1):
            with click.progressbar(length=total, label=label, file=sys.stderr) as bar:
                while not ended.wait(0.2):
                    bar.update(min(count(), total) - bar.pos)
                bar.update(total - bar.pos)

    thread = threading.Thread(target=draw, daemon=True)
    if sys.stderr.isatty() and total > 0:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        if thread.ident is not None:
            thread.join()


def called_as() -> str:
    """Return the command that calls this program; the bare name if it is on PATH."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return f"{sys.executable} -m cli"
    found = shutil.which(called.name)
    return called.name if found and called.exists() and called.samefile(found) else str(called)


def plural(count: int, word: str) -> str:
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def _json(value: Any, margin: str = "\n") -> str:
    """Return indented JSON that keeps all digits of a number: 5.10, not 5.1."""
    inner = f"{margin}  "
    if isinstance(value, Mapping) and value:
        fields = (
            f"{inner}{json.dumps(str(name), ensure_ascii=False)}: {_json(each, inner)}" for name, each in value.items()
        )
        return f"{{{','.join(fields)}{margin}}}"
    if isinstance(value, (list, tuple)) and value:
        return f"[{','.join(inner + _json(each, inner) for each in value)}{margin}]"
    if isinstance(value, Decimal):
        return str(value)
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, date):  # a datetime is one too
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is not JSON")
