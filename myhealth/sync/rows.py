"""Rows of the source as the sync reads them, and the SQL of their columns. A check-up's follow from its model."""

from collections import namedtuple
from typing import Any, NamedTuple, Protocol

from myhealth.checkups.columns import COLUMNS, Column
from myhealth.checkups.models import Checkup
from myhealth.common.stored_types import Id, StoredMoment
from myhealth.profiles.models import OF_AUTHORITIES, User
from myhealth.reports.documents import UserRow
from myhealth.sync.models import Tombstone


class Row(Protocol):
    """A row of any feed. `xid`: the transaction that wrote the row last."""

    @property
    def id(self) -> int: ...

    @property
    def xid(self) -> int: ...

    @property
    def revision(self) -> int: ...


class TombstoneRow(NamedTuple):
    """The deletion of a row. `kind`: "user" or "checkup". `revision`: of the deletion."""

    id: int
    xid: int
    kind: str
    row_id: int
    revision: int


# A report has the patient's subject beside the id: an id may be given to another person later, a subject may not. It
# has the machine's serial instead of its id, and no `record_id`. Its other columns are those of the model, by name.
PLACED = ("id", "patient_id", "record_id", "created_at", "updated_at", "results", "revision")
_own: list[Column] = [
    column for column in COLUMNS if column.name not in PLACED and (column.is_shown or column.name == "machine_id")
]
# The fields of every report, as `msgspec.defstruct` takes them, and those that a report has unless they are null.
REPORT_FIELDS: tuple[tuple[Any, ...], ...] = (
    ("id", Id),
    ("patient_id", Id),
    ("subject", str),
    *(
        ("machine", str | None) if each.name == "machine_id" else each.struct_field
        for each in _own
        if not each.omits_null
    ),
    ("created_at", StoredMoment),
    ("updated_at", StoredMoment),
    next(column.struct_field for column in COLUMNS if column.name == "results"),
)
FURTHER_FIELDS = tuple(column.struct_field for column in _own if column.omits_null)
FURTHER_NAMES = tuple(name for name, *_ in FURTHER_FIELDS)
MOMENTS = tuple(column.name for column in COLUMNS if column.sql_type == "timestamptz" and column.is_shown)

# The columns of a check-up that make its report. Moments are in UTC, with or without a zone; JSON is text.
CHECKUP_NAMES = [*(name for name, *_ in REPORT_FIELDS), "revision", "xid", *FURTHER_NAMES]
CheckupRow: Any = namedtuple("CheckupRow", CHECKUP_NAMES, defaults=[None] * len(FURTHER_NAMES))  # type: ignore[misc]

ROWS: dict[str, Any] = {"checkups": CheckupRow, "users": UserRow, "tombstones": TombstoneRow}
MODELS: dict[str, Any] = {"checkups": Checkup, "users": User, "tombstones": Tombstone}
# The form in which columns of a type are read. Moments come in UTC and without a zone: an aware one takes twice as long
# to read and to write. Numbers in JSON keep their digits.
FORMS = {"JSONB": "::text", "UUID": "::text", "DATE": "::text", "TIMESTAMPTZ": " at time zone 'UTC'"}
JOINED = {
    "subject": "users.subject::text",
    "machine": "machines.serial",
    "identifiers": "(select coalesce(jsonb_agg(jsonb_build_object('system', system, 'value', value) order by id), '[]')"
    f"::text from patient_identifiers where patient_id = t.id and {OF_AUTHORITIES})",
}
JOINS = {
    "checkups": "join users on users.id = t.patient_id left join machines on machines.id = t.machine_id",
    "users": "",
    "tombstones": "",
}


def _expression(table: str, name: str) -> str:
    """Return the SQL of a row's column: of the table, by its model's type, or of a joined table."""
    if name == "xid":
        return "t.changed_in::text::bigint"
    column = MODELS[table]._meta.columns.get(name)
    return JOINED[name] if column is None else f"t.{name}{FORMS.get(column.field_type, '')}"


SELECTED = {table: ", ".join(_expression(table, name) for name in row._fields) for table, row in ROWS.items()}
