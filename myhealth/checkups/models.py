"""The `checkups` table. Its columns are defined here once, and all lists of columns are derived from them.

A new column is added to the model and the migration, and to the record that validation returns; the statements that
store, read, compare and copy check-ups, reports, answers and their schemas follow from this module.
"""

from collections.abc import Iterable
from typing import Annotated, Any

import msgspec
import peewee
from msgspec import UNSET, Meta, Struct, UnsetType
from playhouse.postgres_ext import BinaryJSONField

from myhealth.common.database import DEFAULT_NOW, FeedModel, Table, TimestampField
from myhealth.common.decoding import Id, Integer, StoredMoment
from myhealth.machines.models import Machine
from myhealth.profiles.models import User


class Checkup(FeedModel):
    """A check-up of one patient. (machine, record_id) is unique where record_id is set, also for records without a
    machine. Reports have the columns in this order, with those that may be left out at the end.

    `status`: FHIR's DiagnosticReport.status; null is final. `taken_precision`: day, month, year or unknown; null is an
    instant; an unknown `taken_at` only serves to sort. `taken_offset`: minutes east of UTC as sent. `details`:
    CheckupDetails as JSON; `sent`: the parts of the source that no field holds. `reviewed_by`: the id of the user who
    reviewed it; a new content ends the review and leaves its note.
    """

    patient = peewee.ForeignKeyField(User, on_delete="CASCADE")
    record_id = peewee.TextField(null=True)
    checkup_type = peewee.TextField()
    checkup_report = peewee.TextField()
    disease = peewee.TextField()
    machine = peewee.ForeignKeyField(Machine, null=True)
    taken_by = peewee.TextField(null=True)
    taken_at = TimestampField(constraints=[DEFAULT_NOW])
    results = BinaryJSONField(constraints=[peewee.SQL("DEFAULT '[]'")])
    status = peewee.TextField(null=True)
    taken_precision = peewee.TextField(null=True)
    taken_offset = peewee.IntegerField(null=True)
    taken_until = TimestampField(null=True)
    issued_at = TimestampField(null=True)
    details = BinaryJSONField(null=True)
    sent = BinaryJSONField(null=True)
    reviewed_at = TimestampField(null=True)
    reviewed_by = peewee.BigIntegerField(null=True)
    review_note = peewee.TextField(null=True)

    class Meta:
        table_name = "checkups"
        indexes = ((("machine", "record_id"), True),)


class CheckupVersion(Table):
    """An earlier version of a check-up. `content`: its columns by name. `replaced_by`: the user who changed it, if one
    did. `reason`: corrected (here, by a person), replaced or withdrawn (by its source)."""

    checkup = peewee.ForeignKeyField(Checkup, on_delete="CASCADE")
    revision = peewee.IntegerField()
    replaced_at = TimestampField(constraints=[DEFAULT_NOW])
    replaced_by = peewee.BigIntegerField(null=True)
    reason = peewee.TextField()
    content = BinaryJSONField()

    class Meta:
        table_name = "checkup_versions"
        primary_key = peewee.CompositeKey("checkup", "revision")


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
    "review_note": "The reviewer's note for the patient. Without `reviewed_at`, the check-up was changed after it.",
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


def select_list(names: Iterable[str]) -> str:
    """Return these columns as SQL selects them, in this order: JSON as text, so that numbers keep their digits."""
    return ", ".join(f"checkups.{name}{'::text' if name in JSON_NAMES else ''}" for name in names)


def select_fields(names: Iterable[str]) -> list[Any]:
    """Return these columns as peewee selects them, as `select_list` does."""
    fields = Checkup._meta.columns
    return [(fields[name].cast("text") if name in JSON_NAMES else fields[name]).alias(name) for name in names]
