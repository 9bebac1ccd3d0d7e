"""What has come before in one source: kept in a temporary file, so that memory does not grow with the source."""

from __future__ import annotations

import hashlib
import sqlite3


class _Temporary:
    """A database of SQLite that is gone when it is closed, and lives on disk once it is large."""

    table = ""

    def __init__(self) -> None:
        self._opened: sqlite3.Connection | None = None

    @property
    def _database(self) -> sqlite3.Connection:
        if self._opened is None:  # opened by the thread that uses it, if any does
            self._opened = sqlite3.connect("", isolation_level=None)
            self._opened.execute(self.table)
        return self._opened


class Occurrences(_Temporary):
    """Names contents by a digest and the number of times that they have come."""

    table = "create table counts (digest text primary key, n integer) without rowid"

    def name(self, content: str) -> str:
        digest = hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:40]
        row = self._database.execute(
            "insert into counts values (?, 1) on conflict do update set n = n + 1 returning n", (digest,)
        ).fetchone()
        return f"sha256:{digest}:{row[0]}"


class Seen(_Temporary):
    """The first content that has come under each key."""

    table = "create table contents (key text primary key, content text) without rowid"

    def content(self, key: str, content: str) -> str | None:
        """What came under this key before; None, and `content` is kept, where nothing has."""
        found = self._database.execute("select content from contents where key = ?", (key,)).fetchone()
        if found is None:
            self._database.execute("insert into contents values (?, ?)", (key, content))
            return None
        return str(found[0])
