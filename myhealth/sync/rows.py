"""Rows of the source as the sync reads them, the SQL of their columns, and the documents that they become.

A check-up's columns follow from its model."""

from collections import namedtuple
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from myhealth.checkups.models import COLUMNS, Checkup, Column
from myhealth.clinical.status import WITHDRAWN, shown_results
from myhealth.common.decoding import Id, StoredMoment
from myhealth.machines.services import Codes, mapped_code
from myhealth.profiles.models import OF_AUTHORITIES, User
from myhealth.reports.documents import Document, UserRow, bson_safe, decode_json, finish_results, user_document
from myhealth.sync.models import Tombstone

# A row of any feed: it has `id`, `revision` and `xid`, the transaction that wrote the row last.
Row = Any


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

# The columns of a check-up that make its report. Moments are in UTC, with or without a zone; JSON is text. `further`:
# JSON text of the columns that a report has unless they are null, and of the machine's codes, or null if all are null.
# To read each as a column takes a twentieth of the time of a first sync.
CHECKUP_NAMES = [*(name for name, *_ in REPORT_FIELDS), "revision", "xid", "further"]
CheckupRow: Any = namedtuple("CheckupRow", CHECKUP_NAMES, defaults=[None])  # type: ignore[misc]

ROWS: dict[str, Any] = {"checkups": CheckupRow, "users": UserRow, "tombstones": TombstoneRow}
MODELS: dict[str, Any] = {"checkups": Checkup, "users": User, "tombstones": Tombstone}
# The form in which columns of a type are read. Moments come in UTC and without a zone: an aware one takes twice as long
# to read and to write. Numbers in JSON keep their digits.
FORMS = {"JSONB": "::text", "UUID": "::text", "DATE": "::text", "TIMESTAMPTZ": " at time zone 'UTC'"}
_further = ", ".join(f"'{name}', t.{name}" for name in FURTHER_NAMES)
JOINED = {
    "further": f"case when num_nonnulls({', '.join(f't.{name}' for name in FURTHER_NAMES)}, machines.codes) > 0"
    f" then json_build_object({_further}, 'codes', machines.codes)::text end",
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


KINDS = {"users": "user", "checkups": "checkup"}
REPORT_NAMES = ("_id", *(name for name, *_ in REPORT_FIELDS[1:]))


def report_document(row: Any, epoch: int) -> Document:
    """Return the report of one check-up, a CheckupRow. MongoDB keeps moments to the millisecond.

    `revision` and `epoch` are the last two fields; bson_documents.py reads them there.
    """
    further = _further_fields(row.further) if row.further else {}
    codes = further.pop("codes", None)
    if WITHDRAWN in row.results or further.get("status") == WITHDRAWN:
        row, further = _without_withdrawn(row, further)
    document: Document = dict(zip(REPORT_NAMES, row))  # noqa: B905 (a row begins with these columns)
    document["results"] = results = decode_json(row.results)
    if codes:
        _add_codes(results, codes)
    document["abnormal"], far = finish_results(results)
    if far:
        document["far"] = True
    if further:
        document.update(further)
    document["revision"] = row.revision
    document["epoch"] = epoch
    return document


def _further_fields(text: str) -> Document:
    """Return the fields of `CheckupRow.further`, in the order of the columns, and the machine's `codes`."""
    return {
        name: datetime.fromisoformat(value) if name in MOMENTS else bson_safe(value)
        for name, value in decode_json(text).items()
        if value is not None
    }


def _add_codes(results: Any, codes: Codes) -> None:
    """Add the LOINC codes that the machine's administrator gave to tests without one."""
    for result in results if type(results) is list else ():
        if type(result) is dict and not result.get("code") and (code := mapped_code(codes, result)):
            result["code"] = code


def _without_withdrawn(row: Any, further: Document) -> tuple[Any, Document]:
    """Return the row without results that their source withdrew. If it withdrew the check-up, only the id is left: the
    document has no patient, so no reader finds it, and it keeps the row's revision for `verify`."""
    if further.get("status") != WITHDRAWN:
        return row._replace(results=shown_results(row.results)), further
    texts = dict.fromkeys(("subject", "checkup_type", "checkup_report", "disease"), "")
    return row._replace(patient_id=0, machine=None, taken_by=None, results="[]", **texts), {"status": WITHDRAWN}


BUILDERS: dict[str, Callable[..., Document]] = {"users": user_document, "checkups": report_document}
# Another program may have written rows that cannot become a document.
CONVERSION_ERRORS = (msgspec.MsgspecError, ArithmeticError, ValueError, TypeError, RecursionError)


def build_documents(table: str, rows: Sequence[Row], epoch: int) -> tuple[list[Document], list[tuple[Document, str]]]:
    """Return the documents of the rows, in order, and (identity, reason) of each row that cannot become one. Tombstones
    have no documents."""
    if table == "tombstones":
        return [], []
    build = BUILDERS[table]
    try:
        return [build(row, epoch) for row in rows], []
    except CONVERSION_ERRORS:
        pass
    documents: list[Document] = []
    unreadable: list[tuple[Document, str]] = []
    for row in rows:
        try:
            documents.append(build(row, epoch))
        except CONVERSION_ERRORS as error:
            identity = {"_id": row.id, "epoch": epoch, "revision": row.revision}
            unreadable.append((identity, f"it cannot be read: {error}"))
    return documents, unreadable
