"""The upload API's context, and the base class of its views: authentication, roles, audit events."""

import contextlib
from datetime import datetime
from typing import Any

import bottle

from myhealth.audit.events import Actor, acting_as, record_refusal
from myhealth.common.concurrency import Gate
from myhealth.common.database import database
from myhealth.common.database_watch import Watch
from myhealth.common.errors import NotAllowed, NotFound, NotLoggedIn
from myhealth.common.request_context import note_caller
from myhealth.common.settings import Settings
from myhealth.common.text import fold_name
from myhealth.grants import warn_of_data_in_the_log
from myhealth.profiles.models import User
from myhealth.profiles.services import get_user, get_user_by_subject
from myhealth.profiles.tokens import CheckedTokens, Signer, Verifier, is_revoked, load_secret
from myhealth.profiles.upload_client import TOKENS_VALID_AFTER
from myhealth.stores import check_ready, close_database, database_url, open_database
from wsgi.common.metrics import Gauges, observe_pool
from wsgi.common.once import Once
from wsgi.common.requests import bearer_token, client_address, parse_boolean, query_parameters
from wsgi.common.views import View
from wsgi.upload_api.gauges import database_gauges

LARGE_BODIES_BUSY = "Other large uploads are being stored; send it again in a moment.", 10


class UploadContext:
    """The settings, the signer and verifier of tokens, and PostgreSQL, which the models are bound to.

    `open` opens PostgreSQL for the first request that needs it. `check_ready` raises unless requests can be served.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.signer = Signer(load_secret(settings), settings.token_ttl_s)
        self.verifier = CheckedTokens(Verifier(self.signer.jwks))
        # One large body at a time, so that their memory does not add up. Each that waits is a thread less for others.
        self.large_bodies = Gate(slots=1, waiting=2, wait_s=60, refusal=LARGE_BODIES_BUSY)
        self.open = Once(self._open)
        self.check_ready = Once(lambda: check_ready(self.open()), keep_s=1.0)
        self.metrics_listen = settings.upload.metrics_listen
        self._watch: Watch | None = None

    def _open(self) -> str:
        url = database_url(self.settings)
        open_database(self.settings, is_served=True)
        warn_of_data_in_the_log()
        self._watch = Watch(database.obj, url, observe_pool)
        return url

    def close(self) -> None:
        """Close the connections to PostgreSQL."""
        if self._watch is not None:
            self._watch.stop()
        close_database()

    def release_connection(self) -> None:
        """Return the request's connection to the pool."""
        if database.obj is not None and not database.is_closed():
            database.close()

    def gauges(self) -> Gauges:
        """Return the figures of PostgreSQL. Raises an error if it is unavailable."""
        self.open()
        try:
            return database_gauges()
        finally:
            self.release_connection()

    def user_of_token(self, token: str) -> User:
        """Return the active user who holds a valid token. Raises NotLoggedIn."""
        claims = self.verifier.verify(token)
        user = get_user_by_subject(claims.subject)
        if user is None or not user.active or is_revoked(claims, user.tokens_valid_after):
            raise NotLoggedIn("The login has ended; log in again.", code="token_ended")
        note_caller(user.id, user.role)
        return user


class UploadView(View):
    """A view whose audit events name the caller: `user`, set if `login_required`, and the network `address`.

    `parameters`: those of the address, if the verb describes any.
    """

    context: UploadContext
    user: User
    address: str
    parameters: dict[str, str]
    login_required = True
    # The answer for a username that does not exist, or that the caller may not know.
    unknown_user = "{} Does not Exists"

    def perform(self, verb: str, **parts: Any) -> Any:
        self.context.open()
        self.address = client_address(self.context.settings.trusted_proxies)
        actor = Actor(None, None, self.address)
        if self.login_required:
            self.user = self.context.user_of_token(bearer_token())
            actor = Actor(self.user.id, self.user.username, self.address)
        described = self.spec[verb]
        if verb == "get" or described.query:
            self.parameters = query_parameters(*(name for name, *_ in described.query))
        with acting_as(actor):
            if isinstance(described.roles, tuple):
                self.require(*described.roles)
            return getattr(self, verb)(**parts)

    def flag(self, name: str) -> bool:
        """Return a boolean parameter of the address; False if it is missing. Raises BadInput."""
        return parse_boolean(name, self.parameters.get(name, "false"))

    def require(self, *roles: str) -> None:
        """Raise NotAllowed, and record the refusal, unless the caller has one of these roles."""
        if self.user.role not in roles:
            self.record_refusal()
            raise NotAllowed(f"That is for the role {' or '.join(roles)} only; yours is {self.user.role}.")

    def record_refusal(self, subject: User | str | None = None, kind: str = "") -> None:
        """Record the audit event of a refused request. `subject`: the user whose data was asked for, or a name that was
        not looked up. Equal refusals are summed, those of different `kind` apart."""
        named: dict[str, Any] = {"subject": subject}
        if isinstance(subject, User):
            named = {"subject_id": subject.id, "subject": subject.username}
        request = f"{bottle.request.method} {bottle.request.path[:200]}"
        record_refusal("refused", request, kind=kind, request=request, **named)

    def person(self, username: str, *roles: str) -> User:
        """Return the user of that name, if it is the caller or the caller has one of these roles.

        Raises NotFound for other callers, as for a name that does not exist, and records the refusal. For them the name
        is not looked up, so that the time does not reveal whether it exists either.
        """
        if fold_name(username.strip()) == fold_name(self.user.username):
            return self.user
        with contextlib.suppress(NotFound):
            if self.user.role in roles:
                return get_user(username)
        self.record_refusal(username)
        raise NotFound(self.unknown_user.format(username), code="unknown_user")


ENDED = (
    TOKENS_VALID_AFTER,
    {"type": "string", "format": "date-time"},
    "Tokens issued before this moment are revoked; absent if none is.",
)


def ended_header(tokens_valid_after: datetime | None) -> dict[str, str]:
    """Return the header that tells the browse API, before the sync does, which tokens are revoked."""
    return {TOKENS_VALID_AFTER: tokens_valid_after.isoformat()} if tokens_valid_after else {}
