"""Asking the upload API whether a name and a password are right. Knows HTTP, and nothing of databases."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from datetime import datetime
from http.client import HTTPException
from typing import Any

from myhealth.common.errors import Unavailable, too_many_attempts

TIMEOUT_S = 10
ANSWER_MAX_BYTES = 64 * 1024
# Of an answer that ended tokens: from when on one must be, RFC 3339.
TOKENS_VALID_AFTER = "Tokens-Valid-After"


class BadGateway(Unavailable):
    """The upload API answered, but not what a login is answered with."""

    status, code = 502, "bad_gateway"


class GatewayTimeout(Unavailable):
    """The upload API takes too long."""

    status, code = 504, "gateway_timeout"


class UploadApiUnavailable(Unavailable):
    """The upload API does not answer, or cannot."""


class AuthServiceUnavailable(UploadApiUnavailable):
    """The same, for logins."""


def ask_upload_api(auth_url: str, username: Any, password: Any, address: str = "") -> dict[str, Any] | None:
    """`{"token", "expires_at"}` from the upload API at `auth_url`, or None where the name or the password is wrong.

    `address`: where the caller is, so that one who guesses passwords slows down himself and nobody else.

    Raises TooManyAttempts where somebody has guessed too often, LoginsAway where it does not answer or is unwell
    itself, GatewayTimeout where it takes too long, BadGateway where it answers nonsense.
    """
    headers = {"Content-Type": "application/json", **({"X-Forwarded-For": address} if address else {})}
    request = urllib.request.Request(  # noqa: S310 - http or https: the settings take no other
        auth_url.rstrip("/") + "/login/",
        data=json.dumps({"username": username, "password": password}).encode(),
        headers=headers,
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
            found = json.loads(answer.read(ANSWER_MAX_BYTES))
            return {"token": str(found["token"]), "expires_at": str(found["expires_at"])}
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in (400, 401):
            return None
        if error.code == 429:
            raise too_many_attempts(retry_after_s_of(error)) from error
        if error.code == 503:
            raise AuthServiceUnavailable("Logging in is not possible right now; try again in a moment.") from error
        if error.code == 504:  # a gateway before the upload API
            raise GatewayTimeout("Logging in takes too long right now; try again in a moment.") from error
        raise BadGateway("Logging in is not possible right now: the upload API is not well.") from error
    except (OSError, HTTPException) as error:
        if is_timeout(error):
            raise GatewayTimeout("Logging in takes too long right now; try again in a moment.") from error
        raise AuthServiceUnavailable("Logging in is not possible right now; try again in a moment.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise BadGateway("Logging in is not possible right now: the upload API is not well.") from error


def retry_after_s_of(error: urllib.error.HTTPError) -> int:
    text = error.headers.get("Retry-After", "")
    return min(int(text), 3600) if text.isascii() and text.isdecimal() and len(text) < 10 else 60


def end_logins(auth_url: str, token: str) -> datetime | None:
    """Ends every token that the holder of this one has been given, at the upload API at `auth_url`; gives the moment
    from which on one must be.

    A token that has ended already is as good (None). Raises Unavailable where the upload API cannot be asked.
    """
    request = urllib.request.Request(  # noqa: S310 - http or https: the settings take no other
        auth_url.rstrip("/") + "/logout/", data=b"", headers={"Authorization": f"Bearer {token}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
            return tokens_valid_after(answer)
    except urllib.error.HTTPError as error:
        if error.code != 401:
            raise AuthServiceUnavailable(
                "Logging out everywhere is not possible right now; try again in a moment."
            ) from error
        return None
    except (OSError, HTTPException) as error:
        raise AuthServiceUnavailable(
            "Logging out everywhere is not possible right now; try again in a moment."
        ) from error


def tokens_valid_after(answer: Any) -> datetime | None:
    """What the answer's header says, if it has one that can be read."""
    try:
        moment = datetime.fromisoformat(answer.headers.get(TOKENS_VALID_AFTER, ""))
    except ValueError:
        return None
    return moment if moment.tzinfo else None


def is_timeout(error: Exception) -> bool:
    """Whether nothing came in time, rather than that nobody was there."""
    return isinstance(error, TimeoutError) or isinstance(getattr(error, "reason", None), TimeoutError)
