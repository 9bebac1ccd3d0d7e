"""Audit events: who did what, to whose data, when, from where, with which outcome.

Events are only ever added. They never contain a measured value or a password.
"""

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct
from peewee import JOIN, fn
from psycopg2.extras import execute_values

from myhealth.audit import ACTIONS
from myhealth.audit.models import AuditEvent, Refusal
from myhealth.common.database import database, fetch_one, transaction
from myhealth.common.errors import BadInput
from myhealth.common.refusals import refusal_key
from myhealth.common.request_context import request_id


class Actor(Struct, frozen=True):
    """Who acts: one of our users by id and name, or an operator at a terminal by the name of the system account."""

    id: int | None
    name: str | None
    address: str | None


class Event(Struct, frozen=True):
    """One event. `actor` did it, to the data or account of `subject`. `outcome`: done or refused. `source`: the API
    that recorded it; `id` is unique among the events of one source."""

    id: int | str
    at: datetime
    actor_id: int | None
    actor: str | None
    action: str
    subject_id: int | None
    subject: str | None
    address: str | None
    outcome: str
    details: dict[str, Any]
    source: str = "upload"


# Raw SQL: an event is recorded within most requests, and the insert of a single check-up contains this statement.
COLUMNS = "actor_id, actor, action, subject_id, subject, address, outcome, details"
INSERT_EVENT = f"""
insert into audit_events ({COLUMNS})
select %s::bigint, %s::text, %s::text, %s::bigint, %s::text, %s::text, %s::text, %s::jsonb"""
INSERT_EVENTS = f"insert into audit_events ({COLUMNS}) values %s"
# The first of equal refusals of a minute is an event, and further ones are counted. Two at once may both be events.
INSERT_REFUSAL = f"""
with seen as (update refusals set count = count + 1 where key = %s returning key),
made as ({INSERT_EVENT} where not exists (select from seen) returning id)
insert into refusals (key, event_id) select %s, id from made on conflict (key) do nothing"""
# The last time that another person set the user's password, since the user's last login.
SINCE_LAST_LOGIN = """
with last as (select id, at from audit_events where actor_id = %(id)s and action = 'login' and outcome = 'done'
    order by id desc limit 1)
select (select at from last), (select max(at) from audit_events where subject_id = %(id)s and action = 'user.change'
    and details->>'changed' = 'password' and actor_id is distinct from subject_id
    and id > coalesce((select id from last), 0))"""
NOBODY = Actor(None, None, None)
LAST_UPLOADS = 10
_acting: ContextVar[Actor] = ContextVar("acting", default=NOBODY)
current_actor = _acting.get  # of the innermost `acting_as` block


@contextlib.contextmanager
def acting_as(actor: Actor) -> Iterator[None]:
    """Record the events of the block as this actor's."""
    token = _acting.set(actor)
    try:
        yield
    finally:
        _acting.reset(token)


def record_event(
    action: str,
    *,
    subject_id: int | None = None,
    subject: str | None = None,
    outcome: str = "done",
    actor: Actor | None = None,
    **details: Any,
) -> None:
    """Insert an event, in the caller's transaction if there is one, so that it is committed with what it reports."""
    values = event_values(action, details, actor or current_actor(), subject_id, subject, outcome)
    if database.in_transaction():
        database.execute_sql(INSERT_EVENT, values)
        return
    with transaction() as cursor:
        cursor.execute(INSERT_EVENT, values)


def record_refusal(
    action: str,
    detail: str = "",
    *,
    kind: str = "",
    subject_id: int | None = None,
    subject: str | None = None,
    actor: Actor | None = None,
    **details: Any,
) -> None:
    """Record a refusal. Equal ones of one minute are one event, whose details have their `count`.

    Equal: the same caller, network, action, `kind` and `detail`, a text of the caller's such as the path (see
    `refusal_key`). It costs the same whatever is refused, so that its time reveals nothing.
    """
    who = actor or current_actor()
    key = refusal_key(who.id, f"{action} {kind}", detail, who.address)
    values = event_values(action, details, who, subject_id, subject, "refused")
    with transaction() as cursor:
        cursor.execute(INSERT_REFUSAL, (key, *values, key))


def record_events(action: str, subjects: Sequence[tuple[int, str]], *, outcome: str = "done", **details: Any) -> None:
    """Insert an event for each of these users (id, name), in one statement, in the caller's transaction."""
    insert_events([event_values(action, details, current_actor(), *subject, outcome) for subject in subjects])


def insert_events(values: Sequence[tuple[Any, ...]]) -> None:
    """Insert events with these `event_values`, in one statement, in the caller's transaction."""
    if values:
        execute_values(database.cursor(), INSERT_EVENTS, values)


def find_last_login(user_id: int) -> dict[str, datetime]:
    """Return `previous_login_at`, when the user logged in last, and `password_reset_at`, when another person has set
    the password since; each is left out if there is none."""
    found = fetch_one(SINCE_LAST_LOGIN, {"id": user_id}).fetchone()
    named = zip(("previous_login_at", "password_reset_at"), found, strict=True)
    return {name: at for name, at in named if at is not None}


def find_last_uploads(user_id: int) -> list[dict[str, Any]]:
    """Return the last uploads of a user, the newest first: `at`, and the event's details, which name no patient."""
    mine = (AuditEvent.actor_id == user_id, AuditEvent.action == "upload", AuditEvent.outcome == "done")
    with transaction():
        found = list(AuditEvent.select().where(*mine).order_by(AuditEvent.id.desc()).limit(LAST_UPLOADS))
    return [{"at": each.at, **each.details} for each in found]


def event_values(
    action: str,
    details: dict[str, Any],
    who: Actor,
    subject_id: int | None = None,
    subject: str | None = None,
    outcome: str = "done",
) -> tuple[Any, ...]:
    """Return the values of INSERT_EVENT, for statements that contain it."""
    if request := request_id():
        details = {**details, "request_id": request}
    fitting = {name: _fit(value) if isinstance(value, str) else value for name, value in details.items()}
    text = msgspec.json.encode(fitting).decode()
    return who.id, _fit(who.name), action, subject_id, _fit(subject), who.address, outcome, text


def find_events(
    *,
    actor: str | None = None,
    subject: str | None = None,
    action: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    after: int = 0,
    limit: int | None = None,
    newest: bool = False,
) -> Iterator[Event]:
    """Return events, oldest first, with ids above `after`; names are compared without regard to case.

    `newest`: the newest `limit` events, newest first. Raises BadInput.
    """
    if action is not None and action not in ACTIONS:
        raise BadInput(f"{action!r} is not an action; the actions are {', '.join(ACTIONS)}")
    query = AuditEvent.select(AuditEvent, Refusal.count).where(AuditEvent.id > after)
    query = query.join(Refusal, JOIN.LEFT_OUTER, on=Refusal.event_id == AuditEvent.id)
    for condition, value in (
        (fn.lower(AuditEvent.actor) == fn.lower(actor), actor),
        (fn.lower(AuditEvent.subject) == fn.lower(subject), subject),
        (AuditEvent.action == action, action),
        (AuditEvent.at >= since, since),
        (AuditEvent.at < until, until),
    ):
        if value is not None:
            query = query.where(condition)
    order = AuditEvent.id.desc() if newest else AuditEvent.id.asc()
    with transaction():
        rows: list[Any] = list(query.order_by(order).limit(limit).dicts())
    for row in rows:
        count = row.pop("count") or 1
        row["details"] |= {"count": count} if count > 1 else {}
        yield Event(**row)


def _fit(text: str | None) -> str | None:
    """Return a text that PostgreSQL can store; login forms, addresses and file names contain anything."""
    if text is None:
        return None
    return text[:200].encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
