"""The context of a command: the settings, and open stores, which are closed at its end."""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from cli.loading import load_domain
from myhealth.common.errors import BadInput

if TYPE_CHECKING:
    from myhealth.common.settings import Settings
    from myhealth.reports.repository import ReportRepository
    from myhealth.sync.targets import Target


# Of a command's log: with -v each step, with -vv the messages of libraries too.
LEVELS = ("WARNING", "INFO", "DEBUG")


class App:
    """The command line's context. `options`: settings given as options; None means not given."""

    def __init__(self, file: str | None, options: dict[str, Any], verbose: int) -> None:
        self._file = file
        self._options = options
        self.verbose = verbose

    def settings(self, **options: Any) -> Settings:
        """Return the settings, with further options of the command itself by dotted name, and log as they say."""
        from myhealth.common.logs import configure_logging  # a command's help needs neither
        from myhealth.common.settings import load, wants_colour

        load_domain()
        click.get_current_context().color = wants_colour()
        found = load({**self._options, **options}, file=self._file)
        configure_logging(found.log, LEVELS[min(self.verbose, 2)])
        return found

    @contextlib.contextmanager
    def database(self) -> Iterator[Settings]:
        """Open PostgreSQL and check its schema. Audit events of the block name the operator; one of them is that a
        command is refused."""
        from myhealth.audit.events import Actor, acting_as, record_refusal
        from myhealth.stores import opened_database

        settings = self.settings()
        with opened_database(settings), acting_as(Actor(None, operator_name(), None)):
            try:
                yield settings
            except BadInput:
                command = click.get_current_context()
                words = f"myhealth{command.command_path.removeprefix(command.find_root().command_path)}"
                record_refusal("refused", words, subject=command.params.get("username"), request=words)
                raise

    @contextlib.contextmanager
    def reports(self, settings: Settings) -> Iterator[ReportRepository]:
        """Open the report store."""
        from myhealth.stores import open_reports

        repository = open_reports(settings)
        try:
            yield repository
        finally:
            repository.close()

    @contextlib.contextmanager
    def target(self, settings: Settings) -> Iterator[Target]:
        """Open what the sync writes to: the report store itself, or the browse API before it."""
        if settings.sync.reports_api_url:
            from myhealth.sync.targets import ReportsApi  # these take a while to load

            yield ReportsApi(settings)
        else:
            from myhealth.reports.writer import ReportWriter

            with self.reports(settings) as reports:
                yield ReportWriter(reports, audit_days=settings.retention.audit_days)


def operator_name() -> str:
    """Return the system account that runs the command, and the one that called sudo, for the audit trail.

    The account is the process's real user, not LOGNAME or USER, which anybody may set.
    """
    from myhealth.common.settings import sudo_uid

    caller = sudo_uid()
    sudo = "" if caller is None else f" (sudo by {account_name(caller)})"
    return f"{account_name(os.getuid())}{sudo} at the command line"


def account_name(uid: int) -> str:
    """Return the name of a system account, or its number."""
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return f"uid {uid}"


pass_app = click.make_pass_decorator(App)
