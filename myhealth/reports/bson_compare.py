"""Documents as BSON: whether two say the same, found by their bytes, for to decode a document takes longer than to
compare it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import bson

from myhealth.reports.connection import CODEC
from myhealth.reports.documents import Document

# How a document of ours begins and ends: with its id, and with these two integers of 32 bits. Source: bsonspec.org.
INT32_ID, INT64_ID = b"\x10_id\x00", b"\x12_id\x00"
REVISION, EPOCH = b"\x10revision\x00", b"\x10epoch\x00"


def encode(document: Document) -> bytes:
    return bson.encode(document, codec_options=CODEC)


class StoredBson:
    """A document as the report store has it. `id`, `revision` and `epoch` are integers, -1 where it has none of that
    kind; `id` is whatever it is where it is no integer."""

    __slots__ = ("content", "epoch", "id", "revision")

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.id: Any
        if content[-12:-5] == EPOCH and content[-26:-16] == REVISION and content[4:9] in (INT32_ID, INT64_ID):
            self.id = int.from_bytes(content[9 : 13 if content[4] == INT32_ID[0] else 17], "little", signed=True)
            self.revision = int.from_bytes(content[-16:-12], "little", signed=True)
            self.epoch = int.from_bytes(content[-5:-1], "little", signed=True)
        else:
            document = self.document()
            self.id = document.get("_id")
            self.revision, self.epoch = (_integer(document.get(name)) for name in ("revision", "epoch"))

    def document(self) -> Document:
        return bson.decode(self.content, codec_options=CODEC)

    def equals(self, content: bytes) -> bool:
        """Whether this is that document in its bytes, the epoch aside, which stands last in both."""
        return self.content[:-5] == content[:-5] and self.content[-12:-5] == EPOCH

    def equals_ignoring_epoch(self, document: Document) -> bool:
        """Whether this is that document, the epoch and the order of the fields aside."""
        return _in_order(self.document()) == _in_order(document)


def split(batch: bytes) -> Iterator[StoredBson]:
    """The documents of a batch, which stand one behind the other, each beginning with its length."""
    start = 0
    while start < len(batch):
        end = start + int.from_bytes(batch[start : start + 4], "little")
        yield StoredBson(batch[start:end])
        start = end


def _integer(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else -1


def _in_order(document: Document) -> bytes:
    return encode({name: document[name] for name in sorted(document) if name != "epoch"})
