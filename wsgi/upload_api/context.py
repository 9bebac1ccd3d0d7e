"""What the upload API is made with, and who is calling it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import bottle

from myhealth.audit.events import Actor, acting_as, record_event
from myhealth.common.database import database
from myhealth.common.errors import NotAllowed, NotFound, NotLoggedIn
from myhealth.common.settings import Settings
from myhealth.profiles.models import User
from myhealth.profiles.services import get_user, get_user_by_subject
from myhealth.profiles.tokens import CheckedTokens, Signer, Verifier, is_revoked, load_secret
from myhealth.profiles.upload_client import TOKENS_VALID_AFTER
from myhealth.stores import close_database, open_database
from wsgi.common.requests import bearer_token, client_address
from wsgi.common.views import View


class UploadContext:
    """Settings, the signer of tokens, and PostgreSQL, which the models are bound to."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.signer = Signer(load_secret(settings), settings.token_ttl_s)
        self.verifier = CheckedTokens(Verifier(self.signer.jwks))
        open_database(settings)

    def close(self) -> None:
        close_database()

    def release_connection(self) -> None:
        """Returns the request's connection to the pool."""
        if not database.is_closed():
            database.close()


class AuditedView(View):
    """For views that note things, also without anybody being logged in."""

    context: UploadContext

    @property
    def address(self) -> str:
        return client_address(self.context.settings.trusted_proxies)

    def actor(self) -> Actor:
        """Whose doing it is, for the audit trail."""
        return Actor(None, None, self.address)

    def perform(self, verb: str, **parts: Any) -> Any:
        self.prepare()
        with acting_as(self.actor()):
            return getattr(self, verb)(**parts)


class AuthenticatedView(AuditedView):
    """For views that need to know who calls: `user`."""

    user: User

    def prepare(self) -> None:
        super().prepare()
        claims = self.context.verifier.verify(bearer_token())
        user = get_user_by_subject(claims.subject)
        if user is None or not user.active or is_revoked(claims, user.tokens_valid_after):
            raise NotLoggedIn("The login has ended; log in again.", code="token_ended")
        self.user = user

    def actor(self) -> Actor:
        return Actor(self.user.id, self.user.username, self.address)

    def require(self, *roles: str) -> None:
        """Raises NotAllowed unless the caller has one of these roles; that is noted."""
        if self.user.role not in roles:
            self.note_refusal()
            raise NotAllowed(f"That is for the role {' or '.join(roles)} only; yours is {self.user.role}.")

    def note_refusal(self, subject: User | None = None) -> None:
        whose = {"subject_id": subject.id, "subject": subject.username} if subject else {}
        path = bottle.request.path[:200]
        record_event("refused", outcome="refused", request=f"{bottle.request.method} {path}", **whose)

    def person(self, username: str, *roles: str, missing: Callable[[str], str]) -> User:
        """The user of that name, for the user himself or herself and for these roles.

        Anybody else gets the answer for a name that nobody has, in the words of `missing`; that is noted.
        """
        try:
            found = get_user(username)
        except NotFound as error:
            raise NotFound(missing(username), code="unknown_user") from error
        if found.id == self.user.id or self.user.role in roles:
            return found
        self.note_refusal(found)
        raise NotFound(missing(username), code="unknown_user")


ENDED = (
    TOKENS_VALID_AFTER,
    {"type": "string", "format": "date-time"},
    "Tokens from before this moment have ended; not there where none has.",
)


def ended_header(tokens_valid_after: datetime | None) -> dict[str, str]:
    """Tells the browse API from when on a token must be, before the sync does."""
    return {TOKENS_VALID_AFTER: tokens_valid_after.isoformat()} if tokens_valid_after else {}
