"""The users table as peewee sees it; DESIGN.md, "Source of truth", names its columns."""

from __future__ import annotations

import peewee

from myhealth.common.database import BaseModel, TimestampField

ROLES = ("patient", "doctor", "technician", "admin", "service")


class User(BaseModel):
    username = peewee.TextField()
    password_hash = peewee.TextField(null=True)
    role = peewee.TextField(default="patient")
    full_name = peewee.TextField(default="")
    active = peewee.BooleanField(default=True)
    tokens_valid_after = TimestampField(null=True)
    subject = peewee.UUIDField()

    class Meta:
        table_name = "users"
