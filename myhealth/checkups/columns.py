"""The columns of a check-up, by name. They are derived from the model `Checkup`.

A new column is added to the model and the migration, and to the record that validation returns; the statements that
store, read, compare and copy check-ups, reports, answers and their schemas follow from this module.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import msgspec
import peewee
from msgspec import UNSET, Meta, Struct, UnsetType

from myhealth.checkups.models import Checkup
from myhealth.common.decoding import Id, Integer, StoredMoment

# A review sets these. They are no content of the check-up: no record contains them, and no earlier version.
REVIEW = ("reviewed_at", "reviewed_by", "review_note")
# The database, the intake or a review sets these; a record does not contain them.
ASSIGNED = ("id", "patient_id", "machine_id", "created_at", "updated_at", "revision", "changed_in", *REVIEW)
# A machine matches its records by this number, so a correction never changes it.
FIXED = ("record_id",)
# These never leave PostgreSQL: no report and no answer contains them.
INTERNAL = ("machine_id", "changed_in", "sent")
# Reports and answers contain these even if they are null, and leave out any other column that is null.
ALWAYS_SHOWN = ("record_id", "machine_id", "taken_by")
RESULTS_NOTE = (
    "A list of results, each with `code` (LOINC), `name`, `value` (a number or text), `unit`, `low`, `high` and `flag`,"
    " as the upload API's Result has them; a program that writes to the source itself may have stored others."
)
NOTES = {
    "results": RESULTS_NOTE,
    "reviewed_by": "The id of the user who reviewed it.",
    "review_note": "The reviewer's note for the patient. Without `reviewed_at` the check-up was changed since.",
}
TYPES: dict[str, Any] = {"text": str, "int": Integer, "bigint": Id, "timestamptz": StoredMoment, "jsonb": msgspec.Raw}


class Column(Struct, frozen=True):
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
    def is_shown(self) -> bool:
        """Whether reports and answers contain the column."""
        return self.name not in INTERNAL

    @property
    def omits_null(self) -> bool:
        """Whether reports and answers leave the column out where it is null."""
        return self.optional and self.name not in ALWAYS_SHOWN

    @property
    def struct_field(self) -> tuple[Any, ...]:
        """The field of a Struct for reports or answers, as `msgspec.defstruct` takes it."""
        kind = TYPES[self.sql_type]
        if self.name in NOTES:
            kind = Annotated[kind, Meta(description=NOTES[self.name])]
        if self.omits_null:
            return self.name, kind | UnsetType, UNSET
        return self.name, kind | None if self.optional else kind

    @property
    def defaults_to_now(self) -> bool:
        """Whether PostgreSQL's `now()` replaces a moment that the record does not contain."""
        return self.sql_type == "timestamptz" and not self.optional


COLUMNS = tuple(
    Column(field.column_name, field.field_type.lower(), field.null, field.column_name not in FIXED)
    for field in Checkup._meta.sorted_fields
)
RECORD_COLUMNS = tuple(column for column in COLUMNS if column.name not in ASSIGNED)
SHOWN_COLUMNS = tuple(
    column for column in COLUMNS if column.is_shown and (column in RECORD_COLUMNS or column.name in REVIEW)
)
OMITTED_NULLS = frozenset(column.name for column in SHOWN_COLUMNS if column.omits_null)
RECORD_NAMES = tuple(column.name for column in RECORD_COLUMNS)
CHANGEABLE = tuple(column.name for column in RECORD_COLUMNS if column.changeable)
JSON_NAMES = frozenset(column.name for column in RECORD_COLUMNS if column.is_json)


def select_list(names: Iterable[str], table: str = "checkups") -> str:
    """Return these columns of `table` as SQL selects them, in this order: JSON as text, so that numbers keep their
    digits."""
    return ", ".join(f"{table}.{name}{'::text' if name in JSON_NAMES else ''}" for name in names)


def select_fields(names: Iterable[str]) -> list[Any]:
    """Return these columns as peewee selects them, as `select_list` does."""
    fields = Checkup._meta.columns
    return [(fields[name].cast("text") if name in JSON_NAMES else fields[name]).alias(name) for name in names]


def assignments(values: Mapping[str, Any]) -> dict[Any, Any]:
    """Return a new content as peewee's `update` takes it: JSON text is stored digit by digit. It ends the review, for
    the reviewer saw other values."""
    return {
        Checkup._meta.columns[name]: (
            value if value is None or name not in JSON_NAMES else peewee.Value(value, converter=str).cast("jsonb")
        )
        for name, value in {**values, "reviewed_at": None, "reviewed_by": None}.items()
    }
