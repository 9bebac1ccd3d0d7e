"""The context of a command: its module, the settings, and open stores, which are closed at its end.

The domain that a command's module imports is loaded when the command runs: help and completion of options need neither
the domain nor a driver. So a module of the command line imports modules of the domain, and not names from them: `from
myhealth.profiles import services`, then `services.get_user`. To import a name from a module loads that module at once,
which is right for the few small ones that options show, such as the roles of `myhealth.profiles`.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import pwd
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType
from typing import TYPE_CHECKING, Any

import click

from myhealth.common.errors import BadInput

if TYPE_CHECKING:
    from myhealth.common.settings import Settings
    from myhealth.reports.repository import ReportRepository
    from myhealth.sync.targets import Target

_unloaded: list[str] = []


class _Domain:
    """Finds the domain's modules for `importlib`, each to be loaded at its first use."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        found = PathFinder.find_spec(name, path, target) if name.startswith("myhealth.") else None
        if found is not None and found.loader is not None:
            found.loader = LazyLoader(found.loader)
            _unloaded.append(name)
        return found


def load_command(place: str) -> Any:
    """Return a command. `place`: its module and its name there, with a colon between them."""
    module, name = place.split(":")
    sys.meta_path.insert(0, _Domain)
    try:
        return getattr(importlib.import_module(module), name)
    finally:
        sys.meta_path.remove(_Domain)


def load_domain() -> None:
    """Load what commands have imported. A command calls this before it starts threads: msgspec's types must be prepared
    in one (`common.decoding.prepare`), and before Python 3.11.9 LazyLoader shows a second one a module half loaded."""
    gc.disable()  # no module is garbage, neither now nor later
    while _unloaded:
        vars(sys.modules[_unloaded.pop(0)])
    gc.freeze()
    gc.enable()


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
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return f"uid {uid}"


pass_app = click.make_pass_decorator(App)
