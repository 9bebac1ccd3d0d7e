"""The tables of check-ups as peewee sees them; DESIGN.md, "Source of truth", names their columns."""

from __future__ import annotations

import peewee
from playhouse.postgres_ext import BinaryJSONField

from myhealth.common.database import BaseModel, IdentityField, TimestampField, database
from myhealth.machines.models import Machine
from myhealth.profiles.models import User


class Checkup(BaseModel):
    patient = peewee.ForeignKeyField(User, on_delete="CASCADE")
    machine = peewee.ForeignKeyField(Machine, null=True)
    record_id = peewee.TextField(null=True)
    checkup_type = peewee.TextField()
    checkup_report = peewee.TextField()
    disease = peewee.TextField()
    taken_by = peewee.TextField(null=True)
    taken_at = TimestampField()
    results = BinaryJSONField(default=list)
    revision = peewee.IntegerField(default=1)

    class Meta:
        table_name = "checkups"


class Rejection(peewee.Model):
    """A refused record, whole. `payload`: its text as sent, or base64 where `context["base64"]` says so."""

    id = IdentityField()
    received_at = TimestampField()
    source = peewee.TextField()
    payload = peewee.TextField()
    context = BinaryJSONField(default=dict)
    errors = BinaryJSONField(default=list)
    digest = peewee.BlobField()
    times = peewee.IntegerField(default=1)
    resolved_at = TimestampField(null=True)
    resolution = peewee.TextField(null=True)
    checkup_id = peewee.BigIntegerField(null=True)

    class Meta:
        database = database
        table_name = "rejections"
        only_save_dirty = True
