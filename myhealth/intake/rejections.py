"""Refused records: kept whole until somebody has dealt with them."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg2.extras import execute_values

from myhealth.audit.events import record_event
from myhealth.common.database import transaction
from myhealth.common.errors import Conflict, NotFound
from myhealth.common.text import printable
from myhealth.intake.models import Rejection
from myhealth.intake.parsed_record import is_utf8


@dataclass(slots=True)
class RejectedRecord:
    """A record to be kept: its text as sent, why it was refused, and what else it takes to try it again."""

    raw: str
    errors: list[dict[str, Any]]
    context: dict[str, Any]


def store_rejections(cursor: Any, source: str, refused: Sequence[RejectedRecord]) -> list[int]:
    """Stores them within the caller's transaction and gives the id of each, in order.

    A record that the same source had refused before, and that nobody has dealt with, is counted, not doubled.
    """
    rows: dict[bytes, tuple[Any, ...]] = {}
    digests = []
    for item in refused:
        payload, context = item.raw, item.context
        if not is_utf8(payload) or "\0" in payload:
            payload = base64.b64encode(payload.encode("utf-8", "surrogateescape")).decode()
            context = {**context, "base64": True}
        same = (source, context.get("machine"), context.get("occurrence"), payload)
        digest = hashlib.sha256(json.dumps(same).encode()).digest()
        digests.append(digest)
        rows[digest] = (_storable(source), payload, json.dumps(context), json.dumps(item.errors), digest)
    ids: dict[bytes, int] = {}
    ordered = list(rows)  # as they came: ids follow the source, and the same source twice locks rows in one order
    for start in range(0, len(ordered), 500):
        stored = execute_values(
            cursor,
            "insert into rejections (source, payload, context, errors, digest) values %s"
            " on conflict (digest) where resolved_at is null do update set times = rejections.times + 1,"
            " received_at = now(), errors = excluded.errors returning digest, id",
            [rows[digest] for digest in ordered[start : start + 500]],
            page_size=500,
            fetch=True,
        )
        ids.update((bytes(digest), id_) for digest, id_ in stored)
    return [ids[digest] for digest in digests]


def list_rejections(*, after: int = 0, limit: int | None = None, resolved: bool = False) -> list[Rejection]:
    """Refused records in the order they came, without their payloads; those beyond the id `after`, and unless
    `resolved` the open ones only."""
    columns = [field for field in Rejection._meta.sorted_fields if field.name not in ("payload", "digest")]
    query = Rejection.select(*columns).where(Rejection.id > after).order_by(Rejection.id).limit(limit)
    if not resolved:
        query = query.where(Rejection.resolved_at.is_null())
    with transaction():
        return list(query)


def open_ids() -> list[int]:
    """The ids of all refused records that nobody has dealt with, in the order they came."""
    with transaction() as cursor:
        cursor.execute("select id from rejections where resolved_at is null order by id")
        return [id_ for (id_,) in cursor.fetchall()]


def get_rejection(rejection_id: int) -> Rejection:
    """Raises NotFound."""
    with transaction():
        found = Rejection.get_or_none(Rejection.id == rejection_id)
    if found is None:
        raise NotFound(f"there is no rejection {rejection_id}")
    return found


def resolve(rejection_id: int, resolution: str, checkup_id: int | None = None) -> None:
    """Marks a refused record as dealt with. Raises NotFound, or Conflict where that was done already."""
    resolution = printable(resolution)
    with transaction() as cursor:
        cursor.execute(
            "update rejections set resolved_at = now(), resolution = %s, checkup_id = %s"
            " where id = %s and resolved_at is null",
            (resolution, checkup_id, rejection_id),
        )
        changed = cursor.rowcount
    if not changed:
        found = get_rejection(rejection_id)
        raise Conflict(f"rejection {rejection_id} has been dealt with already: {found.resolution}")


def discard(rejection_id: int, reason: str = "") -> None:
    """Puts a refused record aside for good. Raises NotFound, or Conflict where it has been dealt with."""
    with transaction():
        resolve(rejection_id, f"discarded: {reason}" if reason else "discarded")
        record_event("rejection.discard", subject=patient_named(get_rejection(rejection_id)), rejection=rejection_id)


def open_rejection(rejection_id: int) -> Rejection:
    """A refused record to be shown to somebody, which is noted. Raises NotFound."""
    found = get_rejection(rejection_id)
    record_event("read", subject=patient_named(found), what="rejection", rejection=rejection_id)
    return found


def patient_named(rejection: Rejection) -> str | None:
    """Whom the record names as its patient, as far as it could be read."""
    return next(iter(rejection.context.get("patients") or []), None)


def payload_text(rejection: Rejection) -> str:
    """The record as it was sent; bytes that are not UTF-8 as lone surrogates ("surrogateescape")."""
    if rejection.context.get("base64"):
        return base64.b64decode(rejection.payload).decode("utf-8", "surrogateescape")
    return str(rejection.payload)


def _storable(text: str) -> str:
    """A file's name as text that PostgreSQL holds, whatever bytes it is made of."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "")
