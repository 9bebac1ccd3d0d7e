"""The schema's history, one file a step, applied in order by `myhealth migrate`; tables are frozen inline."""

from collections.abc import Callable
from typing import Any

# Two releases run side by side while one replaces the other: programs whose newest migration is this one work with the
# schema too. Raise it when a migration takes away what they use, at the earliest in the release after.
OLDEST_PROGRAM = 18


def run_sql(sql: str) -> Callable[[Any, Any], None]:
    """Return an `up` or `down` that runs these statements.

    Through `db.cursor()`: `db.execute_sql()` passes parameters, and would read a % in them as a place for one.
    """
    return lambda migrator, db: db.cursor().execute(sql)
