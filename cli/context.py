"""The context of a command: the settings, and open stores, which are closed at its end."""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from myhealth.common.settings import Settings
    from myhealth.reports.repository import ReportRepository


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
        from myhealth.common.settings import load

        found = load({**self._options, **options}, file=self._file)
        configure_logging(found.log, LEVELS[min(self.verbose, 2)])
        return found

    @contextlib.contextmanager
    def database(self) -> Iterator[Settings]:
        """Open PostgreSQL and check its schema; audit events of the block name the operator."""
        from myhealth.audit.events import Actor, acting_as
        from myhealth.stores import opened_database

        settings = self.settings()
        with opened_database(settings), acting_as(Actor(None, operator_name(), None)):
            yield settings

    @contextlib.contextmanager
    def reports(self, settings: Settings) -> Iterator[ReportRepository]:
        """Open the report store."""
        from myhealth.stores import open_reports

        repository = open_reports(settings)
        try:
            yield repository
        finally:
            repository.close()


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
