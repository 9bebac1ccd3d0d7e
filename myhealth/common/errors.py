"""One small tree of errors, split by a single question: can a retry help?

    MyHealthError
    ├── BadInput            no: the input must change
    │   ├── NotFound        no: the named thing does not exist
    │   ├── Conflict        no: it contradicts stored data
    │   └── TooLarge        no: over a limit that the message names
    ├── NotAllowed          no: this caller may not
    │   └── NotLoggedIn     no: the caller is unknown
    ├── SettingsError       no: the settings must change
    │   └── SchemaMismatch  no: `myhealth migrate` must run
    └── Unavailable         yes: a store or a service is unavailable; the same call may succeed later
        ├── MissingPrivilege  yes, once an operator grants a right to our database role
        ├── Busy            yes, after `retry_after_s`: too many do the same expensive thing now
        └── TooManyAttempts yes, after `retry_after_s`

Every error has the exit code of a command, the status of an HTTP response, a `code` for programs, an optional hint for
people, and an optional list of errors with their positions. The command line's click group and the applications' Bottle
plugin translate them; nothing else catches them.
"""

from collections.abc import Sequence
from typing import Any


class MyHealthError(Exception):
    """The base class; raised itself only for a job that was partly done (exit code 1).

    `errors`: each `{"index": int or None, "field": str or None, "message": str}`.
    """

    exit_code = 1
    status = 500
    code = "error"

    def __init__(self, message: str, *, code: str = "", hint: str = "", errors: Sequence[dict[str, Any]] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.code
        self.hint = hint
        self.errors = list(errors)


class BadInput(MyHealthError):
    exit_code, status, code = 2, 400, "bad_input"


class NotFound(BadInput):
    status, code = 404, "not_found"


class Conflict(BadInput):
    status, code = 409, "conflict"


class TooLarge(BadInput):
    status, code = 413, "too_large"


class NotAllowed(MyHealthError):
    exit_code, status, code = 77, 403, "not_allowed"


class NotLoggedIn(NotAllowed):
    status, code = 401, "not_logged_in"


class SettingsError(MyHealthError):
    exit_code, status, code = 78, 500, "wrong_settings"


class SchemaMismatch(SettingsError):
    status, code = 503, "schema_mismatch"


class Unavailable(MyHealthError):
    """A store or a service is unavailable. `retry_after_s`: seconds after which a client may try again."""

    exit_code, status, code = 75, 503, "unavailable"

    def __init__(self, message: str, *, retry_after_s: int = 5, **details: Any) -> None:
        super().__init__(message, **details)
        self.retry_after_s = retry_after_s


class MissingPrivilege(Unavailable):
    """Our own role in the database lacks a right: an operator's task, never the client's fault."""

    exit_code = 77


class Busy(Unavailable):
    """Too many threads do this kind of work now. It is refused before anything is done or counted."""

    code = "busy"

    def __init__(
        self, message: str = "Too many people log in right now; try again in a second.", retry_after_s: int = 1
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s)


class TooManyAttempts(Unavailable):
    """The caller must wait. `network`: the one that the attempts came from, if it is known."""

    status, code = 429, "too_many_attempts"
    network = ""


def too_many_attempts(wait_s: int, network: str = "") -> TooManyAttempts:
    """Return the error that states how long to wait."""
    minutes = max(1, -(-wait_s // 60))
    when = "a minute" if minutes == 1 else f"{minutes} minutes"
    error = TooManyAttempts(f"There were too many attempts to log in; try again in {when}.", retry_after_s=wait_s)
    error.network = network
    return error
