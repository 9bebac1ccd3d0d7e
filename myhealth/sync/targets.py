"""The target of the sync: the report store itself, or the browse API in front of it on another host, which is called
with a renewed login, signatures and gzip.

Both keep the same promises, which one test checks: MongoDB has kept what a call reports as done (`w: majority`,
journaled), a call that raises has moved no checkpoint, and each call may be repeated.
"""

import functools
import gzip
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import msgspec

from myhealth.common.errors import MyHealthError, SettingsError, Unavailable
from myhealth.common.http_client import HttpClient, Response
from myhealth.common.settings import Settings
from myhealth.profiles.upload_client import UploadClient
from myhealth.reports.bson_documents import Fingerprint
from myhealth.reports.documents import Document
from myhealth.reports.writer import LeaseLost, QuarantinedDocument, ReportWriter, WriteResult
from myhealth.sync.calls import CALLS, encode_document
from myhealth.sync.signature import HEADER, RequestSigner

TIMEOUT_S = 60.0
RESPONSE_MAX_BYTES = 64 * 1024 * 1024
GZIP_LEVEL = 1  # packs such documents to a sixth; a higher level takes longer than it saves
TOKEN_RENEWED_S = 600.0
SIGNATURE_HINT = "look at sync.signing_key here, at browse.sync_public_key there, and at both clocks"


class RequestRejected(MyHealthError):
    """The browse API rejects the request, now and later. `code`: that of its error."""


# The most bytes of one request before compression; a single larger document has a request of its own.
REQUEST_BYTES = 8 * 1024 * 1024


class ReportsApi:
    """The report store through the browse API at `sync.reports_api_url`, as `sync.username`, a user with the role
    service, with `sync.signing_key`. Safe to share between threads.

    It has the methods of `ReportWriter` that a sync calls. Those of the table `CALLS` are sent as they are.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._signer = RequestSigner(settings.sync.signing_key)
        self._url = settings.sync.reports_api_url
        self._http = HttpClient(self._url, timeout_s=TIMEOUT_S, response_max_bytes=RESPONSE_MAX_BYTES)
        self._token = ""
        self._renew_at = 0.0
        self._lock = threading.Lock()

    def insert(self, kind: str, documents: Sequence[Document]) -> WriteResult:
        return self._write(kind, documents, "/reports/?new=true" if kind == "checkup" else "/sync/call/insert_users")

    def put(self, kind: str, documents: Sequence[Document]) -> WriteResult:
        return self._write(kind, documents, "/reports/" if kind == "checkup" else "/sync/call/put_users")

    def quarantine(self, kind: str, refused: Sequence[tuple[Document, str]]) -> WriteResult:
        if not refused:
            return WriteResult()
        fields = ("_id", "epoch", "revision")
        each = [({name: document[name] for name in fields}, reason[:500]) for document, reason in refused]
        return cast("WriteResult", self._call("quarantine", kind, each))

    def defer_index(self) -> None:
        """Do nothing: a first sync waits for HTTP here, not for the index."""

    def find_stored(self, kind: str, ids: Sequence[int]) -> Iterable[Fingerprint]:
        return cast("list[Fingerprint]", self._call("fingerprints", kind, ids))

    def __getattr__(self, method: str) -> Any:
        if method not in CALLS:
            raise AttributeError(method)
        return functools.partial(self._call, method)

    def _call(self, method: str, *arguments: Any) -> Any:
        response = self._request(f"/sync/call/{method}", msgspec.json.encode(arguments))
        return _decode_result(response, CALLS[method].result)

    def _write(self, kind: str, documents: Sequence[Document], path: str) -> WriteResult:
        done = WriteResult()
        refused: list[tuple[Document, str]] = []
        for part in _split_into_requests(documents, refused):
            content = b"[" + b",".join(each for _, each in part) + b"]"
            try:
                response = self._request(path, content if kind == "checkup" else b"[" + content + b"]")
            except RequestRejected as error:
                if error.code != "too_large" or len(part) > 1:
                    raise
                refused.append((part[0][0], f"the browse API rejects it: {error.message}"))
                continue
            if kind == "checkup":
                failed = [QuarantinedDocument(kind, each["id"], each["reason"]) for each in response["failed"]]
                found = WriteResult(response["written"], response["unchanged"], quarantined=failed)
            else:
                found = _decode_result(response, WriteResult)
            if found.written + found.unchanged + len(found.quarantined) != len(part):
                raise Unavailable("the browse API does not report the result of each document")
            done += found
        return done + self.quarantine(kind, refused)

    # -- the requests ---------------------------------------------------------------------------------------------

    def _request(self, path: str, body: bytes) -> dict[str, Any]:
        """POST the body; return the response's JSON object. Every call of the sync may be repeated without harm.

        The body is compressed and the request signed. After a 401 the request is signed again, with a new login.

        Raises Unavailable if a later call may succeed, RequestRejected if it may not, and SettingsError if the settings
        must be changed first.
        """
        packed = gzip.compress(body, GZIP_LEVEL)
        response = self._send(path, packed, self._current_token())
        if response.status == 401:
            response = self._send(path, packed, self._current_token(renew=True))
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

    def _send(self, path: str, packed: bytes, token: str) -> Response:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "Content-Encoding": "gzip"}
        headers[HEADER] = self._signer.sign("POST", path, packed)
        return self._http.call("POST", path, packed, headers, repeatable=True)

    def _error(self, response: Response) -> MyHealthError:
        details, code = response.error()
        message, status = f"{response.status} {details}", response.status
        if status in (401, 403):
            hint = f"give {self._settings.sync.username} the role service: myhealth users set-role"
            hint = SIGNATURE_HINT if code.startswith("signature_") else hint
            return SettingsError(f"the browse API at {self._url} does not let the sync in: {message}", hint=hint)
        if status in (404, 405):
            return SettingsError(f"sync.reports_api_url {self._url} is not a browse API of this version: {message}")
        if code == "taken_over":
            return LeaseLost(details)
        if status < 400 or status in (409, 429) or status >= 500:
            return Unavailable(f"the browse API at {self._url} cannot do it now: {message}")
        return RequestRejected(message, code=code)


Target = ReportWriter | ReportsApi


def _decode_result(response: dict[str, Any], form: Any) -> Any:
    try:
        return msgspec.convert(response["result"], form)
    except (KeyError, msgspec.ValidationError) as error:
        raise Unavailable("the browse API's answer is not one of this version") from error


def _split_into_requests(
    documents: Sequence[Document], refused: list[tuple[Document, str]]
) -> Iterator[list[tuple[Document, bytes]]]:
    """Yield (document, its JSON), as many as fit into a request; append what JSON cannot hold to `refused`."""
    part: list[tuple[Document, bytes]] = []
    size = 0
    for document in documents:
        try:
            text = encode_document(document)
        except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError, TypeError) as error:
            refused.append((document, f"JSON cannot hold it: {error}"))
            continue
        if part and size + len(text) > REQUEST_BYTES:
            yield part
            part, size = [], 0
        part.append((document, text))
        size += len(text)
    if part:
        yield part
