"""The target of the sync: the report store itself, or the browse API in front of it on another host.

Both keep the same promises, which one test checks: MongoDB has kept what a call reports as done (`w: majority`,
journaled), a call that raises has moved no checkpoint, and each call may be repeated.
"""

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from myhealth.common.errors import Unavailable
from myhealth.reports.bson_documents import Fingerprint
from myhealth.reports.documents import Document
from myhealth.reports.epochs import FIRST_ID
from myhealth.reports.writer import QuarantinedDocument, ReportWriter, WriteResult
from myhealth.sync.calls import CALLS, encode_document
from myhealth.sync.reports_api_client import ReportsApiClient, RequestRejected

# The most bytes of one request before compression; a single larger document has a request of its own.
REQUEST_BYTES = 8 * 1024 * 1024


class ReportsApi:
    """The report store through the browse API, as a user with the role service.

    It has the methods of `ReportWriter` that a sync calls. Those of the table `CALLS` are sent as they are.
    """

    def __init__(self, service: ReportsApiClient) -> None:
        self._service = service

    def insert(self, kind: str, documents: Sequence[Document]) -> WriteResult:
        return self._send(kind, documents, "/reports/?new=true" if kind == "checkup" else "/sync/call/insert_users")

    def put(self, kind: str, documents: Sequence[Document]) -> WriteResult:
        return self._send(kind, documents, "/reports/" if kind == "checkup" else "/sync/call/put_users")

    def quarantine(self, kind: str, refused: Sequence[tuple[Document, str]]) -> WriteResult:
        if not refused:
            return WriteResult()
        fields = ("_id", "epoch", "revision")
        each = [({name: document[name] for name in fields}, reason[:500]) for document, reason in refused]
        found: WriteResult = self._call("quarantine", kind, each)
        return found

    def newest_epoch(self) -> int:
        highest, after = self._call("newest_epoch_of_slice", FIRST_ID)
        while after is not None:
            found, after = self._call("newest_epoch_of_slice", after)
            highest = max(highest, found)
        return int(highest)

    def defer_index(self) -> None:
        """Do nothing: a first sync waits for HTTP here, not for the index."""

    def find_stored(self, kind: str, ids: Sequence[int]) -> Iterable[Fingerprint]:
        found: list[Fingerprint] = self._call("fingerprints", kind, ids)
        return found

    def __getattr__(self, method: str) -> Any:
        if method not in CALLS:
            raise AttributeError(method)
        return functools.partial(self._call, method)

    def _call(self, method: str, *arguments: Any) -> Any:
        response = self._service.call("POST", f"/sync/call/{method}", msgspec.json.encode(arguments))
        return _decode_result(response, CALLS[method].result)

    def _send(self, kind: str, documents: Sequence[Document], path: str) -> WriteResult:
        done = WriteResult()
        refused: list[tuple[Document, str]] = []
        for part in _split_into_requests(documents, refused):
            content = b"[" + b",".join(each for _, each in part) + b"]"
            try:
                response = self._service.call("POST", path, content if kind == "checkup" else b"[" + content + b"]")
            except RequestRejected as error:
                if error.reason != "too_large" or len(part) > 1:
                    raise
                refused.append((part[0][0], f"the browse API does not take it: {error.message}"))
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
