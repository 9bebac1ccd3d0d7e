"""myhealth db"""

from __future__ import annotations

import click

from cli.context import App, pass_app
from cli.output import as_json, print_json, tell, told_as_json
from myhealth import embedded

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
@told_as_json
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
@told_as_json
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
def db_status(app: App, as_json: bool) -> None:
    """Show the state, address and data folder of both servers; exit 1 unless both run."""
    found = [server.status() for server in embedded.servers(app.settings().folder)]
    if as_json:
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
