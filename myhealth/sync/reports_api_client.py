"""The browse API as the task runner calls it: a renewed login, signatures, gzip, the meaning of each status."""

import gzip
import threading
import time
from typing import Any

from myhealth.common.errors import MyHealthError, SettingsError, Unavailable
from myhealth.common.http_client import HttpClient, Response
from myhealth.common.settings import Settings
from myhealth.profiles.upload_client import UploadClient
from myhealth.reports.writer import LeaseLost
from myhealth.sync.signature import HEADER, RequestSigner

TIMEOUT_S = 60.0
RESPONSE_MAX_BYTES = 64 * 1024 * 1024
GZIP_LEVEL = 1  # packs such documents to a sixth; a higher level takes longer than it saves
TOKEN_RENEWED_S = 600.0
SIGNATURE_HINT = "look at sync.signing_key here, at browse.sync_public_key there, and at both clocks"


class RequestRejected(MyHealthError):
    """The browse API rejects the request, now and later. `reason`: the code of its error."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class ReportsApiClient:
    """The browse API at `sync.reports_api_url`, called by `sync.username` with `sync.signing_key`.

    Safe to share between threads.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._signer = RequestSigner(settings.sync.signing_key)
        self._url = settings.sync.reports_api_url
        self._http = HttpClient(self._url, timeout_s=TIMEOUT_S, response_max_bytes=RESPONSE_MAX_BYTES)
        self._token = ""
        self._renew_at = 0.0
        self._lock = threading.Lock()

    def call(self, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        """Return the response's JSON object. Every call of the sync may be repeated without harm.

        The body is compressed and the request signed; a response 401 has it signed anew, with a new login.

        Raises Unavailable if a later call may succeed, RequestRejected if it may not, and SettingsError if the settings
        must be changed first.
        """
        packed = None if body is None else gzip.compress(body, GZIP_LEVEL)
        response = self._send(method, path, packed, self._current_token())
        if response.status == 401:
            response = self._send(method, path, packed, self._current_token(renew=True))
        if response.status not in (200, 201):
            raise self._error(response)
        return response.json_object()

    def _current_token(self, *, renew: bool = False) -> str:
        with self._lock:
            if renew or time.monotonic() >= self._renew_at:
                sync = self._settings.sync
                answer = UploadClient(self._settings.auth_url).log_in(sync.username, sync.password)
                if answer is None:
                    raise SettingsError(
                        f"the upload API at {self._settings.auth_url} does not let {sync.username} in",
                        hint="look at sync.username and sync.password",
                    )
                self._token, self._renew_at = answer["token"], time.monotonic() + TOKEN_RENEWED_S
            return self._token

    def _send(self, method: str, path: str, packed: bytes | None, token: str) -> Response:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "Content-Encoding": "gzip"}
        headers[HEADER] = self._signer.sign(method, path, packed or b"")
        return self._http.call(method, path, packed, headers, repeatable=True)

    def _error(self, response: Response) -> MyHealthError:
        details, code = response.error()
        message, status = f"{response.status} {details}", response.status
        if status in (401, 403):
            hint = f"give {self._settings.sync.username} the role service: myhealth users set-role"
            hint = SIGNATURE_HINT if code.startswith("signature_") else hint
            return SettingsError(f"the browse API at {self._url} does not let the sync in: {message}", hint=hint)
        if status in (404, 405):
            return SettingsError(f"sync.reports_api_url {self._url} is no browse API of this version: {message}")
        if code == "taken_over":
            return LeaseLost(details)
        if status < 400 or status in (409, 429) or status >= 500:
            return Unavailable(f"the browse API at {self._url} cannot do it now: {message}")
        return RequestRejected(message, code)
