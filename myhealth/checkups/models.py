"""The `checkups` table. Its columns are defined here once; `columns` derives from them all other lists of columns."""

from __future__ import annotations

import peewee
from playhouse.postgres_ext import BinaryJSONField

from myhealth.common.database import (
    DEFAULT_NOW,
    FeedModel,
    TimestampField,
)
from myhealth.machines.models import Machine
from myhealth.profiles.models import User


class Checkup(FeedModel):
    """A check-up of one patient. (machine, record_id) is unique where record_id is set, also for records without a
    machine."""

    patient = peewee.ForeignKeyField(User, on_delete="CASCADE")
    machine = peewee.ForeignKeyField(Machine, null=True)
    record_id = peewee.TextField(null=True)
    checkup_type = peewee.TextField()
    checkup_report = peewee.TextField()
    disease = peewee.TextField()
    taken_by = peewee.TextField(null=True)
    taken_at = TimestampField(constraints=[DEFAULT_NOW])
    results = BinaryJSONField(constraints=[peewee.SQL("DEFAULT '[]'")])

    class Meta:
        table_name = "checkups"
        indexes = ((("machine", "record_id"), True),)
