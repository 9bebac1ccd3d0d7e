"""What the browse API has the upload API do for somebody, with that somebody's own token. Knows HTTP, no database."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Any
from urllib.parse import quote

from myhealth.common.errors import too_many_attempts
from myhealth.profiles.upload_client import (
    ANSWER_MAX_BYTES,
    TIMEOUT_S,
    TOKENS_VALID_AFTER,
    BadGateway,
    GatewayTimeout,
    UploadApiUnavailable,
    is_timeout,
    retry_after_s_of,
    tokens_valid_after,
)

# What the upload API says of the caller and of whom it is about; anything else is a fault of its own.
TOLD = (400, 401, 403, 404, 409)


def delete_user(auth_url: str, username: str, token: str) -> tuple[int, dict[str, Any]]:
    """Asks the upload API at `auth_url` to delete a user and all that is his or hers: (204, {}) when it is done, else
    the status and the error that it said.

    Raises UploadAway where it does not answer, GatewayTimeout where it takes too long (it may have done it), BadGateway
    where it answers nonsense.
    """
    return _ask(_request("DELETE", auth_url, username, token), 204)


def change_password(
    auth_url: str, username: str, token: str, passwords: tuple[str, str], address: str = ""
) -> tuple[int, dict[str, Any]]:
    """The same of a user's own password, which is done with a 200, and tells (TOKENS_VALID_AFTER) when tokens ended.

    `passwords`: the current one and the new one; `address`: where the caller is, so that one who guesses slows down
    himself and nobody else. Also raises TooManyAttempts.
    """
    request = _request("PUT", auth_url, username, token)
    request.data = json.dumps({"current_password": passwords[0], "password": passwords[1]}).encode()
    request.add_header("Content-Type", "application/json")
    if address:
        request.add_header("X-Forwarded-For", address)
    return _ask(request, 200)


def _request(method: str, auth_url: str, username: str, token: str) -> urllib.request.Request:
    return urllib.request.Request(  # noqa: S310 - http or https: the settings take no other
        f"{auth_url.rstrip('/')}/users/{quote(username, safe='')}/",
        method=method,
        headers={"Authorization": f"Bearer {token}"},
    )


def _ask(request: urllib.request.Request, done: int) -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
            if answer.status != done:
                raise BadGateway("The upload API did not say whether it is done.")
            return done, {TOKENS_VALID_AFTER: tokens_valid_after(answer)} if done == 200 else {}
    except urllib.error.HTTPError as error:
        with error:
            return _told(error)
    except (OSError, HTTPException) as error:
        if is_timeout(error):
            raise GatewayTimeout("The upload API takes too long; look whether it is done.") from error
        raise UploadApiUnavailable("The upload API is away; try again in a moment.") from error


def _told(error: urllib.error.HTTPError) -> tuple[int, dict[str, Any]]:
    if error.code == 429:
        raise too_many_attempts(retry_after_s_of(error)) from error
    if error.code == 503:
        raise UploadApiUnavailable("The upload API cannot do it right now; try again in a moment.") from error
    try:
        said = json.loads(error.read(ANSWER_MAX_BYTES))
        if error.code in TOLD:
            return error.code, {"details": str(said["details"]), "code": str(said["code"])}
    except (OSError, HTTPException, ValueError, KeyError, TypeError) as fault:
        raise BadGateway("The upload API is not well.") from fault
    raise BadGateway("The upload API is not well.") from error
