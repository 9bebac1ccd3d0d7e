"""Create users from a CSV file."""

import csv
from collections.abc import Iterable, Iterator
from typing import Any

from msgspec import Struct

from myhealth.common.csv_writer import read_named_rows
from myhealth.common.database import transaction
from myhealth.common.errors import BadInput, Conflict
from myhealth.common.spreadsheets import spoilt, unguarded
from myhealth.profiles.identifiers import add_identifier, list_identifiers, remember_name
from myhealth.profiles.services import create_user

COLUMNS = ("username", "full_name", "role", "password", "birth_date", "sex", "authority", "identifier")


class ImportedUser(Struct, frozen=True):
    """The result of one line of a CSV file; `error` is empty if the user was created."""

    line: int
    username: str
    error: str


def import_users(lines: Iterable[str], *, rounds: int = 12, skip_existing: bool = False) -> Iterator[ImportedUser]:
    """Create a user for each line of a CSV file, and return the result of each line.

    The header names the columns: `username`, and optionally those of COLUMNS; an `identifier` needs its `authority`. A
    bad line, or a username that is taken, is reported and does not stop the others; `skip_existing`: a username that is
    taken is not reported. Raises BadInput if the header lacks `username` or names an unknown column.
    """
    header, reader = read_named_rows(lines)
    unknown = [name for name in header if name and name not in COLUMNS]
    twice = [name for name in header if name and header.count(name) > 1]
    if "username" not in header or unknown or twice:
        what = f"does not know {unknown[0]!r}" if unknown else "lacks the column username"
        what = f"has the column {twice[0]} twice" if twice else what
        raise BadInput(f"line 1: the header {what}; the columns are {', '.join(COLUMNS)}")
    try:
        for row in reader:
            result = _import_user(row, reader.line_num, rounds, skip_existing)
            if result is not None:
                yield result
    except csv.Error as error:
        raise BadInput(f"line {reader.line_num}: {error}") from error


def _import_user(row: dict[str, Any], line: int, rounds: int, skip_existing: bool) -> ImportedUser | None:
    cells = {name: unguarded(cell) for name, cell in row.items() if isinstance(cell, str) and name != "password"}
    username, system, value = (cells.get(name, "") for name in ("username", "authority", "identifier"))
    try:
        if None in row or cells.get(""):
            raise BadInput("it has more fields than the header")
        if why := spoilt(value):
            raise BadInput(f"identifier {why}")
        names = ("full_name", "role", "birth_date", "sex")
        given: dict[str, Any] = {name: cells[name] for name in names if cells.get(name)}
        with transaction():
            user = create_user(username, password=row.get("password") or None, rounds=rounds, **given)
            if system or value:
                add_identifier(username, system, value)
            if user.role == "patient" and user.full_name:
                held = list_identifiers(user) if value else []
                remember_name(user, user.full_name, *held)
    except Conflict as error:
        existing = skip_existing and error.code == "user_exists"
        return None if existing else ImportedUser(line, username, error.message)
    except BadInput as error:
        return ImportedUser(line, username, error.message)
    return ImportedUser(line, username, "")
