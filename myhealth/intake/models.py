"""The tables of the intake: `rejections`, `superseded` and `idempotency_keys`."""

import peewee
from playhouse.postgres_ext import BinaryJSONField

from myhealth.common.database import DEFAULT_NOW, IdentityField, Table, TimestampField
from myhealth.machines.models import Machine
from myhealth.profiles.models import User

# Days for which an idempotency key answers a repeated request.
KEPT_DAYS = 7


class Rejection(Table):
    """A rejected record, whole. `payload`: its text as sent, or base64 where `context["base64"]` is true. `digest` is
    unique among the unresolved rejections. `checkup_id`: the check-up that a retry stored. `user_id`: the user who
    uploaded it."""

    id = IdentityField()
    received_at = TimestampField(constraints=[DEFAULT_NOW])
    source = peewee.TextField()
    payload = peewee.TextField()
    context = BinaryJSONField(constraints=[peewee.SQL("DEFAULT '{}'")])
    errors = BinaryJSONField()
    digest = peewee.BlobField()
    times = peewee.IntegerField(constraints=[peewee.SQL("DEFAULT 1")])
    resolved_at = TimestampField(null=True)
    resolution = peewee.TextField(null=True)
    checkup_id = peewee.BigIntegerField(null=True)
    user_id = peewee.BigIntegerField(null=True)

    class Meta:
        table_name = "rejections"


class Original(Table):
    """A digest of a machine's record as it first came, for a check-up that was corrected or deleted since. `numbers`:
    those of the FHIR resources in a deleted one. Without a patient: a deletion that came before what it names."""

    checkup_id = peewee.BigIntegerField(primary_key=True)
    patient = peewee.ForeignKeyField(User, null=True, on_delete="CASCADE")
    machine = peewee.ForeignKeyField(Machine, null=True, on_delete="CASCADE")
    record_id = peewee.TextField()
    digest = peewee.BlobField()
    taken_at = TimestampField()
    deleted = peewee.BooleanField()
    at = TimestampField(constraints=[DEFAULT_NOW])
    numbers = BinaryJSONField(null=True)
    details = BinaryJSONField(null=True)

    class Meta:
        table_name = "superseded"


class IdempotencyKey(Table):
    """The answer to a request that came under an Idempotency-Key. `request`: a digest of the request."""

    user = peewee.ForeignKeyField(User, on_delete="CASCADE")
    key = peewee.TextField()
    created_at = TimestampField(constraints=[DEFAULT_NOW])
    request = peewee.BlobField()
    status = peewee.IntegerField(null=True)
    answer = peewee.TextField(null=True)

    class Meta:
        table_name = "idempotency_keys"
        primary_key = peewee.CompositeKey("user", "key")
