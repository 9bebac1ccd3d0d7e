"""Calling the browse API as the task runner: a login that is renewed, gzip, a timeout, and what an answer means."""

from __future__ import annotations

import gzip
import json
import threading
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Any

from myhealth.common.errors import MyHealthError, SettingsError, Unavailable
from myhealth.common.settings import Settings
from myhealth.profiles.upload_client import UploadClient

TIMEOUT_S = 60.0
ANSWER_MAX_BYTES = 64 * 1024 * 1024
GZIP_LEVEL = 1  # packs such documents to a sixth; higher levels take longer than what they spare
# The browse API takes a service's token for what it says only while it is young; see wsgi/browse_api/context.py.
TOKEN_RENEWED_S = 600.0


class RequestRejected(MyHealthError):
    """The browse API does not take it, and never will. `answered`: its code for why."""

    def __init__(self, message: str, answered: str) -> None:
        super().__init__(message)
        self.answered = answered


class ReportsApiClient:
    """The browse API at `sync.reports_api_url`, called by `sync.username`. Safe to share between threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._url = settings.sync.reports_api_url.rstrip("/")
        self._token = ""
        self._renew_at = 0.0
        self._lock = threading.Lock()

    def call(self, verb: str, path: str, body: bytes | None = None) -> Any:
        """The answer, out of JSON. Raises Unavailable where a later call may be answered, Refused where it is not, and
        WrongSettings where somebody must change the settings."""
        try:
            return self._ask(verb, path, body, self._current_token())
        except _Ended:
            return self._ask(verb, path, body, self._current_token(anew=True), again=True)

    def _current_token(self, *, anew: bool = False) -> str:
        with self._lock:
            if anew or time.monotonic() >= self._renew_at:
                sync = self._settings.sync
                answer = UploadClient(self._settings.auth_url).log_in(sync.username, sync.password)
                if answer is None:
                    raise SettingsError(
                        f"the upload API at {self._settings.auth_url} does not let {sync.username} in",
                        hint="look at sync.username and sync.password",
                    )
                self._token, self._renew_at = answer["token"], time.monotonic() + TOKEN_RENEWED_S
            return self._token

    def _ask(self, verb: str, path: str, body: bytes | None, token: str, *, again: bool = False) -> Any:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "Content-Encoding": "gzip"}
        packed = None if body is None else gzip.compress(body, GZIP_LEVEL)
        request = urllib.request.Request(self._url + path, data=packed, headers=headers, method=verb)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310 - http or https, by settings
                text = answer.read(ANSWER_MAX_BYTES)
                if answer.status not in (200, 201):
                    raise Unavailable(f"the browse API at {self._url} answers {answer.status}")
        except urllib.error.HTTPError as error:
            raise self._fault(error, again) from error
        except (OSError, HTTPException) as error:
            raise Unavailable(f"the browse API at {self._url} is away: {error}") from error
        try:
            found = json.loads(text)
        except ValueError as error:
            raise Unavailable(f"the browse API at {self._url} answers what is no JSON") from error
        if not isinstance(found, dict):
            raise Unavailable(f"the browse API at {self._url} answers something else than was asked")
        return found

    def _fault(self, error: urllib.error.HTTPError, again: bool) -> MyHealthError:
        said, code = _said(error)
        if error.code == 401 and not again:
            return _Ended(said)
        if error.code in (401, 403):
            hint = f"give {self._settings.sync.username} the role service: myhealth users set-role"
            return SettingsError(f"the browse API at {self._url} does not let the sync in: {said}", hint=hint)
        if error.code in (404, 405):
            return SettingsError(f"sync.reports_api_url {self._url} is no browse API of this version: {said}")
        if error.code == 429 or error.code >= 500:
            return Unavailable(f"the browse API at {self._url} cannot do it now: {said}")
        return RequestRejected(said, code)


class _Ended(MyHealthError):
    """The token is not valid any more."""


def _said(error: urllib.error.HTTPError) -> tuple[str, str]:
    """The details and the code of an error, as wsgi/README.md has it; from a proxy it may be anything."""
    try:
        body = json.loads(error.read(64 * 1024))
        return f"{error.code} {body['details']}", str(body["code"])
    except (OSError, HTTPException, ValueError, KeyError, TypeError):
        return f"{error.code} {error.reason}", ""
