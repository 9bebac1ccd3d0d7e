"""The columns of a check-up, by name. They are derived from the model `Checkup`.

A new column is added to the model and the migration, and to the record that validation returns; the statements that
store, read, compare and copy check-ups follow from this module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import peewee

from myhealth.checkups.models import Checkup

# The database or the intake sets these; a record does not contain them.
ASSIGNED = ("id", "patient_id", "machine_id", "created_at", "updated_at", "revision", "changed_in")
# A machine matches its records by this number, so a correction never changes it.
FIXED = ("record_id",)


@dataclass(frozen=True)
class Column:
    """A column that a record fills.

    `sql_type`: its type in PostgreSQL, in lower case. The value of a jsonb column is JSON text in Python, so that every
    number keeps its digits. `optional`: NULL is allowed. `changeable`: a correction may change it.
    """

    name: str
    sql_type: str
    optional: bool
    changeable: bool

    @property
    def is_json(self) -> bool:
        return self.sql_type == "jsonb"

    @property
    def defaults_to_now(self) -> bool:
        """Whether PostgreSQL's `now()` replaces a moment that the record does not contain."""
        return self.sql_type == "timestamptz" and not self.optional


RECORD_COLUMNS = tuple(
    Column(field.column_name, field.field_type.lower(), field.null, field.column_name not in FIXED)
    for field in Checkup._meta.sorted_fields
    if field.column_name not in ASSIGNED
)
RECORD_NAMES = tuple(column.name for column in RECORD_COLUMNS)
CHANGEABLE = tuple(column.name for column in RECORD_COLUMNS if column.changeable)
JSON_NAMES = frozenset(column.name for column in RECORD_COLUMNS if column.is_json)

# The values of a record's columns, in the order of RECORD_NAMES, from any object that has them as attributes.
record_values: Callable[[Any], tuple[Any, ...]] = attrgetter(*RECORD_NAMES)


def select_list(names: Iterable[str], table: str = "checkups") -> str:
    """Return these columns of `table` as SQL selects them, in this order: JSON as text, so that numbers keep their
    digits."""
    return ", ".join(f"{table}.{name}{'::text' if name in JSON_NAMES else ''}" for name in names)


def select_fields(names: Iterable[str]) -> list[Any]:
    """Return these columns as peewee selects them, as `select_list` does."""
    fields = Checkup._meta.columns
    return [(fields[name].cast("text") if name in JSON_NAMES else fields[name]).alias(name) for name in names]


def assignments(values: Mapping[str, Any]) -> dict[Any, Any]:
    """Return new values of columns as peewee's `update` takes them: JSON text is stored digit by digit."""
    return {
        Checkup._meta.columns[name]: peewee.Value(value, converter=str).cast("jsonb") if name in JSON_NAMES else value
        for name, value in values.items()
    }
