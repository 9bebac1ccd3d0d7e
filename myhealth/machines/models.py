"""The `machines` table."""

import peewee
from playhouse.postgres_ext import BinaryJSONField

from myhealth.common.database import BaseModel, TimestampField


class Machine(BaseModel):
    """A machine that takes measurements. A trigger keeps `id` and `serial` unchanged: reports carry them.
    `layout`: of its tables, as text. `codes`: {test: {unit: LOINC code}}, as `services.map_test` keeps them."""

    serial = peewee.TextField(unique=True)
    model = peewee.TextField(null=True)
    site = peewee.TextField(null=True)
    firmware = peewee.TextField(null=True)
    layout = peewee.TextField(null=True)
    codes = BinaryJSONField(null=True)
    last_upload_at = TimestampField(null=True)

    class Meta:
        table_name = "machines"
