"""The calls of the sync over HTTP, `POST /sync/call/METHOD` at the browse API, in one table for both sides.

A request's body is the JSON list of the arguments, the response is `{"result": …}`. The methods are those of
`ReportWriter`, which describes them. Reports go to `POST /reports/`.
"""

from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from myhealth.common.decoding import prepare
from myhealth.common.stored_types import Count, Id
from myhealth.reports.bson_compare import Fingerprint
from myhealth.reports.upload_events import UploadEvent
from myhealth.reports.writer import WriteResult
from myhealth.sync.checkpoint import Checkpoint
from myhealth.sync.json_codec import UserDocument

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
