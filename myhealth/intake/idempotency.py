"""Requests that may be sent again: what was answered once under a key is answered again, and nothing is done twice.

Source: draft-ietf-httpapi-idempotency-key-header. The key is stored in the transaction that does the work: both are
there, or neither. An answer that would only stand in the way (nothing was stored, and next time it may be: the draft
leaves errors to the server) is not kept, and the next request under its key is a new one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from myhealth.common.database import transaction
from myhealth.common.errors import BadInput, Conflict

KEY_MAX = 255
KEPT_DAYS = 7


@dataclass(frozen=True)
class Answer:
    """What a request is answered with. `lasting`: it is to be given again under the same key, for what it tells of has
    been done. `replayed`: it was answered so before."""

    status: int
    body: str
    lasting: bool = True
    replayed: bool = False


def once(user_id: int, key: str, request: bytes, work: Callable[[], Answer]) -> Answer:
    """Does the work unless this user sent the same request under the same key before; gives that answer then.

    `request`: all that makes requests the same, as bytes. Two at once: the second waits for the first. Raises BadInput
    for a key that cannot be one, and (code `idempotency_key_reused`) where another request came under it.
    """
    if not key or len(key) > KEY_MAX or not key.isprintable() or not key.isascii():
        raise BadInput(f"An Idempotency-Key has 1 to {KEY_MAX} printable ASCII characters.")
    digest = hashlib.sha256(request).digest()
    with transaction() as cursor:
        cursor.execute(
            "delete from idempotency_keys where created_at < now() - make_interval(days => %s)", (KEPT_DAYS,)
        )
        cursor.execute(
            "insert into idempotency_keys (user_id, key, request) values (%s, %s, %s) on conflict do nothing",
            (user_id, key, digest),
        )
        if not cursor.rowcount:
            cursor.execute(
                "select request, status, answer from idempotency_keys where user_id = %s and key = %s", (user_id, key)
            )
            found = cursor.fetchone()
            if found is None:  # its time ran out while we looked
                raise Conflict("The answer kept under this Idempotency-Key has just expired; send it again.")
            stored, status, body = found
            if bytes(stored) != digest:
                raise BadInput("Another request came under this Idempotency-Key.", code="idempotency_key_reused")
            return Answer(status, body, replayed=True)
        answer = work()
        if answer.lasting:
            cursor.execute(
                "update idempotency_keys set status = %s, answer = %s where user_id = %s and key = %s",
                (answer.status, answer.body, user_id, key),
            )
        else:
            cursor.execute("delete from idempotency_keys where user_id = %s and key = %s", (user_id, key))
    return answer
