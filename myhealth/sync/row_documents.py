"""Rows of a table as documents of the report store, and those that can be made none of. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from myhealth.reports.documents import Document, report_document, user_document
from myhealth.sync.source import Row

KINDS = {"users": "user", "checkups": "checkup"}
BUILDERS: dict[str, Callable[..., Document]] = {"users": user_document, "checkups": report_document}
# Rows that some other program wrote may hold what no document can be made of.
CONVERSION_ERRORS = (msgspec.MsgspecError, ArithmeticError, ValueError, TypeError, RecursionError)


def build_documents(table: str, rows: Sequence[Row], epoch: int) -> tuple[list[Document], list[tuple[Any, str]]]:
    """The documents of rows, in their order; and for rows that make none, what is known of them, with the reason."""
    make = BUILDERS[table]
    try:
        return [make(epoch, *row) for row in rows], []
    except CONVERSION_ERRORS:
        pass
    documents: list[Document] = []
    refused = []
    for row in rows:
        try:
            documents.append(make(epoch, *row))
        except CONVERSION_ERRORS as error:
            refused.append(({"_id": row[0], "epoch": epoch, "revision": row[-1]}, f"it cannot be read: {error}"))
    return documents, refused
