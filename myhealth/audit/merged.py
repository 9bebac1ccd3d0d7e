"""The whole audit trail: the upload API's events from PostgreSQL merged with the browse API's from MongoDB."""

import heapq
import itertools
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from myhealth.audit import SOURCES
from myhealth.audit.events import Event, find_events
from myhealth.common.errors import BadInput
from myhealth.reports.access_log import AccessEvent
from myhealth.reports.repository import ReportRepository


def find_all_events(
    store: ReportRepository,
    *,
    sources: tuple[str, ...] = SOURCES,
    after: str = "",
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int | None = None,
    newest: bool = False,
    **filters: Any,
) -> Iterator[Event]:
    """Return the events of both APIs, oldest first.

    `filters`: actor, subject and action, as for `find_events`. `after`: an event's id; only later events of the same
    API are returned, because each API has its own ids. `newest`: the newest `limit` events, newest first.
    Raises BadInput, Unavailable.
    """
    if after:
        sources = ("upload",) if after.isascii() and after.isdecimal() and len(after) < 19 else ("browse",)
    span: dict[str, Any] = {"since": since, "until": until, "newest": newest}
    found: list[Iterator[Event]] = []
    if "upload" in sources:
        found.append(find_events(**filters, **span, after=int(after or 0), limit=limit))
    if "browse" in sources:
        accesses = store.access_log.find_events(**filters, **span, after=after, limit=limit or 0)
        found.append(map(_event, accesses))
    if not found:
        raise BadInput(f"the sources are {', '.join(SOURCES)}")
    return itertools.islice(heapq.merge(*found, key=lambda event: event.at, reverse=newest), limit)


def _event(access: AccessEvent) -> Event:
    named = (("what", access.what), ("report", access.report_id), ("count", access.count if access.count > 1 else None),
             ("request_id", access.request_id or None))  # fmt: skip
    details = {name: value for name, value in named if value is not None}
    who, whose = (access.actor_id, access.actor), (access.patient_id, access.username)
    return Event(access.id, access.at, *who, access.action, *whose, access.address, access.outcome, details, "browse")
