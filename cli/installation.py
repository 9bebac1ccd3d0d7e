"""myhealth db, doctor, settings and completion: what an installation needs"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import click
from click.shell_completion import get_completion_class

from cli.context import App, pass_app
from cli.output import as_json, is_json, print_json, print_records, tell, warn_of_exposed_secrets
from myhealth import embedded
from myhealth.common import settings
from myhealth.common.errors import SettingsError
from myhealth.common.text import printable

IN_USE = (
    "A program was connected, such as `myhealth serve`. If it still runs, it starts the servers again as soon as it"
    " needs them: end it first, then stop them again."
)


@click.group()
def db() -> None:
    """Start, stop and inspect the embedded servers.

    Real PostgreSQL and MongoDB servers, with their data in data_dir. Any command starts them when no database_url or
    mongo_url is set, and they go on running until `myhealth db stop`. They listen on Unix sockets only.
    """


@db.command()
@as_json
@pass_app
def start(app: App) -> None:
    """Start both servers, unless they are running."""
    done = []
    for server in embedded.servers(app.settings().folder):
        running = server.answers()
        server.ensure()
        done.append({"server": server.title, "done": "is running already" if running else "started", "url": server.url})
    tell("\n".join(f"{each['server']} {each['done']}: {each['url']}" for each in done), done)


@db.command()
@as_json
@pass_app
def stop(app: App) -> None:
    """Stop both servers in an orderly way; the data stays."""
    both = embedded.servers(app.settings().folder)
    is_in_use = both[0].is_in_use()
    done = [{"server": each.title, "done": "stopped" if each.stop() else "was not running"} for each in both]
    tell("\n".join(f"{each['server']} {each['done']}" for each in done), done)
    if is_in_use:
        click.echo(IN_USE, err=True)


@db.command("status")
@as_json
@pass_app
def db_status(app: App) -> None:
    """Show the state, address and data folder of both servers; exit 1 unless both run."""
    found = [server.status() for server in embedded.servers(app.settings().folder)]
    if is_json():
        print_json(found)
    else:
        for row in found:
            known = {
                True: ("running", "green"),
                False: ("stopped", "yellow"),
                None: ("another user's, not visible", "yellow"),
            }
            text, colour = known[row["running"]]
            state = click.style(text, fg=colour)
            process = f", process {row['pid']}" if row["pid"] else ""
            click.echo(f"{row['server']} {row['version']}: {state}{process}\n  data {row['data']}\n  url  {row['url']}")
    if not all(row["running"] for row in found):
        click.get_current_context().exit(1)


MARKS = {"ok": ("✓", "green"), "note": ("·", "green"), "advice": ("!", "yellow"), "fault": ("✗", "red")}


@click.command()
@as_json
@pass_app
def doctor(app: App) -> None:
    """Examine this installation, and say what to do.

    Looks at the settings, secrets and their files, proxies, both stores (version, encryption, clock, schema, indexes,
    rights, logs), the upload API, the age of the sync and the disk, as this host and these settings see them. Changes
    nothing and starts nothing. What does not matter on embedded servers is a note. On a terminal it lists all, in a
    pipe only what is to be done; if that is nothing, it says so. Exit 0 if there is nothing to do, 1 if something
    should be changed, 78 if it must be.
    """
    from myhealth import doctor as examination  # it loads PyMongo, which the other commands here do without

    try:
        found = examination.examine(app.settings())
    except SettingsError as error:
        found = [
            examination.Finding(
                "settings", examination.FAULT, error.message, error.hint or "correct it; `myhealth settings` shows all"
            )
        ]
    levels = {finding.level for finding in found}
    if is_json():
        print_json([finding._asdict() for finding in found])
    else:
        shown = (
            found
            if sys.stdout.isatty()
            else [finding for finding in found if finding.level not in (examination.OK, examination.NOTE)]
        )
        width = max((len(finding.area) for finding in shown), default=0)
        for area, level, text, todo in shown:
            mark, colour = MARKS[level]
            sign = click.style(mark, fg=colour, bold=True)
            click.echo(f"{sign} {area.ljust(width)}  {printable(text, most=1000)}", color=settings.wants_colour())
            if todo:
                click.echo(f"  {' ' * width}  → {printable(todo, most=1000)}")
        if not levels & {examination.ADVICE, examination.FAULT}:
            click.echo("All is well: nothing must be changed.")
    click.get_current_context().exit(78 if examination.FAULT in levels else 1 if examination.ADVICE in levels else 0)


HEADER = """# MyHealth's settings, with their defaults. Remove the # before those that shall differ. This is read from
# ./myhealth.toml, /etc/myhealth/myhealth.toml or --settings PATH. MYHEALTH_KEY in the environment (in a section,
# MYHEALTH_SECTION_KEY) overrides it. Secrets are better kept in files: MYHEALTH_SECRET_KEY_FILE=/etc/myhealth/key."""


@click.command("settings")
@click.option("--example", is_flag=True, help="Print a settings file with every key, its explanation and its default.")
@as_json
@pass_app
def settings_command(app: App, example: bool) -> None:
    """Show every setting and where it comes from.

    Secrets are masked. An empty database_url or mongo_url means an embedded server in data_dir.
    """
    if example:
        click.echo("\n".join(example_lines()))
        return
    found = app.settings()
    warn_of_exposed_secrets(found)
    rows = settings.setting_rows(found)
    print_records(rows, ("key", "value", "origin"), header=("setting", "value", "from"))


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


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]), help="The shell in which to complete.")
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script with which a shell completes commands and options.

    Load it in the shell's start-up file: for zsh and fish, save it in a folder of completions.
    """
    found = get_completion_class(shell)
    assert found is not None  # noqa: S101 - the choice has only shells that click knows
    click.echo(found(context.find_root().command, {}, "myhealth", "_MYHEALTH_COMPLETE").source())
