"""The access log: who read whose record. Events are only added, until they expire; an erased person's get a pseudonym.

Events are stored in `audit_events` beside the reports. They contain actor, action, patient, moment and address, never a
measured value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec
from bson import ObjectId
from msgspec import Struct
from pymongo import IndexModel
from pymongo.collection import Collection

from myhealth.common.decoding import Id, StoredMoment
from myhealth.common.errors import BadInput
from myhealth.common.refusals import refusal_key
from myhealth.common.request_context import request_id
from myhealth.reports.connection import translate_mongo_errors
from myhealth.reports.documents import Document

ACCESS_LOG_INDEXES = (
    IndexModel([("patient_id", 1), ("at", -1), ("_id", -1)]),
    IndexModel([("at", 1), ("_id", 1)]),
    IndexModel([("actor_subject", 1), ("what", 1), ("at", -1)]),
    IndexModel([("refusal", 1)], unique=True, sparse=True),
)
PSEUDONYM = "erased user "  # no username contains a blank
OPENED, OPENED_READ = ["reports", "report", "trends"], 200  # accesses that open a record; how many events are searched
PURGE_EVENTS, KEPT_DAYS_MIN = 5000, 31
EVENT_ID_PATTERN = re.compile(r"[0-9a-f]{24}", re.ASCII)


class Access(Struct, frozen=True):
    """One access to be logged: `actor` (a user document) reads `what` of `patient`; None: of no particular patient.

    `what`: "reports", "report", "trends", "export", "profile", "access log" or the like. `report_id`: of a single
    report. `address`: of the client. `outcome`: done or refused.
    """

    actor: Document
    patient: Document | None
    what: str
    report_id: int | None = None
    address: str | None = None
    action: str = "read"
    outcome: str = "done"

    @classmethod
    def by_operator(cls, operator: str, patient: Document, what: str, *, report_id: int | None = None) -> Access:
        """Return an access at the command line. `operator`: the operating system's name for the person."""
        return cls({"_id": None, "subject": None, "username": operator, "role": ""}, patient, what, report_id)

    @property
    def is_own(self) -> bool:
        """Whether the actor reads the actor's own record, which is not logged."""
        return self.patient is not None and self.patient["subject"] == self.actor["subject"]

    def document(self, at: datetime) -> Document:
        patient = self.patient or {"_id": None, "subject": None, "username": None}
        return {
            "at": at,
            "actor_id": self.actor["_id"],
            "actor_subject": self.actor["subject"],
            "actor": self.actor["username"],
            "actor_role": self.actor["role"],
            "action": self.action,
            "what": self.what,
            "patient_id": patient["_id"],
            "subject": patient["subject"],
            "username": patient["username"],
            "report_id": self.report_id,
            "address": self.address,
            "outcome": self.outcome,
            **({"request_id": request} if (request := request_id()) else {}),
        }


class AccessEvent(Struct, frozen=True):
    """One stored event. `actor`, `actor_role`: as they were at that time; `actor_subject`: None at the command line.
    `username`: the patient's, None for no particular patient. `count`: of the equal refusals that share it."""

    id: str
    at: StoredMoment
    actor_id: int | None
    actor_subject: str | None
    actor: str
    actor_role: str
    action: str
    what: str
    patient_id: int | None
    username: str | None
    report_id: int | None
    address: str | None
    outcome: str
    count: int = 1
    request_id: str = ""


class AccessCursor(NamedTuple):
    """The position behind an event."""

    at: StoredMoment
    event_id: str


class AccessLog:
    """Adds to and reads the collection of access events. All methods raise Unavailable."""

    def __init__(self, collection: Collection[Document]) -> None:
        self.collection = collection

    def log(self, *accesses: Access, now: datetime | None = None) -> None:
        """Store accesses in one write; skip those to the actor's own record.

        Call it before anything is shown. The events are in the journals of a majority when this returns.
        """
        at = now or datetime.now(UTC)
        if events := [access.document(at) for access in accesses if not access.is_own]:
            with translate_mongo_errors():
                self.collection.insert_many(events)

    def pseudonymise(self, erased: Sequence[Document]) -> None:
        """Replace the names of erased users (`_id` and `subject`) by pseudonyms, and remove their addresses."""
        ids, subjects = [user["_id"] for user in erased], [user["subject"] for user in erased if user.get("subject")]
        if not erased:
            return
        named = {"username": {"$concat": [PSEUDONYM, {"$toString": "$patient_id"}]}}
        acting = {"actor": {"$concat": [PSEUDONYM, {"$toString": "$actor_id"}]}, "address": None}
        with translate_mongo_errors():
            of_patient = {"patient_id": {"$in": ids}, "subject": {"$in": subjects}}
            self.collection.update_many(of_patient, [{"$set": named}])
            self.collection.update_many({"actor_subject": {"$in": subjects}}, [{"$set": acting}])

    def purge(self, kept_days: int) -> None:
        """Remove at most PURGE_EVENTS events that are older than this; 0 keeps them for ever."""
        if not kept_days:
            return
        oldest = datetime.now(UTC) - timedelta(days=max(kept_days, KEPT_DAYS_MIN))
        with translate_mongo_errors():
            found = self.collection.find({"at": {"$lt": oldest}}, {"_id": 1}).sort("at", 1).limit(PURGE_EVENTS)
            if expired := [event["_id"] for event in found]:
                self.collection.delete_many({"_id": {"$in": expired}})

    def log_refusal(self, access: Access, asked: str = "") -> None:
        """Store a refused access. Equal ones of one minute are one event with their `count`.

        Equal: the same caller, network, `what` and `asked`, the name or number that the caller asked for.
        """
        who = access.actor["subject"] or access.actor["username"]
        key = refusal_key(who, access.what, asked, access.address).hex()
        event = access.document(datetime.now(UTC))
        with translate_mongo_errors():
            self.collection.update_one({"refusal": key}, {"$setOnInsert": event, "$inc": {"count": 1}}, upsert=True)

    def find_for_patient(
        self, patient: Document, *, limit: int = 50, after: AccessCursor | None = None
    ) -> list[AccessEvent]:
        """Return the accesses to a patient's record, the newest first, behind `after`. Refused ones are left out."""
        query: Document = {"patient_id": patient["_id"], "subject": patient["subject"], "outcome": {"$eq": "done"}}
        if after is not None:
            query["at"] = {"$lte": after.at}
            query["$or"] = [{"at": {"$lt": after.at}}, {"_id": {"$lt": _object_id(after.event_id)}}]
        with translate_mongo_errors():
            found = self.collection.find(query, sort=[("at", -1), ("_id", -1)], limit=limit)
            return [_event_of(document) for document in found]

    def opened_by(self, actor: Document, most: int) -> list[str]:
        """Return the subjects of the patients whose records the actor opened last, the newest first."""
        query = {"actor_subject": actor["subject"], "what": {"$in": OPENED}, "outcome": "done"}
        with translate_mongo_errors():
            found = self.collection.find(query, {"subject": 1}, sort=[("at", -1)], limit=OPENED_READ)
            return [*dict.fromkeys(event["subject"] for event in found if event["subject"])][:most]

    def find_of_person(self, person: Document) -> Iterator[AccessEvent]:
        """Yield all events of a person, as patient or as actor, refused ones too, in their order."""
        either = [{"subject": person["subject"]}, {"actor_subject": person["subject"]}]
        known: Document = {"source": None, "$or": either}
        with translate_mongo_errors():
            yield from map(_event_of, self.collection.find(known, sort=[("at", 1), ("_id", 1)]))

    def find_events(
        self,
        *,
        actor: str | None = None,
        subject: str | None = None,
        action: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        after: str = "",
        limit: int = 0,
        newest: bool = False,
    ) -> Iterator[AccessEvent]:
        """Yield events of all users in their order, for the audit, which has those of the upload API from PostgreSQL.
        Usernames match in any case.

        `after`: an event's id; only events stored after it. `newest`: the last `limit` events, in reverse order.
        Raises BadInput for a malformed id.
        """
        query: Document = {"source": None}
        for name, value in (("actor", actor), ("username", subject)):
            if value is not None:
                query[name] = {"$regex": rf"^{re.escape(value)}\z", "$options": "i"}
        if action is not None:
            query["action"] = {"$eq": action}
        span = {bound: moment for bound, moment in (("$gte", since), ("$lt", until)) if moment is not None}
        if span:
            query["at"] = span
        if after:
            query["_id"] = {"$gt": _object_id(after)}
        direction = -1 if newest else 1
        with translate_mongo_errors():
            found = self.collection.find(query, sort=[("at", direction), ("_id", direction)], limit=limit)
            yield from map(_event_of, found)


def _event_of(document: Document) -> AccessEvent:
    fields: dict[str, Any] = {name: document[name] for name in AccessEvent.__struct_fields__ if name in document}
    return AccessEvent(id=str(document["_id"]), **fields)


def _object_id(text: str) -> ObjectId:
    if not EVENT_ID_PATTERN.fullmatch(text):
        raise BadInput("after must be the id of an event.")
    return ObjectId(text)


# The `source` of these events; the browse API's own have none.
UPLOAD = "upload"


class UploadEvent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An event of the upload API, in PostgreSQL's audit, that concerns a patient: an access or a change by staff, or a
    password or an invitation. The sync carries it over. `id`: PostgreSQL's; the other fields are AccessEvent's."""

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
