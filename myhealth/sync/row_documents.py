"""Rows of the source as documents of the report store, and the rows that cannot become one. Pure."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from myhealth.checkups.columns import JSON_NAMES
from myhealth.checkups.withdrawn import shown_results
from myhealth.clinical.status import WITHDRAWN
from myhealth.reports.documents import Document, decode_json, finish_results, storable, user_document
from myhealth.sync.rows import FURTHER_NAMES, REPORT_FIELDS, CheckupRow, Row

KINDS = {"users": "user", "checkups": "checkup"}
REPORT_NAMES = ("_id", *(name for name, *_ in REPORT_FIELDS[1:]))
NO_FURTHER = (None,) * len(FURTHER_NAMES)
FIRST_FURTHER = len(CheckupRow._fields) - len(FURTHER_NAMES)


def report_document(row: Any, epoch: int) -> Document:
    """Return the report of one check-up, a CheckupRow. MongoDB keeps moments to the millisecond.

    `revision` and `epoch` are the last two fields; bson_compare.py reads them there.
    """
    if WITHDRAWN in row.results or row.status == WITHDRAWN:
        row = _without_withdrawn(row)
    document: Document = dict(zip(REPORT_NAMES, row))  # noqa: B905 (a row begins with these columns)
    document["results"] = results = decode_json(row.results)
    document["abnormal"] = finish_results(results)
    if row[FIRST_FURTHER:] != NO_FURTHER:
        for name in FURTHER_NAMES:
            if (value := getattr(row, name)) is not None:
                document[name] = storable(decode_json(value)) if name in JSON_NAMES else value
    document["revision"] = row.revision
    document["epoch"] = epoch
    return document


def _without_withdrawn(row: Any) -> Any:
    """Return the row without results that their source withdrew. If it withdrew the check-up, nothing but the id is
    left: the document belongs to nobody, so no reader finds it, and it keeps the row's revision for `verify`."""
    if row.status != WITHDRAWN:
        return row._replace(results=shown_results(row.results))
    further = dict.fromkeys(FURTHER_NAMES) | {"status": WITHDRAWN}
    texts = dict.fromkeys(("subject", "checkup_type", "checkup_report", "disease"), "")
    return row._replace(patient_id=0, machine=None, taken_by=None, results="[]", **texts, **further)


BUILDERS: dict[str, Callable[..., Document]] = {"users": user_document, "checkups": report_document}
# Another program may have written rows that cannot become a document.
CONVERSION_ERRORS = (msgspec.MsgspecError, ArithmeticError, ValueError, TypeError, RecursionError)


def build_documents(table: str, rows: Sequence[Row], epoch: int) -> tuple[list[Document], list[tuple[Document, str]]]:
    """Return the documents of the rows, in order, and (identity, reason) of each row that cannot become one."""
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
