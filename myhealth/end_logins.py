"""End a user's logins at the browse API at once, instead of with the sync's next pass.

needs: common, profiles, reports, sync, stores, embedded
"""

import json
import logging
from contextlib import closing

from myhealth.common.database import transaction
from myhealth.common.errors import MyHealthError
from myhealth.common.settings import Settings
from myhealth.embedded import servers
from myhealth.profiles.identifiers import list_identifiers
from myhealth.profiles.models import User
from myhealth.reports.documents import UserRow, user_document
from myhealth.reports.writer import ReportWriter
from myhealth.stores import open_reports
from myhealth.sync.checkpoint import from_document
from myhealth.sync.targets import ReportsApi, Target

log = logging.getLogger(__name__)

SELECTION_TIMEOUT_MS = 2_000


def end_logins(settings: Settings, user: User) -> bool:
    """Write the user's row as it is now to the report store, as a pass of the sync does. If the row is gone, remove the
    user's document and reports. So a late call undoes nothing.

    Return False if that is not possible now; the next pass of the sync carries the same over.
    """
    try:
        if settings.sync.reports_api_url:
            return _write(ReportsApi(settings), user)
        if not settings.mongo_url and not servers(settings.folder)[1].answers():
            return False
        with closing(open_reports(settings, serverSelectionTimeoutMS=SELECTION_TIMEOUT_MS)) as reports:
            return _write(ReportWriter(reports), user)
    except MyHealthError as error:
        log.warning("the browse API ends the logins of user %s with the next sync: %s", user.id, error.message)
        return False


def _write(target: Target, user: User) -> bool:
    checkpoint = from_document(target.read_checkpoint())
    if checkpoint is None:
        return False
    with transaction():  # locked, so that no erasure comes between
        now = User.select().where(User.subject == user.subject).for_update("FOR SHARE").first()  # type: ignore[arg-type]
        if now is not None:
            converted = ("xid", "subject", "birth_date", "identifiers")
            values = {name: getattr(now, name) for name in UserRow._fields if name not in converted}
            born = now.birth_date and now.birth_date.isoformat()
            numbers = json.dumps([{"system": system, "value": value} for system, value in list_identifiers(now)])
            row = UserRow(**values, xid=0, subject=str(now.subject), birth_date=born, identifiers=numbers)
            target.put("user", [user_document(row, checkpoint.epoch)])
            return True
    target.remove("user", [(user.id, user.revision + 1)], checkpoint.epoch)
    target.erase_person(user.id, str(user.subject))
    return True
