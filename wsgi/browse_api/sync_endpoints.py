"""The task runner's own calls, for when it runs on another host than the report store. For role service alone."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, TypeVar

import bottle
import msgspec
from msgspec import Meta

from myhealth.common.errors import BadInput
from myhealth.reports.epochs import FIRST_ID
from myhealth.reports.json_codec import Count, Id, decode_documents
from myhealth.reports.writer import KINDS, LeaseLost, ReportWriter, WriteResult
from wsgi.browse_api.context import BrowseContext
from wsgi.common.application import json_error
from wsgi.common.openapi import Operation
from wsgi.common.requests import bearer_token, query_flag, read_body
from wsgi.common.views import View, json_response

T = TypeVar("T")
WHO = "service"
AFTER = ("after", {"type": "integer"}, "Where the slice begins; the answer before has it.")
NEW = ("new", {"type": "boolean"}, "They are believed to be new, which is quicker where it is so.")
KIND = ("kind", {"enum": list(KINDS)}, "Of what.")
OURS = {400: "The body, or a parameter, is not what this call takes.", 403: "For the role service only."}
OVER = {409: "Another sync has begun a pass meanwhile: code `taken_over`."}


def service_operation(
    summary: str, schema: str, *, body: str | None = None, status: int = 200, **more: Any
) -> Operation:
    """A call for the task runner; `more`: what else an Operation says."""
    errors = {**OURS, **more.pop("errors", {})}
    return Operation(summary, {status: ("Done, and kept.", schema)}, WHO, body=body, errors=errors, **more)


Kind = Annotated[str, Meta(pattern="^(checkup|user)$")]


class _Refusal(msgspec.Struct, forbid_unknown_fields=True):
    id: Id = msgspec.field(name="_id")
    epoch: Count
    revision: Count
    reason: str


class _Refusals(msgspec.Struct, forbid_unknown_fields=True):
    kind: Kind
    refused: list[_Refusal]


class _Deletions(msgspec.Struct, forbid_unknown_fields=True):
    kind: Kind
    epoch: Count
    dead: list[tuple[Id, Count]]


class _Sweep(msgspec.Struct, forbid_unknown_fields=True):
    epoch: Count
    after: Id = FIRST_ID


class _Mark(msgspec.Struct, forbid_unknown_fields=True):
    mark: dict[str, Any]
    run: str = ""


class ServiceView(View):
    """For views that the task runner alone may call."""

    context: BrowseContext

    def prepare(self) -> None:
        super().prepare()
        self.context.require_service(bearer_token())
        self.writer = ReportWriter(self.context.reports, audit_days=self.context.settings.retention.audit_days)

    def body(self) -> bytes:
        return read_body(self.context.settings.upload.max_body_bytes)

    def read(self, form: type[T]) -> T:
        try:
            return msgspec.json.decode(self.body(), type=form)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise BadInput(f"The body is not what this call takes: {error}") from error


class DocumentsView(ServiceView):
    """Takes documents in; `?new=true`: they are believed to be new, which is quicker where it is so."""

    kind: ClassVar[str]
    ids: ClassVar[str]

    def post(self) -> Any:
        new, documents = query_flag("new"), decode_documents(self.kind, self.body())
        if len({document["_id"] for document in documents}) != len(documents):
            raise BadInput("The list has two documents of one _id.")
        done: WriteResult = (self.writer.insert if new else self.writer.put)(self.kind, documents)
        failed = {failure.id: failure.reason for failure in done.quarantined}
        answer = {
            self.ids: [document["_id"] for document in documents if document["_id"] not in failed],
            "written": done.written,
            "unchanged": done.unchanged,
            "failed": [{"id": id_, "reason": reason} for id_, reason in failed.items()],
        }
        return json_response(answer, 201)


class UserDocumentsView(DocumentsView):
    """What browsing has to know of users."""

    spec = {
        "post": service_operation("Take users in", "TakenUsers", body="UserDocuments", status=201, query=(NEW,)),
    }

    kind, ids = "user", "user_ids"


class ReportDocumentsView(DocumentsView):
    """Reports, as the report store has them."""

    spec = {
        "post": service_operation("Take reports in", "TakenReports", body="ReportDocuments", status=201, query=(NEW,)),
    }

    kind, ids = "checkup", "report_ids"


class DeletionsView(ServiceView):
    """Removes documents, by (id, revision of the deletion), unless something newer is there."""

    spec = {
        "post": service_operation("Remove documents", "Removed", body="Deletions"),
    }

    def post(self) -> Any:
        asked = self.read(_Deletions)
        return json_response({"removed": self.writer.remove(asked.kind, asked.dead, asked.epoch)})


class SweepsView(ServiceView):
    """Removes what an earlier epoch left behind, one slice of the ids a call."""

    spec = {
        "post": service_operation("Remove a slice of an earlier epoch", "Swept", body="Sweep"),
    }

    def post(self) -> Any:
        asked = self.read(_Sweep)
        removed, after = self.writer.sweep(asked.epoch, asked.after)
        return json_response({"removed": removed, "after": after})


class EpochView(ServiceView):
    """The highest epoch among the documents of one slice, and whether there is a report in it."""

    spec = {
        "get": service_operation("The highest epoch in a slice", "Epoch", query=(AFTER,)),
    }

    def get(self) -> Any:
        try:
            after = int(bottle.request.query.get("after", FIRST_ID))
        except ValueError:
            raise BadInput("after must be a number.") from None
        after = max(FIRST_ID, min(after, 2**63 - 1))
        epoch, last = self.writer.newest_epoch_of_slice(after)
        found = self.writer.has_documents_after("checkup", after)
        return json_response({"epoch": epoch, "after": last, "found": found})


class CollectionsView(ServiceView):
    """Which collections there are, and making those that are missing."""

    spec = {
        "get": service_operation("Which collections there are", "Collections"),
        "post": service_operation("Make the collections that are missing", "Collections"),
    }

    def get(self) -> Any:
        return json_response({"identity": self.writer.identity()})

    def post(self) -> Any:
        return json_response({"identity": self.writer.prepare()})


class FailuresView(ServiceView):
    """What was set aside: the ids of it, and more of it."""

    spec = {
        "get": service_operation("What was set aside", "FailedIds", query=(KIND,)),
        "post": service_operation("Set documents aside", "Kept", body="Refusals"),
    }

    def get(self) -> Any:
        kind = bottle.request.query.get("kind", "")
        if kind not in KINDS:
            raise BadInput(f"kind must be one of {', '.join(KINDS)}.")
        return json_response({"ids": self.writer.quarantined_ids(kind)})

    def post(self) -> Any:
        asked = self.read(_Refusals)
        refused = [({"_id": r.id, "epoch": r.epoch, "revision": r.revision}, r.reason) for r in asked.refused]
        self.writer.quarantine(asked.kind, refused)
        return json_response({"kept": len(refused)})


class MarkView(ServiceView):
    """The mark: GET it, PUT it where it is still `run`'s, POST one whatever is there."""

    spec = {
        "get": service_operation("The mark", "Mark"),
        "put": service_operation("Move the mark", "Kept", body="MarkMoved", errors=OVER),
        "post": service_operation("Set the mark", "Kept", body="MarkMoved"),
    }

    def get(self) -> Any:
        mark = self.writer.read_checkpoint()
        return json_response({"mark": mark and {name: value for name, value in mark.items() if name != "_id"}})

    def put(self) -> Any:
        asked = self.read(_Mark)
        try:
            self.writer.write_checkpoint(asked.mark, asked.run)
        except LeaseLost as error:
            return json_error(409, error.message, "taken_over")
        return json_response({"kept": True})

    def post(self) -> Any:
        self.writer.begin(self.read(_Mark).mark)
        return json_response({"kept": True})


class FailuresCountView(ServiceView):
    """How much is set aside."""

    spec = {
        "get": service_operation("How much is set aside", "Count"),
    }

    def get(self) -> Any:
        return json_response({"count": self.writer.count_quarantined()})


SYNC_VIEWS: dict[str, Any] = {
    "/sync/users/": UserDocumentsView,
    "/sync/deletions/": DeletionsView,
    "/sync/sweeps/": SweepsView,
    "/sync/epoch/": EpochView,
    "/sync/collections/": CollectionsView,
    "/sync/failures/": FailuresView,
    "/sync/mark/": MarkView,
    "/sync/failures/count/": FailuresCountView,
}
