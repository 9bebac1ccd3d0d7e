"""The tables `audit_events`, which is append-only (the database refuses to change or delete a row), and `refusals`."""

import peewee
from playhouse.postgres_ext import BinaryJSONField

from myhealth.common.database import DEFAULT_CLOCK, DEFAULT_NOW, IdentityField, Table, TimestampField


class AuditEvent(Table):
    """One event. Users are named as they were called then, and have no foreign key: events outlive users."""

    id = IdentityField()
    at = TimestampField(constraints=[DEFAULT_CLOCK])
    actor_id = peewee.BigIntegerField(null=True)
    actor = peewee.TextField(null=True)
    action = peewee.TextField()
    subject_id = peewee.BigIntegerField(null=True)
    subject = peewee.TextField(null=True)
    address = peewee.TextField(null=True)
    outcome = peewee.TextField(choices=[("done", "done"), ("refused", "refused")])
    details = BinaryJSONField(constraints=[peewee.SQL("DEFAULT '{}'")])

    class Meta:
        table_name = "audit_events"
        indexes = ((("subject_id", "id"), False), (("actor_id", "id"), False))


class Refusal(Table):
    """The count of equal refusals in one minute that share one event. `key`: `common.refusals.refusal_key`."""

    key = peewee.BlobField(primary_key=True)
    event_id = peewee.BigIntegerField(unique=True)
    count = peewee.IntegerField(constraints=[peewee.SQL("DEFAULT 1")])
    at = TimestampField(index=True, constraints=[DEFAULT_NOW])

    class Meta:
        table_name = "refusals"
