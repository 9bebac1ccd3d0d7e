"""Documents as JSON between a sync on another host and the browse API; every digit and moment survives. Pure.

Decoding checks every field but for `results`, which may have any form.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from myhealth.common.errors import BadInput
from myhealth.reports.documents import Document, read_results

Id = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
# Schemas of datetimes without a `tz` constraint have no format.
StoredMoment = Annotated[datetime, Meta(extra_json_schema={"format": "date-time"})]
RESULTS_NOTE = (
    "A list of results, each with `code` (LOINC), `name`, `value` (a number or text), `unit`, `low`, `high` and `flag`,"
    " as the upload API's Result has them; a program that writes to the source itself may have stored others."
)
MOMENTS = ("taken_at", "created_at", "updated_at", "tokens_valid_after")

_encode = msgspec.json.Encoder(decimal_format="number").encode


class ReportDocument(msgspec.Struct, forbid_unknown_fields=True):
    """The fields in the order of `report_document`."""

    id: Id = msgspec.field(name="_id")
    patient_id: Id
    subject: str
    checkup_type: str
    checkup_report: str
    disease: str
    machine: str | None
    taken_by: str | None
    taken_at: StoredMoment
    created_at: StoredMoment
    updated_at: StoredMoment
    results: Annotated[msgspec.Raw, Meta(description=RESULTS_NOTE)]
    abnormal: bool
    revision: Count
    epoch: Count


class UserDocument(msgspec.Struct, forbid_unknown_fields=True):
    """A user's document."""

    id: Id = msgspec.field(name="_id")
    subject: str
    username: str
    username_key: str
    full_name: str
    name_keys: dict[str, str]
    role: str
    active: bool
    tokens_valid_after: StoredMoment | None
    revision: Count
    epoch: Count


KINDS: dict[str, type[Any]] = {"checkup": ReportDocument, "user": UserDocument}
_decoders = {kind: msgspec.json.Decoder(list[form]) for kind, form in KINDS.items()}  # type: ignore[valid-type]


def encode_document(document: Document) -> bytes:
    """Return the document as JSON. Raises a ValueError or an OverflowError if JSON cannot hold it."""
    moments = {name: _aware(document[name]) for name in MOMENTS if document.get(name) is not None}
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
    document: Document = dict(zip(names, msgspec.structs.astuple(given), strict=True))
    if "results" in document:
        document["results"] = read_results(bytes(document["results"]))[0]
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
