"""What the browse API is made with, who is calling it, and whose reports they may see."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from myhealth.common.errors import NotAllowed, NotFound, NotLoggedIn, Unavailable
from myhealth.common.settings import Settings
from myhealth.profiles.tokens import CheckedTokens, Verifier, is_revoked
from myhealth.profiles.upload_client import UploadClient
from myhealth.reports.access_log import log_access
from myhealth.reports.documents import Document
from myhealth.reports.filters import find_report
from myhealth.stores import open_reports
from wsgi.common.requests import bearer_token, client_address
from wsgi.common.views import View

# So long after a login a user who is not known here may still be on the way; the sync runs every few minutes.
ARRIVAL_S = 900
# Whoever may see others' reports. A patient asking for another's gets the answer for one that is not there.
STAFF = ("doctor", "admin")
FOR_SERVICE = "Only the task runner may do that (role service)."
# A MongoDB that cannot be reached is said to be away after so long: whoever waits for a page waits no longer, and
# requests do not pile up.
PATIENCE_MS = 2_000
# A trend may be as old as this; the store itself is some minutes behind the source.
RECENT_S = 5
RECENT_MOST_BYTES = 16 * 1024 * 1024


class UserNotSynced(Unavailable):
    """The sync has not brought the user yet."""


class RecentAnswers:
    """Answers that cost much, kept for a few seconds: a chart is drawn, and then its table asked for. Whoever asks has
    been found to be allowed before; the key says whose it is and what was asked."""

    def __init__(self, keep_s: float, most_bytes: int) -> None:
        self._keep_s, self._most_bytes = keep_s, most_bytes
        self._kept: dict[Any, tuple[float, bytes, str]] = {}
        self._lock = threading.Lock()

    def answer(self, key: Any, make: Callable[[], tuple[bytes, str]]) -> tuple[bytes, str]:
        """What `make` gives (the content, and the place of the next page), or gave a few seconds ago."""
        now = time.monotonic()
        found = self._kept.get(key)
        if found is not None and now < found[0]:
            return found[1], found[2]
        content, place = make()
        with self._lock:
            self._kept.pop(key, None)
            self._kept[key] = (now + self._keep_s, content, place)
            size = sum(len(kept) for _, kept, _ in self._kept.values())
            for old, (until, kept, _) in list(self._kept.items()):  # in the order they were made
                if until < now or size > self._most_bytes:
                    size -= len(kept)
                    del self._kept[old]
        return content, place


class BrowseContext:
    """Settings, the report store, and the verifier of tokens, which knows the upload API's public key."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.reports = open_reports(settings, serverSelectionTimeoutMS=PATIENCE_MS)
        self.trends = RecentAnswers(RECENT_S, RECENT_MOST_BYTES)
        self.upload_api = UploadClient(settings.auth_url)
        self.verifier = CheckedTokens(Verifier(self.upload_api.fetch_keys))

    def close(self) -> None:
        self.reports.close()
        self.upload_api.close()

    def user_of_token(self, token: str) -> dict[str, Any]:
        """Who holds the token, as the report store has him or her. Raises NotLoggedIn, and NotHereYet for a user whom
        the sync has still to bring."""
        claims = self.verifier.verify(token)
        user = self.reports.user_of(claims.subject)
        if user is None and time.time() - claims.issued_at < ARRIVAL_S:
            message = "This account has not arrived here yet; try again in a few minutes."
            raise UserNotSynced(message, code="not_here_yet", retry_after_s=30)
        if user is None or not user["active"] or is_revoked(claims, user["tokens_valid_after"]):
            raise NotLoggedIn("The login has ended; log in again.", code="token_ended")
        return user

    def end_tokens(self, token: str, moment: datetime | None) -> None:
        """Lets no token of this one's holder in from before the moment that the upload API has told; None: that one has
        ended this one already, which the sync may have to bring yet, so that none as old as this one is let in."""
        claims = self.verifier.verify(token)
        behind = datetime.fromtimestamp(claims.issued_at, UTC) + timedelta(milliseconds=1)
        self.reports.end_tokens(claims.subject, moment or behind)

    def require_service(self, token: str) -> None:
        """Raises NotAllowed unless the token is the task runner's, NotLoggedIn where it has ended.

        A runner whom the sync has still to bring is believed what its token says while that is young; anybody else who
        is not known here is not let in, and whoever is known has the role that is known.
        """
        claims = self.verifier.verify(token)
        user = self.reports.user_of(claims.subject)
        if user is None:
            if not claims.service or time.time() - claims.issued_at >= ARRIVAL_S:
                raise NotLoggedIn("The login has ended; log in again.", code="token_ended")
        elif not user["active"] or is_revoked(claims, user["tokens_valid_after"]):
            raise NotLoggedIn("The login has ended; log in again.", code="token_ended")
        elif user["role"] != "service":
            raise NotAllowed(FOR_SERVICE)


class AuthenticatedBrowseView(View):
    """For views that need to know who calls: `user`, as the report store has him or her."""

    context: BrowseContext
    user: dict[str, Any]

    def prepare(self) -> None:
        super().prepare()
        self.user = self.context.user_of_token(bearer_token())

    @property
    def address(self) -> str:
        return client_address(self.context.settings.trusted_proxies)

    def require(self, *roles: str) -> None:
        """Raises NotAllowed unless the caller has one of these roles; that is noted."""
        if self.user["role"] not in roles:
            self._note_refusal(None, "account")
            raise NotAllowed(f"That is for the role {' or '.join(roles)} only; yours is {self.user['role']}.")

    def person(self, username: str, what: str) -> Document:
        """The user of that name, for the user himself or herself and for staff, whose look at `what` is noted.

        Anybody else gets the answer for a name that nobody has; that is noted, whether somebody has it or not, so that
        neither the answer nor the time it takes tells.
        """
        if username == self.user["username"]:
            return self.user
        found = self.context.reports.user_named(username)
        if found is not None and found["subject"] == self.user["subject"]:
            return self.user
        if found is None or self.user["role"] not in STAFF:
            self._note_refusal(found, what)
            raise NotFound(f"{username} Does not Exists", code="unknown_user")
        log_access(self.context.reports, self.user, found, what, address=self.address)
        return found

    def report(self, report_id: int) -> tuple[Document, Document]:
        """A report and its patient: one's own, or anybody's for staff, whose look is noted."""
        found = find_report(self.context.reports, report_id)
        if found is None or (found[1]["subject"] != self.user["subject"] and self.user["role"] not in STAFF):
            self._note_refusal(found[1] if found else None, "report", report_id)
            raise NotFound("There is no such report.")
        log_access(self.context.reports, self.user, found[1], "report", report_id=report_id, address=self.address)
        return found

    def _note_refusal(self, patient: Document | None, what: str, report_id: int | None = None) -> None:
        kept = report_id if report_id is not None and abs(report_id) < 2**63 else None
        options: dict[str, Any] = {"report_id": kept, "address": self.address}
        log_access(self.context.reports, self.user, patient, what, action="refused", outcome="refused", **options)
