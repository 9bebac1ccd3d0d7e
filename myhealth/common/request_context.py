"""The HTTP request that a thread serves: what its log lines, audit events and calls of other servers say of it."""

import os
import re
from contextvars import ContextVar

from msgspec import Struct

HEADER = "X-Request-ID"
ID_FORM = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


class RequestContext(Struct):
    """What is known of a request.

    `route`: the pattern of the path, never the path, which contains names. `network`: of the client, as limits count
    it. `user_id`, `role`: of the caller, once known.
    """

    id: str
    method: str = ""
    route: str = "-"
    network: str = "-"
    user_id: int | None = None
    role: str = "-"


current_request: ContextVar[RequestContext | None] = ContextVar("request", default=None)


def accept_id(sent: str) -> str:
    """Return the id that a client or a proxy has sent, or a new one if it has another form."""
    return sent if ID_FORM.fullmatch(sent) else os.urandom(8).hex()


def request_id() -> str:
    """Return the id of the request that this thread serves, "" outside of requests."""
    request = current_request.get()
    return request.id if request else ""


def note_caller(user_id: int, role: str) -> None:
    """Remember who sends the current request."""
    if request := current_request.get():
        request.user_id, request.role = user_id, role
