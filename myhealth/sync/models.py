"""The tables of the sync in PostgreSQL: `tombstones`, `sync_witness` and `sync_pass`."""

import peewee
from playhouse.postgres_ext import BinaryJSONField

from myhealth.common.database import (
    DEFAULT_CLOCK,
    DEFAULT_NOW,
    DEFAULT_TRANSACTION,
    IdentityField,
    Table,
    TimestampField,
    TransactionField,
)


class Tombstone(Table):
    """A deleted row of `checkups` or `users`; triggers write it. `kind`: checkup or user."""

    id = IdentityField()
    kind = peewee.TextField()
    row_id = peewee.BigIntegerField()
    revision = peewee.IntegerField()
    deleted_at = TimestampField(constraints=[DEFAULT_NOW])
    changed_in = TransactionField(constraints=[DEFAULT_TRANSACTION])

    class Meta:
        table_name = "tombstones"


class SyncWitness(Table):
    """A marker row that each pass inserts before it writes documents: after a point-in-time restore it is missing."""

    nonce = peewee.UUIDField(primary_key=True, constraints=[peewee.SQL("DEFAULT gen_random_uuid()")])
    written_at = TimestampField(constraints=[DEFAULT_NOW])

    class Meta:
        table_name = "sync_witness"


class SyncPass(Table):
    """How the last pass ended, in one row. The sync itself reads its checkpoint from the report store."""

    one = peewee.BooleanField(primary_key=True, constraints=[peewee.SQL("DEFAULT true")])
    began_at = TimestampField()
    ended_at = TimestampField(constraints=[DEFAULT_CLOCK])
    problem = peewee.TextField()
    mark = BinaryJSONField(null=True)
    done = BinaryJSONField()

    class Meta:
        table_name = "sync_pass"
