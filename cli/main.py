"""The entry point: global options, commands that are loaded on use, and exit codes of errors."""

import gc
import os
import sys
from typing import Any

import click

from cli.context import App, load_command
from myhealth import __version__
from myhealth.common.errors import MyHealthError

EXAMPLES = {
    "audit": "myhealth audit --subject savita --since 2026-11-01 --json",
    "completion": "myhealth completion bash > ~/.local/share/bash-completion/completions/myhealth",
    "db start": "myhealth db start",
    "db status": "myhealth db status --json",
    "db stop": "myhealth db stop",
    "demo": "myhealth demo",
    "doctor": "myhealth doctor --json",
    "import-machine": "myhealth import-machine dump.json --rejected rejected.json",
    "listen": "myhealth listen --host 0.0.0.0 --allow 10.1.0.0/16 --tls-cert cert.pem --tls-key key.pem",
    "machines list": "myhealth machines list --json",
    "machines map": "myhealth machines map HC-2031-0007 GLU 2345-7 --unit mg/dL",
    "machines register": "myhealth machines register HC-2031-0007 --model 'HealthCheckup 2' --site 'Room 4'",
    "machines unmapped": "myhealth machines unmapped HC-2031-0007 --json",
    "migrate": "myhealth migrate --check || myhealth migrate",
    "rejections discard": "myhealth rejections discard 17 --reason 'a test'",
    "rejections list": "myhealth rejections list --limit 20",
    "rejections retry": "myhealth rejections retry 17 18",
    "rejections show": "myhealth rejections show 17 --json",
    "reports history": "myhealth reports history 12",
    "reports list": "myhealth reports list savita --csv",
    "reports show": "myhealth reports show savita 12",
    "reports trend": "myhealth reports trend savita --code 8480-6",
    "serve": "myhealth serve --upload-port 5000 --browse-port 5001",
    "settings": "myhealth settings --example > myhealth.toml",
    "status": "myhealth status --max-lag 600 --max-age 900",
    "sync": "myhealth sync --once -v",
    "users create": "myhealth users create savita --full-name 'Savita Rao' --birth-date 1961-04-02 --generate",
    "users delete": "myhealth users delete savita",
    "users disable": "myhealth users disable savita",
    "users enable": "myhealth users enable savita",
    "users export": "myhealth users export savita --output savita.zip",
    "users identifiers add": "myhealth users identifiers add savita urn:oid:2.16.840.1.113883.19.5 MRN-4711",
    "users identifiers list": "myhealth users identifiers list savita",
    "users identifiers remove": "myhealth users identifiers remove savita urn:oid:2.16.840.1.113883.19.5 MRN-4711",
    "users import": "myhealth users import patients.csv --skip-existing",
    "users invite": "myhealth users invite --all-without-password --html > slips.html",
    "users link": "myhealth users link savita",
    "users list": "myhealth users list --role doctor",
    "users set-name": "myhealth users set-name savita 'Savita Rao'",
    "users set-password": "myhealth users set-password savita --generate",
    "users set-person": "myhealth users set-person savita --birth-date 1961-04-02 --sex female",
    "users set-role": "myhealth users set-role dr.ayush doctor",
    "users show": "myhealth users show savita --json",
    "users unblock": "myhealth users unblock savita --address 192.0.2.7",
    "verify": "myhealth verify --repair",
}


def add_examples(command: click.Command, name: str) -> None:
    """End the help of a command and of its subcommands with their examples."""
    if isinstance(command, click.Group):
        for word, each in command.commands.items():
            add_examples(each, f"{name} {word}")
    elif name in EXAMPLES:
        command.epilog = f"\b\nExample:\n  {EXAMPLES[name]}"


# For each command its module and object, and its line in the list of commands, which a test compares with the command's
# help. So `myhealth --help` loads no command.
COMMANDS = {
    "audit": ("cli.audit:audit", "Show who did what, to whose data, from where."),
    "completion": (
        "cli.installation:completion",
        "Print the script with which a shell completes commands and options.",
    ),
    "db": ("cli.installation:db", "Start, stop and inspect the embedded servers."),
    "demo": ("cli.demo:demo", "Perform the whole system's nine steps, for you to watch."),
    "doctor": ("cli.installation:doctor", "Examine this installation, and say what to do."),
    "import-machine": ("cli.import_machine:import_machine", "Take in what machines keep in their memory."),
    "listen": ("cli.serve:listen", "Take results from analyzers by HL7 v2 over MLLP."),
    "machines": ("cli.machines:machines", "List and register machines, and give codes to their tests."),
    "migrate": ("cli.migrate:migrate_command", "Bring the stores' schema up to date."),
    "rejections": ("cli.rejections:rejections", "List rejected records, and retry or discard them."),
    "reports": ("cli.reports:reports", "Read a person's reports out of the report store."),
    "serve": ("cli.serve:serve", "Run both APIs and the sync on this machine."),
    "settings": ("cli.installation:settings_command", "Show every setting and where it comes from."),
    "status": ("cli.sync:status_command", "Show how far the report store is behind, and why."),
    "sync": ("cli.sync:sync", "Take new check-ups over into the report store."),
    "users": ("cli.users:users", "Create and manage users."),
    "verify": ("cli.sync:verify_command", "Compare both stores row by row, and mend what differs."),
}


class Failure(click.ClickException):
    """An error of the domain, as click shows it: message, hint and exit code."""

    def __init__(self, error: MyHealthError) -> None:
        super().__init__(error.message)
        setattr(self, "exit_code", error.exit_code)  # noqa: B010 - click declares it of the class, and reads it here
        self.error = error

    def show(self, file: Any = None) -> None:
        from cli.output import print_error  # only a failure needs it

        print_error(self.message)
        for each in self.error.errors:
            click.echo(f"  {each.get('field') or ''}: {each['message']}", err=True)
        if self.error.hint:
            click.echo(f"Hint: {self.error.hint}", err=True)


class Commands(click.Group):
    """A group that loads a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = load_command(COMMANDS[cmd_name][0])
        add_examples(command, cmd_name)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in COMMANDS:
            import difflib  # only a mistake needs it

            for near in difflib.get_close_matches(args[0], COMMANDS, 1):
                ctx.fail(f"No such command {args[0]!r}. Did you mean {near}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in sorted(COMMANDS.items())])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except MyHealthError as error:
            raise Failure(error) from error
        except BrokenPipeError:  # the reader of a pipe has ended; 141 as for a program that SIGPIPE ends
            _write_no_more()
            ctx.exit(141)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--settings",
    "file",
    metavar="PATH",
    help="Settings file (default: $MYHEALTH_SETTINGS, ./myhealth.toml, then /etc/myhealth/myhealth.toml).",
)
@click.option("--database-url", metavar="URL", help="PostgreSQL; overrides MYHEALTH_DATABASE_URL.")
@click.option("--mongo-url", metavar="URL", help="MongoDB; overrides MYHEALTH_MONGO_URL.")
@click.option("--data-dir", metavar="PATH", help="Folder of the embedded servers; overrides MYHEALTH_DATA_DIR.")
@click.option("-v", "--verbose", count=True, help="Log each step to stderr; twice: everything.")
@click.version_option(__version__, prog_name="myhealth")
@click.pass_context
def cli(ctx: click.Context, /, file: str | None, verbose: int, **options: str | None) -> None:
    """Collect health check-up reports, and give them back to the people they are about.

    Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 done but something was rejected or
    differs, 2 wrong usage or bad input, 74 the output cannot be written, 75 try again later, 77 not allowed, 78 wrong
    settings, 130 interrupted, 141 the reader of the output has closed it.
    """
    ctx.obj = App(file, options, verbose)


def main() -> None:
    """Run the command line and exit; 130 after Ctrl-C, as shells do."""
    try:
        code = cli.main(standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as exit_:
        code = exit_.exit_code
    except click.Abort:
        click.echo("Interrupted.", err=True)
        code = 130
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except BrokenPipeError:
        _write_no_more()
        code = 141
    except OSError as error:
        _write_no_more()
        click.echo(f"Error: the output cannot be written: {error.strerror or error}", err=True)
        code = 74
    gc.freeze()  # else Python searches all modules for garbage at its end, for a tenth of the time of a short command
    sys.exit(code if isinstance(code, int) else 0)


def _write_no_more() -> None:
    """Discard the rest of the output: Python would try to write it again at its end, and fail again."""
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
