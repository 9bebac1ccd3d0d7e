"""What the browse API is made with, and who is calling it."""

from __future__ import annotations

import time
from typing import Any

from myhealth.common.errors import NotLoggedIn, Unavailable
from myhealth.common.settings import Settings
from myhealth.profiles.tokens import Verifier, is_revoked, jwks_fetcher
from myhealth.stores import open_reports
from wsgi.common.requests import bearer_token
from wsgi.common.views import View

# So long after a login a user who is not known here may still be on the way; the sync runs every few minutes.
ARRIVAL_S = 900


class NotHereYet(Unavailable):
    """The sync has not brought the user yet."""


class BrowseContext:
    """Settings, the report store, and the verifier of tokens, which knows the upload API's public key."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.reports = open_reports(settings)
        self.verifier = Verifier(jwks_fetcher(settings.auth_url))

    def close(self) -> None:
        self.reports.close()

    def user_of_token(self, token: str) -> dict[str, Any]:
        """Who holds the token, as the report store has him or her. Raises NotLoggedIn, and NotHereYet for a user whom
        the sync has still to bring."""
        claims = self.verifier.verify(token)
        user = self.reports.user_of(claims.subject)
        if user is None and time.time() - claims.issued_at < ARRIVAL_S:
            message = "This account has not arrived here yet; try again in a few minutes."
            raise NotHereYet(message, code="not_here_yet", retry_after_s=30)
        if user is None or not user["active"] or is_revoked(claims, user["tokens_valid_after"]):
            raise NotLoggedIn("The login has ended; log in again.", code="token_ended")
        return user


class LoggedIn(View):
    """For views that need to know who calls: `user`, as the report store has him or her."""

    context: BrowseContext
    user: dict[str, Any]

    def prepare(self) -> None:
        super().prepare()
        self.user = self.context.user_of_token(bearer_token())
