"""Rejected records, stored whole until a person resolves them."""

import base64
import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Self

from msgspec import Struct
from peewee import fn
from psycopg2.extras import execute_values

from myhealth.audit.events import record_event
from myhealth.common.database import transaction
from myhealth.common.errors import Conflict, NotFound
from myhealth.common.text import fold_name, printable
from myhealth.intake.models import Rejection
from myhealth.intake.parsed_record import is_utf8

# The context of equal records.
SAME = ("machine", "occurrence", "patients", "zone")
# Rejected records under whose number one was stored later, with its patient's name.
STORED_SINCE = """
select rejections.id, checkups.id, folded_name, context->'patients', exists (
    select from patient_identifiers held where held.patient_id = users.id
        and context->'identifiers' @> jsonb_build_array(jsonb_build_array(held.system, held.value))) from rejections
join machines on serial = context->>'machine'
join checkups on machine_id = machines.id and record_id = context->>'record_id' and checkups.created_at > received_at
join users on users.id = patient_id where resolved_at is null"""
# The most rejected records, and the bytes of their payloads, stored for one user in one request and in 24 hours.
REQUEST_ROWS, DAY_ROWS, DAY_BYTES = 10_000, 50_000, 1024**3
KEPT_TODAY = """
select count(*), coalesce(sum(octet_length(payload)), 0) from rejections
where user_id = %s and received_at > now() - interval '1 day'"""


class Quota(Struct, frozen=True):
    """The rejected records that may still be stored for a user."""

    user_id: int
    rows: int
    size: int

    @classmethod
    def of(cls, cursor: Any, user_id: int, kept_before: int) -> Self:
        """Return the quota of a user. `kept_before`: the number of records stored for the request so far."""
        cursor.execute(KEPT_TODAY, (user_id,))
        rows, size = cursor.fetchone()
        return cls(user_id, min(REQUEST_ROWS - kept_before, DAY_ROWS - rows), DAY_BYTES - size)

    def excess(self, cursor: Any, rows: Mapping[bytes, tuple[Any, ...]]) -> set[bytes]:
        """Return the digests of the rows that go beyond the quota. A row whose rejection is stored and open takes no
        new place."""
        cursor.execute("select digest from rejections where resolved_at is null and digest = any(%s)", (list(rows),))
        known = {bytes(digest) for (digest,) in cursor.fetchall()}
        left, size, excess = self.rows, self.size, set()
        for digest in [each for each in rows if each not in known]:
            left, size = left - 1, size - len(rows[digest][1].encode())
            if left < 0 or size < 0:
                excess.add(digest)
        return excess


def store_rejections(
    cursor: Any,
    source: str,
    refused: Sequence[tuple[str, list[dict[str, Any]], dict[str, Any]]],
    quota: Quota | None = None,
) -> list[int | None]:
    """Store rejected records within the caller's transaction; return the id of each, in order; None beyond the quota.

    `refused`: the text as sent, the errors, and the context that a retry needs. A record that is an unresolved
    rejection already, from whichever source, is counted again, not stored twice.
    """
    rows: dict[bytes, tuple[Any, ...]] = {}
    digests = []
    for payload, errors, context in refused:
        if not is_utf8(payload) or "\0" in payload:
            payload = base64.b64encode(payload.encode("utf-8", "surrogateescape")).decode()
            context = {**context, "base64": True}
        same = [context.get(name) for name in SAME] + [payload]
        same += [context["layout"]] if "layout" in context else []  # of tables: others keep their digests
        digest = hashlib.sha256(json.dumps(same).encode()).digest()
        digests.append(digest)
        user_id = quota.user_id if quota else None
        rows[digest] = (_storable_name(source), payload, json.dumps(context), json.dumps(errors), digest, user_id)
    excess = quota.excess(cursor, rows) if quota and rows else set()
    ids: dict[bytes, int] = {}
    # as they came: ids follow the source, and the same source twice locks rows in one order
    ordered = [digest for digest in rows if digest not in excess]
    for start in range(0, len(ordered), 500):
        stored = execute_values(
            cursor,
            "insert into rejections (source, payload, context, errors, digest, user_id) values %s"
            " on conflict (digest) where resolved_at is null do update set times = rejections.times + 1,"
            " received_at = now(), errors = excluded.errors returning digest, id",
            [rows[digest] for digest in ordered[start : start + 500]],
            page_size=500,
            fetch=True,
        )
        ids.update((bytes(digest), id_) for digest, id_ in stored)
    return [ids.get(digest) for digest in digests]


def list_rejections(
    *,
    after: int = 0,
    before: int | None = None,
    limit: int | None = None,
    state: str = "open",
    machine: str | None = None,
    code: str | None = None,
    since: datetime | None = None,
    user_id: int | None = None,
) -> list[Rejection]:
    """Return rejections by id, without their payloads. `after`: only ids above it; `before`: only ids below it, the
    highest first. `state`: open, resolved or all. `code`: of one of its errors. `since`: received then or later.
    `user_id`: uploaded by this user."""
    columns = [field for field in Rejection._meta.sorted_fields if field.name not in ("payload", "digest")]
    order = Rejection.id if before is None else Rejection.id.desc()
    query = Rejection.select(*columns).where(Rejection.id > after).order_by(order).limit(limit)
    for asked, condition in (
        (before, Rejection.id < before),
        (state != "all" or None, Rejection.resolved_at.is_null(state == "open")),
        (machine, Rejection.context["machine"] == machine),
        (code, Rejection.errors.contains([{"code": code}])),
        (since, Rejection.received_at >= since),
        (user_id, Rejection.user_id == user_id),
    ):
        if asked is not None:
            query = query.where(condition)
    with transaction():
        return list(query)


def open_ids() -> list[int]:
    """Return the ids of all unresolved rejections, in order, after `resolve_stored`."""
    resolve_stored()
    query = Rejection.select(Rejection.id).where(Rejection.resolved_at.is_null()).order_by(Rejection.id)
    with transaction():
        return [rejection.id for rejection in query]


def get_rejection(rejection_id: int, user_id: int | None = None) -> Rejection:
    """Return a rejection. `user_id`: only if this user uploaded it. Raises NotFound."""
    with transaction():
        found = Rejection.get_or_none(Rejection.id == rejection_id)
    if found is None or user_id not in (None, found.user_id):
        raise NotFound(f"there is no rejection {rejection_id}")
    return found


def resolve(rejection_id: int, resolution: str, checkup_id: int | None = None) -> None:
    """Mark a rejection as resolved. Raises NotFound, or Conflict if it is resolved already."""
    resolution = printable(resolution)
    update = Rejection.update(resolved_at=fn.now(), resolution=resolution, checkup_id=checkup_id)
    with transaction():
        changed = update.where(Rejection.id == rejection_id, Rejection.resolved_at.is_null()).execute()
    if not changed:
        found = get_rejection(rejection_id)
        raise Conflict(f"rejection {rejection_id} has been dealt with already: {found.resolution}")


def resolve_stored() -> int:
    """Resolve rejections whose record was corrected and stored since, under the same number for the same patient.
    Return their number."""
    resolved = 0
    with transaction() as cursor:
        cursor.execute(STORED_SINCE)
        for rejection_id, checkup_id, name, patients, has_identifier in cursor.fetchall():
            if has_identifier or name in map(fold_name, patients):
                with contextlib.suppress(Conflict):  # another process resolved it
                    resolve(rejection_id, "stored since", checkup_id)
                    resolved += 1
    return resolved


def discard(rejection_id: int, reason: str = "") -> None:
    """Resolve a rejection without storing its record. Raises NotFound, or Conflict if it is resolved already."""
    with transaction():
        resolve(rejection_id, f"discarded: {reason}" if reason else "discarded")
        record_event("rejection.discard", subject=patient_named(get_rejection(rejection_id)), rejection=rejection_id)


def open_rejection(rejection_id: int, user_id: int | None = None) -> Rejection:
    """Return a rejection for a person to read, and log that access. Raises as `get_rejection` does."""
    found = get_rejection(rejection_id, user_id)
    record_event("read", subject=patient_named(found), what="rejection", rejection=rejection_id)
    return found


def patient_named(rejection: Rejection) -> str | None:
    """Return the patient that the record names, None if it could not be read."""
    return next(iter(rejection.context.get("patients") or []), None)


def payload_text(rejection: Rejection) -> str:
    """Return the record as it was sent; bytes that are not UTF-8 as lone surrogates ("surrogateescape")."""
    if rejection.context.get("base64"):
        return base64.b64decode(rejection.payload).decode("utf-8", "surrogateescape")
    return str(rejection.payload)


def _storable_name(text: str) -> str:
    """Return a file's name as text that PostgreSQL can store, whatever its bytes are."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "")
