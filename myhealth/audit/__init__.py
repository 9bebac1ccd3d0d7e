"""The audit trail: every login, refusal, access to another user's record, upload and change of an account.

needs: common, reports
"""

ACTIONS = (
    "login",
    "logout",
    "register",
    "refused",
    "upload",
    "import",
    "read",
    "sync",
    "user.create",
    "user.change",
    "user.delete",
    "user.invite",
    "user.link",
    "checkup.change",
    "checkup.delete",
    "checkup.review",
    "rejection.retry",
    "rejection.discard",
    "machine.change",
)
# The APIs that record events.
SOURCES = ("upload", "browse")
