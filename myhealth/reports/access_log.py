"""Who looked into whose record. Events are only ever added: nothing here changes or removes one.

They live in `audit_events` beside the reports, and say who, what, whose, when and from where; never a value measured.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bson import ObjectId

from myhealth.common.errors import BadInput
from myhealth.reports.documents import Document
from myhealth.reports.repository import ReportRepository, translate_mongo_errors


@dataclass(frozen=True, slots=True)
class AccessEvent:
    """One event. `actor`: the username and role that whoever did it had then; `actor_subject`: who that is, None at a
    terminal. `username`: whose record it was, None where nobody's. `report_id`: of a single report.
    `outcome`: done or refused."""

    id: str
    at: datetime
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


def log_access(
    store: ReportRepository,
    actor: Document,
    patient: Document | None,
    what: str,
    *,
    report_id: int | None = None,
    address: str | None = None,
    action: str = "read",
    outcome: str = "done",
    now: datetime | None = None,
) -> None:
    """Keeps that `actor` looked at what is `patient`'s: call it before anything is shown. A look at what is one's own
    is no look. It is journaled by a majority when this returns; raises Unavailable where that fails.

    `what`: "reports", "report", "trends", "export", "profile", "access log" or the like; `patient` None: nobody's.
    """
    if patient is not None and patient["subject"] == actor["subject"]:
        return
    whose = {"patient_id": None, "subject": None, "username": None}
    if patient is not None:
        whose = {"patient_id": patient["_id"], "subject": patient["subject"], "username": patient["username"]}
    event = {
        "at": now or datetime.now(UTC),
        "actor_id": actor["_id"],
        "actor_subject": actor["subject"],
        "actor": actor["username"],
        "actor_role": actor["role"],
        "action": action,
        "what": what,
        **whose,
        "report_id": report_id,
        "address": address,
        "outcome": outcome,
    }
    with translate_mongo_errors():
        store.audit_events.insert_one(event)


def log_command_access(
    store: ReportRepository, operator: str, patient: Document, what: str, *, report_id: int | None = None
) -> None:
    """Keeps that somebody looked at a terminal: by the name that the machine knows, with no role of ours."""
    nobody = {"_id": None, "subject": None, "username": operator, "role": ""}
    log_access(store, nobody, patient, what, report_id=report_id)


AccessCursor = tuple[datetime, ObjectId]


def list_access_log(
    store: ReportRepository, patient: Document, *, limit: int = 50, after: AccessCursor | None = None
) -> list[AccessEvent]:
    """Who looked into a patient's record, the newest first; those behind `after`.

    What was refused was no look, and is not here. Raises Unavailable.
    """
    query: Document = {"patient_id": patient["_id"], "subject": patient["subject"], "outcome": {"$eq": "done"}}
    if after is not None:
        at, id_ = after
        query["at"] = {"$lte": at}
        query["$or"] = [{"at": {"$lt": at}}, {"_id": {"$lt": id_}}]
    with translate_mongo_errors():
        return [_look(event) for event in store.audit_events.find(query, sort=[("at", -1), ("_id", -1)], limit=limit)]


def cursor_of(look: AccessEvent) -> str:
    """Where an event stands: milliseconds since 1970, _, its id."""
    return f"{round(look.at.timestamp() * 1000)}_{look.id}"


def parse_cursor(text: str) -> AccessCursor | None:
    """What `look_place` gave; None for "". Raises BadInput."""
    if not text:
        return None
    moment, _, id_ = text.partition("_")
    try:
        if not re.fullmatch(r"[0-9]{1,14}", moment, re.ASCII):
            raise ValueError(text)
        return datetime.fromtimestamp(int(moment) / 1000, UTC), _event_id(id_)
    except (ValueError, OverflowError, OSError) as error:
        raise BadInput("after must be the value that a Link header gave.") from error


def find_access_events(
    store: ReportRepository,
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
    """Events of everybody in the order they happened, for the audit; names are compared without regard to case.

    `after`: an event's id; only what was noted after it. `newest`: the last `limit` of them, and from the last one on.
    Raises BadInput for an id that is none, Unavailable.
    """
    query: Document = {}
    for name, value in (("actor", actor), ("username", subject)):
        if value is not None:
            query[name] = {"$regex": rf"^{re.escape(value)}\z", "$options": "i"}
    if action is not None:
        query["action"] = {"$eq": action}
    span = {bound: moment for bound, moment in (("$gte", since), ("$lt", until)) if moment is not None}
    if span:
        query["at"] = span
    if after:
        query["_id"] = {"$gt": _event_id(after)}
    with translate_mongo_errors():
        way = -1 if newest else 1
        for event in store.audit_events.find(query, sort=[("at", way), ("_id", way)], limit=limit):
            yield _look(event)


def _look(event: Document) -> AccessEvent:
    shown: dict[str, Any] = {name: event[name] for name in AccessEvent.__slots__ if name != "id"}
    return AccessEvent(id=str(event["_id"]), **shown)


def _event_id(text: str) -> ObjectId:
    if not re.fullmatch(r"[0-9a-f]{24}", text, re.ASCII):
        raise BadInput("after must be the id of an event.")
    return ObjectId(text)
