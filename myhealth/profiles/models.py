"""The tables `users` and `login_attempts`."""

from __future__ import annotations

import peewee

from myhealth.common.database import DEFAULT_CLOCK, FeedModel, IdentityField, Table, TimestampField

ROLES = ("patient", "doctor", "technician", "admin", "service")


class User(FeedModel):
    """A person or a program with an account. `username` is unique without regard to case.

    `subject` identifies the user for good: after a restore, ids may be assigned again. The database revokes the tokens
    issued before `tokens_valid_after`, which it sets when the password changes or the user is disabled.
    """

    username = peewee.TextField()
    password_hash = peewee.TextField(null=True)
    role = peewee.TextField(default="patient", choices=[(role, role) for role in ROLES])
    full_name = peewee.TextField(default="")
    active = peewee.BooleanField(default=True)
    tokens_valid_after = TimestampField(null=True)
    subject = peewee.UUIDField(unique=True, constraints=[peewee.SQL("DEFAULT gen_random_uuid()")])

    class Meta:
        table_name = "users"


class LoginAttempt(Table):
    """An attempt to log in, or (`kind` registration) an account made without a login; for throttling only."""

    id = IdentityField()
    at = TimestampField(index=True, constraints=[DEFAULT_CLOCK])
    kind = peewee.TextField(choices=[("login", "login"), ("registration", "registration")])
    username = peewee.TextField()
    address = peewee.TextField()
    succeeded = peewee.BooleanField(default=False)

    class Meta:
        table_name = "login_attempts"
        indexes = ((("username", "at"), False), (("address", "at"), False))
