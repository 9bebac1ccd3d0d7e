"""The tables `users`, `patient_identifiers`, `invitations`, `login_attempts`, `erased_digests` and `erasure_key`."""

import peewee

from myhealth.common.database import DEFAULT_CLOCK, DEFAULT_NOW, FeedModel, IdentityField, Table, TimestampField
from myhealth.profiles import ROLES, SEXES

# Days for which a network counts as known after a user has logged in from it.
KNOWN_DAYS = 30
INVITATION_DAYS = 14
FULL_NAME_MAX = 300
FHIR_REFERENCE = "fhir-reference:"  # begins the system of a patient's FHIR references
# The condition of identifiers that an authority gave.
OF_AUTHORITIES = f"system <> '' and not starts_with(system, '{FHIR_REFERENCE}')"

Key = tuple[str, str]  # an identifier: system, value


def reference_system(system: str, patient_id: int) -> str:
    """Return the system under which FHIR references to a patient are stored, if an identifier of `system` came with
    them.

    Each patient has its own such system: a reference that comes to mean another patient keeps its earlier meaning.
    """
    return f"{FHIR_REFERENCE}{system}#{patient_id}"


class User(FeedModel):
    """A person or a program with an account. `folded_name` is unique: `fold_name` of the username.

    `subject` identifies the user for good: after a restore, ids may be assigned again. The database revokes the tokens
    issued before `tokens_valid_after`, which it sets when the password changes or the user is disabled. `linked_at`:
    when staff or an import linked the account to a person; records for an account without it are rejected.
    `needs_review`: the user registered the account before links were required.
    """

    username = peewee.TextField()
    password_hash = peewee.TextField(null=True)
    role = peewee.TextField(default="patient", choices=[(role, role) for role in ROLES])
    full_name = peewee.TextField(default="")
    active = peewee.BooleanField(default=True)
    tokens_valid_after = TimestampField(null=True)
    subject = peewee.UUIDField(unique=True, constraints=[peewee.SQL("DEFAULT gen_random_uuid()")])
    folded_name = peewee.TextField(unique=True)
    linked_at = TimestampField(null=True)
    needs_review = peewee.BooleanField(default=False)
    birth_date = peewee.DateField(null=True)
    sex = peewee.TextField(null=True, choices=[(sex, sex) for sex in SEXES])

    class Meta:
        table_name = "users"


class PatientIdentifier(Table):
    """A number that an authority (`system`) gave to a patient. `source_name`: what the source calls the patient.

    Two kinds of `system` are MyHealth's own: "" for folded usernames that sources gave without an authority, and
    "fhir-reference:…" for what FHIR resources call the patient.
    """

    id = IdentityField()
    patient = peewee.ForeignKeyField(User, on_delete="CASCADE")
    system = peewee.TextField()
    value = peewee.TextField()
    source_name = peewee.TextField(null=True)
    created_at = TimestampField(constraints=[DEFAULT_NOW])

    class Meta:
        table_name = "patient_identifiers"
        indexes = ((("value", "system"), True),)


class Invitation(Table):
    """The keyed digest of the code with which a patient sets a password, for INVITATION_DAYS."""

    user = peewee.ForeignKeyField(User, primary_key=True, on_delete="CASCADE")
    digest = peewee.BlobField()
    created_at = TimestampField(index=True, constraints=[DEFAULT_NOW])

    class Meta:
        table_name = "invitations"


class LoginAttempt(Table):
    """An attempt to log in, or (`kind` registration) an account made without a login; for throttling only.

    `username`: the folded name if no user has it, else empty. `address`: the network. `finished`: the check has ended.
    """

    id = IdentityField()
    at = TimestampField(index=True, constraints=[DEFAULT_CLOCK])
    kind = peewee.TextField(choices=[("login", "login"), ("registration", "registration")])
    user = peewee.ForeignKeyField(User, null=True, on_delete="CASCADE", index=False)
    username = peewee.TextField()
    address = peewee.TextField()
    succeeded = peewee.BooleanField(default=False)
    finished = peewee.BooleanField(default=True)

    class Meta:
        table_name = "login_attempts"
        indexes = ((("username", "at"), False), (("address", "at"), False), (("user", "at"), False))


class ErasedDigest(Table):
    """A keyed digest of the name, or of a machine record, of an erased person (`keyed_digest` of migration 10)."""

    kind = peewee.TextField(choices=[("name", "name"), ("record", "record")])
    digest = peewee.BlobField()
    at = TimestampField(constraints=[DEFAULT_NOW])

    class Meta:
        table_name = "erased_digests"
        primary_key = peewee.CompositeKey("kind", "digest")


class ErasureKey(Table):
    """The random key of the digests, padded twice as HMAC needs it; one row, made by the migration."""

    one = peewee.BooleanField(primary_key=True, default=True)
    inner_key = peewee.BlobField()
    outer_key = peewee.BlobField()

    class Meta:
        table_name = "erasure_key"
