"""Rows of the source as documents of the report store, and the rows that cannot become one. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from myhealth.reports.documents import Document, report_document, user_document
from myhealth.sync.source import Row

KINDS = {"users": "user", "checkups": "checkup"}
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
