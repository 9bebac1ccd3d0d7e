"""End a user's logins at the browse API at once, instead of with the sync's next pass.

needs: common, profiles, reports, sync, stores, embedded
"""

from __future__ import annotations

import logging
from contextlib import closing
from datetime import UTC, datetime

from myhealth.common.errors import MyHealthError
from myhealth.common.settings import Settings
from myhealth.embedded import servers
from myhealth.profiles.models import User
from myhealth.stores import open_reports

log = logging.getLogger(__name__)

SELECTION_TIMEOUT_MS = 2_000


def end_logins(settings: Settings, user: User, *, deleted: bool = False) -> bool:
    """Write to the report store which of the user's tokens are valid, and with which role.

    `deleted`: the user is erased in PostgreSQL; no token is valid, and if MongoDB is reached itself, the reports are
    removed. The report store is reached as the sync reaches it. Return False if that is not possible now; the next pass
    of the sync carries the same over.
    """
    try:
        if settings.sync.reports_api_url:
            return _send(settings, user, deleted)
        if not settings.mongo_url and not servers(settings.folder)[1].answers():
            return False
        with closing(open_reports(settings, serverSelectionTimeoutMS=SELECTION_TIMEOUT_MS)) as reports:
            moment = user.tokens_valid_after or datetime.fromtimestamp(0, UTC)
            active = user.active and not deleted
            reports.people.revoke_tokens(str(user.subject), moment, role=user.role, active=active)
            if deleted:
                from myhealth.reports.writer import ReportWriter

                ReportWriter(reports).erase_person(user.id, str(user.subject))
    except MyHealthError as error:
        log.warning("the browse API ends the logins of user %s with the next sync: %s", user.id, error.message)
        return False
    return True


def _send(settings: Settings, user: User, deleted: bool) -> bool:
    """Send the user's document, or its deletion, as a pass of the sync does."""
    # Imported here: they import PyMongo, which every command about users would wait for.
    from myhealth.reports.documents import UserRow, user_document
    from myhealth.sync.checkpoint import from_document
    from myhealth.sync.reports_api_client import ReportsApiClient
    from myhealth.sync.targets import ReportsApi

    target = ReportsApi(ReportsApiClient(settings))
    checkpoint = from_document(target.read_checkpoint())
    if checkpoint is None:
        return False
    if deleted:
        target.remove("user", [(user.id, user.revision + 1)], checkpoint.epoch)
        return True
    values = {name: getattr(user, name) for name in UserRow._fields if name not in ("xid", "subject")}
    row = UserRow(**values, xid=0, subject=str(user.subject))
    target.put("user", [user_document(row, checkpoint.epoch)])
    return True
