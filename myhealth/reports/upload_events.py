"""Events of the upload API in the access log, which the sync carries over, each once."""

from collections.abc import Sequence
from datetime import datetime

import msgspec
from bson import ObjectId
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError

from myhealth.common.decoding import Id
from myhealth.reports.access_log import AccessLog
from myhealth.reports.connection import DUPLICATE_KEY, translate_mongo_errors
from myhealth.reports.documents import Document

# The `source` of these events; the browse API's own have none.
UPLOAD = "upload"
# The document in `sync_state` with the position in PostgreSQL's audit.
EVENT_POSITION = {"_id": "events"}


class UploadEvent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An event of the upload API, in PostgreSQL's audit, that concerns a patient: an access by staff, or a password
    that staff has set. The sync carries it over. `id`: PostgreSQL's; the other fields are AccessEvent's."""

    id: Id
    at: datetime
    actor_id: Id | None
    actor_subject: str | None
    actor: str
    actor_role: str
    action: str
    what: str
    patient_id: Id
    subject: str
    username: str
    report_id: Id | None
    address: str | None

    def document(self) -> Document:
        """Return the event to store. Its `_id` is the same each time, and in order of time like those of others."""
        fields = {name: getattr(self, name) for name in self.__struct_fields__ if name != "id"}
        object_id = ObjectId(f"{int(self.at.timestamp()) % 2**32:08x}{self.id % 2**64:016x}")
        return {"_id": object_id, **fields, "outcome": "done", "source": UPLOAD}


class UploadEvents:
    """The part of ReportWriter that stores the upload API's events."""

    _access_log: AccessLog
    _state: Collection[Document]

    def event_position(self, epoch: int) -> int:
        """Return the id up to which the upload API's events are stored, 0 in a new epoch: ids may begin anew."""
        with translate_mongo_errors():
            found = self._state.find_one(EVENT_POSITION)
        return int(found["after"]) if found and found["epoch"] == epoch else 0

    def put_events(self, events: Sequence[UploadEvent], epoch: int, after: int) -> None:
        """Store events of the upload API, then the id up to which they are stored."""
        with translate_mongo_errors():
            try:
                if events:
                    self._access_log.collection.insert_many([event.document() for event in events], ordered=False)
            except BulkWriteError as error:
                others = any(each["code"] != DUPLICATE_KEY for each in error.details["writeErrors"])
                if others or error.details["writeConcernErrors"]:
                    raise
            position = {**EVENT_POSITION, "epoch": epoch, "after": after}
            self._state.replace_one(EVENT_POSITION, position, upsert=True)
