"""Answer a repeated request as the first one, without doing its work twice.

Source: draft-ietf-httpapi-idempotency-key-header. The key is stored in the transaction that does the work: either both
are stored or neither. An answer that only reports an error is not stored, as the draft leaves errors to the server: the
next request under its key is a new one.
"""

from collections.abc import Callable

from msgspec import Struct
from peewee import SQL, fn

from myhealth.common.database import transaction
from myhealth.common.errors import BadInput, Conflict
from myhealth.intake.models import KEPT_DAYS, IdempotencyKey

KEY_MAX = 255


class Answer(Struct, frozen=True):
    """The answer to a request. `lasting`: the work is done, so the same key must get this answer again. `replayed`: it
    is the answer to an earlier request."""

    status: int
    body: str
    lasting: bool = True
    replayed: bool = False


def once(user_id: int, key: str, digest: bytes, work: Callable[[], Answer]) -> Answer:
    """Do the work, unless this user sent the same request under the same key before; then return that answer.

    `digest`: the SHA-256 of the bytes that identify the request. Of two at once, the second waits for the first. Raises
    BadInput for an invalid key, and (code `idempotency_key_reused`) if another request came under it.
    """
    if not key or len(key) > KEY_MAX or not key.isprintable() or not key.isascii():
        raise BadInput(f"An Idempotency-Key has 1 to {KEY_MAX} printable ASCII characters.")
    expired = IdempotencyKey.created_at < fn.now() - SQL("make_interval(days => %s)", (KEPT_DAYS,))
    claim = IdempotencyKey.insert(user=user_id, key=key, request=digest)
    ours = (IdempotencyKey.user == user_id) & (IdempotencyKey.key == key)
    with transaction():
        IdempotencyKey.delete().where(expired).execute()
        if not list(claim.on_conflict_ignore().returning(IdempotencyKey.key).execute()):
            return _earlier_answer(IdempotencyKey.get_or_none(ours), digest)
        answer = work()
        if answer.lasting:
            IdempotencyKey.update(status=answer.status, answer=answer.body).where(ours).execute()
        else:
            IdempotencyKey.delete().where(ours).execute()
    return answer


def _earlier_answer(stored: IdempotencyKey | None, digest: bytes) -> Answer:
    if stored is None:  # it expired after the insert had found it
        raise Conflict("The answer kept under this Idempotency-Key has just expired; send it again.")
    if bytes(stored.request) != digest:
        raise BadInput("Another request came under this Idempotency-Key.", code="idempotency_key_reused")
    return Answer(stored.status or 0, stored.answer or "", replayed=True)
