"""What the browse API has the upload API do for somebody, with that somebody's own token. Knows HTTP, no database."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Any
from urllib.parse import quote

from myhealth.profiles.login import ANSWER_MAX_BYTES, TIMEOUT_S, BadGateway, GatewayTimeout, UploadAway, is_timeout

# What the upload API says of the caller and of whom it is about; anything else is a fault of its own.
TOLD = (400, 401, 403, 404, 409)


def delete_user(auth_url: str, username: str, token: str) -> tuple[int, dict[str, Any]]:
    """Asks the upload API at `auth_url` to delete a user and all that is his or hers: (204, {}) when it is done, else
    the status and the error that it said.

    Raises UploadAway where it does not answer, GatewayTimeout where it takes too long (it may have done it), BadGateway
    where it answers nonsense.
    """
    request = urllib.request.Request(  # noqa: S310 - http or https: the settings take no other
        f"{auth_url.rstrip('/')}/users/{quote(username, safe='')}/",
        method="DELETE",
        headers={"Authorization": f"Bearer {token}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
            if answer.status != 204:
                raise BadGateway("The upload API did not say whether it is done.")
            return 204, {}
    except urllib.error.HTTPError as error:
        with error:
            return _told(error)
    except (OSError, HTTPException) as error:
        if is_timeout(error):
            raise GatewayTimeout("The upload API takes too long; look whether it is done.") from error
        raise UploadAway("The upload API is away; try again in a moment.") from error


def _told(error: urllib.error.HTTPError) -> tuple[int, dict[str, Any]]:
    if error.code in (429, 503):
        raise UploadAway("The upload API cannot do it right now; try again in a moment.") from error
    try:
        said = json.loads(error.read(ANSWER_MAX_BYTES))
        if error.code in TOLD:
            return error.code, {"details": str(said["details"]), "code": str(said["code"])}
    except (OSError, HTTPException, ValueError, KeyError, TypeError) as fault:
        raise BadGateway("The upload API is not well.") from fault
    raise BadGateway("The upload API is not well.") from error
