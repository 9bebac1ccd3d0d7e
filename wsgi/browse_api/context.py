"""The browse API's context, its authentication, and the rule of who may see whose reports.

And limits on the work that one user causes: one export at a time, and answers that are computed once."""

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import bottle
from msgspec import Struct, field

import myhealth.clinical.series  # noqa: F401 - at start: code may be replaced under a running server
from myhealth.common.concurrency import Gate
from myhealth.common.decoding import INT_MAX
from myhealth.common.errors import MyHealthError, NotAllowed, NotFound, NotLoggedIn, TooManyAttempts, Unavailable
from myhealth.common.refusals import MinuteTexts
from myhealth.common.request_context import client_address, note_caller
from myhealth.common.settings import Settings
from myhealth.profiles.tokens import Verifier, is_revoked
from myhealth.profiles.upload_client import UploadClient
from myhealth.reports.access_log import Access
from myhealth.reports.documents import Document
from myhealth.reports.filters import OwnReports
from myhealth.reports.newest import NewestPoints
from myhealth.reports.trends import Measurement
from myhealth.stores import READY_S, open_reports
from myhealth.sync.signature import SignatureChecker
from wsgi.common.metrics import Gauges
from wsgi.common.requests import accepted_type, bearer_token, query_parameters
from wsgi.common.views import View

ANSWER_WAIT_S, ANSWER_RETRY_S = 1.0, 2
EXPORT_BUSY = "Another download of yours is still running; please try again when it has ended."
ANSWER_REFUSAL: dict[str, Any] = {
    "message": "This is being prepared for you already; please try again in a moment.",
    "code": "overview_running",
    "retry_after_s": ANSWER_RETRY_S,
}
WAITING = 4  # a browser opens six connections; the others of eight threads stay for other users


T = TypeVar("T")


class _Answer(Struct):
    lock: threading.Lock = field(default_factory=threading.Lock)
    value: Any = None
    size: int = 0
    until: float = 0.0


class RecentAnswers:
    """A cache of at most `most` expensive answers for some seconds: a chart is often followed by its table.

    `size_of`: the bytes of an answer; all together have at most `max_bytes`, or the last one alone.
    Callers of one key wait for the first, for a second at most. The caller checks the permission first, and puts the
    patient and the question into the key.
    """

    def __init__(
        self, keep_s: float, most: int, max_bytes: int = 0, size_of: Callable[[Any], int] = lambda value: 0
    ) -> None:
        self._keep_s, self._most, self._max_bytes, self._size_of = keep_s, most, max_bytes, size_of
        self._answers: dict[Any, _Answer] = {}
        self._size = 0  # of all answers
        self._lock = threading.Lock()

    def get(self, key: Any, make: Callable[[], T]) -> T:
        """Return what `make` returns, or returned some seconds ago. Raises TooManyAttempts if `make` is still running
        for another caller."""
        with self._lock:
            found = self._answers.setdefault(key, _Answer())
            self._trim(found)
        if not found.lock.acquire(timeout=ANSWER_WAIT_S):
            raise TooManyAttempts(**ANSWER_REFUSAL)
        try:
            if time.monotonic() >= found.until:
                found.value = make()
                found.until = time.monotonic() + self._keep_s
                with self._lock:
                    if self._answers.get(key) is found:  # else it is forgotten already
                        self._size -= found.size
                        found.size = self._size_of(found.value)
                        self._size += found.size
                        self._trim(found)
            return found.value  # type: ignore[no-any-return]
        finally:
            found.lock.release()

    def _trim(self, kept: _Answer) -> None:
        """Forget the oldest answers beyond the bounds, but not this one."""
        while len(self._answers) > self._most or self._size > self._max_bytes:
            key = next((key for key, each in self._answers.items() if each is not kept), None)
            if key is None:
                return
            self._size -= self._answers.pop(key).size


# Roles that may read others' reports. For anybody else, another person's report does not exist.
STAFF = ("doctor", "admin")
# Timeouts for reaching MongoDB: a person waits for the answer, and requests must not pile up. The driver's monitor asks
# every second, and ends the calls that wait if there is no answer.
TIMEOUTS = {"serverSelectionTimeoutMS": 1_000, "connectTimeoutMS": 1_500, "heartbeatFrequencyMS": 1_000}
# Trends may be this old; the report store itself is some minutes behind the source.
RECENT_S, SITES_S = 5, 60
TRENDS_MAX, OVERVIEWS_MAX = 40, 500
TRENDS_MAX_BYTES = 16 * 1024 * 1024  # a trend of 1,000 values has a quarter of a megabyte, with long texts much more


class UserNotSynced(Unavailable):
    """The sync has not delivered the user yet."""


class BrowseContext:
    """The settings, the report store, the upload API's client, and the verifier of tokens, which fetches its key."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics_listen = settings.browse.metrics_listen
        self.reports = open_reports(settings, **TIMEOUTS)
        self._logged_syncs = MinuteTexts()
        self.trends = RecentAnswers(RECENT_S, TRENDS_MAX, TRENDS_MAX_BYTES, lambda answer: len(answer[0]))
        export_refusal = partial(TooManyAttempts, EXPORT_BUSY, code="export_running", retry_after_s=5)
        self.exports = Gate(1, refusal=export_refusal)
        self.long_reads = Gate(1, WAITING, ANSWER_WAIT_S, partial(TooManyAttempts, **ANSWER_REFUSAL))
        self._overviews, self._sites = RecentAnswers(RECENT_S, OVERVIEWS_MAX), RecentAnswers(SITES_S, 1)
        self._takers = RecentAnswers(RECENT_S, OVERVIEWS_MAX)
        self.upload_api = UploadClient(settings.auth_url)
        self.signatures = SignatureChecker(settings.browse.sync_public_key)
        file = settings.browse.keys_file
        self.verifier = Verifier(self.upload_api.fetch_keys, Path(file) if file else None)

    def close(self) -> None:
        self.reports.close()
        self.upload_api.close()

    def check_ready(self) -> dict[str, Any]:
        """Raise an error unless MongoDB lets us read within two seconds and the keys of the tokens are here."""
        self.reports.ping(READY_S)
        self.verifier.fetch()
        return {}

    def gauges(self) -> Gauges:
        """Return {}, for MongoDB has no figures. Raises an error if MongoDB is unavailable."""
        self.reports.ping(READY_S)
        return {}

    def user_of_token(self, token: str, own: OwnReports | None = None) -> tuple[Document, list[Document]]:
        """Return the token's user, and the user's reports that `own` asks for. Raises NotLoggedIn, and UserNotSynced
        for a user not delivered by the sync yet."""
        user, reports = self._known_user(token, own)
        if user is None:
            self.upload_api.get_caller(token)  # raises NotLoggedIn if the token has ended
            message = "This account has not arrived here yet; try again in a few minutes."
            raise UserNotSynced(message, code="not_here_yet", retry_after_s=30)
        return user, reports

    def service_of_token(self, token: str, address: str) -> dict[str, Any]:
        """Return the task runner whose token this is. Raises NotLoggedIn if it has ended, else NotAllowed, logged.

        The upload API is asked about a user whom the sync has not delivered yet, as the runner itself before its first
        pass.
        """
        user, _ = self._known_user(token)
        if user is None:
            found = self.upload_api.get_caller(token)
            user = found and {"_id": found["id"], "subject": None, **found}
        if user is None or user["role"] != "service":
            if user is not None:
                self.log_sync_refusal(user, address)
            raise NotAllowed("Only the task runner may do that (role service).")
        return user

    def _known_user(self, token: str, own: OwnReports | None = None) -> tuple[Document | None, list[Document]]:
        """Return the token's user, None if the report store has no such user, and own reports. Raises NotLoggedIn."""
        claims = self.verifier.verify(token)
        user, reports = self.reports.get_user(claims.subject, own)
        if user is not None and (not user["active"] or is_revoked(claims, user["tokens_valid_after"])):
            raise NotLoggedIn("The login has ended; log in again.", code="token_ended")
        if user is not None:
            note_caller(user["_id"], user["role"])
        return user, reports

    def glance(self, reader: Document, patient: Document, most: int, read: Sequence[Document]) -> NewestPoints:
        """Return the `most` newest points of each measurement, those of older reports as of some seconds ago. `read`:
        the newest reports, as just read. Of one reader's readings, one runs at a time. Raises TooManyAttempts."""

        def make() -> NewestPoints:
            with self.long_reads.enter(reader["subject"]):
                return self.reports.newest(patient, most, read=read)

        versions = tuple((report["_id"], report.get("revision")) for report in read)
        return self._overviews.get((patient["_id"], patient["subject"], most, versions), make)

    def measurements(self, patient: Document) -> list[Measurement]:
        """Return everything that was measured of a patient, as of some seconds ago."""
        key = ("measurements", patient["_id"], patient["subject"])
        return self._overviews.get(key, lambda: self.reports.measurements(patient))

    def types(self, patient: Document) -> list[str]:
        """Return the types of a patient's reports, as of some seconds ago."""
        key = ("types", patient["_id"], patient["subject"])
        return self._overviews.get(key, lambda: self.reports.types(patient))

    def sites(self, token: str, address: str) -> dict[str, list[str]] | None:
        """Return the serials of the machines of each site, at most a minute old; None if the upload API is
        unavailable."""

        def make() -> dict[str, list[str]]:
            found: dict[str, list[str]] = {}
            for machine in self.upload_api.list_machines(token, address):
                found.setdefault((machine["site"] or "").strip(), []).append(machine["serial"])
            return {site: found[site] for site in sorted(filter(None, found))}

        try:
            return self._sites.get("sites", make)
        except Unavailable:
            return None

    def taker_name(self, taken_by: str) -> str:
        """Return the full name, as of some seconds ago, of the member of staff who took a report, else the name in the
        report."""

        def make() -> str:
            user = self.reports.people.find_by_username(taken_by)
            return (user["full_name"].strip() if user and user["role"] in (*STAFF, "technician") else "") or taken_by

        return self._takers.get(taken_by, make) if taken_by else ""

    def end_tokens(self, token: str, moment: datetime | None) -> None:
        """Revoke the tokens of this token's user that were issued before `moment`.

        None: the upload API had already revoked this token, and the sync may not have delivered that yet; revoke
        everything up to this token's issue time.
        """
        claims = self.verifier.verify(token)
        after_this = datetime.fromtimestamp(claims.issued_at, UTC) + timedelta(milliseconds=1)
        self.reports.people.revoke_tokens(claims.subject, moment or after_this)

    def log_sync(self, user: dict[str, Any], address: str) -> None:
        """Log that the task runner writes: one event for each minute, user, address and process."""
        if self._logged_syncs.add(f"{user['username']} {address}") == "new":
            self.reports.access_log.log(Access(user, None, "sync", address=address, action="sync"))

    def log_sync_refusal(self, user: dict[str, Any], address: str) -> None:
        """Log that a user may not write as the task runner does."""
        refused = Access(user, None, "sync", address=address, action="refused", outcome="refused")
        self.reports.access_log.log_refusal(refused, "sync")


class AuthenticatedBrowseView(View):
    """A view for logged-in callers. `user`: the caller's document in the report store."""

    context: BrowseContext
    user: dict[str, Any]
    _own: OwnReports | None = None
    _own_found: Sequence[Document] = ()

    def prepare(self) -> None:
        self.read_user(bearer_token())

    def read_user(self, token: str) -> None:
        """Read the user, and with the user the reports that the request asks for, if they are the user's own."""
        with contextlib.suppress(MyHealthError):  # the view says so, once the user is known
            self._own = self.own_asked()
        self.user, self._own_found = self.context.user_of_token(token, self._own)

    def own_asked(self) -> OwnReports | None:
        """Return the reports that the request asks for, should they be the caller's own. Raises MyHealthError."""
        return None

    def find(self, person: Document, **options: Any) -> list[Document]:
        """Return what `ReportRepository.find` does for the person whose reports the request asks for."""
        if self._own and person is self.user:
            return [*self._own_found]
        return self.context.reports.find(person, **options)

    @property
    def address(self) -> str:
        return client_address()

    def require(self, *roles: str) -> None:
        """Raise NotAllowed, and log the refusal, unless the caller has one of these roles."""
        if self.user["role"] not in roles:
            self._log_refusal(None, "account", bottle.request.path)
            raise NotAllowed(f"That is for the role {' or '.join(roles)} only; yours is {self.user['role']}.")

    def person(self, username: str, what: str) -> Document:
        """Return the user of that name, for that user and for staff, whose access to `what` is logged.

        Other callers get the answer for a name that does not exist. The refusal is logged whether or not the name
        exists, so that neither the answer nor its time reveals it. Raises NotFound.
        """
        if username == self.user["username"]:
            return self.user
        found = self.context.reports.people.find_by_username(username)
        if found is not None and found["subject"] == self.user["subject"]:
            return self.user
        if found is None or self.user["role"] not in STAFF:
            self._log_refusal(found, what, username)
            raise NotFound(f"{username} Does not Exists", code="unknown_user")
        self.log_access(found, what)
        return found

    def report(self, report_id: int) -> tuple[Document, Document]:
        """Return a report and its patient: the caller's own report, or any for staff, whose access is logged.

        Raises NotFound, and logs the refusal.
        """
        own = [(report, self.user) for report in self._own_found if report["_id"] == report_id]
        found = own[0] if own else self.context.reports.get_with_patient(report_id, self.user)
        if found is None or (found[1]["subject"] != self.user["subject"] and self.user["role"] not in STAFF):
            number = report_id if abs(report_id) <= INT_MAX else None
            self._log_refusal(found[1] if found else None, "report", str(report_id), number)
            raise NotFound("There is no such report.")
        self.log_access(found[1], "report", report_id=report_id)
        return found

    def log_access(self, patient: Document | None, what: str, **details: Any) -> None:
        """Log an access by the caller, unless it is to the caller's own record. `details`: as Access has them."""
        self.context.reports.access_log.log(Access(self.user, patient, what, address=self.address, **details))

    def _log_refusal(self, patient: Document | None, what: str, asked: str, report_id: int | None = None) -> None:
        refused = Access(self.user, patient, what, report_id, self.address, action="refused", outcome="refused")
        self.context.reports.access_log.log_refusal(refused, asked)


class ApiView(AuthenticatedBrowseView):
    """A view whose requests must be as its `spec` describes them. `asked`: the address's parameters; `media_type`: that
    of a GET's answer."""

    def perform(self, verb: str, **parts: Any) -> Any:
        self.described = self.spec[verb]
        self.prepare()
        _ = self.asked, verb == "get" and self.media_type
        return getattr(self, verb)(**parts)

    @cached_property
    def asked(self) -> dict[str, str]:
        return query_parameters(*self.described.parameters)

    @cached_property
    def media_type(self) -> str:
        return accepted_type(self.described.content, *self.described.others)
