"""The HTTP request that a thread serves: what its log lines, audit events and calls of other servers say of it."""

import re
from contextvars import ContextVar

from msgspec import Struct

from myhealth.common.addresses import network_of

HEADER = "X-Request-ID"
ID_FORM = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


class RequestContext(Struct):
    """What is known of a request.

    `route`: the pattern of the path, never the path, which contains names. `address`: the client's. `user_id`, `role`:
    of the caller, once known.
    """

    id: str
    method: str = ""
    route: str = "-"
    address: str = ""
    user_id: int | None = None
    role: str = "-"

    @property
    def network(self) -> str:
        """The client's network, as limits count it."""
        return network_of(self.address) or "-"


current_request: ContextVar[RequestContext | None] = ContextVar("request", default=None)


def request_id() -> str:
    """Return the id of the request that this thread serves, "" outside of requests."""
    request = current_request.get()
    return request.id if request else ""


def client_address() -> str:
    """Return the address of the client whose request this thread serves, "" outside of requests."""
    request = current_request.get()
    return request.address if request else ""


def note_caller(user_id: int, role: str) -> None:
    """Remember who sends the current request."""
    if request := current_request.get():
        request.user_id, request.role = user_id, role
