"""The calls of the sync over HTTP, and documents as JSON between both sides; every digit and moment survives.

`CALLS` is one table for both: `POST /sync/call/METHOD` at the browse API has the JSON list of the arguments as its
body, and answers `{"result": …}`. The methods are those of `ReportWriter`, which describes them. Reports go to
`POST /reports/`. Decoding checks every field but for those of JSON, which may have any form.
"""

from collections.abc import Sequence
from datetime import UTC
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import UNSET, Meta, UnsetType

from myhealth.common.decoding import Count, Id, StoredMoment, prepare
from myhealth.common.errors import BadInput
from myhealth.reports.access_log import UploadEvent
from myhealth.reports.bson_documents import Fingerprint
from myhealth.reports.documents import Document, bson_safe, decode_json, finish_results
from myhealth.reports.writer import WriteResult
from myhealth.sync.checkpoint import Checkpoint
from myhealth.sync.rows import FURTHER_FIELDS, MOMENTS, REPORT_FIELDS

_encode = msgspec.json.Encoder(decimal_format="number").encode


ReportDocument = msgspec.defstruct(
    "ReportDocument",
    [
        *REPORT_FIELDS,
        ("abnormal", bool),
        ("far", bool | UnsetType, UNSET),
        *FURTHER_FIELDS,
        ("revision", Count),
        ("epoch", Count),
    ],
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
    found = {name: moment for name in (*MOMENTS, "tokens_valid_after") if (moment := document.get(name)) is not None}
    moments = {name: each if each.tzinfo else each.replace(tzinfo=UTC) for name, each in found.items()}
    return _encode({**document, **moments})


def decode_documents(kind: str, body: bytes) -> list[Document]:
    """Return the documents of a JSON list. Raises BadInput naming the first wrong one."""
    try:
        return [document_of(each) for each in _decoders[kind].decode(body)]
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        message = f"The body is not a list of {kind} documents: {error}"
        raise BadInput(message, errors=_positions(str(error))) from error


def document_of(given: Any) -> Document:
    names = given.__struct_encode_fields__
    document: Document = {}
    for name, value in zip(names, msgspec.structs.astuple(given), strict=True):
        if type(value) is msgspec.Raw:
            document[name] = decoded = decode_json(bytes(value))
            if name == "results":
                finish_results(decoded)
            else:
                document[name] = bson_safe(decoded)
        elif value is not UNSET:
            document[name] = value
    return document


def _positions(message: str) -> Sequence[dict[str, Any]]:
    """Return the position that msgspec's message ends with, as in ` - at `$[3].taken_at``."""
    path = message.rpartition("`$[")[2].rstrip("`") if "`$[" in message else ""
    index, _, field = path.partition("]")
    if not index.isdecimal():
        return []
    return [{"index": int(index), "field": field.lstrip(".") or None, "message": message.partition(" - at ")[0]}]


Kind = Annotated[str, Meta(pattern="^(checkup|user)$")]
Ids = Annotated[list[Id], Meta(max_length=1000)]
Slice = tuple[int, int | None]


class Quarantined(msgspec.Struct, forbid_unknown_fields=True):
    """The version of a document that could not be stored."""

    id: Id = msgspec.field(name="_id")
    epoch: Count
    revision: Count


class Call(NamedTuple):
    """The types of the arguments, a tuple, and of the result. `writes`: it changes the store."""

    arguments: Any
    result: Any
    writes: bool = False


CALLS = {
    "insert_users": Call(tuple[list[UserDocument]], WriteResult, True),
    "put_users": Call(tuple[list[UserDocument]], WriteResult, True),
    "quarantine": Call(tuple[Kind, list[tuple[Quarantined, str]]], WriteResult, True),
    "remove": Call(tuple[Kind, list[tuple[Id, Count]], Count], int, True),
    "erase_person": Call(tuple[Id, str], None, True),
    "sweep": Call(tuple[Count, Id], Slice, True),
    "newest_epoch_of_slice": Call(tuple[Id], Slice),
    "list_subjects": Call(tuple[Kind, int], list[tuple[int, str]]),
    "has_documents_after": Call(tuple[Kind, Id], bool),
    "prepare": Call(tuple[()], str, True),
    "identity": Call(tuple[()], str),
    "read_checkpoint": Call(tuple[()], dict[str, Any] | None),
    "begin": Call(tuple[Checkpoint], None, True),
    "event_position": Call(tuple[Count], int),
    "put_events": Call(tuple[list[UploadEvent], Count, Id], None, True),
    "write_checkpoint": Call(tuple[Checkpoint, str], None, True),
    "quarantined_ids": Call(tuple[Kind], list[int]),
    "quarantined_among": Call(tuple[Kind, Ids], set[int]),
    "count_quarantined": Call(tuple[()], int),
    "list_quarantined": Call(tuple[Annotated[int, Meta(ge=1, le=1000)]], list[dict[str, Any]]),
    "count": Call(tuple[()], tuple[int, int]),
    "fingerprints": Call(tuple[Kind, Ids], list[Fingerprint]),
}
prepare(*(form for call in CALLS.values() for form in (call.arguments, call.result)))
