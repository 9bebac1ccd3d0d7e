"""The upload API's context, and the base class of its views: authentication, roles, audit events."""

import contextlib
from collections.abc import Iterable
from datetime import datetime
from functools import partial
from typing import Any, NoReturn

import bottle

from myhealth.audit.events import Actor, acting_as, record_event, record_events, record_refusal
from myhealth.common.concurrency import Gate, Once
from myhealth.common.database import database, transaction
from myhealth.common.database_watch import Notifier, Watch
from myhealth.common.errors import BadInput, Busy, NotAllowed, NotFound, NotLoggedIn
from myhealth.common.request_context import client_address, note_caller
from myhealth.common.settings import Settings
from myhealth.common.text import fold_name
from myhealth.grants import warn_of_data_in_the_log
from myhealth.profiles.models import User
from myhealth.profiles.services import get_user, get_user_by_subject
from myhealth.profiles.tokens import Signer, Verifier, is_revoked, load_secret
from myhealth.profiles.upload_client import TOKENS_VALID_AFTER
from myhealth.stores import check_ready, close_database, database_url, open_database, schema_numbers
from myhealth.sync.status import find_holder, measure_lag, read_last_pass
from wsgi.common.metrics import Gauges, observe_pool
from wsgi.common.requests import bearer_token, parse_boolean, query_parameters
from wsgi.common.views import View, page_limit

# Raw SQL: several tables in one round trip.
GAUGES = """
select (select count(*) from rejections where resolved_at is null),
       (select coalesce(max(id), 0) from checkups), (select coalesce(max(id), 0) from tombstones)"""
HELD = "select extract(epoch from now() - %s)::float8, pg_has_role('pg_read_all_stats', 'usage')"
# A scrape must be quick, however far the sync is behind.
LAG_COUNTED = 100_000


def database_gauges() -> dict[str, tuple[str, float]]:
    """Return the figures of the schema, the stored data and the sync, each (help, value) by name."""
    with transaction() as cursor:
        cursor.execute(GAUGES)
        open_rejections, newest_checkup, newest_tombstone = cursor.fetchone()
        return {
            "myhealth_schema_migration": ("Number of the newest migration.", schema_numbers()[0]),
            "myhealth_rejections_open": ("Rejected records that nobody has dealt with.", open_rejections),
            "myhealth_checkups_newest_id": ("Highest check-up id.", newest_checkup),
            "myhealth_tombstones_newest_id": ("Highest id of a deletion.", newest_tombstone),
            **sync_gauges(cursor),
        }


def sync_gauges(cursor: Any) -> dict[str, tuple[str, float]]:
    """Return the sync's metrics from PostgreSQL alone, where the runner records each pass.

    So they are available, and as quick, while MongoDB is unavailable; `last_pass_ok` is 0 then.
    """
    last, holder = read_last_pass(cursor), find_holder(cursor)
    lag = measure_lag(cursor, last.checkpoint if last else None, most=LAG_COUNTED)
    cursor.execute(HELD, (holder.since if holder else None,))
    held_s, sees_all = cursor.fetchone()
    # Without that right PostgreSQL hides the work of other roles: no figure is better than a wrong one.
    held = (
        {"myhealth_sync_held_back_seconds": ("Age of the oldest writing transaction.", held_s or 0)} if sees_all else {}
    )
    mark = last.checkpoint if last else None
    verified = (last and last.verified) or {"at": "1970-01-01T00:00:00+00:00", "ids": 0, "differences": {}}
    return {
        "myhealth_sync_rows_behind": (f"Rows not carried over yet; of a table at most {LAG_COUNTED}.", lag.rows),
        "myhealth_sync_seconds_behind": ("Seconds since the first change not carried over yet.", lag.seconds),
        "myhealth_sync_mark_checkup_id": ("Last check-up id stored.", mark.last_checkup_id if mark else 0),
        "myhealth_sync_epoch": ("Number of the epoch.", mark.epoch if mark else 0),
        "myhealth_sync_last_pass_ok": ("Whether it reached both stores.", int(bool(last and not last.problem))),
        "myhealth_sync_last_pass_timestamp_seconds": ("When it ended.", last.ended_at.timestamp() if last else 0),
        "myhealth_sync_last_pass_seconds": (
            "How long it took.", (last.ended_at - last.began_at).total_seconds() if last else 0,
        ),
        "myhealth_sync_set_aside": ("Documents that MongoDB refused.", (last and last.done.get("set_aside")) or 0),
        "myhealth_sync_verify_timestamp_seconds": (
            "When a sample of both stores was compared.", datetime.fromisoformat(verified["at"]).timestamp(),
        ),
        "myhealth_sync_verify_ids": ("Ids in that sample.", verified["ids"]),
        "myhealth_sync_verify_differences": ("Differences in it.", sum(verified["differences"].values())),
    } | held  # fmt: skip


LARGE_BODIES_BUSY = partial(Busy, "Other large uploads are being stored; send it again in a moment.", 10)
BODIES_BUSY = partial(Busy, "Other uploads of yours are being stored; send it again in a moment.", 2)
BODIES_OF_A_USER = 4  # of eight threads


class UploadContext:
    """The settings, the signer and verifier of tokens, and PostgreSQL, which the models are bound to.

    `open` opens PostgreSQL for the first request that needs it. `check_ready` raises unless requests can be served.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.signer = Signer(load_secret(settings), settings.token_ttl_s)
        self.verifier = Verifier(self.signer.jwks)
        # One large body at a time, so that their memory does not add up. Each that waits is a thread less for others.
        self.large_bodies = Gate(slots=1, waiting=2, wait_s=60, refusal=LARGE_BODIES_BUSY)
        self.bodies = Gate(BODIES_OF_A_USER, refusal=BODIES_BUSY)
        self.open = Once(self._open)
        self.check_ready = Once(lambda: check_ready(self.open()), keep_s=1.0)
        self.metrics_listen = settings.upload.metrics_listen
        self._watch: Watch | None = None
        self.notifier: Notifier | None = None

    def _open(self) -> str:
        url = database_url(self.settings)
        open_database(self.settings, is_served=True)
        warn_of_data_in_the_log()
        self._watch = Watch(database.obj, url, observe_pool)
        self.notifier = Notifier(database.obj)
        return url

    def close(self) -> None:
        if self._watch is not None and self.notifier is not None:
            self.notifier.stop()  # before the watch, which ends its wait if PostgreSQL hangs
            self._watch.stop()
        close_database()

    def release_connection(self) -> None:
        pool = database.obj
        if pool is not None and not pool.is_closed():
            pool.close()

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
    """A view whose audit events name the caller: `user`, set if `login_required`, and the network `address`. A change
    by an admin that fails is recorded as a refusal.

    `parameters`: those of the address, if the verb describes any.
    """

    context: UploadContext
    user: User
    address: str
    parameters: dict[str, str]
    login_required = True
    refused = False  # and recorded
    # The answer for a username that does not exist, or that the caller may not know.
    unknown_user = "{} Does not Exists"

    def perform(self, verb: str, **parts: Any) -> Any:
        if self.context.notifier is None:
            self.context.open()
        self.address = client_address()
        actor = Actor(None, None, self.address)
        if self.login_required:
            self.user = self.context.user_of_token(bearer_token())
            actor = Actor(self.user.id, self.user.username, self.address)
        described = self.spec[verb]
        if verb == "get" or described.query:
            self.parameters = query_parameters(*described.parameters)
        with acting_as(actor):
            if isinstance(described.roles, tuple):
                self.require(*described.roles)
            try:
                return getattr(self, verb)(**parts)
            except BadInput:
                if self.login_required and self.user.role == "admin" and verb != "get" and not self.refused:
                    self.record_refusal(parts.get("username"))
                raise

    def flag(self, name: str) -> bool:
        """Return a boolean parameter of the address; False if it is missing. Raises BadInput."""
        return name in self.parameters and parse_boolean(name, self.parameters[name])

    def numbered_page(self) -> tuple[int, int | None]:
        """Return the parameters `limit` and `after` of a list of numbered rows, the newest first. Raises BadInput."""
        limit, after = page_limit(self.parameters), self.parameters.get("after")
        if after is not None and not (after.isascii() and after.isdecimal() and len(after) < 19):
            raise BadInput("after must be the value that a Link header gave.")
        return limit, None if after is None else int(after)

    def require(self, *roles: str) -> None:
        """Raise NotAllowed, and record the refusal, unless the caller has one of these roles."""
        if self.user.role not in roles:
            self.refuse(None, f"That is for the role {' or '.join(roles)} only; yours is {self.user.role}.")

    def refuse(self, subject: User | None, message: str, **details: Any) -> NoReturn:
        self.record_refusal(subject)
        raise NotAllowed(message, **details)

    def record_refusal(self, subject: User | str | None = None, kind: str = "") -> None:
        """Record the audit event of a refused request. `subject`: the user whose data was asked for, or a name that was
        not looked up. Equal refusals are summed, those of different `kind` apart."""
        named: dict[str, Any] = {"subject": subject}
        if isinstance(subject, User):
            named = {"subject_id": subject.id, "subject": subject.username}
        self.refused = True
        request = f"{bottle.request.method} {bottle.request.path[:200]}"
        record_refusal("refused", request, kind=kind, request=request, **named)

    def record_read(self, user: User, what: str, **details: Any) -> None:
        """Record an access to the data of another user than the caller."""
        if user.id != self.user.id:
            record_event("read", subject_id=user.id, subject=user.username, what=what, **details)

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


def record_shown(users: Iterable[User]) -> None:
    """Record an access to each user about whom a list shows more than the name."""
    told = [(user.id, user.username) for user in users if user.birth_date or user.sex]
    with transaction():
        record_events("read", told, what="profile")


ENDED = (
    TOKENS_VALID_AFTER,
    {"type": "string", "format": "date-time"},
    "Tokens issued before this moment are revoked; absent if none is.",
)


def ended_header(tokens_valid_after: datetime | None) -> dict[str, str]:
    """Return the header that tells the browse API, before the sync does, which tokens are revoked."""
    return {TOKENS_VALID_AFTER: tokens_valid_after.isoformat()} if tokens_valid_after else {}
