"""The base of both embedded servers: folders, socket, a lock across commands, start, stop and status."""

import contextlib
import hashlib
import importlib.util
import logging
import os
import re
import shutil
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from myhealth.common.errors import SettingsError, Unavailable

log = logging.getLogger(__name__)

START_TIMEOUT_S = 120  # crash recovery of a large database can take long
STOP_TIMEOUT_S = 60
# sockaddr_un has 108 bytes on Linux, 104 on macOS, with the final NUL; PostgreSQL appends the longer file name.
SOCKET_FOLDER_MAX = 103 - len("/.s.PGSQL.5432.lock")
EXTRA_HINT = "in MyHealth's source folder: pip install '.[embedded]'; or set {variable} to a server of yours"
# Shared libraries that a minimal Debian or Ubuntu may lack, and their packages.
PACKAGES = {
    "libcurl.so.4": "libcurl4",
    "liblzma.so.5": "liblzma5",
    "libcrypto.so.3": "libssl3",
    "libssl.so.3": "libssl3",
    "libz.so.1": "zlib1g",
    "libgcc_s.so.1": "libgcc-s1",
}


class Server:
    """An embedded server in a data folder. Subclasses set the names and implement the abstract methods."""

    name = title = variable = socket_name = program = lock_name = ""

    def __init__(self, folder: Path) -> None:
        self.root = folder
        self.folder = folder / self.name
        self.data = self.folder / "data"
        self.log_file = self.folder / "log"

    @property
    def run(self) -> Path:
        """The socket's folder: beside the data or, if that path is too long, in the temporary folder."""
        beside = self.folder / "run"
        if len(os.fsencode(beside)) <= SOCKET_FOLDER_MAX:
            return beside
        suffix = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"myhealth-{self.name}-{suffix}"

    @property
    def socket_file(self) -> Path:
        return self.run / self.socket_name

    def answers(self) -> bool:
        """Return whether the server listens on its socket; takes 0.1 ms and starts no process.

        Raises SettingsError if the socket's folder belongs to another user, who could listen in the server's place.
        """
        self.check_run()
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(5)
            try:
                probe.connect(str(self.socket_file))
            except OSError:
                return False
        return True

    def owner(self) -> tuple[int, int] | None:
        """Return the user and group of the server, or None for this process's."""
        return None

    def check_run(self) -> None:
        """Raise SettingsError unless this process's user or the server's owns the socket's folder, closed to others."""
        try:
            found = self.run.lstat()
        except OSError:
            return  # it does not exist yet, or is not visible
        owner = self.owner()
        if (
            found.st_uid not in (os.geteuid(), owner[0] if owner else os.geteuid())
            or stat.S_IMODE(found.st_mode) & 0o077
        ):
            raise self.foreign(self.run, found.st_uid)

    def foreign(self, folder: Path, uid: int) -> SettingsError:
        return SettingsError(
            f"{folder} belongs to another user (uid {uid}), or is open to others",
            hint="run the command as the user whose servers these are, or choose another data_dir",
        )

    def ensure(self) -> str:
        """Return the URL of the server; start it first if it is not running. Safe for several commands at once.

        Raises SettingsError (no server installed, a library missing, a folder that cannot be used), Unavailable (it
        does not start; the message contains the end of its log).
        """
        if not self.answers():
            with self.locked():
                if not self.answers():
                    log.info("starting the embedded %s in %s", self.title, self.folder)
                    self.prepare()
                    self.start()
        return self.url

    def stop(self) -> bool:
        """Shut the server down and wait for its end; return False if it was not running. The data stays."""
        if not self.data.is_dir():
            return False
        with self.locked():
            return self.shut_down()

    def lock_library(self) -> Any:
        """Return the module `filelock`, part of the extra `embedded`.

        A running server may have been started by another installation. Raises SettingsError.
        """
        try:
            import filelock
        except ImportError as error:
            raise SettingsError(
                f"no server is named in the settings, and the embedded {self.title} is not installed",
                hint=EXTRA_HINT.format(variable=self.variable),
            ) from error
        return filelock

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        filelock = self.lock_library()
        lock = filelock.FileLock(self.root / f"{self.name}.lock", timeout=START_TIMEOUT_S)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except filelock.Timeout:
            raise Unavailable(f"another command has been starting {self.title} for {START_TIMEOUT_S} s") from None
        except OSError as error:
            raise self.unusable(error) from error
        try:
            yield
        finally:
            lock.release()

    def unusable(self, error: OSError) -> SettingsError:
        return SettingsError(
            f"the data folder {self.root} cannot be used: {error.strerror}: {error.filename}",
            hint="set MYHEALTH_DATA_DIR (or data_dir) to a folder that you can write to",
        )

    def make_private(self, folder: Path, owner: tuple[int, int] | None = None) -> None:
        """Create a folder that only its owner may enter. Raises SettingsError if it belongs to another user."""
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            wanted = owner[0] if owner else os.geteuid()
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (wanted, os.geteuid()):
                raise self.foreign(folder, found.st_uid)
            if owner:
                os.chown(folder, *owner, follow_symlinks=False)
            folder.chmod(0o700)
        except OSError as error:
            raise self.unusable(error) from error

    def candidates(self, package: str, place: str) -> list[Path]:
        """Return where the program may be: at `place` in the wheel's package, then as it is on PATH."""
        spec, on_path = importlib.util.find_spec(package), shutil.which(self.program)
        folders = (spec.submodule_search_locations or ()) if spec else ()
        return [*(Path(folder) / place for folder in folders), *([Path(on_path).resolve()] if on_path else [])]

    def binary(self) -> Path:
        raise NotImplementedError

    def prepare(self) -> None:
        raise NotImplementedError

    def start(self) -> None:
        raise NotImplementedError

    def shut_down(self) -> bool:
        raise NotImplementedError

    def url_of(self, database: str) -> str:
        raise NotImplementedError

    @property
    def url(self) -> str:
        return self.url_of("myhealth")

    def pid(self) -> int | None:
        """Return the server's process id, from its lock file; None if that process has ended."""
        try:
            pid = int((self.data / self.lock_name).read_text().split()[0])
        except (OSError, ValueError, IndexError):
            return None
        return pid if runs(pid, self.program, self.data) else None

    def not_installed(self) -> SettingsError:
        setting, hint = self.variable.removeprefix("MYHEALTH_").lower(), EXTRA_HINT.format(variable=self.variable)
        return SettingsError(f"no {setting} is set, and no {self.title} server is installed here", hint=hint)

    def version(self) -> str:
        answer = self.command([str(self.binary()), "--version"])
        found = re.search(r"\d+\.\d+(\.\d+)?", answer.stdout)
        return found.group() if found else "unknown"

    def status(self) -> dict[str, Any]:
        """Return `{"server", "running", "pid", "version", "data", "url"}`; starts nothing.

        `running` is None if another user's folder hides it.
        """
        running: bool | None = self.answers()
        if not running and self.folder.exists() and not os.access(self.run, os.X_OK) and self.run.parent.exists():
            running = None if self.run.exists() else False  # another user's: it may run, unseen
        return {
            "server": self.title,
            "running": running,
            "pid": self.pid() if running else None,
            "version": self.version(),
            "data": str(self.data),
            "url": self.url,
        }

    def command(self, words: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        """Run one of the server's programs. Its output goes to files, because a server that it starts keeps pipes open.

        Raises SettingsError if a shared library is missing.
        """
        with (
            tempfile.TemporaryFile("w+", errors="replace") as out,
            tempfile.TemporaryFile("w+", errors="replace") as err,
        ):
            ended = subprocess.run(
                words, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd="/", check=False, **options
            )
            out.seek(0)
            err.seek(0)
            done = subprocess.CompletedProcess(words, ended.returncode, out.read(), err.read())
        missing = re.search(r"([\w.+-]+\.so[\w.]*): cannot open shared object file", done.stderr)
        if missing:
            library = missing.group(1)
            package = PACKAGES.get(library)
            hint = f"apt-get install {package}" if package else f"install the package that contains {library}"
            raise SettingsError(f"{self.title} needs the shared library {library}, which is missing here", hint=hint)
        return done

    def failed(self, done: subprocess.CompletedProcess[str]) -> Unavailable:
        """Return the error for a server that did not start, with the end of its log."""
        output = f"{done.stdout}\n{done.stderr}".strip()
        with contextlib.suppress(OSError):
            output += "\n" + "\n".join(self.log_file.read_text(errors="replace").splitlines()[-8:])
        return Unavailable(f"{self.title} did not start (its log: {self.log_file}):\n{output.strip()}")


def runs(pid: int, program: str, data: Path) -> bool:
    """Return whether the process runs `program` on `data`; the system may have assigned the id to another process."""
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return process.name().startswith(program) and str(data) in process.cmdline()
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # another user's process, and alive: it uses the data
        return True
