"""Events are only ever added. They say who, what, whose, when, from where, and the outcome; never a value measured,
never a password."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg2.extras import execute_values

from myhealth.common.database import database, transaction
from myhealth.common.errors import BadInput

ACTIONS = (
    "login",
    "logout",
    "register",
    "refused",
    "upload",
    "import",
    "read",
    "user.create",
    "user.change",
    "user.delete",
    "checkup.change",
    "checkup.delete",
    "rejection.retry",
    "rejection.discard",
)


@dataclass(frozen=True)
class Actor:
    """Who acts: a user of ours by id and name, or somebody at a terminal by the name that the machine knows."""

    id: int | None
    name: str | None
    address: str | None


@dataclass(frozen=True)
class Event:
    """One thing that happened. `actor` and `subject`: who did it, and whose it was; `outcome`: done or refused;
    `source`: which API noted it, which is also whose `id` it is."""

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


INSERT_EVENT = """
insert into audit_events (actor_id, actor, action, subject_id, subject, address, outcome, details)
select %s::bigint, %s::text, %s::text, %s::bigint, %s::text, %s::text, %s::text, %s::jsonb"""
INSERT_EVENTS = """
insert into audit_events (actor_id, actor, action, subject_id, subject, address, outcome, details) values %s"""
NOBODY = Actor(None, None, None)
_acting: ContextVar[Actor] = ContextVar("acting", default=NOBODY)


@contextlib.contextmanager
def acting_as(actor: Actor) -> Iterator[None]:
    """Whatever is noted within the block is this actor's doing."""
    token = _acting.set(actor)
    try:
        yield
    finally:
        _acting.reset(token)


def current_actor() -> Actor:
    return _acting.get()


def record_event(
    action: str,
    *,
    subject_id: int | None = None,
    subject: str | None = None,
    outcome: str = "done",
    actor: Actor | None = None,
    **details: Any,
) -> None:
    """Adds an event, within the caller's transaction where there is one: it is kept if what it tells of is kept."""
    values = event_values(action, details, actor or current_actor(), subject_id, subject, outcome)
    if database.in_transaction():
        database.execute_sql(INSERT_EVENT, values)
        return
    with transaction() as cursor:
        cursor.execute(INSERT_EVENT, values)


def record_events(action: str, subjects: Sequence[tuple[int, str]], **details: Any) -> None:
    """As `note`, an event for each of these users (id, name), in one statement within the caller's transaction."""
    values = [event_values(action, details, current_actor(), *subject) for subject in subjects]
    if values:
        execute_values(database.cursor(), INSERT_EVENTS, values)


def event_values(
    action: str,
    details: dict[str, Any],
    who: Actor,
    subject_id: int | None = None,
    subject: str | None = None,
    outcome: str = "done",
) -> tuple[Any, ...]:
    """The values of NOTE, for a statement that does more than note."""
    told = json.dumps({name: _fit(value) if isinstance(value, str) else value for name, value in details.items()})
    return who.id, _fit(who.name), action, subject_id, _fit(subject), who.address, outcome, told


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
    """Events in the order they happened, those beyond the id `after`; names are compared without regard to case.
    `newest`: the last `limit` of them, and from the last one on."""
    if action is not None and action not in ACTIONS:
        raise BadInput(f"{action!r} is not an action; the actions are {', '.join(ACTIONS)}")
    conditions, values = ["id > %s"], [after]
    for condition, value in (
        ("lower(actor) = lower(%s)", actor),
        ("lower(subject) = lower(%s)", subject),
        ("action = %s", action),
        ("at >= %s", since),
        ("at < %s", until),
    ):
        if value is not None:
            conditions.append(condition)
            values.append(value)  # type: ignore[arg-type]
    sql = (
        "select id, at, actor_id, actor, action, subject_id, subject, address, outcome, details from audit_events"
        f" where {' and '.join(conditions)} order by id {'desc' if newest else ''} limit %s"
    )
    with transaction() as cursor:
        cursor.execute(sql, (*values, limit))
        rows = cursor.fetchall()
    for row in rows:
        yield Event(*row)


def _fit(text: str | None) -> str | None:
    """A text as it can be stored, whatever somebody wrote into a login form, an address or a file's name."""
    if text is None:
        return None
    return text[:200].encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
