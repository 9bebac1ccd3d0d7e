"""The `checkups` table. Its columns are defined here once; `columns` derives from them all other lists of columns."""

import peewee
from playhouse.postgres_ext import BinaryJSONField

from myhealth.common.database import DEFAULT_NOW, FeedModel, Table, TimestampField
from myhealth.machines.models import Machine
from myhealth.profiles.models import User


class Checkup(FeedModel):
    """A check-up of one patient. (machine, record_id) is unique where record_id is set, also for records without a
    machine. Reports have the columns in this order, with those that may be left out at the end.

    `status`: FHIR's DiagnosticReport.status; null is final. `taken_precision`: day, month, year or unknown; null is an
    instant; an unknown `taken_at` only sorts. `taken_offset`: minutes east of UTC as sent. `details`: what
    `CheckupDetails` has; `sent`: what the source contains and no field holds. `reviewed_by`: the id of the user who
    reviewed it; a new content ends the review and leaves its note.
    """

    patient = peewee.ForeignKeyField(User, on_delete="CASCADE")
    record_id = peewee.TextField(null=True)
    checkup_type = peewee.TextField()
    checkup_report = peewee.TextField()
    disease = peewee.TextField()
    machine = peewee.ForeignKeyField(Machine, null=True)
    taken_by = peewee.TextField(null=True)
    taken_at = TimestampField(constraints=[DEFAULT_NOW])
    results = BinaryJSONField(constraints=[peewee.SQL("DEFAULT '[]'")])
    status = peewee.TextField(null=True)
    taken_precision = peewee.TextField(null=True)
    taken_offset = peewee.IntegerField(null=True)
    taken_until = TimestampField(null=True)
    issued_at = TimestampField(null=True)
    details = BinaryJSONField(null=True)
    sent = BinaryJSONField(null=True)
    reviewed_at = TimestampField(null=True)
    reviewed_by = peewee.BigIntegerField(null=True)
    review_note = peewee.TextField(null=True)

    class Meta:
        table_name = "checkups"
        indexes = ((("machine", "record_id"), True),)


class CheckupVersion(Table):
    """An earlier version of a check-up. `content`: its columns by name. `replaced_by`: the user who changed it, if one
    did. `reason`: corrected (here, by a person), replaced or withdrawn (by its source)."""

    checkup = peewee.ForeignKeyField(Checkup, on_delete="CASCADE")
    revision = peewee.IntegerField()
    replaced_at = TimestampField(constraints=[DEFAULT_NOW])
    replaced_by = peewee.BigIntegerField(null=True)
    reason = peewee.TextField()
    content = BinaryJSONField()

    class Meta:
        table_name = "checkup_versions"
        primary_key = peewee.CompositeKey("checkup", "revision")
