"""Documents as JSON between a sync on another host and the browse API; every digit and moment survives. Pure.

Decoding checks every field but for those of JSON, which may have any form.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from myhealth.common.errors import BadInput
from myhealth.common.stored_types import Count, Id, StoredMoment
from myhealth.reports.documents import Document, decode_json, finish_results, storable
from myhealth.sync.rows import FURTHER_FIELDS, MOMENTS, REPORT_FIELDS

_encode = msgspec.json.Encoder(decimal_format="number").encode


ReportDocument = msgspec.defstruct(
    "ReportDocument",
    [*REPORT_FIELDS, ("abnormal", bool), *FURTHER_FIELDS, ("revision", Count), ("epoch", Count)],
    rename={"id": "_id"},
    kw_only=True,  # so that a field that may be left out keeps its place
    forbid_unknown_fields=True,
)


class UserDocument(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A user's document. What is not known of the person is left out."""

    id: Id = msgspec.field(name="_id")
    subject: str
    username: str
    username_key: str
    full_name: str
    name_keys: dict[str, str]
    role: str
    active: bool
    tokens_valid_after: StoredMoment | None
    birth_date: str | UnsetType = UNSET
    sex: str | UnsetType = UNSET
    identifiers: list[dict[str, str]] | UnsetType = UNSET
    revision: Count
    epoch: Count


KINDS: dict[str, type[Any]] = {"checkup": ReportDocument, "user": UserDocument}
_decoders = {kind: msgspec.json.Decoder(list[form]) for kind, form in KINDS.items()}  # type: ignore[valid-type]


def encode_document(document: Document) -> bytes:
    """Return the document as JSON. Raises a ValueError or an OverflowError if JSON cannot hold it."""
    moments = {
        name: _aware(document[name]) for name in (*MOMENTS, "tokens_valid_after") if document.get(name) is not None
    }
    return _encode({**document, **moments})


def decode_documents(kind: str, body: bytes) -> list[Document]:
    """Return the documents of a JSON list. Raises BadInput naming the first wrong one."""
    try:
        return [document_of(each) for each in _decoders[kind].decode(body)]
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        message = f"The body is not a list of {kind} documents: {error}"
        raise BadInput(message, errors=_positions(str(error))) from error


def document_of(given: Any) -> Document:
    """Return the document of one of the Structs."""
    names = given.__struct_encode_fields__
    document: Document = {}
    for name, value in zip(names, msgspec.structs.astuple(given), strict=True):
        if type(value) is msgspec.Raw:
            document[name] = decoded = decode_json(bytes(value))
            if name == "results":
                finish_results(decoded)
            else:
                document[name] = storable(decoded)
        elif value is not UNSET:
            document[name] = value
    return document


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _positions(message: str) -> Sequence[dict[str, Any]]:
    """Return the position that msgspec's message ends with, as in ` - at `$[3].taken_at``."""
    path = message.rpartition("`$[")[2].rstrip("`") if "`$[" in message else ""
    index, _, field = path.partition("]")
    if not index.isdecimal():
        return []
    return [{"index": int(index), "field": field.lstrip(".") or None, "message": message.partition(" - at ")[0]}]
