"""Calling the browse API as the task runner: a login that is renewed, gzip, a timeout, and what an answer means."""

from __future__ import annotations

import gzip
import threading
import time
from typing import Any

from myhealth.common.errors import MyHealthError, SettingsError, Unavailable
from myhealth.common.http_client import BadResponse, HttpClient, NoResponse, Response
from myhealth.common.settings import Settings
from myhealth.profiles.upload_client import UploadClient

TIMEOUT_S = 60.0
RESPONSE_MAX_BYTES = 64 * 1024 * 1024
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
        self._http = HttpClient(self._url, timeout_s=TIMEOUT_S, response_max_bytes=RESPONSE_MAX_BYTES)
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
        try:
            response = self._http.call(verb, path, packed, headers, repeatable=True)
            if response.status in (200, 201):
                return response.json_object()
        except NoResponse as error:
            raise Unavailable(f"the browse API at {self._url} is away: {error}") from error
        except BadResponse as error:
            raise Unavailable(f"the browse API at {self._url} answers wrongly: {error}") from error
        raise self._error(response, again)

    def _error(self, response: Response, again: bool) -> MyHealthError:
        details, code = response.error()
        message = f"{response.status} {details}"
        if response.status == 401 and not again:
            return _Ended(message)
        if response.status in (401, 403):
            hint = f"give {self._settings.sync.username} the role service: myhealth users set-role"
            return SettingsError(f"the browse API at {self._url} does not let the sync in: {message}", hint=hint)
        if response.status in (404, 405):
            return SettingsError(f"sync.reports_api_url {self._url} is no browse API of this version: {message}")
        if response.status == 429 or response.status >= 500:
            return Unavailable(f"the browse API at {self._url} cannot do it now: {message}")
        if response.status < 400:  # a redirect is not followed: it would take the token to another host
            return Unavailable(f"the browse API at {self._url} answers {message}")
        return RequestRejected(message, code)


class _Ended(MyHealthError):
    """The token is not valid any more."""
