"""The client of the upload API: log in and out, delete a user, change a password, read versions, fetch the public keys.

It needs HTTP and no database.
"""

import json
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from myhealth.common.concurrency import Gate
from myhealth.common.decoding import exact_number
from myhealth.common.errors import (
    BadInput,
    Conflict,
    MyHealthError,
    NotAllowed,
    NotFound,
    NotLoggedIn,
    Unavailable,
    too_many_attempts,
)
from myhealth.common.http_client import BadResponse, HttpClient, NoResponse, Response, ResponseTimeout

TIMEOUT_S = 10
# Threads that wait for the upload API to check a password, in one process: its others go on serving reports.
LOGINS_MAX = 4
KEYS_TIMEOUT_S = 2
RESPONSE_MAX_BYTES = 4 * 1024 * 1024  # all earlier versions of a check-up
JWKS_PATH = "/.well-known/jwks.json"
# Response header, RFC 3339: tokens issued before this moment are not valid.
TOKENS_VALID_AFTER, PREVIOUS_LOGIN = "Tokens-Valid-After", "Previous-Login"
# Statuses with which the upload API reports an error of the caller; any other error is its own.
CALLER_ERRORS: dict[int, type[MyHealthError]] = {
    400: BadInput, 401: NotLoggedIn, 403: NotAllowed, 404: NotFound, 409: Conflict
}  # fmt: skip


class BadGateway(Unavailable):
    """The upload API sent a response that it should not send."""

    status, code = 502, "bad_gateway"


class GatewayTimeout(Unavailable):
    """The upload API takes too long."""

    status, code = 504, "gateway_timeout"


class UploadApiUnavailable(Unavailable):
    """The upload API cannot be reached, or cannot respond now."""


class Messages(NamedTuple):
    """The messages, for people, of one operation's errors."""

    unavailable: str
    timeout: str
    failed: str


LOG_IN = Messages(
    "Logging in is not possible right now; try again in a moment.",
    "Logging in takes too long right now; try again in a moment.",
    "Logging in is not possible right now: the upload API reports an error.",
)
LOG_OUT = Messages(*["Logging out everywhere is not possible right now; try again in a moment."] * 3)
CHANGE_USER = Messages(
    "The upload API is unavailable; try again in a moment.",
    "The upload API takes too long; look whether it is done.",
    "The upload API reports an error.",
)


class UploadClient:
    """The upload API at `auth_url`. Safe to share between threads; opens nothing before the first call."""

    def __init__(self, auth_url: str) -> None:
        self._url = auth_url
        self._logins = Gate(slots=LOGINS_MAX)
        self._http = HttpClient(auth_url, timeout_s=TIMEOUT_S, response_max_bytes=RESPONSE_MAX_BYTES)

    def close(self) -> None:
        self._http.close()

    def log_in(self, username: Any, password: Any, address: str = "") -> dict[str, str] | None:
        """Return `{"token", "expires_at"}`, or None if the username or the password is wrong.

        With `previous_login_at`, the user's last login before this one, and `password_reset_at` if another person has
        set the password since, each if there was one.
        `address`: the caller's, so that someone who guesses passwords slows down only himself or herself.
        Raises TooManyAttempts, Busy, UploadApiUnavailable, BadGateway.
        """
        try:
            return self._log_in("/login/", {"username": username, "password": password}, address, repeatable=True)
        except GatewayTimeout as error:  # a login changes nothing, so it may be repeated as after any 503
            raise UploadApiUnavailable(LOG_IN.timeout) from error

    def accept_invitation(self, username: str, code: str, password: str, address: str) -> dict[str, str] | None:
        """Set a password with the code of an invitation, and log in: as `log_in`; None too if the code is wrong.

        After GatewayTimeout the password may be set.
        """
        return self._log_in("/welcome/", {"username": username, "code": code, "password": password}, address)

    def _log_in(
        self, path: str, secrets: dict[str, Any], address: str, *, repeatable: bool = False
    ) -> dict[str, str] | None:
        with self._logins.enter():
            response = self._call(LOG_IN, "POST", path, secrets, address=address, repeatable=repeatable)
        if response.status in (400, 401):
            return None
        try:
            if response.status != 200:
                raise BadResponse(f"status {response.status}")
            found = response.json_object()
            names = ("token", "expires_at", *({"password_reset_at"} & found.keys()))
            before = response.headers.get(PREVIOUS_LOGIN)
            return {name: str(found[name]) for name in names} | ({"previous_login_at": before} if before else {})
        except (BadResponse, KeyError) as error:
            raise BadGateway(LOG_IN.failed) from error

    def log_out(self, token: str) -> datetime | None:
        """Revoke all tokens of this token's user; return the moment before which they were issued.

        Return None if this token was revoked before. Raises UploadApiUnavailable, GatewayTimeout, BadGateway.
        """
        response = self._call(LOG_OUT, "POST", "/logout/", token=token, repeatable=True)
        # A token that is refused for another reason than its end: the clocks or keys of the hosts differ.
        if response.status not in (204, 401) or response.error()[1] == "token_invalid":
            raise UploadApiUnavailable(LOG_OUT.failed)
        return _tokens_valid_after(response) if response.status == 204 else None

    def get_caller(self, token: str) -> dict[str, Any] | None:
        """Return the holder of `token`, with `id`, `username` and `role`; None for staff, who see others as well.

        Raises NotLoggedIn if the token has ended, UploadApiUnavailable, GatewayTimeout, BadGateway.
        """
        with self._logins.enter():
            response = self._call(LOG_IN, "GET", "/users/?limit=2", token=token, repeatable=True)
        if response.status == 401:
            raise NotLoggedIn("The login has ended; log in again.", code="token_ended")
        try:
            users = [{name: each[name] for name in ("id", "username", "role")} for each in json.loads(response.body)]
        except (ValueError, TypeError, KeyError) as error:
            raise BadGateway(LOG_IN.failed) from error
        return users[0] if len(users) == 1 else None

    def delete_user(self, username: str, token: str, address: str = "") -> None:
        """Delete a user with all check-ups, as the holder of `token`. `address`: the caller's, for the audit.

        Raises the error of the caller that the upload API reports (CALLER_ERRORS), UploadApiUnavailable, GatewayTimeout
        (it may be done), BadGateway.
        """
        self._change("DELETE", _user_path(username), token=token, address=address, done=204)

    def list_accounts_to_review(self, token: str, after: str, limit: int, address: str = "") -> list[dict[str, Any]]:
        """Return the accounts that are to be linked to a person, by name, after the name `after`.

        Raises as `delete_user`: NotAllowed unless the token's holder is an admin.
        """
        asked = {"to_review": "true", "limit": limit, **({"after": after} if after else {})}
        names = ("username", "full_name", "created_at", "active", "waiting")
        return self._list(f"/users/?{urlencode(asked)}", names, token, address)

    def link_user(self, username: str, token: str, address: str = "") -> dict[str, Any]:
        """Link an account to its person; return how many waiting records are `accepted`, `duplicate`, `rejected` now.

        Raises as `delete_user`.
        """
        response = self._change("POST", f"{_user_path(username)}link/", token=token, address=address)
        try:
            return response.json_object()
        except BadResponse as error:
            raise BadGateway(CHANGE_USER.failed) from error

    def list_versions(self, username: str, checkup_id: int, token: str, address: str = "") -> list[dict[str, Any]]:
        """Return the earlier versions of a check-up, the newest first, with exact numbers. Raises as `delete_user`."""
        path = f"{_user_path(username)}checkups/{checkup_id}/history/"
        return self._list(path, ("revision", "replaced_at", "replaced_by", "reason", "content"), token, address)

    def review_checkup(
        self, username: str, checkup_id: int, token: str, review: dict[str, Any] | None, address: str = ""
    ) -> None:
        """Mark a check-up as reviewed by the holder of `token` (`review`: its `note` and `revision`); None: take the
        review back. Raises as `delete_user`."""
        method, done = ("DELETE", 204) if review is None else ("POST", 200)
        path = f"{_user_path(username)}checkups/{checkup_id}/review/"
        self._change(method, path, review, token=token, address=address, done=done)

    def list_machines(self, token: str, address: str = "") -> list[dict[str, Any]]:
        """Return `serial` and `site` of all machines. Raises as `delete_user`."""
        return self._list("/machines/", ("serial", "site"), token, address)

    def change_password(self, username: str, token: str, current: str, new: str, address: str = "") -> datetime | None:
        """Change the password of the holder of `token`; return the moment before which revoked tokens were issued.

        `address`: as for `log_in`. Raises as `delete_user`, TooManyAttempts, Busy.
        """
        passwords = {"current_password": current, "password": new}
        with self._logins.enter():
            response = self._change("PUT", _user_path(username), passwords, token=token, address=address)
        return _tokens_valid_after(response)

    def fetch_keys(self) -> dict[str, Any]:
        """Return the public keys, a JSON Web Key Set with a name (`kid`) for each. Raises Unavailable."""
        try:
            response = self._http.call("GET", JWKS_PATH, timeout_s=KEYS_TIMEOUT_S, repeatable=True)
            keys = response.json_object()
            if response.status == 200 and all(isinstance(jwk["kid"], str) for jwk in keys["keys"]):
                return keys
        except (Unavailable, KeyError, TypeError) as error:
            raise Unavailable(f"the upload API at {self._url} gives no keys: {error}") from error
        raise Unavailable(f"the upload API at {self._url} gives no keys: status {response.status}")

    def _list(self, path: str, names: tuple[str, ...], token: str, address: str) -> list[dict[str, Any]]:
        """Return these fields of each object of a list. Raises as `delete_user`."""
        response = self._change("GET", path, token=token, address=address)
        try:
            found = json.loads(response.body, parse_float=exact_number)
            return [{name: each[name] for name in names} for each in found]
        except (ValueError, TypeError, KeyError) as error:
            raise BadGateway(CHANGE_USER.failed) from error

    def _change(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, token: str, address: str, done: int = 200
    ) -> Response:
        """Send one request about users; return its response, of the status `done`. Raises as `delete_user`."""
        response = self._call(CHANGE_USER, method, path, body, token=token, address=address)
        if response.status == done:
            return response
        details, code = response.error()
        if response.status not in CALLER_ERRORS or not code:
            raise BadGateway(CHANGE_USER.failed)
        raise CALLER_ERRORS[response.status](details, code=code)

    def _call(
        self,
        messages: Messages,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        token: str = "",
        address: str = "",
        repeatable: bool = False,
    ) -> Response:
        headers = {
            **({"Content-Type": "application/json"} if body is not None else {}),
            **({"Authorization": f"Bearer {token}"} if token else {}),
            **({"X-Forwarded-For": address} if address else {}),
        }
        content = None if body is None else json.dumps(body).encode()
        try:
            response = self._http.call(method, path, content, headers, repeatable=repeatable)
        except ResponseTimeout as error:
            raise GatewayTimeout(messages.timeout) from error
        except NoResponse as error:
            raise UploadApiUnavailable(messages.unavailable) from error
        except BadResponse as error:
            raise BadGateway(messages.failed) from error
        if response.status == 429:
            raise too_many_attempts(_retry_after_s(response))
        if response.status == 503:
            raise UploadApiUnavailable(messages.unavailable, retry_after_s=_retry_after_s(response, 5))
        if response.status == 504:  # from a gateway in front of the upload API
            raise GatewayTimeout(messages.timeout)
        return response


def _user_path(username: str) -> str:
    return f"/users/{quote(username, safe='')}/"


def _tokens_valid_after(response: Response) -> datetime | None:
    try:
        moment = datetime.fromisoformat(response.headers.get(TOKENS_VALID_AFTER, ""))
    except ValueError:
        return None
    return moment if moment.tzinfo else None


def _retry_after_s(response: Response, default: int = 60) -> int:
    text = response.headers.get("Retry-After", "")
    return min(int(text), 3600) if text.isascii() and text.isdecimal() and len(text) < 10 else default
