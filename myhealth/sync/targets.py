"""The target of the sync: the report store itself, or the browse API in front of it on another host.

Both keep the same promises, which one test checks: MongoDB has kept what a call reports as done (`w: majority`,
journaled), a call that raises has moved no checkpoint, and each call may be repeated.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import msgspec

from myhealth.common.errors import Unavailable
from myhealth.reports.documents import Document
from myhealth.reports.epochs import FIRST_ID
from myhealth.reports.json_codec import encode_document
from myhealth.reports.writer import LeaseLost, QuarantinedDocument, WriteResult
from myhealth.sync.reports_api_client import ReportsApiClient, RequestRejected

# The most bytes of one request before compression; a single larger document has a request of its own.
REQUEST_BYTES = 8 * 1024 * 1024
PATHS = {"checkup": "/reports/", "user": "/sync/users/"}
Aside = Sequence[tuple[Document, str]]


class Target(Protocol):
    """The calls that the runner makes; `ReportWriter` describes each."""

    def insert(self, kind: str, documents: Sequence[Document]) -> WriteResult: ...

    def put(self, kind: str, documents: Sequence[Document]) -> WriteResult: ...

    def quarantine(self, kind: str, refused: Aside) -> WriteResult: ...

    def remove(self, kind: str, dead: Iterable[tuple[int, int]], epoch: int) -> int: ...

    def sweep(self, epoch: int, after: int = FIRST_ID) -> tuple[int, int | None]: ...

    def newest_epoch(self) -> int: ...

    def has_documents_after(self, kind: str, id_: int) -> bool: ...

    def prepare(self) -> str: ...

    def defer_index(self) -> None: ...

    def identity(self) -> str: ...

    def read_checkpoint(self) -> Document | None: ...

    def begin(self, checkpoint: Document) -> None: ...

    def write_checkpoint(self, checkpoint: Document, run: str) -> None: ...

    def quarantined_ids(self, kind: str) -> list[int]: ...

    def count_quarantined(self) -> int: ...


class ReportsApi:
    """The report store through the browse API, as a user with the role service."""

    def __init__(self, service: ReportsApiClient) -> None:
        self._service = service

    def insert(self, kind: str, documents: Sequence[Document]) -> WriteResult:
        return self._send(kind, documents, "?new=true")

    def put(self, kind: str, documents: Sequence[Document]) -> WriteResult:
        return self._send(kind, documents, "")

    def quarantine(self, kind: str, refused: Aside) -> WriteResult:
        if not refused:
            return WriteResult()
        fields = ("_id", "epoch", "revision")
        each = [{**{name: document[name] for name in fields}, "reason": reason[:500]} for document, reason in refused]
        self._call("POST", "/sync/failures/", {"kind": kind, "refused": each})
        return WriteResult(
            quarantined=[QuarantinedDocument(kind, document["_id"], reason) for document, reason in refused]
        )

    def remove(self, kind: str, dead: Iterable[tuple[int, int]], epoch: int) -> int:
        body = {"kind": kind, "epoch": epoch, "dead": list(dead)}
        return int(self._call("POST", "/sync/deletions/", body)["removed"]) if body["dead"] else 0

    def sweep(self, epoch: int, after: int = FIRST_ID) -> tuple[int, int | None]:
        found = self._call("POST", "/sync/sweeps/", {"epoch": epoch, "after": after})
        return int(found["removed"]), found["after"]

    def newest_epoch(self) -> int:
        found = self._call("GET", "/sync/epoch/")
        highest = found["epoch"]
        while found["after"] is not None:
            found = self._call("GET", f"/sync/epoch/?after={found['after']}")
            highest = max(highest, found["epoch"])
        return int(highest)

    def has_documents_after(self, kind: str, id_: int) -> bool:
        """Ask for reports alone: `put` writes users in any case."""
        return kind == "user" or bool(self._call("GET", f"/sync/epoch/?after={id_}")["found"])

    def prepare(self) -> str:
        return str(self._call("POST", "/sync/collections/", {})["identity"])

    def defer_index(self) -> None:
        """Do nothing: a first sync waits for HTTP here, not for the index."""

    def identity(self) -> str:
        return str(self._call("GET", "/sync/collections/")["identity"])

    def read_checkpoint(self) -> Document | None:
        found: Document | None = self._call("GET", "/sync/mark/")["mark"]
        return found

    def begin(self, checkpoint: Document) -> None:
        self._call("POST", "/sync/mark/", {"mark": checkpoint})

    def write_checkpoint(self, checkpoint: Document, run: str) -> None:
        try:
            self._call("PUT", "/sync/mark/", {"mark": checkpoint, "run": run})
        except RequestRejected as error:
            if error.reason == "taken_over":
                raise LeaseLost(error.message) from error
            raise

    def quarantined_ids(self, kind: str) -> list[int]:
        return [int(each) for each in self._call("GET", f"/sync/failures/?kind={kind}")["ids"]]

    def count_quarantined(self) -> int:
        return int(self._call("GET", "/sync/failures/count/")["count"])

    def _call(self, verb: str, path: str, body: Any = None) -> Any:
        return self._service.call(verb, path, None if body is None else msgspec.json.encode(body))

    def _send(self, kind: str, documents: Sequence[Document], query: str) -> WriteResult:
        done = WriteResult()
        refused: list[tuple[Document, str]] = []
        for part in _parts(documents, refused):
            try:
                found = self._service.call(
                    "POST", PATHS[kind] + query, b"[" + b",".join(each for _, each in part) + b"]"
                )
            except RequestRejected as error:
                if error.reason != "too_large" or len(part) > 1:
                    raise
                refused.append((part[0][0], f"the browse API does not take it: {error.message}"))
                continue
            failed = [QuarantinedDocument(kind, each["id"], each["reason"]) for each in found["failed"]]
            if found["written"] + found["unchanged"] + len(failed) != len(part):
                raise Unavailable("the browse API does not report the result of each document")
            done += WriteResult(found["written"], found["unchanged"], quarantined=failed)
        return done + self.quarantine(kind, refused)


def _parts(
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
