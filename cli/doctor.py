"""myhealth doctor, and myhealth settings"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import click

from cli.context import App, pass_app
from cli.output import as_json, print_json, print_records, warn_of_exposed_secrets
from myhealth import doctor as domain
from myhealth.common import settings
from myhealth.common.errors import SettingsError
from myhealth.common.text import printable

MARKS = {"ok": ("✓", "green"), "note": ("·", "green"), "advice": ("!", "yellow"), "fault": ("✗", "red")}


@click.command()
@as_json
@pass_app
def doctor(app: App, as_json: bool) -> None:
    """Examine this installation, and say what to do.

    Looks at the settings, secrets and their files, proxies, both stores (version, encryption, clock, schema, indexes,
    rights, logs), the upload API, the age of the sync and the disk, as this host and these settings see them. Changes
    nothing and starts nothing. What does not matter on embedded servers is a note. On a terminal it lists all, in a
    pipe only what is to be done; if that is nothing, it says so. Exit 0 if there is nothing to do, 1 if something
    should be changed, 78 if it must be.
    """
    try:
        found = domain.examine(app.settings())
    except SettingsError as error:
        found = [
            domain.Finding(
                "settings", domain.FAULT, error.message, error.hint or "correct it; `myhealth settings` shows all"
            )
        ]
    levels = {finding.level for finding in found}
    if as_json:
        print_json([finding._asdict() for finding in found])
    else:
        shown = (
            found
            if sys.stdout.isatty()
            else [finding for finding in found if finding.level not in (domain.OK, domain.NOTE)]
        )
        width = max((len(finding.area) for finding in shown), default=0)
        for area, level, text, todo in shown:
            mark, colour = MARKS[level]
            sign = click.style(mark, fg=colour, bold=True)
            click.echo(f"{sign} {area.ljust(width)}  {printable(text, most=1000)}", color=settings.wants_colour())
            if todo:
                click.echo(f"  {' ' * width}  → {printable(todo, most=1000)}")
        if not levels & {domain.ADVICE, domain.FAULT}:
            click.echo("All is well: nothing must be changed.")
    click.get_current_context().exit(78 if domain.FAULT in levels else 1 if domain.ADVICE in levels else 0)


HEADER = """# MyHealth's settings, with their defaults. Remove the # before those that shall differ. This is read from
# ./myhealth.toml, /etc/myhealth/myhealth.toml or --settings PATH. MYHEALTH_KEY in the environment (in a section,
# MYHEALTH_SECTION_KEY) overrides it. Secrets are better kept in files: MYHEALTH_SECRET_KEY_FILE=/etc/myhealth/key."""


@click.command("settings")
@click.option("--example", is_flag=True, help="Print a settings file with every key, its explanation and its default.")
@as_json
@pass_app
def settings_command(app: App, example: bool, as_json: bool) -> None:
    """Show every setting and where it comes from.

    Secrets are masked. An empty database_url or mongo_url means an embedded server in data_dir.
    """
    if example:
        click.echo("\n".join(example_lines()))
        return
    found = app.settings()
    warn_of_exposed_secrets(found)
    rows = settings.setting_rows(found)
    print_records(rows, ("key", "value", "origin"), as_json=as_json, header=("setting", "value", "from"))


def example_lines() -> Iterator[str]:
    """Return the lines of a TOML file in which every key is a comment with its default: examples/myhealth.toml."""
    yield HEADER
    section = ""
    for key in settings.keys():  # noqa: SIM118
        of, _, name = key.name.rpartition(".")
        if of != section:
            section = of
            yield f"\n[{of}]"
        yield f"\n# {key.text}\n#{name} = {json.dumps(key.default, ensure_ascii=False)}"
