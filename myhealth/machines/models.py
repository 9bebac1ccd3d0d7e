"""The machines table as peewee sees it; DESIGN.md, "Source of truth", names its columns."""

from __future__ import annotations

import peewee

from myhealth.common.database import BaseModel, TimestampField


class Machine(BaseModel):
    serial = peewee.TextField()
    model = peewee.TextField(null=True)
    site = peewee.TextField(null=True)
    firmware = peewee.TextField(null=True)
    last_upload_at = TimestampField(null=True)

    class Meta:
        table_name = "machines"
